// exec: the GPU executor in four rooms, and what they share: the struct below.
//
//     device.cu   what GPU there is
//     setup.cu    what lies where on it: memory, weights; the executor's beginning and end
//     run_ops.cu  the tape: from ops to launches
//     exec.cu     batches, and a decode loop that the GPU drives
//
// No function here is for others: these use cuda.h.
#pragma once
#include <unordered_map>
#include <vector>

#include "../launch.h"
#include "upload.h"
extern "C" {
#include "../cuda.h"
}

constexpr int RING_STEPS = 64; // more than the host is behind

struct Exec {
    const Plan *plan;
    ExecConfig config;
    Launch launch;
    Upload *upload; // owns the weights
    std::unordered_map<const Weight *, DeviceWeight> weights;
    std::unordered_map<const void *, void *> vectors; // host pointer of the plan -> device copy
    std::unordered_map<const Op *, double *> frequencies;
    std::unordered_map<const Op *, Link *> links; // in small
    uint8_t *regs[2], *kv, *small, *scratch;      // one allocation per purpose
    std::vector<size_t> kv_offset;
    Gemm *gemm;
    struct Arrays { // of a batch, in `small`
        int32_t *token, *seq, *position, *out_row, *out_seq, *next_token, *next_position;
    } d;
    int32_t *staging; // pinned, the same arrays on the host
    DeviceSampler *samplers, *samplers_host;
    int32_t *history, *banned;
    uint32_t *step_counter;
    RingEntry *ring; // pinned, seen by both
    void *attn_scratch, *sample_scratch;
    float *logits_host;                             // [R_max][n_vocab], for read
    const Batch *batch;                             // of the running run
    std::unordered_map<int, cudaGraphExec_t> graph; // a captured step by its bucket
    struct {
        int n, bucket, n_steps, enqueued, taken;
    } decode;
    std::vector<int32_t> decode_position; // [decode.n] of the first step
};

// Rows of a captured step: the next power of two, filled up with rows of padding.
inline int bucket_of(int n) {
    int bucket = 1;
    while (bucket < n) bucket *= 2;
    return bucket;
}

// Floats from row to row of a register.
inline int stride_of(const Exec *x, int reg) {
    return (int)(plan_row_bytes(x->plan, reg, FORM_F32) / sizeof(float));
}

// Where its rows begin; of a view, in its base.
inline float *reg(const Exec *x, int r) {
    const Reg *info = &x->plan->regs[r];
    int rows_max = info->on_R ? x->config.R_max : x->config.T_max;
    return (float *)(x->regs[info->on_R] + info->offset[FORM_F32] * rows_max) + info->column;
}

struct Step { // what a walk is for
    int T, R;
    bool decode;
};

// Launches ops first_op..last_op-1 on the stream.  Within a capture that is all.
cudaError_t walk(Exec *x, const Step &step, int first_op, int last_op);

// ERR_RUN, or ERR_MEMORY where the device has none left.  Returns false.
bool fail(Err *e, cudaError_t error, const char *what);

// See ExecOps.
bool cuda_memory(const Plan *p, const ExecConfig *config, ExecMemory *out, Err *e);
bool cuda_open(const Plan *p, const ExecConfig *config, Exec **out, Err *e);
void cuda_close(Exec *x);
