// exec: runs of batches, registers, the profile, and the interface.
//
// A run copies its batch to the device, launches the tape behind all enqueued work, and waits for its own
// end.  Its rows, counters and results are not those of the decode loop, whose enqueued steps stay valid.
#include <cassert>
#include <cstring>

#include "../kernel/ceilings.h"
#include "exec.cuh"
#include "../../src/exec/sample_math.h"

namespace {

// Steps that are enqueued may read the memory that is given back, which waits for them.
cudaError_t grow(SamplerTables *t, size_t bytes) {
    if (bytes <= t->bytes) return cudaSuccess;
    cudaError_t error = cudaFree(t->data);
    *t = {};
    if (error == cudaSuccess) error = cudaMalloc(&t->data, bytes);
    if (error == cudaSuccess) t->bytes = bytes;
    return error;
}

// Sends n values to the place at t->data + *used, whose address goes to *out.
template <class T>
cudaError_t send_table(Exec *x, Rank *rank, const SamplerTables *t, size_t *used, const T *values, size_t n,
                       const T **out) {
    if (!values || n == 0) return cudaSuccess;
    uint8_t *to = t->data + *used;
    *used += n * sizeof(T);
    *out = (const T *)to;
    x->counters.bytes_sent += n * sizeof(T);
    return cudaMemcpyAsync(to, values, n * sizeof(T), cudaMemcpyHostToDevice, rank->launch.stream);
}

cudaError_t send_tables(Exec *x, Rank *rank, const SampleParams *p, SamplerTables *t, SampleParams *out) {
    size_t n_words = p->breaks ? ban_words(rank) : 0, used = 0,
           bytes =
               p->n_bias * sizeof *p->bias + n_words * sizeof *p->breaks + p->n_phrases * sizeof *p->phrases;
    cudaError_t error = grow(t, bytes);
    if (error == cudaSuccess) error = send_table(x, rank, t, &used, p->bias, p->n_bias, &out->bias);
    if (error == cudaSuccess) error = send_table(x, rank, t, &used, p->breaks, n_words, &out->breaks);
    if (error == cudaSuccess) error = send_table(x, rank, t, &used, p->phrases, p->n_phrases, &out->phrases);
    return error;
}

} // namespace

cudaError_t make_sampler(Exec *x, Rank *rank, const SampleParams *params, uint32_t *banned,
                         SamplerTables *tables, DeviceSampler *out) {
    *out = {params->n_banned ? banned : nullptr, has_own_chain(params), *params};
    cudaError_t error = send_tables(x, rank, params, tables, &out->params);
    if (error != cudaSuccess || params->n_banned == 0) return error;
    x->counters.bytes_sent += params->n_banned * sizeof(int32_t);
    return launch_ban(&rank->launch, banned, ban_words(rank), params->banned, params->n_banned);
}

namespace {

cudaError_t copy_page(Exec *x, const CacheCopy *c) {
    cudaError_t error = cudaSuccess;
    for (int i = 0; i < x->n_ranks && error == cudaSuccess; i++) {
        uint8_t *kv = x->rank[i].kv;
        error = cudaMemcpyAsync(kv + c->to, kv + c->from, c->bytes, cudaMemcpyDeviceToDevice,
                                x->rank[i].launch.stream);
    }
    return error;
}

cudaError_t send_page_ids(Exec *x, const CacheChange *c) {
    cudaError_t error = cudaSuccess;
    for (int i = 0; i < x->n_ranks && error == cudaSuccess; i++)
        error = launch_page_ids(&x->rank[i].launch, x->rank[i].tables, c->first,
                                cache_tables(x->cache) + c->first, c->n);
    x->counters.bytes_sent += c->n * sizeof(int32_t);
    return error;
}

} // namespace

cudaError_t extend_cache(Exec *x, const int32_t *seq, const int32_t *position, int n) {
    cudaError_t error = cudaSuccess;
    cache_step(x->cache, seq, position, n);
    for (CacheCopy c; error == cudaSuccess && cache_next_copy(x->cache, &c);) error = copy_page(x, &c);
    for (CacheChange c; error == cudaSuccess && cache_next_change(x->cache, &c);)
        error = send_page_ids(x, &c);
    return error;
}

cudaError_t extend_loop(Exec *x) {
    return extend_cache(x, x->loop.slot.data(), x->loop.position.data(), x->loop.n);
}

cudaError_t drain(Exec *x) {
    cudaError_t error = cudaSuccess;
    for (int i = 0; i < x->n_ranks; i++) {
        cudaError_t of_rank = cudaStreamSynchronize(x->rank[i].launch.stream);
        if (error == cudaSuccess) error = of_rank;
    }
    x->counters.drains++;
    return error;
}

