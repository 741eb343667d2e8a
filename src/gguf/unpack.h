/* unpack: blocks into integers, scales and minima, in plain C that CUDA kernels call as well; block.h has the
 * layouts.
 *
 * One unpack function per block type, by the contract of QuantTraits.unpack.  For repacking into another
 * layout, types whose numbers index a table also have a function for the numbers (codes_TYPE), and types with
 * packed scales a function for one packed integer. */
#ifndef ZGEN_GGUF_UNPACK_H
#define ZGEN_GGUF_UNPACK_H

#include "grid.h"
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

/* The sign bits of 8 weights, of which the eighth is not in the file: such that their number is even. */
QUANT_FN uint32_t eight_signs(uint32_t seven) {
    return seven | (0x6996u >> ((seven ^ seven >> 4) & 15) & 1) << 7; // bit n of 0x6996: n has an odd number
}

/* Four values of a grid, negated where bit 0..3 of signs is set; a value is 1..127. */
QUANT_FN uint32_t signed_word(uint32_t values, uint32_t signs) {
    uint32_t minus = (signs & 15) * 0x00204081 & 0x01010101; // a one in each byte to be negated
    return (values ^ minus * 255) + minus;                   // no byte overflows, because no value is 0
}

/* Weights 8e .. 8e + 7: the two words of a point, with the signs of the eight. */
QUANT_FN void put_point8(int8_t *q, int e, const uint32_t *point, uint32_t signs) {
    store_u32((uint8_t *)q + 8 * e, signed_word(point[0], signs));
    store_u32((uint8_t *)q + 8 * e + 4, signed_word(point[1], signs >> 4));
}

/* Four-bit number i of packed, low halves first. */
QUANT_FN int nibble(const uint8_t *packed, int i) {
    return packed[i / 2] >> i % 2 * 4 & 15;
}

/* Scales d * (2 s + 1), of which d is the file's or a part of it. */
QUANT_FN void odd_scale(float d, int s, float *scale, float *min) {
    *scale = d * (float)(2 * s + 1);
    *min = 0;
}

QUANT_FN void unpack_IQ2_XXS(const void *block, int8_t *q, float *scale, float *min) {
    const BlockIQ2_XXS *b = (const BlockIQ2_XXS *)block;
    for (int g = 0; g < 8; g++) {
        const uint8_t *points = b->qs + 8 * g;
        uint32_t signs = load_u32(points + 4);
        odd_scale(load_f16(b->d) * 0.125f, (int)(signs >> 28), scale + g, min + g);
        for (int e = 0; e < 4; e++)
            put_point8(q, 4 * g + e, quant_grids()->iq2_xxs + 2 * points[e],
                       eight_signs(signs >> 7 * e & 127));
    }
}

QUANT_FN void unpack_IQ2_XS(const void *block, int8_t *q, float *scale, float *min) {
    const BlockIQ2_XS *b = (const BlockIQ2_XS *)block;
    for (int g = 0; g < 16; g++) odd_scale(load_f16(b->d) * 0.125f, nibble(b->scales, g), scale + g, min + g);
    for (int e = 0; e < 32; e++) {
        int pair = load_u16(b->qs + 2 * e);
        put_point8(q, e, quant_grids()->iq2_xs + 2 * (pair & 511), eight_signs((uint32_t)pair >> 9));
    }
}

QUANT_FN void unpack_IQ2_S(const void *block, int8_t *q, float *scale, float *min) {
    const BlockIQ2_S *b = (const BlockIQ2_S *)block;
    for (int g = 0; g < 16; g++) odd_scale(load_f16(b->d) * 0.125f, nibble(b->scales, g), scale + g, min + g);
    for (int e = 0; e < 32; e++) {
        int point = b->qs[e] | (b->qh[e / 4] >> e % 4 * 2 & 3) << 8;
        put_point8(q, e, quant_grids()->iq2_s + 2 * point, b->signs[e]);
    }
}

QUANT_FN void unpack_IQ3_XXS(const void *block, int8_t *q, float *scale, float *min) {
    const BlockIQ3_XXS *b = (const BlockIQ3_XXS *)block;
    for (int e = 0; e < 32; e++) {
        uint32_t signs = load_u32(b->signs + e / 4 * 4);
        const uint32_t point[2] = {quant_grids()->iq3_xxs[b->qs[2 * e]],
                                   quant_grids()->iq3_xxs[b->qs[2 * e + 1]]};
        put_point8(q, e, point, eight_signs(signs >> e % 4 * 7 & 127));
        odd_scale(load_f16(b->d) * 0.25f, (int)(signs >> 28), scale + e / 4, min + e / 4);
    }
}

