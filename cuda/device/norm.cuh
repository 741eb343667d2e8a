// norm: the RMS norm's scale of a row, the same bits wherever it is computed.
//
// A block of WARPS warps holds the row in registers: thread i has elements 8i..8i+7 of every 8 * threads as
// two float4s, zeros behind the row's end.  Each thread adds its squares in that order; then the block adds
// up.
#pragma once
#include "device.cuh"

// The element with which a thread's float4 number i begins.
template <int WARPS> __device__ inline int element_of(int i) {
    return (i / 2 * WARPS * 32 + (int)threadIdx.x) * 8 + i % 2 * 4;
}

// Elements element..element + 3 of a row of n_in, zeros behind its end; read through L2, as another kernel
// wrote them.
__device__ inline float4 load4(const float *in, int element, int n_in) {
    if (element + 3 < n_in && (uintptr_t)in % 16 == 0) return __ldcg((const float4 *)(in + element));
    float4 v = make_float4(0, 0, 0, 0);
    for (int k = 0; k < 4; k++)
        if (element + k < n_in) (&v.x)[k] = __ldcg(in + element + k);
    return v;
}

// 1 / sqrt(mean(x^2) + eps), in every thread.
template <int WARPS, int VECTORS>
__device__ inline float block_rms_scale(const float4 v[VECTORS], int n_in, float eps) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < VECTORS; i++)
        sum = fmaf(v[i].x, v[i].x, fmaf(v[i].y, v[i].y, fmaf(v[i].z, v[i].z, fmaf(v[i].w, v[i].w, sum))));
    return rsqrtf(block_sum<WARPS>(sum) / n_in + eps);
}
