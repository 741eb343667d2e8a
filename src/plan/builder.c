/* builder: see builder.h. */
#include "builder.h"
#include "../base/mem.h"

#include <assert.h>
#include <stdio.h>

bool builder_emit(Plan *p, const Gguf *g, void (*emit)(PlanBuilder *b), Err *e) {
    const Hparams *h = &p->hparams;
    PlanBuilder b = {.plan = p, .last_mixer = h->n_layer - 1, .layer = -1};
    b.keys = (Keys){.g = g,
                    .arch = h->arch,
                    .e = e,
                    .ok = true,
                    .n_layer = h->n_layer,
                    .n_block = h->n_layer + h->n_nextn};
    weights_leave_layers(p->weights, b.keys.n_layer, b.keys.n_block);
    emit(&b);
    return b.keys.ok && weights_all_used(p->weights, e);
}

bool builder_next_layer(PlanBuilder *b) {
    b->layer++;
    if (b->keys.ok && b->layer < b->keys.n_layer) return true;
    b->layer = -1;
    return false;
}

bool builder_is_last_mixer(const PlanBuilder *b) {
    return b->layer == b->last_mixer;
}

/* ---- weights ------------------------------------------------------------------------------------------- */

enum { NAME = 96 };

static const char *expand(PlanBuilder *b, const char *pattern, char name[NAME]) {
    size_t n = 0;
    for (const char *s = pattern; *s && n + 12 < NAME; s++)
        if (s[0] == '%' && s[1] == 'd') {
            n += (size_t)snprintf(name + n, NAME - n, "%d", b->layer);
            s++;
        } else
            name[n++] = *s;
    name[n] = 0;
    return name;
}

const Weight *builder_part(PlanBuilder *b, const char *pattern, MatrixShape shape) {
    char name[NAME];
    if (!b->keys.ok) return NULL;
    const Weight *w = weights_matrix(b->plan->weights, expand(b, pattern, name), shape, b->keys.e);
    b->keys.ok = w != NULL;
    return w;
}

const Weight *builder_experts(PlanBuilder *b, const char *name, int n_in, int n_out, int n_expert) {
    return builder_part(b, name, matrix_whole(n_in, n_out, n_expert));
}

const Weight *builder_matrix(PlanBuilder *b, const char *name, int n_in, int n_out) {
    return builder_experts(b, name, n_in, n_out, 1);
}

const float *builder_vectors(PlanBuilder *b, const char *pattern, int n, int n_rows) {
    char name[NAME];
    if (!b->keys.ok) return NULL;
    const float *v = weights_vector(b->plan->weights, expand(b, pattern, name), n, n_rows, b->keys.e);
    b->keys.ok = v != NULL;
    return v;
}

const float *builder_vector(PlanBuilder *b, const char *name, int n) {
    return builder_vectors(b, name, n, 1);
}

bool builder_has(PlanBuilder *b, const char *pattern) {
    char name[NAME];
    return weights_has(b->plan->weights, expand(b, pattern, name));
}

const float *builder_optional_vectors(PlanBuilder *b, const char *name, int n, int n_rows) {
    return builder_has(b, name) ? builder_vectors(b, name, n, n_rows) : NULL;
}

const float *builder_optional_vector(PlanBuilder *b, const char *name, int n) {
    return builder_optional_vectors(b, name, n, 1);
}

void builder_leave(PlanBuilder *b, const char *pattern) {
    char name[NAME];
    weights_leave(b->plan->weights, expand(b, pattern, name));
}

/* ---- registers and ops --------------------------------------------------------------------------------- */

static int add_reg(PlanBuilder *b, const char *name, int width, bool on_R) {
    Plan *plan = b->plan;
    if (plan->n_regs == b->reg_capacity) {
        b->reg_capacity = 2 * b->reg_capacity + 64;
        plan->regs = mem_resize(plan->regs, (size_t)b->reg_capacity * sizeof *plan->regs);
    }
    plan->regs[plan->n_regs] =
        (Reg){.name = name, .layer = b->layer, .width = width, .on_R = on_R, .base = NO_REG};
    return plan->n_regs++;
}

static Op *add_op(PlanBuilder *b, OpCode code, const char *name) {
    Plan *plan = b->plan;
    if (plan->n_ops == b->op_capacity) {
        b->op_capacity = 2 * b->op_capacity + 64;
        plan->ops = mem_resize(plan->ops, (size_t)b->op_capacity * sizeof *plan->ops);
    }
    Op *op = &plan->ops[plan->n_ops++];
    *op = (Op){.code = code, .layer = b->layer, .name = name, .on_R = b->on_R, .sum_scale = 1};
    return op;
}

static int write(PlanBuilder *b, Op *op, int width) {
    int reg = add_reg(b, op->name, width, op->on_R);
    op_add_operand(op, ROLE_WRITE, reg);
    return reg;
}

