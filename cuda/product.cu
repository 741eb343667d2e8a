// product: weights times few activations, the kernel that decoding lives in.
//
// One block of 16 warps per SM.  A unit of work is a row of tiles (layout.h): 16 outputs, or 16 of gate and
// of up.  The warps of a block share a unit by cutting the row into slices, so that all finish together and
// each needs a small part of the input; where a row is too short for 16 slices, groups of warps take units in
// turn.
//
// First every warp starts its ring of weights (ring.cuh), before it waits for the kernel before; then the
// block quantises the input rows into shared memory, normalising them first if asked; then each warp
// multiplies the tiles of its slice as they arrive, leaves its 16 sums in shared memory, and goes on.  After
// a round of units the block adds up what the slices gave.
//
// The one trick: the integer sum of each group of 32 weights must stay apart, because each has its own scale,
// but a matrix unit adds up all it is given.  It has eight columns: chunk c of a tile meets an input that is
// zero in all columns but c, so that after eight multiplications the 16 x 8 results are the sums of 16 rows
// and 8 chunks, each exact, and spread over the lanes so that each meets its scale there.  What the zeros
// waste is free.  Several input rows are columns themselves; then each chunk is a multiplication of its own.
//
// The order of all additions of floats depends on nothing but the matrix's shape; so a row of activations
// gives the same bytes alone and among others.
#include <algorithm>
#include <climits>

#include "launch.cuh"
extern "C" {
#include "../src/exec/act.h"
}
#include "norm.cuh"
#include "quant.cuh"
#include "ring.cuh"

namespace {

constexpr int WARPS = 16, THREADS = WARPS * 32;
constexpr int VECTORS = 4,
              LOADED = THREADS * VECTORS * 4; // of an input row: float4s a thread, elements at once

constexpr int ROWS_MAX = 16; // of the instances of the kernel: for 1, 4, 8, 16 rows at once
template <int T> constexpr int PARTS = T == 1 ? 2 : 1; // that a block has: with two, rounds wait less

struct Forms { // what the weights of this product want to multiply with
    bool q8, f32;
};

// How the work is cut; the host decides.  Division is slow on the device, so it is done here.
struct Cut {
    int units, n_slices, n_groups; // n_slices * n_groups <= WARPS
    int per_block, n_longer;       // units of a block; the first n_longer blocks have one more
    unsigned slice_inverse;        // of n_slices: n / n_slices = n * slice_inverse >> 16 for small n
    unsigned group_inverse;        // of n_groups
    int per_slice[3], n_wider[3];  // tiles of a slice, by segment; the first n_wider slices have one more
    int round;                     // units of a block between two additions
    int per_group;                 // and of a group
    int n_tiles, n_floats;         // of an input row: tiles of blocks, and floats up to whole tiles
};

// Products of which each has the one before it as its input.  They run as one kernel, so that the rings run on
// over the boundaries.  Nobody waits for all: an output goes on as a number whose lowest bit tells whether it is
// there (Link in launch.h), and who needs it looks until it is.  A block that has its whole input knows that all
// blocks are done with the product before.
struct Chain {
    Product p[MAX_PRODUCTS];
    Cut cut[MAX_PRODUCTS];
    Forms forms[MAX_PRODUCTS];
    int n, n_rows;
    int slot_bytes, n_stages; // of a warp's ring
    int parts_bytes;          // of one round
    bool many_slices;         // a warp may have more than it lists
};

// Shared memory: the warps' rings, the parts of two rounds, the input.

// What a tile of blocks meets, of an input row.
struct TileInput {
    uint2 words[32];               // what lane 4c + i multiplies chunk c with, weights 4i.. and 16+4i..
    float2 scales[TILE_CHUNKS];    // d, and d times the sum of the chunk's 32
    float2 halves[TILE_CHUNKS];    // d times the sums of the first 16 and of the others
};

// The input rows in shared memory, filled up with zeros; the forms are told by where they begin.
struct Input {
    int at_floats; // float [T][n_floats]
    int at_tiles;  // TileInput [T][n_tiles]
    int n_tiles, n_floats;

