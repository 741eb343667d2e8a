// wide: products of many rows, and of the rows of runs that decode many sequences: f16 weights and
// activations, f32 sums, on the tensor cores.
//
//                 16 tile rows                    32, 64 or 128 input rows
//                +---------------------+         +----------------------------------------------+
//     weights    |  a warp copies      |    x    |  f16, blocks of 64 columns, in the swizzle   |  inputs
//                |  their tiles        |         |  of wgmma.cuh; another warp copies them      |
//                +---------------------+         +----------------------------------------------+
//
// A work item is 16 tile rows, up to 128 input rows and a K-slice.  Two warps copy ahead, through all items of
// the block, into two rings of stages: a tile of each tile row; 64 columns of the input rows.  The others expand
// their weights in registers (operands.cuh) and multiply: of few input rows, where making the weights takes
// longest, 16 warps with a tile row each; of many, whose sums take many registers, 8 warps with two.
//
// The bytes of a row depend on its own input alone: a sum is one chain of matrix instructions over a K-slice,
// which have the same bits for any number of rows, and K-slices are added in their order.  Their number
// depends on the matrix alone.  With one, outputs are finished here; with more, k_finish adds them up.
#include <algorithm>

#include "../device/epilogue.cuh"
#include "../device/half.cuh"
#include "../device/norm.cuh"
#include "../device/operands.cuh"
#include "../device/ring.cuh"
#include "../device/wgmma.cuh"

namespace {

constexpr int GROUP_TILE_ROWS = 16, GROUP_OUTPUTS = GROUP_TILE_ROWS * TILE_ROWS;
constexpr int BLOCK = 64;                        // columns of an input stage
constexpr int LARGEST_N = 128;                   // input rows of an item, at most
constexpr int MOST_SLICES = 16, PART_ROWS = 256; // rows whose sums are in parts at a time
constexpr int MAX_WEIGHT_STAGES = 4, MAX_INPUT_STAGES = 8;
constexpr int STAGED_ROWS = 16,
              STAGED_PITCH = GROUP_OUTPUTS + 4; // of sums in shared memory; no bank conflicts
constexpr int STAGED_BYTES = STAGED_ROWS * STAGED_PITCH * (int)sizeof(float);
constexpr int INPUT_WARPS = 16, INPUT_THREADS = INPUT_WARPS * 32;

// The kernel of up to N input rows: tile rows of a warp, warps that multiply, and threads with those of one
// warpgroup more, of which two warps copy.  Where there is setmaxnreg, these give registers away.
template <int N> struct Shape {
    static constexpr int TILES = N == LARGEST_N ? 2 : 1, WARPS = GROUP_TILE_ROWS / TILES;
    static constexpr int THREADS = WARPS * 32 + 128;
};

// Outputs in parts: those of a group of tile rows beside each other, group after group of all segments.
struct Columns {
    int first[OP_MAX_SEGMENTS]; // of each segment; of a pair that is multiplied together one
    bool together;

