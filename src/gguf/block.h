/* block: the layout of a block of weights, for every tensor type.
 *
 * A type is defined here and only here: a struct with its bit layout and formula, and one line in the list;
 * sizes come from sizeof and are asserted.  A row of n weights is n / n_weights blocks, back to back.  A
 * tensor may start at an odd address, so all block structs are made of bytes.
 *
 * The one trick: every block type is, in groups of 16 or 32 weights, integers times a scale less a minimum:
 *
 *     w[i] = scale[i / group] * q[i] - min[i / group]      q fits int8; min is 0 for most types
 *
 * unpack.h computes these parts; floats, integer products and tests follow from them.  The integers are
 * chosen so that scale and min are exact in f32. */
#ifndef ZGEN_GGUF_BLOCK_H
#define ZGEN_GGUF_BLOCK_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How to read the diagrams: fields in the order of the file, byte offsets on the left; [a | b] is one byte,
 * its low bits on the right.  "w0 3..0" are the low four bits of the first weight's q.  q, s and m are
 * unsigned unless noted; d, m and dmin without brackets are f16. */

/*  0  d
 *  2  [w16 3..0 | w0 3..0]  [w17 | w1]  ...  [w31 | w15]
 *
 *  w = d * (q - 8) */
typedef struct BlockQ4_0 {
    uint8_t d[2], qs[16];
} BlockQ4_0;
static_assert(sizeof(BlockQ4_0) == 18, "Q4_0");

/*  0  d
 *  2  m
 *  4  [w16 3..0 | w0 3..0]  ...  [w31 | w15]
 *
 *  w = d * q + m */
typedef struct BlockQ4_1 {
    uint8_t d[2], m[2], qs[16];
} BlockQ4_1;
static_assert(sizeof(BlockQ4_1) == 20, "Q4_1");

/*  0  d
 *  2  [w7 .. w0 bit 4]  [w15 .. w8]  [w23 .. w16]  [w31 .. w24]
 *  6  [w16 3..0 | w0 3..0]  ...  [w31 | w15]
 *
 *  w = d * (q - 16) */
typedef struct BlockQ5_0 {
    uint8_t d[2], qh[4], qs[16];
} BlockQ5_0;
static_assert(sizeof(BlockQ5_0) == 22, "Q5_0");

/*  0  d
 *  2  m
 *  4  [w7 .. w0 bit 4]  [w15 .. w8]  [w23 .. w16]  [w31 .. w24]
 *  8  [w16 3..0 | w0 3..0]  ...  [w31 | w15]
 *
 *  w = d * q + m */
typedef struct BlockQ5_1 {
    uint8_t d[2], m[2], qh[4], qs[16];
} BlockQ5_1;
static_assert(sizeof(BlockQ5_1) == 24, "Q5_1");

/*  0  d
 *  2  [w0 7..0]  [w1]  ...  [w31]      signed
 *
 *  w = d * q */
typedef struct BlockQ8_0 {
    uint8_t d[2];
    int8_t qs[32];
} BlockQ8_0;
static_assert(sizeof(BlockQ8_0) == 34, "Q8_0");

/*  0  [m0 3..0 | s0 3..0]  ...  [m15 | s15]                    one byte per 16 weights
 * 16  [w96 1..0 | w64 | w32 | w0]  ...  [w127 | w95 | w63 | w31]
 * 48  the same for w128 .. w255
 * 80  d
 * 82  dmin
 *
 *  w = (d * s) * q - dmin * m */
typedef struct BlockQ2_K {
    uint8_t scales[16], qs[64], d[2], dmin[2];
} BlockQ2_K;
static_assert(sizeof(BlockQ2_K) == 84, "Q2_K");

