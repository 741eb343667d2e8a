/* emit: see emit.h. */
#include "emit.h"
#include "../base/mem.h"

#include <assert.h>
#include <stdio.h>

static const char *expand(Pen *p, const char *pattern, char *name, size_t size) {
    int n = 0;
    for (const char *s = pattern; *s && (size_t)n + 12 < size; s++)
        if (s[0] == '%' && s[1] == 'd')
            n += snprintf(name + n, size - (size_t)n, "%d", p->layer), s++;
        else
            name[n++] = *s;
    name[n] = 0;
    return name;
}

static const Weight *matrix(Pen *p, const char *pattern, int n_in, int n_out, int n_expert) {
    char name[96];
    if (!p->ok) return NULL;
    const Weight *w =
        weights_matrix(p->plan->weights, expand(p, pattern, name, sizeof name), n_in, n_out, n_expert, p->e);
    p->ok = w != NULL;
    return w;
}

const Weight *pen_matrix(Pen *p, const char *name, int n_in, int n_out) {
    return matrix(p, name, n_in, n_out, 1);
}

const Weight *pen_experts(Pen *p, const char *name, int n_in, int n_out) {
    return matrix(p, name, n_in, n_out, p->plan->hparams.n_expert);
}

const float *pen_vector(Pen *p, const char *pattern, int n) {
    char name[96];
    if (!p->ok) return NULL;
    const float *v = weights_vector(p->plan->weights, expand(p, pattern, name, sizeof name), n, p->e);
    p->ok = v != NULL;
    return v;
}

bool pen_has(Pen *p, const char *pattern) {
    char name[96];
    return weights_has(p->plan->weights, expand(p, pattern, name, sizeof name));
}

const float *pen_optional_vector(Pen *p, const char *name, int n) {
    return pen_has(p, name) ? pen_vector(p, name, n) : NULL;
}

static int add_reg(Pen *p, const char *name, int width, bool on_R) {
    Plan *plan = p->plan;
    if (plan->n_regs == p->reg_capacity)
        plan->regs =
            mem_resize(plan->regs, (size_t)(p->reg_capacity = 2 * p->reg_capacity + 64) * sizeof *plan->regs);
    plan->regs[plan->n_regs] = (Reg){.name = name, .layer = p->layer, .width = width, .on_R = on_R};
    return plan->n_regs++;
}

static Op *add_op(Pen *p, OpCode code, const char *name, int in, int in2) {
    Plan *plan = p->plan;
    if (plan->n_ops == p->op_capacity)
        plan->ops =
            mem_resize(plan->ops, (size_t)(p->op_capacity = 2 * p->op_capacity + 64) * sizeof *plan->ops);
    Op *op = &plan->ops[plan->n_ops++];
    *op = (Op){.code = code,
               .layer = p->layer,
               .name = name,
               .on_R = p->on_R,
               .in = in,
               .in2 = in2,
               .in3 = NO_REG,
               .residual = NO_REG,
               .ids = NO_REG,
               .out = {NO_REG, NO_REG, NO_REG}};
    return op;
}

static int result(Pen *p, Op *op, int width) {
    return op->out[op->n_out++] = add_reg(p, op->name, width, op->on_R);
}

static int width_of(const Pen *p, int reg) {
    return p->plan->regs[reg].width;
}

int emit_embed(Pen *p, const Weight *w) {
    Op *op = add_op(p, OP_EMBED, "embd", NO_REG, NO_REG);
    op->w[0] = w, op->n_w = 1;
    return result(p, op, p->plan->hparams.n_embd);
}

int emit_norm(Pen *p, const char *name, int in, const float *weight) {
    Op *op = add_op(p, OP_NORM, name, in, NO_REG);
    op->vector = weight;
    op->eps = p->plan->hparams.norm_eps;
    return result(p, op, width_of(p, in));
}

/* After a failure there is no matrix to ask for its size; the tape is thrown away then, so 1 does as well. */
static int rows_of(const Weight *w) {
    return w ? w->n_out : 1;
}

