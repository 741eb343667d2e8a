/* engine_inputs: the inputs of products over given tokens.
 *
 * The tape runs in pieces that end before each product: what the product will read is in its registers then.
 * All rows are wanted ones, so that no op leaves rows out and row r is row r of every register. */
#include "engine_impl.h"
#include "../base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

typedef struct Reading {
    Engine *g;
    bool with_logits;
    bool (*take)(void *arg, const OpInputs *inputs);
    void *arg;
    int32_t *ids; // of the experts of a chunk
} Reading;

/* The experts of all rows, copied: the next read may overwrite them.  NULL: the op has none, or *e is set. */
static const int32_t *read_ids(Reading *r, const Op *op, int n, Err *e) {
    int reg = op_operand(op, ROLE_IDS, 0);
    if (reg == NO_REG) return NULL;
    size_t stride, n_used = (size_t)op->product.moe.n_used;
    const float *cells = r->g->exec_ops->read(r->g->exec, reg, 0, n, &stride, e);
    if (!cells) return NULL;
    r->ids = mem_resize(r->ids, (size_t)n * n_used * sizeof *r->ids);
    for (size_t i = 0; i < (size_t)n; i++)
        memcpy(r->ids + i * n_used, cells + i * stride, n_used * sizeof *r->ids);
    return r->ids;
}

static bool take_inputs(Reading *r, int i, int n, Err *e) {
    Engine *g = r->g;
    const Op *op = &g->plan->ops[i];
    OpInputs inputs = {.op = i, .n = n};
    inputs.ids = read_ids(r, op, n, e);
    if (!inputs.ids && op_operand(op, ROLE_IDS, 0) != NO_REG) return false;
    inputs.data = g->exec_ops->read(g->exec, op_in(op, 0), 0, n, &inputs.stride, e);
    return inputs.data && r->take(r->arg, &inputs);
}

static bool run_chunk(Reading *r, const Batch *b, Err *e) {
    Engine *g = r->g;
    int at = 0;
    for (int i = 0; i < g->plan->n_ops; i++) {
        const Op *op = &g->plan->ops[i];
        if (!op_is_product(op) || (op->code == OP_LOGITS && !r->with_logits)) continue;
        if (!g->exec_ops->run(g->exec, b, at, i, e) || !take_inputs(r, i, b->T, e)) return false;
        at = i;
    }
    return true; // what is left of the tape has no product that is wanted, and no row of a cache
}

bool engine_inputs(Engine *g, const int32_t *ids, int n, bool with_logits,
                   bool (*take)(void *arg, const OpInputs *inputs), void *arg, Err *e) {
    Reading r = {g, with_logits, take, arg, NULL};
    Slot *s = &g->slots[0];
    assert(g->config.keeps_inputs && g->exec_config.R_max >= g->chunk && n <= g->config.n_ctx);
    assert(!engine_is_busy(g));
    engine_go_back(g, s, 0);
    engine_take_pages(g, s);
    e->code = 0;
    bool ok = true;
    for (int done = 0; ok && done < n;) {
        Batch b = engine_batch(g);
        b.sampling = NULL;
        int end = n - done < g->chunk ? n : done + g->chunk;
        engine_add_rows(g, s, ids, done, end, n, &b);
        for (int t = 0; t < b.T; t++) g->out_row[b.R++] = t;
        ok = run_chunk(&r, &b, e);
        done = end;
    }
    free(r.ids);
    return ok;
}
