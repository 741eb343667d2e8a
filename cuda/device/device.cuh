// device: small device functions that every kernel file uses.  A warp is 32 lanes and always converged here.
#pragma once
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

__device__ inline float warp_sum(float v) { // every lane gets the sum; the order is fixed
#pragma unroll
    for (int offset = 16; offset; offset >>= 1) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}

__device__ inline float warp_max(float v) {
#pragma unroll
    for (int offset = 16; offset; offset >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, offset));
    return v;
}

// Sum over a block of WARPS warps; every thread gets it.  Holds one barrier; between two calls there must be
// another.
template <int WARPS> __device__ inline float block_sum(float v) {
    __shared__ __align__(16) float part[WARPS];
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i += 4) {
        float4 x = *(const float4 *)(part + i);
        v += x.x, v += x.y, v += x.z, v += x.w;
    }
    return v;
}

// Programmatic dependent launch.  A kernel lets its successor start early with pdl_launch, and touches nothing
// that its predecessor writes before pdl_wait; weights may be fetched earlier.  Every kernel of the tape calls
// both, so that waiting for the one before is waiting for all before; and it calls pdl_wait first, so that
// what the predecessor's own predecessors wrote is there from the start.  The exception is attention with
// fresh keys and values, whose successor must know this.
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
