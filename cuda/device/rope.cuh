// rope: how a pair of dimensions is rotated, and how a pair of a new K or V row is stored; the same bits
// wherever it is done.
#pragma once
#include "attn.cuh"

// Cosine and sine of position * frequency.  Positions go into the hundreds of thousands, so that the angle
// is computed and reduced to half a circle either way in f64, and only then rounded to f32: the error that
// is left is that of f32.
__device__ inline float2 rotation_of(int position, double frequency) {
    constexpr double CIRCLE = 6.283185307179586;
    double angle = position * frequency * (1 / CIRCLE);
    float2 rotation;
    sincospif((float)(2 * (angle - rint(angle))), &rotation.y, &rotation.x);
    return rotation;
}

__device__ inline float2 rotate(float2 x, float2 rotation) {
    return make_float2(__fmaf_rn(x.x, rotation.x, -__fmul_rn(x.y, rotation.y)),
                       __fmaf_rn(x.x, rotation.y, __fmul_rn(x.y, rotation.x)));
}

// Stores the elements `at` and `at` + 1 of the head's row that begins at `row`, its scales at `scales`, as
// kv_put does.  The elements that share a scale are those of an aligned group of 16 neighbouring lanes,
// which call this together.
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

// The same in the row that a position has in its page.
template <KvType KV> __device__ void put_pair(const KvRows &page, int width, int position, int at, float2 x) {
    int row = position % CACHE_PAGE;
    put_pair<KV>(page.cells + row * width * ELEMENT_BYTES<KV>, page.scales + row * (width / KV_SCALED), at,
                 x);
}
