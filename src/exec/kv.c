/* kv: the scalar reference of the cache's types; kv.h has the definition that all executors share. */
#include "kv.h"

#include <assert.h>
#include <string.h>

static const struct {
    const char *name;
    int bytes, multiple; // of an element without scale; see kv_type_multiple
} TYPES[KV_N_TYPES] = {
    [KV_F16] = {"f16", 2, 1},
    [KV_F32] = {"f32", 4, 1},
    [KV_Q8_0] = {"q8_0", 1, KV_SCALED},
    [KV_FP8] = {"fp8", 1, 16}, // a GPU copies 16 bytes at a time
};

const char *kv_type_name(KvType type) {
    return TYPES[type].name;
}

bool kv_type_find(const char *name, KvType *out) {
    for (int i = 0; i < KV_N_TYPES; i++)
        if (strcmp(TYPES[i].name, name) == 0) {
            *out = (KvType)i;
            return true;
        }
    return false;
}

int kv_type_multiple(KvType type) {
    return TYPES[type].multiple;
}

size_t kv_row_bytes(KvType type, int n) {
    size_t scales = type == KV_Q8_0 ? (size_t)n / KV_SCALED * sizeof(uint16_t) : 0;
    return (size_t)n * (size_t)TYPES[type].bytes + scales;
}

double kv_element_bytes(KvType type) {
    return (double)kv_row_bytes(type, KV_SCALED) / KV_SCALED;
}

static void put_q8_0(const float *x, int8_t *q, uint16_t *scale) {
    uint32_t amax = 0;
    for (int i = 0; i < KV_SCALED; i++) {
        uint32_t magnitude = f32_to_bits(x[i]) & 0x7FFFFFFF;
        if (magnitude > amax) amax = magnitude;
    }
    *scale = kv_scale(amax);
    float inverse = kv_inverse(*scale);
    for (int i = 0; i < KV_SCALED; i++) q[i] = kv_quantize(x[i], inverse);
}

void kv_put(KvType type, const float *x, int n, KvRows rows, size_t at) {
    int multiple = kv_type_multiple(type);
    assert(n % multiple == 0 && at % (size_t)multiple == 0);
    void *cells = rows.cells + at * (size_t)TYPES[type].bytes;
    switch (type) {
    case KV_F16:
        for (int i = 0; i < n; i++) ((uint16_t *)cells)[i] = f32_to_f16(x[i]);
        break;
    case KV_Q8_0:
        for (int i = 0; i < n; i += KV_SCALED)
            put_q8_0(x + i, (int8_t *)cells + i, &rows.scales[(at + (size_t)i) / KV_SCALED]);
        break;
    case KV_FP8:
        for (int i = 0; i < n; i++) ((uint8_t *)cells)[i] = f32_to_e4m3(x[i]);
        break;
    default:
        memcpy(cells, x, (size_t)n * sizeof *x);
    }
}

float kv_get(KvType type, KvRows rows, size_t at) {
    const void *cells = rows.cells;
    switch (type) {
    case KV_F16:
        return f16_to_f32(((const uint16_t *)cells)[at]);
    case KV_Q8_0:
        return f16_to_f32(rows.scales[at / KV_SCALED]) * (float)((const int8_t *)cells)[at];
    case KV_FP8:
        return e4m3_to_f32(rows.cells[at]);
    default:
        return ((const float *)cells)[at];
    }
}
