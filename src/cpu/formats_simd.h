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

#include "../gguf/grid.h"
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

/* Byte i of each lane, four times. */
INLINE V spread_byte(V a, int i) {
    static const int8_t at[4][16] = {{0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12},
                                     {1, 1, 1, 1, 5, 5, 5, 5, 9, 9, 9, 9, 13, 13, 13, 13},
                                     {2, 2, 2, 2, 6, 6, 6, 6, 10, 10, 10, 10, 14, 14, 14, 14},
                                     {3, 3, 3, 3, 7, 7, 7, 7, 11, 11, 11, 11, 15, 15, 15, 15}};
    return v_lookup(a, v_bytes(at[i]));
}

#define LOW_BITS 0x08040201u  // of a byte that is in a lane four times: its bits 0 .. 3, one in each copy
#define HIGH_BITS 0x80402010u // and 4 .. 7

/* Adds the bytes of `one` to those of 32 weights whose bit is set: bit i of bits is weight i's. */
INLINE void add_bits(V bits, V one, V *q) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        V eight = spread_byte(bits, i);
        q[2 * i] = v_add_where(q[2 * i], eight, v_set(LOW_BITS), one);
        q[2 * i + 1] = v_add_where(q[2 * i + 1], eight, v_set(HIGH_BITS), one);
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
    add_bits(v_or(v_shr(head[0], 16), v_shl(head[1], 16)), v_set(0x10101010), q);
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
    add_bits(head[1], v_set(0x10101010), q);
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
/* 128 weights of two bits in 32 bytes, four to a byte, 32 apart. */
INLINE void split_pairs(const uint8_t *p, size_t stride, V *q) {
    V packed[8];
    v_rows32(p, stride, packed);
#pragma GCC unroll 32
    for (int i = 0; i < 32; i++) q[i] = v_and(v_shr(packed[i % 8], i / 8 * 2), v_set(PAIRS));
}
INLINE void quants_Q2_K(const uint8_t *block, size_t stride, int unit, V *q) {
    split_pairs(block + offsetof(BlockQ2_K, qs) + 32 * unit, stride, q);
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

/* The scale d of a block, for each of its groups. */
INLINE void same_scale(V half, int n, F *scale) {
    F d = f_half(half);
    for (int g = 0; g < n; g++) scale[g] = d;
}

enum { UNIT_TQ2_0 = 128, ZERO_TQ2_0 = 1 };
INLINE void scales_TQ2_0(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    V tail[4];
    v_rows16(block + sizeof(BlockTQ2_0) - 16, stride, tail);
    same_scale(v_shr(tail[3], 16), 8, scale);
}
INLINE void quants_TQ2_0(const uint8_t *block, size_t stride, int unit, V *q) {
    split_pairs(block + offsetof(BlockTQ2_0, qs) + 32 * unit, stride, q);
}

/* Digit by digit of n bytes of each lane, each a fraction of base 3 times 256: q[step * i] gets digit i.  A
 * byte's first digit is 1 from 256 / 3 on, 2 from 512 / 3 on; times 3 the next digit comes first. */
INLINE void take_digits(V x, int n, int step, V *q) {
#pragma GCC unroll 5
    for (int i = 0; i < n; i++) {
        V digit = v_add_from(v_set(0), x, v_set(0x56565656), v_set(0x01010101));
        q[step * i] = v_add_from(digit, x, v_set(0xABABABAB), v_set(0x01010101));
        x = v_add_bytes(x, v_add_bytes(x, x));
    }
}

enum { UNIT_TQ1_0 = 256, ZERO_TQ1_0 = 1 };
INLINE void scales_TQ1_0(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    V tail[4];
    v_rows16(block + sizeof(BlockTQ1_0) - 16, stride, tail);
    same_scale(v_shr(tail[3], 16), 8, scale);
}
INLINE void quants_TQ1_0(const uint8_t *block, size_t stride, int unit, V *q) {
    (void)unit;
    V packed[12], tail[4];
    v_rows32(block, stride, packed);
    v_rows16(block + 32, stride, packed + 8);
    v_rows16(block + sizeof(BlockTQ1_0) - 16, stride, tail);
    for (int i = 0; i < 8; i++) take_digits(packed[i], 5, 8, q + i);
    for (int i = 0; i < 4; i++) take_digits(packed[8 + i], 5, 4, q + 40 + i);
    take_digits(v_or(v_shr(tail[2], 16), v_shl(tail[3], 16)), 4, 1, q + 60);
}

enum { UNIT_Q1_0 = 128, ZERO_Q1_0 = 1 };
INLINE void scales_Q1_0(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    same_scale(first_dword(block, stride), 4, scale);
}
INLINE void quants_Q1_0(const uint8_t *block, size_t stride, int unit, V *q) {
    (void)unit;
    V packed[4];
    v_rows16(block + offsetof(BlockQ1_0, qs), stride, packed);
#pragma GCC unroll 32
    for (int i = 0; i < 32; i++) q[i] = v_set(0);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) add_bits(packed[i], v_set(0x02020202), q + 8 * i);
}

