// experts: products of experts of many rows, on the tensor cores.
//
//                 8 warps x 2 tile rows            a group: up to 128 (row, slot) pairs of one expert
//                +---------------------+          +-----------------------------------------------+
//     weights    |  tiles, each warp   |    x     |  input rows in f16, 128 columns at a time,    |  inputs
//                |  has rings of its   |          |  in shared memory for all warps               |
//                |  own (ring.cuh)     |          +-----------------------------------------------+
//                +---------------------+
//
// A work item is a group and 8 pairs of tile rows: gate and up of the same outputs, which the warp that has
// both joins, or two neighbours.  Blocks take items in turn, those of a group beside each other, so that an
// expert's weights come from memory once.  The sort (experts.cuh) writes the groups: how many items there are
// is known on the device only.
//
// The one trick: weights go from their tiles to the operands of the instructions in registers (operands.cuh),
// and the input rows are written in the order of the weights, so that a lane's eight activations of a chunk are
// 16 contiguous bytes.
#include <algorithm>

#include "../device/epilogue.cuh"
#include "../device/experts.cuh"
#include "../device/half.cuh"
#include "../device/mma.cuh"
#include "../device/norm.cuh"
#include "../device/operands.cuh"
#include "../device/ring.cuh"

namespace {

constexpr int WARPS = 8, THREADS = WARPS * 32;
constexpr int GROUP_ROWS = 128; // pairs of a group, at most
constexpr int STEP = 128;       // columns of the inputs that are in shared memory together
constexpr int STEP_CHUNKS = STEP / CHUNK_WEIGHTS;
constexpr int STEP_BYTES = STEP * 2;
constexpr int PITCH = STEP_BYTES + 64;           // bytes from row to row: no bank conflicts
constexpr int BUFFER_BYTES = GROUP_ROWS * PITCH; // of a step; there are two buffers
constexpr int INPUT_WARPS = 16, INPUT_THREADS = INPUT_WARPS * 32;

struct Work {
    Product p;
    const __half *in; // rows of `pitch` halves, a multiple of STEP, in the order of the weights
    int pitch;
    ExpertGroups groups;
    int n_parts; // work items of a group
    int slot_bytes, n_stages;
};

// ---- inputs ---------------------------------------------------------------------------------------------

// Input rows of a block: one where they are normalised, by all threads.
int rows_of_block(const Product *p) {
    return p->norm ? 1 : 4;
}

// Writes n input rows, n_rows per block, normalised first where there is a norm; where each slot has an input
// of its own, slot after slot.  The last block sorts.
__global__ void __launch_bounds__(INPUT_THREADS)
    k_halves(const __grid_constant__ Product p, __half *out, int pitch, int n, int n_rows,
             const __grid_constant__ PairSort sort) {
    pdl_wait();
    pdl_launch();
    if (blockIdx.x == gridDim.x - 1) return sort_pairs(sort, threadIdx.x, INPUT_THREADS);
    int n_threads = INPUT_THREADS / n_rows, t = blockIdx.x * n_rows + threadIdx.x / n_threads;
    if (t >= n) return;
    int n_slots = p.per_slot ? p.n_used : 1, row = t / n_slots, n_in = p.segment[0].w.n_in;
    const float *in = row_of(p.in, row) + (size_t)(t - row * n_slots) * n_in;
    float scale = p.norm ? row_rms_scale<INPUT_WARPS>(in, n_in, p.norm_eps) : 1;
    auto four = [&](int column) {
        float4 v = load4(in, column, n_in);
        if (!p.norm) return v;
        float4 w = load4(p.norm, column, n_in);
        return make_float4(normalised(v.x, scale, w.x), normalised(v.y, scale, w.y),
                           normalised(v.z, scale, w.z), normalised(v.w, scale, w.w));
    };
    for (int i = threadIdx.x % n_threads; i < pitch / 8; i += n_threads) {
        int column = i / 4 * CHUNK_WEIGHTS + i % 4 * 4;
        float4 a = four(column), b = four(column + 16);
        uint4 v = {saturated_pair(a.x, a.z), saturated_pair(a.y, a.w), saturated_pair(b.x, b.z),
                   saturated_pair(b.y, b.w)};
        *(uint4 *)(out + (size_t)t * pitch + i * 8) = v;
    }
}

// The steps of a block's input rows, in two buffers in turn, through all of its items.
struct InputSteps {
    const Work &work;
    const int *rows; // of work.in [GROUP_ROWS], in shared memory
    int at;          // bytes in shared memory
    uint32_t barriers;
    unsigned n_started = 0, n_waited = 0;

