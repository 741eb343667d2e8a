/* act: the scalar reference of the 8-bit activations; act.h has the definition that all executors share. */
#include "act.h"
#include "../base/float.h"

#include <assert.h>
#include <math.h>

static size_t align64(size_t n) {
    return (n + 63) & ~(size_t)63;
}

static size_t d_offset(int n) {
    return align64((size_t)n);
}

static size_t sum_offset(int n) {
    return d_offset(n) + align64((size_t)n / ACT8_GROUP * sizeof(float));
}

size_t act8_bytes(int n) {
    assert(n >= 0 && n % ACT8_GROUP == 0);
    return sum_offset(n) + align64((size_t)n / ACT8_SUM * sizeof(int16_t));
}

Act8 act8_view(void *row, int n) {
    assert((uintptr_t)row % 64 == 0 && n % ACT8_GROUP == 0);
    char *p = row;
    return (Act8){(int8_t *)p, (float *)(p + d_offset(n)), (int16_t *)(p + sum_offset(n))};
}

/* One group: its scale is returned, its 32 numbers go to q. */
static float quantize_group(const float *x, int8_t *q) {
    uint32_t bits = 0;
    for (int i = 0; i < ACT8_GROUP; i++) {
        uint32_t magnitude = f32_to_bits(x[i]) & 0x7FFFFFFF;
        if (magnitude > bits) bits = magnitude;
    }
    float amax = f32_from_bits(bits);
    bool fits = isfinite(amax) && amax >= ACT8_TINY;
    float inverse = fits ? 127 / amax : 0;
    // lrintf rounds half to even in the default rounding mode, which nothing here ever changes
    for (int i = 0; i < ACT8_GROUP; i++) q[i] = fits ? (int8_t)lrintf(x[i] * inverse) : 0;
    return fits ? amax / 127 : isfinite(amax) ? 0 : NAN;
}

void act8_quantize(const float *x, int n, Act8 out) {
    assert(n % ACT8_GROUP == 0);
    for (int i = 0; i < n; i += ACT8_GROUP) out.d[i / ACT8_GROUP] = quantize_group(x + i, out.q + i);
    for (int i = 0; i < n; i += ACT8_SUM) {
        int sum = 0;
        for (int j = 0; j < ACT8_SUM; j++) sum += out.q[i + j];
        out.sum[i / ACT8_SUM] = (int16_t)sum;
    }
}

float act8_dot(const QuantTraits *t, const void *row, int n, Act8 x) {
    assert(t->act == QUANT_ACT_Q8 && n % ACT8_GROUP == 0 && n % t->n_weights == 0);
    const uint8_t *block = row;
    int8_t q[QUANT_MAX_WEIGHTS];
    float scale[QUANT_MAX_GROUPS], min[QUANT_MAX_GROUPS], acc = 0;
    for (int start = 0; start < n; start += t->n_weights, block += t->n_bytes) {
        t->unpack(block, q, scale, min);
        for (int g = 0; g < t->n_weights / t->group; g++) {
            const int8_t *qw = q + g * t->group;
            int i = start + g * t->group, isum = 0;
            for (int j = 0; j < t->group; j++) isum += qw[j] * x.q[i + j];
            float d = x.d[i / ACT8_GROUP];
            acc = fmaf((float)isum, scale[g] * d, acc);
            if (!t->has_min) continue;
            int sum = x.sum[i / ACT8_SUM] + (t->group > ACT8_SUM ? x.sum[i / ACT8_SUM + 1] : 0);
            acc = fmaf((float)sum, -min[g] * d, acc);
        }
    }
    return acc;
}
