/* llama: Llama 1 to 3, Mistral, Mixtral, SmolLM and the many others that declare this architecture.
 *
 *     x = embed
 *     per layer:  h = norm(x);  q, k, v = h;  rotate q, k;  put k, v;  x += output(attention(q))
 *                 h = norm(x);  x += down(silu(gate h) * up h), dense or by experts
 *     logits = output(norm(x)), where output is the embedding again when the file has none
 *
 * Optional: biases on every product, rotary frequency factors, heads wider than n_embd / n_head, experts. */
#include "family.h"
#include "blocks.h"
#include "../../base/mem.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_HEADS = 65536, MAX_HEAD_DIM = 1024, MAX_EXPERTS = 4096, MAX_FF = INT32_MAX / 4 };

typedef struct Llama {              // what the file says of this family
    int *n_head, *n_kv_head, *n_ff; // [n_layer]
    int head_dim;
    float eps, attn_scale;
    RopeParams rope;
    MoeParams moe; // n_expert 0: a dense model
} Llama;

static void read_heads(PlanBuilder *b, Llama *m) {
    const Hparams *h = &b->plan->hparams;
    Keys *k = &b->keys;
    keys_need(k, "attention.head_count");
    keys_per_layer(k, "attention.head_count", h->n_layer, MAX_HEADS, 0, m->n_head);
    keys_per_layer(k, "attention.head_count_kv", h->n_layer, MAX_HEADS, 1, m->n_kv_head);
    if (!keys_has(k, "attention.head_count_kv")) // every query head has its own keys and values
        for (int i = 0; i < h->n_layer; i++) m->n_kv_head[i] = m->n_head[i];
    for (int i = 0; i < h->n_layer; i++)
        if (m->n_head[i] % m->n_kv_head[i] != 0)
            keys_fail(k, "layer %d has %d attention heads, not a multiple of its %d key/value heads", i,
                      m->n_head[i], m->n_kv_head[i]);
    if (!keys_has(k, "attention.key_length") && h->n_embd % m->n_head[0] != 0)
        keys_fail(k, "embedding_length %d is not a multiple of head_count %d", h->n_embd, m->n_head[0]);
    m->head_dim = keys_int(k, "attention.key_length", 1, MAX_HEAD_DIM, h->n_embd / m->n_head[0]);
    int value_dim = keys_int(k, "attention.value_length", 1, MAX_HEAD_DIM, m->head_dim);
    if (value_dim != m->head_dim || m->head_dim < 2 || m->head_dim > MAX_HEAD_DIM || m->head_dim % 2)
        keys_fail(k,
                  "attention heads of %d (keys) and %d (values) are not supported; "
                  "expected equal, even and at most %d",
                  m->head_dim, value_dim, MAX_HEAD_DIM);
    float scale = keys_float(k, "attention.scale", 0.0f, 1e6f, 0.0f);
    m->attn_scale = scale != 0.0f ? scale : 1.0f / sqrtf((float)m->head_dim);
}

static void read_rope(PlanBuilder *b, Llama *m) {
    static const char *const types[] = {"none", "linear"};
    enum { NONE, LINEAR };
    Keys *k = &b->keys;
    m->rope = (RopeParams){.pairing = ROPE_ADJACENT, .magnitude = 1};
    m->rope.n_rot = keys_int(k, "rope.dimension_count", 2, m->head_dim, m->head_dim);
    m->rope.base = keys_float(k, "rope.freq_base", 1e-3f, 1e12f, 10000.0f);
    float factor = keys_float(k, "rope.scale_linear", 1e-6f, 1e6f, 1.0f); // the key's old name
    factor = keys_float(k, "rope.scaling.factor", 0.0f, 1e6f, factor);    // some files say 0 for "none"
    int type = keys_choice(k, "rope.scaling.type", types, 2, LINEAR);
    if (m->rope.n_rot % 2)
        keys_fail(k, "'%s.rope.dimension_count' is %d; expected an even number", k->arch, m->rope.n_rot);
    m->rope.scale = factor > 0 && type == LINEAR ? 1.0f / factor : 1.0f;
    m->rope.factors = builder_optional_vector(b, "rope_freqs.weight", m->rope.n_rot / 2);
}

static void read_experts(PlanBuilder *b, Llama *m) {
    Keys *k = &b->keys;
    m->moe.kind = ROUTE_SOFTMAX;
    m->moe.n_expert = keys_int(k, "expert_count", 0, MAX_EXPERTS, 0);
    if (m->moe.n_expert == 0) return;
    keys_need(k, "expert_used_count");
    m->moe.n_used = keys_int(k, "expert_used_count", 1, m->moe.n_expert, 1);
    m->moe.scale = keys_float(k, "expert_weights_scale", 0.0f, 1e6f, 1.0f);
    if (m->moe.scale == 0.0f) m->moe.scale = 1.0f; // written by some converters for "none"
    int n_ff = keys_int(k, "expert_feed_forward_length", 1, MAX_FF, m->n_ff[0]);
    if (keys_has(k, "expert_feed_forward_length"))
        for (int i = 0; i < b->plan->hparams.n_layer; i++) m->n_ff[i] = n_ff;
}