enum { UNIT_Q2_0 = 64, ZERO_Q2_0 = 1 };
INLINE void scales_Q2_0(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    same_scale(first_dword(block, stride), 2, scale);
}
INLINE void quants_Q2_0(const uint8_t *block, size_t stride, int unit, V *q) {
    (void)unit;
    V packed[4];
    v_rows16(block + offsetof(BlockQ2_0, qs), stride, packed);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) { // a byte is four weights
        V four = spread_byte(packed[i / 4], i % 4);
        q[i] = v_add_where(v_set(0), four, v_set(0x40100401), v_set(0x01010101));
        q[i] = v_add_where(q[i], four, v_set(0x80200802), v_set(0x02020202));
    }
}

/* ---- grids: each lane looks up its row's points -------------------------------------------------------- */

/* Values of a grid, 1 .. 63, times the signs that the mask selects of bits, plus 64. */
INLINE V with_signs(V values, V bits, V mask) {
    V minus = v_add_where(v_set(0), bits, mask, v_set(0xFFFFFFFF)); // ~x + 1 is -x
    values = v_add_bytes(v_xor(values, minus), v_set(0x40404040));
    return v_add_where(values, bits, mask, v_set(0x01010101));
}

/* Puts signs on 32 weights: bit i of bits is weight i's. */
INLINE void put_signs(V bits, V *q) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        V eight = spread_byte(bits, i);
        q[2 * i] = with_signs(q[2 * i], eight, v_set(LOW_BITS));
        q[2 * i + 1] = with_signs(q[2 * i + 1], eight, v_set(HIGH_BITS));
    }
}

/* Bytes of seven signs, with the eighth that makes the number of minuses even; bit 7 comes in as 0. */
INLINE V eight_signs(V bytes) {
    static const int8_t odd[16] = {0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0};
    V low = v_lookup(v_bytes(odd), v_and(bytes, v_set(NIBBLES)));
    V high = v_lookup(v_bytes(odd), v_and(v_shr(bytes, 4), v_set(NIBBLES)));
    return v_or(bytes, v_xor(low, high));
}

/* The 32 signs of IQ2_XXS and IQ3_XXS, seven bits of each eight in the low 28 bits of a lane. */
INLINE V signs_of_28(V packed) {
    V sevens = v_and(packed, v_set(0x7F));
#pragma GCC unroll 3
    for (int i = 1; i < 4; i++) sevens = v_or(sevens, v_and(v_shl(packed, i), v_set(0x7Fu << 8 * i)));
    return eight_signs(sevens);
}

/* The two words of a point of eight weights. */
INLINE void take_point8(const uint32_t *grid, V point, V *q) {
    V at = v_add(point, point);
    q[0] = v_gather(grid, at);
    q[1] = v_gather(grid + 1, at);
}

/* Bits from `from` on, n of them, of each lane. */
INLINE V bits_of(V a, int from, int n) {
    return v_and(v_shr(a, from), v_set((1u << n) - 1));
}

/* d * (2 s + 1) of integers s below 128. */
INLINE F odd_scale(F d, V s) {
    return f_mul(d, f_of_int(v_add(v_add(s, s), v_set(1))));
}

/* The same for the 16 scales in 8 bytes, four bits each. */
INLINE void odd_scales16(F d, const V *packed, F *scale) {
#pragma GCC unroll 16
    for (int g = 0; g < 16; g++) scale[g] = odd_scale(d, bits_of(packed[g / 8], g % 8 * 4, 4));
}

