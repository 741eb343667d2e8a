/* cost: the bytes that each op must move and the multiply-adds that it must make.  See plan.h. */
#include "plan.h"

#include <math.h>

/* Matrices of an EXPERT are read for one row; many rows choose more of them. */
static void add_products(const Op *op, double n_rows, Cost *c) {
    double used = op->code == OP_EXPERT ? op->product.moe.n_used : 1;
    for (int i = 0; i < op->n_w; i++) {
        c->macs += n_rows * used * op->w[i]->n_in * op->w[i]->n_out;
        c->bytes_fixed += used * (double)op->w[i]->row_bytes * op->w[i]->n_out;
    }
}

/* Sum of min(i, limit) over i < n. */
static double clipped_sum(double n, double limit) {
    double below = fmin(n, limit);
    return below * (below - 1) / 2 + (n - below) * limit;
}

/* The positions that the rows of positions 0..n-1 see before their own, added up; `before` are those that the
 * row of position n sees. */
static double seen_by(const AttnParams *a, double n, double *before) {
    double limit = a->window > 0 ? a->window - 1 : n;
    double chunk = a->chunk > 0 ? a->chunk : n + 1, in_chunk = fmod(n, chunk);
    *before = fmin(in_chunk, limit);
    return floor(n / chunk) * clipped_sum(chunk, limit) + clipped_sum(in_chunk, limit);
}

static void add_attention(const AttnParams *a, double kv_bytes, double n_past, double n_rows, Cost *c) {
    double read, ignored, first = seen_by(a, n_past, &read), last = seen_by(a, n_past + n_rows, &ignored);
    c->bytes_rows += read * kv_bytes;
    c->macs += (double)a->n_head * (a->head_dim + a->v_dim) * (last - first);
}

/* Bytes of a position in a layer of rows. */
static double position_bytes(const Plan *p, int layer, double kv_element_bytes) {
    const KvLayer *l = &p->kv[layer];
    if (l->kind == KV_OTHER) l = &p->kv[l->other];
    return (double)l->n_head * (l->k_width + (l->v_in_k ? 0 : l->v_width)) * kv_element_bytes;
}

/* Multiply-adds of an op with a state, for a row: each element is changed and read for the output; DELTA reads it
 * once more. */
static double state_macs(const Plan *p, const Op *op) {
    double n = (double)p->kv[op_operand(op, ROLE_CACHE, 0)].state_bytes / sizeof(float);
    if (op->code == OP_CONV) return (double)p->regs[op_out(op, 0)].width * op->conv.n_tap;
    return (op->code == OP_DELTA ? 3 : 2) * n;
}

Cost plan_cost(const Plan *p, const Op *op, double kv_element_bytes, double n_past, double n_rows) {
    Cost c = {0};
    int layer = op_operand(op, ROLE_CACHE, 0);
    if (op->code == OP_EMBED) c.bytes_rows = n_rows * (double)op->w[0]->row_bytes;
    if (op_is_product(op)) add_products(op, n_rows, &c);
    if (layer == NO_REG) return c;
    if (p->kv[layer].kind == KV_STATE) {
        c.bytes_rows = 2 * (double)p->kv[layer].state_bytes;
        c.macs = n_rows * state_macs(p, op);
        return c;
    }
    double kv_bytes = position_bytes(p, layer, kv_element_bytes);
    bool puts = op->code == OP_KVPUT || op_count(op, ROLE_READ) > 1;
    if (puts) c.bytes_rows = n_rows * kv_bytes;
    if (op->code == OP_ATTN) add_attention(&op->attn, kv_bytes, n_past, n_rows, &c);
    return c;
}

Cost plan_cost_total(const Plan *p, double kv_element_bytes, double n_past, double n_rows) {
    Cost sum = {0};
    for (int i = 0; i < p->n_ops; i++) {
        Cost c = plan_cost(p, &p->ops[i], kv_element_bytes, n_past, n_rows);
        sum.bytes_fixed += c.bytes_fixed;
        sum.bytes_rows += c.bytes_rows;
        sum.macs += c.macs;
    }
    return sum;
}

int plan_n_expert(const Plan *p) {
    for (int i = 0; i < p->n_ops; i++)
        if (p->ops[i].code == OP_ROUTE) return p->ops[i].moe.n_expert;
    return 0;
}