/*   0  [w224 bit 2 | w192 | w160 | w128 | w96 | w64 | w32 | w0]  ...  [w255 | ... | w31]
 *  32  [w96 1..0 | w64 | w32 | w0]  ...  [w127 | w95 | w63 | w31]
 *  64  the same for w128 .. w255
 *  96  [s8 3..0 | s0 3..0]  ...  [s15 | s7]                     16 scales of 6 bits, one per 16 weights:
 * 104  [s12 5..4 | s8 | s4 | s0]  ...  [s15 | s11 | s7 | s3]    low four bits, then high two
 * 108  d
 *
 *   w = (d * (s - 32)) * (q - 4) */
typedef struct BlockQ3_K {
    uint8_t hmask[32], qs[64], scales[12], d[2];
} BlockQ3_K;
static_assert(sizeof(BlockQ3_K) == 110, "Q3_K");

/*  0  d
 *  2  dmin
 *  4  [s4 5..4 | s0 5..0]  ...  [s7 | s3]                      8 scales and 8 minima of 6 bits,
 *  8  [m4 5..4 | m0 5..0]  ...  [m7 | m3]                      one pair per 32 weights
 * 12  [m4 3..0 | s4 3..0]  ...  [m7 | s7]
 * 16  [w32 3..0 | w0 3..0]  ...  [w63 | w31]
 * 48  the same for w64 .. w127, and so on
 *
 *  w = (d * s) * q - dmin * m */
typedef struct BlockQ4_K {
    uint8_t d[2], dmin[2], scales[12], qs[128];
} BlockQ4_K;
static_assert(sizeof(BlockQ4_K) == 144, "Q4_K");

/*  0  d
 *  2  dmin
 *  4  scales and minima as in Q4_K
 * 16  [w224 bit 4 | w192 | w160 | w128 | w96 | w64 | w32 | w0]  ...  [w255 | ... | w31]
 * 48  [w32 3..0 | w0 3..0]  ...  [w63 | w31]
 * 80  the same for w64 .. w127, and so on
 *
 *  w = (d * s) * q - dmin * m */
typedef struct BlockQ5_K {
    uint8_t d[2], dmin[2], scales[12], qh[32], qs[128];
} BlockQ5_K;
static_assert(sizeof(BlockQ5_K) == 176, "Q5_K");

/*   0  [w64 3..0 | w0 3..0]  ...  [w127 | w63]
 *  64  the same for w128 .. w255
 * 128  [w96 5..4 | w64 | w32 | w0]  ...  [w127 | w95 | w63 | w31]
 * 160  the same for w128 .. w255
 * 192  [s0 7..0]  ...  [s15]      signed, one per 16 weights
 * 208  d
 *
 *   w = (d * s) * (q - 32) */
typedef struct BlockQ6_K {
    uint8_t ql[128], qh[64];
    int8_t scales[16];
    uint8_t d[2];
} BlockQ6_K;
static_assert(sizeof(BlockQ6_K) == 210, "Q6_K");

/*  0  d
 *  2  [w16 3..0 | w0 3..0]  ...  [w31 | w15]
 *
 *  w = d * quant_iq4[q] */
typedef struct BlockIQ4_NL {
    uint8_t d[2], qs[16];
} BlockIQ4_NL;
static_assert(sizeof(BlockIQ4_NL) == 18, "IQ4_NL");

/*  0  d
 *  2  [s3 5..4 | s2 | s1 | s0]  [s7 | s6 | s5 | s4]            8 scales of 6 bits, one per 32 weights:
 *  4  [s1 3..0 | s0 3..0]  ...  [s7 | s6]                      high two bits, then low four
 *  8  [w16 3..0 | w0 3..0]  ...  [w31 | w15]
 * 24  the same for w32 .. w63, and so on
 *
 *  w = (d * (s - 32)) * quant_iq4[q] */
typedef struct BlockIQ4_XS {
    uint8_t d[2], scales_h[2], scales_l[4], qs[128];
} BlockIQ4_XS;
static_assert(sizeof(BlockIQ4_XS) == 136, "IQ4_XS");

