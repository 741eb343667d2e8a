/* read: see read.h. */
#include "read.h"

#include <math.h>

enum { MAX_HEADS = 65536, MAX_HEAD_DIM = 1024 };

static int of_layer(PlanBuilder *b, const char *name, int max, int fallback) {
    return keys_of_layer(&b->keys, name, b->layer, 1, max, fallback);
}

float read_eps(PlanBuilder *b, bool centred) {
    const char *name = centred ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
    keys_need(&b->keys, name);
    return keys_float(&b->keys, name, 1e-20f, 1.0f, 1.0f);
}

float read_factor(PlanBuilder *b, const char *name, float fallback) {
    float value = keys_float(&b->keys, name, -1e6f, 1e6f, 0);
    return value != 0 ? value : fallback;
}

/* ---- heads --------------------------------------------------------------------------------------------- */

/* n_embd / n_head of the first layer, unless the file has a key for it. */
static int read_head_dim(PlanBuilder *b) {
    Keys *k = &b->keys;
    int n_embd = b->plan->hparams.n_embd;
    keys_need(k, "attention.head_count");
    int n_head = keys_of_layer(k, "attention.head_count", 0, 1, MAX_HEADS, 0);
    if (!keys_has(k, "attention.key_length") && n_embd % n_head != 0)
        keys_fail(k, "embedding_length %d is not a multiple of head_count %d", n_embd, n_head);
    int head_dim = keys_int(k, "attention.key_length", 1, MAX_HEAD_DIM, n_embd / n_head);
    if (head_dim < 2 || head_dim > MAX_HEAD_DIM || head_dim % 2)
        keys_fail(k, "attention heads of %d are not supported; expected an even number, at most %d", head_dim,
                  MAX_HEAD_DIM);
    return k->ok ? head_dim : 2;
}

int read_local_head_dim(PlanBuilder *b) {
    int head_dim = keys_int(&b->keys, "attention.key_length_swa", 2, MAX_HEAD_DIM, read_head_dim(b));
    if (head_dim % 2)
        keys_fail(&b->keys, "'%s.attention.key_length_swa' is %d; expected an even number", b->keys.arch,
                  head_dim);
    return b->keys.ok ? head_dim : 2;
}

void read_attention(PlanBuilder *b, AttnParams *a) {
    Keys *k = &b->keys;
    if (!a->n_head) a->n_head = of_layer(b, "attention.head_count", MAX_HEADS, 0);
    if (!a->n_kv_head) a->n_kv_head = of_layer(b, "attention.head_count_kv", MAX_HEADS, a->n_head);
    if (a->n_head % a->n_kv_head != 0)
        keys_fail(k, "layer %d has %d attention heads, not a multiple of its %d key/value heads", b->layer,
                  a->n_head, a->n_kv_head);
    if (!a->v_dim)
        a->v_dim = a->head_dim ? a->head_dim
                               : keys_int(k, "attention.value_length", 1, MAX_HEAD_DIM, read_head_dim(b));
    if (!a->head_dim) a->head_dim = read_head_dim(b);
    if (a->scale == 0) a->scale = keys_float(k, "attention.scale", 0.0f, 1e6f, 0.0f);
    if (a->scale == 0) a->scale = 1.0f / sqrtf((float)a->head_dim);
    a->rope.n_head[0] = a->n_head;
    a->rope.n_head[1] = a->n_kv_head;
    a->rope.head_dim = a->head_dim;
}

float read_embd_scale(PlanBuilder *b) {
    int n_head = of_layer(b, "attention.head_count", MAX_HEADS, 0);
    return 1.0f / sqrtf((float)(b->plan->hparams.n_embd / n_head));
}

int read_window(PlanBuilder *b, int missing) {
    if (missing < 0) keys_need(&b->keys, "attention.sliding_window");
    return keys_int(&b->keys, "attention.sliding_window", 0, INT32_MAX / 4, missing < 0 ? 0 : missing);
}