    // Of output i of a segment; of a pair, gate or up.
    __device__ int of(int segment, int i) const {
        int tile_row = i / TILE_ROWS, in_tile = i % TILE_ROWS;
        return together ? first[0] + (2 * tile_row + segment) * TILE_ROWS + in_tile : first[segment] + i;
    }
};

struct Work {
    Product p;
    const uint8_t *in; // [columns / BLOCK][n_rows_padded] of SWIZZLED_ROW bytes
    int T, n_rows_padded, n_row_items;
    // The segments that are multiplied: one that stands for a pair, or those of the kernel's type.
    int segment[OP_MAX_SEGMENTS], n_segments, group_end[OP_MAX_SEGMENTS];
    bool together; // gate and up
    int n_tiles, tile_bytes, n_slices;
    float *parts; // [slice][T][part_width], or NULL: outputs are finished by the kernel that multiplies
    int part_width;
    Columns columns;
    int n_weight_stages, n_input_stages;
};

// ---- inputs ---------------------------------------------------------------------------------------------

// Writes the rows of the input in the order of operands.cuh, normalised first where there is a norm, a row for
// each block.  A thread has 8 neighbouring columns at a time: 8 bytes of the even ones, 8 of the odd ones.
__global__ void __launch_bounds__(INPUT_THREADS) k_input(RegRows rows, const float *norm, float eps, int n_in,
                                                         int n_padded, uint8_t *out, int n_rows_padded) {
    constexpr int N = 8; // float4s under way at once: of a norm all, whose row is read once
    pdl_wait();
    pdl_launch();
    int t = blockIdx.x;
    const float *in = row_of(rows, t);
    for (int base = 0; base < n_padded; base += N * INPUT_THREADS * 4) {
        float4 v[N];
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = load4(in, base + element_of<INPUT_WARPS>(i), n_in);
        if (norm) {
            float scale = rms_scale<INPUT_WARPS>(add_squares<N>(0, v), n_in, eps);
#pragma unroll
            for (int i = 0; i < N; i++) {
                float4 w = load4(norm, base + element_of<INPUT_WARPS>(i), n_in);
                v[i] = make_float4(normalised(v[i].x, scale, w.x), normalised(v[i].y, scale, w.y),
                                   normalised(v[i].z, scale, w.z), normalised(v[i].w, scale, w.w));
            }
        }
#pragma unroll
        for (int i = 0; i < N; i += 2) {
            int column = base + element_of<INPUT_WARPS>(i), chunk = column % BLOCK / 16 * 2;
            if (column >= n_padded) break;
            uint8_t *to = out + (size_t)(column / BLOCK) * n_rows_padded * SWIZZLED_ROW + column % 16;
            const float4 &a = v[i], &b = v[i + 1];
            *(uint2 *)(to + swizzled(t, chunk)) =
                make_uint2(saturated_pair(a.x, a.z), saturated_pair(b.x, b.z));
            *(uint2 *)(to + swizzled(t, chunk + 1)) =
                make_uint2(saturated_pair(a.y, a.w), saturated_pair(b.y, b.w));
        }
    }
}

// ---- items ----------------------------------------------------------------------------------------------

struct Item {
    int segment, group; // of Work.segment; of the segment's tile rows
    int first_row;      // of the input
    int slice, tile, tile_end;

    __device__ Item(const Work &work, int number, int n) {
        int row_item = number % work.n_row_items, rest = number / work.n_row_items;
        slice = rest % work.n_slices;
        group = rest / work.n_slices;
        segment = 0;
        while (group >= work.group_end[segment]) segment++;
        if (segment) group -= work.group_end[segment - 1];
        first_row = row_item * n;
        tile = slice * work.n_tiles / work.n_slices;
        tile_end = (slice + 1) * work.n_tiles / work.n_slices;
    }
};

// Tile row i of a group, and the segment that has it: of gate and up alternately.
struct TileRow {
    int segment, row;