/*  0  e, an e8m0
 *  1  [w16 3..0 | w0 3..0]  ...  [w31 | w15]      e2m1: sign, two bits of exponent, one of mantissa
 *
 *  w = 2^(e - 127) / 2 * quant_e2m1[q] */
typedef struct BlockMXFP4 {
    uint8_t e, qs[16];
} BlockMXFP4;
static_assert(sizeof(BlockMXFP4) == 17, "MXFP4");

/*  0  [s0 7..0]  ...  [s3]      ue4m3, one per 16 weights
 *  4  [w8 3..0 | w0 3..0]  ...  [w15 | w7]      e2m1
 * 12  the same for w16 .. w31, and so on
 *
 *  w = s / 2 * quant_e2m1[q] */
typedef struct BlockNVFP4 {
    uint8_t scales[4], qs[32];
} BlockNVFP4;
static_assert(sizeof(BlockNVFP4) == 36, "NVFP4");

/*  0  d
 *  2  [p0 7..0]  [p1]  [p2]  [p3]    points of grid iq2_xxs (grid.h), of 8 weights each
 *  6  32 bits: [s0 3..0, w30 .. w24 signs, w22 .. w16, w14 .. w8, w6 .. w0]
 * 10  the same for w32 .. w63, and so on
 *
 *  A sign is 1 for minus; that of the last of 8 weights makes the number of minuses even.
 *
 *  w = (d * (2 * s + 1) / 8) * sign * point */
typedef struct BlockIQ2_XXS {
    uint8_t d[2], qs[64];
} BlockIQ2_XXS;
static_assert(sizeof(BlockIQ2_XXS) == 66, "IQ2_XXS");

/*  0  d
 *  2  [p0 7..0]  [w6 .. w0 signs | p0 8]  ...  32 pairs of bytes, of 8 weights each: a point of grid iq2_xs,
 *                                              and signs as in IQ2_XXS
 * 66  [s1 3..0 | s0 3..0]  ...  [s15 | s14]    one per 16 weights
 *
 *  w = (d * (2 * s + 1) / 8) * sign * point */
typedef struct BlockIQ2_XS {
    uint8_t d[2], qs[64], scales[8];
} BlockIQ2_XS;
static_assert(sizeof(BlockIQ2_XS) == 74, "IQ2_XS");

/*  0  d
 *  2  [p0 7..0]  ...  [p31]                    points of grid iq2_s, one per 8 weights
 * 34  [w7 .. w0 signs]  ...  [w255 .. w248]
 * 66  [p3 9..8 | p2 | p1 | p0]  ...  [p31 | .. | p28]
 * 74  [s1 3..0 | s0 3..0]  ...  [s15 | s14]    one per 16 weights
 *
 *  w = (d * (2 * s + 1) / 8) * sign * point */
typedef struct BlockIQ2_S {
    uint8_t d[2], qs[32], signs[32], qh[8], scales[8];
} BlockIQ2_S;
static_assert(sizeof(BlockIQ2_S) == 82, "IQ2_S");

/*  0  d
 *  2  [p0 7..0]  ...  [p63]      points of grid iq3_xxs, one per 4 weights
 * 66  for each 32 weights four bytes, 28 signs and s, as in IQ2_XXS
 *
 *  w = (d * (2 * s + 1) / 4) * sign * point */
typedef struct BlockIQ3_XXS {
    uint8_t d[2], qs[64], signs[32];
} BlockIQ3_XXS;
static_assert(sizeof(BlockIQ3_XXS) == 98, "IQ3_XXS");

/*   0  d
 *   2  [p0 7..0]  ...  [p63]                   points of grid iq3_s, one per 4 weights
 *  66  [p7 .. p0 bit 8]  ...  [p63 .. p56]
 *  74  [w7 .. w0 signs]  ...  [w255 .. w248]
 * 106  [s1 3..0 | s0 3..0]  ...  [s7 | s6]     one per 32 weights
 *
 *   w = (d * (2 * s + 1)) * sign * point */
