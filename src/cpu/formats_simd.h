/* formats_simd: each block format with its rows as lanes.
 *
 * For every type of QUANT_TYPES that is a BLOCK, and for one block of each of 16 rows (row r's at block + r *
 * stride):
 *
 *     scales_X   a float vector per group: scale[], and min[] where the type has minima
 *     quants_X   the integers of UNIT_X weights, the unit-th of the block: lane r of q[i] holds row r's
 *                weights 4i .. 4i + 3 as unsigned bytes, ZERO_X more than they are
 *
 * block.h has the layouts, and unpack.h unpacks them weight by weight; here a vector has the same four bytes
 * of each of 16 rows.
 *
 * The one trick: v_rows16 transposes the packed bytes, before they are taken apart, so that all that follows
 * is shifts and masks, and a format is a few lines.  Fields are read by 16 bytes inside the block: never
 * behind it. */
#ifndef ZGEN_CPU_FORMATS_SIMD_H
#define ZGEN_CPU_FORMATS_SIMD_H

#include "../gguf/quant.h"

#define NIBBLES 0x0F0F0F0Fu
#define PAIRS 0x03030303u

/* n vectors of packed nibbles, at most 8: the low ones and the high ones. */
INLINE void take_nibbles(const V *packed, const int n, V *low, V *high) {
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
        low[i] = v_and(packed[i], v_set(NIBBLES));
        high[i] = v_and(v_shr(packed[i], 4), v_set(NIBBLES));
    }
}

/* 16 bytes of each row, as nibbles: the low ones are four vectors, the high ones another four. */
INLINE void split_nibbles(const uint8_t *p, size_t stride, V *low, V *high) {
    V packed[4];
    v_rows16(p, stride, packed);
    take_nibbles(packed, 4, low, high);
}

/* 32 bytes of each row, eight vectors and eight. */
INLINE void split_nibbles32(const uint8_t *p, size_t stride, V *low, V *high) {
    V packed[8];
    v_rows32(p, stride, packed);
    take_nibbles(packed, 8, low, high);
}

/* The same for nibbles that index a table, which must be unsigned. */
INLINE void split_codes(const uint8_t *p, size_t stride, V table, V *low, V *high) {
    split_nibbles(p, stride, low, high);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        low[i] = v_lookup(table, low[i]);
        high[i] = v_lookup(table, high[i]);
    }
}

/* Byte i of each lane as a float. */
INLINE F byte_float(V a, int i) {
    return f_of_int(v_and(v_shr(a, 8 * i), v_set(0xFF)));
}

/* Two f16 in each lane, the first in the low half. */
INLINE void half_pair(V a, F *first, F *second) {
    *first = f_half(a);
    *second = f_half(v_shr(a, 16));
}

/* The first dword of each block. */
INLINE V first_dword(const uint8_t *block, size_t stride) {
    V head[4];
    v_rows16(block, stride, head);
    return head[0];
}

enum { UNIT_Q4_0 = 32, ZERO_Q4_0 = 8 };
INLINE void scales_Q4_0(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    *scale = f_half(first_dword(block, stride));
}
INLINE void quants_Q4_0(const uint8_t *block, size_t stride, int unit, V *q) {
    (void)unit;
    split_nibbles(block + offsetof(BlockQ4_0, qs), stride, q, q + 4);
}

enum { UNIT_Q4_1 = 32, ZERO_Q4_1 = 0 };
INLINE void scales_Q4_1(const uint8_t *block, size_t stride, F *scale, F *min) {
    F m;
    half_pair(first_dword(block, stride), scale, &m);
    *min = f_sub(f_set(-0.0f), m);
}
INLINE void quants_Q4_1(const uint8_t *block, size_t stride, int unit, V *q) {
    (void)unit;
    split_nibbles(block + offsetof(BlockQ4_1, qs), stride, q, q + 4);
}