    __device__ TileRow(const Work &work, const Item &item, int i) {
        segment = work.together ? i % 2 : work.segment[item.segment];
        row = work.together ? (item.group * GROUP_TILE_ROWS + i) / 2 : item.group * GROUP_TILE_ROWS + i;
    }
    __device__ const uint8_t *tiles(const Work &work) const {
        const DeviceWeight &w = work.p.segment[segment].w;
        return w.data + (size_t)min(row, w.layout.n_tile_rows - 1) * work.n_tiles * work.tile_bytes;
    }
};

// Shared memory: input stages at a multiple of 1024, weight stages, staged sums.
template <int N> struct Shared {
    static constexpr int INPUT_BYTES = N * SWIZZLED_ROW;
    uint8_t *inputs, *weights;
    float *staged;

    __device__ Shared(const Work &work) {
        uint32_t at = shared_address(shared_memory());
        inputs = shared_memory() + (1024 - at % 1024) % 1024;
        weights = inputs + work.n_input_stages * INPUT_BYTES;
        staged = (float *)(weights + work.n_weight_stages * GROUP_TILE_ROWS * work.tile_bytes);
    }
};

// ---- sums -----------------------------------------------------------------------------------------------

// Of a warp's tile rows: sums of[m][4 j + r] of rows g + r / 2 * 8 and input rows 8 j + 2 i + r % 2.
template <int N> struct Sums { float of[Shape<N>::TILES][N / 2]; };

// A barrier of the warps that multiply.
template <int N> __device__ __forceinline__ void barrier() {
    asm volatile("bar.sync 1, %0;" ::"n"(Shape<N>::WARPS * 32) : "memory");
}

// Writes a thread's outputs of some staged rows: column by column, value(row) of every THREADS / WIDTH rows.
// All are computed before the first is written, so that loads are under way together.
template <int THREADS, int WIDTH, class Value>
__device__ __forceinline__ void write_rows(float *to, size_t stride, int end, Value value) {
    constexpr int STEP = THREADS / WIDTH, N = STAGED_ROWS / STEP;
    int first = threadIdx.x / WIDTH;
    float y[N];
#pragma unroll
    for (int i = 0; i < N; i++) y[i] = value(min(first + i * STEP, end - 1));
#pragma unroll
    for (int i = 0; i < N; i++)
        if (first + i * STEP < end) to[(first + i * STEP) * stride] = y[i];
}

// The outputs of an item, by way of shared memory, 16 input rows at a time, so that threads store neighbours.
// The sums are shifted through the registers, because their numbers must be known at compile time.
template <int N>
__device__ __forceinline__ void store(const Work &work, const Item &item, Sums<N> &sums, float *staged,
                                      const float (&factor)[Shape<N>::TILES]) {
    constexpr int TILES = Shape<N>::TILES, THREADS = Shape<N>::WARPS * 32, JOINED = GROUP_OUTPUTS / 2;
    const Product &p = work.p;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_rows = min(work.T - item.first_row, N);
    bool joined = work.together && !work.parts;
    int width = joined ? JOINED : GROUP_OUTPUTS; // outputs of an input row
    int column = threadIdx.x % width, output = item.group * width + column;
    int segment = work.together ? 0 : work.segment[item.segment];
    const ProductSegment &s = p.segment[segment];
    bool adds = segment == 0 && p.residual.data, has_gate = segment == 0 && p.gate.rows.data;
    bool simple = !has_gate && !p.softcap && p.act_alone == ACT_NONE; // little code, which is most often run
    OutputRow first_sum(s, output), second_sum(p.segment[joined ? 1 : segment], output);
    float *to = s.out + output;
    size_t stride = s.out_stride;
    if (work.parts) {
        to =
            work.parts + (size_t)item.slice * work.T * work.part_width + work.columns.first[segment] + output;
        stride = work.part_width;
    }
    to += (size_t)item.first_row * stride;
    float inverse[TILES]; // of powers of two
#pragma unroll
    for (int m = 0; m < TILES; m++) inverse[m] = __frcp_rn(factor[m]);
    const float *from = staged + (joined ? column / TILE_ROWS * 2 * TILE_ROWS + column % TILE_ROWS : column);
#pragma unroll 1
    for (int first = 0; first < n_rows; first += STAGED_ROWS, to += STAGED_ROWS * stride) {
        barrier<N>();
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int k = 0; k < 8; k++) { // register k % 4 of input rows 8 (k / 4)..
                int t = k / 4 * 8 + lane % 4 * 2 + k % 2, row = k / 2 % 2 * 8 + lane / 4;
                staged[t * STAGED_PITCH + (warp * TILES + m) * TILE_ROWS + row] = sums.of[m][k] * inverse[m];
            }
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int i = 0; i + 8 < N / 2; i++) sums.of[m][i] = sums.of[m][i + 8];
        barrier<N>();
        int end = min(STAGED_ROWS, n_rows - first), t = item.first_row + first;
        auto residual = [&](int row) { return adds ? __ldcg(row_of(p.residual, t + row) + output) : 0; };
        auto sum = [&](int row) { return first_sum.of(from[row * STAGED_PITCH]); };
        auto up = [&](int row) { return second_sum.of(from[row * STAGED_PITCH + TILE_ROWS]); };
        if (work.parts) {
            write_rows<THREADS, GROUP_OUTPUTS>(to, stride, end,
                                               [&](int row) { return from[row * STAGED_PITCH]; });
        } else if (output >= s.w.n_out) {
            continue;
        } else if (simple && joined) {
            write_rows<THREADS, JOINED>(to, stride, end, [&](int row) {
                return fmaf(p.scale, gated(p.act, sum(row), up(row)), residual(row));
            });
        } else if (simple) {
            write_rows<THREADS, GROUP_OUTPUTS>(
                to, stride, end, [&](int row) { return fmaf(p.scale, sum(row), residual(row)); });
        } else {
#pragma unroll 1
            for (int row = threadIdx.x / width; row < end; row += THREADS / width) {
                float gate = has_gate ? gate_factor(p.gate, t + row, output) : 1;
                to[row * stride] = output_of(p, sum(row), joined ? up(row) : 1, gate, residual(row));
            }
        }
    }
}