    __device__ float *floats(int t) const { return (float *)(shared_memory() + at_floats) + t * n_floats; }
    __device__ TileInput *tiles(int t) const {
        return (TileInput *)(shared_memory() + at_tiles + t * row_bytes(n_tiles));
    }
    // A few bytes more than the tiles take, so that 8 rows lie in different banks.
    static __host__ __device__ constexpr int row_bytes(int n_tiles) {
        return n_tiles * (int)sizeof(TileInput) + 32;
    }
};

__host__ __device__ size_t input_bytes(int T, const Cut &cut, Forms forms) {
    return T * ((forms.q8 ? Input::row_bytes(cut.n_tiles) : 0) + (forms.f32 ? cut.n_floats * sizeof(float) : 0));
}

__device__ Input carve(int at, int T, const Cut &cut, Forms forms) {
    int floats = forms.f32 ? T * cut.n_floats * (int)sizeof(float) : 0;
    return {at, at + floats, cut.n_tiles, cut.n_floats};
}

// amax / 127, as IEEE 754 rounds it (all of the range that is used was tried).
__device__ __forceinline__ float over_127(float amax) {
    constexpr float inverse = 1.0f / 127.0f;
    float quotient = __fmul_rn(amax, inverse);
    return __fmaf_rn(__fmaf_rn(-127.0f, quotient, amax), inverse, quotient);
}

// Four neighbouring threads hold a group of 32, whole warps call: quantises it as exec/act.h says.
__device__ __forceinline__ void quantize_group(const Input &x, int t, unsigned element, const float4 v[2]) {
    const float y[8] = {v[0].x, v[0].y, v[0].z, v[0].w, v[1].x, v[1].y, v[1].z, v[1].w};
    uint32_t bits = 0;
#pragma unroll
    for (int k = 0; k < 8; k++) bits = max(bits, __float_as_uint(y[k]) & 0x7fffffffu);
    bits = max(bits, __shfl_xor_sync(0xffffffffu, bits, 1));
    bits = max(bits, __shfl_xor_sync(0xffffffffu, bits, 2));
    float amax = __uint_as_float(bits), d = over_127(amax), inverse = __fdiv_rn(127.0f, amax);
    bool damaged = bits >= 0x7f800000u; // an Inf or a NaN among them
    if (damaged || amax < ACT8_TINY) inverse = 0, d = damaged ? __uint_as_float(0x7fc00000u) : 0;
    uint32_t packed[2];
#pragma unroll
    for (int k = 0; k < 8; k += 4) {
        int q[4];
#pragma unroll
        for (int j = 0; j < 4; j++) q[j] = __float2int_rn(__fmul_rn(y[k + j], inverse)); // of a NaN: 0
        packed[k / 4] = __byte_perm(__byte_perm(q[0], q[1], 0x0040), __byte_perm(q[2], q[3], 0x0040), 0x5410);
    }
    int sum = dot4(packed[0], 0x01010101, dot4(packed[1], 0x01010101, 0));
    sum += __shfl_xor_sync(0xffffffffu, sum, 1); // of 16: two threads
    int other = __shfl_xor_sync(0xffffffffu, sum, 2);
    unsigned index = element / (TILE_CHUNKS * CHUNK_WEIGHTS), chunk = element / CHUNK_WEIGHTS % TILE_CHUNKS,
             quarter = element / 8 % 4;
    if (index >= (unsigned)x.n_tiles) return;
    TileInput *tile = x.tiles(t) + index;
    uint32_t *words = (uint32_t *)(tile->words + chunk * 4 + quarter % 2 * 2) + quarter / 2;
    words[0] = packed[0], words[2] = packed[1];
    if (quarter == 0) {
        tile->scales[chunk] = make_float2(d, d * (sum + other));
        tile->halves[chunk] = make_float2(d * sum, d * other);
    }
}

// ---- an input row ---------------------------------------------------------------------------------------

// A row of the input in device memory, read through L2, as other blocks wrote it.  All but the lowest bit of
// each number, whose place is taken in a link: so that a row is the same wherever it comes from.
struct Row {
    const float *in;
    int n;
    bool linked;  // in is a Link.row
    uint32_t lap; // what the lowest bits are there

    // Until most of a linked row is there, few look, and at few places: looking delays what is looked for.
    __device__ void await() const {
        if (threadIdx.x < 8)
            while (stale(look(in + (int)(threadIdx.x * 256) % n / 4 * 4))) {
            }
        __syncthreads();
    }
    // This thread's elements from `base` on.
    __device__ void load(float4 v[VECTORS], int base) const {
#pragma unroll
        for (int i = 0; i < VECTORS; i++) {
            v[i] = make_float4(0, 0, 0, 0);
            if (base + i / 2 * THREADS * 8 >= n) continue; // the same for the whole block
            int element = base + element_of<WARPS>(i);
            v[i] = linked && element < n ? look(in + element) : load4(in, element, n);
        }
        if (linked) {
#pragma unroll
            for (int i = 0; i < VECTORS; i++) {
                int element = base + element_of<WARPS>(i);
                while (element < n && stale(v[i])) v[i] = look(in + element);
            }
        }
#pragma unroll
        for (int i = 0; i < VECTORS; i++)
            v[i] = make_float4(clear(v[i].x), clear(v[i].y), clear(v[i].z), clear(v[i].w));
    }

  private:
    static __device__ float clear(float x) { return __uint_as_float(__float_as_uint(x) & ~1u); }
    static __device__ float4 look(const float *from) { // each of the four is read whole
        float4 v;
        asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                     : "l"(from)
                     : "memory");
        return v;
    }
    __device__ bool stale(float4 v) const {
        auto differs = [&](float x) { return __float_as_uint(x) ^ lap; };
        return (differs(v.x) | differs(v.y) | differs(v.z) | differs(v.w)) & 1;
    }
};

// A row of the input into row t of x, normalised first where p.norm says so (then it fits LOADED, of which w
// holds the norm's weights), in the forms wanted.
__device__ __forceinline__ void load_row(const Product &p, const Input &x, Forms forms, int t, const Row &row,
                                         const float4 w[VECTORS]) {
    int n = max(forms.q8 ? x.n_tiles * TILE_CHUNKS * CHUNK_WEIGHTS : 0, forms.f32 ? x.n_floats : 0);
    for (int base = 0; base < n; base += LOADED) {
        float4 v[VECTORS];
        row.load(v, base);
        if (p.norm) {
            float scale = block_rms_scale<WARPS, VECTORS>(v, row.n, p.norm_eps);
#pragma unroll
            for (int i = 0; i < VECTORS; i++)
                v[i] = make_float4(v[i].x * scale * w[i].x, v[i].y * scale * w[i].y, v[i].z * scale * w[i].z,
                                   v[i].w * scale * w[i].w);
        }
#pragma unroll
        for (int i = 0; i < VECTORS; i += 2) {
            if (base + i / 2 * THREADS * 8 >= n) break; // the same for the whole block
            int element = base + element_of<WARPS>(i);
            if (forms.f32 && element < x.n_floats) {
                float4 *to = (float4 *)(x.floats(t) + element);
                to[0] = v[i], to[1] = v[i + 1];
            }
            if (forms.q8) quantize_group(x, t, element, v + i);
        }
    }
}

