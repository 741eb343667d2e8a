// setup: memory and weights on the device; opening and closing the executor.
//
// Bytes are counted before they are allocated, by the same function that assigns the addresses.  After open
// nothing is allocated but what the samplers of some requests point to, and no module loaded.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <system_error>
#include <thread>

#include "exec.cuh"

namespace {

constexpr size_t RESERVE = (size_t)64 << 20; // staging of the upload; graphs and other memory of the driver

// ---- memory ---------------------------------------------------------------------------------------------

cudaError_t allocate(uint8_t **out, size_t bytes) {
    cudaError_t error = cudaMalloc(out, bytes ? bytes : 1);
    if (error == cudaSuccess) error = cudaMemset(*out, 0, bytes);
    return error == cudaSuccess ? cudaDeviceSynchronize() : error; // the rank's stream does not wait for it
}

size_t align(size_t n) {
    return (n + 255) / 256 * 256;
}

// Assigns arrays to consecutive ranges of a block; with data NULL it only counts their bytes.
struct Arena {
    uint8_t *data;
    size_t used = 0;
    template <class T> T *array(size_t n) {
        T *p = data ? (T *)(data + used) : nullptr;
        used += align(n * sizeof(T));
        return p;
    }
};

void assign_row_set(RowSet *set, Arena *c, size_t T, size_t R, size_t n_banned) {
    set->rows.token = c->array<int32_t>(T);
    set->rows.seq = c->array<int32_t>(T);
    set->rows.position = c->array<int32_t>(T);
    set->rows.out_row = c->array<int32_t>(R);
    set->rows.sampler = c->array<DeviceSampler>(R);
    set->banned = c->array<uint32_t>(n_banned);
    set->step = c->array<uint32_t>(1);
}

CacheConfig cache_config(const Rank *x) {
    return exec_cache_config(&x->config, AHEAD);
}

void assign_small(Rank *x, Arena *c) {
    size_t T = x->config.T_max, R = x->config.R_max, n_seq = x->config.n_seq, n_ctx = x->config.n_ctx;
    assign_row_set(&x->batch, c, T, R, R * ban_words(x));
    x->batch.run = c->array<int32_t>(T + 1);
    x->batch.piece = c->array<AttnPiece>(T);
    assign_row_set(&x->loop, c, R, R, n_seq * ban_words(x));
    x->history.data = c->array<int32_t>(n_seq * (n_ctx + 1));
    x->history.mu = c->array<float>(n_seq * (n_ctx + 1));
    x->history.stride = (int)n_ctx + 1;
    CacheConfig cache = cache_config(x);
    x->tables = c->array<int32_t>(cache_need(x->plan->kv, x->plan->n_kv, &cache).n_entries);
    x->ops.resize(x->plan->n_ops);
    size_t scratch = 0;
    for (int i = 0; i < x->plan->n_ops; i++) {
        const Op *op = &x->plan->ops[i];
        if (op_is_product(op)) {
            Product product = product_shape(x->plan, op);
            scratch = std::max(scratch, product_scratch_bytes(&product));
            scratch = std::max(scratch, op->code == OP_EXPERT
                                            ? experts_scratch_bytes(&product, (int)T)
                                            : wide_scratch_bytes(&x->launch, &product, (int)(op->on_R ? R : T)));
        }
        if (op->code == OP_MATMUL || op->code == OP_EXPERT) {
            size_t n = 0;
            for (int k = 0; k < op->n_w; k++) n += op->w[k]->n_out;
            if (op->code == OP_EXPERT) n *= op->product.moe.n_used;
            x->ops[i].flagged =
                (FlaggedOutput *)c->array<uint8_t>(sizeof(FlaggedOutput) + n * sizeof(uint32_t));
        }
    }
    x->product_scratch = c->array<uint8_t>(scratch);
}

bool has_v_in_k(const Plan *p, const Op *op) {
    const KvLayer *layer = &p->kv[op_operand(op, ROLE_CACHE, 0)];
    return layer->kind == KV_OTHER ? p->kv[layer->other].v_in_k : layer->v_in_k;
}

size_t attn_bytes(const Rank *x) {
    size_t most = 0;
    for (int i = 0; i < x->plan->n_ops; i++)
        if (x->plan->ops[i].code == OP_ATTN)
            most = std::max(most, attn_scratch_bytes(x->config.T_max, &x->plan->ops[i].attn,
                                                     has_v_in_k(x->plan, &x->plan->ops[i]), x->launch.n_sm));
    return align(most);
}

struct Need {
    ExecMemory all; // but for what is free
    size_t small, attn, sample;
};

Need need_of(Rank *x) {
    const Plan *p = x->plan;
    Need need = {};
    Arena count = {nullptr};
    assign_small(x, &count);
    need.small = count.used;
    need.attn = attn_bytes(x);
    need.sample = align(sample_device_scratch_bytes(x->config.R_max, p->hparams.n_vocab));
    need.all = exec_memory(p, &x->config, AHEAD);
    need.all.weights = upload_bytes(p);
    need.all.scratch = need.small + need.attn + need.sample + RESERVE;
    return need;
}

bool open_memory(Rank *x, const Need &need, Err *e) {
    const Plan *p = x->plan;
    cudaError_t error = allocate(&x->kv, need.all.kv);
    if (error == cudaSuccess) error = allocate(&x->regs[0], p->row_bytes_T * x->config.T_max);
    if (error == cudaSuccess) error = allocate(&x->regs[1], p->row_bytes_R * x->config.R_max);
    if (error == cudaSuccess) error = allocate(&x->small, need.small);
    if (error == cudaSuccess) error = allocate(&x->scratch, need.attn + need.sample);
    if (error != cudaSuccess) return fail(e, error, "keys, values and registers");
    Arena arena = {x->small};
    assign_small(x, &arena);
    x->attn_scratch = x->scratch;
    x->sample_scratch = x->scratch + need.attn;
    size_t T = x->config.T_max, R = x->config.R_max;
    error = cudaMallocHost(&x->staging, (6 * T + 1 + R) * sizeof(int32_t) + R * sizeof(DeviceSampler));
    return error == cudaSuccess || fail(e, error, "pinned host memory");
}

bool open_ring(RowSet *set, int ring_steps, size_t R, Err *e) {
    size_t bytes = ring_steps * R * sizeof(RingEntry);
    cudaError_t error = cudaMallocHost(&set->ring, bytes);
    if (error != cudaSuccess) return fail(e, error, "pinned host memory");
    memset(set->ring, 0, bytes); // no step has number 0
    set->ring_steps = ring_steps;
    return true;
}

// Rows of the decode loop: all padding, and each its own wanted row.
bool open_loop_rows(Rank *x, Err *e) {
    std::vector<int32_t> identity(x->config.R_max), none(x->config.R_max, -1);
    std::iota(identity.begin(), identity.end(), 0);
    size_t bytes = identity.size() * sizeof(int32_t);
    cudaError_t error = cudaMemcpy(x->loop.rows.out_row, identity.data(), bytes, cudaMemcpyHostToDevice);
    if (error == cudaSuccess)
        error = cudaMemcpy(x->loop.rows.seq, none.data(), bytes, cudaMemcpyHostToDevice);
    if (error == cudaSuccess)
        error = cudaDeviceSynchronize(); // the rank's stream does not wait for the copies
    return error == cudaSuccess || fail(e, error, "the rows of the decode loop");
}

bool open_rows(Rank *x, Err *e) {
    x->batch.tables.resize(x->config.R_max);
    x->loop.tables.resize(x->config.n_seq);
    return open_ring(&x->batch, 1, x->config.R_max, e) &&
           open_ring(&x->loop, RING_STEPS, x->config.R_max, e) && open_loop_rows(x, e);
}

// ---- weights --------------------------------------------------------------------------------------------

// A device copy of n floats or doubles.
template <class T> bool add_vector(Rank *x, const T *host, size_t n, const T **out, Err *e) {
    void *device;
    cudaError_t error = cudaMalloc(&device, n * sizeof(T));
    if (error == cudaSuccess) x->vectors.push_back(device);
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(device, host, n * sizeof(T), cudaMemcpyHostToDevice, x->launch.stream);
    *out = (const T *)device;
    return error == cudaSuccess || fail(e, error, "small weights");
}

bool same_frequencies(const RopeParams *a, const RopeParams *b) {
    return a->n_rot == b->n_rot && a->base == b->base && a->scale == b->scale && a->factors == b->factors &&
           a->long_factors == b->long_factors && a->long_context == b->long_context &&
           a->yarn_context == b->yarn_context && a->yarn_fast == b->yarn_fast &&
           a->yarn_slow == b->yarn_slow && a->yarn_mix == b->yarn_mix;
}

// The frequencies of op i's rotation.  Most layers rotate alike: they share them.
bool add_frequencies(Rank *x, int i, const RopeParams *rope, Err *e) {
    for (int k = 0; k < i; k++) {
        const RopeParams *before = op_rotation(&x->plan->ops[k]);
        if (!before || !same_frequencies(before, rope)) continue;
        x->ops[i].frequency = x->ops[k].frequency;
        return true;
    }
    std::vector<double> frequency(rope->n_rot / 2);
    exec_rope_frequencies(rope, x->config.n_ctx, frequency.data());
    return add_vector(x, frequency.data(), frequency.size(), &x->ops[i].frequency, e);
}

// The device copy of a vector; NULL for NULL.
bool add_optional(Rank *x, const float *host, size_t n, const float **out, Err *e) {
    return !host || add_vector(x, host, n, out, e);
}

// The weight of a norm of heads in attention: one of ones where it has none, because NULL is no norm.
bool add_head_norm(Rank *x, const NormParams *norm, const float **out, Err *e) {
    std::vector<float> ones(norm->head_dim, 1);
    return !norm->head_dim || add_vector(x, norm->weight ? norm->weight : ones.data(), ones.size(), out, e);
}

bool add_attention(Rank *x, const AttnParams *attn, DeviceOp *to, Err *e) {
    return add_head_norm(x, &attn->q_norm, &to->head_norm[0], e) &&
           add_head_norm(x, &attn->k_norm, &to->head_norm[1], e) &&
           add_head_norm(x, &attn->v_norm, &to->head_norm[2], e) &&
           add_optional(x, attn->sinks, attn->n_head, &to->sinks, e);
}

// The device copy of a weight that an op before op i uses.  false: there is none.
bool find_weight(const Rank *x, const Weight *w, int i, DeviceWeight *out) {
    for (int k = 0; k < i; k++)
        for (int j = 0; j < x->plan->ops[k].n_w; j++)
            if (x->plan->ops[k].w[j] == w) {
                *out = x->ops[k].w[j];
                return true;
            }
    return false;
}

// The vectors of an op with a state; those that the op lacks stay NULL.
bool add_state_vectors(Rank *x, int i, Err *e) {
    const Op *op = &x->plan->ops[i];
    const float *host[3] = {};
    size_t n[3] = {};
    auto set = [&](int k, const float *vector, size_t n_floats) {
        host[k] = vector;
        n[k] = n_floats;
    };
    if (op->code == OP_CONV) {
        size_t width = x->plan->regs[op_in(op, 0)].width;
        set(0, op->conv.weight, width * op->conv.n_tap);
        set(1, op->conv.bias, width);
    } else if (op->code == OP_SCAN) {
        set(0, op->scan.a, op->scan.n_head);
        set(1, op->scan.dt_bias, op->scan.n_head);
        set(2, op->scan.d, op->scan.n_head);
    } else if (op->code == OP_DELTA) {
        set(0, op->delta.a, op->delta.n_head);
        set(1, op->delta.dt_bias, op->delta.n_head * (op->delta.per_channel ? op->delta.k_dim : 1));
    }
    for (int k = 0; k < 3; k++)
        if (host[k] && !add_vector(x, host[k], n[k], &x->ops[i].state[k], e)) return false;
    return true;
}

// The weights of op i; those that an op before it uses are on the device already.
bool add_op_weights(Rank *x, int i, Err *e) {
    const Op *op = &x->plan->ops[i];
    DeviceOp *to = &x->ops[i];
    for (int k = 0; k < op->n_w; k++) {
        const Weight *w = op->w[k];
        if (!find_weight(x, w, i, &to->w[k]) && !upload_tensor(x->upload, w, &to->w[k], e)) return false;
        if (op->bias[k] && !add_vector(x, op->bias[k], (size_t)w->n_expert * w->n_out, &to->bias[k], e))
            return false;
    }
    const RopeParams *rope = op_rotation(op);
    if (rope && !add_frequencies(x, i, rope, e)) return false;
    if (!add_state_vectors(x, i, e)) return false;
    if (op->code == OP_ATTN) return add_attention(x, &op->attn, to, e);
    if (op->code == OP_ROUTE)
        return !op->moe.bias || add_vector(x, op->moe.bias, op->moe.n_expert, &to->bias[0], e);
    if (op->code != OP_NORM && !op_is_product(op)) return true;
    const NormParams *norm = op->code == OP_NORM ? &op->norm : &op->product.norm;
    bool shared = norm->head_dim && !norm->per_head;
    int width = shared ? norm->head_dim : x->plan->regs[op_in(op, 0)].width;
    return add_optional(x, norm->weight, width, &to->vector, e) &&
           add_optional(x, op->code == OP_NORM ? norm->bias : NULL, width, &to->bias[0], e);
}

bool upload_weights(Rank *x, Err *e) {
    for (int i = 0; i < x->plan->n_ops; i++) {
        if (x->config.stop && x->config.stop()) {
            e->code = 0;
            return false;
        }
        if (!add_op_weights(x, i, e)) return false;
    }
    return upload_finish(x->upload, e);
}

bool open_weights(Rank *x, Err *e) {
    x->upload = upload_open(x->plan, x->config.managed, x->config.n_threads, e);
    return x->upload && upload_weights(x, e);
}

// Whether the kernels of this GPU have shared memory for an input row of each product.
bool check_widths(const Rank *x, Err *e) {
    const Plan *p = x->plan;
    for (int i = 0; i < p->n_ops; i++) {
        const Op *op = &p->ops[i];
        if (!op_is_product(op)) continue;
        Product product = product_shape(p, op);
        if (!product_fits(&x->launch, &product))
            return err_set(
                e, ERR_MODEL,
                "a row of %d values, the input of '%s', does not fit into the shared memory of this GPU; "
                "--device cpu runs it",
                op->w[0]->n_in, op->w[0]->name);
    }
    return true;
}

// The fields of a rank that need_of reads.
cudaError_t describe(Rank *x, const Plan *p, const ExecConfig *config) {
    x->plan = p;
    x->config = *config;
    x->config.R_max = bucket_of(config->R_max); // room for rows of padding
    x->config.T_max = std::max(config->T_max, x->config.R_max);
    cudaError_t error = cudaSetDevice(config->device);
    return error == cudaSuccess ? launch_for_device(config->device, &x->launch) : error;
}

} // namespace