// Adds up the parts of an output and finishes it: of row blockIdx.y, of all segments.
__global__ void k_finish(const __grid_constant__ Work work) {
    constexpr int LOADS = 8; // under way at once
    pdl_wait();
    pdl_launch();
    const Product &p = work.p;
    int i = blockIdx.x * blockDim.x + threadIdx.x, t = blockIdx.y, segment = 0;
    while (segment < p.n_segments && i >= p.segment[segment].w.n_out) i -= p.segment[segment++].w.n_out;
    if (segment >= (is_pair(p) ? 1 : p.n_segments)) return;
    auto sum_of = [&](int which) {
        const float *part = work.parts + (size_t)t * work.part_width + work.columns.of(which, i);
        float sum = 0;
        for (int first = 0; first < work.n_slices; first += LOADS) {
            float v[LOADS];
#pragma unroll
            for (int k = 0; k < LOADS; k++)
                v[k] = first + k < work.n_slices
                           ? __ldcg(part + (size_t)(first + k) * work.T * work.part_width)
                           : 0;
#pragma unroll
            for (int k = 0; k < LOADS; k++) sum += v[k];
        }
        return sum;
    };
    float sum = sum_of(segment), up = is_pair(p) ? sum_of(1) : 0;
    const ProductSegment &s = p.segment[segment];
    float gate = segment == 0 ? gate_factor(p.gate, t, i) : 1;
    float residual = segment == 0 && p.residual.data ? __ldcg(row_of(p.residual, t) + i) : 0;
    s.out[(size_t)t * s.out_stride + i] = epilogue(p, s, i, sum, up, gate, residual);
}

// ---- the product ----------------------------------------------------------------------------------------

#if __CUDA_ARCH__ >= 900
// The place of a stage in a ring, and how often the ring has been gone through.
struct Stage {
    int n, index = 0, phase = 0;
    __device__ void advance() {
        if (++index == n) {
            index = 0;
            phase ^= 1;
        }
    }
};

// The barriers of the rings: of each stage, when it is full and when all warps have read it.
struct Barriers {
    uint32_t weights_full, weights_read, inputs_full, inputs_read;
};

// One warp copies the weights of all items.
__device__ void copy_weights(const Work &work, const Barriers &barriers, uint8_t *to, int n, int n_items) {
    int lane = threadIdx.x % 32;
    Stage stage = {work.n_weight_stages};
    for (int number = blockIdx.x, copied = 0; number < n_items; number += gridDim.x) {
        Item item(work, number, n);
        const uint8_t *from = nullptr;
        if (lane < GROUP_TILE_ROWS) from = TileRow(work, item, lane).tiles(work);
        for (int tile = item.tile; tile < item.tile_end; tile++, copied++) {
            uint32_t full = barriers.weights_full + 8 * stage.index;
            if (copied >= stage.n) arrival_wait(barriers.weights_read + 8 * stage.index, stage.phase ^ 1);
            if (lane == 0) arrival_expect(full, GROUP_TILE_ROWS * work.tile_bytes);
            __syncwarp();
            if (lane < GROUP_TILE_ROWS)
                bulk_copy(shared_address(to) + (stage.index * GROUP_TILE_ROWS + lane) * work.tile_bytes,
                          from + (size_t)tile * work.tile_bytes, work.tile_bytes, full, READ_ONCE);
            stage.advance();
        }
    }
}

