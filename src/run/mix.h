/* mix: which type each tensor of a model gets under a name like "Q4_K_M".
 *
 * The one table of mixes, for quantize and synth.  Choices are llama.cpp's (without an importance matrix),
 * so that a file has the size and the types that its name promises: more bits for the output, for values
 * and down projections in some layers, and for matrices that eight experts share; another type where the
 * width of a matrix is no multiple of the block.  Its exceptions for Falcon, which zgen does not run, are
 * left out. */
#ifndef ZGEN_RUN_MIX_H
#define ZGEN_RUN_MIX_H

#include "../base/buf.h"
#include "../gguf/gguf.h"

typedef struct Mix {
    const char *name;  // file_type_number returns its number; FP8 has none
    QuantType most;    // of most matrices
    QuantType extra;   // of values and down projections in the favoured layers
    QuantType experts; // of matrices of experts; most: as of all others
    enum {
        FAVOUR_NONE,
        FAVOUR_FIRST,
        FAVOUR_SPREAD
    } favour; // SPREAD: the first, the last, every third between
} Mix;

/* The mix of that name in upper or lower case, or NULL.  "Q4_K" and "Q5_K" are the _M ones. */
const Mix *mix_find(const char *name);

/* "F32 F16 ...", for help: all mixes, or those that can be encoded. */
void mix_list(bool encoded_only, Buf *out);

/* Whether quant_encode has all types of the mix. */
bool mix_can_encode(const Mix *mix);

typedef struct MixModel { // properties of the model that choices depend on
    int n_layer, n_expert;
    bool is_70b; // 80 layers with fewer key/value heads than query heads
} MixModel;

/* Fills types[n].  Tensors that are never quantised (vectors, norms, routers, ...) keep their type. */
void mix_types(const Mix *mix, const MixModel *model, const GgufTensor *tensors, int64_t n, QuantType *types);

#endif