// ---- life -----------------------------------------------------------------------------------------------

bool fail(Err *e, cudaError_t error, const char *what) {
    if (error == cudaErrorMemoryAllocation)
        return err_set(e, ERR_MEMORY, "the GPU has no memory left for %s; use a smaller -c or --device cpu",
                       what);
    return err_set(e, ERR_RUN, "the GPU failed at %s: %s", what, cudaGetErrorString(error));
}

static void close_rank(Rank *x) {
    if (x->launch.stream) cudaStreamSynchronize(x->launch.stream);
    for (auto &graph : x->graph) cudaGraphExecDestroy(graph.second);
    for (void *v : x->vectors) cudaFree(v);
    for (const RowSet *set : {&x->batch, &x->loop})
        for (const SamplerTables &t : set->tables) cudaFree(t.data);
    for (uint8_t *memory : {x->regs[0], x->regs[1], x->kv, x->small, x->scratch}) cudaFree(memory);
    for (void *pinned : {(void *)x->staging, (void *)x->batch.ring, (void *)x->loop.ring})
        cudaFreeHost(pinned);
    upload_close(x->upload);
    if (x->launch.stream) cudaStreamDestroy(x->launch.stream);
}

static bool open_rank(Rank *x, const Plan *p, const ExecConfig *config, Err *e) {
    cudaError_t error = describe(x, p, config);
    if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&x->launch.stream, cudaStreamNonBlocking);
    if (error != cudaSuccess) return fail(e, error, "starting");
    Need need = need_of(x);
    return open_memory(x, need, e) && open_rows(x, e) && open_weights(x, e);
}

