/* kv: the keys and values that attention remembers, and how each number of them is kept.
 *
 * One block of memory, [layer][K, V][sequence][head] histories.  The history of one head is contiguous; it
 * has kv_positions(n_ctx) positions of head_dim elements each:
 *
 *     f16, f32, fp8   | elements of position 0 | of 1 | ..
 *     q8_0            | int8 of position 0     | of 1 | ..  | scales of position 0 | of 1 | ..
 *                       head_dim bytes each                   head_dim / 32 f16 each
 *
 * The scales of q8_0 lie behind all integers, so that 16 bytes are 16 elements; and as a history is a whole
 * number of 16 positions, whatever belongs to 16 of them begins at a multiple of 16 bytes.
 *
 * q8_0 (values d * q, exact in f32), for each 32 elements x, in f32:
 *
 *     amax = max |x|
 *     d    = amax / 127, rounded to f16
 *     d not finite:   q = 0, and d * q is NaN, so that the damage shows in all that follows
 *     d = 0:          q = 0
 *     otherwise:      q = round_half_even(x * (1 / d)), -127..127
 *
 * fp8 is E4M3 without a scale: what lies beyond 448 becomes 448, half to even.  It has a float's relative
 * precision over 2^-6..448, which keys and values seldom leave; see the numbers in scripts/workshop/LOG.md.
 *
 * Every executor writes the bits of kv_put, for the same x.  Truncating a sequence needs nothing, as
 * positions beyond its length are never read. */
#ifndef ZGEN_EXEC_KV_H
#define ZGEN_EXEC_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "../base/float.h"

typedef enum KvType { KV_F16, KV_F32, KV_Q8_0, KV_FP8, KV_N_TYPES } KvType;

enum { KV_SCALED = 32, KV_TILE = 16 }; // elements of q8_0 that share a scale, positions that begin aligned

const char *kv_type_name(KvType type); // as --kv takes it
bool kv_type_find(const char *name, KvType *out);

/* head_dim must be a multiple of this. */
int kv_type_unit(KvType type);

/* Bytes of an element with its share of the scale, and of n elements. */
double kv_element_bytes(KvType type);
size_t kv_row_bytes(KvType type, int n);

/* Positions of a history that serves n_ctx of them. */
size_t kv_positions(int n_ctx);

/* The keys or the values of one head. */
typedef struct KvHistory {
    uint8_t *cells;   // [positions][head_dim] elements
    uint16_t *scales; // [positions][head_dim / KV_SCALED] f16; q8_0 only
} KvHistory;

/* The history of `positions` positions whose memory begins at base, at a multiple of 4 bytes. */
KvHistory kv_history(KvType type, void *base, size_t positions, int head_dim);

/* Keeps x[head_dim] at a position. */
void kv_put(KvType type, const float *x, int head_dim, KvHistory h, size_t position);

/* What element i, counted through all positions, says. */
float kv_get(KvType type, KvHistory h, size_t i);

/* ---- The numbers of q8_0 ---- */

/* d as f16, of the bits of amax; the greatest of bits is that of magnitudes, and a NaN's is greater. */
HOST_DEVICE static inline uint16_t kv_scale(uint32_t amax_bits) {
    return f32_to_f16(f32_from_bits(amax_bits) / 127);
}

/* 1 / d, or 0 where all q are 0. */
HOST_DEVICE static inline float kv_inverse(uint16_t scale) {
    float d = f16_to_f32(scale);
    return d > 0 ? 1 / d : 0;
}

/* q.  The last bit of 1.5 * 2^23 weighs 1, so that adding it rounds; the limits stand between product and
 * sum, which no compiler may then contract. */
HOST_DEVICE static inline int8_t kv_quantize(float x, float inverse) {
    float y = inverse > 0 ? x * inverse : 0;
    y = y > 127 ? 127 : y < -127 ? -127 : y;
    return (int8_t)(f32_to_bits(y + 0x1.8p23f) - f32_to_bits(0x1.8p23f));
}

#endif
