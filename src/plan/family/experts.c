/* experts: see experts.h. */
#include "experts.h"
#include "read.h"

#include <stdio.h>

enum { MAX_EXPERTS = 4096 };

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
    o.n_ff = keys_int(k, "expert_feed_forward_length", 1, READ_MAX_FF, n_ff);
    return o;
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
