// rope: how a pair of dimensions turns, and how a pair of a key or a value is stored; the same bits wherever
// it is done.
#pragma once
#include "attn.cuh"

// Cosine and sine of position * frequency.  Positions go into the hundreds of thousands, so the angle is made
// and brought back to half a turn either way in f64, and only then handed to f32: what is left of error is
// that of f32.
__device__ inline float2 turn_of(int position, double frequency) {
    constexpr double TURN = 6.283185307179586;
    double angle = position * frequency * (1 / TURN);
    float2 turn;
    sincospif((float)(2 * (angle - rint(angle))), &turn.y, &turn.x);
    return turn;
}

__device__ inline float2 rotate(float2 x, float2 turn) {
    return make_float2(__fmaf_rn(x.x, turn.x, -__fmul_rn(x.y, turn.y)),
                       __fmaf_rn(x.x, turn.y, __fmul_rn(x.y, turn.x)));
}

// What kv_put does with the elements `at` and `at` + 1 of the head's row that begins at `row`, its scales at
// `scales`.  Aligned groups of 16 neighbouring lanes have what shares a scale, and come together.
template <KvType KV> __device__ void put_pair(uint8_t *row, uint16_t *scales, int at, float2 x) {
    if constexpr (KV == KV_F32) {
        *(float2 *)((float *)row + at) = x;
    } else if constexpr (KV == KV_F16) {
        *(__half2 *)((__half *)row + at) = __floats2half2_rn(x.x, x.y);
    } else if constexpr (KV == KV_FP8) {
        *(uchar2 *)(row + at) = make_uchar2(f32_to_e4m3(x.x), f32_to_e4m3(x.y));
    } else {
        int lane = (threadIdx.y * blockDim.x + threadIdx.x) % 32;
        uint32_t neighbours = 0xFFFFu << lane / 16 * 16;
        uint32_t amax = max(f32_to_bits(x.x) & 0x7FFFFFFF, f32_to_bits(x.y) & 0x7FFFFFFF);
#pragma unroll
        for (int offset = 8; offset; offset >>= 1)
            amax = max(amax, __shfl_xor_sync(neighbours, amax, offset));
        uint16_t scale = kv_scale(amax);
        float inverse = kv_inverse(scale);
        *(char2 *)(row + at) = make_char2(kv_quantize(x.x, inverse), kv_quantize(x.y, inverse));
        if (lane % 16 == 0) scales[at / KV_SCALED] = scale;
    }
}

// The same, at a position of a history in the cache.
template <KvType KV>
__device__ void store_pair(uint8_t *history, int n_ctx, int head_dim, int position, int at, float2 x) {
    uint8_t *row = history + (size_t)position * head_dim * ELEMENT_BYTES<KV>;
    uint16_t *scales = (uint16_t *)(history + (size_t)n_ctx * head_dim);
    put_pair<KV>(row, scales + (size_t)position * (head_dim / KV_SCALED), at, x);
}
