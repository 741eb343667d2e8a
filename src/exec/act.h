/* act: the 8-bit form of activations, one for all executors, and the reference product.
 *
 * A row of n floats (n % 32 == 0) becomes int8 numbers with one f32 scale per 32 of them, and the sums of
 * each 16, which types with a minimum need.  Every fast kernel must give the bits of the two functions here.
 * Any machine can, because they use only what IEEE 754 fixes: f32 products and quotients, rounding to the
 * nearest even integer, exact integer sums, and fused multiply-adds in a stated order.
 *
 * The one trick: the order of floats is the order of their bits, so the largest magnitude is a maximum of
 * integers, in which an Inf or a NaN wins and cannot hide. */
#ifndef ZGEN_EXEC_ACT_H
#define ZGEN_EXEC_ACT_H

#include <stddef.h>
#include <stdint.h>
#include "../gguf/quant.h"

enum { ACT8_GROUP = 32, ACT8_SUM = 16 }; // values that share a scale, values that share a sum

/* Below this magnitude a whole group counts as zero: 127 / amax would leave the range of f32. */
#define ACT8_TINY 0x1p-100f

typedef struct Act8 { // a view; the arrays are 64-byte aligned if the row is
    int8_t *q;        // [n], each -127..127
    float *d;         // [n / 32], value = d * q
    int16_t *sum;     // [n / 16], of q
} Act8;

/* Bytes of a row of n values, a multiple of 64: rows laid back to back stay aligned. */
size_t act8_bytes(int n);

/* The row of n values that starts at the 64-byte aligned address row. */
Act8 act8_view(void *row, int n);

/* Quantises x[n].  For each group of 32, in f32:
 *
 *     amax = max |x|
 *     amax < ACT8_TINY:    d = 0, q = 0
 *     amax not finite:     d = NaN, q = 0, so that the damage shows in all that follows
 *     otherwise:           d = amax / 127, q = round_half_even(x * (127 / amax)) */
void act8_quantize(const float *x, int n, Act8 out);

/* The product of one weight row of a type with act Q8 and one activation row, both of n values; n is a
 * multiple of 32 and of the type's block.  From acc = 0, for each of the type's groups in order:
 *
 *     isum = sum of q_w * q_x                        exact integer
 *     acc  = fma(isum, scale_w * d_x, acc)
 *     acc  = fma(sum of q_x, -min_w * d_x, acc)      only where the type has_min
 *
 * Each product with d_x rounds to f32 before the fma; there is no other rounding. */
float act8_dot(const QuantTraits *t, const void *row, int n, Act8 x);

#endif
