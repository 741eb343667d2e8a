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
// waste is free.
//
// The order of all additions of floats depends on nothing but the matrix's shape; so a row of activations
// gives the same bytes alone and among others.
#include <algorithm>

#include "launch.cuh"
#include "norm.cuh"
#include "quant.cuh"
#include "ring.cuh"

namespace {

constexpr int WARPS = 16, THREADS = WARPS * 32;
constexpr int VECTORS = 4,
              LOADED = THREADS * VECTORS * 4; // of an input row: float4s a thread, elements at once

struct Forms { // what the weights of this product want to multiply with
    bool q8, f32;
};

// How the work is cut; the host decides.  Division is slow on the device, so it is done here.
struct Cut {
    int units, n_slices, n_groups; // n_slices * n_groups <= WARPS
    int per_block, n_longer;       // units of a block; the first n_longer blocks have one more
    unsigned slice_inverse;        // of n_slices: n / n_slices = n * slice_inverse >> 16 for small n
    unsigned group_inverse;        // of n_groups
    int per_slice[3];              // tiles of a slice, by segment
    int round;                     // units of a block between two additions: a multiple of n_groups
    int n_chunks, n_floats;        // of an input row, filled up to whole tiles
};

// Products of which each may need what the ones before it wrote.  They run as one kernel, so that the rings
// run on over the boundaries; between two of them all blocks meet.
struct Chain {
    Product p[MAX_PRODUCTS];
    Cut cut[MAX_PRODUCTS];
    Forms forms[MAX_PRODUCTS];
    int n, n_rows;
    int slot_bytes, n_stages; // of a warp's ring
    int parts_bytes;          // of one round
    unsigned long long *met;  // how often a block came to a meeting, in global memory
};

// All shared memory: the ring, its barriers, the parts of two rounds, the input.
__device__ __forceinline__ uint8_t *shared_memory() {
    extern __shared__ __align__(128) uint8_t shared[];
    return shared;
}

// The input rows in shared memory, filled up with zeros; the pieces are told by where they begin.
struct Input {
    int at_f32;    // float [T][n_floats]
    int at_words;  // uint2 [T][tiles][32]: what lane 4c + i multiplies chunk c with, weights 4i.. and 16+4i..
    int at_scales; // float2 [T][tiles][8]: d, and d times the sum of the chunk's 32
    int at_halves; // float2 [T][tiles][8]: d times the sums of the first 16 and of the others
    int n_chunks, n_floats;

