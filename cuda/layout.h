/* layout: how a weight matrix lies in device memory.
 *
 * A row of n_in weights is cut into segments of equal length, and a segment is a few planes, each contiguous,
 * so that a warp whose lane i works on chunk i (32 weights) reads every plane 16, 8 or 4 bytes a lane,
 * without gaps.  The bytes are those of the file in another order: nothing is rounded, nothing grows but the
 * padding of a segment to 16 bytes.
 *
 *     bits  planes of a segment of n chunks
 *       2   two[n][8]
 *       3   two[n][8], one[n][4]
 *       4   low[n][16]
 *       5   low[n][16], one[n][4]
 *       6   low[n][16], two[n][8]
 *       8   even[n][16], odd[n][16]
 *
 *     low   byte b of word k: low nibble  = low 4 bits of weight 4k + b of the chunk, high nibble = those of
 *           weight 16 + 4k + b; but where the bits go through a table, nibble j of word k = weight 8k + j
 *     two   word h, bits 2i.. of byte b:    next 2 bits of weight 16h + 4i + b
 *     one   bit i of byte b of the word:    next bit of weight 4i + b
 *     even  bytes of weights 0..15, odd     of weights 16..31
 *
 * and behind them the heads: the scale bytes of each file block, in the order of the blocks.
 *
 *     Q4_0 Q5_0 Q8_0 IQ4_NL    d
 *     Q4_1 Q5_1                d, m
 *     MXFP4                    e
 *     NVFP4                    s[4]
 *     Q2_K                     d, dmin, scales[16]
 *     Q3_K                     d, pairs
 *     Q4_K Q5_K                d, dmin, pairs
 *     Q6_K                     d, scales[16]
 *     IQ4_XS                   d, then 6 bits per chunk, from the lowest on
 *
 *     pairs  12 bits for each of the block's 8 chunks, two six-bit numbers a | b << 6 (scales of its halves,
 * or scale and minimum): first the high 4 bits, a nibble per chunk, then the low 8, a byte per chunk
 *
 * A weight is its bits as an unsigned number q: less `ZERO`, or looked up in a table of 16 signed bytes, by
 * type (quant.cuh); 8-bit weights are signed as they stand.  Types multiplied as floats (F32, F16, BF16, FP8)
 * stay as they are, a segment being a stretch of the row. */
#ifndef ZGEN_CUDA_LAYOUT_H
#define ZGEN_CUDA_LAYOUT_H

#include "../src/gguf/quant.h"

enum { CHUNK_WEIGHTS = 32, SEGMENT_MAX_BYTES = 2560 };

typedef struct Layout {
    int n_segments;       // per row, each of n_in / n_segments weights
    int segment_chunks;   // chunks per segment; 0 for float types
    size_t segment_bytes; // a multiple of 16, at most SEGMENT_MAX_BYTES
} Layout;

#ifdef __cplusplus
extern "C" {
#endif

/* The layout of rows of n_in > 0 weights, a multiple of the type's block, of a type that can be multiplied
 * with: as few segments as equal length allows.  Segments hold whole file blocks; segments of floats a
 * multiple of 8 weights if n_in is one. */
Layout layout_of(QuantType type, int n_in);

#ifdef __cplusplus
}
#endif
#endif