enum { UNIT_IQ2_XXS = 64, ZERO_IQ2_XXS = 64 };
INLINE void scales_IQ2_XXS(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    F d = f_mul(f_half(first_dword(block, stride)), f_set(0.125f));
    for (int g = 0; g < 8; g += 2) {
        V packed[4];
        v_rows16(block + offsetof(BlockIQ2_XXS, qs) + 8 * g, stride, packed);
        scale[g] = odd_scale(d, v_shr(packed[1], 28));
        scale[g + 1] = odd_scale(d, v_shr(packed[3], 28));
    }
}
INLINE void quants_IQ2_XXS(const uint8_t *block, size_t stride, int unit, V *q) {
    V packed[4];
    v_rows16(block + offsetof(BlockIQ2_XXS, qs) + 16 * unit, stride, packed);
#pragma GCC unroll 2
    for (int c = 0; c < 2; c++) {
#pragma GCC unroll 4
        for (int e = 0; e < 4; e++)
            take_point8(quant_grids()->iq2_xxs, bits_of(packed[2 * c], 8 * e, 8), q + 8 * c + 2 * e);
        put_signs(signs_of_28(packed[2 * c + 1]), q + 8 * c);
    }
}

enum { UNIT_IQ2_XS = 64, ZERO_IQ2_XS = 64 };
INLINE void scales_IQ2_XS(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    V tail[4];
    v_rows16(block + sizeof(BlockIQ2_XS) - 16, stride, tail);
    odd_scales16(f_mul(f_half(first_dword(block, stride)), f_set(0.125f)), tail + 2, scale);
}
INLINE void quants_IQ2_XS(const uint8_t *block, size_t stride, int unit, V *q) {
    V packed[4]; // two points and their signs in each
    v_rows16(block + offsetof(BlockIQ2_XS, qs) + 16 * unit, stride, packed);
#pragma GCC unroll 2
    for (int c = 0; c < 2; c++) {
        const V *two = packed + 2 * c;
#pragma GCC unroll 4
        for (int e = 0; e < 4; e++)
            take_point8(quant_grids()->iq2_xs, bits_of(two[e / 2], e % 2 * 16, 9), q + 8 * c + 2 * e);
        V sevens = v_or(v_or(bits_of(two[0], 9, 7), v_shl(bits_of(two[0], 25, 7), 8)),
                        v_or(v_shl(bits_of(two[1], 9, 7), 16), v_shl(bits_of(two[1], 25, 7), 24)));
        put_signs(eight_signs(sevens), q + 8 * c);
    }
}

enum { UNIT_IQ2_S = 128, ZERO_IQ2_S = 64 };
INLINE void scales_IQ2_S(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    V tail[4];
    v_rows16(block + sizeof(BlockIQ2_S) - 16, stride, tail);
    odd_scales16(f_mul(f_half(first_dword(block, stride)), f_set(0.125f)), tail + 2, scale);
}
INLINE void quants_IQ2_S(const uint8_t *block, size_t stride, int unit, V *q) {
    V low[4], signs[4], high[4];
    v_rows16(block + offsetof(BlockIQ2_S, qs) + 16 * unit, stride, low);
    v_rows16(block + offsetof(BlockIQ2_S, signs) + 16 * unit, stride, signs);
    v_rows16(block + offsetof(BlockIQ2_S, qh) + 4 * unit - 4, stride, high); // the second is read
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
#pragma GCC unroll 4
        for (int e = 0; e < 4; e++) {
            V top = v_shl(bits_of(high[1], 8 * c + 2 * e, 2), 8);
            take_point8(quant_grids()->iq2_s, v_or(bits_of(low[c], 8 * e, 8), top), q + 8 * c + 2 * e);
        }
        put_signs(signs[c], q + 8 * c);
    }
}

enum { UNIT_IQ3_XXS = 128, ZERO_IQ3_XXS = 64 };
INLINE void scales_IQ3_XXS(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    F d = f_mul(f_half(first_dword(block, stride)), f_set(0.25f));
    V packed[8];
    v_rows32(block + offsetof(BlockIQ3_XXS, signs), stride, packed);
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) scale[g] = odd_scale(d, v_shr(packed[g], 28));
}
INLINE void quants_IQ3_XXS(const uint8_t *block, size_t stride, int unit, V *q) {
    V points[8], signs[4];
    v_rows32(block + offsetof(BlockIQ3_XXS, qs) + 32 * unit, stride, points);
    v_rows16(block + offsetof(BlockIQ3_XXS, signs) + 16 * unit, stride, signs);
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
#pragma GCC unroll 8
        for (int e = 8 * c; e < 8 * c + 8; e++)
            q[e] = v_gather(quant_grids()->iq3_xxs, bits_of(points[e / 4], e % 4 * 8, 8));
        put_signs(signs_of_28(signs[c]), q + 8 * c);
    }
}

