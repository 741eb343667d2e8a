// attn: what the two attention kernels share: the description of one launch, and conversions of elements.
#pragma once
#include "launch.cuh"
#include "mma.cuh"
#include <cuda_fp8.h>

struct Attention {
    RegRows q, out; // [T] rows of n_head * head_dim
    CacheView cache;
    const int32_t *seq, *position; // [T]
    float scale;                   // of scores that are exponents of 2
    int T, n_head, n_kv_head, head_dim;
    int n_ctx; // positions of a page table
};

// The launch that an Attn describes.  false: the kernels have no instance for such heads.
bool attention_of(const Attn *a, Attention *out);

// Whether K and V lie alike, each with rows of its own.
inline bool has_one_width(const CacheLayer *l) {
    return !cache_v_in_k(l) && l->width[CACHE_K] == l->width[CACHE_V] &&
           l->pitch[CACHE_K] == l->width[CACHE_K];
}

// A head of a row of q or out.
__device__ inline float *head_of(const RegRows &rows, int row, int head, int head_dim) {
    return row_of(rows, row) + (size_t)head * head_dim;
}

template <KvType KV> constexpr bool BYTES = KV == KV_Q8_0 || KV == KV_FP8; // elements of 8 bits
template <KvType KV> constexpr int ELEMENT_BYTES = KV == KV_F32 ? 4 : KV == KV_F16 ? 2 : 1;

// Shared memory keeps rows at an odd multiple of 16 bytes.
constexpr int padded_row_bytes(int bytes) {
    return (bytes / 16 | 1) * 16;
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
        low = a.x | (uint32_t)a.y << 16;
        high = b.x | (uint32_t)b.y << 16;
    } else { // bytes 0..255 under the exponent of 1024 are 1024..1279 in f16
        const uint32_t thousand = 0x64646464, zero = 0x64806480; // 1024 + 128
        four ^= 0x80808080;
        uint32_t a = __byte_perm(four, thousand, 0x4140), b = __byte_perm(four, thousand, 0x4342);
        __half2 x = __hsub2(*(__half2 *)&a, *(const __half2 *)&zero),
                y = __hsub2(*(__half2 *)&b, *(const __half2 *)&zero);
        low = *(uint32_t *)&x;
        high = *(uint32_t *)&y;
    }
}
