// exec: batches, and a decode loop that the GPU drives.
//
// A run copies its batch to the device, walks the tape, and waits.  Decoding does not: a step is captured
// once per bucket of rows as a graph; its last kernel writes the next token where its first kernel reads, so
// that steps are enqueued ahead of the host, which only watches a ring in pinned memory.
#include <cstring>
#include <ctime>

#include "../kernel/ceilings.h"
#include "exec.cuh"

namespace {

constexpr int AHEAD = 8; // decode steps enqueued beyond what the host has seen
static_assert(AHEAD < RING_STEPS, "or the ring would be overrun");

// ---- batches --------------------------------------------------------------------------------------------

cudaError_t send(Exec *x, int32_t *device, int32_t **staging, const int32_t *values, int n) {
    memcpy(*staging, values, n * sizeof(int32_t));
    cudaError_t error =
        cudaMemcpyAsync(device, *staging, n * sizeof(int32_t), cudaMemcpyHostToDevice, x->launch.stream);
    *staging += n;
    return error;
}

// The stream is idle here, so that the staging buffers are free.
cudaError_t send_batch(Exec *x, const Batch *b) {
    int32_t *s = x->staging;
    cudaError_t error = send(x, x->d.token, &s, b->token, b->T);
    if (error == cudaSuccess) error = send(x, x->d.seq, &s, b->seq, b->T);
    if (error == cudaSuccess) error = send(x, x->d.position, &s, b->position, b->T);
    if (error == cudaSuccess && b->R) error = send(x, x->d.out_row, &s, b->out_row, b->R);
    for (int r = 0; r < b->R; r++) s[r] = b->seq[b->out_row[r]];
    if (error == cudaSuccess && b->R)
        error = cudaMemcpyAsync(x->d.out_seq, s, b->R * sizeof(int32_t), cudaMemcpyHostToDevice,
                                x->launch.stream);
    return error;
}

// Parameters and history of the sequences that will sample; the ring starts anew.  Rows that follow each
// other mostly ban the same tokens, in the same array: it is sent once.
cudaError_t send_sampling(Exec *x, const Batch *b) {
    cudaError_t error =
        cudaMemsetAsync(x->step_counter, 0, x->config.R_max * sizeof(uint32_t), x->launch.stream);
    memset(x->ring, 0, sizeof(RingEntry) * RING_STEPS * x->config.R_max);
    const int32_t *banned = nullptr;
    int at = 0, n_banned = 0; // of the latest list in x->banned
    for (int r = 0; b->sampling && r < b->R && error == cudaSuccess; r++) {
        const SampleRow *row = &b->sampling[r];
        int seq = b->seq[b->out_row[r]];
        int32_t *history = x->history + (size_t)seq * (x->config.n_ctx + 1);
        DeviceSampler *s = &x->samplers_host[seq];
        *s = {row->params, history, row->n_history};
        if (row->params.banned != banned && row->params.n_banned) {
            banned = row->params.banned, at += n_banned, n_banned = row->params.n_banned;
            if (at + n_banned > x->plan->hparams.n_vocab) return cudaErrorInvalidValue;
            error = cudaMemcpyAsync(x->banned + at, banned, n_banned * sizeof(int32_t),
                                    cudaMemcpyHostToDevice, x->launch.stream);
        }
        s->params.banned = x->banned + at;
        if (error == cudaSuccess)
            error = cudaMemcpyAsync(history, row->history, row->n_history * sizeof(int32_t),
                                    cudaMemcpyHostToDevice, x->launch.stream);
        if (error == cudaSuccess)
            error =
                cudaMemcpyAsync(x->samplers + seq, s, sizeof *s, cudaMemcpyHostToDevice, x->launch.stream);
    }
    return error;
}

// position: of each row, steps_later steps ago.
bool check_finite(const Exec *x, const int32_t *sampled, const int32_t *position, int steps_later, int n,
                  Err *e) {
    for (int r = 0; r < n; r++)
        if (sampled[r] < 0) return exec_not_finite(x->plan, position[r] + steps_later, e);
    return true;
}

bool cuda_run(Exec *x, const Batch *b, int first_op, int last_op, Err *e) {
    bool logits = last_op == x->plan->n_ops && b->R > 0;
    x->batch = b;
    cudaError_t error = send_batch(x, b);
    if (error == cudaSuccess) error = send_sampling(x, b);
    if (error == cudaSuccess) error = walk(x, {b->T, b->R, false}, first_op, last_op);
    int in = op_in(&x->plan->ops[x->plan->n_ops - 1], 0), n_vocab = x->plan->hparams.n_vocab;
    if (error == cudaSuccess && logits)
        error = cudaMemcpy2DAsync(x->logits_host, n_vocab * sizeof(float), reg(x, in),
                                  stride_of(x, in) * sizeof(float), n_vocab * sizeof(float), b->R,
                                  cudaMemcpyDeviceToHost, x->launch.stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(x->launch.stream);
    x->batch = nullptr;
    if (error != cudaSuccess) return fail(e, error, "running a batch");
    if (!logits) return true;
    std::vector<int32_t> position(b->R);
    for (int r = 0; r < b->R; r++) {
        position[r] = b->position[b->out_row[r]];
        b->sampled[r] = b->sampling                                                    ? x->ring[r].token
                        : sample_finite(x->logits_host + (size_t)r * n_vocab, n_vocab) ? 0
                                                                                       : -1;
    }
    return check_finite(x, b->sampled, position.data(), 0, b->R, e);
}

// ---- decoding -------------------------------------------------------------------------------------------

bool capture(Exec *x, int bucket, Err *e) {
    cudaGraph_t graph;
    cudaError_t error = cudaStreamBeginCapture(x->launch.stream, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess) return fail(e, error, "beginning to capture a step");
    cudaError_t walked = walk(x, {bucket, bucket, true}, 0, x->plan->n_ops);
    error = cudaStreamEndCapture(x->launch.stream, &graph);
    if (walked != cudaSuccess || error != cudaSuccess)
        return fail(e, walked != cudaSuccess ? walked : error, "capturing a step");
    cudaGraphExec_t ready;
    error = cudaGraphInstantiate(&ready, graph, 0);
    cudaGraphDestroy(graph);
    if (error == cudaSuccess) error = cudaGraphUpload(x->graph[bucket] = ready, x->launch.stream);
    return error == cudaSuccess || fail(e, error, "instantiating a step");
}

bool cuda_decode_start(Exec *x, const Batch *b, int n_steps, Err *e) {
    int bucket = bucket_of(b->R);
    cudaError_t error = send_batch(x, b);
    if (error == cudaSuccess) error = send_sampling(x, b);
    if (error == cudaSuccess) error = cudaStreamSynchronize(x->launch.stream);
    for (int r = b->R; r < bucket && error == cudaSuccess; r++) { // padding
        static const int32_t none = -1;
        error = cudaMemcpyAsync(x->d.seq + r, &none, sizeof none, cudaMemcpyHostToDevice, x->launch.stream);
        if (error == cudaSuccess)
            error = cudaMemcpyAsync(x->d.out_seq + r, &none, sizeof none, cudaMemcpyHostToDevice,
                                    x->launch.stream);
        if (error == cudaSuccess)
            error = cudaMemsetAsync(x->d.token + r, 0, sizeof(int32_t), x->launch.stream);
        if (error == cudaSuccess)
            error = cudaMemsetAsync(x->d.position + r, 0, sizeof(int32_t), x->launch.stream);
    }
    std::vector<int32_t> identity(bucket);
    for (int r = 0; r < bucket; r++) identity[r] = r;
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(x->d.out_row, identity.data(), bucket * sizeof(int32_t),
                                cudaMemcpyHostToDevice, x->launch.stream);
    if (error != cudaSuccess) return fail(e, error, "starting to decode");
    if (!x->graph.count(bucket) && !capture(x, bucket, e)) return false;
    x->decode = {b->R, bucket, n_steps, 0, 0};
    x->decode_position.assign(b->position, b->position + b->R);
    return true;
}

// What the GPU wrote before the step's number is read after it.
uint32_t step_in(const RingEntry *entry) {
    return __atomic_load_n(&entry->step, __ATOMIC_ACQUIRE);
}

// Watches the ring for step number `step` (from 1); a dead GPU is an error of the stream, never a hang.
cudaError_t wait_for_step(Exec *x, uint32_t step) {
    const RingEntry *entry = x->ring + (size_t)((step - 1) % RING_STEPS) * x->decode.bucket;
    for (int spins = 0; step_in(entry) != step; spins++) {
        if (spins % 1024 != 1023) continue;
        cudaError_t error = cudaStreamQuery(x->launch.stream);
        if (error != cudaSuccess && error != cudaErrorNotReady) return error;
        if (error == cudaSuccess && step_in(entry) != step)
            return cudaErrorLaunchFailure; // idle without an answer
        if (spins > 1 << 16) {
            struct timespec nap = {0, 20000};
            nanosleep(&nap, nullptr);
        }
    }
    return cudaSuccess;
}

bool cuda_decode_next(Exec *x, int32_t *sampled, Err *e) {
    auto &d = x->decode;
    for (; d.enqueued < d.n_steps && d.enqueued < d.taken + AHEAD; d.enqueued++) {
        cudaError_t error = cudaGraphLaunch(x->graph.at(d.bucket), x->launch.stream);
        if (error != cudaSuccess) return fail(e, error, "launching a step");
    }
    uint32_t step = (uint32_t)d.taken + 1;
    cudaError_t error = wait_for_step(x, step);
    if (error != cudaSuccess) return fail(e, error, "a decode step");
    const RingEntry *entries = x->ring + (size_t)((step - 1) % RING_STEPS) * d.bucket;
    for (int r = 0; r < d.n; r++) {
        while (step_in(entries + r) != step) {
        } // the rows' entries come within the same kernel
        sampled[r] = entries[r].token;
    }
    return check_finite(x, sampled, x->decode_position.data(), d.taken++, d.n, e);
}

void cuda_decode_stop(Exec *x) {
    cudaStreamSynchronize(
        x->launch.stream); // the steps ahead end by themselves; an error shows at the next call
    x->decode = {};
}

bool cuda_profile(Exec *x, const Batch *b, int repeats, double *seconds, Err *e) {
    int n_ops = x->plan->n_ops;
    if (!cuda_decode_start(x, b, 0, e)) return false;
    std::vector<cudaEvent_t> end(n_ops + 1); // of the op before
    cudaError_t error = cudaSuccess;
    for (cudaEvent_t &event : end)
        if (error == cudaSuccess) error = cudaEventCreate(&event);
    for (int n = -1; n < repeats && error == cudaSuccess; n++) { // the first is for warming up
        error = cudaEventRecord(end[0], x->launch.stream);
        for (int i = 0; i < n_ops && error == cudaSuccess; i++) {
            error = walk(x, {x->decode.bucket, x->decode.bucket, true}, i, i + 1);
            if (error == cudaSuccess) error = cudaEventRecord(end[i + 1], x->launch.stream);
        }
        if (error == cudaSuccess) error = cudaStreamSynchronize(x->launch.stream);
        for (int i = 0; i < n_ops && error == cudaSuccess; i++) {
            float ms = 0;
            error = cudaEventElapsedTime(&ms, end[i], end[i + 1]);
            seconds[i] = n < 0 ? 0 : seconds[i] + ms * 1e-3 / repeats;
        }
    }
    for (cudaEvent_t event : end)
        if (event) cudaEventDestroy(event);
    return error == cudaSuccess || fail(e, error, "profiling");
}

double cuda_bandwidth(Exec *x) {
    double rate = 0;
    cudaError_t error = cudaStreamSynchronize(x->launch.stream);
    if (error == cudaSuccess) error = ceilings_read(x->launch.n_sm, &rate);
    return error == cudaSuccess ? rate : 0;
}

const float *cuda_read(const Exec *x, int r, size_t *stride) {
    *stride = x->plan->regs[r].width;
    return x->logits_host; // the only register that anyone reads: SAMPLE's input
}

} // namespace

extern "C" const ExecOps cuda_exec = {
    .name = "cuda",
    .can = &cuda_capability,
    .prompt_chunk = 2048,
    .memory = cuda_memory,
    .open = cuda_open,
    .run = cuda_run,
    .decode_start = cuda_decode_start,
    .decode_next = cuda_decode_next,
    .decode_stop = cuda_decode_stop,
    .profile = cuda_profile,
    .read_bandwidth = cuda_bandwidth,
    .read = cuda_read,
    .close = cuda_close,
};
