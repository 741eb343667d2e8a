// attn: what the two attention kernels share: the description of one launch, and a few bits of arithmetic.
#pragma once
#include "launch.cuh"
#include "mma.cuh"
#include <cuda_fp8.h>

struct Attention {
    const float *q;                            // [T] rows of n_head * head_dim
    const uint8_t *k, *v;                      // the layer's cache, as DeviceKv says
    const int32_t *seq, *position;             // [T]
    float *out;                                // [T] rows of n_head * head_dim
    float scale;                               // of scores that are exponents of 2
    int T, n_head, n_kv_head, head_dim, n_ctx; // n_ctx: positions of a history
};

// Where a head of a row of q or out begins, in elements.
__device__ inline size_t head_offset(const Attention &a, int row, int head) {
    return (size_t)row * row_stride(a.n_head * a.head_dim) + (size_t)head * a.head_dim;
}

// Prompt rows of one sequence, positions ascending by one.
cudaError_t launch_attn_prompt(const Launch *l, const Attention &a, KvType type);

template <KvType KV> constexpr bool BYTES = KV == KV_Q8_0 || KV == KV_FP8; // elements of 8 bits
template <KvType KV> constexpr int ELEMENT_BYTES = KV == KV_F32 ? 4 : KV == KV_F16 ? 2 : 1;

// Shared memory keeps rows at an odd multiple of 16 bytes.
constexpr int padded_row_bytes(int bytes) {
    return (bytes / 16 | 1) * 16;
}

// Where the history of a head begins, and where in it the scales of q8_0 do, in bytes.
template <KvType KV> __device__ size_t history_offset(const Attention &a, int seq, int kv_head) {
    size_t positions = ((size_t)seq * a.n_kv_head + kv_head) * a.n_ctx;
    int row =
        a.head_dim * ELEMENT_BYTES<KV> + (KV == KV_Q8_0 ? a.head_dim / KV_SCALED * (int)sizeof(__half) : 0);
    return positions * row;
}
__device__ inline size_t scales_offset(const Attention &a) {
    return (size_t)a.n_ctx * a.head_dim;
}

__device__ inline uint32_t pack_half(float x, float y) {
    __half2 h = __floats2half2_rn(x, y);
    return *(uint32_t *)&h;
}

// Four elements of 8 bits as f16, without their scale: exactly, the first two and the last two.
template <KvType KV> __device__ void widen(uint32_t four, uint32_t &low, uint32_t &high) {
    if constexpr (KV == KV_FP8) {
        __half2_raw a = __nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t)(four & 0xFFFF), __NV_E4M3),
                    b = __nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t)(four >> 16), __NV_E4M3);
        low = a.x | (uint32_t)a.y << 16, high = b.x | (uint32_t)b.y << 16;
    } else { // bytes 0..255 under the exponent of 1024 are 1024..1279 in f16
        const uint32_t thousand = 0x64646464, zero = 0x64806480; // 1024 + 128
        four ^= 0x80808080;
        uint32_t a = __byte_perm(four, thousand, 0x4140), b = __byte_perm(four, thousand, 0x4342);
        __half2 x = __hsub2(*(__half2 *)&a, *(const __half2 *)&zero),
                y = __hsub2(*(__half2 *)&b, *(const __half2 *)&zero);
        low = *(uint32_t *)&x, high = *(uint32_t *)&y;
    }
}
