/* blocks: see blocks.h. */
#include "blocks.h"

#include <stdio.h>

/* A product with the matrix blk.N.NAME.weight and, where there is one, the bias beside it. */
static int product(PlanBuilder *b, const char *name, int in, int n_in, int n_out) {
    char weight[64], bias[64];
    snprintf(weight, sizeof weight, "blk.%%d.%s.weight", name);
    snprintf(bias, sizeof bias, "blk.%%d.%s.bias", name);
    return emit_matmul(b, name, in, builder_matrix(b, weight, n_in, n_out),
                       builder_optional_vector(b, bias, n_out));
}

int block_norm(PlanBuilder *b, const char *name, int in, float eps) {
    char weight[64];
    snprintf(weight, sizeof weight, "blk.%%d.%s.weight", name);
    const float *w = builder_vector(b, weight, b->plan->hparams.n_embd);
    return emit_norm(b, name, in, (NormParams){.weight = w, .eps = eps});
}

int block_attention(PlanBuilder *b, int in, const AttentionBlock *o) {
    int n_embd = b->plan->hparams.n_embd;
    AttnParams attn = o->attn;
    RopeParams rope = attn.rope;
    attn.rope = (RopeParams){0};
    int n_q = attn.n_head * attn.head_dim, n_kv = attn.n_kv_head * attn.head_dim;
    int q = product(b, "attn_q", in, n_embd, n_q);
    int k = product(b, "attn_k", in, n_embd, n_kv);
    int v = product(b, "attn_v", in, n_embd, n_kv);
    // behind v, because neighbouring products become one op
    if (o->q_norm.weight) q = emit_norm(b, "attn_q_norm", q, o->q_norm);
    if (o->k_norm.weight) k = emit_norm(b, "attn_k_norm", k, o->k_norm);
    rope.n_head[0] = attn.n_head;
    rope.n_head[1] = attn.n_kv_head;
    rope.head_dim = attn.head_dim;
    if (rope.n_rot > 0) emit_rope(b, "attn_rope", q, k, rope);
    int cache = emit_kvput(b, "attn_kv", k, v, attn);
    int a = emit_attn(b, "attn", q, cache, attn);
    b->on_R |= o->is_last;
    return product(b, "attn_output", a, n_q, n_embd);
}

int block_ffn(PlanBuilder *b, int in, const FfnBlock *o) {
    int n_embd = b->plan->hparams.n_embd;
    int gate = product(b, "ffn_gate", in, n_embd, o->n_ff);
    int up = product(b, "ffn_up", in, n_embd, o->n_ff);
    return product(b, "ffn_down", emit_glu(b, "ffn_act", gate, up, (GluParams){.act = o->act}), o->n_ff,
                   n_embd);
}

static int expert_product(PlanBuilder *b, const char *name, int in, int ids, int n_in, int n_out,
                          const MoeParams *moe) {
    char weight[64];
    snprintf(weight, sizeof weight, "blk.%%d.%s_exps.weight", name);
    return emit_expert(b, name, in, ids, builder_experts(b, weight, n_in, n_out, moe->n_expert), NULL, *moe);
}

int block_experts(PlanBuilder *b, int in, const ExpertBlock *o) {
    const MoeParams *moe = &o->moe;
    int n_embd = b->plan->hparams.n_embd, weights;
    int router = emit_matmul(b, "ffn_router", in,
                             builder_matrix(b, "blk.%d.ffn_gate_inp.weight", n_embd, moe->n_expert), NULL);
    int ids = emit_route(b, "ffn_route", router, *moe, &weights);
    int gate = expert_product(b, "ffn_gate", in, ids, n_embd, o->n_ff, moe);
    int up = expert_product(b, "ffn_up", in, ids, n_embd, o->n_ff, moe);
    int act = emit_glu(b, "ffn_act", gate, up, (GluParams){.act = o->act});
    int down = expert_product(b, "ffn_down", act, ids, o->n_ff, n_embd, moe);
    return emit_moe_sum(b, "ffn_moe_sum", down, weights, *moe);
}

void block_output(PlanBuilder *b, int x, const Weight *embd, float eps) {
    const Hparams *h = &b->plan->hparams;
    b->layer = -1;
    b->on_R = true;
    const float *weight = builder_vector(b, "output_norm.weight", h->n_embd);
    int last = emit_norm(b, "output_norm", x, (NormParams){.weight = weight, .eps = eps});
    bool tied = !builder_has(b, "output.weight");
    const Weight *output = tied ? embd : builder_matrix(b, "output.weight", h->n_embd, h->n_vocab);
    emit_sample(b, "sample", emit_logits(b, "output", last, output, 1, 0));
}