// One thread copies the inputs.
__device__ void copy_inputs(const Work &work, const Barriers &barriers, uint8_t *to, int n, int n_items,
                            int n_blocks) {
    int bytes = n * SWIZZLED_ROW;
    Stage stage = {work.n_input_stages};
    for (int number = blockIdx.x, copied = 0; number < n_items; number += gridDim.x) {
        Item item(work, number, n);
        for (int b = item.tile * n_blocks; b < item.tile_end * n_blocks; b++, copied++) {
            uint32_t full = barriers.inputs_full + 8 * stage.index;
            if (copied >= stage.n) arrival_wait(barriers.inputs_read + 8 * stage.index, stage.phase ^ 1);
            arrival_expect(full, bytes);
            bulk_copy(shared_address(to) + stage.index * bytes,
                      work.in + ((size_t)b * work.n_rows_padded + item.first_row) * SWIZZLED_ROW, bytes, full,
                      READ_OFTEN);
            stage.advance();
        }
    }
}
#endif

// sums[m] += two chunks of 16 columns of a tile row times the block's input rows; `at` is their shared memory,
// and `chunk` the first 16 bytes of the columns there.
template <int N>
__device__ __forceinline__ void multiply_chunk(float (&sums)[N / 2], const uint32_t a[2][4], uint32_t at,
                                               int chunk) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    uint64_t b = matrix_descriptor(at) + chunk;
    warpgroup_fence();
    warpgroup_multiply(sums, a[0], b);
    warpgroup_multiply(sums, a[1], b + 2);
    warpgroup_commit();
#else
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < N / 8; j++) {
        uint32_t b[4];
        load_matrices(b, at + swizzled(8 * j + lane % 8, chunk + lane / 8));
        multiply(sums + 4 * j, a[0], b);
        multiply(sums + 4 * j, a[1], b + 2);
    }
#endif
}

// Groups of matrix instructions that may be under way while the next operands are made: of the chunks of a
// stage, less one.
template <int N> __device__ __forceinline__ void wait_for_multiply() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    warpgroup_wait<2 * Shape<N>::TILES - 1>();
#endif
}

template <QuantType F, int N>
__global__ void __launch_bounds__(Shape<N>::THREADS, 1) k_wide(const __grid_constant__ Work work) {
    constexpr int TILES = Shape<N>::TILES, WARPS = Shape<N>::WARPS;
    constexpr int CHUNKS = CHUNKS_OF_TILE<F>, BLOCKS = CHUNKS * CHUNK_WEIGHTS / BLOCK;
    Shared<N> shared(work);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int n_items = work.group_end[work.n_segments - 1] * work.n_slices * work.n_row_items;
    Sums<N> sums;
    Operands<F> operands[TILES];
    float factor[TILES]; // of the tile rows' operands
    auto begin_item = [&](const Item &item) {
        sums = {};
#pragma unroll
        for (int m = 0; m < TILES; m++)
            factor[m] = weight_factor<F>(work.p.segment[TileRow(work, item, TILES * warp + m).segment].w);
    };
    auto begin_tile = [&](const uint8_t *tiles) {
#pragma unroll
        for (int m = 0; m < TILES; m++)
            operands[m].begin(tiles + (TILES * warp + m) * work.tile_bytes, lane, factor[m]);
    };
    auto multiply_tile_chunk = [&](int c, uint32_t at) {
        if (c % 4 == 0)
#pragma unroll
            for (int m = 0; m < TILES; m++) operands[m].load(lane, c / 4);
#pragma unroll
        for (int m = 0; m < TILES; m++) {
            uint32_t a[2][4];
            operands[m].chunk(lane, c, c % 4, a);
            multiply_chunk<N>(sums.of[m], a, at, c % 2 * 4);
            wait_for_multiply<N>();
        }
    };
#if __CUDA_ARCH__ >= 900
    __shared__ uint64_t weight_barriers[2][MAX_WEIGHT_STAGES], input_barriers[2][MAX_INPUT_STAGES];
    Barriers barriers = {shared_address(weight_barriers[0]), shared_address(weight_barriers[1]),
                         shared_address(input_barriers[0]), shared_address(input_barriers[1])};
    if (threadIdx.x == 0) {
        for (int i = 0; i < work.n_weight_stages; i++) {
            arrival_init(barriers.weights_full + 8 * i);
            arrival_init(barriers.weights_read + 8 * i, WARPS);
        }
        for (int i = 0; i < work.n_input_stages; i++) {
            arrival_init(barriers.inputs_full + 8 * i);
            arrival_init(barriers.inputs_read + 8 * i, WARPS);
        }
    }
    __syncthreads();
    if (warp >= WARPS) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
#endif
        if (warp == WARPS) copy_weights(work, barriers, shared.weights, N, n_items);
        if (warp != WARPS + 1) return;
        pdl_wait();
        pdl_launch();
        if (lane == 0) copy_inputs(work, barriers, shared.inputs, N, n_items, BLOCKS);
    } else {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(TILES == 2 ? 240 : 112));