// ---- a tile ---------------------------------------------------------------------------------------------

// sums += a b: 16 rows of bytes a (rows g, 8 + g; first and second 16 of the columns), 8 columns of b.
__device__ __forceinline__ void multiply_32(int sums[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                            uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void multiply_16(int sums[4], uint32_t a0, uint32_t a1, uint32_t b) {
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(a0), "r"(a1), "r"(b));
}

// The exact sums of one chunk and row, whole or by halves, meet their scales; what a type subtracts from its
// numbers is added up in the input's own sums.
template <QuantType F>
__device__ __forceinline__ float add_chunk(float sum, int dot0, int dot1, const float scale[2],
                                           const float min[2], float2 d, float2 halves) {
    constexpr float zero = Format<F>::ZERO;
    if constexpr (Format<F>::GROUP == 32) {
        float y = (float)dot0 * d.x;
        if constexpr (Format<F>::ZERO != 0) y = fmaf(-zero, d.y, y);
        sum = fmaf(scale[0], y, sum);
        if constexpr (Format<F>::HAS_MIN) sum = fmaf(-min[0], d.y, sum);
    } else {
        float y0 = (float)dot0 * d.x, y1 = (float)dot1 * d.x;
        if constexpr (Format<F>::ZERO != 0) y0 = fmaf(-zero, halves.x, y0), y1 = fmaf(-zero, halves.y, y1);
        sum = fmaf(scale[0], y0, sum);
        if constexpr (Format<F>::HAS_MIN) sum = fmaf(-min[0], halves.x, sum);
        sum = fmaf(scale[1], y1, sum);
        if constexpr (Format<F>::HAS_MIN) sum = fmaf(-min[1], halves.y, sum);
    }
    return sum;
}

// What a lane has of the sums of a slice.  One row of the input, or floats: its share of each row t and weights'
// row 8h + g, at [t][h].  Several rows of blocks: of columns 8n + 2i + j, rows 8h + g, what chunks 2k and 2k + 1
// give, at [n][k][2h + j]: the same sums, in one lane rather than four.
template <QuantType F, int T> struct Sums {
    static constexpr bool COLUMNS = T > 1 && !Format<F>::FLOAT;
    float of[COLUMNS ? (T + 7) / 8 * 16 : T * 2] = {};

    __device__ float &share(int t, int h) { return of[t * 2 + h]; }
    __device__ float &column(int n, int k, int r) { return of[(n * 4 + k) * 4 + r]; }

    // Adds up a row's four shares, in an order that does not depend on T, and leaves the row to [T][16] parts.
    __device__ void leave(float *part, int lane) {
        if constexpr (COLUMNS) {
#pragma unroll
            for (int n = 0; n < (T + 7) / 8; n++)
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    int t = 8 * n + lane % 4 * 2 + r % 2;
                    float sum = (column(n, 0, r) + column(n, 1, r)) + (column(n, 2, r) + column(n, 3, r));
                    if (t < T) part[t * TILE_ROWS + r / 2 * 8 + lane / 4] = sum;
                }
        } else {
#pragma unroll
            for (int t = 0; t < T; t++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    float sum = share(t, h);
                    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
                    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
                    if (lane % 4 == 0) part[t * TILE_ROWS + 8 * h + lane / 4] = sum;
                }
        }
    }
};

// A chunk's exact sums of 16 rows (a, by first and second words) and 8 columns (b), by groups.
template <int GROUPS>
__device__ __forceinline__ void multiply_chunk(int dots[GROUPS][4], const uint32_t first[2], const uint32_t second[2],
                                               uint2 b) {
    if constexpr (GROUPS == 1) {
        multiply_32(dots[0], first[0], first[1], second[0], second[1], b.x, b.y);
    } else {
        multiply_16(dots[0], first[0], first[1], b.x);
        multiply_16(dots[1], second[0], second[1], b.y);
    }
}