    __device__ float *f32() const { return (float *)(shared_memory() + at_f32); }
    __device__ uint2 *words() const { return (uint2 *)(shared_memory() + at_words); }
    __device__ float2 *scales() const { return (float2 *)(shared_memory() + at_scales); }
    __device__ float2 *halves() const { return (float2 *)(shared_memory() + at_halves); }
};

__host__ __device__ size_t input_bytes(int T, const Cut &cut, Forms forms) {
    return (size_t)T * ((forms.q8 ? cut.n_chunks * (32 + 2 * sizeof(float2)) : 0) +
                        (forms.f32 ? cut.n_floats * sizeof(float) : 0));
}

__device__ Input carve(int at, int T, const Cut &cut, Forms forms) {
    Input x = {.at_f32 = at, .n_chunks = cut.n_chunks, .n_floats = cut.n_floats};
    if (forms.f32) at += T * cut.n_floats * (int)sizeof(float);
    x.at_words = at;
    x.at_scales = x.at_words + T * cut.n_chunks * 32;
    x.at_halves = x.at_scales + T * cut.n_chunks * (int)sizeof(float2);
    return x;
}

// Four neighbouring threads hold a group of 32, whole warps call: quantises it as exec/act.h says.
__device__ __forceinline__ void quantize_group(const Input &x, int t, int element, const float4 v[2]) {
    const float y[8] = {v[0].x, v[0].y, v[0].z, v[0].w, v[1].x, v[1].y, v[1].z, v[1].w};
    uint32_t bits = 0;
#pragma unroll
    for (int k = 0; k < 8; k++) bits = max(bits, __float_as_uint(y[k]) & 0x7fffffffu);
    bits = max(bits, __shfl_xor_sync(0xffffffffu, bits, 1));
    bits = max(bits, __shfl_xor_sync(0xffffffffu, bits, 2));
    float amax = __uint_as_float(bits), d = __fdiv_rn(amax, 127.0f), inverse = __fdiv_rn(127.0f, amax);
    bool damaged = bits >= 0x7f800000u,
         zero = damaged || amax < 0x1p-100f; // damaged: an Inf or a NaN among them
    d = damaged ? __uint_as_float(0x7fc00000u) : zero ? 0 : d;
    uint32_t packed[2];
    int sum = 0;
#pragma unroll
    for (int k = 0; k < 8; k += 4) {
        int q[4];
#pragma unroll
        for (int j = 0; j < 4; j++) q[j] = zero ? 0 : __float2int_rn(__fmul_rn(y[k + j], inverse));
        sum += q[0] + q[1] + q[2] + q[3];
        packed[k / 4] = __byte_perm(__byte_perm(q[0], q[1], 0x0040), __byte_perm(q[2], q[3], 0x0040), 0x5410);
    }
    sum += __shfl_xor_sync(0xffffffffu, sum, 1); // of 16: two threads
    int other = __shfl_xor_sync(0xffffffffu, sum, 2), chunk = element / 32, quarter = element % 32 / 8;
    if (chunk >= x.n_chunks) return;
    int at = t * x.n_chunks + chunk;
    uint32_t *words = (uint32_t *)(x.words() + at * 4 + quarter % 2 * 2) + quarter / 2;
    words[0] = packed[0], words[2] = packed[1];
    if (quarter == 0) {
        x.scales()[at] = make_float2(d, d * (sum + other));
        x.halves()[at] = make_float2(d * sum, d * other);
    }
}

// A row of the input into row t of x, normalised first where p.norm says so (then n_in fits LOADED, of which
// w holds the norm's weights), in the forms wanted.
__device__ __forceinline__ void load_row(const Product &p, const Input &x, Forms forms, int t,
                                         const float *in, int n_in, const float4 w[VECTORS]) {
    int n = max(forms.q8 ? x.n_chunks * CHUNK_WEIGHTS : 0, forms.f32 ? x.n_floats : 0);
    for (int base = 0; base < n; base += LOADED) {
        float4 v[VECTORS] = {};
#pragma unroll
        for (int i = 0; i < VECTORS; i++)
            if (base + i / 2 * THREADS * 8 < n_in) v[i] = load4(in, base + element_of<WARPS>(i), n_in);
        if (p.norm) {
            float scale = block_rms_scale<WARPS, VECTORS>(v, n_in, p.norm_eps);
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
                float4 *to = (float4 *)(x.f32() + (size_t)t * x.n_floats + element);
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

// A tile of blocks times the T inputs, from row x0 of x on: sums[t][h] += what this lane's chunks give to row
// 8h + g.
template <QuantType F, int T>
__device__ __forceinline__ void multiply_blocks(const uint8_t *tile, int index, const Input &x, int x0,
                                                int lane, float sums[T][2]) {
    constexpr int GROUPS = Format<F>::GROUP == 16 ? 2 : 1, AT_ONCE = T * GROUPS > 8 ? 8 / GROUPS : T;
    float scale[2][2][2], min[2][2][2];
    tile_scales<F>(tile, lane, scale, min);
#pragma unroll
    for (int t0 = 0; t0 < T; t0 += AT_ONCE) {
        int dots[AT_ONCE][GROUPS][4] = {};
        uint2 in[AT_ONCE];
        int chunk0 = (x0 + t0) * x.n_chunks + index * TILE_CHUNKS;
#pragma unroll
        for (int t = 0; t < AT_ONCE; t++) in[t] = x.words()[(chunk0 + t * x.n_chunks) * 4 + lane];
#pragma unroll
        for (int k = 0; k < 2; k++) {
            uint32_t first[2][4], second[2][4];
#pragma unroll
            for (int h = 0; h < 2; h++) tile_words<F>(tile, lane, h, k, first[h], second[h]);
#pragma unroll
            for (int c = 0; c < 4; c++) {
                bool mine = lane / 4 == 4 * k + c; // this lane holds a column; only column c is not zero
#pragma unroll
                for (int t = 0; t < AT_ONCE; t++) {
                    uint32_t b0 = mine ? in[t].x : 0, b1 = mine ? in[t].y : 0;
                    if constexpr (GROUPS == 1) {
                        multiply_32(dots[t][0], first[0][c], first[1][c], second[0][c], second[1][c], b0, b1);
                    } else {
                        multiply_16(dots[t][0], first[0][c], first[1][c], b0);
                        multiply_16(dots[t][1], second[0][c], second[1][c], b1);
                    }
                }
            }
        }
#pragma unroll
        for (int t = 0; t < AT_ONCE; t++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                int chunk = chunk0 + t * x.n_chunks + 2 * (lane % 4) + j;
                float2 d = x.scales()[chunk], halves = GROUPS == 2 ? x.halves()[chunk] : make_float2(0, 0);
#pragma unroll
                for (int h = 0; h < 2; h++)
                    sums[t0 + t][h] =
                        add_chunk<F>(sums[t0 + t][h], dots[t][0][2 * h + j], dots[t][GROUPS - 1][2 * h + j],
                                     scale[h][j], min[h][j], d, halves);
            }
    }
}

// The same for a tile of floats.
template <QuantType F, int T>
__device__ __forceinline__ void multiply_floats(const uint8_t *tile, int index, const Input &x, int x0,
                                                int lane, float sums[T][2]) {
    constexpr int N = VECTOR_FLOATS<F>;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        float w[2][N];
        tile_floats<F>(tile, lane, 0, k, w[0]), tile_floats<F>(tile, lane, 1, k, w[1]);
        const float *in = x.f32() + (size_t)x0 * x.n_floats + index * TILE_FLOATS<F> + (4 * k + lane % 4) * N;
#pragma unroll
        for (int t = 0; t < T; t++, in += x.n_floats)
#pragma unroll
            for (int i = 0; i < N; i += 4) {
                float4 v = *(const float4 *)(in + i);
#pragma unroll
                for (int h = 0; h < 2; h++)
#pragma unroll
                    for (int j = 0; j < 4; j++) sums[t][h] = fmaf(w[h][i + j], (&v.x)[j], sums[t][h]);
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
    int at_parts; // float [round][gate, up][slice][T][16] of this round, in shared memory
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
    __device__ int first_tile(int segment) const { return slice * cut.per_slice[segment]; }
    __device__ int tiles(int segment) const { // none or negative where a matrix has fewer tiles than slices
        return min(cut.per_slice[segment], p.segment[segment].w.layout.n_tiles - first_tile(segment));
    }
};

// Ahead of the arithmetic: what the ring fetches, through all products of the chain.  Slices are listed 32 at
// a time, one in each lane, which also starts the fetches of its tiles: so nobody has to work out an address
// where time is short.
struct List {
    const uint8_t *at; // this lane's slice: its next tile
    int bytes, tiles;  // of a tile, 0 beyond the end; of the slice
    int slice, tile;   // the next fetch, for the whole warp

    __device__ void fill(const Chain &chain) {
        int number = slice / 32 * 32 + (int)threadIdx.x % 32;
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
    __device__ void skip_empty(const Chain &chain) {
        while (__shfl_sync(0xffffffffu, tiles, slice % 32) <= 0) next_slice(chain);
    }
    __device__ void next_slice(const Chain &chain) {
        tile = 0;
        if (++slice % 32 == 0) fill(chain);
    }
    __device__ void fetch(Ring &ring, int stage, const Chain &chain) {
        ring.fetch(stage, slice % 32, at, bytes);
        if (ring.lane == slice % 32) at += bytes;
        if (++tile < __shfl_sync(0xffffffffu, tiles, slice % 32)) return;
        next_slice(chain);
        skip_empty(chain);
    }
};

// `count` units from number k of this round on, n_groups apart, of one part: of the matrices from `segment`
// on the warp's slice of each: the sums of its 16 rows for each of the T inputs, to the parts.
template <QuantType F, int T>
__device__ __forceinline__ void multiply_units(const Chain &chain, const Team &team, Ring &ring, List &list,
                                               int segment, int n_matrices, int x0, float *part, int count) {
    int first = team.first_tile(segment), end = first + team.tiles(segment),
        step = team.cut.n_slices * T * TILE_ROWS;
    for (; count; count--) {
        for (int matrix = 0; matrix < n_matrices; matrix++) {
            float sums[T][2] = {};
            for (int i = first; i < end; i++) {
                const uint8_t *tile = ring.wait();
                if constexpr (Format<F>::FLOAT)
                    multiply_floats<F, T>(tile, i, team.x, x0, ring.lane, sums);
                else
                    multiply_blocks<F, T>(tile, i, team.x, x0, ring.lane, sums);
                list.fetch(ring, ring.stage, chain);
                ring.advance();
            }
#pragma unroll
            for (int t = 0; t < T; t++)
#pragma unroll
                for (int h = 0; h < 2; h++) { // the four lanes of a row
                    float sum = sums[t][h];
                    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
                    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
                    if (ring.lane % 4 == 0) part[t * TILE_ROWS + 8 * h + ring.lane / 4] = sum;
                }
            part += step;
        }
        part += (team.cut.n_groups * (team.p.glu ? 2 : 1) - n_matrices) * step;
    }
}

// The warp's units of a round, from `place` on.
template <int T>
__device__ __forceinline__ void multiply_round(const Chain &chain, const Team &team, Ring &ring, List &list,
                                               Place &place, int round) {
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
            float *part =
                team.parts() +
                (((from.k - round) * matrices + matrix) * team.cut.n_slices + team.slice) * T * TILE_ROWS;
            switch (p.segment[segment].w.type) {
#define MULTIPLY(type, ...)                                                                                  \
    case QUANT_##type:                                                                                       \
        multiply_units<QUANT_##type, T>(chain, team, ring, list, segment, alike ? matrices : 1, x0, part,    \
                                        count);                                                              \
        break;
#define KNOWN(...)
                QUANT_TYPES(MULTIPLY, MULTIPLY, KNOWN)
#undef MULTIPLY
#undef KNOWN
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
    Place place;
    int t, row;
    bool exists;
    float before; // what is added to it

    __device__ Output(const Team &team, int round, int n_rows) {
        const Product &p = team.p;
        int unit = threadIdx.x / (T * TILE_ROWS);
        t = threadIdx.x / TILE_ROWS % T;
        exists = unit < team.cut.round && round + unit < team.n_units && t < n_rows;
        before = 0;
        if (!exists) return;
        place = place_of(p, round + unit);
        row = place.row * TILE_ROWS + threadIdx.x % TILE_ROWS;
        exists = row < p.segment[place.segment(p)].w.n_out;
        if (exists && p.residual && place.part == 0)
            before = __ldcg(p.residual + (size_t)t * p.residual_stride + row);
    }
    // Adds up the slices.
    __device__ void write(const Team &team) const {
        if (!exists) return;
        const Product &p = team.p;
        const ProductSegment &s = p.segment[place.segment(p)];
        constexpr int STEP = T * TILE_ROWS; // from slice to slice
        int n_slices = team.cut.n_slices, slices = n_slices * STEP;
        const float *part = team.parts() + threadIdx.x / STEP * (p.glu ? 2 : 1) * slices + threadIdx.x % STEP;
        size_t w_row = place.expert(p) * s.w.n_out + row;
        float y = finish(s, w_row, add_slices(part, n_slices, STEP));
        if (p.glu) y = silu(y) * finish(p.segment[1], w_row, add_slices(part + slices, n_slices, STEP));
        s.out[(size_t)t * s.out_stride + (p.ids ? (size_t)place.part * s.w.n_out : 0) + row] = before + y;
    }
};

// All blocks of the grid, which are on the device together, meet: what they wrote before is seen by all
// afterwards.  The counter's high word says how many meetings there have been: block 0 adds what the others
// leave over of 2^32.  Used by the block's first thread.
struct Meeting {
    unsigned long long *met;
    uint32_t before; // this one's number

    __device__ uint32_t look() const {
        unsigned long long now;
        asm volatile("ld.acquire.gpu.u64 %0, [%1];" : "=l"(now) : "l"(met) : "memory");
        return (uint32_t)(now >> 32);
    }
    __device__ void come() const {
        unsigned long long one = blockIdx.x ? 1 : (1ull << 32) - (gridDim.x - 1);
        asm volatile("red.release.gpu.add.u64 [%0], %1;" ::"l"(met), "l"(one) : "memory");
    }
    __device__ void wait() {
        while (look() == before) {
        }
        before++;
    }
};

template <int T>
__global__ void __launch_bounds__(T == 1 ? THREADS + ATTN_THREADS : THREADS, 1) k_products(const __grid_constant__ Chain chain) {
    int warp = threadIdx.x / 32, ring_bytes = chain.n_stages * chain.slot_bytes;
    uint8_t *ring_memory = shared_memory(), *barriers = ring_memory + WARPS * ring_bytes;
    int at_parts = WARPS * ring_bytes + WARPS * MAX_STAGES * (int)sizeof(uint64_t),
        at_input = at_parts + 2 * chain.parts_bytes, parity = 0;
    bool routed = chain.p[0].ids; // which weights to fetch is what the kernel before decides
    if (routed) pdl_wait(), pdl_launch();
    Ring ring(ring_memory + warp * ring_bytes, (uint64_t *)barriers + warp * MAX_STAGES, chain.slot_bytes,
              chain.n_stages);
    List list = {};
    list.fill(chain);
    list.skip_empty(chain);
    for (int i = 0; i < chain.n_stages; i++) list.fetch(ring, i, chain);
    Meeting meeting = {chain.met};
    for (int number = 0; number < chain.n; number++) {
        const Product &p = chain.p[number];
        Team team(p, chain.cut[number]);
        int n_in = p.segment[0].w.n_in, n_slots = p.per_slot ? p.n_used : 1;
        team.x = carve(at_input, T * n_slots, team.cut, chain.forms[number]);
        float4 norm[VECTORS];
#pragma unroll
        for (int i = 0; i < VECTORS; i++)
            norm[i] = p.norm && i / 2 * THREADS * 8 < n_in ? load4(p.norm, element_of<WARPS>(i), n_in)
                                                           : make_float4(0, 0, 0, 0);
        if (number) {
            if (threadIdx.x == 0) meeting.wait();
            __syncthreads();
        } else {
            if (!routed) pdl_wait(), pdl_launch();
            if (threadIdx.x == 0 && chain.n > 1) meeting.before = meeting.look();
        }
        for (int t = 0; t < chain.n_rows; t++) {
            const float *in = p.in + (size_t)(p.rows ? __ldcg(p.rows + t) : t) * p.in_stride;
            for (int i = 0; i < n_slots; i++)
                load_row(p, team.x, chain.forms[number], t * n_slots + i, in + (size_t)i * n_in, n_in, norm);
        }
        Place place = place_of(p, team.group);
        for (int round = 0; round < team.n_units; round += team.cut.round, parity ^= 1) {
            team.at_parts = at_parts + parity * chain.parts_bytes;
            Output<T> out(team, round, chain.n_rows);
            if (round == 0) __syncthreads(); // the input is there
            multiply_round<T>(chain, team, ring, list, place, round);
            __syncthreads(); // the other parts are free too: all have written their outputs before coming
                             // here
            out.write(team);
        }
        if (number + 1 < chain.n) {
            __syncthreads();
            if (threadIdx.x == 0) meeting.come();
        }
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

// The slices that keep the busiest warp's steps fewest; more slices rather than more groups.
void cut_rows(Cut *cut, const Product *p, int n_blocks) {
    int n_tiles = p->segment[0].w.layout.n_tiles, units = ceil_div(cut->units, n_blocks), best = 0;
    for (int n = 1; n <= WARPS && n <= n_tiles; n++) {
        int per_slice = ceil_div(n_tiles, n), slices = ceil_div(n_tiles, per_slice), groups = WARPS / slices;
        int steps = ceil_div(units, groups) * per_slice;
        if (best && steps > best) continue;
        best = steps, cut->n_slices = slices, cut->n_groups = groups;
    }
    cut->slice_inverse = (65536u + cut->n_slices - 1) / cut->n_slices;
    cut->group_inverse = (65536u + cut->n_groups - 1) / cut->n_groups;
    cut->per_block = cut->units / n_blocks, cut->n_longer = cut->units % n_blocks;
    for (int i = 0; i < p->n_segments; i++)
        cut->per_slice[i] = ceil_div(p->segment[i].w.layout.n_tiles, cut->n_slices);
}

Cut cut_of(const Product *p, int n_blocks, Forms forms) {
    Cut cut = {};
    int slots = p->ids ? p->n_used : 1;
    for (int i = 0; i < p->n_segments; i++) {
        const Layout &at = p->segment[i].w.layout;
        if (i == 0 || !p->glu) cut.units += slots * at.n_tile_rows;
        if (at.n_tiles * at.tile_weights > cut.n_floats) cut.n_floats = at.n_tiles * at.tile_weights;
    }
    if (forms.q8) cut.n_chunks = ceil_div(p->segment[0].w.n_in, TILE_CHUNKS * CHUNK_WEIGHTS) * TILE_CHUNKS;
    cut_rows(&cut, p, n_blocks);
    return cut;
}

// The shared memory of a block of T rows.
size_t room(const Launch *l, int T) {
    bool shares = T == 1 && l->dependent && l->shared_max > 3 * ATTN_SHARED;
    return l->shared_max - (shares ? ATTN_SHARED : 0);
}

// Cuts all products for T rows at once and divides what shared memory there is; 0 where it does not suffice.
size_t cut_chain(Chain *chain, int n_blocks, int T, size_t most) {
    size_t input = 0, parts = most / 24; // of one round
    chain->slot_bytes = chain->parts_bytes = 0;
    for (int i = 0; i < chain->n; i++) {
        const Product *p = &chain->p[i];
        Forms forms = chain->forms[i] = forms_of(p);
        Cut *cut = &(chain->cut[i] = cut_of(p, n_blocks, forms));
        for (int s = 0; s < p->n_segments; s++)
            chain->slot_bytes = std::max(chain->slot_bytes, p->segment[s].w.layout.tile_bytes);
        int unit = (p->glu ? 2 : 1) * cut->n_slices * T * TILE_ROWS * (int)sizeof(float);
        int outputs = THREADS / (T * TILE_ROWS); // units that a block's threads write at once
        cut->round = std::min((int)parts / unit, outputs);
        cut->round -= cut->round % cut->n_groups;
        if (cut->round == 0) cut->round = std::min(cut->n_groups, outputs);
        chain->parts_bytes = std::max(chain->parts_bytes, cut->round * unit);
        input = std::max(input, input_bytes(T * (p->per_slot ? p->n_used : 1), *cut, forms));
    }
    size_t fixed = input + 2 * chain->parts_bytes + WARPS * MAX_STAGES * sizeof(uint64_t),
           stage = (size_t)WARPS * chain->slot_bytes;
    if (fixed + stage > most) return 0;
    chain->n_stages = std::min((int)((most - fixed) / stage), (int)MAX_STAGES);
    return fixed + chain->n_stages * stage;
}

template <int T> cudaError_t launch_rows(const Launch *l, const Chain &chain, int n_blocks, size_t shared) {
    return launch_kernel(l, k_products<T>, n_blocks, THREADS, shared, chain);
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

} // namespace

extern "C" cudaError_t launch_products(const Launch *l, const Product *products, int n, int T) {
    if (n < 1 || n > MAX_PRODUCTS) return cudaErrorInvalidValue;
    Chain chain = {.n = n, .met = l->met};
    int units = 0, at_once = 8;
    for (int i = 0; i < n; i++) {
        chain.p[i] = products[i];
        cudaError_t error = check(&products[i]);
        if (error != cudaSuccess) return error;
        if (products[i].ids) at_once = 1; // rows with experts of their own go one by one
        units = std::max(units, cut_of(&products[i], l->n_sm, forms_of(&products[i])).units);
    }
    int n_blocks = std::min(units, l->n_sm);
    while (at_once > 1 && at_once >= 2 * T) at_once /= 2;
    size_t shared; // the most rows that leave the rings two stages, or one row
    while (!(shared = cut_chain(&chain, n_blocks, at_once, room(l, at_once))) || chain.n_stages < 2)
        if (at_once == 1)
            break;
        else
            at_once /= 2;
    if (!shared) return cudaErrorInvalidValue;
    if (n > 1 && T > at_once) { // rows meet only their own
        for (int i = 0; i < n; i++) {
            cudaError_t error = launch_products(l, products + i, 1, T);
            if (error != cudaSuccess) return error;
        }
        return cudaSuccess;
    }
    for (int done = 0; done < T; done += at_once) {
        for (int i = 0; i < n; i++) chain.p[i] = rows_from(products[i], done);
        chain.n_rows = std::min(T - done, at_once);
        cudaError_t error = at_once == 1   ? launch_rows<1>(l, chain, n_blocks, shared)
                            : at_once == 2 ? launch_rows<2>(l, chain, n_blocks, shared)
                            : at_once == 4 ? launch_rows<4>(l, chain, n_blocks, shared)
                                           : launch_rows<8>(l, chain, n_blocks, shared);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
