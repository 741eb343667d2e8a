/* read: see read.h. */
#include "read.h"

#include <math.h>

enum { MAX_HEADS = 65536, MAX_HEAD_DIM = 1024, MAX_EXPERTS = 4096, MAX_FF = INT32_MAX / 4 };

static int of_layer(PlanBuilder *b, const char *name, int max, int fallback) {
    return keys_of_layer(&b->keys, name, b->layer, b->plan->hparams.n_layer, max, fallback);
}

float read_eps(PlanBuilder *b) {
    keys_need(&b->keys, "attention.layer_norm_rms_epsilon");
    return keys_float(&b->keys, "attention.layer_norm_rms_epsilon", 1e-20f, 1.0f, 1.0f);
}

/* n_embd / n_head of the first layer, unless the file has a key for it; keys and values are equally wide. */
static int read_head_dim(PlanBuilder *b) {
    const Hparams *h = &b->plan->hparams;
    Keys *k = &b->keys;
    keys_need(k, "attention.head_count");
    int n_head = keys_of_layer(k, "attention.head_count", 0, h->n_layer, MAX_HEADS, 0);
    if (!keys_has(k, "attention.key_length") && h->n_embd % n_head != 0)
        keys_fail(k, "embedding_length %d is not a multiple of head_count %d", h->n_embd, n_head);
    int head_dim = keys_int(k, "attention.key_length", 1, MAX_HEAD_DIM, h->n_embd / n_head);
    int value_dim = keys_int(k, "attention.value_length", 1, MAX_HEAD_DIM, head_dim);
    if (value_dim != head_dim || head_dim < 2 || head_dim > MAX_HEAD_DIM || head_dim % 2)
        keys_fail(k,
                  "attention heads of %d (keys) and %d (values) are not supported; "
                  "expected equal, even and at most %d",
                  head_dim, value_dim, MAX_HEAD_DIM);
    return head_dim;
}

RopeParams read_rope(PlanBuilder *b, RopePairing pairing) {
    static const char *const types[] = {"none", "linear"};
    enum { NONE, LINEAR };
    Keys *k = &b->keys;
    int head_dim = read_head_dim(b);
    RopeParams rope = {.pairing = pairing, .magnitude = 1};
    rope.n_rot = keys_int(k, "rope.dimension_count", 2, head_dim, head_dim);
    rope.base = keys_float(k, "rope.freq_base", 1e-3f, 1e12f, 10000.0f);
    float factor = keys_float(k, "rope.scale_linear", 1e-6f, 1e6f, 1.0f); // the key's old name
    factor = keys_float(k, "rope.scaling.factor", 0.0f, 1e6f, factor);    // some files have 0 for "none"
    int type = keys_choice(k, "rope.scaling.type", types, 2, LINEAR);
    if (rope.n_rot % 2)
        keys_fail(k, "'%s.rope.dimension_count' is %d; expected an even number", k->arch, rope.n_rot);
    rope.scale = factor > 0 && type == LINEAR ? 1.0f / factor : 1.0f;
    return rope;
}

AttnParams read_attention(PlanBuilder *b, RopeParams rope) {
    Keys *k = &b->keys;
    AttnParams attn = {.head_dim = read_head_dim(b), .rope = rope};
    attn.n_head = of_layer(b, "attention.head_count", MAX_HEADS, 0);
    attn.n_kv_head = of_layer(b, "attention.head_count_kv", MAX_HEADS, 1);
    if (!keys_has(k, "attention.head_count_kv")) attn.n_kv_head = attn.n_head; // no heads are shared
    if (attn.n_head % attn.n_kv_head != 0)
        keys_fail(k, "layer %d has %d attention heads, not a multiple of its %d key/value heads", b->layer,
                  attn.n_head, attn.n_kv_head);
    float scale = keys_float(k, "attention.scale", 0.0f, 1e6f, 0.0f);
    attn.scale = scale != 0.0f ? scale : 1.0f / sqrtf((float)attn.head_dim);
    return attn;
}

int read_ff(PlanBuilder *b) {
    keys_need(&b->keys, "feed_forward_length");
    return of_layer(b, "feed_forward_length", MAX_FF, 0);
}

ExpertBlock read_experts(PlanBuilder *b, int n_ff) {
    Keys *k = &b->keys;
    ExpertBlock o = {.act = ACT_SILU, .moe = {.kind = ROUTE_SOFTMAX, .normalise = true}};
    o.moe.n_expert = keys_int(k, "expert_count", 0, MAX_EXPERTS, 0);
    if (o.moe.n_expert == 0) return o;
    keys_need(k, "expert_used_count");
    o.moe.n_used = keys_int(k, "expert_used_count", 1, o.moe.n_expert, 1);
    o.moe.scale = keys_float(k, "expert_weights_scale", 0.0f, 1e6f, 1.0f);
    if (o.moe.scale == 0.0f) o.moe.scale = 1.0f; // written by some converters for "none"
    if (n_ff == 0) keys_need(k, "expert_feed_forward_length");
    o.n_ff = keys_int(k, "expert_feed_forward_length", 1, MAX_FF, n_ff);
    return o;
}