/* Adds bit 4 to 32 weights: bit i of high is weight i's. */
INLINE void add_fifth_bits(V high, V *q) {
    static const int8_t spread[4][16] = {{0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12},
                                         {1, 1, 1, 1, 5, 5, 5, 5, 9, 9, 9, 9, 13, 13, 13, 13},
                                         {2, 2, 2, 2, 6, 6, 6, 6, 10, 10, 10, 10, 14, 14, 14, 14},
                                         {3, 3, 3, 3, 7, 7, 7, 7, 11, 11, 11, 11, 15, 15, 15, 15}};
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { // byte i of each lane, four times: the bits of eight weights
        V eight = v_lookup(high, v_bytes(spread[i]));
        q[2 * i] = v_add_where(q[2 * i], eight, v_set(0x08040201), v_set(0x10101010));
        q[2 * i + 1] = v_add_where(q[2 * i + 1], eight, v_set(0x80402010), v_set(0x10101010));
    }
}

enum { UNIT_Q5_0 = 32, ZERO_Q5_0 = 16 };
INLINE void scales_Q5_0(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    *scale = f_half(first_dword(block, stride));
}
INLINE void quants_Q5_0(const uint8_t *block, size_t stride, int unit, V *q) {
    (void)unit;
    V head[4];
    v_rows16(block, stride, head);
    split_nibbles(block + offsetof(BlockQ5_0, qs), stride, q, q + 4);
    add_fifth_bits(v_or(v_shr(head[0], 16), v_shl(head[1], 16)), q);
}

enum { UNIT_Q5_1 = 32, ZERO_Q5_1 = 0 };
INLINE void scales_Q5_1(const uint8_t *block, size_t stride, F *scale, F *min) {
    F m;
    half_pair(first_dword(block, stride), scale, &m);
    *min = f_sub(f_set(-0.0f), m);
}
INLINE void quants_Q5_1(const uint8_t *block, size_t stride, int unit, V *q) {
    (void)unit;
    V head[4];
    v_rows16(block, stride, head);
    split_nibbles(block + offsetof(BlockQ5_1, qs), stride, q, q + 4);
    add_fifth_bits(head[1], q);
}

enum { UNIT_Q8_0 = 32, ZERO_Q8_0 = 128 };
INLINE void scales_Q8_0(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    *scale = f_half(first_dword(block, stride));
}
INLINE void quants_Q8_0(const uint8_t *block, size_t stride, int unit, V *q) {
    (void)unit;
    v_rows32(block + offsetof(BlockQ8_0, qs), stride, q);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) q[i] = v_xor(q[i], v_set(0x80808080));
}

enum { UNIT_Q2_K = 128, ZERO_Q2_K = 0 };
INLINE void scales_Q2_K(const uint8_t *block, size_t stride, F *scale, F *min) {
    V packed[4], tail[4];
    F d, dmin;
    v_rows16(block + sizeof(BlockQ2_K) - 16, stride, tail);
    half_pair(tail[3], &d, &dmin);
    v_rows16(block + offsetof(BlockQ2_K, scales), stride, packed);
#pragma GCC unroll 16
    for (int g = 0; g < 16; g++) {
        scale[g] = f_mul(d, byte_float(v_and(packed[g / 4], v_set(NIBBLES)), g % 4));
        min[g] = f_mul(dmin, byte_float(v_and(v_shr(packed[g / 4], 4), v_set(NIBBLES)), g % 4));
    }
}
INLINE void quants_Q2_K(const uint8_t *block, size_t stride, int unit, V *q) {
    const uint8_t *qs = block + offsetof(BlockQ2_K, qs) + 32 * unit;
    V packed[8];
    v_rows32(qs, stride, packed);
#pragma GCC unroll 32
    for (int i = 0; i < 32; i++) q[i] = v_and(v_shr(packed[i % 8], i / 8 * 2), v_set(PAIRS));
}