static int width_of(const PlanBuilder *b, int reg) {
    return b->plan->regs[reg].width;
}

/* The rows of w; 1 after a failure, when there is no matrix and the tape will not be used. */
static int rows_of(const Weight *w) {
    return w ? w->n_out : 1;
}

static Op *add_product(PlanBuilder *b, OpCode code, const char *name, int in, const Weight *w,
                       const float *bias) {
    Op *op = add_op(b, code, name);
    op_add_operand(op, ROLE_READ, in);
    op->w[0] = w;
    op->bias[0] = bias;
    op->n_w = 1;
    op->product.scale = 1;
    return op;
}

int emit_view(PlanBuilder *b, const char *name, int reg, int column, int width) {
    assert(!b->keys.ok || (b->plan->regs[reg].base == NO_REG && column + width <= width_of(b, reg)));
    int view = add_reg(b, name, width, b->plan->regs[reg].on_R);
    b->plan->regs[view].base = reg;
    b->plan->regs[view].column = column;
    return view;
}

int emit_embed(PlanBuilder *b, const char *name, const Weight *w, EmbedParams embed) {
    Op *op = add_op(b, OP_EMBED, name);
    op->w[0] = w;
    op->n_w = 1;
    op->embed = embed;
    return write(b, op, w ? w->n_in : 1);
}

int emit_norm(PlanBuilder *b, const char *name, int in, NormParams norm) {
    return emit_norm_like(b, name, in, NO_REG, norm);
}

int emit_norm_like(PlanBuilder *b, const char *name, int in, int like, NormParams norm) {
    Op *op = add_op(b, OP_NORM, name);
    op_add_operand(op, ROLE_READ, in);
    op_add_operand(op, ROLE_READ, like);
    op->norm = norm;
    return write(b, op, width_of(b, in));
}

int emit_matmul_scaled(PlanBuilder *b, const char *name, int in, const Weight *w, const float *bias,
                       float scale) {
    Op *op = add_product(b, OP_MATMUL, name, in, w, bias);
    op->product.scale = scale;
    return write(b, op, rows_of(w));
}

int emit_matmul(PlanBuilder *b, const char *name, int in, const Weight *w, const float *bias) {
    return emit_matmul_scaled(b, name, in, w, bias, 1);
}

void emit_rope(PlanBuilder *b, const char *name, int q, int k, RopeParams rope) {
    Op *op = add_op(b, OP_ROPE, name);
    op_add_operand(op, ROLE_BOTH, q);
    op_add_operand(op, ROLE_BOTH, k);
    op->rope = rope;
}

/* Adds a layer of the cache to the op. */
static int add_cache(PlanBuilder *b, Op *op, KvLayer layer) {
    Plan *plan = b->plan;
    plan->kv = mem_resize(plan->kv, (size_t)(plan->n_kv + 1) * sizeof *plan->kv);
    plan->kv[plan->n_kv] = layer;
    op_add_operand(op, ROLE_CACHE, plan->n_kv);
    return plan->n_kv++;
}

static int add_state(PlanBuilder *b, Op *op, size_t n_floats) {
    return add_cache(b, op, (KvLayer){.kind = KV_STATE, .state_bytes = n_floats * sizeof(float)});
}

static int add_head_states(PlanBuilder *b, Op *op) {
    StateShape s = op_state_shape(op);
    return add_state(b, op, (size_t)s.n_head * (size_t)s.n * (size_t)s.width);
}

static int value_dim(const AttnParams *a) {
    return a->v_dim ? a->v_dim : a->head_dim;
}

int emit_kvput(PlanBuilder *b, const char *name, int k, int v, AttnParams attn) {
    Op *op = add_op(b, OP_KVPUT, name);
    op_add_operand(op, ROLE_READ, k);
    op_add_operand(op, ROLE_READ, v);
    op->attn = attn;
    op->attn.v_dim = value_dim(&attn);
    return add_cache(b, op,
                     (KvLayer){.kind = KV_ROWS,
                               .n_head = attn.n_kv_head,
                               .k_width = attn.head_dim,
                               .v_width = op->attn.v_dim,
                               .v_in_k = v == NO_REG,
                               .window = attn.window ? attn.window : attn.chunk});
}

int emit_attn(PlanBuilder *b, const char *name, int q, int cache, AttnParams attn) {
    Op *op = add_op(b, OP_ATTN, name);
    op_add_operand(op, ROLE_READ, q);
    op_add_operand(op, ROLE_CACHE, cache);
    op->attn = attn;
    op->attn.v_dim = value_dim(&attn);
    return write(b, op, attn.n_head * op->attn.v_dim);
}