QUANT_FN void unpack_IQ3_S(const void *block, int8_t *q, float *scale, float *min) {
    const BlockIQ3_S *b = (const BlockIQ3_S *)block;
    for (int g = 0; g < 8; g++) odd_scale(load_f16(b->d), nibble(b->scales, g), scale + g, min + g);
    for (int e = 0; e < 32; e++) {
        int high = b->qh[e / 4] >> e % 4 * 2;
        const uint32_t point[2] = {quant_grids()->iq3_s[b->qs[2 * e] | (high & 1) << 8],
                                   quant_grids()->iq3_s[b->qs[2 * e + 1] | (high & 2) << 7]};
        put_point8(q, e, point, b->signs[e]);
    }
}

/* Weights 8e .. 8e + 7 of IQ1: the table has 8 more than eight times the coordinates. */
QUANT_FN void put_iq1(int8_t *q, int e, int point, bool minus) {
    const uint32_t *words = quant_grids()->iq1 + 2 * point;
    for (int i = 0; i < 8; i++)
        q[8 * e + i] = (int8_t)((int)(words[i / 4] >> i % 4 * 8 & 31) - (minus ? 9 : 7));
}

QUANT_FN void unpack_IQ1_S(const void *block, int8_t *q, float *scale, float *min) {
    const BlockIQ1_S *b = (const BlockIQ1_S *)block;
    for (int g = 0; g < 8; g++) {
        int high = load_u16(b->qh + 2 * g);
        odd_scale(load_f16(b->d) * 0.125f, high >> 12 & 7, scale + g, min + g);
        for (int e = 0; e < 4; e++)
            put_iq1(q, 4 * g + e, b->qs[4 * g + e] | (high >> 3 * e & 7) << 8, high >> 15);
    }
}

/* The f16 of a block, of which each of the four numbers of 16 bits has four. */
QUANT_FN float iq1_m_d(const uint8_t *scales) {
    int d = 0;
    for (int i = 0; i < 4; i++) d |= scales[2 * i + 1] >> 4 << 4 * i;
    return f16_to_f32((uint16_t)d);
}

QUANT_FN void unpack_IQ1_M(const void *block, int8_t *q, float *scale, float *min) {
    const BlockIQ1_M *b = (const BlockIQ1_M *)block;
    for (int g = 0; g < 16; g++)
        odd_scale(iq1_m_d(b->scales) * 0.125f, load_u16(b->scales + g / 4 * 2) >> g % 4 * 3 & 7, scale + g,
                  min + g);
    for (int e = 0; e < 32; e++) {
        int high = nibble(b->qh, e);
        put_iq1(q, e, b->qs[e] | (high & 7) << 8, high >> 3);
    }
}

/* One scale for all n groups. */
QUANT_FN void same_scale(const uint8_t *d, int n, float *scale, float *min) {
    for (int g = 0; g < n; g++) {
        scale[g] = load_f16(d);
        min[g] = 0;
    }
}

/* Number i, from 0 on, of the five in a byte of TQ1_0: the first digit behind the point of 3^i times the
 * fraction. */
QUANT_FN int ternary(uint8_t byte, int i) {
    const uint8_t power[5] = {1, 3, 9, 27, 81};
    return (uint8_t)(byte * power[i]) * 3 >> 8;
}

QUANT_FN void unpack_TQ1_0(const void *block, int8_t *q, float *scale, float *min) {
    const BlockTQ1_0 *b = (const BlockTQ1_0 *)block;
    same_scale(b->d, 8, scale, min);
    for (int i = 0; i < 160; i++) q[i] = (int8_t)(ternary(b->qs[i % 32], i / 32) - 1);
    for (int i = 0; i < 80; i++) q[160 + i] = (int8_t)(ternary(b->qs[32 + i % 16], i / 16) - 1);
    for (int i = 0; i < 16; i++) q[240 + i] = (int8_t)(ternary(b->qh[i % 4], i / 4) - 1);
}

QUANT_FN void unpack_TQ2_0(const void *block, int8_t *q, float *scale, float *min) {
    const BlockTQ2_0 *b = (const BlockTQ2_0 *)block;
    same_scale(b->d, 8, scale, min);
    for (int i = 0; i < 256; i++) q[i] = (int8_t)(two_bits(b->qs, i) - 1);
}

QUANT_FN void unpack_Q1_0(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ1_0 *b = (const BlockQ1_0 *)block;
    same_scale(b->d, 4, scale, min);
    for (int i = 0; i < 128; i++) q[i] = (int8_t)((b->qs[i / 8] >> i % 8 & 1) * 2 - 1);
}

QUANT_FN void unpack_Q2_0(const void *block, int8_t *q, float *scale, float *min) {
    const BlockQ2_0 *b = (const BlockQ2_0 *)block;
    same_scale(b->d, 2, scale, min);
    for (int i = 0; i < 64; i++) q[i] = (int8_t)((b->qs[i / 4] >> i % 4 * 2 & 3) - 1);
}

#endif