enum { UNIT_Q3_K = 128, ZERO_Q3_K = 4 };
INLINE void scales_Q3_K(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    V tail[4], packed[4]; // packed[1], [2]: 16 times four bits, [3]: 16 times two bits
    v_rows16(block + sizeof(BlockQ3_K) - 16, stride, tail);
    F d = f_half(v_shr(tail[3], 16));
    v_rows16(block + offsetof(BlockQ3_K, scales) - 4, stride, packed);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        V low = v_and(v_shr(packed[1 + i % 2], i / 2 * 4), v_set(NIBBLES));
        V six = v_or(low, v_shl(v_and(v_shr(packed[3], i * 2), v_set(PAIRS)), 4));
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) scale[4 * i + j] = f_mul(d, f_sub(byte_float(six, j), f_set(32)));
    }
}
INLINE void quants_Q3_K(const uint8_t *block, size_t stride, int unit, V *q) {
    const uint8_t *qs = block + offsetof(BlockQ3_K, qs) + 32 * unit,
                  *hmask = block + offsetof(BlockQ3_K, hmask);
    V packed[8], high[8];
    v_rows32(qs, stride, packed);
    v_rows32(hmask, stride, high);
#pragma GCC unroll 32
    for (int i = 0; i < 32; i++) {
        V low = v_and(v_shr(packed[i % 8], i / 8 * 2), v_set(PAIRS));
        V bit = v_and(v_shr(high[i % 8], 4 * unit + i / 8), v_set(0x01010101));
        q[i] = v_or(low, v_shl(bit, 2));
    }
}

/* The 16-byte head of Q4_K and Q5_K: d, dmin, and eight scales and minima of six bits. */
INLINE void k_scales(const uint8_t *block, size_t stride, F *scale, F *min) {
    V head[4];
    F d, dmin;
    v_rows16(block, stride, head);
    half_pair(head[0], &d, &dmin);
    V sixes = v_set(0x3F3F3F3F), tops = v_set(0x30303030);
    V s[2] = {v_and(head[1], sixes), v_or(v_and(head[3], v_set(NIBBLES)), v_and(v_shr(head[1], 2), tops))};
    V m[2] = {v_and(head[2], sixes),
              v_or(v_and(v_shr(head[3], 4), v_set(NIBBLES)), v_and(v_shr(head[2], 2), tops))};
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) {
        scale[g] = f_mul(d, byte_float(s[g / 4], g % 4));
        min[g] = f_mul(dmin, byte_float(m[g / 4], g % 4));
    }
}

enum { UNIT_Q4_K = 64, ZERO_Q4_K = 0 };
INLINE void scales_Q4_K(const uint8_t *block, size_t stride, F *scale, F *min) {
    k_scales(block, stride, scale, min);
}
INLINE void quants_Q4_K(const uint8_t *block, size_t stride, int unit, V *q) {
    split_nibbles32(block + offsetof(BlockQ4_K, qs) + 32 * unit, stride, q, q + 8);
}

enum { UNIT_Q5_K = 64, ZERO_Q5_K = 0 };
INLINE void scales_Q5_K(const uint8_t *block, size_t stride, F *scale, F *min) {
    k_scales(block, stride, scale, min);
}
INLINE void quants_Q5_K(const uint8_t *block, size_t stride, int unit, V *q) {
    const uint8_t *qs = block + offsetof(BlockQ5_K, qs) + 32 * unit, *qh = block + offsetof(BlockQ5_K, qh);
    V high[8];
    split_nibbles32(qs, stride, q, q + 8);
    v_rows32(qh, stride, high);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        V bit = v_and(v_shr(high[i % 8], 2 * unit + i / 8), v_set(0x01010101));
        q[i] = v_or(q[i], v_shl(bit, 4));
    }
}