    // Starts to copy step s of the first n rows, by all threads, into the buffer that no warp reads.
    __device__ void start(int s, int n) {
        uint8_t *to = shared_memory() + at + n_started % 2 * BUFFER_BYTES;
        const uint8_t *from = (const uint8_t *)(work.in + s * STEP);
        size_t row_bytes = (size_t)work.pitch * sizeof(__half);
#if __CUDA_ARCH__ >= 900
        if (threadIdx.x < 32) {
            uint32_t barrier = barriers + n_started % 2 * 8;
            if (threadIdx.x == 0) arrival_expect(barrier, n * STEP_BYTES);
            __syncwarp();
            for (int t = threadIdx.x; t < n; t += 32)
                bulk_copy(shared_address(to) + t * PITCH, from + rows[t] * row_bytes, STEP_BYTES, barrier,
                          READ_OFTEN);
        }
#else
        for (int i = threadIdx.x; i < n * (STEP_BYTES / 16); i += THREADS) {
            int t = i / (STEP_BYTES / 16), byte = i % (STEP_BYTES / 16) * 16;
            *(uint4 *)(to + t * PITCH + byte) = __ldcg((const uint4 *)(from + rows[t] * row_bytes + byte));
        }
#endif
        n_started++;
    }
    // The oldest step that was started; a __syncthreads must follow.
    __device__ const uint8_t *wait() {
#if __CUDA_ARCH__ >= 900
        arrival_wait(barriers + n_waited % 2 * 8, n_waited / 2 % 2);
#endif
        return shared_memory() + at + n_waited++ % 2 * BUFFER_BYTES;
    }
};

// ---- the product ----------------------------------------------------------------------------------------

// The sums of two tiles' rows: of [tile][column / 8] as mma.cuh has them.
struct Sums {
    float of[2][GROUP_ROWS / 8][4];
};

// sums += two tiles' chunk times the first n input rows, which begin at `in`.
__device__ __forceinline__ void multiply_chunk(Sums &sums, const uint32_t a[2][2][4], const uint8_t *in,
                                               int lane, int n) {
    auto row = [&](int i) { // of 8 columns of the instruction, this lane's
        return *(const uint4 *)(in + (8 * i + lane / 4) * PITCH + lane % 4 * 16);
    };
    uint4 b[2] = {row(0), row(1)};
#pragma unroll
    for (int i = 0; i < GROUP_ROWS / 8; i += 2) {
        if (8 * i >= n) break;
        uint4 next[2];
#pragma unroll
        for (int k = 0; k < 2; k++) next[k] = row(min(i + 2 + k, GROUP_ROWS / 8 - 1));
#pragma unroll
        for (int k = 0; k < 2; k++) {
            const uint32_t first[2] = {b[k].x, b[k].y}, second[2] = {b[k].z, b[k].w};
#pragma unroll
            for (int m = 0; m < 2; m++) {
                multiply(sums.of[m][i + k], a[m][0], first);
                multiply(sums.of[m][i + k], a[m][1], second);
            }
            b[k] = next[k];
        }
    }
}

// A warp's two tile rows of one expert, tile by tile.
template <QuantType F> struct TilePair {
    Ring ring[2];
    const uint8_t *from[2];
    Operands<F> operands[2];
    float factor[2]; // of the operands
    int n_left;      // tiles that are still to be fetched

    __device__ TilePair(const Work &work, int warp)
        : ring{Ring(2 * warp, work.slot_bytes, work.n_stages),
               Ring(2 * warp + 1, work.slot_bytes, work.n_stages)} {
        for (int m = 0; m < 2; m++) factor[m] = weight_factor<F>(work.p.segment[is_pair(work.p) ? m : 0].w);
    }

    __device__ void fetch(int m, int stage, int bytes) {
        ring[m].fetch(stage, 0, from[m], n_left > 0 ? bytes : 0);
    }

    __device__ void start(const Product &p, int expert, int first_row) {
        const Layout &at = p.segment[0].w.layout;
        n_left = at.n_tiles;
        for (int m = 0; m < 2; m++) {
            int row = is_pair(p) ? first_row : min(first_row + m, at.n_tile_rows - 1);
            from[m] = p.segment[is_pair(p) ? m : 0].w.data +
                      ((size_t)expert * at.n_tile_rows + row) * at.n_tiles * at.tile_bytes;
        }
        for (int i = 0; i < ring[0].n_stages; i++, n_left--)
            for (int m = 0; m < 2; m++) fetch(m, (ring[m].stage + i) % ring[m].n_stages, at.tile_bytes);
    }

    // sums += the chunks of step s, of n_chunks in all, times n input rows.
    __device__ __forceinline__ void multiply_step(Sums &sums, int s, int n_chunks, const uint8_t *in, int n,
                                                  int tile_bytes) {
        constexpr int OF_TILE = CHUNKS_OF_TILE<F>;
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int c = 0; c < STEP_CHUNKS; c++) {
            int chunk = s * STEP_CHUNKS + c, in_tile = chunk % OF_TILE;
            if (chunk >= n_chunks) break;
            if (c % OF_TILE == 0 && in_tile == 0)
#pragma unroll
                for (int m = 0; m < 2; m++) operands[m].begin(ring[m].wait(), lane, factor[m]);
            if (c == 0)
#pragma unroll
                for (int m = 0; m < 2; m++) operands[m].load(lane, in_tile / STEP_CHUNKS);
            uint32_t a[2][2][4];
#pragma unroll
            for (int m = 0; m < 2; m++) operands[m].chunk(lane, in_tile, c, a[m]);
            bool tile_is_read = Format<F>::FLOAT ? in_tile == OF_TILE - 1 || chunk == n_chunks - 1
                                                 : c == 0 && (in_tile || n_chunks - chunk <= STEP_CHUNKS);
            if (tile_is_read) {
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    fetch(m, ring[m].stage, tile_bytes);
                    ring[m].advance();
                }
                n_left--;
            }
            multiply_chunk(sums, a, in + c * CHUNK_WEIGHTS * 2, lane, n);
        }
    }
};

