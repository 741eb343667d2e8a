/* hparams: the numbers that every model has, read from its metadata and checked once.
 *
 * Values that make no sense (zero layers, no width) are refused here, before any weight is looked at, so that
 * later code can divide and allocate without further checks.  Numbers that only some families have (heads,
 * rotation, experts) a family reads itself, through the getters of keys.h. */
#ifndef ZGEN_PLAN_HPARAMS_H
#define ZGEN_PLAN_HPARAMS_H

#include <stdint.h>
#include "../gguf/gguf.h"

enum { MAX_LAYERS = 4096, MAX_VOCAB = 1 << 20, HPARAMS_ARCH = 64 };

typedef struct Hparams {
    char arch[HPARAMS_ARCH]; // general.architecture, the prefix of all keys
    int n_layer;             // layers that are run: block_count less n_nextn
    int n_nextn;     // nextn_predict_layers: the last ones, which guess further tokens and are not run
    int n_embd;      // embedding_length
    int n_vocab;     // rows of token_embd.weight
    int n_vocab_key; // vocab_size, which some writers leave as it was when they add or remove tokens
    int n_ctx_train; // context_length
} Hparams;

/* Reads general.architecture.  false: ERR_MODEL, it is missing or not a sensible name. */
bool hparams_read_arch(const Gguf *g, char arch[HPARAMS_ARCH], Err *e);

/* Reads the hyper-parameters of g, arch too.  false: ERR_MODEL naming the key. */
bool hparams_read(const Gguf *g, Hparams *out, Err *e);

#endif
