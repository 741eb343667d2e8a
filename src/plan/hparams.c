/* hparams: see hparams.h. */
#include "hparams.h"
#include "keys.h"

#include <string.h>

bool hparams_read_arch(const Gguf *g, char arch[HPARAMS_ARCH], Err *e) {
    GgufString name = {0};
    arch[0] = 0;
    if (!gguf_get_string(g, "general.architecture", &name, e)) return false;
    if (name.n == 0)
        return err_set(e, ERR_MODEL,
                       "%s: metadata key 'general.architecture' is missing; the file is not a model",
                       gguf_label(g));
    if (name.n >= HPARAMS_ARCH || memchr(name.data, 0, name.n))
        return err_set(e, ERR_MODEL, "%s: general.architecture is not a sensible name", gguf_label(g));
    memcpy(arch, name.data, name.n);
    arch[name.n] = 0;
    return true;
}

static void read_vocab(Keys *k, Hparams *h) {
    if (!k->ok) return;
    if (gguf_n_tensors(k->g) == 0) { // metadata alone
        keys_need(k, "vocab_size");
        h->n_vocab = h->n_vocab_key = keys_int(k, "vocab_size", 1, MAX_VOCAB, 1);
        return;
    }
    const GgufTensor *embd = gguf_find_tensor(k->g, "token_embd.weight");
    if (!embd) {
        keys_fail(k, "tensor 'token_embd.weight' is missing; the file is not a complete model");
        return;
    }
    h->n_vocab = (int)embd->ne[1];
    if (h->n_vocab > MAX_VOCAB) {
        keys_fail(k, "%d tokens are more than the %d that are supported", h->n_vocab, MAX_VOCAB);
        return;
    }
    h->n_vocab_key = keys_int(k, "vocab_size", 1, INT32_MAX, h->n_vocab);
}

bool hparams_read(const Gguf *g, Hparams *h, Err *e) {
    *h = (Hparams){0};
    if (!hparams_read_arch(g, h->arch, e)) return false;
    Keys keys = {.g = g, .arch = h->arch, .e = e, .ok = true}, *k = &keys;
    static const char *const required[] = {"block_count", "embedding_length", "context_length"};
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) keys_need(k, required[i]);
    int n_block = keys_int(k, "block_count", 1, MAX_LAYERS, 1);
    h->n_nextn = keys_int(k, "nextn_predict_layers", 0, n_block - 1, 0);
    h->n_layer = n_block - h->n_nextn;
    h->n_embd = keys_int(k, "embedding_length", 1, 1 << 20, 1);
    h->n_ctx_train = keys_int(k, "context_length", 1, INT32_MAX / 4, 1);
    read_vocab(k, h);
    return k->ok;
}
