// input: rows of activations in shared memory, in the forms that tiles of weights meet.
//
// A row is normalised first where the op says so, and then kept as floats, or as exec/act.h's 8-bit numbers
// with their scales, or as both, for weights of both kinds.  The 8-bit form lies as a tile needs it: what 32
// lanes multiply one tile of 16 rows with is one stretch of 384 bytes.
#pragma once
#include "../layout.h"
#include "launch.cuh"
#include "norm.cuh"
#include "ring.cuh"
extern "C" {
#include "../../src/exec/act.h"
}

constexpr int WARPS = 16, THREADS = WARPS * 32;
constexpr int VECTORS = 4,
              LOADED = THREADS * VECTORS * 4; // of an input row: float4s a thread, elements at once

// What a tile of blocks meets, of an input row.
struct TileInput {
    uint2 words[32];            // what lane 4c + i multiplies chunk c with, weights 4i.. and 16+4i..
    float2 scales[TILE_CHUNKS]; // d, and d times the sum of the chunk's 32
    float2 halves[TILE_CHUNKS]; // d times the sums of the first 16 and of the others
};

// The input rows in the forms wanted, filled up with zeros: of each row floats, then TileInputs.
struct Input {
    int at, stride;        // in shared memory; bytes from row to row
    int n_floats, n_tiles; // of a row; 0 where not wanted

    __device__ float *floats(int t) const { return (float *)(shared_memory() + at + t * stride); }
    __device__ TileInput *tiles(int t) const { return (TileInput *)(floats(t) + n_floats); }
};

// n_floats and n_tiles: what a row has of either.
__host__ __device__ inline Input input_at(int at, int n_floats, int n_tiles) {
    Input x = {at, 0, n_floats, n_tiles};
    int tiles = x.n_tiles * (int)sizeof(TileInput);
    x.stride = x.n_floats * (int)sizeof(float) + tiles + (tiles ? 32 : 0); // for banks: see row_of_column
    return x;
}

// amax / 127, as IEEE 754 rounds it (all of the range that is used was tried).
__device__ __forceinline__ float over_127(float amax) {
    constexpr float inverse = 1.0f / 127.0f;
    float quotient = __fmul_rn(amax, inverse);
    return __fmaf_rn(__fmaf_rn(-127.0f, quotient, amax), inverse, quotient);
}

// A float whose lowest byte is x rounded to an integer, ties to even, for |x| <= 127: beside a number of this
// size no fractions are left.  Converting takes four times as long.
__device__ __forceinline__ uint32_t rounded(float x) {
    return __float_as_uint(__fadd_rn(x, 12582912.0f)); // 1.5 * 2^23
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
        uint32_t q[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            q[j] = rounded(__fmul_rn(y[k + j], inverse)); // of a NaN: any, as d is one
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
        for (int i = 0; i < VECTORS; i++) v[i] = make_float4(0, 0, 0, 0);
        if (linked) {
#pragma unroll
            for (int i = 0; i < VECTORS; i++)
                if (base + element_of<WARPS>(i) < n) v[i] = look(in + base + element_of<WARPS>(i));
#pragma unroll
            for (int i = 0; i < VECTORS; i++)
                while (base + element_of<WARPS>(i) < n && stale(v[i]))
                    v[i] = look(in + base + element_of<WARPS>(i));
        } else {
#pragma unroll
            for (int i = 0; i < VECTORS; i++)
                if (base + i / 2 * THREADS * 8 < n) // the same for the whole block
                    v[i] = load4(in, base + element_of<WARPS>(i), n);
        }
#pragma unroll
        for (int i = 0; i < VECTORS; i++)
            v[i] = make_float4(clear(v[i].x), clear(v[i].y), clear(v[i].z), clear(v[i].w));
    }

  private:
    static __device__ float clear(float x) {
        return __uint_as_float(__float_as_uint(x) & ~1u);
    }
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
__device__ __forceinline__ void load_row(const Product &p, const Input &x, int t, const Row &row,
                                         const float4 w[VECTORS]) {
    int n = max(x.n_tiles * TILE_CHUNKS * CHUNK_WEIGHTS, x.n_floats);
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
            if (element < x.n_floats) {
                float4 *to = (float4 *)(x.floats(t) + element);
                to[0] = v[i], to[1] = v[i + 1];
            }
            if (x.n_tiles) quantize_group(x, t, element, v + i);
        }
    }
}

// This thread's share of the norm's weights, zeros where there is no norm.
__device__ __forceinline__ void load_norm(const Product &p, float4 w[VECTORS]) {
    int n_in = p.segment[0].w.n_in;
#pragma unroll
    for (int i = 0; i < VECTORS; i++)
        w[i] = p.norm && i / 2 * THREADS * 8 < n_in ? load4(p.norm, element_of<WARPS>(i), n_in)
                                                    : make_float4(0, 0, 0, 0);
}
