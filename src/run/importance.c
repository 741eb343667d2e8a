/* importance: see importance.h. */
#include "importance.h"
#include "../base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct Collection {
    const ImportanceTask *task;
    const Plan *plan;
    Importance *out;
    int *op; // [out->n] the product that is collected for each: the first that has the tensor
} Collection;

/* ---- which tensors -------------------------------------------------------------------------------------- */

static bool is_wanted(const Op *op, const Weight *w, bool with_output) {
    return strncmp(w->name, "blk.", 4) == 0 || (with_output && op->code == OP_LOGITS);
}

static void add_tensor(Collection *c, int op, const Weight *w) {
    Importance *p = c->out;
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->sums[i].name, w->name) == 0) return;
    p->sums = mem_resize(p->sums, (p->n + 1) * sizeof *p->sums);
    c->op = mem_resize(c->op, (p->n + 1) * sizeof *c->op);
    c->op[p->n] = op;
    p->sums[p->n++] = (ImatrixSums){.name = w->name,
                                    .squares = mem_new((size_t)w->n_in * (size_t)w->n_expert, sizeof(double)),
                                    .counts = mem_new((size_t)w->n_expert, sizeof(int64_t)),
                                    .n_in = w->n_in,
                                    .n_mat = w->n_expert};
}

static void add_tensors(Collection *c) {
    for (int i = 0; i < c->plan->n_ops; i++) {
        const Op *op = &c->plan->ops[i];
        for (int k = 0; op_is_product(op) && k < op->n_w; k++)
            if (is_wanted(op, op->w[k], c->task->with_output)) add_tensor(c, i, op->w[k]);
    }
}

/* ---- sums ----------------------------------------------------------------------------------------------- */

static void add_row(const ImatrixSums *s, int matrix, const float *row) {
    double *squares = s->squares + (size_t)matrix * (size_t)s->n_in;
    for (int i = 0; i < s->n_in; i++) squares[i] += (double)row[i] * (double)row[i];
    s->counts[matrix]++;
}

/* Rows of an EXPERT: slot s of a row goes to matrix id_s, and reads the whole row or its part of it. */
static void add_routed(const Collection *c, const ImatrixSums *s, const Op *op, const OpInputs *in) {
    int n_used = op->product.moe.n_used;
    int step = c->plan->regs[op_in(op, 0)].width != s->n_in ? s->n_in : 0;
    for (int i = 0; i < in->n; i++)
        for (int slot = 0; slot < n_used; slot++)
            add_row(s, in->ids ? in->ids[i * n_used + slot] : slot,
                    in->data + (size_t)i * in->stride + slot * step);
}

static bool take(void *arg, const OpInputs *in) {
    Collection *c = arg;
    const Op *op = &c->plan->ops[in->op];
    for (size_t k = 0; k < c->out->n; k++) {
        const ImatrixSums *s = &c->out->sums[k];
        if (c->op[k] != in->op) continue;
        if (op->code == OP_EXPERT)
            add_routed(c, s, op, in);
        else
            for (int i = 0; i < in->n; i++) add_row(s, 0, in->data + (size_t)i * in->stride);
    }
    return true;
}

static bool check(const Importance *p, Err *e) {
    for (size_t k = 0; k < p->n; k++)
        for (size_t i = 0; i < (size_t)p->sums[k].n_in * (size_t)p->sums[k].n_mat; i++)
            if (!isfinite((float)p->sums[k].squares[i]))
                return err_set(e, ERR_RUN,
                               "the inputs of '%s' are not finite in column %zu; the model is damaged",
                               p->sums[k].name, i % (size_t)p->sums[k].n_in);
    return true;
}

bool importance_run(Engine *g, const ImportanceTask *t, Importance *out, Err *e) {
    Collection c = {.task = t, .plan = engine_plan(g), .out = out};
    size_t n = (size_t)t->n_ctx;
    int32_t *ids = mem_new(n, sizeof *ids);
    *out = (Importance){0};
    add_tensors(&c);
    bool ok = true;
    for (int i = 0; ok && i < t->n_windows; i++) {
        memcpy(ids, t->ids + (size_t)i * n, n * sizeof *ids);
        if (t->bos >= 0) ids[0] = t->bos;
        ok = engine_inputs(g, ids, t->n_ctx, t->with_output, take, &c, e) && t->go_on(t->arg, i + 1);
    }
    free(ids);
    free(c.op);
    return ok && check(out, e);
}

void importance_free(Importance *p) {
    for (size_t i = 0; i < p->n; i++) {
        free(p->sums[i].squares);
        free(p->sums[i].counts);
    }
    free(p->sums);
    *p = (Importance){0};
}
