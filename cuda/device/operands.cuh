// operands: from the tiles of a weight matrix (layout.h) to f16 operands of the tensor cores, in registers.
//
// Lane 4g + i has weights 4i..4i + 3 and 16 + 4i.. of each chunk of rows g and 8 + g.  They are not the columns
// that the instruction gives to its lanes, but the order of columns within a sum is free: the input rows are
// written in the order of the weights.  Of each 16 columns, columns 4i and 4i + 2 are numbers 2i and 2i + 1 of
// k, columns 4i + 1 and 4i + 3 numbers 8 + 2i and 9 + 2i.
//
// The one trick: an unsigned number in the low bits of an f16 is a subnormal, number * 2^-24, so that one fused
// multiply-add with its scale * 2^24 makes a weight, rounded once.  For that no scale may be beyond 2^-9:
// weights, and with them the f32 sums, are multiplied by a power of two that each matrix has (weight_factor).
#pragma once
#include "half.cuh"
#include "quant.cuh"
#include "../launch.h"

template <QuantType F> constexpr int CHUNKS_OF_TILE = 8;
template <> constexpr int CHUNKS_OF_TILE<QUANT_F32> = TILE_FLOATS<QUANT_F32> / CHUNK_WEIGHTS;
template <> constexpr int CHUNKS_OF_TILE<QUANT_F16> = TILE_FLOATS<QUANT_F16> / CHUNK_WEIGHTS;
template <> constexpr int CHUNKS_OF_TILE<QUANT_BF16> = TILE_FLOATS<QUANT_BF16> / CHUNK_WEIGHTS;

// What a block's scales and minima add to the bound in a matrix's head.
__device__ __forceinline__ float scale_bound(float scale, float min) {
    float bound = fmaxf(fabsf(scale) * 0x1p9f, fabsf(min) * 0x1p-15f);
    return isfinite(bound) ? bound : 0;
}

// The factor of a matrix's operands: the largest power of two that makes its bound at most 1.
template <QuantType F> __device__ __forceinline__ float weight_factor(const DeviceWeight &w) {
    if (Format<F>::FLOAT) return 1;
    float bound = __uint_as_float(__ldg((const uint32_t *)(w.data - WEIGHT_HEAD_BYTES)));
    int exponent = bound > 0 ? (int)(__float_as_uint(bound) >> 23) - 126 : 0; // bound < 2^exponent
    return __uint_as_float((uint32_t)(127 - min(max(exponent, -40), 40)) << 23);
}

// The operands of one tile, chunk by chunk: a[0] for the first 16 columns, a[1] for the second.
template <QuantType F, bool FLOAT = Format<F>::FLOAT> class Operands;

template <QuantType F> class Operands<F, true> {
    const uint8_t *tile;

  public:
    __device__ __forceinline__ void begin(const uint8_t *tile_, int, float) { tile = tile_; }
    __device__ __forceinline__ void load(int, int) {}
    __device__ __forceinline__ void chunk(int lane, int chunk, int, uint32_t a[2][4]) const {
        using Element = typename Format<F>::Element;
        constexpr int N = VECTOR_FLOATS<F>;
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int column = chunk * CHUNK_WEIGHTS + 16 * half + lane % 4 * 4, vector = column / N;
                const uint8_t *from = tile + ((4 * h + vector / 4) * 32 + lane / 4 * 4 + vector % 4) * 16 +
                                      column % N * (int)sizeof(Element);
                uint32_t one = two<Element>(from), next = two<Element>(from + 2 * sizeof(Element));
                a[half][h] = __byte_perm(one, next, 0x5410);
                a[half][2 + h] = __byte_perm(one, next, 0x7632);
            }
    }

  private:
    template <class Element> static __device__ __forceinline__ uint32_t two(const uint8_t *from) {
        if constexpr (F == QUANT_F16) {
            return *(const uint32_t *)from;
        } else if constexpr (F == QUANT_F32) {
            float2 v = *(const float2 *)from;
            return limited_pair(v.x, v.y, 65504);
        } else if constexpr (F == QUANT_BF16) {
            uint32_t word = *(const uint32_t *)from;
            return limited_pair(__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000), 65504);
        } else {
            static_assert(F == QUANT_FP8_E4M3, "a float type of its own");
            __half2_raw v = __nv_cvt_fp8x2_to_halfraw2(*(const __nv_fp8x2_storage_t *)from, __NV_E4M3);
            return (uint32_t)v.x | (uint32_t)v.y << 16;
        }
    }
};