// A tile of blocks times row x0 of x: the trick above.
template <QuantType F>
__device__ __forceinline__ void multiply_blocks(const uint8_t *tile, int index, const Input &x, int x0, int lane,
                                                Sums<F, 1> &sums) {
    constexpr int GROUPS = Format<F>::GROUP == 16 ? 2 : 1;
    float scale[2][2][2], min[2][2][2];
    tile_scales<F>(tile, lane, scale, min);
    int dots[GROUPS][4] = {};
    const TileInput *met = x.tiles(x0) + index;
    uint2 in = met->words[lane];
#pragma unroll
    for (int k = 0; k < 2; k++) {
        uint32_t first[2][4], second[2][4];
#pragma unroll
        for (int h = 0; h < 2; h++) tile_words<F>(tile, lane, h, k, first[h], second[h]);
#pragma unroll
        for (int c = 0; c < 4; c++) {
            bool mine = lane / 4 == 4 * k + c; // this lane holds a column; only column c is not zero
            const uint32_t a[2] = {first[0][c], first[1][c]}, b[2] = {second[0][c], second[1][c]};
            multiply_chunk<GROUPS>(dots, a, b, make_uint2(mine ? in.x : 0, mine ? in.y : 0));
        }
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {
        int chunk = 2 * (lane % 4) + j;
        float2 d = met->scales[chunk], halves = GROUPS == 2 ? met->halves[chunk] : make_float2(0, 0);
#pragma unroll
        for (int h = 0; h < 2; h++)
            sums.share(0, h) = add_chunk<F>(sums.share(0, h), dots[0][2 * h + j], dots[GROUPS - 1][2 * h + j], scale[h][j],
                                            min[h][j], d, halves);
    }
}

// A tile of blocks times T rows, which are the columns: a chunk at a time, whose scales come from the lanes that
// have them.
template <QuantType F, int T>
__device__ __forceinline__ void multiply_blocks(const uint8_t *tile, int index, const Input &x, int lane,
                                                Sums<F, T> &sums) {
    constexpr int GROUPS = Format<F>::GROUP == 16 ? 2 : 1;
    float scale[2][2][2], min[2][2][2];
    tile_scales<F>(tile, lane, scale, min);
#pragma unroll
    for (int k = 0; k < 2; k++) {
        uint32_t first[2][4], second[2][4];
#pragma unroll
        for (int h = 0; h < 2; h++) tile_words<F>(tile, lane, h, k, first[h], second[h]);
#pragma unroll
        for (int c = 0; c < 4; c++) {
            int chunk = 4 * k + c, owner = lane / 4 * 4 + chunk / 2;
            float of_rows[2][2] = {}, below[2][2] = {};
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int group = 0; group < GROUPS; group++) {
                    of_rows[h][group] = __shfl_sync(0xffffffffu, scale[h][chunk % 2][group], owner);
                    if constexpr (Format<F>::HAS_MIN)
                        below[h][group] = __shfl_sync(0xffffffffu, min[h][chunk % 2][group], owner);
                }
            const uint32_t a[2] = {first[0][c], first[1][c]}, b[2] = {second[0][c], second[1][c]};
#pragma unroll
            for (int n = 0; n < (T + 7) / 8; n++) {
                int dots[GROUPS][4] = {};
                multiply_chunk<GROUPS>(dots, a, b, x.tiles(::min(8 * n + lane / 4, T - 1))[index].words[4 * chunk + lane % 4]);
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const TileInput *met = x.tiles(::min(8 * n + lane % 4 * 2 + j, T - 1)) + index;
                    float2 d = met->scales[chunk], halves = GROUPS == 2 ? met->halves[chunk] : make_float2(0, 0);
#pragma unroll
                    for (int h = 0; h < 2; h++) {
                        float &sum = sums.column(n, chunk / 2, 2 * h + j);
                        sum = add_chunk<F>(sum, dots[0][2 * h + j], dots[GROUPS - 1][2 * h + j], of_rows[h], below[h], d,
                                           halves);
                    }
                }
            }
        }
    }
}

// The same for a tile of floats.
template <QuantType F, int T>
__device__ __forceinline__ void multiply_floats(const uint8_t *tile, int index, const Input &x, int x0,
                                                int lane, Sums<F, T> &sums) {
    constexpr int N = VECTOR_FLOATS<F>;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        float w[2][N];
        tile_floats<F>(tile, lane, 0, k, w[0]), tile_floats<F>(tile, lane, 1, k, w[1]);
        const float *in = x.floats(x0) + index * TILE_FLOATS<F> + (4 * k + lane % 4) * N;
#pragma unroll
        for (int t = 0; t < T; t++, in += x.n_floats)
#pragma unroll
            for (int i = 0; i < N; i += 4) {
                float4 v = *(const float4 *)(in + i);
#pragma unroll
                for (int h = 0; h < 2; h++)
#pragma unroll
                    for (int j = 0; j < 4; j++) sums.share(t, h) = fmaf(w[h][i + j], (&v.x)[j], sums.share(t, h));
            }
    }
}

// ---- a warp's way through the tiles ---------------------------------------------------------------------

// A block takes every gridDim.x-th unit, numbered k = 0, 1, ... here; units count through matrix after
// matrix, or expert after expert, the parts.
struct Place {
    int k, part, row; // row of tiles in the part

    __device__ int rows(const Product &p) const { // of tiles in the part
        return p.segment[p.ids ? 0 : part].w.layout.n_tile_rows;
    }
    __device__ void go(const Product &p, int units) { // that many units on
        k += units, row += units * (int)gridDim.x;
        if (!p.glu || p.ids)
            for (int n; row >= (n = rows(p)) && part + 1 < (p.ids ? p.n_used : p.n_segments); part++)
                row -= n;
    }
    __device__ int segment(const Product &p) const { // of a pair the first
        return p.ids ? 0 : part;
    }
    __device__ size_t expert(const Product &p) const { return p.ids ? (size_t)__ldcg(p.ids + part) : 0; }
};

__device__ Place place_of(const Product &p, int k) {
    Place at = {0, 0, (int)blockIdx.x};
    at.go(p, k);
    return at;
}

struct Team { // what a warp needs besides the matrix
    const Product &p;
    const Cut &cut;
    Input x;
    int at_parts; // float [group][unit of the round][gate, up][slice][T][16], in shared memory
    int n_units;  // of this block
    int slice,
        group; // the warp takes this slice of every n_groups-th unit from number `group` on; -1: of none

    __device__ Team(const Product &p_, const Cut &cut_) : p(p_), cut(cut_) {
        int warp = threadIdx.x / 32;
        n_units = cut.per_block + ((int)blockIdx.x < cut.n_longer);
        group = warp * cut.slice_inverse >> 16, slice = warp - group * cut.n_slices;
        if (group >= cut.n_groups) group = n_units, slice = -1;
    }
    __device__ int n_slices() const { // that the warp multiplies, a pair's both
        int n = (max(n_units - group, 0) + cut.n_groups - 1) * cut.group_inverse >> 16;
        return p.glu ? 2 * n : n;
    }

