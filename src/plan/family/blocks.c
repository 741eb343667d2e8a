/* blocks: see blocks.h. */
#include "blocks.h"
#include "read.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>

enum { NAME = 64 };

static const char *tensor(const char *name, const char *suffix, char out[NAME]) {
    snprintf(out, NAME, "blk.%%d.%s.%s", name, suffix);
    return out;
}

int block_part(PlanBuilder *b, const char *name, const char *of, int in, MatrixShape part) {
    char weight[NAME], bias[NAME];
    const Weight *w = builder_part(b, tensor(of, "weight", weight), part);
    const float *bias_of_all = builder_optional_vector(b, tensor(of, "bias", bias), part.n_rows);
    return emit_matmul(b, name, in, w, bias_of_all ? bias_of_all + part.first : NULL);
}

int block_product(PlanBuilder *b, const char *name, int in, int n_in, int n_out) {
    return block_part(b, name, name, in, matrix_whole(n_in, n_out, 1));
}

int block_norm(PlanBuilder *b, const char *name, int in, NormParams kind) {
    char weight[NAME], bias[NAME];
    int width = b->plan->regs[in].width, n = kind.head_dim ? kind.head_dim : width;
    int n_rows = kind.per_head ? width / n : 1;
    kind.weight = builder_vectors(b, tensor(name, "weight", weight), n, n_rows);
    kind.bias = builder_optional_vectors(b, tensor(name, "bias", bias), n, n_rows);
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

/* Some files have keys and values of layers that read those of another one. */
static void leave_kv(PlanBuilder *b) {
    builder_leave(b, "blk.%d.attn_k.weight");
    builder_leave(b, "blk.%d.attn_v.weight");
    builder_leave(b, "blk.%d.attn_k_norm.weight");
}

/* One of the three products: n rows from `first` on where the file has them in one tensor of n_all. */
static int qkv(PlanBuilder *b, const char *name, int in, int first, int n, int n_all) {
    int n_embd = b->plan->hparams.n_embd;
    bool fused = builder_has(b, "blk.%d.attn_qkv.weight");
    MatrixShape part = {.n_in = n_embd, .n_out = n, .n_expert = 1, .first = first, .n_rows = n_all};
    return fused ? block_part(b, name, "attn_qkv", in, part) : block_product(b, name, in, n_embd, n);
}

int block_attention(PlanBuilder *b, int in, const AttentionBlock *options, NormParams norm) {
    AttentionBlock o = *options;
    AttnParams *a = &o.attn;
    read_attention(b, a);
    int n_q = a->n_head * a->head_dim, n_k = a->n_kv_head * a->head_dim, n_v = a->n_kv_head * a->v_dim;
    int n_gate = o.has_gate ? n_q : 0, n_all = n_q + n_gate + n_k + n_v;
    int k = NO_REG, v = NO_REG, gate = NO_REG, q = qkv(b, "attn_q", in, 0, n_q + n_gate, n_all);
    if (o.kv_back == 0) {
        k = qkv(b, "attn_k", in, n_q + n_gate, n_k, n_all);
        v = o.v_is_k ? k : qkv(b, "attn_v", in, n_q + n_gate + n_k, n_v, n_all);
    }
    if (o.kv_back) leave_kv(b);
    assert(!o.v_is_k || o.qk_norm != QK_NORM_NONE); // which leaves the product as it is
    if (o.has_gate)
        gate = emit_slice(b, "attn_gate", q, (SliceParams){2 * a->head_dim, a->head_dim, a->head_dim});
    if (o.has_gate) q = emit_slice(b, "attn_q", q, (SliceParams){2 * a->head_dim, 0, a->head_dim});
    prepare(b, &q, &k, &o, norm);
    if (o.v_norm && v != NO_REG) {
        norm.head_dim = a->v_dim;
        v = emit_norm(b, "attn_v_norm", v, norm);
    }
    if (o.has_sinks) a->sinks = builder_optional_vector(b, "blk.%d.attn_sinks.weight", a->n_head);
    a->rope = (RopeParams){0};
    int cache = o.kv_back ? cache_of_layer(b, b->layer - o.kv_back) : emit_kvput(b, "attn_kv", k, v, *a);
    int out = emit_attn(b, "attn", q, cache, *a);
    b->on_R |= builder_is_last_mixer(b);
    if (o.has_gate) out = emit_glu(b, "attn_gated", gate, out, (GluParams){.act = ACT_SIGMOID});
    if (o.head_gate) {
        int gate = block_product(b, "attn_gate", in, b->plan->hparams.n_embd, a->n_head);
        out = emit_glu(b, "attn_gated", gate, out, (GluParams){.act = ACT_SIGMOID});
    }
    return block_product(b, "attn_output", out, a->n_head * a->v_dim, b->plan->hparams.n_embd);
}

/* ---- feed-forward -------------------------------------------------------------------------------------- */

/* Gate (half 0) or up (half 1). */
static int gate_or_up(PlanBuilder *b, const char *name, int in, const FfnBlock *o, int half, int n_ff) {
    int n_embd = b->plan->hparams.n_embd;
    MatrixShape part = {
        .n_in = n_embd, .n_out = n_ff, .n_expert = 1, .first = half * n_ff, .n_rows = 2 * n_ff};
    return o->kind == FFN_FUSED ? block_part(b, name, "ffn_up", in, part)
                                : block_product(b, name, in, n_embd, n_ff);
}

int block_ffn(PlanBuilder *b, int in, const FfnBlock *o) {
    int n_ff = o->n_ff ? o->n_ff : read_ff(b);
    int gate = o->kind == FFN_PLAIN ? NO_REG : gate_or_up(b, "ffn_gate", in, o, 0, n_ff);
    int up = gate_or_up(b, "ffn_up", in, o, 1, n_ff);
    if (o->cut != 0) gate = emit_norm(b, "ffn_cut", gate, (NormParams){.cut = o->cut});
    int act = emit_glu(b, "ffn_act", gate, up, o->glu);
    return block_product(b, "ffn_down", act, n_ff, b->plan->hparams.n_embd);
}

/* ---- inputs of layers ---------------------------------------------------------------------------------- */

int block_layer_inputs(PlanBuilder *b, int x, int n, NormParams norm) {
    const Hparams *h = &b->plan->hparams;
    const Weight *embd = builder_matrix(b, "per_layer_token_embd.weight", n * h->n_layer, h->n_vocab);
    const Weight *project = builder_matrix(b, "per_layer_model_proj.weight", h->n_embd, n * h->n_layer);
    norm.weight = builder_vector(b, "per_layer_proj_norm.weight", n);
    norm.head_dim = n;
    float scale = 1 / sqrtf((float)h->n_embd);
    int tokens = emit_embed(b, "per_layer_embd", embd, (EmbedParams){.scale = sqrtf((float)n)});
    int projected = emit_matmul_scaled(b, "per_layer_proj", x, project, NULL, scale);
    projected = emit_norm(b, "per_layer_proj_norm", projected, norm);
    return emit_add_scaled(b, "per_layer_inputs", projected, tokens,
                           (AddParams){.a_scale = 1, .scale = sqrtf(0.5f)});
}

int block_layer_input(PlanBuilder *b, int x, int inputs, int n, NormParams norm) {
    int n_embd = b->plan->hparams.n_embd;
    int input = emit_view(b, "layer_input", inputs, b->layer * n, n);
    int gate = block_product(b, "inp_gate", x, n_embd, n);
    int out = emit_glu(b, "inp_act", gate, input, (GluParams){.act = ACT_GELU});
    return block_norm(b, "post_norm", block_product(b, "proj", out, n, n_embd), norm);
}