typedef struct BlockIQ3_S {
    uint8_t d[2], qs[64], qh[8], signs[32], scales[4];
} BlockIQ3_S;
static_assert(sizeof(BlockIQ3_S) == 110, "IQ3_S");

/*  0  d
 *  2  [p0 7..0]  ...  [p31]                       points of grid iq1, one per 8 weights
 * 34  16 bits for each 32 weights: [minus, s 2..0, p3 10..8, p2, p1, p0]  ...
 *
 *  w = (d * (2 * s + 1) / 8) * (8 * point + (minus ? -1 : 1)), with the -1, 0, 1 of the point */
typedef struct BlockIQ1_S {
    uint8_t d[2], qs[32], qh[16];
} BlockIQ1_S;
static_assert(sizeof(BlockIQ1_S) == 50, "IQ1_S");

/*  0  [p0 7..0]  ...  [p31]                                          points of grid iq1, one per 8 weights
 * 32  [minus1, p1 10..8 | minus0, p0 10..8]  ...  [.. p31 | .. p30]
 * 48  16 bits for each 64 weights: [d 3..0, s3 2..0, s2, s1, s0]     one s per 16 weights; the four bits of
 *     [d 7..4, s7 .. s4]  [d 11..8, ..]  [d 15..12, ..]              each are an f16
 *
 *  w = (d * (2 * s + 1) / 8) * (8 * point + (minus ? -1 : 1)) */
typedef struct BlockIQ1_M {
    uint8_t qs[32], qh[16], scales[8];
} BlockIQ1_M;
static_assert(sizeof(BlockIQ1_M) == 56, "IQ1_M");

/*  0  [w128, w96, w64, w32, w0]  ...  [.. w31]          numbers 0, 1, 2, five to a byte: the byte is
 * 32  [w224, w208, w192, w176, w160]  ...  [.. w175]    the fraction 0.w0 w32 w64 w96 w128 of base 3, times
 * 48  [w252, w248, w244, w240]  ...  [.. w243]          256, rounded up
 * 52  d
 *
 *  w = d * (q - 1) */
typedef struct BlockTQ1_0 {
    uint8_t qs[48], qh[4], d[2];
} BlockTQ1_0;
static_assert(sizeof(BlockTQ1_0) == 54, "TQ1_0");

/*  0  [w96 1..0 | w64 | w32 | w0]  ...  [w127 | w95 | w63 | w31]
 * 32  the same for w128 .. w255
 * 64  d
 *
 *  w = d * (q - 1) */
typedef struct BlockTQ2_0 {
    uint8_t qs[64], d[2];
} BlockTQ2_0;
static_assert(sizeof(BlockTQ2_0) == 66, "TQ2_0");

/*  0  d
 *  2  [w7 .. w0]  ...  [w127 .. w120]
 *
 *  w = d * (2 * q - 1) */
typedef struct BlockQ1_0 {
    uint8_t d[2], qs[16];
} BlockQ1_0;
static_assert(sizeof(BlockQ1_0) == 18, "Q1_0");

/*  0  d
 *  2  [w3 1..0 | w2 | w1 | w0]  ...  [w63 | w62 | w61 | w60]
 *
 *  w = d * (q - 1) */
typedef struct BlockQ2_0 {
    uint8_t d[2], qs[16];
} BlockQ2_0;
static_assert(sizeof(BlockQ2_0) == 18, "Q2_0");

/* The values of four bits: a curve fitted to trained weights, and e2m1 doubled into integers. */
#define QUANT_IQ4 -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
#define QUANT_E2M1 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12

/* The list, in three kinds: a FLOAT has one weight per block; a BLOCK has integers with scales; a type that
 * is only KNOWN has a size and no decoder.  Ids are GGUF's, which has removed the missing ones.
 *
 *     FLOAT(name, id, type)
 *     BLOCK(name, id, struct, n_weights, group, has_min)
 *     KNOWN(name, id, n_weights, n_bytes) */