    __device__ float *parts() const { return (float *)(shared_memory() + at_parts); }
    __device__ int part_of(int unit) const { // of the round; those of a warp lie one behind the other
        int in_group = unit * cut.group_inverse >> 16;
        return (unit - in_group * cut.n_groups) * cut.per_group + in_group;
    }
    template <int T> __device__ int part_step() const { return cut.n_slices * T * TILE_ROWS; }
    __device__ int first_tile(int segment) const {
        return slice * cut.per_slice[segment] + min(slice, cut.n_wider[segment]);
    }
    __device__ int tiles(int segment) const { return cut.per_slice[segment] + (slice < cut.n_wider[segment]); }
};

// Ahead of the arithmetic: what the ring fetches, through all products of the chain.  LISTED slices are listed
// at a time, one in each lane, which also starts the fetches of its tiles: so nobody has to work out an address
// where time is short.  They are listed anew between rounds, where a chain has more of them, for what works
// them out would be in the way among the instructions of a tile.
constexpr int LISTED = 32;

struct List {
    const uint8_t *at; // this lane's slice: its next tile
    int bytes, tiles;  // of a tile, 0 beyond the end; of the slice
    unsigned slice;    // the next fetch, for the whole warp
    int tile;

    __device__ void fill(const Chain &chain) { // from `slice` on
        unsigned ahead = (threadIdx.x - slice) % LISTED;
        if (ahead == 0 && tile) return; // some of it has been fetched
        int number = (int)(slice + ahead);
        bytes = 0, tiles = 0x7fffffff;
        for (int i = 0; i < chain.n; i++) {
            Team team(chain.p[i], chain.cut[i]);
            int n = team.n_slices();
            if (number < n) return enter(team, number);
            number -= n;
        }
    }
    __device__ void enter(const Team &team, int number) {
        const Product &p = team.p;
        Place place = place_of(p, team.group + (number >> p.glu) * team.cut.n_groups);
        int segment = place.segment(p) + (number & p.glu);
        const DeviceWeight &w = p.segment[segment].w;
        bytes = w.layout.tile_bytes, tiles = team.tiles(segment);
        size_t row = place.expert(p) * w.layout.n_tile_rows + place.row;
        at = w.data + (row * w.layout.n_tiles + team.first_tile(segment)) * bytes;
    }
    __device__ void fetch(Ring &ring, int stage) {
        ring.fetch(stage, slice % LISTED, at, bytes);
        if (ring.lane == slice % LISTED) at += bytes;
        if (++tile == __shfl_sync(0xffffffffu, tiles, slice % LISTED)) tile = 0, slice++;
    }
};

// n slices of the matrices from `segment` on, which are of one type: the sums of their 16 rows for each of the T
// inputs, to the parts, one behind the other.
template <QuantType F, int T>
__device__ __forceinline__ void multiply_slices(const Team &team, Ring &ring, List &list, int segment, int x0,
                                                float *part, int n) {
    int first = team.first_tile(segment), end = first + team.tiles(segment);
    for (; n; n--, part += team.part_step<T>()) {
        Sums<F, T> sums;
        for (int i = first; i < end; i++) {
            const uint8_t *tile = ring.wait();
            if constexpr (Format<F>::FLOAT)
                multiply_floats<F, T>(tile, i, team.x, x0, ring.lane, sums);
            else if constexpr (T == 1)
                multiply_blocks<F>(tile, i, team.x, x0, ring.lane, sums);
            else
                multiply_blocks<F, T>(tile, i, team.x, ring.lane, sums);
            list.fetch(ring, ring.stage);
            ring.advance();
        }
        sums.leave(part, ring.lane);
    }
}

// The types that an instance of the kernel knows.  What no product of a chain needs would stand between what it
// does need, and takes registers.
template <QuantType... KNOWN> struct Types {
    static __host__ __device__ constexpr bool know(QuantType type) { return ((type == KNOWN) || ...); }
};
struct AllTypes {
    static __host__ __device__ constexpr bool know(QuantType) { return true; }
};