// The outputs of a group's n pairs, pair t at out[t], by way of shared memory: lanes store neighbours;
// `staging` holds two tile rows of half of the pairs.
constexpr int STAGED = GROUP_ROWS / 2, STAGED_PITCH = 2 * TILE_ROWS + 4; // no bank conflicts
static_assert(WARPS * STAGED * STAGED_PITCH * sizeof(float) <= 2 * BUFFER_BYTES, "in place of the inputs");

template <QuantType F>
__device__ __forceinline__ void store(const Product &p, const Sums &sums, const float factor[2],
                                      float *staging, int expert, int first_row, float *const *out, int n) {
    const ProductSegment &s = p.segment[0];
    int lane = threadIdx.x % 32, width = is_pair(p) ? TILE_ROWS : 2 * TILE_ROWS; // outputs of a pair
    int row = first_row * TILE_ROWS + lane % width;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int first = half * STAGED, end = min(n - first, STAGED);
#pragma unroll
        for (int i = 0; i < STAGED / 8; i++)
#pragma unroll
            for (int k = 0; k < 8; k++) { // of tile m, register r
                int m = k / 4, r = k % 4, t = 8 * i + lane % 4 * 2 + r % 2;
                staging[t * STAGED_PITCH + m * TILE_ROWS + r / 2 * 8 + lane / 4] =
                    sums.of[m][half * STAGED / 8 + i][r] / factor[m];
            }
        __syncwarp();
        for (int t = lane / width; t < end && row < s.w.n_out; t += 32 / width) {
            const float *sum = staging + t * STAGED_PITCH + lane % width;
            out[first + t][row] = epilogue(p, s, (size_t)expert * s.w.n_out + row, sum[0],
                                           sum[is_pair(p) ? TILE_ROWS : 0], 1, 0);
        }
        __syncwarp();
    }
}

