/* unpack: blocks into integers, scales and minima, in plain C that CUDA kernels call as well; block.h has the
 * layouts.
 *
 * One unpack function per block type, by the contract of QuantTraits.unpack.  For repacking into another
 * layout, types whose numbers index a table also have a function for the numbers (codes_TYPE), and types with
 * packed scales a function for one packed integer. */
#ifndef ZGEN_GGUF_UNPACK_H
#define ZGEN_GGUF_UNPACK_H

#include "block.h"
#include "../base/float.h"

#define QUANT_FN HOST_DEVICE static inline

/* 2 * n weights of four bits: the low halves of qs are the first n, the high halves the rest. */
QUANT_FN void unpack_nibbles(const uint8_t *qs, int n, int8_t *q) {
    for (int i = 0; i < n; i++) {
        q[i] = (int8_t)(qs[i] & 15);
        q[i + n] = (int8_t)(qs[i] >> 4);
    }
}

/* Replaces indices of four bits by the values of the table. */
QUANT_FN void look_up(int8_t *q, int n, const int8_t *values) {
    for (int i = 0; i < n; i++) q[i] = values[q[i]];
}

QUANT_FN void look_up_iq4(int8_t *q, int n) {
    const int8_t values[16] = {QUANT_IQ4};
    look_up(q, n, values);
}

QUANT_FN void look_up_e2m1(int8_t *q, int n) {
    const int8_t values[16] = {QUANT_E2M1};
    look_up(q, n, values);
}

QUANT_FN void unpack_Q4_0(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ4_0 *b = (const BlockQ4_0 *)block;
    *scale = load_f16(b->d);
    *min = 0;
    unpack_nibbles(b->qs, 16, q);
    for (int i = 0; i < 32; i++) q[i] -= 8;
}

QUANT_FN void unpack_Q4_1(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ4_1 *b = (const BlockQ4_1 *)block;
    *scale = load_f16(b->d);
    *min = -load_f16(b->m);
    unpack_nibbles(b->qs, 16, q);
}

QUANT_FN void unpack_Q5_0(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ5_0 *b = (const BlockQ5_0 *)block;
    *scale = load_f16(b->d);
    *min = 0;
    unpack_nibbles(b->qs, 16, q);
    for (int i = 0; i < 32; i++) q[i] = (int8_t)((q[i] | (b->qh[i / 8] >> i % 8 & 1) << 4) - 16);
}

QUANT_FN void unpack_Q5_1(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ5_1 *b = (const BlockQ5_1 *)block;
    *scale = load_f16(b->d);
    *min = -load_f16(b->m);
    unpack_nibbles(b->qs, 16, q);
    for (int i = 0; i < 32; i++) q[i] = (int8_t)(q[i] | (b->qh[i / 8] >> i % 8 & 1) << 4);
}

QUANT_FN void unpack_Q8_0(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ8_0 *b = (const BlockQ8_0 *)block;
    *scale = load_f16(b->d);
    *min = 0;
    memcpy(q, b->qs, sizeof b->qs);
}

