/* qwen3: Qwen3, dense (qwen3) and with experts in every layer (qwen3moe).
 *
 *     x = embed
 *     per layer:  h = norm(x);  q, k, v = h;  q, k = norm of each head;  rotate q, k;  put k, v
 *                 x += output(attention(q))
 *                 h = norm(x);  x += down(silu(gate h) * up h), dense or by experts
 *     logits = output(norm(x)), where output is the embedding again when the file has none
 *
 * The differences from llama: the norms of heads, which every layer must have, and rotation by halves. */
#include "family.h"
#include "read.h"

static NormParams head_norm(PlanBuilder *b, const char *weight, int head_dim, float eps) {
    return (NormParams){.weight = builder_vector(b, weight, head_dim), .eps = eps, .head_dim = head_dim};
}

static int attention(PlanBuilder *b, int in, float eps, RopeParams rope) {
    AttentionBlock o = {.attn = read_attention(b, rope), .is_last = b->layer == b->plan->hparams.n_layer - 1};
    o.q_norm = head_norm(b, "blk.%d.attn_q_norm.weight", o.attn.head_dim, eps);
    o.k_norm = head_norm(b, "blk.%d.attn_k_norm.weight", o.attn.head_dim, eps);
    return block_attention(b, in, &o);
}

static int dense(PlanBuilder *b, int in) {
    return block_ffn(b, in, &(FfnBlock){.n_ff = read_ff(b), .act = ACT_SILU});
}

static int experts(PlanBuilder *b, int in) {
    ExpertBlock o = read_experts(b, 0);
    if (o.moe.n_expert == 0) keys_fail(&b->keys, "'%s.expert_count' is missing or 0", b->keys.arch);
    return block_experts(b, in, &o);
}

static void emit(PlanBuilder *b, int (*feed_forward)(PlanBuilder *b, int in)) {
    const Hparams *h = &b->plan->hparams;
    float eps = read_eps(b);
    RopeParams rope = read_rope(b, ROPE_HALVES);
    const Weight *embd = builder_matrix(b, "token_embd.weight", h->n_embd, h->n_vocab);
    int x = emit_embed(b, "embd", embd, (EmbedParams){.scale = 1});
    for (b->layer = 0; b->layer < h->n_layer && b->keys.ok; b->layer++) {
        x = emit_add(b, "attn_residual", attention(b, block_norm(b, "attn_norm", x, eps), eps, rope), x);
        x = emit_add(b, "ffn_residual", feed_forward(b, block_norm(b, "ffn_norm", x, eps)), x);
    }
    block_output(b, x, embd, eps);
}

static void emit_dense(PlanBuilder *b) {
    emit(b, dense);
}

static void emit_experts(PlanBuilder *b) {
    emit(b, experts);
}

/* In the order of the fields of Shape. */
static const Shape dense_shapes[] = {
    {"qwen3-0.6b", 28, 1024, 16, 8, 128, 3072, 151936, 1e6f, .optional = {NULL}},
    {"qwen3-8b", 36, 4096, 32, 8, 128, 12288, 151936, 1e6f, .optional = {"output.weight"}},
    {0},
};

static const Shape expert_shapes[] = {
    {"qwen3-30b-a3b", 48, 2048, 32, 4, 128, 6144, 151936, 1e6f, .optional = {"output.weight"},
     .keys = "expert_count=128 expert_used_count=8 expert_feed_forward_length=768"},
    {0},
};

static const ModelSize dense_sizes[] = {
    {"0.6B", 28, 0, 1024, 0},
    {"1.7B", 28, 0, 0, 0},
    {"4B", 36, 0, 2560, 0},
    {"8B", 36, 0, 0, 0},
    {"14B", 40, 0, 0, 0},
    {"32B", 64, 0, 0, 0},
    {0},
};

static const ModelSize expert_sizes[] = {{"30B.A3B", 48, 0, 0, 0}, {"235B.A22B", 94, 0, 0, 0}, {0}};

const Family family_qwen3 = {"qwen3", emit_dense, dense_shapes, dense_sizes};
const Family family_qwen3moe = {"qwen3moe", emit_experts, expert_shapes, expert_sizes};