enum { UNIT_IQ3_S = 128, ZERO_IQ3_S = 64 };
INLINE void scales_IQ3_S(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    V tail[4];
    v_rows16(block + sizeof(BlockIQ3_S) - 16, stride, tail);
    F d = f_half(first_dword(block, stride));
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) scale[g] = odd_scale(d, bits_of(tail[3], 4 * g, 4));
}
INLINE void quants_IQ3_S(const uint8_t *block, size_t stride, int unit, V *q) {
    V low[8], signs[4], high[4];
    v_rows32(block + offsetof(BlockIQ3_S, qs) + 32 * unit, stride, low);
    v_rows16(block + offsetof(BlockIQ3_S, signs) + 16 * unit, stride, signs);
    v_rows16(block + offsetof(BlockIQ3_S, qh) + 4 * unit, stride, high); // the first is read
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
#pragma GCC unroll 8
        for (int e = 8 * c; e < 8 * c + 8; e++) {
            V top = v_shl(bits_of(high[0], e, 1), 8);
            q[e] = v_gather(quant_grids()->iq3_s, v_or(bits_of(low[e / 4], e % 4 * 8, 8), top));
        }
        put_signs(signs[c], q + 8 * c);
    }
}

/* Eight weights of IQ1: the table's values are 8 too large, and the shift of one eighth is 1 or -1; with a
 * zero of 9 it adds 2 or nothing.  high: three bits of the point, bit `minus` of shift: the sign. */
INLINE void take_iq1(V low, V high, V shift, int minus, V *q) {
    V plus = v_if_equal(bits_of(shift, minus, 1), v_set(0), v_set(0x02020202), v_set(0));
    take_point8(quant_grids()->iq1, v_or(low, v_shl(high, 8)), q);
    q[0] = v_or(q[0], plus);
    q[1] = v_or(q[1], plus);
}

enum { UNIT_IQ1_S = 128, ZERO_IQ1_S = 9 };
INLINE void scales_IQ1_S(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    V high[4];
    v_rows16(block + offsetof(BlockIQ1_S, qh), stride, high);
    F d = f_mul(f_half(first_dword(block, stride)), f_set(0.125f));
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) scale[g] = odd_scale(d, bits_of(high[g / 2], g % 2 * 16 + 12, 3));
}
INLINE void quants_IQ1_S(const uint8_t *block, size_t stride, int unit, V *q) {
    V low[4], high[4]; // the last two of high are read
    v_rows16(block + offsetof(BlockIQ1_S, qs) + 16 * unit, stride, low);
    v_rows16(block + offsetof(BlockIQ1_S, qh) + 8 * unit - 8, stride, high);
#pragma GCC unroll 16
    for (int e = 0; e < 16; e++) {
        V two = high[2 + e / 8];
        int at = e / 4 % 2 * 16;
        take_iq1(bits_of(low[e / 4], e % 4 * 8, 8), bits_of(two, at + e % 4 * 3, 3), two, at + 15, q + 2 * e);
    }
}

enum { UNIT_IQ1_M = 128, ZERO_IQ1_M = 9 };
INLINE void scales_IQ1_M(const uint8_t *block, size_t stride, F *scale, F *min) {
    (void)min;
    V tail[4];
    v_rows16(block + sizeof(BlockIQ1_M) - 16, stride, tail);
    V half = v_set(0);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) half = v_or(half, v_shl(bits_of(tail[2 + i / 2], i % 2 * 16 + 12, 4), 4 * i));
    F d = f_mul(f_half(half), f_set(0.125f));
#pragma GCC unroll 16
    for (int g = 0; g < 16; g++)
        scale[g] = odd_scale(d, bits_of(tail[2 + g / 8], g / 4 % 2 * 16 + g % 4 * 3, 3));
}
INLINE void quants_IQ1_M(const uint8_t *block, size_t stride, int unit, V *q) {
    V low[4], high[4]; // the first two of high are read
    v_rows16(block + offsetof(BlockIQ1_M, qs) + 16 * unit, stride, low);
    v_rows16(block + offsetof(BlockIQ1_M, qh) + 8 * unit, stride, high);
#pragma GCC unroll 16
    for (int e = 0; e < 16; e++) {
        V eight = high[e / 8];
        int at = e % 8 * 4;
        take_iq1(bits_of(low[e / 4], e % 4 * 8, 8), bits_of(eight, at, 3), eight, at + 3, q + 2 * e);
    }
}

#endif
