/* quant: the blocks taken apart, in plain C; see quant.h for the layouts.
 *
 * One unpack function per block type, and one decoder for all of them.  The decoder may multiply in one order
 * for every type because nothing rounds before the final subtraction: an f16 scale has 11 bits, the sub-scale
 * and the integer have at most 12 together, and a product of up to 24 bits is exact in f32. */
#include "quant.h"
#include "../base/float.h"

#include <string.h>

const int8_t quant_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
const int8_t quant_e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* 2 * n weights of four bits: the low halves of qs are the first n, the high halves the rest. */
static void unpack_nibbles(const uint8_t *qs, int n, int8_t *q) {
    for (int i = 0; i < n; i++) {
        q[i] = (int8_t)(qs[i] & 15);
        q[i + n] = (int8_t)(qs[i] >> 4);
    }
}

static void unpack_codes(const uint8_t *qs, int n, const int8_t *values, int8_t *q) {
    unpack_nibbles(qs, n, q);
    for (int i = 0; i < 2 * n; i++) q[i] = values[q[i]];
}

static void unpack_Q4_0(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ4_0 *b = block;
    *scale = load_f16(b->d);
    *min = 0;
    unpack_nibbles(b->qs, 16, q);
    for (int i = 0; i < 32; i++) q[i] -= 8;
}

static void unpack_Q4_1(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ4_1 *b = block;
    *scale = load_f16(b->d);
    *min = -load_f16(b->m);
    unpack_nibbles(b->qs, 16, q);
}

static void unpack_Q5_0(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ5_0 *b = block;
    *scale = load_f16(b->d);
    *min = 0;
    unpack_nibbles(b->qs, 16, q);
    for (int i = 0; i < 32; i++) q[i] = (int8_t)((q[i] | (b->qh[i / 8] >> i % 8 & 1) << 4) - 16);
}

static void unpack_Q5_1(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ5_1 *b = block;
    *scale = load_f16(b->d);
    *min = -load_f16(b->m);
    unpack_nibbles(b->qs, 16, q);
    for (int i = 0; i < 32; i++) q[i] = (int8_t)(q[i] | (b->qh[i / 8] >> i % 8 & 1) << 4);
}

static void unpack_Q8_0(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ8_0 *b = block;
    *scale = load_f16(b->d);
    *min = 0;
    memcpy(q, b->qs, sizeof b->qs);
}

