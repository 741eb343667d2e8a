// exec: the GPU executor: what lies where on the device, how the tape is walked, and a decode loop that the
// GPU drives.
//
// A run copies its batch to the device, launches one kernel or two per op, and waits.  Decoding does not: a
// step is captured once per bucket of rows as a graph; its last kernel writes the next token where its first
// kernel reads, so that steps are enqueued ahead of the host, which only watches a ring in pinned memory.
// Nothing is allocated and no module loaded after open.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <vector>

#include "ceilings.h"
#include "launch.h"
#include "upload.h"
extern "C" {
#include "cuda.h"
#include "../src/base/mem.h"
}

namespace {

constexpr int AHEAD = 8;                     // decode steps enqueued beyond what the host has seen
constexpr int RING_STEPS = 64;               // more than that
constexpr int GEMM_ROWS = 33;                // from here on the matrix units win over exact block sums
constexpr int PROMPT_ROWS = 16;              // of one sequence: from here on attention is tiled
constexpr size_t RESERVE = (size_t)64 << 20; // staging of the upload; graphs and what else the driver takes

struct Memory { // device memory, one allocation per purpose
    uint8_t *data = nullptr;
    size_t bytes = 0;
};

} // namespace

struct Exec {
    const Plan *plan;
    ExecConfig config;
    Launch launch;
    Upload *upload; // owns the weights
    std::unordered_map<const Weight *, DeviceWeight> weights;
    std::unordered_map<const void *, void *> vectors; // host pointer of the plan -> device copy
    std::unordered_map<const Op *, double *> frequencies;
    std::unordered_map<const Op *, Link *> links; // in small
    Memory regs[2], kv, small, scratch;
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

namespace {

// ---- errors ---------------------------------------------------------------------------------------------

bool fail(Err *e, cudaError_t error, const char *what) {
    if (error == cudaErrorMemoryAllocation)
        return err_set(e, ERR_MEMORY, "the GPU has no memory left for %s; use a smaller -c or --device cpu",
                       what);
    return err_set(e, ERR_RUN, "the GPU failed at %s: %s", what, cudaGetErrorString(error));
}

// ---- memory ---------------------------------------------------------------------------------------------

cudaError_t allocate(Memory *m, size_t bytes) {
    m->bytes = bytes;
    cudaError_t error = cudaMalloc(&m->data, bytes ? bytes : 1);
    if (error == cudaSuccess) error = cudaMemset(m->data, 0, bytes);
    return error == cudaSuccess ? cudaDeviceSynchronize() : error; // our stream does not wait for it
}

size_t align(size_t n) {
    return (n + 255) / 256 * 256;
}

// Cuts typed pieces off a block; with data NULL it only counts.
struct Carver {
    uint8_t *data;
    size_t used = 0;
    template <class T> T *take(size_t n) {
        T *p = data ? (T *)(data + used) : nullptr;
        used += align(n * sizeof(T));
        return p;
    }
};

bool is_product(const Op *op) {
    return op->code == OP_MATMUL || op->code == OP_LOGITS || op->code == OP_EXPERT;
}

void carve_small(Exec *x, Carver *c) {
    size_t T = x->config.T_max, R = x->config.R_max, n_seq = x->config.n_seq, n_ctx = x->config.n_ctx;
    x->d.token = c->take<int32_t>(T), x->d.seq = c->take<int32_t>(T), x->d.position = c->take<int32_t>(T);
    x->d.out_row = c->take<int32_t>(R), x->d.out_seq = c->take<int32_t>(R);
    x->d.next_token = c->take<int32_t>(R), x->d.next_position = c->take<int32_t>(R);
    x->samplers = c->take<DeviceSampler>(n_seq);
    x->history = c->take<int32_t>(n_seq * (n_ctx + 1));
    x->banned = c->take<int32_t>(x->plan->hparams.n_vocab);
    x->step_counter = c->take<uint32_t>(R);
    int n_in = 0; // of the longest row
    for (int i = 0; i < x->plan->n_ops; i++) {
        const Op *op = &x->plan->ops[i];
        if (is_product(op)) n_in = std::max(n_in, op->w[0]->n_in);
        if (op->code == OP_MATMUL)
            x->links[op] = (Link *)c->take<uint8_t>(sizeof(Link) + op->w[0]->n_out * sizeof(uint32_t));
    }
    x->launch.inputs = c->take<uint8_t>(product_scratch_bytes(n_in));
}

size_t attn_bytes(const Exec *x) {
    size_t most = 0;
    for (int i = 0; i < x->plan->n_ops; i++)
        if (x->plan->ops[i].code == OP_ATTN)
            most = std::max(most, attn_scratch_bytes(x->config.T_max, x->plan->ops[i].attn.n_head,
                                                     x->plan->ops[i].attn.head_dim, x->launch.n_sm));
    return align(most);
}

struct Need {
    ExecMemory all; // but for what is free
    size_t small, attn, sample;
    struct {
        size_t weight, input, output;
    } gemm; // elements
};

Need need_of(Exec *x) {
    const Plan *p = x->plan;
    Need need = {};
    for (int i = 0; i < p->n_ops; i++) {
        const Op *op = &p->ops[i];
        if (op->code != OP_MATMUL) continue;
        size_t out = 0;
        for (int k = 0; k < op->n_w; k++) {
            need.gemm.weight = std::max(need.gemm.weight, (size_t)op->w[k]->n_in * op->w[k]->n_out);
            need.gemm.input = std::max(need.gemm.input, (size_t)op->w[k]->n_in * x->config.T_max);
            out += op->w[k]->n_out;
        }
        need.gemm.output = std::max(need.gemm.output, out * x->config.T_max);
    }
    Carver count = {nullptr};
    carve_small(x, &count);
    need.small = count.used, need.attn = attn_bytes(x);
    need.sample = align(sample_device_scratch_bytes(x->config.R_max, p->hparams.n_vocab));
    need.all = exec_memory(p, &x->config);
    need.all.weights = upload_bytes(p);
    need.all.scratch = need.small + need.attn + need.sample +
                       gemm_bytes(need.gemm.weight, need.gemm.input, need.gemm.output) + RESERVE;
    return need;
}

bool open_memory(Exec *x, const Need &need, Err *e) {
    const Plan *p = x->plan;
    cudaError_t error = allocate(&x->kv, need.all.kv);
    if (error == cudaSuccess) error = allocate(&x->regs[0], p->row_bytes_T * x->config.T_max);
    if (error == cudaSuccess) error = allocate(&x->regs[1], p->row_bytes_R * x->config.R_max);
    if (error == cudaSuccess) error = allocate(&x->small, need.small);
    if (error == cudaSuccess) error = allocate(&x->scratch, need.attn + need.sample);
    if (error != cudaSuccess) return fail(e, error, "keys, values and registers");
    Carver carver = {x->small.data};
    carve_small(x, &carver);
    x->attn_scratch = x->scratch.data, x->sample_scratch = x->scratch.data + need.attn;
    size_t offset = 0;
    for (int i = 0; i < p->n_kv; i++) {
        x->kv_offset.push_back(offset);
        offset += 2 * (size_t)x->config.n_seq * p->kv[i].n_head * kv_positions(x->config.n_ctx) *
                  kv_row_bytes(x->config.kv_type, p->kv[i].head_dim);
    }
    size_t staged = (size_t)3 * x->config.T_max + 2 * x->config.R_max;
    error = cudaMallocHost(&x->staging, staged * sizeof(int32_t));
    if (error == cudaSuccess)
        error = cudaMallocHost(&x->ring, sizeof(RingEntry) * RING_STEPS * x->config.R_max);
    if (error == cudaSuccess)
        error = cudaMallocHost(&x->samplers_host, sizeof(DeviceSampler) * x->config.n_seq);
    if (error != cudaSuccess) return fail(e, error, "pinned host memory");
    x->logits_host = (float *)mem_new((size_t)x->config.R_max * p->hparams.n_vocab, sizeof(float));
    return true;
}

// ---- weights --------------------------------------------------------------------------------------------

// A device copy of n floats (or doubles), made once.
template <class T> bool add_vector(Exec *x, const T *host, size_t n, Err *e) {
    if (!host || x->vectors.count(host)) return true;
    void *device;
    cudaError_t error = cudaMalloc(&device, n * sizeof(T));
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(device, host, n * sizeof(T), cudaMemcpyHostToDevice, x->launch.stream);
    if (error != cudaSuccess) return fail(e, error, "small weights");
    x->vectors[host] = device;
    return true;
}

bool add_op_weights(Exec *x, const Op *op, Err *e) {
    for (int k = 0; k < op->n_w; k++) {
        const Weight *w = op->w[k];
        if (!x->weights.count(w)) {
            DeviceWeight device;
            if (!upload_tensor(x->upload, w, &device, e)) return false;
            x->weights[w] = device;
        }
        if (!add_vector(x, op->bias[k], (size_t)w->n_expert * w->n_out, e)) return false;
    }
    if (op->rope.n_rot > 0) {
        std::vector<double> frequency(op->rope.n_rot / 2);
        exec_rope_frequencies(op, frequency.data());
        if (!add_vector(x, frequency.data(), frequency.size(), e)) return false;
        x->frequencies[op] = (double *)x->vectors[frequency.data()];
        x->vectors.erase(frequency.data()); // the host copy goes; frequencies owns it
        return true;
    }
    size_t width = op->in == NO_REG ? 0 : x->plan->regs[op->in].width;
    return add_vector(x, op->vector, width, e);
}

bool upload_weights(Exec *x, Err *e) {
    for (int i = 0; i < x->plan->n_ops; i++)
        if (!add_op_weights(x, &x->plan->ops[i], e)) return false;
    return upload_finish(x->upload, e);
}

// Finding and starting cuBLASLt takes about as long as the weights of a small model need to come: it does so
// beside them, once they have their memory; after them where there is no thread to be had.
bool open_rest(Exec *x, const Need &need, Err *e) {
    x->upload = upload_open(x->plan, x->config.managed, x->config.n_threads, e);
    if (!x->upload) return false;
    auto open_library = [&] {
        if (cudaSetDevice(x->config.device) == cudaSuccess)
            x->gemm = gemm_open(need.gemm.weight, need.gemm.input, need.gemm.output);
    };
    std::thread library;
    try {
        library = std::thread(open_library);
    } catch (const std::system_error &) {
    }
    bool ok = upload_weights(x, e);
    if (library.joinable())
        library.join();
    else
        open_library();
    return ok;
}

// ---- the walk -------------------------------------------------------------------------------------------

int stride_of(const Exec *x, int reg) {
    return (x->plan->regs[reg].width * 4 + 63) / 64 * 16;
} // floats from row to row

float *reg(const Exec *x, int r) {
    const Reg *info = &x->plan->regs[r];
    int rows_max = info->on_R ? x->config.R_max : x->config.T_max;
    return (float *)(x->regs[info->on_R].data + info->offset[0] * rows_max);
}

template <class T> T *device_vector(const Exec *x, const T *host) {
    return host ? (T *)x->vectors.at(host) : nullptr;
}

struct Step { // what a walk is for
    int T, R;
    bool decode;
};

int rows_of(const Op *op, const Step &step) {
    return op->on_R ? step.R : step.T;
}

const int *row_map(const Exec *x, const Op *op) {
    return op->on_R && op->in != NO_REG && !x->plan->regs[op->in].on_R ? x->d.out_row : nullptr;
}

Product product_of(const Exec *x, const Op *op) {
    Product p = {};
    p.n_segments = op->n_w;
    for (int k = 0; k < op->n_w; k++) {
        int out = op->out[op->glu ? 0 : k];
        p.segment[k] = {x->weights.at(op->w[k]), device_vector(x, op->bias[k]), reg(x, out),
                        stride_of(x, out)};
    }
    p.in = reg(x, op->in), p.in_stride = stride_of(x, op->in), p.rows = row_map(x, op);
    p.norm = op->code == OP_EXPERT ? nullptr : device_vector(x, op->vector), p.norm_eps = op->eps;
    p.glu = op->glu;
    if (op->code == OP_MATMUL) p.link = x->links.at(op);
    if (op->residual != NO_REG)
        p.residual = reg(x, op->residual), p.residual_stride = stride_of(x, op->residual);
    if (op->code == OP_EXPERT) {
        p.ids = (const int32_t *)reg(x, op->ids), p.ids_stride = stride_of(x, op->ids),
        p.n_used = op->moe.n_used;
        p.per_slot = x->plan->regs[op->in].width != op->w[0]->n_in;
    }
    return p;
}

// Rows from t on that follow each other in one sequence.
int piece_rows(const Batch *b, int t) {
    int n = 1;
    while (t + n < b->T && b->seq[t + n] == b->seq[t] && b->position[t + n] == b->position[t] + n) n++;
    return n;
}

// n ops, for a single row a chain, or one op.  Of many rows those of prompts go through the matrix units in
// f16, but never a sequence's single row: it gives the same bytes alone and among others.
cudaError_t run_products(Exec *x, const Op *op, int n, const Step &step) {
    Product p[MAX_PRODUCTS];
    for (int i = 0; i < n; i++) p[i] = product_of(x, op + i);
    int rows = rows_of(op, step);
    if (rows == 0) return cudaSuccess;
    if (step.decode || rows < GEMM_ROWS || !x->gemm || op->code != OP_MATMUL || op->on_R)
        return launch_products(&x->launch, p, n, rows);
    cudaError_t error = cudaSuccess;
    for (int first = 0, end = 0; first < rows && error == cudaSuccess; first = end) {
        bool single = piece_rows(x->batch, first) == 1;
        do end += piece_rows(x->batch, end);
        while (end < rows && (piece_rows(x->batch, end) == 1) == single);
        Product some = product_rows(p[0], first);
        error = single || end - first < GEMM_ROWS ? launch_products(&x->launch, &some, 1, end - first)
                                                  : launch_gemm(x->gemm, &x->launch, &some, end - first);
    }
    return error;
}

DeviceKv layer_kv(const Exec *x, const Op *op) {
    size_t positions = kv_positions(x->config.n_ctx);
    size_t bytes = (size_t)x->config.n_seq * op->attn.n_kv_head * positions *
                   kv_row_bytes(x->config.kv_type, op->attn.head_dim);
    uint8_t *k = x->kv.data + x->kv_offset[op->attn.kv_layer];
    return {k, k + bytes, x->config.kv_type, (int)positions, op->attn.n_kv_head, op->attn.head_dim};
}

// Keys and values that an attention puts into the cache.
NewKv new_kv_of(const Exec *x, const Op *op) {
    return {reg(x, op->in2), reg(x, op->in3), op->rope.n_rot ? x->frequencies.at(op) : nullptr, op->rope.n_rot};
}

// Decoding, all in one: a row of each sequence.  Otherwise new keys and values are put first; then prompt
// pieces are tiled one by one, and the rows between them, few of each sequence, go together as if decoding.
cudaError_t run_attn(Exec *x, const Op *op, const Step &step) {
    DeviceKv kv = layer_kv(x, op);
    NewKv fresh = new_kv_of(x, op);
    float *q = reg(x, op->in), *out = reg(x, op->out[0]);
    auto launch = [&](int first, int n, bool decode) {
        return launch_attn(&x->launch, q + (size_t)first * stride_of(x, op->in), op->attn.n_head,
                           step.decode ? &fresh : nullptr, &kv, op->attn.scale, x->d.seq + first,
                           x->d.position + first, n, decode, out + (size_t)first * stride_of(x, op->out[0]),
                           x->attn_scratch);
    };
    if (step.decode) return launch(0, step.T, true);
    cudaError_t error = launch_rope_kvput(&x->launch, q, op->attn.n_head, &fresh, &kv, x->d.seq,
                                          x->d.position, step.T);
    if (error != cudaSuccess) return error;
    const Batch *b = x->batch;
    int few = 0; // where the rows that wait for a common launch begin
    for (int t = 0; t < b->T;) {
        int n = piece_rows(b, t);
        if (n >= PROMPT_ROWS) {
            if (few < t) error = launch(few, t - few, true);
            if (error == cudaSuccess) error = launch(t, n, false);
            if (error != cudaSuccess) return error;
            few = t + n;
        }
        t += n;
    }
    return few < b->T ? launch(few, b->T - few, true) : cudaSuccess;
}

cudaError_t run_sample(Exec *x, const Op *op, const Step &step) {
    SampleStep s = {};
    s.logits = reg(x, op->in), s.n_vocab = x->plan->regs[op->in].width, s.R = step.R;
    s.samplers = x->samplers, s.seq = x->d.out_seq;
    s.token = step.decode ? x->d.token : x->d.next_token; // decoding feeds itself
    s.position = step.decode ? x->d.position : x->d.next_position;
    s.ring = x->ring, s.ring_steps = RING_STEPS, s.step_counter = x->step_counter,
    s.scratch = x->sample_scratch;
    return launch_sample(&x->launch, &s);
}

cudaError_t run_op(Exec *x, const Op *op, const Step &step) {
    const Launch *l = &x->launch;
    int n = rows_of(op, step), out = op->out[0];
    if (n == 0) return cudaSuccess;
    switch (op->code) {
    case OP_EMBED:
        return launch_embed(l, &x->weights.at(op->w[0]), x->d.token, n, reg(x, out));
    case OP_NORM:
        return launch_norm(l, reg(x, op->in), row_map(x, op), device_vector(x, op->vector),
                           x->plan->regs[op->in].width, op->eps, n, reg(x, out));
    case OP_MATMUL:
    case OP_EXPERT:
    case OP_LOGITS:
        return run_products(x, op, 1, step);
    case OP_ATTN:
        return run_attn(x, op, step);
    case OP_GLU:
        return launch_glu(l, reg(x, op->in), reg(x, op->in2), (size_t)n * stride_of(x, out), reg(x, out));
    case OP_ADD:
        return launch_add(l, reg(x, op->in), reg(x, op->in2), stride_of(x, out), n, reg(x, out));
    case OP_ROUTE:
        return launch_route(l, reg(x, op->in), stride_of(x, op->in), op->moe.n_expert, op->moe.n_used,
                            op->moe.scale, n, (int32_t *)reg(x, out), reg(x, op->out[1]), stride_of(x, out));
    case OP_MIX:
        return launch_mix(l, reg(x, op->in), stride_of(x, op->in), reg(x, op->ids), stride_of(x, op->ids),
                          op->moe.n_used, x->plan->regs[out].width,
                          op->residual == NO_REG ? nullptr : reg(x, op->residual), stride_of(x, out), n,
                          reg(x, out));
    case OP_SAMPLE:
        return x->batch && !x->batch->sampling ? cudaSuccess : run_sample(x, op, step);
    default:
        return cudaErrorNotSupported; // not in plans of this executor
    }
}

// Runs the first of n ops together with those behind it that go with it; their number in *together.
cudaError_t run_ops(Exec *x, const Op *op, int n, const Step &step, int *together) {
    int chained = 0;
    while (chained < n && chained < MAX_PRODUCTS && rows_of(op + chained, step) == 1 &&
           (op[chained].code == OP_MATMUL || op[chained].code == OP_LOGITS))
        chained++;
    *together = std::max(chained, 1);
    return chained ? run_products(x, op, chained, step) : run_op(x, op, step);
}

cudaError_t walk(Exec *x, const Step &step, int first_op, int last_op) {
    for (int i = first_op, n; i < last_op; i += n) {
        cudaError_t error = run_ops(x, x->plan->ops + i, last_op - i, step, &n);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

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
    int in = x->plan->ops[x->plan->n_ops - 1].in, n_vocab = x->plan->hparams.n_vocab;
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

int bucket_of(int n) {
    int bucket = 1;
    while (bucket < n) bucket *= 2;
    return bucket;
}

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
            error = run_op(x, &x->plan->ops[i], {x->decode.bucket, x->decode.bucket, true});
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

// ---- life -----------------------------------------------------------------------------------------------

void cuda_close(Exec *x) {
    if (!x) return;
    if (x->launch.stream) cudaStreamSynchronize(x->launch.stream);
    for (auto &graph : x->graph) cudaGraphExecDestroy(graph.second);
    for (auto &v : x->vectors) cudaFree(v.second);
    for (auto &f : x->frequencies) cudaFree(f.second);
    for (Memory *m : {&x->regs[0], &x->regs[1], &x->kv, &x->small, &x->scratch}) cudaFree(m->data);
    cudaFreeHost(x->staging), cudaFreeHost(x->ring), cudaFreeHost(x->samplers_host);
    gemm_close(x->gemm);
    upload_close(x->upload);
    free(x->logits_host);
    if (x->launch.stream) cudaStreamDestroy(x->launch.stream);
    delete x;
}

// What need_of asks of an executor.
cudaError_t describe(Exec *x, const Plan *p, const ExecConfig *config) {
    x->plan = p, x->config = *config;
    x->config.R_max = bucket_of(config->R_max); // room for rows of padding
    x->config.T_max = std::max(config->T_max, x->config.R_max);
    cudaError_t error = cudaSetDevice(config->device);
    return error == cudaSuccess ? launch_for_device(config->device, &x->launch) : error;
}

bool cuda_memory(const Plan *p, const ExecConfig *config, ExecMemory *out, Err *e) {
    Exec x = {};
    size_t free_bytes, total;
    cudaError_t error = describe(&x, p, config);
    if (error == cudaSuccess) error = cudaMemGetInfo(&free_bytes, &total);
    if (error != cudaSuccess) return fail(e, error, "asking for its free memory");
    *out = need_of(&x).all;
    out->free = free_bytes;
    return true;
}

bool cuda_open(const Plan *p, const ExecConfig *config, Exec **out, Err *e) {
    Exec *x = new Exec{};
    cudaError_t error = describe(x, p, config);
    if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&x->launch.stream, cudaStreamNonBlocking);
    bool ok = error == cudaSuccess || fail(e, error, "starting");
    if (ok) {
        Need need = need_of(x);
        ok = open_memory(x, need, e) && open_rest(x, need, e);
    }
    if (!ok) {
        cuda_close(x);
        return false;
    }
    *out = x;
    return true;
}

} // namespace

extern "C" cudaError_t launch_for_device(int device, Launch *l) {
    int major = 0, shared = 0;
    cudaError_t error = cudaDeviceGetAttribute(&l->n_sm, cudaDevAttrMultiProcessorCount, device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    l->shared_max = (size_t)shared, l->dependent = major >= 9;
    return error;
}

extern "C" bool cuda_device(int index, CudaDevice *out, Err *e) {
    *out = {};
    int n = 0;
    cudaError_t error = cudaDriverGetVersion(&out->driver);
    if (error == cudaSuccess) error = cudaRuntimeGetVersion(&out->runtime);
    if (error == cudaSuccess && out->driver == 0)
        return err_set(e, ERR_RUN, "there is no NVIDIA driver on this machine");
    if (error == cudaSuccess) error = cudaGetDeviceCount(&n);
    if (error == cudaErrorInsufficientDriver)
        return err_set(
            e, ERR_RUN,
            "the NVIDIA driver is too old: it supports CUDA %d.%d, this build needs %d.%d; update the driver",
            out->driver / 1000, out->driver % 1000 / 10, out->runtime / 1000, out->runtime % 1000 / 10);
    if (error == cudaErrorNoDevice || (error == cudaSuccess && n == 0))
        return err_set(e, ERR_RUN, "there is no NVIDIA GPU that may be used");
    if (error != cudaSuccess)
        return err_set(e, ERR_RUN, "the NVIDIA driver does not answer: %s", cudaGetErrorString(error));
    if (index >= n) return err_set(e, ERR_RUN, "there is no GPU number %d; the machine has %d", index, n);
    cudaDeviceProp p;
    error = cudaGetDeviceProperties(&p, index);
    if (error == cudaSuccess) error = cudaSetDevice(index);
    if (error == cudaSuccess) error = cudaMemGetInfo(&out->free_bytes, &out->total_bytes);
    if (error != cudaSuccess)
        return err_set(e, ERR_RUN, "GPU %d does not answer: %s", index, cudaGetErrorString(error));
    snprintf(out->name, sizeof out->name, "%.127s", p.name);
    out->major = p.major, out->minor = p.minor;
    out->shares_host_tables = p.pageableMemoryAccessUsesHostPageTables || p.integrated;
    if (p.major < 8)
        return err_set(e, ERR_RUN,
                       "the GPU (%s) is older than this build supports: compute capability %d.%d, needed 8.0",
                       p.name, p.major, p.minor);
    return true;
}

static PlanConfig gpu_plan() {
    PlanConfig c = {};
    c.fuse_segments = c.fuse_residual = c.fuse_norm = c.fuse_glu = c.fuse_attn = true;
    c.fuse_norm_max = 8192; // what the product kernel holds in registers
    return c;
}

extern "C" const ExecOps cuda_exec = {
    .name = "cuda",
    .plan = gpu_plan(),
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
