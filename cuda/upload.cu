// upload: see upload.h.
//
// A piece is a whole number of segments, which are contiguous in the file as on the device.  Each of a few
// lanes has pinned memory, device memory and a stream of its own; pieces take the lanes in turn, so that
// while one lane's bytes cross the bus another's are repacked and the host fills a third.  The order within a
// lane is all the ordering there is.
#include "launch.cuh"
#include "quant.cuh"
#include "upload.h"

#include <cstdlib>
#include <cstring>
#include <unordered_set>

extern "C" {
#include "../src/base/mem.h"
#include "../src/base/pool.h"
}

namespace {

constexpr int N_LANES = 4, THREADS = 128;
constexpr size_t LANE_BYTES =
    8 << 20; // some 150 us of the bus: long beside a launch, short beside pinning it
constexpr size_t ALIGNMENT = 256;

size_t aligned(size_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

size_t n_rows(const Weight *w) {
    return (size_t)w->n_expert * w->n_out;
}

size_t data_bytes(const Weight *w) {
    Layout at = layout_of(w->type, w->n_in);
    return n_rows(w) * at.n_segments * at.segment_bytes;
}

size_t weight_bytes(const Weight *w) {
    return aligned(data_bytes(w)) + (w->scale ? aligned(n_rows(w) * sizeof(float)) : 0);
}

size_t plan_bytes(const Plan *p) {
    std::unordered_set<const Weight *> seen;
    size_t bytes = 0;
    for (int i = 0; i < p->n_ops; i++)
        for (int k = 0; k < p->ops[i].n_w; k++)
            if (seen.insert(p->ops[i].w[k]).second) bytes += weight_bytes(p->ops[i].w[k]);
    return bytes;
}

struct Lane {
    cudaStream_t stream;
    uint8_t *pinned, *device; // [LANE_BYTES] each
};

struct Copy { // for all threads of the pool
    uint8_t *to;
    const uint8_t *from;
    size_t bytes;
    int n_threads;
};

void copy_share(void *arg, int thread) {
    const Copy *c = (const Copy *)arg;
    size_t share = aligned(c->bytes / c->n_threads + 1), first = share * thread;
    if (first < c->bytes)
        memcpy(c->to + first, c->from + first, c->bytes - first < share ? c->bytes - first : share);
}

template <QuantType T>
__global__ void __launch_bounds__(THREADS)
    k_repack(const uint8_t *file, unsigned n_blocks, unsigned segment_blocks, unsigned segment_bytes,
             uint8_t *out) {
    using F = Format<T>;
    unsigned i = blockIdx.x * THREADS + threadIdx.x; // a thread per block of the file
    if (i >= n_blocks) return;
    uint8_t *segment = out + (size_t)(i / segment_blocks) * segment_bytes;
    repack_block<T>((const typename F::Block *)file + i, segment, segment_blocks * F::BLOCK_CHUNKS,
                    i % segment_blocks);
}

} // namespace

struct Upload {
    Pool *pool;
    Lane lanes[N_LANES];
    unsigned n_pieces; // so far: the lane's turn
    uint8_t *memory;
    size_t bytes, used;
};

namespace {

bool fail(Err *e, cudaError_t error, const char *name) {
    return err_set(e, ERR_RUN, "uploading %s to the GPU failed: %s; --device cpu runs without it", name,
                   cudaGetErrorString(error));
}

bool fail_memory(Err *e, size_t bytes, size_t free) {
    return err_set(e, ERR_MEMORY,
                   "the weights need %.2f GB of GPU memory, of which %.2f GB are free; take a smaller "
                   "quantisation, or run with --device cpu",
                   bytes * 1e-9, free * 1e-9);
}

bool allocate(Upload *u, bool managed, Err *e) {
    size_t free = 0, total;
    cudaError_t error = cudaMemGetInfo(&free, &total);
    if (error != cudaSuccess) return fail(e, error, "weights");
    if (u->bytes > free) return fail_memory(e, u->bytes, free);
    error = managed ? cudaMallocManaged(&u->memory, u->bytes) : cudaMalloc(&u->memory, u->bytes);
    if (error == cudaErrorMemoryAllocation) return cudaGetLastError(), fail_memory(e, u->bytes, free);
    for (Lane &lane : u->lanes) {
        if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&lane.stream, cudaStreamNonBlocking);
        if (error == cudaSuccess) error = cudaMallocHost(&lane.pinned, LANE_BYTES);
        if (error == cudaSuccess) error = cudaMalloc(&lane.device, LANE_BYTES);
    }
    return error == cudaSuccess || fail(e, error, "weights");
}

void close_lanes(Upload *u) {
    for (Lane &lane : u->lanes) {
        if (lane.stream) cudaStreamDestroy(lane.stream);
        cudaFreeHost(lane.pinned), cudaFree(lane.device);
        lane = {};
    }
    pool_close(u->pool);
    u->pool = nullptr;
}

uint8_t *take(Upload *u, size_t bytes) {
    uint8_t *at = u->memory + u->used;
    u->used += aligned(bytes);
    assert(u->used <= u->bytes); // upload_open saw this weight
    return at;
}

// The next lane, free, with these bytes in its pinned memory.
cudaError_t fill_lane(Upload *u, const uint8_t *from, size_t bytes, Lane **out) {
    Lane *lane = &u->lanes[u->n_pieces++ % N_LANES];
    cudaError_t error = cudaStreamSynchronize(lane->stream);
    if (error != cudaSuccess) return error;
    Copy copy = {lane->pinned, from, bytes, pool_n(u->pool)};
    pool_run(u->pool, copy_share, &copy);
    *out = lane;
    return cudaSuccess;
}

// n stretches of file_bytes into a plane of stretches step bytes apart.
cudaError_t send_floats(Upload *u, const uint8_t *from, size_t n, size_t file_bytes, uint8_t *to,
                        size_t step) {
    size_t most = LANE_BYTES / file_bytes;
    for (size_t first = 0; first < n; first += most) {
        size_t count = n - first < most ? n - first : most;
        Lane *lane;
        cudaError_t error = fill_lane(u, from + first * file_bytes, count * file_bytes, &lane);
        if (error == cudaSuccess)
            error = cudaMemcpy2DAsync(to + first * step, step, lane->pinned, file_bytes, file_bytes, count,
                                      cudaMemcpyHostToDevice, lane->stream);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

// n segments of blocks.
template <QuantType T>
cudaError_t send_blocks(Upload *u, const uint8_t *from, size_t n, const Layout &at, uint8_t *to) {
    using F = Format<T>;
    unsigned segment_blocks = at.segment_chunks / F::BLOCK_CHUNKS;
    size_t file_bytes = segment_blocks * sizeof(typename F::Block), most = LANE_BYTES / file_bytes;
    for (size_t first = 0; first < n; first += most) {
        size_t count = n - first < most ? n - first : most;
        Lane *lane;
        cudaError_t error = fill_lane(u, from + first * file_bytes, count * file_bytes, &lane);
        if (error == cudaSuccess)
            error = cudaMemcpyAsync(lane->device, lane->pinned, count * file_bytes, cudaMemcpyHostToDevice,
                                    lane->stream);
        if (error != cudaSuccess) return error;
        unsigned n_blocks = (unsigned)count * segment_blocks;
        Launch l = {lane->stream, 0, false};
        error = launch_kernel(&l, k_repack<T>, (n_blocks + THREADS - 1) / THREADS, THREADS, 0, lane->device,
                              n_blocks, segment_blocks, (unsigned)at.segment_bytes,
                              to + first * at.segment_bytes);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

} // namespace

extern "C" Layout layout_of(QuantType type, int n_in) {
    const QuantTraits *t = quant_traits(type);
    bool blocks = t->act == QUANT_ACT_Q8;
    int unit = blocks ? t->n_weights : n_in % 8 == 0 ? 8 : 1; // weights
    assert(n_in > 0 && n_in % unit == 0);
    int n_units = n_in / unit, n_segments = 1;
    size_t unit_bytes = (size_t)unit / t->n_weights * t->n_bytes;
    while (n_units % n_segments || n_units / n_segments * unit_bytes > SEGMENT_MAX_BYTES) n_segments++;
    Layout at;
    at.n_segments = n_segments;
    at.segment_chunks = blocks ? n_in / n_segments / CHUNK_WEIGHTS : 0;
    at.segment_bytes = (n_units / n_segments * unit_bytes + 15) / 16 * 16;
    return at;
}

extern "C" Upload *upload_open(const Plan *p, bool managed, int n_threads, Err *e) {
    Upload *u = (Upload *)mem_new(1, sizeof *u);
    u->bytes = plan_bytes(p);
    u->pool = pool_open(n_threads);
    if (allocate(u, managed, e)) return u;
    upload_close(u);
    return nullptr;
}

extern "C" bool upload_tensor(Upload *u, const Weight *w, DeviceWeight *out, Err *e) {
    Layout at = layout_of(w->type, w->n_in);
    uint8_t *data = take(u, data_bytes(w));
    size_t n_segments = n_rows(w) * at.n_segments;
    cudaError_t error = for_type(w->type, [&](auto type) {
        if constexpr (Format<type>::FLOAT) {
            size_t length = w->n_in / at.n_segments;
            return send_floats(u, w->data, n_segments, length * sizeof(typename Format<type>::Element), data,
                               at.segment_bytes);
        } else
            return send_blocks<type>(u, w->data, n_segments, at, data);
    });
    float *scale = w->scale ? (float *)take(u, n_rows(w) * sizeof(float)) : nullptr;
    if (error == cudaSuccess && scale)
        error = send_floats(u, (const uint8_t *)w->scale, n_rows(w), sizeof(float), (uint8_t *)scale,
                            sizeof(float));
    *out = DeviceWeight{w->type, w->n_in, w->n_out, w->n_expert, at, data, scale};
    return error == cudaSuccess || fail(e, error, w->name);
}

extern "C" bool upload_finish(Upload *u, Err *e) {
    cudaError_t error = cudaSuccess;
    for (Lane &lane : u->lanes)
        if (error == cudaSuccess) error = cudaStreamSynchronize(lane.stream);
    close_lanes(u);
    return error == cudaSuccess || fail(e, error, "weights");
}

extern "C" void upload_close(Upload *u) {
    if (!u) return;
    close_lanes(u);
    cudaFree(u->memory);
    free(u);
}