#endif
        pdl_wait();
        pdl_launch();
        Stage weights = {work.n_weight_stages}, inputs = {work.n_input_stages};
        for (int number = blockIdx.x; number < n_items; number += gridDim.x) {
            Item item(work, number, N);
            int unread = -1; // an input stage that instructions under way may read
            begin_item(item);
            for (int tile = item.tile; tile < item.tile_end; tile++) {
                arrival_wait(barriers.weights_full + 8 * weights.index, weights.phase);
                begin_tile(shared.weights + weights.index * GROUP_TILE_ROWS * work.tile_bytes);
#pragma unroll
                for (int c = 0; c < CHUNKS; c++) {
                    if (c % 2 == 0) arrival_wait(barriers.inputs_full + 8 * inputs.index, inputs.phase);
                    multiply_tile_chunk(c, shared_address(shared.inputs) +
                                               inputs.index * Shared<N>::INPUT_BYTES);
                    if (c % 2 == 0) continue;
                    // the groups under way are those of this stage, but one
                    if (unread >= 0 && lane == 0) arrive(barriers.inputs_read + 8 * unread);
                    unread = inputs.index;
                    inputs.advance();
                }
                __syncwarp();
                if (lane == 0) arrive(barriers.weights_read + 8 * weights.index);
                weights.advance();
            }
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
            warpgroup_wait<0>();
#endif
            if (unread >= 0 && lane == 0) arrive(barriers.inputs_read + 8 * unread);
            store<N>(work, item, sums, shared.staged, factor);
        }
    }
#else
    // Without bulk copies all threads copy a stage, then eight warps multiply it.
    pdl_wait();
    pdl_launch();
    auto copy = [&](uint8_t *to, const uint8_t *from, int bytes) {
        for (int i = threadIdx.x * 16; i < bytes; i += Shape<N>::THREADS * 16)
            *(uint4 *)(to + i) = __ldcg((const uint4 *)(from + i));
    };
    for (int number = blockIdx.x; number < n_items; number += gridDim.x) {
        Item item(work, number, N);
        if (warp < WARPS) begin_item(item);
        for (int tile = item.tile; tile < item.tile_end; tile++) {
            __syncthreads();
            for (int i = 0; i < GROUP_TILE_ROWS; i++)
                copy(shared.weights + i * work.tile_bytes,
                     TileRow(work, item, i).tiles(work) + (size_t)tile * work.tile_bytes, work.tile_bytes);
            __syncthreads();
            if (warp < WARPS) begin_tile(shared.weights);
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                if (c % 2 == 0) {
                    __syncthreads();
                    copy(shared.inputs,
                         work.in + ((size_t)(tile * BLOCKS + c / 2) * work.n_rows_padded + item.first_row) *
                                       SWIZZLED_ROW,
                         Shared<N>::INPUT_BYTES);
                    __syncthreads();
                }
                if (warp < WARPS) multiply_tile_chunk(c, shared_address(shared.inputs));
            }
        }
        if (warp < WARPS) store<N>(work, item, sums, shared.staged, factor);
    }
