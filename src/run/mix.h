/* mix: which type each tensor of a model gets under a name like "Q4_K_M".
 *
 * The one table of mixes: quantize and synth follow it.  Choices are llama.cpp's (without an importance
 * matrix), so that a file has the size and the types that its name promises: more bits for the output, for
 * values and down projections in some layers, for what eight experts share; another type where rows hold no
 * whole blocks. Left out are its exceptions for Falcon, which zgen does not run. */
#ifndef ZGEN_RUN_MIX_H
#define ZGEN_RUN_MIX_H

#include "../base/buf.h"
#include "../gguf/gguf.h"

typedef struct Mix {
    const char *name; // file_type_number knows its number; FP8 has none
    QuantType most;   // of most matrices
    QuantType extra;  // of those that the mix favours
    enum {
        FAVOUR_NONE,
        FAVOUR_FIRST,
        FAVOUR_SPREAD
    } favour; // first layers; those and every third, and the last
} Mix;

/* The mix of that name in upper or lower case, or NULL.  "Q4_K" and "Q5_K" are the _M ones. */
const Mix *mix_find(const char *name);
void mix_list(Buf *out); // "F32 F16 ...", for help

typedef struct MixModel { // what a choice depends on beside the tensors
    int n_layer, n_expert;
    bool is_70b; // 80 layers whose heads share keys and values
} MixModel;

/* Fills types[n].  A tensor that no mix touches (vectors, norms, routers, ...) keeps its own. */
void mix_types(const Mix *mix, const MixModel *model, const GgufTensor *tensors, int64_t n, QuantType *types);

#endif
