/* ops_products: weight matrices times rows: MATMUL, LOGITS, EXPERT.
 *
 * An item is a panel of 16 rows of a matrix, against all rows of the batch that it is multiplied with:
 * these are gathered first, by address, so that the matrices of experts, which a row of the batch may or
 * may not want, are read once each like any other. */
#include "ops.h"
#include "rows.h"

#include <string.h>

/* One weight matrix (or one expert's) against n gathered rows: which inputs, which outputs. */
typedef struct Product {
    const Weight *w;
    int expert;
    const float *bias;    // of this expert, or NULL
    float scale, softcap; // as in ProductParams
    int n;                // gathered in s->q8 or s->f32, s->out, s->residual
} Product;

static bool wants_q8(const Exec *x, const Weight *w) {
    return quant_traits(w->type)->act == QUANT_ACT_Q8 && !x->plan->config.act_f32;
}

/* scale * (y * scale of the row + bias), with the softcap; y: [PANEL_ROWS], the results of one input. */
static void finish_panel(const Exec *x, const Product *p, int row0, int rows, float *y) {
    const Weight *w = p->w;
    const float *scale = w->scale ? w->scale + (size_t)p->expert * (size_t)w->n_out + row0 : NULL;
    for (int r = 0; scale && r < rows; r++) y[r] *= scale[r];
    for (int r = 0; p->bias && r < rows; r++) y[r] += p->bias[row0 + r];
    for (int r = 0; p->scale != 1 && r < rows; r++) y[r] *= p->scale;
    if (p->softcap != 0) x->kernels->softcap(p->softcap, y, rows, y);
}

static void multiply_panel(const Exec *x, const Product *p, int panel, Scratch *s) {
    const Weight *w = p->w;
    int row0 = panel * PANEL_ROWS, rows = w->n_out - row0 < PANEL_ROWS ? w->n_out - row0 : PANEL_ROWS;
    Panel job = {.type = w->type,
                 .rows = weight_rows(w, p->expert) + (size_t)row0 * w->row_bytes,
                 .row_bytes = w->row_bytes,
                 .n_rows = rows,
                 .n_in = w->n_in};
    if (wants_q8(x, w))
        x->kernels->matmul_q8(&job, s->q8, p->n, s->y);
    else
        x->kernels->matmul_f32(&job, s->f32, p->n, s->y);
    for (int i = 0; i < p->n; i++) {
        float *y = s->y + (size_t)i * PANEL_ROWS, *out = s->out[i] + row0;
        const float *residual = s->residual[i];
        finish_panel(x, p, row0, rows, y);
        for (int r = 0; r < rows; r++) out[r] = residual ? residual[row0 + r] + y[r] : y[r];
    }
}

static void gather(const Exec *x, Scratch *s, int n, const Weight *w, int reg, int row, int column) {
    if (wants_q8(x, w))
        s->q8[n] = act8_at(machine_q8(x, reg, row), column);
    else
        s->f32[n] = machine_f32(x, reg, row) + column;
}

static int n_panels(const Weight *w) {
    return (w->n_out + PANEL_ROWS - 1) / PANEL_ROWS;
}

/* Panels to take at once: long stretches read memory best, several per thread balance the end. */
static int panel_grain(const Exec *x, int total) {
    int grain = total / (pool_n(x->pool) * 8);
    return grain < 1 ? 1 : grain > 16 ? 16 : grain;
}

void op_matmul(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    int total = 0, in = op_in(op, 0), residual = op_operand(op, ROLE_RESIDUAL, 0);
    for (int k = 0; k < op->n_w; k++) total += n_panels(op->w[k]);
    int gathered = -1; // the segment whose rows are in s
    Product product = {.n = n_rows(b, op), .scale = op->product.scale, .softcap = op->product.softcap};
    if (product.n == 0) return; // no logits wanted
    for (int first, grain = panel_grain(x, total); (first = take_items(x, op, grain)) < total;)
        for (int item = first; item < first + grain && item < total && !is_stopped(x, op); item++) {
            int k = 0, panel = item;
            while (panel >= n_panels(op->w[k])) panel -= n_panels(op->w[k++]);
            if (k != gathered) {
                product.w = op->w[k];
                product.bias = op->bias[k];
                gathered = k;
                for (int i = 0; i < product.n; i++) {
                    gather(x, s, i, product.w, in, source_row(x, b, op, in, i), 0);
                    s->out[i] = machine_f32(x, op_out(op, k), i);
                    s->residual[i] = residual == NO_REG || k ? NULL : input(x, b, op, residual, i);
                }
            }
            multiply_panel(x, &product, panel, s);
        }
}

/* The experts of row i, by slot; NULL: slot s has matrix s. */
static const int32_t *row_experts(const Exec *x, const Batch *b, const Op *op, int i) {
    int reg = op_operand(op, ROLE_IDS, 0);
    return reg == NO_REG ? NULL : (const int32_t *)(const void *)input(x, b, op, reg, i);
}

/* Sorts the (row, slot) pairs of the batch by expert: pairs of expert e are s->pair[s->start[e] .. s->start[e
 * + 1]). */
static void sort_by_expert(const Exec *x, const Batch *b, const Op *op, Scratch *s) {
    int n_used = op->product.moe.n_used, n_expert = op->product.moe.n_expert;
    memset(s->start, 0, (size_t)(n_expert + 1) * sizeof *s->start);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < n_rows(b, op); i++) {
            const int32_t *ids = row_experts(x, b, op, i);
            for (int slot = 0; slot < n_used; slot++) {
                int e = ids ? ids[slot] : slot;
                if (pass == 0)
                    s->start[e + 1]++;
                else
                    s->pair[s->start[e]++] = i * n_used + slot;
            }
        }
        for (int e = 0; pass == 0 && e < n_expert; e++) s->start[e + 1] += s->start[e];
    }
    memmove(s->start + 1, s->start,
            (size_t)n_expert * sizeof *s->start); // filling moved each start to its end
    s->start[0] = 0;
}

static void gather_expert(const Exec *x, const Batch *b, const Op *op, int k, int e, Scratch *s) {
    const Weight *w = op->w[k];
    int in = op_in(op, 0), out = op_out(op, k), n_used = op->product.moe.n_used;
    bool per_slot = x->plan->regs[in].width != w->n_in; // else all slots read the same row
    for (int n = 0; n < s->start[e + 1] - s->start[e]; n++) {
        int i = s->pair[s->start[e] + n] / n_used, slot = s->pair[s->start[e] + n] % n_used;
        gather(x, s, n, w, in, source_row(x, b, op, in, i), per_slot ? slot * w->n_in : 0);
        s->out[n] = machine_f32(x, out, i) + (size_t)slot * (size_t)w->n_out;
        s->residual[n] = NULL;
    }
}

void op_expert(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    sort_by_expert(x, b, op, s);
    int item = 0, taken = take_items(x, op, 1); // items in order: segment, expert that has rows, panel
    for (int k = 0; k < op->n_w; k++)
        for (int e = 0; e < op->product.moe.n_expert; e++) {
            const Weight *w = op->w[k];
            Product product = {.w = w,
                               .expert = e,
                               .bias = op->bias[k] ? op->bias[k] + (size_t)e * (size_t)w->n_out : NULL,
                               .scale = op->product.scale,
                               .n = s->start[e + 1] - s->start[e]};
            int panels = product.n ? n_panels(w) : 0;
            if (taken < item + panels) gather_expert(x, b, op, k, e, s);
            for (; taken < item + panels; taken = take_items(x, op, 1))
                multiply_panel(x, &product, taken - item, s);
            item += panels;
        }
}