namespace {

// ---- runs -----------------------------------------------------------------------------------------------

constexpr SampleParams BEST_TOKEN = {.top_p = 1, .repeat_penalty = 1};

// Copies arrays to the device through the staging buffer, which is free again when the run has ended.
struct Sender {
    Exec *x;
    Rank *rank;
    uint8_t *at;
    cudaError_t error;
    template <class T> void send(T *device, const T *values, size_t n) {
        if (error != cudaSuccess || n == 0) return;
        memcpy(at, values, n * sizeof(T));
        error = cudaMemcpyAsync(device, at, n * sizeof(T), cudaMemcpyHostToDevice, rank->launch.stream);
        at += n * sizeof(T);
        x->counters.bytes_sent += n * sizeof(T);
    }
};

bool same_tables(const SampleParams *a, const SampleParams *b) {
    return a->banned == b->banned && a->n_banned == b->n_banned && a->bias == b->bias &&
           a->n_bias == b->n_bias && a->breaks == b->breaks && a->phrases == b->phrases &&
           a->n_phrases == b->n_phrases;
}

// The samplers of the wanted rows.  Rows that follow each other mostly point to the same arrays: they share
// the device's.
cudaError_t make_samplers(Exec *x, Rank *rank, const Batch *b, std::vector<DeviceSampler> *out) {
    out->resize(b->R);
    for (int r = 0; r < b->R; r++) {
        const SampleParams *p = b->sampling ? &b->sampling[r] : &BEST_TOKEN;
        DeviceSampler *s = &(*out)[r];
        if (b->sampling && r > 0 && same_tables(p, p - 1)) {
            *s = {s[-1].banned, has_own_chain(p), *p};
            s->params.bias = s[-1].params.bias;
            s->params.breaks = s[-1].params.breaks;
            s->params.phrases = s[-1].params.phrases;
            continue;
        }
        cudaError_t error =
            make_sampler(x, rank, p, rank->batch.banned + r * ban_words(rank), &rank->batch.tables[r], s);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

cudaError_t send_batch(Exec *x, Rank *rank, const Batch *b) {
    std::vector<DeviceSampler> samplers;
    Sender to = {x, rank, rank->staging, make_samplers(x, rank, b, &samplers)};
    const DeviceRows *rows = &rank->batch.rows;
    to.send(rows->sampler, samplers.data(), b->R); // first: its elements are the widest
    to.send(rows->token, b->token, b->T);
    to.send(rows->seq, b->seq, b->T);
    to.send(rows->position, b->position, b->T);
    to.send(rows->out_row, b->out_row, b->R);
    find_runs(b, &rank->run, &rank->piece);
    to.send(rank->batch.run, rank->run.data(), rank->run.size());
    to.send(rank->batch.piece, rank->piece.data(), rank->piece.size());
    return to.error == cudaSuccess ? launch_history(&rank->launch, rows, b->T, rank->history) : to.error;
}

bool any_chain(const Batch *b) {
    bool any = false;
    for (int r = 0; b->sampling && r < b->R; r++) any |= has_own_chain(&b->sampling[r]);
    return any;
}

bool take_tokens(const Exec *x, const Batch *b, Err *e) {
    for (int r = 0; r < b->R; r++) {
        b->sampled[r] = x->rank[0].batch.ring[r].token;
        if (b->sampled[r] < 0) return exec_not_finite(x->rank[0].plan, b->position[b->out_row[r]], e);
    }
    return true;
}

bool cuda_run(Exec *x, const Batch *b, int first_op, int last_op, Err *e) {
    cudaError_t error = first_op == 0 ? extend_cache(x, b->seq, b->position, b->T) : cudaSuccess;
    for (int i = 0; i < x->n_ranks && error == cudaSuccess; i++) {
        Rank *rank = &x->rank[i];
        error = send_batch(x, rank, b);
        if (error == cudaSuccess)
            error = run_ops(rank, {b->T, b->R, b, &rank->batch, any_chain(b)}, first_op, last_op);
    }
    for (int i = 0; i < x->n_ranks && error == cudaSuccess; i++)
        error = cudaStreamSynchronize(x->rank[i].launch.stream); // nothing is enqueued behind the run
    if (error != cudaSuccess) {
        drain(x); // the staging buffer is free again
        return fail(e, error, "running a batch");
    }
    const Plan *p = x->rank[0].plan;
    bool sampled = last_op > first_op && p->ops[last_op - 1].code == OP_SAMPLE;
    x->T = b->T;
    x->R = b->R;
    x->loop.ran = true;
    x->counters.runs++;
    return !sampled || take_tokens(x, b, e);
}

// ---- registers ------------------------------------------------------------------------------------------

const float *cuda_read(Exec *x, int r, int first, int n, size_t *stride, Err *e) {
    const Rank *rank = &x->rank[0];
    assert(first >= 0 && n >= 0 && first + n <= (rank->plan->regs[r].on_R ? x->R : x->T));
    size_t width = rank->plan->regs[r].width, pitch = stride_of(rank, r) * sizeof(float);
    x->copy.resize((size_t)n * width + 1);
    *stride = width;
    cudaError_t error =
        cudaMemcpy2DAsync(x->copy.data(), width * sizeof(float), (uint8_t *)reg(rank, r) + first * pitch,
                          pitch, width * sizeof(float), n, cudaMemcpyDeviceToHost, rank->launch.stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(rank->launch.stream);
    x->counters.bytes_read += (size_t)n * width * sizeof(float);
    if (error == cudaSuccess) return x->copy.data();
    fail(e, error, "reading a register");
    return nullptr;
}

// ---- profile --------------------------------------------------------------------------------------------

// A pass over the tape with an event behind each op; adds the seconds of each to `seconds`.
cudaError_t time_ops(Rank *rank, const Step &step, const std::vector<cudaEvent_t> &end, double *seconds) {
    int n_ops = rank->plan->n_ops;
    cudaError_t error = cudaEventRecord(end[0], rank->launch.stream);
    for (int i = 0; i < n_ops && error == cudaSuccess; i++) {
        error = run_ops(rank, step, i, i + 1);
        if (error == cudaSuccess) error = cudaEventRecord(end[i + 1], rank->launch.stream);
    }
    if (error == cudaSuccess) error = cudaStreamSynchronize(rank->launch.stream);
    for (int i = 0; i < n_ops && error == cudaSuccess; i++) {
        float ms = 0;
        error = cudaEventElapsedTime(&ms, end[i], end[i + 1]);
        seconds[i] += ms * 1e-3;
    }
    return error;
}

// The device counts each pass as a step and moves the rows on by it; no token of these steps is fetched.
bool cuda_profile(Exec *x, int repeats, double *seconds, Err *e) {
    Rank *rank = &x->rank[0];
    Loop *loop = &x->loop;
    int n_ops = rank->plan->n_ops, bucket = bucket_of(loop->n);
    std::vector<cudaEvent_t> end(n_ops + 1); // of the op before
    cudaError_t error = drain(x);
    for (cudaEvent_t &event : end)
        if (error == cudaSuccess) error = cudaEventCreate(&event);
    for (int n = -1; n < repeats && error == cudaSuccess; n++) { // the first is for warming up
        if (n <= 0) memset(seconds, 0, n_ops * sizeof *seconds);
        error = extend_loop(x);
        if (error == cudaSuccess)
            error = time_ops(rank, step_of_loop(rank, bucket, loop_has_chain(loop)), end, seconds);
        for (int r = 0; r < loop->n; r++) loop->position[r]++;
    }
    for (int i = 0; i < n_ops; i++) seconds[i] /= repeats;
    for (cudaEvent_t event : end)
        if (event) cudaEventDestroy(event);
    for (int n = 0; n <= repeats; n++) loop->steps[++loop->enqueued % RING_STEPS].clear();
    loop->taken = loop->enqueued;
    return error == cudaSuccess || fail(e, error, "profiling");
}

double cuda_bandwidth(Exec *x) {
    double rate = 0;
    cudaError_t error = drain(x);
    if (error == cudaSuccess) error = ceilings_read(x->rank[0].launch.n_sm, &rate);
    return error == cudaSuccess ? rate : 0;
}

Cache *cuda_cache(Exec *x) {
    return x->cache;
}

// An error of a copy shows at the next call.
bool cuda_share(Exec *x, int from, int to, int n) {
    if (!cache_share(x->cache, from, to, n)) return false;
    for (int i = 0; i < x->n_ranks; i++) {
        const DeviceHistory *history = &x->rank[i].history;
        cudaMemcpyAsync(history->data + (size_t)to * history->stride,
                        history->data + (size_t)from * history->stride, n * sizeof(int32_t),
                        cudaMemcpyDeviceToDevice, x->rank[i].launch.stream);
    }
    return true;
}

ExecCounters cuda_counters(const Exec *x) {
    return x->counters;
}

} // namespace

extern "C" const ExecOps cuda_exec = {
    .name = "cuda",
    .can = &cuda_capability,
    .prompt_chunk = 2048,
    .n_seq_best = 256,
    .prompt_multiple = CACHE_PAGE,
    .memory = cuda_memory,
    .open = cuda_open,
    .run = cuda_run,
    .decode_join = cuda_decode_join,
    .decode_next = cuda_decode_next,
    .decode_leave = cuda_decode_leave,
    .profile = cuda_profile,
    .read_bandwidth = cuda_bandwidth,
    .read = cuda_read,
    .counters = cuda_counters,
    .cache = cuda_cache,
    .share = cuda_share,
    .close = cuda_close,
};
