/* quant: the tensor types: name, size, decoder and unpacking of each, found by its number.
 *
 * Refuses to compute with a type of which only the size is known, and expects no alignment.  The decoders are
 * the reference for every kernel. */
#ifndef ZGEN_GGUF_QUANT_H
#define ZGEN_GGUF_QUANT_H

#include "block.h"

extern const int8_t quant_iq4[16], quant_e2m1[16]; // QUANT_IQ4 and QUANT_E2M1

/* How a product with this type reads its activations. */
typedef enum QuantAct {
    QUANT_ACT_NONE, // no products: integers, or a type without decoder
    QUANT_ACT_F32,  // as floats
    QUANT_ACT_Q8,   // in the shared 8-bit format (exec/act.h): the type's weights are integers times a scale
} QuantAct;

typedef struct QuantTraits {
    const char *name; // "Q4_K", as users know it
    int n_weights;    // per block
    size_t n_bytes;   // per block
    QuantAct act;
    /* Decodes n_weights * n_blocks values.  NULL where act is NONE. */
    void (*decode)(const void *blocks, size_t n_blocks, float *out);

    /* The rest is for types with act Q8; elsewhere it is 0, false, NULL. */
    int group;    // weights that share a scale: 16 or 32
    bool has_min; // some min may differ from 0
    /* Unpacks one block into q[n_weights], scale[n_weights / group], min[n_weights / group] (always
     * written).  Any bytes give integers in range; a scale or min may be NaN or Inf where the file's is. */
    void (*unpack)(const void *block, int8_t *q, float *scale, float *min);
} QuantTraits;

#ifdef __cplusplus
extern "C" {
#endif

/* The traits of a type; NULL for a number that is not in the list. */
const QuantTraits *quant_traits(uint32_t type);

/* The name of a type that GGUF had once and has no more; NULL for other numbers. */
const char *quant_withdrawn(uint32_t type);

#ifdef __cplusplus
}
#endif
#endif