#endif
}

// ---- launchers ------------------------------------------------------------------------------------------

// Tile rows of a group of a segment; of a pair that is multiplied together, those of the gate.
int groups_of(const DeviceWeight &w, bool together) {
    int most = together ? GROUP_TILE_ROWS / 2 : GROUP_TILE_ROWS;
    return (w.layout.n_tile_rows + most - 1) / most;
}

bool is_together(const Product *p) {
    return is_pair(*p) && p->segment[0].w.type == p->segment[1].w.type;
}

int all_groups(const Product *p) {
    int n = 0;
    for (int s = 0; s < (is_together(p) ? 1 : p->n_segments); s++)
        n += groups_of(p->segment[s].w, is_together(p));
    return n;
}

int tiles_of(const Product *p) {
    int most = 0;
    for (int s = 0; s < p->n_segments; s++) most = std::max(most, p->segment[s].w.layout.n_tiles);
    return most;
}

// K-slices, as many as make the blocks' longest share of tiles shortest: an item costs about 3/4 of a tile beside
// its own, and adding up the parts of all SMs half of one.
int slices_of(const Launch *l, const Product *p) {
    int groups = all_groups(p), n_tiles = tiles_of(p), best = 1;
    double least = 0;
    for (int s = 1; s <= std::min(MOST_SLICES, n_tiles); s++) {
        int rounds = (groups * s + l->n_sm - 1) / l->n_sm, longest = (n_tiles + s - 1) / s;
        double cost = rounds * (longest + 0.75) + (s > 1 ? 0.5 * groups * s / l->n_sm : 0);
        if (s > 1 && cost >= least) continue;
        least = cost;
        best = s;
    }
    return best;
}

int padded_rows(int T) {
    return (T + LARGEST_N - 1) / LARGEST_N * LARGEST_N;
}

int padded_columns(const Product *p) {
    int most = 0;
    for (int s = 0; s < p->n_segments; s++) {
        const Layout &at = p->segment[s].w.layout;
        most = std::max(most, at.n_tiles * at.tile_weights);
    }
    return most;
}

size_t input_bytes(const Product *p, int T) {
    return (size_t)padded_columns(p) / BLOCK * padded_rows(T) * SWIZZLED_ROW;
}

size_t part_bytes(const Product *p, int T, int n_slices) {
    return (size_t)n_slices * std::min(T, PART_ROWS) * all_groups(p) * GROUP_OUTPUTS * sizeof(float);
}

// Shares a block's memory out; 0: it is too small.
size_t share_memory(const Launch *l, Work *work, int n) {
    constexpr size_t FIXED = 1024 + 1024; // to align, and static
    size_t weights = (size_t)GROUP_TILE_ROWS * work->tile_bytes, input = (size_t)n * SWIZZLED_ROW,
           room = l->shared_max - FIXED - STAGED_BYTES;
    size_t least = (n == LARGEST_N ? 4 : 3) * input;
    if (room < least + weights) return 0;
    work->n_weight_stages = (int)std::min<size_t>((room - least) / weights, MAX_WEIGHT_STAGES);
    room -= work->n_weight_stages * weights;
    work->n_input_stages = (int)std::min<size_t>(room / input, MAX_INPUT_STAGES);
    return 1024 + work->n_weight_stages * weights + work->n_input_stages * input + STAGED_BYTES;
}

int items_of(const Work *work, int n) {
    return work->group_end[work->n_segments - 1] * work->n_slices * ((work->T + n - 1) / n);
}

template <int N> cudaError_t launch_type(const Launch *l, Work work, QuantType type) {
    size_t shared = share_memory(l, &work, N);
    if (!shared) return cudaErrorInvalidValue;
    work.n_row_items = (work.T + N - 1) / N;
    return for_type(type, [&](auto f) {
        return launch_kernel(l, k_wide<f, N>, std::min(items_of(&work, N), l->n_sm), Shape<N>::THREADS,
                             shared, work);
    });
}

