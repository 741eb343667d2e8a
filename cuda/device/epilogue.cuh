// epilogue: from the sums of a product to its outputs, defined once for the kernels that multiply.
#pragma once
#include "activation.cuh"
#include "device.cuh"
#include "launch.cuh"

__device__ __forceinline__ float scale_and_bias(const ProductSegment &s, size_t row, float y) {
    if (s.w.scale) y *= s.w.scale[row];
    return s.bias ? y + s.bias[row] : y;
}

__device__ __forceinline__ float gate_of(const Gate &g, float x) {
    return g.sigmoid ? times_sigmoid(1, x) : x;
}

// The factor that the gate of output i of row t is; 1 where there is none.
__device__ __forceinline__ float gate_factor(const Gate &g, int t, int i) {
    return g.rows.data ? gate_of(g, without_flag(__ldcg(row_of(g.rows, t) + (g.wide ? i : 0)))) : 1;
}

// An output, from its scaled and biased sum (of a pair, both sums; otherwise `up` is 1), the factor and the
// residual.
__device__ __forceinline__ float output_of(const Product &p, float y, float up, float factor,
                                           float residual) {
    // One call, of one value times 1: two of them make a table of jumps, which is slow to fetch.
    Activation act = is_pair(p) ? p.act : p.act_alone;
    if (act != ACT_NONE) y = gated(act, y, up);
    y = fmaf(p.scale * factor, y, residual);
    return p.softcap ? p.softcap * tanhf(y / p.softcap) : y;
}

// The same from the sums of its rows of weights.
__device__ __forceinline__ float epilogue(const Product &p, const ProductSegment &s, size_t row, float sum,
                                          float up, float factor, float residual) {
    return output_of(p, scale_and_bias(s, row, sum), is_pair(p) ? scale_and_bias(p.segment[1], row, up) : 1,
                     factor, residual);
}

// What scale_and_bias does to a row's sums, for kernels that have many of them.
struct OutputRow {
    float scale = 1, bias = 0;

    __device__ OutputRow(const ProductSegment &s, size_t row) {
        if (row >= (size_t)s.w.n_out) return;
        if (s.w.scale) scale = s.w.scale[row];
        if (s.bias) bias = s.bias[row];
    }
    __device__ float of(float sum) const { return fmaf(sum, scale, bias); }
};
