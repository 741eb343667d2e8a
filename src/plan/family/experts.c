/* experts: see experts.h. */
#include "experts.h"
#include "read.h"

#include <stdio.h>

enum { MAX_EXPERTS = 4096 };

/* ---- keys ---------------------------------------------------------------------------------------------- */

/* expert_gating_func by its numbers.  The softmax over the chosen experts alone (3) is that over all experts,
 * normalised over the chosen. */
static void read_scores(PlanBuilder *b, MoeParams *moe) {
    enum { SOFTMAX = 1, SIGMOID = 2, SOFTMAX_OF_CHOSEN = 3 };
    Keys *k = &b->keys;
    int fallback = moe->kind == ROUTE_SIGMOID ? SIGMOID : SOFTMAX;
    int kind = keys_int(k, "expert_gating_func", 0, SOFTMAX_OF_CHOSEN, fallback);
    if (kind == 0) kind = fallback;
    moe->kind = kind == SIGMOID ? ROUTE_SIGMOID : ROUTE_SOFTMAX;
    moe->normalise = keys_of_layer(k, "expert_weights_norm", 0, 0, 1, moe->normalise) != 0;
    if (kind == SOFTMAX_OF_CHOSEN) moe->normalise = true;
    moe->scale = keys_float(k, "expert_weights_scale", 0.0f, 1e6f, 1.0f);
    if (moe->scale == 0.0f) moe->scale = 1.0f; // written by some converters for "none"
}

/* A count of 1 means that there are no groups. */
static void read_groups(PlanBuilder *b, MoeParams *moe) {
    Keys *k = &b->keys;
    moe->n_group = keys_int(k, "expert_group_count", 0, MAX_EXPERTS, 0);
    if (moe->n_group <= 1) return;
    moe->n_group_used = keys_int(k, "expert_group_used_count", 1, moe->n_group, moe->n_group);
    int size = moe->n_expert / moe->n_group; // at least 2: a group's score is a sum of two
    if (moe->n_expert % moe->n_group || size < 2 || moe->n_used > size * moe->n_group_used)
        keys_fail(k, "%d of %d experts cannot be chosen from %d of %d groups", moe->n_used, moe->n_expert,
                  moe->n_group_used, moe->n_group);
}

ExpertBlock read_experts(PlanBuilder *b, RouteKind kind, bool normalise) {
    Keys *k = &b->keys;
    ExpertBlock o = {.moe = {.kind = kind, .normalise = normalise}};
    o.glu.act = o.shared_glu.act = ACT_SILU;
    keys_need(k, "expert_count");
    keys_need(k, "expert_used_count");
    o.moe.n_expert = keys_int(k, "expert_count", 1, MAX_EXPERTS, 1);
    o.moe.n_used = keys_int(k, "expert_used_count", 1, o.moe.n_expert, 1);
    read_scores(b, &o.moe);
    read_groups(b, &o.moe);
    o.n_shared_ff = keys_int(k, "expert_shared_feed_forward_length", 0, READ_MAX_FF, 0);
    int n_shared = keys_int(k, "expert_shared_count", 0, MAX_EXPERTS, 0);
    if (o.n_shared_ff == 0 && n_shared > 0)
        o.n_shared_ff = n_shared * keys_int(k, "expert_feed_forward_length", 1, READ_MAX_FF / MAX_EXPERTS, 1);
    o.n_dense = keys_int(k, "leading_dense_block_count", 0, MAX_LAYERS, 0);
    o.every_nth = keys_int(k, "interleave_moe_layer_step", 1, MAX_LAYERS, 1);
    return o;
}

static int read_width(PlanBuilder *b, const ExpertBlock *o) {
    if (o->n_ff) return o->n_ff;
    if (!keys_has(&b->keys, "expert_feed_forward_length")) return read_ff(b);
    return keys_int(&b->keys, "expert_feed_forward_length", 1, READ_MAX_FF, 1);
}

bool has_experts(const PlanBuilder *b, const ExpertBlock *o) {
    return o->moe.n_expert > 0 && b->layer >= o->n_dense && (b->layer + 1) % o->every_nth == 0;
}

/* ---- blocks -------------------------------------------------------------------------------------------- */

typedef struct Routing { // registers
    int ids, weights, shared_gate;
} Routing;