// How long the blocks take with items of n rows, in units of one item of 128; without end where a block has no
// memory for them.
double cost_of(const Launch *l, Work work, int n, double item_cost) {
    if (!share_memory(l, &work, n)) return INFINITY;
    return (items_of(&work, n) + l->n_sm - 1) / l->n_sm * item_cost;
}

// Multiplies the segments of one type from segment s on; the others have been, or will be.
cudaError_t launch_segments(const Launch *l, Work work, int s) {
    const Product &p = work.p;
    const DeviceWeight &w = p.segment[s].w;
    int end = 0;
    work.n_segments = 0;
    for (int i = s; i < (work.together ? 1 : p.n_segments); i++)
        if (p.segment[i].w.type == w.type) {
            work.segment[work.n_segments] = i;
            work.group_end[work.n_segments++] = end += groups_of(p.segment[i].w, work.together);
        }
    work.n_tiles = w.layout.n_tiles;
    work.tile_bytes = w.layout.tile_bytes;
    double few = cost_of(l, work, 32, 0.35), some = cost_of(l, work, 64, 0.5),
           many = cost_of(l, work, LARGEST_N, 1);
    if (few < std::min(some, many)) return launch_type<32>(l, work, w.type);
    return some < many ? launch_type<64>(l, work, w.type) : launch_type<LARGEST_N>(l, work, w.type);
}

cudaError_t launch_rows(const Launch *l, const Product *p, int T, int n_slices, bool in_parts,
                        uint8_t *scratch) {
    Work work = {*p, scratch, T, padded_rows(T)};
    int n_in = p->segment[0].w.n_in, columns = 0, n_outputs = 0;
    work.together = work.columns.together = is_together(p);
    work.n_slices = n_slices;
    work.part_width = all_groups(p) * GROUP_OUTPUTS;
    if (in_parts) work.parts = (float *)(scratch + input_bytes(p, T));
    for (int s = 0; s < p->n_segments; s++) {
        work.columns.first[s] = columns;
        columns += groups_of(p->segment[s].w, work.together) * GROUP_OUTPUTS;
        n_outputs += p->segment[s].w.n_out;
    }
    cudaError_t error = launch_kernel(l, k_input, T, INPUT_THREADS, 0, p->in, p->norm, p->norm_eps, n_in,
                                      padded_columns(p), scratch, work.n_rows_padded);
    for (int s = 0; s < (work.together ? 1 : p->n_segments) && error == cudaSuccess; s++) {
        bool seen = false;
        for (int i = 0; i < s; i++) seen |= p->segment[i].w.type == p->segment[s].w.type;
        if (!seen) error = launch_segments(l, work, s);
    }
    if (error != cudaSuccess || !in_parts) return error;
    if (is_pair(*p)) n_outputs = p->segment[0].w.n_out;
    return launch_kernel(l, k_finish, dim3((n_outputs + 255) / 256, T), 256, 0, work);
}

// Whether the sums of an unsliced product must be in parts: gate and up of different types.
bool is_apart(const Product *p) {
    return is_pair(*p) && !is_together(p);
}

} // namespace

extern "C" size_t wide_scratch_bytes(const Launch *l, const Product *p, int T) {
    int n_slices = slices_of(l, p);
    return input_bytes(p, T) + (n_slices > 1 || is_apart(p) ? part_bytes(p, T, n_slices) : 0);
}

extern "C" cudaError_t launch_wide(const Launch *l, const Product *p, int T, bool sliced, void *scratch) {
    cudaError_t error = p->n_used ? cudaErrorInvalidValue : product_check(p);
    int n_slices = sliced ? slices_of(l, p) : 1;
    bool in_parts = n_slices > 1 || is_apart(p);
    if (!in_parts) return error == cudaSuccess ? launch_rows(l, p, T, 1, false, (uint8_t *)scratch) : error;
    for (int done = 0; done < T && error == cudaSuccess; done += PART_ROWS) {
        Product rows = product_rows(*p, done);
        error = launch_rows(l, &rows, std::min(T - done, PART_ROWS), n_slices, true, (uint8_t *)scratch);
    }
    return error;
}
