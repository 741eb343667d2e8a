/* hparams: the numbers of a model, read from its metadata and checked once.
 *
 * Everything a family needs to lay out its tape: sizes, epsilons, rotary parameters.  Values that make no
 * sense (zero layers, heads that do not divide, an epsilon of NaN) are refused here, before any weight is
 * looked at, so that the code behind can divide and allocate without asking. */
#ifndef ZGEN_PLAN_HPARAMS_H
#define ZGEN_PLAN_HPARAMS_H

#include <stdint.h>
#include "../gguf/gguf.h"

enum { MAX_LAYERS = 4096, MAX_EXPERTS = 4096, MAX_HEAD_DIM = 1024, MAX_VOCAB = 1 << 20 };

typedef struct LayerDims {
    int n_head, n_kv_head; // query heads, key/value heads; n_kv_head divides n_head
    int n_ff;              // width of the feed-forward network
} LayerDims;

typedef struct Hparams {
    char arch[64];      // general.architecture, the prefix of all keys
    int n_layer;        // block_count
    int n_embd;         // embedding_length
    int n_vocab;        // rows of token_embd.weight
    int n_ctx_train;    // context_length
    int head_dim;       // attention.key_length, or n_embd / n_head
    int n_rot;          // rope.dimension_count: leading dimensions of a head that are rotated, even
    float rope_base;    // rope.freq_base
    float rope_scale;   // positions are multiplied by this: 1 / rope.scaling.factor for linear scaling
    float norm_eps;     // attention.layer_norm_rms_epsilon
    float attn_scale;   // of the scores: attention.scale, or 1 / sqrt(head_dim)
    int n_expert;       // expert_count, 0 for a dense model
    int n_expert_used;  // expert_used_count
    float expert_scale; // expert_weights_scale: the chosen experts' weights are multiplied by this
    LayerDims *layer;   // [n_layer]
} Hparams;

/* Reads general.architecture into out->arch; the rest stays zero. */
bool hparams_read_arch(const Gguf *g, Hparams *out, Err *e);

/* Reads the hyper-parameters of g, arch too.  false: ERR_MODEL naming the key.  hparams_free releases what it
 * filled. */
bool hparams_read(const Gguf *g, Hparams *out, Err *e);
void hparams_free(Hparams *h);

#endif