/* The router and, as its input is the same, the gate of the shared expert; NO_REG: there is none. */
static Routing route(PlanBuilder *b, int in, const ExpertBlock *o) {
    MoeParams moe = o->moe;
    Routing r = {.shared_gate = NO_REG};
    moe.bias = builder_optional_vector(b, "blk.%d.exp_probs_b.bias", moe.n_expert);
    int n_in = b->plan->regs[in].width;
    const Weight *w = builder_matrix(b, "blk.%d.ffn_gate_inp.weight", n_in, moe.n_expert);
    const float *bias = builder_optional_vector(b, "blk.%d.ffn_gate_inp.bias", moe.n_expert);
    float scale = o->router_scale != 0 ? o->router_scale : 1;
    int logits = emit_matmul_scaled(b, "ffn_gate_inp", in, w, bias, scale);
    if (o->n_shared_ff && builder_has(b, "blk.%d.ffn_gate_inp_shexp.weight"))
        r.shared_gate = block_product(b, "ffn_gate_inp_shexp", in, n_in, 1);
    r.ids = emit_route(b, "ffn_route", logits, moe, &r.weights);
    return r;
}

/* A product of the chosen experts with the tensor blk.N.NAME_exps: all of its rows, or a half of them. */
static int expert_product(PlanBuilder *b, const char *name, const char *tensor, int in, int ids,
                          MatrixShape shape, const ExpertBlock *o) {
    char weight[64], bias[64];
    snprintf(weight, sizeof weight, "blk.%%d.%s_exps.weight", tensor);
    snprintf(bias, sizeof bias, "blk.%%d.%s_exps.bias", tensor);
    return emit_expert(b, name, in, ids, builder_part(b, weight, shape),
                       builder_optional_vectors(b, bias, shape.n_out, shape.n_expert), o->moe);
}

/* act(gate in) * up in, or act(up in). */
static int inner(PlanBuilder *b, int in, int ids, int n_in, int n_ff, const ExpertBlock *o) {
    bool joined = builder_has(b, "blk.%d.ffn_gate_up_exps.weight"); // gate first
    int n_rows = joined ? 2 * n_ff : n_ff, gate = NO_REG;
    MatrixShape first = {n_in, n_ff, o->moe.n_expert, 0, n_rows}, second = first;
    if (joined) second.first = n_ff;
    if (o->kind == FFN_GATED)
        gate = expert_product(b, "ffn_gate", joined ? "ffn_gate_up" : "ffn_gate", in, ids, first, o);
    int up = expert_product(b, "ffn_up", joined ? "ffn_gate_up" : "ffn_up", in, ids, second, o);
    return emit_glu(b, "ffn_act", gate, up, o->glu);
}

static int chosen_inner(PlanBuilder *b, int in, Routing r, const ExpertBlock *o) {
    if (o->weighed_input) {
        if (o->moe.n_used != 1)
            keys_fail(&b->keys, "%d chosen experts with weights on their input are not supported; expected 1",
                      o->moe.n_used);
        in = emit_glu(b, "ffn_weighed", r.weights, in, (GluParams){.act = ACT_NONE});
    }
    return inner(b, in, r.ids, b->plan->regs[in].width, read_width(b, o), o);
}

static int chosen_outer(PlanBuilder *b, int in, int n_out, Routing r, const ExpertBlock *o) {
    MatrixShape shape = matrix_whole(read_width(b, o), n_out, o->moe.n_expert);
    int down = expert_product(b, "ffn_down", "ffn_down", in, r.ids, shape, o);
    return o->weighed_input ? down : emit_moe_sum(b, "ffn_moe_sum", down, r.weights, o->moe);
}

static int shared_inner(PlanBuilder *b, int in, const ExpertBlock *o) {
    int n_embd = b->plan->hparams.n_embd, gate = NO_REG;
    if (o->kind == FFN_GATED) gate = block_product(b, "ffn_gate_shexp", in, n_embd, o->n_shared_ff);
    int up = block_product(b, "ffn_up_shexp", in, n_embd, o->n_shared_ff);
    return emit_glu(b, "ffn_shexp_act", gate, up, o->shared_glu);
}

static int shared_outer(PlanBuilder *b, int in, Routing r, const ExpertBlock *o) {
    int down = block_product(b, "ffn_down_shexp", in, o->n_shared_ff, b->plan->hparams.n_embd);
    if (r.shared_gate == NO_REG) return down;
    return emit_glu(b, "ffn_shexp_gate", r.shared_gate, down, (GluParams){.act = ACT_SIGMOID});
}

int block_experts(PlanBuilder *b, int in, int chosen_in, const ExpertBlock *o, int *x, float scale) {
    Routing r = route(b, in, o);
    int shared = o->n_shared_ff ? shared_inner(b, in, o) : NO_REG, chosen = chosen_inner(b, chosen_in, r, o);
    if (shared != NO_REG)
        *x = emit_add_scaled(b, "ffn_shexp_residual", shared_outer(b, shared, r, o), *x,
                             (AddParams){.a_scale = scale, .scale = 1});
    return chosen_outer(b, chosen, b->plan->regs[chosen_in].width, r, o);
}
