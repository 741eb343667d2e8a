/* file_kind: see file_kind.h. */
#include "file_kind.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct Kind {
    const char *value; // of the key
    const char *what;  // what the file is, and what to do
} Kind;

#define ADAPTER "an adapter, a change to a model; merge it into its model, and give that"
#define PROJECTOR                                                                                            \
    "a projector of images or sound, a part beside a model; give the model alone, which reads text"
#define IMATRIX "an importance matrix, for quantising a model; give the model"
#define ENCODER "an encoder, which makes vectors of a text and writes none; give a language model"
#define DIFFUSION "a diffusion model, which does not write token by token; give a language model"
#define IMAGES "a model that makes images or video; give a language model"

static const Kind types[] = {{"adapter", ADAPTER}, {"mmproj", PROJECTOR}, {"imatrix", IMATRIX}, {0}};

static const Kind architectures[] = {
    {"clip", PROJECTOR},
    {"controlvector", ADAPTER},
    {"bert", ENCODER},
    {"modern-bert", ENCODER},
    {"nomic-bert", ENCODER},
    {"nomic-bert-moe", ENCODER},
    {"neo-bert", ENCODER},
    {"jina-bert-v2", ENCODER},
    {"jina-bert-v3", ENCODER},
    {"eurobert", ENCODER},
    {"gemma-embedding", ENCODER},
    {"llama-embed", ENCODER},
    {"t5encoder", ENCODER},
    {"t5", "an encoder and a decoder, a pair that zgen does not run; give a model that is a decoder alone"},
    {"wavtokenizer-dec", "a decoder of sound, a part beside a model; give the model"},
    {"dream", DIFFUSION},
    {"llada", DIFFUSION},
    {"llada-moe", DIFFUSION},
    {"rnd1", DIFFUSION},
    {"flux", IMAGES},
    {"sd1", IMAGES},
    {"sdxl", IMAGES},
    {"sd3", IMAGES},
    {"wan", IMAGES},
    {"qwen_image", IMAGES},
    {"ltxv", IMAGES},
    {"lumina2", IMAGES},
    {0},
};

static bool check(const Gguf *g, const char *key, const Kind *kinds, Err *e) {
    GgufString value = {0};
    Err other; // a value that is no string is refused where it is needed
    if (!gguf_get_string(g, key, &value, &other) || !value.data) return true;
    for (const Kind *k = kinds; k->value; k++)
        if (strlen(k->value) == value.n && memcmp(k->value, value.data, value.n) == 0)
            return err_set(e, ERR_MODEL, "%s: '%s' is '%s': this file is %s", gguf_label(g), key, k->value,
                           k->what);
    return true;
}

/* Encoders and diffusion models under the architecture of a language model, by the keys that change it to one. */
static bool check_use(const Gguf *g, Err *e) {
    GgufString arch = {0};
    char causal[100], pooling[100];
    bool is_causal = true;
    int64_t pools = 0;
    Err other;
    if (!gguf_get_string(g, "general.architecture", &arch, &other) || arch.n > 63) return true;
    snprintf(causal, sizeof causal, "%.*s.attention.causal", (int)arch.n, arch.data ? arch.data : "");
    snprintf(pooling, sizeof pooling, "%.*s.pooling_type", (int)arch.n, arch.data ? arch.data : "");
    if (gguf_get_bool(g, causal, &is_causal, &other) && !is_causal)
        return err_set(
            e, ERR_MODEL,
            "%s: '%s' is false: in this model tokens attend to those behind them, as in encoders and "
            "diffusion models, which do not write token by token; give a language model",
            gguf_label(g), causal);
    if (gguf_get_int(g, pooling, INT64_MIN, INT64_MAX, &pools, &other) && pools > 0)
        return err_set(e, ERR_MODEL, "%s: '%s' is %" PRId64 ": this file is " ENCODER, gguf_label(g), pooling,
                       pools);
    return true;
}

bool file_kind_check(const Gguf *g, Err *e) {
    return check(g, "general.type", types, e) && check(g, "general.architecture", architectures, e) &&
           check_use(g, e);
}
