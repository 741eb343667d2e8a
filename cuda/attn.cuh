// attn: what the two attention kernels share: the description of one launch, and a few bits of arithmetic.
#pragma once
#include "launch.cuh"
#include "mma.cuh"

struct Attention {
    const float *q;                // [T] rows of n_head * head_dim
    const uint8_t *k, *v;          // the layer's cache, as DeviceKv says
    const int32_t *seq, *position; // [T]
    float *out;                    // [T] rows of n_head * head_dim
    float scale;                   // of scores that are exponents of 2
    int T, n_head, n_kv_head, head_dim, n_ctx;
};

// Where a head of a row of q or out begins, in elements.
__device__ inline size_t head_offset(const Attention &a, int row, int head) {
    return (size_t)row * row_stride(a.n_head * a.head_dim) + (size_t)head * a.head_dim;
}

// Prompt rows of one sequence, positions ascending by one.
cudaError_t launch_attn_prompt(const Launch *l, const Attention &a, KvType type);

template <KvType KV> constexpr int ELEMENT_BYTES = KV == KV_F16 ? 2 : 4;

// Shared memory keeps rows at an odd multiple of 16 bytes.
constexpr int padded_row_bytes(int bytes) {
    return (bytes / 16 | 1) * 16;
}

// Where the history of a head begins, in elements.
__device__ inline size_t history_offset(const Attention &a, int seq, int kv_head) {
    return ((size_t)seq * a.n_kv_head + kv_head) * a.n_ctx * a.head_dim;
}

__device__ inline uint32_t pack_half(float x, float y) {
    __half2 h = __floats2half2_rn(x, y);
    return *(uint32_t *)&h;
}