static void read(PlanBuilder *b, Llama *m) {
    Keys *k = &b->keys;
    keys_need(k, "feed_forward_length");
    keys_need(k, "attention.layer_norm_rms_epsilon");
    m->eps = keys_float(k, "attention.layer_norm_rms_epsilon", 1e-20f, 1.0f, 1.0f);
    keys_per_layer(k, "feed_forward_length", b->plan->hparams.n_layer, MAX_FF, 0, m->n_ff);
    read_heads(b, m);
    read_rope(b, m);
    read_experts(b, m);
}

static int norm(PlanBuilder *b, const Llama *m, const char *name, const char *weight, int in) {
    const float *w = builder_vector(b, weight, b->plan->hparams.n_embd);
    return emit_norm(b, name, in, (NormParams){.weight = w, .eps = m->eps});
}

static int layer(PlanBuilder *b, const Llama *m, int x) {
    int i = b->layer;
    AttentionBlock attention = {.attn = {.n_head = m->n_head[i],
                                         .n_kv_head = m->n_kv_head[i],
                                         .head_dim = m->head_dim,
                                         .scale = m->attn_scale,
                                         .rope = m->rope},
                                .is_last = i == b->plan->hparams.n_layer - 1};
    FfnBlock dense = {.n_ff = m->n_ff[i], .act = ACT_SILU};
    ExpertBlock experts = {.n_ff = m->n_ff[i], .act = ACT_SILU, .moe = m->moe};
    int in = norm(b, m, "attn_norm", "blk.%d.attn_norm.weight", x);
    x = emit_add(b, "attn_residual", block_attention(b, in, &attention), x);
    in = norm(b, m, "ffn_norm", "blk.%d.ffn_norm.weight", x);
    bool has_router = builder_has(b, "blk.%d.ffn_gate_inp.weight");
    return emit_add(b, "ffn_residual", has_router ? block_experts(b, in, &experts) : block_ffn(b, in, &dense),
                    x);
}

static void emit(PlanBuilder *b) {
    const Hparams *h = &b->plan->hparams;
    size_t n_layer = (size_t)h->n_layer;
    Llama m = {.n_head = mem_new(n_layer, sizeof(int)),
               .n_kv_head = mem_new(n_layer, sizeof(int)),
               .n_ff = mem_new(n_layer, sizeof(int))};
    read(b, &m);
    const Weight *embd = builder_matrix(b, "token_embd.weight", h->n_embd, h->n_vocab);
    int x = emit_embed(b, embd, 1);
    for (b->layer = 0; b->layer < h->n_layer && b->keys.ok; b->layer++) x = layer(b, &m, x);
    block_output(b, x, embd, m.eps);
    free(m.n_head);
    free(m.n_kv_head);
    free(m.n_ff);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"llama-3.2-1b", 16, 2048, 32, 8, 64, 8192, 128256, 5e5f, .optional = {NULL}},
    {"llama-3.2-3b", 28, 3072, 24, 8, 128, 8192, 128256, 5e5f, .optional = {NULL}},
    {"llama-3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256, 5e5f, .optional = {"output.weight"}},
    {"llama-3.1-70b", 80, 8192, 64, 8, 128, 28672, 128256, 5e5f, .optional = {"output.weight"}},
    {"mistral-7b", 32, 4096, 32, 8, 128, 14336, 32768, 1e6f, .optional = {"output.weight"}},
    {"mixtral-8x7b", 32, 4096, 32, 8, 128, 14336, 32000, 1e6f,
     .optional = {"output.weight", "ffn_gate_inp.weight"},
     .keys = {{"expert_count", 8}, {"expert_used_count", 2}, {"expert_feed_forward_length", 14336}}},
    {0},
};

static const ModelSize sizes[] = {
    {"8x7B", 32, 8, 0, 0}, {"8x22B", 56, 8, 0, 0},  {"1B", 16, 0, 0, 0},
    {"1B", 22, 0, 0, 0},   {"3B", 26, 0, 0, 0},     {"3B", 28, 0, 0, 0},
    {"256M", 30, 0, 0, 0}, {"7B", 32, 0, 0, 40000}, {"8B", 32, 0, 0, 0},
    {"8B", 36, 0, 0, 0},   {"13B", 40, 0, 0, 0},    {"34B", 48, 0, 0, 0},
    {"30B", 60, 0, 0, 0},  {"70B", 80, 0, 0, 0},    {0},
};

const Family family_llama = {"llama", emit, shapes, sizes};
