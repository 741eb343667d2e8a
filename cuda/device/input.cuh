// input: rows of activations in shared memory, in the forms with which tiles of weights are multiplied.
//
// A row is normalised first where the product has a norm, and then kept as floats, or as exec/act.h's 8-bit
// numbers with their scales, or in both forms, for weights of both kinds.  The 8-bit form is ordered by
// tiles: what the 32 lanes of a warp need for one tile of 16 rows is 384 contiguous bytes.
#pragma once
#include "../layout.h"
#include "launch.cuh"
#include "norm.cuh"
#include "ring.cuh"
extern "C" {
#include "../../src/exec/act.h"
}

constexpr int WARPS = 16, THREADS = WARPS * 32; // of a block that loads rows
constexpr int VECTORS = 4;                      // float4s of a row that a thread loads at once
constexpr int LOADED = THREADS * VECTORS * 4;   // elements of a row that a block loads at once

// Bytes of a kept row (launch.h) in shared memory.  A thread reads and writes the elements of it that it
// loads of any row, and no others.
__host__ __device__ constexpr int kept_stride(int n) {
    return (n * (int)sizeof(float) + 127) / 128 * 128;
}

// The part of an input row with which one tile of blocks is multiplied.
struct TileInput {
    uint2 words[32];            // of lane 4c + i: the bytes of chunk c for the weights 4i.. and 16+4i..
    float2 scales[TILE_CHUNKS]; // d, and d times the sum of the chunk's 32
    float2 halves[TILE_CHUNKS]; // d times the sums of the first 16 and of the others
};

// Input rows in shared memory: of each row floats, then TileInputs, filled up with zeros.
struct Input {
    int at, stride;        // bytes: of the first row in shared memory, from row to row
    int n_floats, n_tiles; // of a row; 0 where it is not needed in this form
    int last;              // row in shared memory

    __device__ float *floats(int t) const { return (float *)(shared_memory() + at + t * stride); }
    __device__ TileInput *tiles(int t) const { return (TileInput *)(floats(t) + n_floats); }
};

constexpr int INPUT_PADDING =
    32; // bytes behind the TileInputs of a row, against bank conflicts: row_of_column

__host__ __device__ inline Input input_at(int at, int n_floats, int n_tiles, int n_rows) {
    Input x = {at, 0, n_floats, n_tiles, n_rows - 1};
    int tiles = x.n_tiles * (int)sizeof(TileInput);
    x.stride = x.n_floats * (int)sizeof(float) + tiles + (tiles ? INPUT_PADDING : 0);
    return x;
}

// amax / 127, rounded as IEEE 754 does; compared with the division for every float of the range that is used.
__device__ __forceinline__ float over_127(float amax) {
    constexpr float inverse = 1.0f / 127.0f;
    float quotient = __fmul_rn(amax, inverse);
    return __fmaf_rn(__fmaf_rn(-127.0f, quotient, amax), inverse, quotient);
}

// A float whose lowest byte is x rounded to an integer, ties to even, for |x| <= 127: the float's unit in the
// last place is 1.  A conversion instruction takes four times as long.
__device__ __forceinline__ uint32_t rounded(float x) {
    return __float_as_uint(__fadd_rn(x, 12582912.0f)); // 1.5 * 2^23
}

