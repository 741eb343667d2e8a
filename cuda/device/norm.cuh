// norm: the RMS norm, x / sqrt(mean(x^2) + eps) * weight, with the same bits in every kernel that computes
// it.
//
// A block of WARPS warps reads a row as float4s, zeros behind the row's end: thread i has elements 8i..8i+7
// of every 8 * threads.  The order of all additions follows from this: a thread adds its squares from its
// last element of each float4 to its first, float4 after float4; then the block adds up its threads.
#pragma once
#include "device.cuh"
#include "four.cuh"

// The element with which a thread's float4 number i begins.
template <int WARPS> __device__ inline int element_of(int i) {
    return (i / 2 * WARPS * 32 + (int)threadIdx.x) * 8 + i % 2 * 4;
}

// sum + the squares of the N float4s of a thread.
template <int N> __device__ inline float add_squares(float sum, const float4 v[N]) {
#pragma unroll
    for (int i = 0; i < N; i++)
        sum = fmaf(v[i].x, v[i].x, fmaf(v[i].y, v[i].y, fmaf(v[i].z, v[i].z, fmaf(v[i].w, v[i].w, sum))));
    return sum;
}

// 1 / sqrt(mean(x^2) + eps) in every thread, from each thread's sum of its squares of a row of n elements.
template <int WARPS> __device__ inline float rms_scale(float sum, int n, float eps) {
    return rsqrtf(block_sum<WARPS>(sum) / n + eps);
}

// The same of a row in device memory.
template <int WARPS> __device__ inline float row_rms_scale(const float *row, int n, float eps) {
    constexpr int N = 8; // float4s under way at once
    float sum = 0;
    for (int base = 0; base < n; base += N * WARPS * 32 * 4) {
        float4 v[N];
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = without_flag(load4(row, base + element_of<WARPS>(i), n));
        sum = add_squares<N>(sum, v);
    }
    return rms_scale<WARPS>(sum, n, eps);
}

__device__ inline float normalised(float x, float scale, float weight) {
    return x * scale * weight;
}
