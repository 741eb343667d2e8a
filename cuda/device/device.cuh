// device: small device functions that every kernel file uses.  All of them expect converged warps.
#pragma once
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

// The sum or the largest of 32 lanes, in every lane; the order of additions is fixed.
__device__ inline float warp_sum(float v) {
#pragma unroll
    for (int offset = 16; offset; offset >>= 1) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}

__device__ inline float warp_max(float v) {
#pragma unroll
    for (int offset = 16; offset; offset >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, offset));
    return v;
}

// The sum over a block of WARPS warps, in every thread.  It has one barrier; between two calls there must be
// another.
template <int WARPS> __device__ inline float block_sum(float v) {
    __shared__ __align__(16) float sums[WARPS];
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i += 4) {
        float4 x = *(const float4 *)(sums + i);
        v += x.x;
        v += x.y;
        v += x.z;
        v += x.w;
    }
    return v;
}

// Programmatic dependent launch.  pdl_launch lets the next kernel start early; pdl_wait returns when the
// kernel before has ended and its writes are visible.  Before pdl_wait a kernel reads weights only.  Every
// kernel of the tape calls both, pdl_wait first: so the end of the kernel before implies the end of all
// kernels before it, and a kernel that has started may read what any kernel but its predecessor wrote.  The
// exception is attention that writes new keys and values; its successor may not rely on this.
__device__ inline void pdl_launch() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ inline void pdl_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// dot += sum of the four products of signed bytes.
__device__ inline int dot4(uint32_t a, uint32_t b, int dot) {
    return __dp4a((int)a, (int)b, dot);
}

// A float without its lowest bit, in which a FlaggedOutput has its flag.  The inputs of all ops that may read
// a flagged output are read so, because a row's bytes may not depend on how it arrives.
__device__ inline float without_flag(float x) {
    return __uint_as_float(__float_as_uint(x) & ~1u);
}
__device__ inline float4 without_flag(float4 v) {
    return make_float4(without_flag(v.x), without_flag(v.y), without_flag(v.z), without_flag(v.w));
}
