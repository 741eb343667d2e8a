// epilogue: from the sums of a product to its outputs, defined once for the kernels that multiply.
#pragma once
#include "activation.cuh"
#include "launch.cuh"

__device__ __forceinline__ float scale_and_bias(const ProductSegment &s, size_t row, float y) {
    if (s.w.scale) y *= s.w.scale[row];
    return s.bias ? y + s.bias[row] : y;
}

// An output, from the sum of its row of weights (of a pair, both sums) and the residual.
__device__ __forceinline__ float epilogue(const Product &p, const ProductSegment &s, size_t row, float sum,
                                          float up, float residual) {
    float y = scale_and_bias(s, row, sum);
    if (is_pair(p)) y = gated(p.act, y, scale_and_bias(p.segment[1], row, up));
    y = fmaf(p.scale, y, residual);
    return p.softcap ? p.softcap * tanhf(y / p.softcap) : y;
}
