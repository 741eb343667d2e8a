// upload: see upload.h.
//
// A tensor is sent in transfers of whole rows.  Each of N_LANES lanes has pinned memory, device memory and a
// stream of its own, and transfers take the lanes in turn: while one lane's bytes cross the bus, another's
// are repacked on the device and the host fills a third.  A lane is filled again when its stream has
// finished; there is no other ordering.
#include "../device/launch.cuh"
#include "../device/operands.cuh"
#include "upload.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <unordered_set>

extern "C" {
#include "../../src/base/mem.h"
#include "../../src/base/pool.h"
}

namespace {

constexpr int N_LANES = 4, THREADS = 128;
constexpr size_t LANE_BYTES =
    8 << 20; // some 150 us of the bus: much longer than a launch, much shorter than pinning
constexpr size_t ALIGNMENT = 256;

size_t aligned(size_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

size_t n_rows(const Weight *w) {
    return (size_t)w->n_expert * w->n_out;
}

size_t data_bytes(const Weight *w) {
    Layout at = layout_of(w->type, w->n_in, w->n_out);
    return (size_t)w->n_expert * at.n_tile_rows * at.n_tiles * at.tile_bytes;
}

size_t weight_bytes(const Weight *w) {
    return aligned(WEIGHT_HEAD_BYTES + data_bytes(w)) + (w->scale ? aligned(n_rows(w) * sizeof(float)) : 0);
}

struct Lane {
    cudaStream_t stream;
    uint8_t *pinned, *device; // [LANE_BYTES] each
};

// A copy of rows into pinned memory, where they are contiguous; by all threads of the pool.
struct Copy {
    uint8_t *to;
    const uint8_t *from;
    size_t n_rows, row_bytes, stride; // stride: bytes from row to row of `from`
    int n_threads;
};

void copy_share(void *arg, int thread) {
    const Copy *c = (const Copy *)arg;
    size_t share = c->n_rows / c->n_threads + 1, first = std::min(share * thread, c->n_rows),
           end = std::min(first + share, c->n_rows);
    if (c->row_bytes == c->stride) {
        memcpy(c->to + first * c->row_bytes, c->from + first * c->row_bytes, (end - first) * c->row_bytes);
        return;
    }
    for (size_t r = first; r < end; r++)
        memcpy(c->to + r * c->row_bytes, c->from + r * c->stride, c->row_bytes);
}

// Rows of a matrix for the repacking kernel.
struct Transfer {
    const uint8_t *rows; // [n][row_bytes], as they lie in the file
    size_t row_bytes;
    size_t first; // row of the tensor, counted through the rows of all experts
    unsigned n;
    int n_in, n_out;
    Layout at;
    uint8_t *out; // the tensor's tiles

    __device__ uint8_t *tile(size_t row, unsigned index) const {
        size_t tile_row = row / n_out * at.n_tile_rows + row % n_out / TILE_ROWS;
        return out + (tile_row * at.n_tiles + index) * at.tile_bytes;
    }
};

// The bound of the scales of n blocks.
template <QuantType T> __device__ float bound_of(const typename Format<T>::Block *b, int n) {
    constexpr int N = Format<T>::WEIGHTS / Format<T>::GROUP;
    float bound = 0;
    for (int i = 0; i < n; i++) {
        int8_t ignored[Format<T>::WEIGHTS];
        float scale[N], min[N];
        Format<T>::unpack(b + i, ignored, scale, min);
        for (int k = 0; k < N; k++)
            bound = fmaxf(bound, scale_bound(scale[k], Format<T>::HAS_MIN ? min[k] : 0));
    }
    return bound;
}

// Each thread repacks one row of one tile.
template <QuantType T>
__global__ void __launch_bounds__(THREADS) k_repack(const __grid_constant__ Transfer transfer) {
    unsigned i = blockIdx.x * THREADS + threadIdx.x, number = i / transfer.at.n_tiles,
             index = i % transfer.at.n_tiles;
    if (number >= transfer.n) return;
    size_t row = transfer.first + number;
    const uint8_t *from = transfer.rows + number * transfer.row_bytes;
    uint8_t *tile = transfer.tile(row, index);
    int r = (int)(row % transfer.n_out % TILE_ROWS), g = r % 8, h = r / 8;
    if constexpr (Format<T>::FLOAT) {
        using Element = typename Format<T>::Element;
        const Element *values = (const Element *)from;
        for (int k = 0; k < 16; k++) { // vector 4h + k / 4 of lane 4g + k % 4
            Element *to = (Element *)(tile + ((4 * h + k / 4) * 32 + 4 * g + k % 4) * 16);
            for (int i = 0; i < VECTOR_FLOATS<T>; i++) {
                int column = (int)index * TILE_FLOATS<T> + k * VECTOR_FLOATS<T> + i;
                if (column < transfer.n_in) to[i] = values[column];
            }
        }
    } else {
        using Block = typename Format<T>::Block;
        int chunks = min(transfer.n_in / CHUNK_WEIGHTS - (int)index * TILE_CHUNKS, (int)TILE_CHUNKS);
        const Block *blocks = (const Block *)from + (size_t)index * TILE_CHUNKS / Format<T>::BLOCK_CHUNKS;
        repack_row<T>(blocks, chunks, tile, g, h);
        unsigned lanes = __activemask(),
                 bound = __float_as_uint(bound_of<T>(blocks, chunks / Format<T>::BLOCK_CHUNKS));
        bound = __reduce_max_sync(lanes, bound);
        if ((int)threadIdx.x % 32 == __ffs(lanes) - 1)
            atomicMax((uint32_t *)(transfer.out - WEIGHT_HEAD_BYTES), bound);
    }
}

} // namespace

struct Upload {
    Pool *pool;
    Lane lanes[N_LANES];
    unsigned n_transfers; // sent so far; transfer i takes lane i % N_LANES
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
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError(); // clears it
        return fail_memory(e, u->bytes, free);
    }
    if (error == cudaSuccess)
        error = cudaMemset(u->memory, 0, u->bytes); // the last tiles are filled up with zeros
    if (error == cudaSuccess) error = cudaDeviceSynchronize();
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
        cudaFreeHost(lane.pinned);
        cudaFree(lane.device);
        lane = {};
    }
    pool_close(u->pool);
    u->pool = nullptr;
}