#define QUANT_TYPES(FLOAT, BLOCK, KNOWN)                                                                     \
    FLOAT(F32, 0, float)                                                                                     \
    FLOAT(F16, 1, uint16_t)                                                                                  \
    BLOCK(Q4_0, 2, BlockQ4_0, 32, 32, false)                                                                 \
    BLOCK(Q4_1, 3, BlockQ4_1, 32, 32, true)                                                                  \
    BLOCK(Q5_0, 6, BlockQ5_0, 32, 32, false)                                                                 \
    BLOCK(Q5_1, 7, BlockQ5_1, 32, 32, true)                                                                  \
    BLOCK(Q8_0, 8, BlockQ8_0, 32, 32, false)                                                                 \
    KNOWN(Q8_1, 9, 32, 36)                                                                                   \
    BLOCK(Q2_K, 10, BlockQ2_K, 256, 16, true)                                                                \
    BLOCK(Q3_K, 11, BlockQ3_K, 256, 16, false)                                                               \
    BLOCK(Q4_K, 12, BlockQ4_K, 256, 32, true)                                                                \
    BLOCK(Q5_K, 13, BlockQ5_K, 256, 32, true)                                                                \
    BLOCK(Q6_K, 14, BlockQ6_K, 256, 16, false)                                                               \
    KNOWN(Q8_K, 15, 256, 292)                                                                                \
    BLOCK(IQ2_XXS, 16, BlockIQ2_XXS, 256, 32, false)                                                         \
    BLOCK(IQ2_XS, 17, BlockIQ2_XS, 256, 16, false)                                                           \
    BLOCK(IQ3_XXS, 18, BlockIQ3_XXS, 256, 32, false)                                                         \
    BLOCK(IQ1_S, 19, BlockIQ1_S, 256, 32, false)                                                             \
    BLOCK(IQ4_NL, 20, BlockIQ4_NL, 32, 32, false)                                                            \
    BLOCK(IQ3_S, 21, BlockIQ3_S, 256, 32, false)                                                             \
    BLOCK(IQ2_S, 22, BlockIQ2_S, 256, 16, false)                                                             \
    BLOCK(IQ4_XS, 23, BlockIQ4_XS, 256, 32, false)                                                           \
    KNOWN(I8, 24, 1, 1)                                                                                      \
    KNOWN(I16, 25, 1, 2)                                                                                     \
    KNOWN(I32, 26, 1, 4)                                                                                     \
    KNOWN(I64, 27, 1, 8)                                                                                     \
    KNOWN(F64, 28, 1, 8)                                                                                     \
    BLOCK(IQ1_M, 29, BlockIQ1_M, 256, 16, false)                                                             \
    FLOAT(BF16, 30, uint16_t)                                                                                \
    BLOCK(TQ1_0, 34, BlockTQ1_0, 256, 32, false)                                                             \
    BLOCK(TQ2_0, 35, BlockTQ2_0, 256, 32, false)                                                             \
    BLOCK(MXFP4, 39, BlockMXFP4, 32, 32, false)                                                              \
    BLOCK(NVFP4, 40, BlockNVFP4, 64, 16, false)                                                              \
    BLOCK(Q1_0, 41, BlockQ1_0, 128, 32, false)                                                               \
    BLOCK(Q2_0, 42, BlockQ2_0, 64, 32, false)                                                                \
    FLOAT(FP8_E4M3, 1000, uint8_t) /* not a GGUF id: I8 bytes under the key zgen.fp8.format */

#define QUANT_ID(name, id, ...) QUANT_##name = id,
typedef enum QuantType { QUANT_TYPES(QUANT_ID, QUANT_ID, QUANT_ID) } QuantType;
#undef QUANT_ID

/* The largest block and the most groups in one: sizes of unpack's outputs. */
enum { QUANT_MAX_WEIGHTS = 256, QUANT_MAX_GROUPS = 16 };

#endif
