// setup: what lies where on the device, and the executor's beginning and end.
//
// What it takes is counted before anything is taken: the same carver counts and cuts.  After open nothing is
// allocated and no module loaded.
#include <algorithm>
#include <cstdlib>
#include <system_error>
#include <thread>

#include "exec.cuh"
extern "C" {
#include "../../src/base/mem.h"
}

namespace {

constexpr size_t RESERVE = (size_t)64 << 20; // staging of the upload; graphs and what else the driver takes

// ---- memory ---------------------------------------------------------------------------------------------

cudaError_t allocate(uint8_t **out, size_t bytes) {
    cudaError_t error = cudaMalloc(out, bytes ? bytes : 1);
    if (error == cudaSuccess) error = cudaMemset(*out, 0, bytes);
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
        if (op_is_product(op)) n_in = std::max(n_in, op->w[0]->n_in);
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
    Carver carver = {x->small};
    carve_small(x, &carver);
    x->attn_scratch = x->scratch, x->sample_scratch = x->scratch + need.attn;
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

// A device copy of n floats of the plan, made once.
bool add_vector(Exec *x, const float *host, size_t n, Err *e) {
    if (!host || x->vectors.count(host)) return true;
    void *device;
    cudaError_t error = cudaMalloc(&device, n * sizeof *host);
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(device, host, n * sizeof *host, cudaMemcpyHostToDevice, x->launch.stream);
    if (error != cudaSuccess) return fail(e, error, "small weights");
    x->vectors[host] = device;
    return true;
}

// The frequencies of an op's rotation, which frequencies owns.
bool add_frequencies(Exec *x, const Op *op, const RopeParams *rope, Err *e) {
    std::vector<double> host(rope->n_rot / 2);
    exec_rope_frequencies(rope, host.data());
    size_t bytes = host.size() * sizeof(double);
    double *device = nullptr;
    cudaError_t error = cudaMalloc(&device, bytes);
    x->frequencies[op] = device;
    if (error == cudaSuccess) error = cudaMemcpy(device, host.data(), bytes, cudaMemcpyHostToDevice);
    return error == cudaSuccess || fail(e, error, "small weights");
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
    if (const RopeParams *rope = op_rotation(op)) {
        if (!add_frequencies(x, op, rope, e)) return false;
    }
    const NormParams *norm = op->code == OP_NORM ? &op->norm : &op->product.norm;
    if (op->code != OP_NORM && !op_is_product(op)) return true;
    int width = norm->head_dim ? norm->head_dim : x->plan->regs[op_in(op, 0)].width;
    return add_vector(x, norm->weight, width, e);
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

// What need_of asks of an executor.
cudaError_t describe(Exec *x, const Plan *p, const ExecConfig *config) {
    x->plan = p, x->config = *config;
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

void cuda_close(Exec *x) {
    if (!x) return;
    if (x->launch.stream) cudaStreamSynchronize(x->launch.stream);
    for (auto &graph : x->graph) cudaGraphExecDestroy(graph.second);
    for (auto &v : x->vectors) cudaFree(v.second);
    for (auto &f : x->frequencies) cudaFree(f.second);
    for (uint8_t *memory : {x->regs[0], x->regs[1], x->kv, x->small, x->scratch}) cudaFree(memory);
    cudaFreeHost(x->staging), cudaFreeHost(x->ring), cudaFreeHost(x->samplers_host);
    gemm_close(x->gemm);
    upload_close(x->upload);
    free(x->logits_host);
    if (x->launch.stream) cudaStreamDestroy(x->launch.stream);
    delete x;
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