template <QuantType F>
__global__ void __launch_bounds__(THREADS, 1) k_experts(const __grid_constant__ Work work) {
    __shared__ uint64_t arrived[2];
    __shared__ int in_rows[GROUP_ROWS];
    __shared__ float *out_rows[GROUP_ROWS];
    const Product &p = work.p;
    const Layout &at = p.segment[0].w.layout;
    int warp = threadIdx.x / 32, ring_bytes = 2 * Ring::bytes(work.slot_bytes, work.n_stages);
    TilePair<F> tiles(work, warp);
    InputSteps inputs = {work, in_rows, WARPS * ring_bytes, shared_address(arrived)};
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x < 2) arrival_init(shared_address(arrived + threadIdx.x));
#endif
    int n_chunks = (p.segment[0].w.n_in + CHUNK_WEIGHTS - 1) / CHUNK_WEIGHTS,
        n_steps = (n_chunks + STEP_CHUNKS - 1) / STEP_CHUNKS;
    pdl_wait();
    pdl_launch();
    int n_items = __ldcg(work.groups.n_groups) * work.n_parts;
    for (int item = blockIdx.x; item < n_items; item += gridDim.x) {
        int number = item / work.n_parts, part = item - number * work.n_parts;
        ExpertGroup group = work.groups.at(number);
        int first_row = (part * WARPS + warp) * (is_pair(p) ? 1 : 2);
        bool active = first_row < at.n_tile_rows;
        __syncthreads(); // all warps have ended the item before
        if ((int)threadIdx.x < group.n) {
            int pair = __ldcg(work.groups.pair + group.first + threadIdx.x), row = pair / p.n_used;
            in_rows[threadIdx.x] = p.per_slot ? pair : row;
            out_rows[threadIdx.x] = p.segment[0].out + (size_t)row * p.segment[0].out_stride +
                                    (size_t)(pair - row * p.n_used) * p.segment[0].w.n_out;
        }
        __syncthreads();
        if (active) tiles.start(p, group.expert, first_row);
        inputs.start(0, group.n);
        Sums sums = {};
        for (int s = 0; s < n_steps; s++) {
            const uint8_t *in = inputs.wait();
            __syncthreads(); // all warps have read the other buffer
            if (s + 1 < n_steps) inputs.start(s + 1, group.n);
            if (active) tiles.multiply_step(sums, s, n_chunks, in, group.n, at.tile_bytes);
        }
        __syncthreads(); // all warps have read the inputs
        float *staging = (float *)(shared_memory() + inputs.at) + warp * STAGED * STAGED_PITCH;
        if (active) store<F>(p, sums, tiles.factor, staging, group.expert, first_row, out_rows, group.n);
        before_bulk_writes();
    }
}

size_t input_bytes(const Product *p, int T) {
    size_t pitch = (size_t)(p->segment[0].w.n_in + STEP - 1) / STEP * STEP;
    return (size_t)T * (p->per_slot ? p->n_used : 1) * pitch * sizeof(__half);
}

// Shared memory of a block, with as many stages as there is room for; 0 where there is none.
size_t shared_for(const Launch *l, Work *work) {
    constexpr size_t fixed = 2048; // static shared memory
    size_t inputs = 2 * BUFFER_BYTES;
    for (work->n_stages = MAX_STAGES; work->n_stages > 0; work->n_stages--) {
        size_t bytes = inputs + 2 * WARPS * Ring::bytes(work->slot_bytes, work->n_stages);
        if (bytes + fixed <= l->shared_max) return bytes;
    }
    return 0;
}

} // namespace

extern "C" size_t experts_scratch_bytes(const Product *p, int T) {
    return input_bytes(p, T) + groups_bytes(T * p->n_used, p->segment[0].w.n_expert, GROUP_ROWS);
}

extern "C" cudaError_t launch_experts(const Launch *l, const Product *p, int T, void *scratch) {
    const DeviceWeight *w = &p->segment[0].w;
    bool pair = is_pair(*p);
    if (p->n_used == 0 || (p->norm && p->per_slot) || p->residual.data || p->n_segments != (pair ? 2 : 1) ||
        w->n_expert > MAX_EXPERTS || (pair && p->segment[1].w.type != w->type))
        return cudaErrorInvalidValue;
    Work work = {*p, (const __half *)scratch, (w->n_in + STEP - 1) / STEP * STEP};
    work.slot_bytes = (w->layout.tile_bytes + Ring::LINE - 1) / Ring::LINE * Ring::LINE;
    work.n_parts = (w->layout.n_tile_rows + (pair ? 1 : 2) * WARPS - 1) / ((pair ? 1 : 2) * WARPS);
    size_t shared = shared_for(l, &work);
    if (!shared) return launch_products(l, p, T, scratch);
    PairSort sort = pair_sort(*p, T, GROUP_ROWS, (uint8_t *)scratch + input_bytes(p, T));
    work.groups = sort.out;
    int n_inputs = T * (p->per_slot ? p->n_used : 1), n_rows = rows_of_block(p);
    cudaError_t error = launch_kernel(l, k_halves, (n_inputs + n_rows - 1) / n_rows + 1, INPUT_THREADS, 0, *p,
                                      (__half *)scratch, work.pitch, n_inputs, n_rows, sort);
    if (error != cudaSuccess) return error;
    return for_type(w->type, [&](auto type) {
        return launch_kernel(l, k_experts<type>, l->n_sm, THREADS, shared, work);
    });
}
