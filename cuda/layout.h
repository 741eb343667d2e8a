/* layout: how a weight matrix lies in device memory.
 *
 * A row of n_in weights is cut into segments of equal length, and a segment is a few planes, each contiguous, so that a warp
 * whose lane i works on chunk i (32 weights) reads every plane 16, 8 or 4 bytes a lane, without gaps.  The bytes are those of
 * the file in another order: nothing is rounded, nothing grows but the padding of a segment to 16 bytes.
 *
 *     bits  planes of a segment of n chunks
 *       2   two[n][8]
 *       3   two[n][8], one[n][4]
 *       4   low[n][16]
 *       5   low[n][16], one[n][4]
 *       6   low[n][16], two[n][8]
 *       8   even[n][16], odd[n][16]
 *
 * and behind them the heads: the blocks' scale bytes as they stand in the file, for n / chunks_per_head blocks.
 *     low   byte b of word k: low nibble  = low 4 bits of weight 4k + b of the chunk, high nibble = those of weight 16 + 4k + b
 *     two   word h, bits 2i.. of byte b:    next 2 bits of weight 16h + 4i + b
 *     one   bit i of byte b of the word:    next bit of weight 4i + b
 *     even  bytes of weights 0..15, odd     of weights 16..31
 *
 * A weight is its bits as an unsigned number q: less `zero`, or looked up in a table of 16 signed bytes, by type.
 * Types multiplied as floats (F32, F16, BF16, FP8) stay as they are, a segment being a stretch of the row. */
#ifndef ZGEN_CUDA_LAYOUT_H
#define ZGEN_CUDA_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

enum { CHUNK_WEIGHTS = 32, SEGMENT_MAX_BYTES = 2560 };

typedef struct Layout {
    int n_segments;       // per row
    int segment_chunks;   // chunks per segment
    size_t segment_bytes; // a multiple of 16
} Layout;

#endif