enum { UNIT_Q6_K = 128, ZERO_Q6_K = 32 };
INLINE void scales_Q6_K(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    V tail[4], packed[4];
    v_rows16(block + sizeof(BlockQ6_K) - 16, stride, tail);
    F d = f_half(v_shr(tail[3], 16));
    v_rows16(block + offsetof(BlockQ6_K, scales), stride, packed);
#pragma GCC unroll 16
    for (int g = 0; g < 16; g++)
        scale[g] = f_mul(d, f_of_int(v_sar(v_shl(packed[g / 4], 24 - g % 4 * 8), 24)));
}
INLINE void quants_Q6_K(const uint8_t *block, size_t stride, int unit, V *q) {
    const uint8_t *ql = block + offsetof(BlockQ6_K, ql) + 64 * unit;
    const uint8_t *qh = block + offsetof(BlockQ6_K, qh) + 32 * unit;
    V tops = v_set(0x30303030);
    V high[8];
    v_rows32(qh, stride, high);
    split_nibbles32(ql, stride, q, q + 16);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        q[i] = v_or(q[i], v_and(v_shl(high[i], 4), tops));
        q[i + 16] = v_or(q[i + 16], v_and(high[i], tops));
    }
    split_nibbles32(ql + 32, stride, q + 8, q + 24);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        q[i + 8] = v_or(q[i + 8], v_and(v_shl(high[i], 2), tops));
        q[i + 24] = v_or(q[i + 24], v_and(v_shr(high[i], 2), tops));
    }
}

INLINE V iq4_table(void) {
    return v_xor(v_bytes(quant_iq4), v_set(0x80808080));
}

enum { UNIT_IQ4_NL = 32, ZERO_IQ4_NL = 128 };
INLINE void scales_IQ4_NL(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    *scale = f_half(first_dword(block, stride));
}
INLINE void quants_IQ4_NL(const uint8_t *block, size_t stride, int unit, V *q) {
    (void)unit;
    split_codes(block + offsetof(BlockIQ4_NL, qs), stride, iq4_table(), q, q + 4);
}

enum { UNIT_IQ4_XS = 32, ZERO_IQ4_XS = 128 };
INLINE void scales_IQ4_XS(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    V head[4];
    v_rows16(block, stride, head);
    F d = f_half(head[0]);
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) {
        V low = v_and(v_shr(head[1], 4 * g), v_set(15)), high = v_and(v_shr(head[0], 16 + 2 * g), v_set(3));
        scale[g] = f_mul(d, f_of_int(v_sub(v_or(low, v_shl(high, 4)), v_set(32))));
    }
}
INLINE void quants_IQ4_XS(const uint8_t *block, size_t stride, int unit, V *q) {
    split_codes(block + offsetof(BlockIQ4_XS, qs) + 16 * unit, stride, iq4_table(), q, q + 4);
}

INLINE V e2m1_table(void) {
    return v_add_bytes(v_bytes(quant_e2m1), v_set(0x0C0C0C0C));
}

enum { UNIT_MXFP4 = 32, ZERO_MXFP4 = 12 };
INLINE void scales_MXFP4(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    V e = v_and(first_dword(block, stride), v_set(0xFF));
    V bits = v_shl(v_sub(e, v_set(1)), 23); // half of 2^(e - 127); the first two are subnormal
    bits = v_if_equal(e, v_set(0), v_set(0x00200000), bits);
    bits = v_if_equal(e, v_set(1), v_set(0x00400000), bits);
    *scale = f_of_bits(bits);
}
INLINE void quants_MXFP4(const uint8_t *block, size_t stride, int unit, V *q) {
    (void)unit;
    split_codes(block + offsetof(BlockMXFP4, qs), stride, e2m1_table(), q, q + 4);
}

enum { UNIT_NVFP4 = 32, ZERO_NVFP4 = 12 };
INLINE void scales_NVFP4(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    V packed = first_dword(block, stride), nan = v_set(0x07F00000);
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) {
        V magnitude = v_shl(v_and(v_shr(packed, 8 * g), v_set(0x7F)), 20);
        magnitude = v_if_equal(magnitude, nan, v_set(0), magnitude);
        scale[g] = f_mul(f_mul(f_of_bits(magnitude), f_set(0x1p120f)), f_set(0.5f));
    }
}
INLINE void quants_NVFP4(const uint8_t *block, size_t stride, int unit, V *q) {
    V low[4], high[4]; // eight bytes hold one group: its first half low, its second high
    split_codes(block + offsetof(BlockNVFP4, qs) + 16 * unit, stride, e2m1_table(), low, high);
    q[0] = low[0];
    q[1] = low[1];
    q[2] = high[0];
    q[3] = high[1];
    q[4] = low[2];
    q[5] = low[3];
    q[6] = high[2];
    q[7] = high[3];
}

#endif
