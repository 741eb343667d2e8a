// activation: the functions between the two products of a feed-forward block, defined once for all kernels.
#pragma once
#include <cuda_runtime.h>

extern "C" {
#include "../../src/plan/op.h"
}

// x / (1 + exp(-z)): silu with z = x; gelu by tanh, x/2 (1 + tanh(u)), is the same with z = 2u.  By the fast
// exponential and division of the hardware, with a relative error of a few 1e-7.
__device__ __forceinline__ float activate(Activation act, float x) {
    float z = act == ACT_GELU ? 1.5957691f * (x + 0.044715f * x * x * x) : x;
    return __fdividef(x, 1.0f + __expf(-z));
}
