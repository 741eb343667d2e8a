// attn: what the attention kernels share: the description of one launch, which positions a row sees, and
// conversions of elements.
#pragma once
#include "launch.cuh"
#include "mma.cuh"
#include <cuda_fp8.h>

constexpr float LOG2E = 1.4426950408889634f;

struct Attention {
    RegRows q, out; // [T] rows of n_head heads of k_dim, of v_dim
    RegRows k, v;   // [T] new rows of n_kv_head heads; no data: the cache has them, or they have no V
    HeadNorm q_norm, k_norm, v_norm;
    Rotation rotation;
    CacheView cache;
    const int32_t *seq, *position; // [T]
    const AttnPiece *piece;        // [n_pieces]
    int n_pieces;
    int T, n_head, n_kv_head, k_dim, v_dim;
    int n_ctx;          // positions of a page table
    int window, chunk;  // as in AttnParams
    float scale;        // of scores that are exponents of 2
    float softcap;      // of such scores, or 0,
    float softcap_rate; // 2 / AttnParams.softcap
    const float *sinks; // [n_head] scores in the units of AttnParams, or NULL
    float temperature;
    int temperature_first, temperature_length;
};

// The launch that an Attn describes.
Attention attention_of(const Attn *a);

// Whether the kernels have an instance for its heads.
bool heads_fit(const Attention &a);

constexpr int HEAD_DIM_MAX = 576, V_DIM_MAX = 512;

// A head of a row of a register.
__device__ inline float *head_of(const RegRows &rows, int row, int head, int head_dim) {
    return row_of(rows, row) + (size_t)head * head_dim;
}

// The first position that the row of a position sees.
__device__ inline int first_seen(const Attention &a, int position) {
    int first = a.window > 0 ? max(position + 1 - a.window, 0) : 0;
    return a.chunk > 0 ? max(first, position - position % a.chunk) : first;
}

// What the queries of a position are multiplied by.
__device__ inline float query_scale(const Attention &a, int position) {
    if (a.temperature == 0) return a.scale;
    int lengths = (position + a.temperature_first) / a.temperature_length;
    return a.scale * (1 + a.temperature * logf((float)(1 + lengths)));
}

// softcap * tanh(score / softcap), off by some 1e-7 of softcap.
__device__ inline float capped(const Attention &a, float score) {
    return a.softcap - a.softcap * __fdividef(2, exp2_fast(score * a.softcap_rate) + 1);
}

// What sums that are relative to the largest score `top` are multiplied by to be means: the inverse of the
// sum of weights, to which the head's sink is added.  0 where a row sees nothing.
__device__ inline float inverse_sum(const Attention &a, int head, float top, float sum) {
    if (!a.sinks) return sum == 0 ? 0 : 1 / sum;
    float sink = a.sinks[head] * LOG2E, best = fmaxf(top, sink), shrink = exp2_fast(top - best);
    return shrink / (sum * shrink + exp2_fast(sink - best));
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
