/* kv: the types in which keys and values are kept, and the bits of each element.
 *
 * Rows of elements lie one behind the other, and the scales of q8_0 behind all of them, so that 16 bytes are
 * 16 elements (cache.h has the order of rows):
 *
 *     f16, f32, fp8   | elements of row 0 | of row 1 | ..
 *     q8_0            | int8 of row 0     | of row 1 | ..  | scales of row 0 | of row 1 | ..
 *                       a byte each                          an f16 for each 32 elements
 *
 * q8_0 (values d * q, exact in f32), for each 32 elements x, in f32:
 *
 *     amax = max |x|
 *     d    = amax / 127, rounded to f16
 *     d not finite:   q = 0, and d * q is NaN, so that the damage shows in all that follows
 *     d = 0:          q = 0
 *     otherwise:      q = round_half_even(x * (1 / d)), -127..127
 *
 * fp8 is E4M3 without a scale: magnitudes beyond 448 become 448, half to even.  Its relative precision is
 * that of a float over 2^-6..448, a range that keys and values seldom leave.
 *
 * Every executor writes the bits of kv_put for the same x. */
#ifndef ZGEN_EXEC_KV_H
#define ZGEN_EXEC_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "../base/float.h"

typedef enum KvType { KV_F16, KV_F32, KV_Q8_0, KV_FP8, KV_N_TYPES } KvType;

enum { KV_SCALED = 32 }; // elements of q8_0 that share a scale

const char *kv_type_name(KvType type); // as --kv takes it
bool kv_type_find(const char *name, KvType *out);

/* The width of a row must be a multiple of this. */
int kv_type_multiple(KvType type);

/* Bytes of an element with its share of the scale, and of n elements. */
double kv_element_bytes(KvType type);
size_t kv_row_bytes(KvType type, int n);

/* Rows of elements, and their scales. */
typedef struct KvRows {
    uint8_t *cells;   // elements
    uint16_t *scales; // f16, one for KV_SCALED elements; q8_0 only
} KvRows;

/* Keeps x[n] as the elements from number `at` on, a multiple of kv_type_multiple, as n is. */
void kv_put(KvType type, const float *x, int n, KvRows rows, size_t at);

/* The value of element number `at`. */
float kv_get(KvType type, KvRows rows, size_t at);

/* ---- The arithmetic of q8_0 ---- */

/* d as f16, from the bits of amax; magnitudes are ordered as their bits, and the bits of a NaN are above. */
HOST_DEVICE static inline uint16_t kv_scale(uint32_t amax_bits) {
    return f32_to_f16(f32_from_bits(amax_bits) / 127);
}

/* 1 / d, or 0 where all q are 0. */
HOST_DEVICE static inline float kv_inverse(uint16_t scale) {
    float d = f16_to_f32(scale);
    return d > 0 ? 1 / d : 0;
}

/* q.  The last bit of 1.5 * 2^23 weighs 1, so that adding it rounds; the limits are applied between product
 * and sum, which no compiler may then contract. */
HOST_DEVICE static inline int8_t kv_quantize(float x, float inverse) {
    float y = inverse > 0 ? x * inverse : 0;
    y = y > 127 ? 127 : y < -127 ? -127 : y;
    return (int8_t)(f32_to_bits(y + 0x1.8p23f) - f32_to_bits(0x1.8p23f));
}

#endif
