// exec: the GPU executor in six files, and the structs that they share.
//
//     device.cu   which GPUs there are
//     setup.cu    memory and weights of a GPU; opening and closing the executor
//     run_ops.cu  the tape: from ops to launches
//     fusion.cu    which ops of a single row one kernel runs
//     exec.cu     runs, registers, profile, and the interface
//     loop.cu     the decode loop: slots, steps ahead of the host, the ring
//
// Rank is what one GPU has, Exec is what the executor has.  The functions here are used in cuda/exec only;
// everything else uses cuda.h.
#pragma once
#include <unordered_map>
#include <vector>

#include "../launch.h"
#include "upload.h"
extern "C" {
#include "../cuda.h"
}

constexpr int MAX_RANKS = 1;
constexpr int AHEAD = 8;             // decode steps enqueued beyond the last one that was fetched
constexpr int RING_STEPS = 64;       // steps whose tokens the ring holds
constexpr int CHAIN_GRAPH = 1 << 30; // added to the bucket of a step in which some row has a chain of its own
static_assert(AHEAD < RING_STEPS, "or entries would be overwritten before they are read");

// The device memory of an op, beside registers and the cache.
struct DeviceOp {
    DeviceWeight w[OP_MAX_SEGMENTS];
    // Of a norm: its bias in bias[0], its weight in vector; of ROUTE: bias[0].
    const float *bias[OP_MAX_SEGMENTS], *vector;
    const float *state[3];     // vectors of an op with a state: weight and bias; a, dt_bias and d
    const float *head_norm[3]; // of attention: weights of the norms of q, k and v
    const float *sinks;
    const double *frequency; // of a rotation, radians per position [n_rot / 2]
    FlaggedOutput *flagged;
};

// Device memory of what a sampler points to beside its bans: biases and sequence breakers.  Grown when a
// request needs more.
struct SamplerTables {
    uint8_t *data;
    size_t bytes;
};

// Rows on the device, and the state of their SAMPLE.  A rank has one set for batches and one for the decode
// loop.
struct RowSet {
    DeviceRows rows;
    int32_t *run;     // of a batch: the first row of each run of rows of one sequence, and T [T_max + 1]
    AttnPiece *piece; // of a batch: the runs of prompts [T_max]
    uint32_t *banned; // sets of ban_words: [R_max] by row of the batch, [n_seq] by slot of the loop
    std::vector<SamplerTables> tables; // as the sets
    uint32_t *step;                    // counts the SAMPLEs
    RingEntry *ring;                   // pinned, written by the GPU [ring_steps][R_max]
    int ring_steps;
};

struct Rank { // one GPU
    const Plan *plan;
    ExecConfig config; // T_max and R_max with room for rows of padding
    Launch launch;
    Upload *upload;                          // owns the weights
    std::vector<DeviceOp> ops;               // [plan->n_ops]
    std::vector<void *> vectors;             // allocations behind them
    uint8_t *regs[2], *kv, *small, *scratch; // one allocation per purpose
    const Cache *cache;                      // the executor's, of which kv is the memory
    int32_t *tables;                         // its page tables, in small
    RowSet batch, loop;
    DeviceHistory history;
    void *attn_scratch, *sample_scratch, *product_scratch;
    std::vector<int32_t> run;                       // of the running batch, as batch.run
    std::vector<AttnPiece> piece;                   // as batch.piece
    uint8_t *staging;                               // pinned, of one run
    std::unordered_map<int, cudaGraphExec_t> graph; // a captured step by its bucket, + CHAIN_GRAPH
};

// A row of an enqueued step, recorded on the host.
struct StepRow {
    int slot; // -1: the slot was left since, its token is dropped
    int position;
};

// The decode loop.  Its first n rows are occupied: when one is freed, the last row moves there.
struct Loop {
    int n;
    std::vector<int32_t> slot, position, n_left; // position of the next step's input; steps left to enqueue
    std::vector<bool> chain;                     // whether the row's filters are not the usual chain
    std::vector<StepRow> steps[RING_STEPS];      // of step s: steps[s % RING_STEPS]
    uint32_t enqueued, taken;                    // numbers of the latest steps
    bool ran;                                    // a batch since the last step was fetched
};

