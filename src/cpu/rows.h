/* rows: the rows that an op works on, and the work items that its threads take; for the functions of the ops.
 *
 * An op that writes whole rows writes between row_begin and row_done.  One that writes them in parts writes
 * floats, and machine_op quantises the rows behind it. */
#ifndef ZGEN_CPU_ROWS_H
#define ZGEN_CPU_ROWS_H

#include "machine.h"

#include <limits.h>

static inline int n_rows(const Batch *b, const Op *op) {
    return op->on_R ? b->R : b->T;
}

/* The row of `reg` that row i of the op reads: an R op picks its rows out of a T register. */
static inline int source_row(const Exec *x, const Batch *b, const Op *op, int reg, int i) {
    return op->on_R && !x->plan->regs[reg].on_R ? b->out_row[i] : i;
}

static inline const float *input(const Exec *x, const Batch *b, const Op *op, int reg, int i) {
    return machine_f32(x, reg, source_row(x, b, op, reg, i));
}

/* Whether this run shall end: the op's items that are left are not computed, nor are the ops behind it. */
static inline bool is_stopped(Exec *x, const Op *op) {
    if (!x->config.stop || !x->config.stop()) return false;
    atomic_store_explicit(&x->stopped, (int)(op - x->plan->ops), memory_order_relaxed);
    return true;
}

/* The next `grain` items of op i, or a number beyond its last. */
static inline int take_items(Exec *x, const Op *op, int grain) {
    if (is_stopped(x, op)) return INT_MAX;
    return atomic_fetch_add_explicit(&x->next[op - x->plan->ops], grain, memory_order_relaxed);
}

/* Where to write row i of a register before row_done: in place where it keeps floats. */
static inline float *row_begin(const Exec *x, int reg, int i, Scratch *s) {
    return x->plan->regs[reg].has[FORM_F32] ? machine_f32(x, reg, i) : s->row;
}

static inline void row_done(const Exec *x, int reg, int i, const float *row) {
    if (x->plan->regs[reg].has[FORM_Q8])
        x->kernels->quantize(row, x->plan->regs[reg].width, machine_q8(x, reg, i));
}

static inline CacheView cache_view(const Exec *x, const Op *op) {
    return (CacheView){*cache_layer(x->cache, op_operand(op, ROLE_CACHE, 0)), x->kv, cache_tables(x->cache)};
}

#endif
