// four: four floats of a row at once.  A row may begin at any column of a register: where its address allows
// that, the four are one access.
#pragma once
#include <cstdint>
#include <cuda_runtime.h>

// Elements element..element + 3 of a row of n, zeros behind its end; read through L2, as another kernel wrote
// them.
__device__ inline float4 load4(const float *in, int element, int n) {
    if (element + 3 < n && (uintptr_t)in % 16 == 0) return __ldcg((const float4 *)(in + element));
    float4 v = make_float4(0, 0, 0, 0);
    for (int k = 0; k < 4; k++)
        if (element + k < n) (&v.x)[k] = __ldcg(in + element + k);
    return v;
}

// The same elements are written; none behind the row's end.
__device__ inline void store4(float *out, int element, int n, float4 v) {
    if (element + 3 < n && (uintptr_t)out % 16 == 0) {
        *(float4 *)(out + element) = v;
        return;
    }
    for (int k = 0; k < 4; k++)
        if (element + k < n) out[element + k] = (&v.x)[k];
}
