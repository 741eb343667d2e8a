/* quant: see quant.h.
 *
 * One decoder serves all block types.  The order of its multiplications does not matter because only the
 * final subtraction rounds: an f16 scale has 11 bits, sub-scale and integer together at most 12, and a
 * product of up to 24 bits is exact in f32. */
#include "quant.h"
#include "unpack.h"

#include <string.h>

const int8_t quant_iq4[16] = {QUANT_IQ4};
const int8_t quant_e2m1[16] = {QUANT_E2M1};

static void decode_blocks(QuantType type, const uint8_t *blocks, size_t n_blocks, float *out) {
    const QuantTraits *t = quant_traits(type);
    int8_t q[QUANT_MAX_WEIGHTS];
    float scale[QUANT_MAX_GROUPS], min[QUANT_MAX_GROUPS];
    for (size_t b = 0; b < n_blocks; b++, out += t->n_weights) {
        t->unpack(blocks + b * t->n_bytes, q, scale, min);
        for (int g = 0; g < t->n_weights / t->group; g++)
            for (int i = g * t->group; i < (g + 1) * t->group; i++) out[i] = scale[g] * (float)q[i] - min[g];
    }
}

static void decode_F32(const void *blocks, size_t n_blocks, float *out) {
    memcpy(out, blocks, n_blocks * sizeof *out);
}

static void decode_F16(const void *blocks, size_t n_blocks, float *out) {
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n_blocks; i++) out[i] = load_f16(p + 2 * i);
}

static void decode_BF16(const void *blocks, size_t n_blocks, float *out) {
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n_blocks; i++) out[i] = bf16_to_f32(load_u16(p + 2 * i));
}

static void decode_FP8_E4M3(const void *blocks, size_t n_blocks, float *out) {
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n_blocks; i++) out[i] = e4m3_to_f32(p[i]);
}

/* From the list of block.h: a decoder per block type, the limits of each type, the traits. */
#define NOTHING(...)
#define DECODER(type, ...)                                                                                   \
    static void decode_##type(const void *blocks, size_t n_blocks, float *out) {                             \
        decode_blocks(QUANT_##type, blocks, n_blocks, out);                                                  \
    }
QUANT_TYPES(NOTHING, DECODER, NOTHING)

#define LIMITS(type, id, block, n_weights, group, has_min)                                                   \
    static_assert(n_weights <= QUANT_MAX_WEIGHTS && n_weights / group <= QUANT_MAX_GROUPS, #type);           \
    static_assert(_Alignof(block) == 1 && n_weights % 32 == 0 && (group == 16 || group == 32), #type);
QUANT_TYPES(NOTHING, LIMITS, NOTHING)

#define TRAITS(...)                                                                                          \
    {                                                                                                        \
        static const QuantTraits t = {__VA_ARGS__};                                                          \
        return &t;                                                                                           \
    }
#define FLOAT(type, id, c_type)                                                                              \
    case id:                                                                                                 \
        TRAITS(#type, 1, sizeof(c_type), QUANT_ACT_F32, decode_##type, 0, false, NULL)
#define BLOCK(type, id, block, n_weights, group, has_min)                                                    \
    case id:                                                                                                 \
        TRAITS(#type, n_weights, sizeof(block), QUANT_ACT_Q8, decode_##type, group, has_min, unpack_##type)
#define KNOWN(type, id, n_weights, n_bytes)                                                                  \
    case id:                                                                                                 \
        TRAITS(#type, n_weights, n_bytes, QUANT_ACT_NONE, NULL, 0, false, NULL)
const QuantTraits *quant_traits(uint32_t type) {
    switch (type) { QUANT_TYPES(FLOAT, BLOCK, KNOWN) }
    return NULL;
}

const char *quant_withdrawn(uint32_t type) {
    static const char *const names[] = {
        [4] = "Q4_2",      [5] = "Q4_3",        [31] = "Q4_0_4_4",   [32] = "Q4_0_4_8",
        [33] = "Q4_0_8_8", [36] = "IQ4_NL_4_4", [37] = "IQ4_NL_4_8", [38] = "IQ4_NL_8_8"};
    return type < sizeof names / sizeof *names ? names[type] : NULL;
}
