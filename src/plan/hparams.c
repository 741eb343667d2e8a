/* hparams: see hparams.h.  Keys are "<arch>.<name>"; a per-layer value may be one number or an array. */
#include "hparams.h"
#include "../base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A reader that stops at the first failure, so that a list of keys reads as a list. */
typedef struct Reader {
    const Gguf *g;
    const Hparams *h;
    Err *e;
    bool ok;
    char key[128];
} Reader;

static const char *key_of(Reader *r, const char *name) {
    snprintf(r->key, sizeof r->key, "%s.%s", r->h->arch, name);
    return r->key;
}

static void read_int(Reader *r, const char *name, int64_t min, int64_t max, int *out) {
    int64_t value = *out;
    if (r->ok) r->ok = gguf_get_int(r->g, key_of(r, name), min, max, &value, r->e);
    if (r->ok) *out = (int)value;
}

static void read_float(Reader *r, const char *name, float min, float max, float *out) {
    if (r->ok) r->ok = gguf_get_float(r->g, key_of(r, name), min, max, out, r->e);
}

static void need(Reader *r, const char *name) {
    if (r->ok && !gguf_has(r->g, key_of(r, name)))
        r->ok = err_set(r->e, ERR_MODEL, "%s: metadata key '%s' is missing; the file is not a complete model",
                        gguf_label(r->g), r->key);
}

/* A value per layer: absent (all take fallback), one number for all, or an array of n_layer. */
static void read_per_layer(Reader *r, const char *name, int64_t max, int fallback, size_t offset) {
    const int64_t *values;
    size_t n;
    if (!r->ok || !(r->ok = gguf_get_ints(r->g, key_of(r, name), &values, &n, r->e))) return;
    if (n > 1 && n != (size_t)r->h->n_layer) {
        r->ok = err_set(r->e, ERR_MODEL, "%s: '%s' has %zu values for %d layers", gguf_label(r->g), r->key, n,
                        r->h->n_layer);
        return;
    }
    for (int i = 0; i < r->h->n_layer; i++) {
        int64_t value = n == 0 ? fallback : values[n == 1 ? 0 : i];
        if (value < 1 || value > max) {
            r->ok = err_set(r->e, ERR_MODEL, "%s: '%s' is %lld in layer %d; expected 1 to %lld",
                            gguf_label(r->g), r->key, (long long)value, i, (long long)max);
            return;
        }
        *(int *)((char *)&r->h->layer[i] + offset) = (int)value;
    }
}

bool hparams_read_arch(const Gguf *g, Hparams *h, Err *e) {
    *h = (Hparams){0};
    GgufString arch = {0};
    if (!gguf_get_string(g, "general.architecture", &arch, e)) return false;
    if (arch.n == 0)
        return err_set(e, ERR_MODEL,
                       "%s: metadata key 'general.architecture' is missing; the file is not a model",
                       gguf_label(g));
    if (arch.n >= sizeof h->arch || memchr(arch.data, 0, arch.n))
        return err_set(e, ERR_MODEL, "%s: general.architecture is not a sensible name", gguf_label(g));
    memcpy(h->arch, arch.data, arch.n);
    h->arch[arch.n] = 0;
    return true;
}

static void read_vocab(Reader *r, Hparams *h) {
    if (!r->ok) return;
    if (gguf_n_tensors(r->g) == 0) { // metadata alone
        need(r, "vocab_size");
        read_int(r, "vocab_size", 1, MAX_VOCAB, &h->n_vocab);
        return;
    }
    const GgufTensor *embd = gguf_find_tensor(r->g, "token_embd.weight");
    if (!embd) {
        r->ok = err_set(r->e, ERR_MODEL,
                        "%s: tensor 'token_embd.weight' is missing; the file is not a complete model",
                        gguf_label(r->g));
        return;
    }
    h->n_vocab = (int)embd->ne[1];
    if (h->n_vocab > MAX_VOCAB) {
        r->ok = err_set(r->e, ERR_MODEL, "%s: %d tokens are more than the %d that are supported",
                        gguf_label(r->g), h->n_vocab, MAX_VOCAB);
        return;
    }
    int n_vocab = h->n_vocab;
    read_int(r, "vocab_size", 1, INT32_MAX, &n_vocab);
    if (r->ok && n_vocab != h->n_vocab)
        r->ok = err_set(r->e, ERR_MODEL, "%s: '%s.vocab_size' is %d but token_embd.weight has %d rows",
                        gguf_label(r->g), h->arch, n_vocab, h->n_vocab);
}