/* Weight i of the 256 whose two bits lie in 2 x 32 bytes, four to a byte, 32 apart (Q2_K, Q3_K, Q6_K). */
static int two_bits(const uint8_t *bytes, int i) {
    return bytes[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
}

static void unpack_Q2_K(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ2_K *b = block;
    float d = load_f16(b->d), dmin = load_f16(b->dmin);
    for (int g = 0; g < 16; g++) {
        scale[g] = d * (float)(b->scales[g] & 15);
        min[g] = dmin * (float)(b->scales[g] >> 4);
    }
    for (int i = 0; i < 256; i++) q[i] = (int8_t)two_bits(b->qs, i);
}

static void unpack_Q3_K(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ3_K *b = block;
    float d = load_f16(b->d);
    for (int g = 0; g < 16; g++) {
        int low = b->scales[g % 8] >> g / 8 * 4 & 15, high = b->scales[8 + g % 4] >> g / 4 * 2 & 3;
        scale[g] = d * (float)((low | high << 4) - 32);
        min[g] = 0;
    }
    for (int i = 0; i < 256; i++)
        q[i] = (int8_t)((two_bits(b->qs, i) | (b->hmask[i % 32] >> i / 32 & 1) << 2) - 4);
}

/* The eight scales and minima of Q4_K and Q5_K: six bits each in 12 bytes. */
static void unpack_k_scales(const uint8_t *d, const uint8_t *dmin, const uint8_t *packed, float *scale,
                            float *min) {
    float ds = load_f16(d), dm = load_f16(dmin);
    for (int g = 0; g < 8; g++) {
        const uint8_t *s = packed + g % 4, *m = s + 4, *low = s + 8;
        scale[g] = ds * (float)(g < 4 ? *s & 63 : (*low & 15) | *s >> 6 << 4);
        min[g] = dm * (float)(g < 4 ? *m & 63 : *low >> 4 | *m >> 6 << 4);
    }
}

static void unpack_Q4_K(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ4_K *b = block;
    unpack_k_scales(b->d, b->dmin, b->scales, scale, min);
    for (int i = 0; i < 256; i += 64) unpack_nibbles(b->qs + i / 2, 32, q + i);
}

static void unpack_Q5_K(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ5_K *b = block;
    unpack_k_scales(b->d, b->dmin, b->scales, scale, min);
    for (int i = 0; i < 256; i += 64) unpack_nibbles(b->qs + i / 2, 32, q + i);
    for (int i = 0; i < 256; i++) q[i] = (int8_t)(q[i] | (b->qh[i % 32] >> i / 32 & 1) << 4);
}

static void unpack_Q6_K(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ6_K *b = block;
    float d = load_f16(b->d);
    for (int g = 0; g < 16; g++) {
        scale[g] = d * (float)b->scales[g];
        min[g] = 0;
    }
    for (int i = 0; i < 256; i += 128) unpack_nibbles(b->ql + i / 2, 64, q + i);
    for (int i = 0; i < 256; i++) q[i] = (int8_t)((q[i] | two_bits(b->qh, i) << 4) - 32);
}

static void unpack_IQ4_NL(const void *block, int8_t *q, float *scale, float *min) {
    const BlockIQ4_NL *b = block;
    *scale = load_f16(b->d);
    *min = 0;
    unpack_codes(b->qs, 16, quant_iq4, q);
}

static void unpack_IQ4_XS(const void *block, int8_t *q, float *scale, float *min) {
    const BlockIQ4_XS *b = block;
    float d = load_f16(b->d);
    for (int g = 0; g < 8; g++) {
        int low = b->scales_l[g / 2] >> g % 2 * 4 & 15, high = b->scales_h[g / 4] >> g % 4 * 2 & 3;
        scale[g] = d * (float)((low | high << 4) - 32);
        min[g] = 0;
        unpack_codes(b->qs + 16 * g, 16, quant_iq4, q + 32 * g);
    }
}

static void unpack_MXFP4(const void *block, int8_t *q, float *scale, float *min) {
    const BlockMXFP4 *b = block;
    *scale = e8m0_half_to_f32(b->e);
    *min = 0;
    unpack_codes(b->qs, 16, quant_e2m1, q);
}

static void unpack_NVFP4(const void *block, int8_t *q, float *scale, float *min) {
    const BlockNVFP4 *b = block;
    for (int g = 0; g < 4; g++) {
        scale[g] = ue4m3_to_f32(b->scales[g]) * 0.5f;
        min[g] = 0;
        unpack_codes(b->qs + 8 * g, 8, quant_e2m1, q + 16 * g);
    }
}

static void decode_blocks(QuantType type, const uint8_t *blocks, size_t n_blocks, float *out) {
    const QuantTraits *t = quant_traits(type);
    int8_t q[QUANT_MAX_WEIGHTS];
    float scale[QUANT_MAX_GROUPS], min[QUANT_MAX_GROUPS];
    for (size_t b = 0; b < n_blocks; b++, out += t->n_weights) {
        t->unpack(blocks + b * t->n_bytes, q, scale, min);
        for (int g = 0; g < t->n_weights / t->group; g++)
            for (int i = g * t->group; i < (g + 1) * t->group; i++) out[i] = scale[g] * (float)q[i] - min[g];
    }
}

static void decode_F32(const void *blocks, size_t n_blocks, float *out) {
    memcpy(out, blocks, n_blocks * sizeof *out);
}

static void decode_F16(const void *blocks, size_t n_blocks, float *out) {
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n_blocks; i++) out[i] = load_f16(p + 2 * i);
}

static void decode_BF16(const void *blocks, size_t n_blocks, float *out) {
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n_blocks; i++) out[i] = bf16_to_f32(load_u16(p + 2 * i));
}

static void decode_FP8_E4M3(const void *blocks, size_t n_blocks, float *out) {
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n_blocks; i++) out[i] = e4m3_to_f32(p[i]);
}

/* From here on the list speaks: a decoder of each block type by name, the limits, the traits. */
#define NOTHING(...)
#define DECODER(type, ...)                                                                                   \
    static void decode_##type(const void *blocks, size_t n_blocks, float *out) {                             \
        decode_blocks(QUANT_##type, blocks, n_blocks, out);                                                  \
    }
QUANT_TYPES(NOTHING, DECODER, NOTHING)

#define LIMITS(type, id, block, n_weights, group, has_min)                                                   \
    _Static_assert(n_weights <= QUANT_MAX_WEIGHTS && n_weights / group <= QUANT_MAX_GROUPS, #type);          \
    _Static_assert(_Alignof(block) == 1 && n_weights % 32 == 0 && (group == 16 || group == 32), #type);
QUANT_TYPES(NOTHING, LIMITS, NOTHING)

#define TRAITS(...)                                                                                          \
    {                                                                                                        \
        static const QuantTraits t = {__VA_ARGS__};                                                          \
        return &t;                                                                                           \
    }
#define FLOAT(type, id, c_type)                                                                              \
    case id:                                                                                                 \
        TRAITS(#type, 1, sizeof(c_type), QUANT_ACT_F32, decode_##type, 0, false, NULL)
#define BLOCK(type, id, block, n_weights, group, has_min)                                                    \
    case id:                                                                                                 \
        TRAITS(#type, n_weights, sizeof(block), QUANT_ACT_Q8, decode_##type, group, has_min, unpack_##type)
#define KNOWN(type, id, n_weights, n_bytes)                                                                  \
    case id:                                                                                                 \
        TRAITS(#type, n_weights, n_bytes, QUANT_ACT_NONE, NULL, 0, false, NULL)
const QuantTraits *quant_traits(uint32_t type) {
    switch (type) { QUANT_TYPES(FLOAT, BLOCK, KNOWN) }
    return NULL;
}