// The warp's units of a round, from `place` on.
template <int T, class Known>
__device__ __forceinline__ void multiply_round(const Team &team, Ring &ring, List &list, Place &place, int round) {
    const Product &p = team.p;
    int end = min(round + team.cut.round, team.n_units), matrices = p.glu ? 2 : 1;
    bool alike = !p.glu || p.segment[0].w.type == p.segment[1].w.type;
    while (place.k < end) {
        Place from = place;
        int count = 0;
        do place.go(p, team.cut.n_groups), count++;
        while (place.k < end && place.part == from.part && alike);
        for (int matrix = 0; matrix < matrices; matrix += alike ? matrices : 1) {
            int segment = from.segment(p) + matrix, x0 = p.per_slot ? from.part : 0;
            float *part = team.parts() + (team.part_of(from.k - round) * matrices + matrix) * team.part_step<T>() +
                          team.slice * T * TILE_ROWS;
            int n = alike ? count * matrices : count;
            switch (p.segment[segment].w.type) {
#define MULTIPLY(type, ...)                                                                                  \
    case QUANT_##type:                                                                                       \
        if constexpr (Known::know(QUANT_##type))                                                             \
            multiply_slices<QUANT_##type, T>(team, ring, list, segment, x0, part, n);                        \
        break;
#define NOTHING(...)
                QUANT_TYPES(MULTIPLY, MULTIPLY, NOTHING)
#undef MULTIPLY
#undef NOTHING
            default:
                break;
            }
        }
    }
}

// ---- a block's outputs ----------------------------------------------------------------------------------

__device__ __forceinline__ float finish(const ProductSegment &s, size_t row, float y) {
    if (s.w.scale) y *= s.w.scale[row];
    return s.bias ? y + s.bias[row] : y;
}

__device__ __forceinline__ float silu(float x) {
    return __fdividef(x, 1.0f + __expf(-x));
}

__device__ __forceinline__ float add_slices(const float *part, int n_slices, int step) {
    float x[WARPS], sum = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++) x[i] = i < n_slices ? part[i * step] : 0; // all on their way at once
#pragma unroll
    for (int i = 0; i < WARPS; i++) sum += x[i];
    return sum;
}

// A thread's output of a round: element `row` of row t of the first matrix or of its own.
template <int T> struct Output {
    int part, row; // row: -1 where there is none
    float before;  // what is added to it

    __device__ Output(const Team &team, int round, int n_rows) : part(0), row(-1), before(0) {
        const Product &p = team.p;
        int unit = threadIdx.x / (T * TILE_ROWS), t = row_of_input();
        if (unit >= team.cut.round || round + unit >= team.n_units || t >= n_rows) return;
        Place place = place_of(p, round + unit);
        int to = place.row * TILE_ROWS + threadIdx.x % TILE_ROWS;
        if (to >= p.segment[place.segment(p)].w.n_out) return;
        part = place.part, row = to;
        if (p.residual && part == 0) before = __ldcg(p.residual + (size_t)t * p.residual_stride + row);
    }
    // Adds up the slices.  lap: for the chain's next product, where there is one.
    __device__ void write(const Team &team, bool linked, uint32_t lap) const {
        if (row < 0) return;
        const Product &p = team.p;
        const ProductSegment &s = p.segment[p.ids ? 0 : part];
        constexpr int STEP = T * TILE_ROWS; // from slice to slice
        int n_slices = team.cut.n_slices, slices = team.part_step<T>();
        const float *parts =
            team.parts() + team.part_of(threadIdx.x / STEP) * (p.glu ? 2 : 1) * slices + threadIdx.x % STEP;
        size_t w_row = (p.ids ? (size_t)__ldcg(p.ids + part) * s.w.n_out : 0) + row;
        float y = finish(s, w_row, add_slices(parts, n_slices, STEP));
        if (p.glu) y = silu(y) * finish(p.segment[1], w_row, add_slices(parts + slices, n_slices, STEP));
        y += before;
        if (linked)
            asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(p.link->row + row),
                         "r"((__float_as_uint(y) & ~1u) | lap)
                         : "memory");
        s.out[(size_t)row_of_input() * s.out_stride + (p.ids ? (size_t)part * s.w.n_out : 0) + row] = y;
    }

  private:
    static __device__ int row_of_input() { return threadIdx.x / TILE_ROWS % T; }
};

template <int T, class Known>
__global__ void __launch_bounds__(T == 1 ? THREADS + ATTN_THREADS : THREADS, 1) k_products(const __grid_constant__ Chain chain) {
    int ring_bytes = Ring::bytes(chain.slot_bytes, chain.n_stages), at_parts = WARPS * ring_bytes,
        at_input = at_parts + PARTS<T> * chain.parts_bytes;
    int parts = at_parts;
    bool routed = chain.p[0].ids; // which weights to fetch is what the kernel before decides
    if (routed) pdl_wait(), pdl_launch();
    Ring ring(threadIdx.x / 32 * ring_bytes, chain.slot_bytes, chain.n_stages);
    List list = {};
    list.fill(chain);
    for (int i = 0; i < chain.n_stages; i++) list.fetch(ring, i);
    __shared__ uint32_t laps[MAX_PRODUCTS];
    if ((int)threadIdx.x < chain.n - 1) {
        uint32_t *count = chain.p[threadIdx.x].link->laps + blockIdx.x;
        laps[threadIdx.x] = *count = __ldcg(count) + 1;
    }
    for (int number = 0; number < chain.n; number++) {
        const Product &p = chain.p[number];
        Team team(p, chain.cut[number]);
        team.at_parts = parts;
        int n_in = p.segment[0].w.n_in, n_slots = p.per_slot ? p.n_used : 1;
        team.x = carve(at_input, T * n_slots, team.cut, chain.forms[number]);
        float4 norm[VECTORS];
#pragma unroll
        for (int i = 0; i < VECTORS; i++)
            norm[i] = p.norm && i / 2 * THREADS * 8 < n_in ? load4(p.norm, element_of<WARPS>(i), n_in)
                                                           : make_float4(0, 0, 0, 0);
        if (number == 0 && !routed) pdl_wait(), pdl_launch();
        for (int t = 0; t < (T == 1 ? 1 : chain.n_rows); t++) {
            const float *in = p.in + (size_t)(p.rows ? __ldcg(p.rows + t) : t) * p.in_stride;
            Row row = {in, n_in, number > 0, 0};
            if (row.linked) {
                row.in = (const float *)chain.p[number - 1].link->row, row.lap = laps[number - 1] & 1;
                row.await();
            }
            for (int i = 0; i < n_slots; i++, row.in += n_in)
                load_row(p, team.x, chain.forms[number], t * n_slots + i, row, norm);
        }
        Place place = place_of(p, team.group);
        int round = 0;
        do { // once even where there is nothing to do: the barriers are for the whole block
            if (PARTS<T> == 2) parts = at_parts + at_input - chain.parts_bytes - parts, team.at_parts = parts; // the other ones
            else if (round) __syncthreads(); // all have written their outputs
            Output<T> out(team, round, T == 1 ? 1 : chain.n_rows);
            if (chain.many_slices) list.fill(chain);
            if (round == 0) __syncthreads(); // the input is there
            multiply_round<T, Known>(team, ring, list, place, round);
            __syncthreads(); // the other parts are free too: all have written their outputs before coming
                             // here
            out.write(team, number + 1 < chain.n, laps[number] & 1);
        } while ((round += team.cut.round) < team.n_units);
    }
}

