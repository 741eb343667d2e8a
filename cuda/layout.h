/* layout: how a weight matrix lies in device memory.
 *
 * A matrix is cut into tiles of 16 rows.  A warp multiplies a tile in one step, and its bytes are stored in
 * the order in which the 32 lanes read them: plane after plane, in each plane vectors of 16 bytes, lane after
 * lane.  The bytes are those of the file in another order: nothing is rounded, and only the last tiles are
 * larger, filled up with zeros. Tiles follow each other along the row; that is a tile row; then come the
 * other tile rows, then the other experts.
 *
 * Lane 4g + i has rows g and 8 + g of the tile (h = 0 and 1 below): the lanes' rows in mma.m16n8k32.
 *
 * Block types: 256 weights of each row, that is 8 chunks of 32.  Of a chunk, lane 4g + i has the weights
 * 4i..4i+3 ("first") and 16+4i..16+4i+3 ("second").  Planes by the bits of a number:
 *
 *     bits  planes
 *       1   one
 *       2   two
 *       3   two, one
 *       4   low
 *       5   low, one
 *       6   low, two
 *       8   byte
 *
 *     low   vector 2h + c / 4: words c / 2 % 2 * 2 and the next, the low 4 bits of the first and of the
 *           second weights, low nibbles of chunk c, high nibbles of c + 1 (c even); but where the bits go
 *           through a table, word c % 4: nibbles 0..3 the first weights of chunk c, 4..7 the second
 *     two   vector h, word c / 2, bits 2f.. of byte b:  next 2 bits of weight b; f = c % 2 * 2, +1 for the
 *           second
 *     one   half a vector h: word 0 for the first weights, 1 for the second, bit c of byte b: next bit
 *     byte  vector c, words h and 2 + h: first and second weights
 *
 * and behind them the head: the scales of the file.  With j = 0, 1 for the chunks 2i and 2i + 1 of lane 4g +
 * i, so that each lane has the scales of its results:
 *
 *     Q4_0 Q5_0 Q8_0 IQ4_NL    d[lane][h][j]
 *     Q2_0 Q1_0 TQ2_0          d[g][chunk / 2][h], d[g][chunk / 4][h], d[g][h]
 *     Q4_1 Q5_1                {d, m}[lane][h][j]
 *     MXFP4                    e[lane][h][j]
 *     NVFP4                    s[lane][h][j][2]
 *     Q2_K                     {d, dmin}[g][h], scales[lane][h][j][2]
 *     Q6_K                     d[g][h], scales[lane][h][j][2]
 *     Q3_K                     d[g][h], pairs (scales of the two halves)
 *     Q4_K Q5_K                {d, dmin}[g][h], pairs (scale, minimum)
 *     IQ4_XS                   d[g][h], low nibbles of the scales [lane][h], their high 2 bits [g][h] from
 *                              chunk 0 on
 *
 *     pairs  two six-bit numbers a, b: byte 2j + h of word[lane] = a | (b >> 4) << 6, then nibble 2h + j of
 *            short[lane] = b & 15
 *
 * The types of grids (IQ1, IQ2, IQ3) and TQ1_0 have the fields of their blocks instead, in the order of
 * device/fields.h.
 *
 * Types multiplied as floats (F32, F16, BF16, FP8): 64, 128 or 256 weights of each row; vector 4h + k of lane
 * 4g + i begins at weight (4k + i) * 16 / size. */
#ifndef ZGEN_CUDA_LAYOUT_H
#define ZGEN_CUDA_LAYOUT_H

#include "../src/gguf/quant.h"

enum { CHUNK_WEIGHTS = 32, TILE_ROWS = 16, TILE_CHUNKS = 8, TILE_MAX_BYTES = 4352 };

typedef struct Layout {
    int tile_weights; // of a row in a tile
    int n_tiles;      // along a row
    int n_tile_rows;  // rows of tiles, of each expert
    int tile_bytes;   // a multiple of 16, at most TILE_MAX_BYTES
} Layout;

#ifdef __cplusplus
extern "C" {
#endif

/* The layout of n_out > 0 rows of n_in > 0 weights, a multiple of the type's block, of a type that can be
 * multiplied with. */
Layout layout_of(QuantType type, int n_in, int n_out);

#ifdef __cplusplus
}
#endif
#endif