bool read_is_local(PlanBuilder *b, int period) {
    const int64_t *values;
    size_t n = 0;
    Keys *k = &b->keys;
    if (keys_has(k, "attention.sliding_window_pattern") && k->ok)
        k->ok = gguf_get_ints(k->g, k->key, &values, &n, k->e);
    if (k->ok && n == 1) period = keys_int(k, "attention.sliding_window_pattern", 1, 1 << 20, period);
    return b->layer % period < period - 1;
}

int read_ff(PlanBuilder *b) {
    keys_need(&b->keys, "feed_forward_length");
    return of_layer(b, "feed_forward_length", READ_MAX_FF, 0);
}

/* ---- rotation ------------------------------------------------------------------------------------------ */

/* What YaRN multiplies cosine and sine by, for a context of `factor` times the training's. */
static float yarn_magnitude(float factor, float multiplier) {
    return factor > 1 ? 1 + 0.1f * multiplier * logf(factor) : 1;
}

int read_original_context(PlanBuilder *b) {
    return keys_int(&b->keys, "rope.scaling.original_context_length", 1, INT32_MAX / 4,
                    b->plan->hparams.n_ctx_train);
}

static void read_yarn(PlanBuilder *b, RopeParams *rope) {
    Keys *k = &b->keys;
    float factor = 1 / rope->scale;
    rope->yarn_context = read_original_context(b);
    rope->yarn_mix = keys_float(k, "rope.scaling.yarn_ext_factor", 0, 1, 1);
    rope->yarn_fast = keys_float(k, "rope.scaling.yarn_beta_fast", 1e-3f, 1e6f, 32);
    rope->yarn_slow = keys_float(k, "rope.scaling.yarn_beta_slow", 1e-3f, 1e6f, 1);
    float log_multiplier = read_factor(b, "rope.scaling.yarn_log_multiplier", 0);
    if (rope->yarn_mix == 0) return; // linear scaling, of which the magnitude is the model's
    rope->magnitude *= yarn_magnitude(factor, 1);
    if (log_multiplier != 0) rope->magnitude /= yarn_magnitude(factor, log_multiplier);
}

RopeParams read_rope(PlanBuilder *b, RopePairing pairing) {
    static const char *const types[] = {"none", "linear", "yarn", "longrope"};
    enum { NONE, LINEAR, YARN, LONGROPE, N_TYPES };
    Keys *k = &b->keys;
    int head_dim = read_head_dim(b);
    RopeParams rope = {.pairing = pairing};
    rope.n_rot = keys_int(k, "rope.dimension_count", 2, head_dim, head_dim);
    rope.base = keys_float(k, "rope.freq_base", 1e-3f, 1e12f, 10000.0f);
    float factor = keys_float(k, "rope.scale_linear", 1e-6f, 1e6f, 1.0f); // the key's old name
    factor = keys_float(k, "rope.scaling.factor", 0.0f, 1e6f, factor);    // some files have 0 for "none"
    int type = keys_choice(k, "rope.scaling.type", types, N_TYPES, LINEAR);
    if (rope.n_rot % 2)
        keys_fail(k, "'%s.rope.dimension_count' is %d; expected an even number", k->arch, rope.n_rot);
    rope.scale = factor > 0 && type != NONE ? 1.0f / factor : 1.0f;
    rope.magnitude = keys_float(k, "rope.scaling.attn_factor", 1e-3f, 1e3f, 1.0f);
    if (type == YARN) read_yarn(b, &rope);
    return rope;
}

void read_rope_factors(PlanBuilder *b, RopeParams *rope) {
    int n = rope->n_rot / 2;
    rope->factors = builder_optional_vector(b, "rope_freqs.weight", n);
    if (!builder_has(b, "rope_factors_long.weight")) return;
    rope->factors = builder_vector(b, "rope_factors_short.weight", n);
    rope->long_factors = builder_vector(b, "rope_factors_long.weight", n);
    rope->long_context = read_original_context(b);
}

RopeParams read_rope_local(PlanBuilder *b, const RopeParams *rope, float base) {
    RopeParams local = {.pairing = rope->pairing, .n_rot = rope->n_rot, .scale = 1, .magnitude = 1};
    local.base = keys_float(&b->keys, "rope.freq_base_swa", 1e-3f, 1e12f, base);
    return local;
}