template <QuantType F> class Operands<F, false> {
    static constexpr int HALVES = Format<F>::GROUP == 16 ? 2 : 1; // of a chunk, with scales of their own
    const uint8_t *tile;
    uint32_t scale[2][HALVES], less[2][HALVES]; // of chunks 2i + j and rows g, 8 + g; less: to be added
    uint32_t first[2][4], second[2][4];         // [h][chunk]: of four chunks, the numbers

  public:
    __device__ __forceinline__ void begin(const uint8_t *tile_, int lane, float factor) {
        float s[2][2][2], m[2][2][2] = {};
        tile = tile_;
        tile_scales<F>(tile, lane, s, m);
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int k = 0; k < HALVES; k++) {
                float units = factor * 0x1p24f;
                scale[j][k] = pair(s[0][j][k] * units, s[1][j][k] * units);
                if constexpr (Format<F>::HAS_MIN)
                    less[j][k] = pair(-m[0][j][k] * factor, -m[1][j][k] * factor);
            }
    }
    // Chunks 4k..4k + 3 come next.
    __device__ __forceinline__ void load(int lane, int k) {
#pragma unroll
        for (int h = 0; h < 2; h++) tile_words<F>(tile, lane, h, k, first[h], second[h]);
    }
    // Chunk 4k + c; c is known at compile time.
    __device__ __forceinline__ void chunk(int lane, int chunk, int c, uint32_t a[2][4]) const {
        int owner = lane / 4 * 4 + chunk / 2; // the lane with this chunk's scales
        uint32_t s[HALVES], l[HALVES];
#pragma unroll
        for (int k = 0; k < HALVES; k++) {
            s[k] = __shfl_sync(0xffffffffu, scale[c % 2][k], owner);
            if constexpr (Format<F>::HAS_MIN) {
                static_assert(!Format<F>::SIGNED && Format<F>::zero_of(0) == 0);
                l[k] = __shfl_sync(0xffffffffu, less[c % 2][k], owner);
            } else { // a power of two times the scale: exact
                float zero = Format<F>::SIGNED ? 128 : Format<F>::zero_of(c);
                l[k] = as_word(__hmul2(as_halves(s[k]), __float2half2_rn(-zero * 0x1p-24f)));
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                uint32_t word = half ? second[h][c] : first[h][c];
                __half2 its_scale = twice(s[half % HALVES], h), its_less = twice(l[half % HALVES], h);
                if constexpr (Format<F>::SIGNED) word ^= 0x80808080;
                // Of four bits the masks of tile_words and these are one.
                constexpr bool MASKED = Format<F>::BITS == 4 && !Format<F>::SIGNED;
                uint32_t even = MASKED ? word & 0x00ff00ff : __byte_perm(word, 0, 0x4240),
                         odd = MASKED ? word >> 8 & 0x00ff00ff : __byte_perm(word, 0, 0x4341);
                a[half][h] = as_word(__hfma2(as_halves(even), its_scale, its_less));
                a[half][2 + h] = as_word(__hfma2(as_halves(odd), its_scale, its_less));
            }
    }

  private:
    static __device__ __forceinline__ __half2 as_halves(uint32_t word) {
        return *(__half2 *)&word;
    }
    static __device__ __forceinline__ __half2 twice(uint32_t word, int h) { // of two halves, the one of h
        return h ? __high2half2(as_halves(word)) : __low2half2(as_halves(word));
    }
    static __device__ __forceinline__ uint32_t as_word(__half2 halves) {
        return *(uint32_t *)&halves;
    }
    static __device__ __forceinline__ uint32_t pair(float a, float b) {
        return as_word(__floats2half2_rn(a, b));
    }
};