struct Exec {
    int n_ranks;
    Rank rank[MAX_RANKS];
    Cache *cache; // the same pages on all ranks
    Loop loop;
    int T, R;                // of the latest run
    std::vector<float> copy; // of a register, for read
    ExecCounters counters;
};

// Rows of a captured step: the next power of two, filled up with rows of padding.
inline int bucket_of(int n) {
    int bucket = 1;
    while (bucket < n) bucket *= 2;
    return bucket;
}

inline size_t ban_words(const Rank *x) {
    return (x->plan->hparams.n_vocab + 31) / 32;
}

// Floats from row to row of a register.
inline int stride_of(const Rank *x, int reg) {
    return (int)(plan_row_bytes(x->plan, reg, FORM_F32) / sizeof(float));
}

// Where its rows begin; of a view, in its base.
inline float *reg(const Rank *x, int r) {
    const Reg *info = &x->plan->regs[r];
    int rows_max = info->on_R ? x->config.R_max : x->config.T_max;
    return (float *)(x->regs[info->on_R] + info->offset[FORM_F32] * rows_max) + info->column;
}

struct Step { // the rows that ops compute
    int T, R;
    const Batch *batch; // NULL: a step of the decode loop, of T = R rows, each of a sequence of its own
    const RowSet *set;
    bool chain; // see SampleStep
};

inline Step step_of_loop(const Rank *x, int bucket, bool chain) {
    return {bucket, bucket, nullptr, &x->loop, chain};
}

// The first row of each run of rows of a batch that follow each other in one sequence, and T behind the last;
// the runs of rows of prompts.
void find_runs(const Batch *b, std::vector<int32_t> *runs, std::vector<AttnPiece> *pieces);

inline const DeviceOp *device_op(const Rank *x, const Op *op) {
    return &x->ops[op - x->plan->ops];
}

inline int rows_of(const Op *op, const Step &step) {
    return op->on_R ? step.R : step.T;
}

// The rows of a register that an op reads or writes: an op on the R rows finds them in a register of T rows
// by the batch's map, which in a decode step is the identity.
RegRows rows_in(const Rank *x, const Op *op, int reg, const Step &step);

// A product of the plan, without and with addresses.
Product product_shape(const Plan *plan, const Op *op);
Product product_of(const Rank *x, const Op *op, const Step &step);

// As many as possible of the first of n ops, of a single row each, as one fusion.  How many; 0: there is none.
int longest_fusion(const Rank *x, const Op *op, int n, const Step &step, Fusion *out);

// Launches ops first_op..last_op-1 on the stream; inside a capture the launches are only recorded.
cudaError_t run_ops(Rank *x, const Step &step, int first_op, int last_op);

// The sampler of a row in the form of the device; its set of banned ids is written to `banned`, what else it
// points to to `tables`.
cudaError_t make_sampler(Exec *x, Rank *rank, const SampleParams *params, uint32_t *banned,
                         SamplerTables *tables, DeviceSampler *out);

// Whether some row of the decode loop has a chain of its own.
bool loop_has_chain(const Loop *loop);

// Give the rows of a step their pages: copies of pages and new page ids precede the step on the stream.
// extend_loop is for the next step of the decode loop.
cudaError_t extend_cache(Exec *x, const int32_t *seq, const int32_t *position, int n);
cudaError_t extend_loop(Exec *x);

// Waits until all enqueued work is done, and counts a drain.
cudaError_t drain(Exec *x);

// ERR_RUN, or ERR_MEMORY where the device has none left.  Returns false.
bool fail(Err *e, cudaError_t error, const char *what);

// See ExecOps.
bool cuda_decode_join(Exec *x, int slot, const DecodeStart *start, Err *e);
bool cuda_decode_next(Exec *x, int32_t *tokens, Err *e);
void cuda_decode_leave(Exec *x, int slot);
bool cuda_memory(const Plan *p, const ExecConfig *config, ExecMemory *out, Err *e);
bool cuda_open(const Plan *p, const ExecConfig *config, Exec **out, Err *e);
void cuda_close(Exec *x);
