/* cost: the bytes that each op must move and the multiply-adds that it must make.  See plan.h. */
#include "plan.h"

/* Matrices of an EXPERT are read for one row; many rows choose more of them. */
static void add_products(const Op *op, double n_rows, Cost *c) {
    double used = op->code == OP_EXPERT ? op->product.moe.n_used : 1;
    for (int i = 0; i < op->n_w; i++) {
        c->macs += n_rows * used * op->w[i]->n_in * op->w[i]->n_out;
        c->bytes_fixed += used * (double)op->w[i]->row_bytes * op->w[i]->n_out;
    }
}

/* Sum over n rows of min(n_past + i, limit). */
static double clipped_sum(double n_past, double n, double limit) {
    double below = limit - n_past < 0   ? 0
                   : limit - n_past < n ? limit - n_past
                                        : n; // rows that are not clipped
    return below * n_past + below * (below - 1) / 2 + (n - below) * limit;
}

static void add_attention(const AttnParams *a, double kv_bytes, double n_past, double n_rows, Cost *c) {
    double limit = a->window > 0 ? a->window - 1 : n_past + n_rows; // positions seen before the row's own
    c->bytes_rows += (n_past < limit ? n_past : limit) * kv_bytes;
    c->macs += 2.0 * a->n_head * a->head_dim * clipped_sum(n_past, n_rows, limit);
}

Cost plan_cost(const Op *op, double kv_element_bytes, double n_past, double n_rows) {
    Cost c = {0};
    if (op->code == OP_EMBED) c.bytes_rows = n_rows * (double)op->w[0]->row_bytes;
    if (op_is_product(op)) add_products(op, n_rows, &c);
    if (op->code != OP_KVPUT && op->code != OP_ATTN) return c;
    double kv_bytes = 2.0 * op->attn.n_kv_head * op->attn.head_dim * kv_element_bytes; // of one position
    bool puts = op->code == OP_KVPUT || op_count(op, ROLE_READ) > 1;
    if (puts) c.bytes_rows = n_rows * kv_bytes;
    if (op->code == OP_ATTN) add_attention(&op->attn, kv_bytes, n_past, n_rows, &c);
    return c;
}

Cost plan_cost_total(const Plan *p, double kv_element_bytes, double n_past, double n_rows) {
    Cost sum = {0};
    for (int i = 0; i < p->n_ops; i++) {
        Cost c = plan_cost(&p->ops[i], kv_element_bytes, n_past, n_rows);
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
