// half: floats as f16, for the tensor cores.
#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <cstdint>

// An activation, saturated.  An Inf becomes a NaN, which reaches the logits, where SAMPLE finds it.
__device__ inline __half saturated(float v) {
    return __float2half_rn(isfinite(v) ? fminf(fmaxf(v, -65504.0f), 65504.0f) : nanf(""));
}

__device__ inline uint32_t saturated_pair(float a, float b) {
    __half2 v = __halves2half2(saturated(a), saturated(b));
    return *(uint32_t *)&v;
}

// Two weights, or factors of weights, limited to +-limit; NaN stays NaN.
__device__ inline uint32_t limited_pair(float a, float b, float limit) {
    const __half2 most = __float2half2_rn(limit), least = __float2half2_rn(-limit);
    __half2 v = __hmin2_nan(__hmax2_nan(__floats2half2_rn(a, b), least), most);
    return *(uint32_t *)&v;
}
