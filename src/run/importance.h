/* importance: the sums of squares of the inputs of each matrix over a text, for an importance matrix.
 *
 * The text is computed in windows of n_ctx tokens, as llama-imatrix does it; every position counts.  Matrices
 * of layers are collected, the output matrix only if it is wanted.  Experts have sums of their own, over the
 * rows that were routed to them.  A tensor that holds several matrices with one input (Q, K and V) counts once. */
#ifndef ZGEN_RUN_IMPORTANCE_H
#define ZGEN_RUN_IMPORTANCE_H

#include "engine.h"
#include "../gguf/imatrix.h"

typedef struct ImportanceTask {
    const int32_t *ids; // [n_windows * n_ctx]
    int n_ctx, n_windows;
    int bos;                              // replaces the first token of each window; -1: none
    bool with_output;                     // output.weight, too
    bool (*go_on)(void *arg, int n_done); // after each window; false ends the run
    void *arg;
} ImportanceTask;

typedef struct Importance {
    ImatrixSums *sums; // [n]; names are the plan's
    size_t n;
} Importance;

/* g has keeps_inputs.  false: ERR_RUN, or code 0 where go_on or EngineConfig.stop ended it.  importance_free
 * releases *out in both cases. */
bool importance_run(Engine *g, const ImportanceTask *t, Importance *out, Err *e);
void importance_free(Importance *p);

#endif
