/* blocks: see blocks.h. */
#include "blocks.h"
#include "read.h"

#include <assert.h>
#include <stdio.h>

enum { NAME = 64 };

static const char *tensor(const char *name, const char *suffix, char out[NAME]) {
    snprintf(out, NAME, "blk.%%d.%s.%s", name, suffix);
    return out;
}

int block_product(PlanBuilder *b, const char *name, int in, int n_in, int n_out) {
    char weight[NAME], bias[NAME];
    return emit_matmul(b, name, in, builder_matrix(b, tensor(name, "weight", weight), n_in, n_out),
                       builder_optional_vector(b, tensor(name, "bias", bias), n_out));
}

int block_norm(PlanBuilder *b, const char *name, int in, NormParams kind) {
    char weight[NAME], bias[NAME];
    int n = kind.head_dim && !kind.per_head ? kind.head_dim : b->plan->regs[in].width;
    kind.weight = builder_vector(b, tensor(name, "weight", weight), n);
    kind.bias = builder_optional_vector(b, tensor(name, "bias", bias), n);
    return emit_norm(b, name, in, kind);
}

/* ---- attention ----------------------------------------------------------------------------------------- */

static int qk_norm(PlanBuilder *b, const char *name, int in, const AttentionBlock *o, NormParams norm) {
    if (o->qk_norm == QK_NORM_NONE) return in;
    if (o->qk_norm != QK_NORM_ROW) norm.head_dim = o->attn.head_dim;
    norm.per_head = o->qk_norm == QK_NORM_EACH;
    return o->qk_norm == QK_NORM_PLAIN ? emit_norm(b, name, in, norm) : block_norm(b, name, in, norm);
}

/* The cache of an earlier layer. */
static int cache_of_layer(const PlanBuilder *b, int layer) {
    for (int i = 0; i < b->plan->n_ops; i++) {
        const Op *op = &b->plan->ops[i];
        if (op->code == OP_KVPUT && op->layer == layer) return op_operand(op, ROLE_CACHE, 0);
    }
    assert(!b->keys.ok); // a family shares layers that have keys and values
    return 0;
}

/* Norms and rotation, in their order; *k is NO_REG where keys are another layer's. */
static void prepare(PlanBuilder *b, int *q, int *k, const AttentionBlock *o, NormParams norm) {
    for (int step = 0; step < 2; step++) {
        bool turns = (step == 0) == o->qk_norm_last;
        if (turns && o->attn.rope.n_rot > 0) emit_rope(b, "attn_rope", *q, *k, o->attn.rope);
        if (turns) continue;
        *q = qk_norm(b, "attn_q_norm", *q, o, norm);
        if (*k != NO_REG) *k = qk_norm(b, "attn_k_norm", *k, o, norm);
    }
}

int block_attention(PlanBuilder *b, int in, const AttentionBlock *options, NormParams norm) {
    AttentionBlock o = *options;
    AttnParams *a = &o.attn;
    read_attention(b, a);
    int n_embd = b->plan->hparams.n_embd, k = NO_REG, v = NO_REG;
    int q = block_product(b, "attn_q", in, n_embd, a->n_head * a->head_dim);
    if (o.kv_back == 0) {
        k = block_product(b, "attn_k", in, n_embd, a->n_kv_head * a->head_dim);
        v = block_product(b, "attn_v", in, n_embd, a->n_kv_head * a->v_dim);
    }
    prepare(b, &q, &k, &o, norm);
    if (o.v_norm && v != NO_REG) {
        norm.head_dim = a->v_dim;
        v = emit_norm(b, "attn_v_norm", v, norm);
    }
    if (o.has_sinks) a->sinks = builder_optional_vector(b, "blk.%d.attn_sinks.weight", a->n_head);
    a->rope = (RopeParams){0};
    int cache = o.kv_back ? cache_of_layer(b, b->layer - o.kv_back) : emit_kvput(b, "attn_kv", k, v, *a);
    int out = emit_attn(b, "attn", q, cache, *a);
    b->on_R |= builder_is_last_layer(b);
    return block_product(b, "attn_output", out, a->n_head * a->v_dim, n_embd);
}

/* ---- feed-forward -------------------------------------------------------------------------------------- */

int block_ffn(PlanBuilder *b, int in, const FfnBlock *o) {
    int n_embd = b->plan->hparams.n_embd, n_ff = o->n_ff ? o->n_ff : read_ff(b);
    int gate = o->kind == FFN_GATED ? block_product(b, "ffn_gate", in, n_embd, n_ff) : NO_REG;
    int up = block_product(b, "ffn_up", in, n_embd, n_ff);
    int act = gate == NO_REG ? emit_glu(b, "ffn_act", up, NO_REG, o->glu)
                             : emit_glu(b, "ffn_act", gate, up, o->glu);
    return block_product(b, "ffn_down", act, n_ff, n_embd);
}