int emit_matmul(Pen *p, const char *name, int in, const Weight *w, const float *bias) {
    Op *op = add_op(p, OP_MATMUL, name, in, NO_REG);
    op->w[0] = w, op->n_w = 1;
    op->bias[0] = bias;
    return result(p, op, rows_of(w));
}

void emit_rope(Pen *p, const char *name, int q, int k, const float *factors) {
    const Hparams *h = &p->plan->hparams;
    Op *op = add_op(p, OP_ROPE, name, NO_REG, NO_REG);
    op->n_out = 2;
    op->out[0] = q, op->out[1] = k;
    op->vector = factors;
    op->rope.n_head[0] = h->layer[p->layer].n_head, op->rope.n_head[1] = h->layer[p->layer].n_kv_head;
    op->rope.head_dim = h->head_dim, op->rope.n_rot = h->n_rot;
    op->rope.base = h->rope_base, op->rope.scale = h->rope_scale;
}

static void set_attn(Pen *p, Op *op, int kv_layer) {
    const Hparams *h = &p->plan->hparams;
    op->attn.n_head = h->layer[p->layer].n_head, op->attn.n_kv_head = h->layer[p->layer].n_kv_head;
    op->attn.head_dim = h->head_dim, op->attn.scale = h->attn_scale, op->attn.kv_layer = kv_layer;
}

void emit_kvput(Pen *p, const char *name, int k, int v) {
    Plan *plan = p->plan;
    Op *op = add_op(p, OP_KVPUT, name, k, v);
    set_attn(p, op, plan->n_kv);
    plan->kv = mem_resize(plan->kv, (size_t)(plan->n_kv + 1) * sizeof *plan->kv);
    plan->kv[plan->n_kv++] = (KvLayer){op->attn.n_kv_head, op->attn.head_dim};
}

int emit_attn(Pen *p, const char *name, int q) {
    Op *op = add_op(p, OP_ATTN, name, q, NO_REG);
    set_attn(p, op, p->plan->n_kv - 1); // the keys and values that were put last
    return result(p, op, op->attn.n_head * op->attn.head_dim);
}

int emit_glu(Pen *p, const char *name, int gate, int up) {
    return result(p, add_op(p, OP_GLU, name, gate, up), width_of(p, gate));
}

int emit_add(Pen *p, const char *name, int a, int b) {
    return result(p, add_op(p, OP_ADD, name, a, b), width_of(p, a));
}

static void set_moe(const Pen *p, Op *op) {
    const Hparams *h = &p->plan->hparams;
    op->moe.n_expert = h->n_expert, op->moe.n_used = h->n_expert_used, op->moe.scale = h->expert_scale;
}

int emit_route(Pen *p, const char *name, int logits, int *weights) {
    Op *op = add_op(p, OP_ROUTE, name, logits, NO_REG);
    set_moe(p, op);
    int ids = result(p, op, op->moe.n_used);
    *weights = result(p, op, op->moe.n_used);
    return ids;
}

int emit_expert(Pen *p, const char *name, int in, int ids, const Weight *w) {
    Op *op = add_op(p, OP_EXPERT, name, in, NO_REG);
    op->w[0] = w, op->n_w = 1;
    op->ids = ids;
    set_moe(p, op);
    return result(p, op, op->moe.n_used * rows_of(w));
}

int emit_mix(Pen *p, const char *name, int in, int weights) {
    Op *op = add_op(p, OP_MIX, name, in, NO_REG);
    op->ids = weights;
    set_moe(p, op);
    return result(p, op, op->moe.n_used ? width_of(p, in) / op->moe.n_used : 1);
}

int emit_logits(Pen *p, const char *name, int in, const Weight *w) {
    Op *op = add_op(p, OP_LOGITS, name, in, NO_REG);
    op->w[0] = w, op->n_w = 1;
    return result(p, op, rows_of(w));
}

void emit_sample(Pen *p, const char *name, int logits) {
    add_op(p, OP_SAMPLE, name, logits, NO_REG);
}