void cuda_close(Exec *x) {
    if (!x) return;
    for (int i = 0; i < x->n_ranks; i++) close_rank(&x->rank[i]);
    cache_close(x->cache);
    delete x;
}

bool cuda_memory(const Plan *p, const ExecConfig *config, ExecMemory *out, Err *e) {
    Rank x = {};
    size_t free_bytes, total;
    cudaError_t error = describe(&x, p, config);
    if (error == cudaSuccess) error = cudaMemGetInfo(&free_bytes, &total);
    if (error != cudaSuccess) return fail(e, error, "asking for its free memory");
    if (!check_widths(&x, e)) return false;
    *out = need_of(&x).all;
    out->free = free_bytes;
    return true;
}

static void open_cache(Exec *x, const Plan *p) {
    CacheConfig config = cache_config(&x->rank[0]);
    x->cache = cache_open(p->kv, p->n_kv, &config);
    for (int i = 0; i < x->n_ranks; i++) x->rank[i].cache = x->cache;
}

bool cuda_open(const Plan *p, const ExecConfig *config, Exec **out, Err *e) {
    Exec *x = new Exec{};
    x->n_ranks = 1;
    bool ok = true;
    for (int i = 0; ok && i < x->n_ranks; i++) ok = open_rank(&x->rank[i], p, config, e);
    if (!ok) {
        cuda_close(x);
        return false;
    }
    open_cache(x, p);
    for (std::vector<int32_t> *of_rows : {&x->loop.slot, &x->loop.position, &x->loop.n_left})
        of_rows->resize(config->n_seq);
    x->loop.chain.resize(config->n_seq);
    *out = x;
    return true;
}