int emit_glu(PlanBuilder *b, const char *name, int gate, int up, GluParams glu) {
    Op *op = add_op(b, OP_GLU, name);
    op_add_operand(op, ROLE_READ, gate);
    op_add_operand(op, ROLE_READ, up);
    op->glu = glu;
    assert(gate == NO_REG || !b->keys.ok || width_of(b, up) % width_of(b, gate) == 0);
    return write(b, op, width_of(b, up));
}

int emit_add_scaled(PlanBuilder *b, const char *name, int a, int c, AddParams add) {
    Op *op = add_op(b, OP_ADD, name);
    op_add_operand(op, ROLE_READ, a);
    op_add_operand(op, ROLE_READ, c);
    op->add = add;
    return write(b, op, width_of(b, a));
}

int emit_add(PlanBuilder *b, const char *name, int a, int c) {
    return emit_add_scaled(b, name, a, c, (AddParams){.a_scale = 1, .scale = 1});
}

int emit_slice(PlanBuilder *b, const char *name, int in, SliceParams slice) {
    assert(slice.first + slice.n <= slice.period);
    Op *op = add_op(b, OP_SLICE, name);
    op_add_operand(op, ROLE_READ, in);
    op->slice = slice;
    return write(b, op, width_of(b, in) / slice.period * slice.n);
}

int emit_join(PlanBuilder *b, const char *name, int a, int c, int n_head) {
    Op *op = add_op(b, OP_JOIN, name);
    op_add_operand(op, ROLE_READ, a);
    op_add_operand(op, ROLE_READ, c);
    op->join.n_head = n_head;
    return write(b, op, width_of(b, a) + width_of(b, c));
}

int emit_conv(PlanBuilder *b, const char *name, int in, ConvParams conv) {
    Op *op = add_op(b, OP_CONV, name);
    op_add_operand(op, ROLE_READ, in);
    op->conv = conv;
    add_state(b, op, (size_t)(conv.n_tap - 1) * (size_t)width_of(b, in));
    return write(b, op, width_of(b, in));
}

int emit_scan(PlanBuilder *b, const char *name, int x, int state_in, int state_out, int dt, ScanParams scan) {
    Op *op = add_op(b, OP_SCAN, name);
    op_add_operand(op, ROLE_READ, x);
    op_add_operand(op, ROLE_READ, state_in);
    op_add_operand(op, ROLE_READ, state_out);
    op_add_operand(op, ROLE_READ, dt);
    op->scan = scan;
    add_head_states(b, op);
    return write(b, op, width_of(b, x));
}

int emit_delta(PlanBuilder *b, const char *name, int q, int k, int v, int decay, int beta,
               DeltaParams delta) {
    Op *op = add_op(b, OP_DELTA, name);
    op_add_operand(op, ROLE_READ, q);
    op_add_operand(op, ROLE_READ, k);
    op_add_operand(op, ROLE_READ, v);
    op_add_operand(op, ROLE_READ, decay);
    op_add_operand(op, ROLE_READ, beta);
    op->delta = delta;
    add_head_states(b, op);
    return write(b, op, width_of(b, v));
}

int emit_route(PlanBuilder *b, const char *name, int logits, MoeParams moe, int *weights) {
    Op *op = add_op(b, OP_ROUTE, name);
    op_add_operand(op, ROLE_READ, logits);
    op->moe = moe;
    int ids = write(b, op, moe.n_used);
    *weights = write(b, op, moe.n_used);
    return ids;
}

int emit_expert(PlanBuilder *b, const char *name, int in, int ids, const Weight *w, const float *bias,
                MoeParams moe) {
    Op *op = add_product(b, OP_EXPERT, name, in, w, bias);
    op_add_operand(op, ROLE_IDS, ids);
    op->product.moe = moe;
    op->product.moe.bias = NULL; // the choice is made by then
    return write(b, op, moe.n_used * rows_of(w));
}

int emit_moe_sum(PlanBuilder *b, const char *name, int in, int weights, MoeParams moe) {
    Op *op = add_op(b, OP_MOE_SUM, name);
    op_add_operand(op, ROLE_READ, in);
    op_add_operand(op, ROLE_READ, weights);
    op->moe = moe;
    op->moe.bias = NULL;
    op->moe.scale = 1; // that of ROUTE is in the weights
    return write(b, op, moe.n_used ? width_of(b, in) / moe.n_used : 1);
}

int emit_logits(PlanBuilder *b, const char *name, int in, const Weight *w, const float *bias, float scale,
                float softcap) {
    Op *op = add_product(b, OP_LOGITS, name, in, w, bias);
    op->product.scale = scale;
    op->product.softcap = softcap;
    return write(b, op, rows_of(w));
}

void emit_sample(PlanBuilder *b, const char *name, int logits) {
    op_add_operand(add_op(b, OP_SAMPLE, name), ROLE_READ, logits);
}
