/* encode: weights into blocks, the inverse of quant.h's decoders.
 *
 * One search serves all types with a scale: the least squared error over scales, minima and integers, each
 * rounded as it is stored.  The search is deterministic: the same values give the same bytes on every machine
 * and with any number of threads.
 *
 * Types that zgen only reads are refused (quant_can_encode).  Values must be finite.  The result may not be:
 * a weight of 1e9 has no f16 scale; the caller checks by decoding. */
#ifndef ZGEN_GGUF_ENCODE_H
#define ZGEN_GGUF_ENCODE_H

#include "quant.h"

bool quant_can_encode(QuantType type);

/* Encodes x[n_weights * n_blocks] into blocks[n_bytes * n_blocks].  F16, BF16 and FP8 round half to even, FP8
 * saturates at 448; block types get the blocks of least squared error that the search of encode.c finds.
 * importance: factors of the squared errors, [n_weights * n_blocks], finite and not negative; NULL: none. */
void quant_encode(QuantType type, const float *x, const float *importance, size_t n_blocks, void *blocks);

/* Encodes a row of n values as E4M3 and returns its scale (value = scale * code): the largest magnitude
 * becomes the largest code.  The scale is 0 for a row of magnitudes below 2^-100.  Values that are not finite
 * stay so. */
float quant_fp8_row(const float *x, size_t n, uint8_t *out);

#endif
