// activation: the functions between the two products of a feed-forward block, defined once for all kernels.
// Each keeps a NaN, so that damage shows in all that follows.
#pragma once
#include <cuda_runtime.h>

extern "C" {
#include "../../src/plan/op.h"
}

// x / (1 + exp(-z)), by the fast exponential and division of the hardware, with a relative error of a few
// 1e-7.
__device__ __forceinline__ float times_sigmoid(float x, float z) {
    return __fdividef(x, 1.0f + __expf(-z));
}

__device__ __forceinline__ float at_most(float x, float limit) {
    return x > limit ? limit : x;
}

__device__ __forceinline__ float clipped(float x, float limit) {
    return x < -limit ? -limit : at_most(x, limit);
}

// act(x), for the activations of one value without numbers.  gelu by tanh, x/2 (1 + tanh(u)), is
// times_sigmoid(x, 2u).
__device__ __forceinline__ float activate(Activation act, float x) {
    if (act == ACT_NONE) return x;
    if (act == ACT_RELU2) return x < 0 ? 0 : x * x;
    float z = act == ACT_GELU ? 1.5957691f * (x + 0.044715f * x * x * x) : x;
    return times_sigmoid(act == ACT_SIGMOID ? 1 : x, z);
}

// act(gate) * up, or what the activation has in place of that; without numbers.
__device__ __forceinline__ float gated(Activation act, float gate, float up) {
    if (act != ACT_SWIGLU_OAI) return activate(act, gate) * up;
    float g = at_most(gate, 7);
    return times_sigmoid(g, 1.702f * g) * (clipped(up, 7) + 1);
}

// The same of all activations.
__device__ __forceinline__ float activate(const GluParams &p, float x) {
    if (p.act != ACT_XIELU) return activate(p.act, x);
    return (x > 0 ? p.alpha_p * x * x : p.alpha_n * (expm1f(at_most(x, p.eps)) - x)) + p.beta * x;
}
__device__ __forceinline__ float gated(const GluParams &p, float gate, float up) {
    if (p.act == ACT_CLAMPED) return at_most(activate(ACT_SILU, gate), p.limit) * clipped(up, p.limit);
    return p.act == ACT_XIELU ? activate(p, gate) * up : gated(p.act, gate, up);
}