// ---- launcher -------------------------------------------------------------------------------------------

Forms forms_of(const Product *p) {
    Forms forms = {false, false};
    for (int i = 0; i < p->n_segments; i++)
        if (quant_traits(p->segment[i].w.type)->act == QUANT_ACT_Q8)
            forms.q8 = true;
        else
            forms.f32 = true;
    return forms;
}

int ceil_div(int a, int b) {
    return (a + b - 1) / b;
}

int round_up(int a, int b) {
    return ceil_div(a, b) * b;
}

// The slices that keep the busiest warp's steps fewest; more slices rather than more groups.  No slice of any
// segment is empty.
void cut_rows(Cut *cut, const Product *p, int n_blocks) {
    int n_tiles = p->segment[0].w.layout.n_tiles, units = ceil_div(cut->units, n_blocks), best = 0, most = WARPS;
    for (int i = 0; i < p->n_segments; i++) most = std::min(most, p->segment[i].w.layout.n_tiles);
    for (int n = 1; n <= most; n++) {
        int per_slice = ceil_div(n_tiles, n), slices = ceil_div(n_tiles, per_slice), groups = WARPS / slices;
        int steps = ceil_div(units, groups) * per_slice;
        if (best && steps > best) continue;
        best = steps, cut->n_slices = slices, cut->n_groups = groups;
    }
    cut->slice_inverse = (65536u + cut->n_slices - 1) / cut->n_slices;
    cut->group_inverse = (65536u + cut->n_groups - 1) / cut->n_groups;
    cut->per_block = cut->units / n_blocks, cut->n_longer = cut->units % n_blocks;
    for (int i = 0; i < p->n_segments; i++) {
        int tiles = p->segment[i].w.layout.n_tiles;
        cut->per_slice[i] = tiles / cut->n_slices, cut->n_wider[i] = tiles % cut->n_slices;
    }
}

Cut cut_of(const Product *p, int n_blocks, Forms forms) {
    Cut cut = {};
    int slots = p->ids ? p->n_used : 1;
    for (int i = 0; i < p->n_segments; i++) {
        const Layout &at = p->segment[i].w.layout;
        if (i == 0 || !p->glu) cut.units += slots * at.n_tile_rows;
        if (at.n_tiles * at.tile_weights > cut.n_floats) cut.n_floats = at.n_tiles * at.tile_weights;
    }
    if (forms.q8) cut.n_tiles = ceil_div(p->segment[0].w.n_in, TILE_CHUNKS * CHUNK_WEIGHTS);
    cut_rows(&cut, p, n_blocks);
    return cut;
}

// The shared memory of a block of T rows.
size_t room(const Launch *l, int T) {
    bool shares = T == 1 && l->dependent && l->shared_max > 3 * ATTN_SHARED;
    return l->shared_max - (shares ? ATTN_SHARED : 0);
}

// What a warp lists of a product at most: slices, and their tiles at most and at least; of a pair, both.
struct Extent {
    int slices, most, least;
};

Extent extent_of(const Product *p, const Cut *cut) {
    Extent e = {ceil_div(cut->per_block + (cut->n_longer > 0), cut->n_groups) * (p->glu ? 2 : 1), 0, cut->per_slice[0]};
    for (int i = 0; i < p->n_segments; i++) {
        int most = cut->per_slice[i] + (cut->n_wider[i] > 0);
        e.most = p->glu ? e.most + most : std::max(e.most, most);
        e.least = std::min(e.least, cut->per_slice[i]);
    }
    return e;
}

// Shortens the rounds where a warp may have more slices than it lists, so that what it has listed lasts for
// any; whether that could be done.
bool cut_rounds(Chain *chain) {
    int slices = 0, least = INT_MAX;
    for (int i = 0; i < chain->n; i++) {
        Extent e = extent_of(&chain->p[i], &chain->cut[i]);
        slices += e.slices, least = std::min(least, e.least);
    }
    chain->many_slices = slices > LISTED;
    for (int i = 0; chain->many_slices && i < chain->n; i++) {
        Cut *cut = &chain->cut[i];
        int times = (LISTED - MAX_STAGES) * least / extent_of(&chain->p[i], cut).most;
        if (times == 0) return false;
        cut->round = std::min(cut->round, times * cut->n_groups);
    }
    return true;
}

// Cuts all products for T rows at once and divides what shared memory there is; 0 where it does not suffice, or
// where the products' rows are too unlike for one kernel.
size_t cut_chain(Chain *chain, int n_blocks, int T, size_t most) {
    size_t input = 0, parts = most / 24; // of one round
    chain->slot_bytes = chain->parts_bytes = 0;
    for (int i = 0; i < chain->n; i++) {
        const Product *p = &chain->p[i];
        Forms forms = chain->forms[i] = forms_of(p);
        Cut *cut = &(chain->cut[i] = cut_of(p, n_blocks, forms));
        for (int s = 0; s < p->n_segments; s++)
            chain->slot_bytes = std::max(chain->slot_bytes, round_up(p->segment[s].w.layout.tile_bytes, Ring::LINE));
        int unit = (p->glu ? 2 : 1) * cut->n_slices * T * TILE_ROWS * (int)sizeof(float);
        int outputs = THREADS / (T * TILE_ROWS); // units that a block's threads write at once
        cut->round = std::min((int)parts / unit, outputs);
        cut->round -= cut->round % cut->n_groups;
        if (cut->round == 0) cut->round = std::min(cut->n_groups, outputs);
        cut->per_group = ceil_div(cut->round, cut->n_groups);
        chain->parts_bytes = std::max(chain->parts_bytes, cut->per_group * cut->n_groups * unit);
        input = std::max(input, input_bytes(T * (p->per_slot ? p->n_used : 1), *cut, forms));
    }
    size_t others = input + (T == 1 ? PARTS<1> : PARTS<ROWS_MAX>) * chain->parts_bytes;
    auto bytes = [&](int n_stages) { return others + WARPS * Ring::bytes(chain->slot_bytes, n_stages); };
    if (bytes(1) > most || !cut_rounds(chain)) return 0;
    for (chain->n_stages = 1; chain->n_stages < MAX_STAGES && bytes(chain->n_stages + 1) <= most;) chain->n_stages++;
    return bytes(chain->n_stages);
}

