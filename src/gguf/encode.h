/* encode: weights into blocks, the way back of quant.h's decoders.
 *
 * One search serves all types that have a scale: the least squared error over scales, minima and integers, as
 * the decoder will see them.  It is deterministic: the same values give the same bytes on every machine and
 * with any number of threads.
 *
 * What it refuses: types that zgen only reads (quant_can_encode).  It expects finite values; whether the
 * result is finite too (a weight of 1e9 has no f16 scale) is for the caller to see, who decodes it again
 * anyway. */
#ifndef ZGEN_GGUF_ENCODE_H
#define ZGEN_GGUF_ENCODE_H

#include "quant.h"

bool quant_can_encode(QuantType type);

/* Encodes x[n_weights * n_blocks] into blocks[n_bytes * n_blocks].  F16 and BF16 round half to even, FP8 too
 * and saturates at 448; block types leave no smaller error within the search of encode.c. */
void quant_encode(QuantType type, const float *x, size_t n_blocks, void *blocks);

/* Encodes a row of n values as E4M3 and returns its scale (value = scale * code): its largest magnitude lands
 * on the largest code.  0 for a row of zeros, and of what is as good as that.  Values that are not finite
 * stay so. */
float quant_fp8_row(const float *x, size_t n, uint8_t *out);

#endif