uint8_t *tile_memory(Upload *u, size_t bytes) {
    uint8_t *at = u->memory + u->used;
    u->used += aligned(bytes);
    assert(u->used <= u->bytes); // upload_open counted this weight
    return at;
}

// Waits for the next lane and copies n rows into its pinned memory.
cudaError_t fill_lane(Upload *u, const uint8_t *from, size_t n, size_t row_bytes, size_t stride, Lane **out) {
    Lane *lane = &u->lanes[u->n_transfers++ % N_LANES];
    cudaError_t error = cudaStreamSynchronize(lane->stream);
    if (error != cudaSuccess) return error;
    Copy copy = {lane->pinned, from, n, row_bytes, stride, pool_n(u->pool)};
    pool_run(u->pool, copy_share, &copy);
    *out = lane;
    return cudaSuccess;
}

// Sends n floats, unchanged.
cudaError_t send_floats(Upload *u, const float *from, size_t n, float *to) {
    size_t most = LANE_BYTES / sizeof(float);
    for (size_t first = 0; first < n; first += most) {
        size_t count = std::min(n - first, most);
        Lane *lane;
        cudaError_t error =
            fill_lane(u, (const uint8_t *)(from + first), count, sizeof(float), sizeof(float), &lane);
        if (error == cudaSuccess)
            error = cudaMemcpyAsync(to + first, lane->pinned, count * sizeof(float), cudaMemcpyHostToDevice,
                                    lane->stream);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

// Sends n rows of a weight, which begin at `from` and follow each other, and repacks them into its tiles; the
// first of them is row `start` of all experts' rows.  Of each row only the weight's n_in columns are sent, which
// are less than row_bytes where the weight is a range of columns of a tensor.
template <QuantType T>
cudaError_t send_rows(Upload *u, const Weight *w, const uint8_t *from, size_t start, size_t n,
                      const Layout &at, uint8_t *to) {
    const QuantTraits *traits = quant_traits(T);
    Transfer transfer = {.row_bytes = (size_t)w->n_in / traits->n_weights * traits->n_bytes,
                         .n_in = w->n_in,
                         .n_out = w->n_out,
                         .at = at,
                         .out = to};
    size_t most = LANE_BYTES / transfer.row_bytes;
    if (most == 0) return cudaErrorInvalidValue; // a row of more than LANE_BYTES
    for (size_t first = 0; first < n; first += most) {
        size_t count = std::min(n - first, most);
        Lane *lane;
        cudaError_t error =
            fill_lane(u, from + first * w->row_bytes, count, transfer.row_bytes, w->row_bytes, &lane);
        if (error == cudaSuccess)
            error = cudaMemcpyAsync(lane->device, lane->pinned, count * transfer.row_bytes,
                                    cudaMemcpyHostToDevice, lane->stream);
        if (error != cudaSuccess) return error;
        transfer.rows = lane->device;
        transfer.first = start + first;
        transfer.n = (unsigned)count;
        Launch l = {.stream = lane->stream};
        unsigned n_threads = transfer.n * at.n_tiles;
        error = launch_kernel(&l, k_repack<T>, (n_threads + THREADS - 1) / THREADS, THREADS, 0, transfer);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

// Sends a weight: all its rows at once, or those of each expert where these lie apart.
template <QuantType T> cudaError_t send_weight(Upload *u, const Weight *w, const Layout &at, uint8_t *to) {
    int n_parts = w->experts ? w->n_expert : 1;
    size_t n = n_rows(w) / n_parts;
    cudaError_t error = cudaSuccess;
    for (int i = 0; i < n_parts && error == cudaSuccess; i++)
        error = send_rows<T>(u, w, weight_rows(w, i), i * n, n, at, to);
    return error;
}

} // namespace

extern "C" Layout layout_of(QuantType type, int n_in, int n_out) {
    const QuantTraits *t = quant_traits(type);
    assert(n_in > 0 && n_out > 0 && n_in % t->n_weights == 0);
    Layout at;
    bool blocks = t->act == QUANT_ACT_Q8;
    at.tile_weights = blocks ? TILE_CHUNKS * CHUNK_WEIGHTS : 4096 / TILE_ROWS / (int)t->n_bytes;
    at.tile_bytes = TILE_ROWS * (int)(at.tile_weights / t->n_weights * t->n_bytes);
    at.n_tiles = (n_in + at.tile_weights - 1) / at.tile_weights;
    at.n_tile_rows = (n_out + TILE_ROWS - 1) / TILE_ROWS;
    assert(at.tile_bytes % 16 == 0 && at.tile_bytes <= TILE_MAX_BYTES);
    return at;
}

extern "C" size_t upload_bytes(const Plan *p) {
    std::unordered_set<const Weight *> seen;
    size_t bytes = 0;
    for (int i = 0; i < p->n_ops; i++)
        for (int k = 0; k < p->ops[i].n_w; k++)
            if (seen.insert(p->ops[i].w[k]).second) bytes += weight_bytes(p->ops[i].w[k]);
    return bytes;
}

extern "C" Upload *upload_open(const Plan *p, bool managed, int n_threads, Err *e) {
    Upload *u = (Upload *)mem_new(1, sizeof *u);
    u->bytes = upload_bytes(p);
    u->pool = pool_open(n_threads);
    if (allocate(u, managed, e)) return u;
    upload_close(u);
    return nullptr;
}

extern "C" bool upload_tensor(Upload *u, const Weight *w, DeviceWeight *out, Err *e) {
    Layout at = layout_of(w->type, w->n_in, w->n_out);
    uint8_t *data = tile_memory(u, WEIGHT_HEAD_BYTES + data_bytes(w)) + WEIGHT_HEAD_BYTES;
    cudaError_t error = for_type(w->type, [&](auto type) { return send_weight<type>(u, w, at, data); });
    float *scale = w->scale ? (float *)tile_memory(u, n_rows(w) * sizeof(float)) : nullptr;
    if (error == cudaSuccess && scale) error = send_floats(u, w->scale, n_rows(w), scale);
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