template <class Known> bool knows(const Chain &chain) {
    for (int i = 0; i < chain.n; i++)
        for (int s = 0; s < chain.p[i].n_segments; s++)
            if (!Known::know(chain.p[i].segment[s].w.type)) return false;
    return true;
}

// The first instance that knows the chain's types.
template <int T, class Known, class... Others>
cudaError_t launch_known(const Launch *l, const Chain &chain, int n_blocks, size_t shared) {
    if constexpr (sizeof...(Others) > 0)
        if (!knows<Known>(chain)) return launch_known<T, Others...>(l, chain, n_blocks, shared);
    return launch_kernel(l, k_products<T, Known>, n_blocks, THREADS, shared, chain);
}

// The mixes in which most models come; F32 is what routes experts.
using KMix = Types<QUANT_Q4_K, QUANT_Q5_K, QUANT_Q6_K, QUANT_F32>;
using BlockMix = Types<QUANT_Q4_0, QUANT_Q8_0, QUANT_F32>;
using FloatMix = Types<QUANT_F32, QUANT_F16, QUANT_BF16, QUANT_FP8_E4M3>;

template <int T> cudaError_t launch_rows(const Launch *l, const Chain &chain, int n_blocks, size_t shared) {
    return launch_known<T, KMix, BlockMix, FloatMix, AllTypes>(l, chain, n_blocks, shared);
}

cudaError_t check(const Product *p) {
    if (p->norm && p->segment[0].w.n_in > LOADED)
        return cudaErrorInvalidValue; // the plan normalises such rows apart
    return p->ids && p->n_segments > 1 && !p->glu ? cudaErrorInvalidValue : cudaSuccess;
}

// Rows done.. of a product.
Product rows_from(Product p, int done) {
    if (p.rows)
        p.rows += done;
    else
        p.in += (size_t)done * p.in_stride;
    if (p.ids) p.ids += (size_t)done * p.ids_stride;
    if (p.residual) p.residual += (size_t)done * p.residual_stride;
    for (int i = 0; i < p.n_segments; i++) p.segment[i].out += (size_t)done * p.segment[i].out_stride;
    return p;
}

int fewer(int at_once) {
    return at_once == 4 ? 1 : at_once / 2;
}

// Whether b has a's output as its input, by a link.
bool is_linked(const Launch *l, const Product &a, const Product &b) {
    int n = a.segment[0].w.n_out;
    return a.link && l->n_sm <= LINK_BLOCKS && a.segment[0].out == b.in && b.segment[0].w.n_in == n && n % 4 == 0 && !a.ids && !b.ids;
}

} // namespace

extern "C" cudaError_t launch_products(const Launch *l, const Product *products, int n, int T) {
    if (n < 1 || n > MAX_PRODUCTS) return cudaErrorInvalidValue;
    Chain chain = {.n = n};
    int units = 0, at_once = ROWS_MAX;
    bool linked = n == 1 || T == 1;
    for (int i = 0; i < n; i++) {
        chain.p[i] = products[i];
        cudaError_t error = check(&products[i]);
        if (error != cudaSuccess) return error;
        if (products[i].ids) at_once = 1; // rows with experts of their own go one by one
        if (i) linked &= is_linked(l, products[i - 1], products[i]);
        units = std::max(units, cut_of(&products[i], l->n_sm, forms_of(&products[i])).units);
    }
    int n_blocks = n > 1 ? l->n_sm : std::min(units, l->n_sm);
    while (at_once > 1 && fewer(at_once) >= T) at_once = fewer(at_once);
    size_t shared; // the most rows that leave the rings two stages, or one row
    while (!(shared = cut_chain(&chain, n_blocks, at_once, room(l, at_once))) || chain.n_stages < 2)
        if (at_once == 1)
            break;
        else
            at_once = fewer(at_once);
    if (n > 1 && (!shared || !linked)) {
        for (int i = 0; i < n; i++) {
            cudaError_t error = launch_products(l, products + i, 1, T);
            if (error != cudaSuccess) return error;
        }
        return cudaSuccess;
    }
    if (!shared) return cudaErrorInvalidValue;
    for (int done = 0; done < T; done += at_once) {
        for (int i = 0; i < n; i++) chain.p[i] = rows_from(products[i], done);
        chain.n_rows = std::min(T - done, at_once);
        cudaError_t error = at_once == 1   ? launch_rows<1>(l, chain, n_blocks, shared)
                            : at_once == 4 ? launch_rows<4>(l, chain, n_blocks, shared)
                            : at_once == 8 ? launch_rows<8>(l, chain, n_blocks, shared)
                                           : launch_rows<16>(l, chain, n_blocks, shared);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