// Quantises a group of 32 elements, of which four neighbouring threads have 8 each, as defined in exec/act.h;
// this thread's begin at `element`.  The whole warp calls.
__device__ __forceinline__ void quantize_group(const Input &x, int t, unsigned element, const float4 v[2]) {
    const float y[8] = {v[0].x, v[0].y, v[0].z, v[0].w, v[1].x, v[1].y, v[1].z, v[1].w};
    uint32_t bits = 0;
#pragma unroll
    for (int k = 0; k < 8; k++) bits = max(bits, __float_as_uint(y[k]) & 0x7fffffffu);
    bits = max(bits, __shfl_xor_sync(0xffffffffu, bits, 1));
    bits = max(bits, __shfl_xor_sync(0xffffffffu, bits, 2));
    float amax = __uint_as_float(bits), d = over_127(amax), inverse = __fdiv_rn(127.0f, amax);
    bool damaged = bits >= 0x7f800000u; // one of them is an Inf or a NaN
    if (damaged || amax < ACT8_TINY) {
        inverse = 0;
        d = damaged ? __uint_as_float(0x7fc00000u) : 0;
    }
    uint32_t packed[2];
#pragma unroll
    for (int k = 0; k < 8; k += 4) {
        uint32_t q[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            q[j] = rounded(__fmul_rn(y[k + j], inverse)); // any byte for a NaN, because d is a NaN
        packed[k / 4] = __byte_perm(__byte_perm(q[0], q[1], 0x0040), __byte_perm(q[2], q[3], 0x0040), 0x5410);
    }
    int sum = dot4(packed[0], 0x01010101, dot4(packed[1], 0x01010101, 0));
    sum += __shfl_xor_sync(0xffffffffu, sum, 1); // of 16 elements: two threads
    int other = __shfl_xor_sync(0xffffffffu, sum, 2);
    unsigned index = element / (TILE_CHUNKS * CHUNK_WEIGHTS), chunk = element / CHUNK_WEIGHTS % TILE_CHUNKS,
             quarter = element / 8 % 4;
    if (index >= (unsigned)x.n_tiles) return;
    TileInput *tile = x.tiles(t) + index;
    uint32_t *words = (uint32_t *)(tile->words + chunk * 4 + quarter % 2 * 2) + quarter / 2;
    words[0] = packed[0];
    words[2] = packed[1];
    if (quarter == 0) {
        tile->scales[chunk] = make_float2(d, d * (sum + other));
        tile->halves[chunk] = make_float2(d * sum, d * other);
    }
}

// ---- an input row ---------------------------------------------------------------------------------------

// Element e of rows one behind the other, each of `padded` elements: where it is.
template <bool SLOTS> struct Place {
    int slot, column;

    __device__ Place(int e, int padded, int n_slots) : slot(0), column(e) {
        if (!SLOTS) return;
        slot = e / padded;
        column = slot < n_slots ? e - slot * padded : padded;
    }
};

// A row of the input, or one for each of several slots; read without_flag, and where other blocks wrote it
// through L2.
struct InputRow {
    enum Where { REGISTER, FLAGGED, KEPT }; // FLAGGED: a FlaggedOutput's row; KEPT: in shared memory

    const float *in; // [n_slots][n]
    int n, n_slots;
    Where where;
    uint32_t epoch; // FLAGGED: the lowest bit of the floats of this epoch

    // Waits until 8 sampled float4s of a flagged row are of this epoch.  Only 8 threads poll, and load polls
    // the rest: polling by all threads from the start would delay the writes that they wait for.
    __device__ void wait() const {
        if (threadIdx.x < 8)
            while (stale(read_relaxed(in + (int)(threadIdx.x * 256) % (n * n_slots) / 4 * 4))) {
            }
        __syncthreads();
    }
    // This thread's elements of those from `base` on, of rows padded with zeros.
    template <bool SLOTS> __device__ void load(float4 v[VECTORS], int base, int padded) const {
        const float *from[VECTORS];
        int column[VECTORS];
#pragma unroll
        for (int i = 0; i < VECTORS; i++) {
            Place<SLOTS> at(base + element_of<WARPS>(i), padded, n_slots);
            from[i] = in + at.slot * n;
            column[i] = at.column;
            v[i] = make_float4(0, 0, 0, 0);
        }
        if (where != REGISTER) {
#pragma unroll
            for (int i = 0; i < VECTORS; i++)
                if (column[i] < n) v[i] = read_relaxed(from[i] + column[i]);
#pragma unroll
            for (int i = 0; i < VECTORS; i++)
                while (column[i] < n && stale(v[i])) v[i] = read_relaxed(from[i] + column[i]);
        } else {
#pragma unroll
            for (int i = 0; i < VECTORS; i++)
                if (base + i / 2 * THREADS * 8 <
                    (SLOTS ? padded * n_slots : padded)) // the same for the whole block
                    v[i] = load4(from[i], column[i], n);
        }
#pragma unroll
        for (int i = 0; i < VECTORS; i++) v[i] = without_flag(v[i]);
    }

  private:
    static __device__ float4 read_relaxed(const float *from) { // four floats, none of them torn
        float4 v;
        asm volatile("ld.relaxed.gpu.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                     : "l"(from)
                     : "memory");
        return v;
    }
    __device__ bool stale(float4 v) const {
        auto differs = [&](float x) { return __float_as_uint(x) ^ epoch; };
        return (differs(v.x) | differs(v.y) | differs(v.z) | differs(v.w)) & (where == FLAGGED);
    }
};

// This thread's weights of a norm of n elements, in the order in which it loads a row; zeros without a norm.
__device__ __forceinline__ void load_norm(const float *norm, int n, float4 w[VECTORS]) {
#pragma unroll
    for (int i = 0; i < VECTORS; i++)
        w[i] =
            norm && i / 2 * THREADS * 8 < n ? load4(norm, element_of<WARPS>(i), n) : make_float4(0, 0, 0, 0);
}

// v, normalised with the weights w, of a row of n elements.
__device__ __forceinline__ void normalise(float4 v[VECTORS], const float4 w[VECTORS], int n, float eps) {
    float scale = rms_scale<WARPS>(add_squares<VECTORS>(0, v), n, eps);
#pragma unroll
    for (int i = 0; i < VECTORS; i++)
        v[i] = make_float4(normalised(v[i].x, scale, w[i].x), normalised(v[i].y, scale, w[i].y),
                           normalised(v[i].z, scale, w[i].z), normalised(v[i].w, scale, w[i].w));
}

// Puts this thread's elements of those from `base` on into the rows of x, one for each slot of n_slots,
// normalised before where p has a norm, whose weights for this thread are w; such a row has at most LOADED
// elements.
template <bool SLOTS>
__device__ __forceinline__ void put_row(const Product &p, const Input &x, int base, int padded, int n_slots,
                                        float4 v[VECTORS], const float4 w[VECTORS]) {
    if (p.norm) normalise(v, w, p.segment[0].w.n_in, p.norm_eps);
#pragma unroll
    for (int i = 0; i < VECTORS; i += 2) {
        if (base + i / 2 * THREADS * 8 >= padded * n_slots) break; // the same for the whole block
        Place<SLOTS> at(base + element_of<WARPS>(i), padded, n_slots);
        if (at.column < x.n_floats) {
            float4 *to = (float4 *)(x.floats(at.slot) + at.column);
            to[0] = v[i];
            to[1] = v[i + 1];
        }
        if (x.n_tiles) quantize_group(x, at.slot, at.column, v + i);
    }
}

// Elements of a row of x, with those behind the input's.
__device__ __forceinline__ int padded_width(const Input &x) {
    return max(x.n_tiles * TILE_CHUNKS * CHUNK_WEIGHTS, x.n_floats);
}

// Loads the input into the rows of x.
template <bool SLOTS>
__device__ __forceinline__ void load_row(const Product &p, const Input &x, const InputRow &row,
                                         const float4 w[VECTORS]) {
    int padded = padded_width(x), n_slots = SLOTS ? row.n_slots : 1;
    for (int base = 0; base < padded * n_slots; base += LOADED) {
        float4 v[VECTORS];
        row.load<SLOTS>(v, base, padded);
        put_row<SLOTS>(p, x, base, padded, n_slots, v, w);
    }
}