static void read_heads(Reader *r, Hparams *h) {
    need(r, "attention.head_count");
    read_per_layer(r, "attention.head_count", 65536, 0, offsetof(LayerDims, n_head));
    read_per_layer(r, "attention.head_count_kv", 65536, 1, offsetof(LayerDims, n_kv_head));
    if (!r->ok) return;
    if (!gguf_has(r->g, r->key)) // absent: every query head has its own keys and values
        for (int i = 0; i < h->n_layer; i++) h->layer[i].n_kv_head = h->layer[i].n_head;
    for (int i = 0; i < h->n_layer && r->ok; i++)
        if (h->layer[i].n_head % h->layer[i].n_kv_head != 0)
            r->ok = err_set(r->e, ERR_MODEL,
                            "%s: layer %d has %d attention heads, not a multiple of its %d key/value heads",
                            gguf_label(r->g), i, h->layer[i].n_head, h->layer[i].n_kv_head);
    if (!r->ok) return;
    if (!gguf_has(r->g, key_of(r, "attention.key_length")) && h->n_embd % h->layer[0].n_head != 0) {
        r->ok = err_set(r->e, ERR_MODEL, "%s: embedding_length %d is not a multiple of head_count %d",
                        gguf_label(r->g), h->n_embd, h->layer[0].n_head);
        return;
    }
    h->head_dim = h->n_embd / h->layer[0].n_head;
    read_int(r, "attention.key_length", 1, MAX_HEAD_DIM, &h->head_dim);
    int value_dim = h->head_dim;
    read_int(r, "attention.value_length", 1, MAX_HEAD_DIM, &value_dim);
    if (r->ok &&
        (value_dim != h->head_dim || h->head_dim < 2 || h->head_dim > MAX_HEAD_DIM || h->head_dim % 2))
        r->ok = err_set(r->e, ERR_MODEL,
                        "%s: attention heads of %d (keys) and %d (values) are not supported; "
                        "expected equal, even and at most %d",
                        gguf_label(r->g), h->head_dim, value_dim, MAX_HEAD_DIM);
}

static void read_rope(Reader *r, Hparams *h) {
    h->n_rot = h->head_dim;
    h->rope_base = 10000.0f;
    float factor = 1.0f;
    GgufString type = {"none", 4};
    read_int(r, "rope.dimension_count", 2, h->head_dim, &h->n_rot);
    read_float(r, "rope.freq_base", 1e-3f, 1e12f, &h->rope_base);
    read_float(r, "rope.scale_linear", 1e-6f, 1e6f, &factor);  // the key's old name
    read_float(r, "rope.scaling.factor", 0.0f, 1e6f, &factor); // some files say 0 for "none"
    if (r->ok) r->ok = gguf_get_string(r->g, key_of(r, "rope.scaling.type"), &type, r->e);
    if (!r->ok) return;
    if (h->n_rot % 2)
        r->ok = err_set(r->e, ERR_MODEL, "%s: '%s.rope.dimension_count' is %d; expected an even number",
                        gguf_label(r->g), h->arch, h->n_rot);
    bool none = type.n == 4 && memcmp(type.data, "none", 4) == 0;
    if (!none && !(type.n == 6 && memcmp(type.data, "linear", 6) == 0))
        r->ok = err_set(r->e, ERR_MODEL,
                        "%s: rope.scaling.type '%.*s' is not supported for %s; supported: none, linear",
                        gguf_label(r->g), (int)(type.n < 40 ? type.n : 40), type.data, h->arch);
    bool typed = gguf_has(r->g, key_of(r, "rope.scaling.type"));
    h->rope_scale = factor > 0 && !(typed && none) ? 1.0f / factor : 1.0f;
}

static void read_experts(Reader *r, Hparams *h) {
    h->expert_scale = 1.0f;
    read_int(r, "expert_count", 0, MAX_EXPERTS, &h->n_expert);
    if (h->n_expert == 0) return;
    need(r, "expert_used_count");
    read_int(r, "expert_used_count", 1, h->n_expert, &h->n_expert_used);
    read_float(r, "expert_weights_scale", 0.0f, 1e6f, &h->expert_scale);
    if (h->expert_scale == 0.0f) h->expert_scale = 1.0f; // written by some converters for "none"
    int n_ff = 0;
    read_int(r, "expert_feed_forward_length", 1, INT32_MAX / 4, &n_ff);
    for (int i = 0; r->ok && n_ff && i < h->n_layer; i++) h->layer[i].n_ff = n_ff;
}

bool hparams_read(const Gguf *g, Hparams *h, Err *e) {
    if (!hparams_read_arch(g, h, e)) return false;
    Reader reader = {.g = g, .h = h, .e = e, .ok = true}, *r = &reader;
    static const char *const required[] = {"block_count", "embedding_length", "context_length",
                                           "feed_forward_length", "attention.layer_norm_rms_epsilon"};
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) need(r, required[i]);
    read_int(r, "block_count", 1, MAX_LAYERS, &h->n_layer);
    read_int(r, "embedding_length", 1, 1 << 20, &h->n_embd);
    read_int(r, "context_length", 1, INT32_MAX / 4, &h->n_ctx_train);
    read_float(r, "attention.layer_norm_rms_epsilon", 1e-20f, 1.0f, &h->norm_eps);
    h->layer = mem_new((size_t)h->n_layer, sizeof *h->layer);
    read_vocab(r, h);
    read_per_layer(r, "feed_forward_length", INT32_MAX / 4, 0, offsetof(LayerDims, n_ff));
    read_heads(r, h);
    read_rope(r, h);
    read_experts(r, h);
    h->attn_scale = 0.0f;
    read_float(r, "attention.scale", 0.0f, 1e6f, &h->attn_scale);
    if (h->attn_scale == 0.0f && r->ok) h->attn_scale = 1.0f / sqrtf((float)h->head_dim);
    if (!r->ok) hparams_free(h);
    return r->ok;
}

void hparams_free(Hparams *h) {
    free(h->layer);
    *h = (Hparams){0};
}