/* Weight i of the 256 whose two bits lie in 2 x 32 bytes, four to a byte, 32 apart (Q2_K, Q3_K, Q6_K). */
QUANT_FN int two_bits(const uint8_t *bytes, int i) {
    return bytes[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
}

QUANT_FN void unpack_Q2_K(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ2_K *b = (const BlockQ2_K *)block;
    float d = load_f16(b->d), dmin = load_f16(b->dmin);
    for (int g = 0; g < 16; g++) {
        scale[g] = d * (float)(b->scales[g] & 15);
        min[g] = dmin * (float)(b->scales[g] >> 4);
    }
    for (int i = 0; i < 256; i++) q[i] = (int8_t)two_bits(b->qs, i);
}

/* Scale g of the 16, six bits. */
QUANT_FN int q3_k_scale(const BlockQ3_K *b, int g) {
    return (b->scales[g % 8] >> g / 8 * 4 & 15) | (b->scales[8 + g % 4] >> g / 4 * 2 & 3) << 4;
}

QUANT_FN void unpack_Q3_K(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ3_K *b = (const BlockQ3_K *)block;
    float d = load_f16(b->d);
    for (int g = 0; g < 16; g++) {
        scale[g] = d * (float)(q3_k_scale(b, g) - 32);
        min[g] = 0;
    }
    for (int i = 0; i < 256; i++)
        q[i] = (int8_t)((two_bits(b->qs, i) | (b->hmask[i % 32] >> i / 32 & 1) << 2) - 4);
}

/* Scale and minimum g of the eight in the 12 bytes of Q4_K and Q5_K, six bits each. */
QUANT_FN int k_scale(const uint8_t *packed, int g) {
    return g < 4 ? packed[g] & 63 : (packed[g + 4] & 15) | packed[g - 4] >> 6 << 4;
}

QUANT_FN int k_min(const uint8_t *packed, int g) {
    return g < 4 ? packed[g + 4] & 63 : packed[g + 4] >> 4 | packed[g] >> 6 << 4;
}

QUANT_FN void unpack_k_scales(const uint8_t *d, const uint8_t *dmin, const uint8_t *packed, float *scale,
                              float *min) {
    float ds = load_f16(d), dm = load_f16(dmin);
    for (int g = 0; g < 8; g++) {
        scale[g] = ds * (float)k_scale(packed, g);
        min[g] = dm * (float)k_min(packed, g);
    }
}

QUANT_FN void unpack_Q4_K(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ4_K *b = (const BlockQ4_K *)block;
    unpack_k_scales(b->d, b->dmin, b->scales, scale, min);
    for (int i = 0; i < 256; i += 64) unpack_nibbles(b->qs + i / 2, 32, q + i);
}

QUANT_FN void unpack_Q5_K(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ5_K *b = (const BlockQ5_K *)block;
    unpack_k_scales(b->d, b->dmin, b->scales, scale, min);
    for (int i = 0; i < 256; i += 64) unpack_nibbles(b->qs + i / 2, 32, q + i);
    for (int i = 0; i < 256; i++) q[i] = (int8_t)(q[i] | (b->qh[i % 32] >> i / 32 & 1) << 4);
}

QUANT_FN void unpack_Q6_K(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ6_K *b = (const BlockQ6_K *)block;
    float d = load_f16(b->d);
    for (int g = 0; g < 16; g++) {
        scale[g] = d * (float)b->scales[g];
        min[g] = 0;
    }
    for (int i = 0; i < 256; i += 128) unpack_nibbles(b->ql + i / 2, 64, q + i);
    for (int i = 0; i < 256; i++) q[i] = (int8_t)((q[i] | two_bits(b->qh, i) << 4) - 32);
}

QUANT_FN void codes_IQ4_NL(const void *block, int8_t *q) {
    const BlockIQ4_NL *b = (const BlockIQ4_NL *)block;
    unpack_nibbles(b->qs, 16, q);
}

QUANT_FN void unpack_IQ4_NL(const void *block, int8_t *q, float *scale, float *min) {
    const BlockIQ4_NL *b = (const BlockIQ4_NL *)block;
    *scale = load_f16(b->d);
    *min = 0;
    codes_IQ4_NL(block, q);
    look_up_iq4(q, 32);
}

/* Scale g of the eight, six bits. */
QUANT_FN int iq4_xs_scale(const BlockIQ4_XS *b, int g) {
    return (b->scales_l[g / 2] >> g % 2 * 4 & 15) | (b->scales_h[g / 4] >> g % 4 * 2 & 3) << 4;
}

QUANT_FN void codes_IQ4_XS(const void *block, int8_t *q) {
    const BlockIQ4_XS *b = (const BlockIQ4_XS *)block;
    for (int g = 0; g < 8; g++) unpack_nibbles(b->qs + 16 * g, 16, q + 32 * g);
}

QUANT_FN void unpack_IQ4_XS(const void *block, int8_t *q, float *scale, float *min) {
    const BlockIQ4_XS *b = (const BlockIQ4_XS *)block;
    float d = load_f16(b->d);
    for (int g = 0; g < 8; g++) {
        scale[g] = d * (float)(iq4_xs_scale(b, g) - 32);
        min[g] = 0;
    }
    codes_IQ4_XS(block, q);
    look_up_iq4(q, 256);
}

QUANT_FN void codes_MXFP4(const void *block, int8_t *q) {
    const BlockMXFP4 *b = (const BlockMXFP4 *)block;
    unpack_nibbles(b->qs, 16, q);
}

QUANT_FN void unpack_MXFP4(const void *block, int8_t *q, float *scale, float *min) {
    const BlockMXFP4 *b = (const BlockMXFP4 *)block;
    *scale = e8m0_half_to_f32(b->e);
    *min = 0;
    codes_MXFP4(block, q);
    look_up_e2m1(q, 32);
}

QUANT_FN void codes_NVFP4(const void *block, int8_t *q) {
    const BlockNVFP4 *b = (const BlockNVFP4 *)block;
    for (int g = 0; g < 4; g++) unpack_nibbles(b->qs + 8 * g, 8, q + 16 * g);
}

QUANT_FN void unpack_NVFP4(const void *block, int8_t *q, float *scale, float *min) {
    const BlockNVFP4 *b = (const BlockNVFP4 *)block;
    for (int g = 0; g < 4; g++) {
        scale[g] = ue4m3_to_f32(b->scales[g]) * 0.5f;
        min[g] = 0;
    }
    codes_NVFP4(block, q);
    look_up_e2m1(q, 64);
}

#endif
