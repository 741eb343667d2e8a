/* ops: which function runs an op of the tape, and where the rows of registers lie.
 *
 * A function is called by threads with the same op and takes items of its work until none are left. Items are
 * rows for the small ops, panels of 16 weight rows for products, (row, some heads) pairs for attention, parts of a
 * state.  An op that writes a row in parts has a second stage, in which the rows are quantised.  Code of ops moves
 * and adds single numbers; arithmetic on many numbers goes through the kernel table. */
#include "ops.h"
#include "rows.h"

#include <assert.h>

/* Row `row` of the register, or of a view's base. */
static uint8_t *row_address(const Exec *x, int reg, int row, Form form) {
    const Reg *r = &x->plan->regs[reg];
    int rows_max = r->on_R ? x->config.R_max : x->config.T_max;
    assert(r->has[form]);
    return x->regs[r->on_R] + r->offset[form] * (size_t)rows_max +
           (size_t)row * plan_row_bytes(x->plan, reg, form);
}

float *machine_f32(const Exec *x, int reg, int row) {
    return (float *)(void *)row_address(x, reg, row, FORM_F32) + x->plan->regs[reg].column;
}

Act8 machine_q8(const Exec *x, int reg, int row) {
    const Plan *p = x->plan;
    Act8 whole = act8_view(row_address(x, reg, row, FORM_Q8), p->regs[plan_base(p, reg)].width);
    return act8_at(whole, p->regs[reg].column);
}

bool machine_has_end(const Plan *p, int i) {
    const Op *op = &p->ops[i];
    bool keeps_q8 = false;
    for (int k = 0; k < op_count(op, ROLE_WRITE); k++) keeps_q8 |= p->regs[op_out(op, k)].has[FORM_Q8];
    return op_writes_parts(op) && keeps_q8;
}

static void quantize_rows(Exec *x, const Batch *b, const Op *op) {
    atomic_int *next = &x->next_row[op - x->plan->ops];
    for (int i; (i = atomic_fetch_add_explicit(next, 1, memory_order_relaxed)) < n_rows(b, op);)
        for (int k = 0; k < op_count(op, ROLE_WRITE); k++) {
            int reg = op_out(op, k);
            if (x->plan->regs[reg].has[FORM_Q8]) row_done(x, reg, i, machine_f32(x, reg, i));
        }
}

void machine_stage(Exec *x, const Batch *b, const Stage *stage, int thread) {
    static void (*const run[OP_COUNT])(Exec *, const Batch *, const Op *, Scratch *) = {
        [OP_EMBED] = op_embed,     [OP_NORM] = op_norm,     [OP_MATMUL] = op_matmul, [OP_ROPE] = op_rope,
        [OP_KVPUT] = op_kvput,     [OP_ATTN] = op_attn,     [OP_GLU] = op_glu,       [OP_ADD] = op_add,
        [OP_SLICE] = op_slice,     [OP_JOIN] = op_join,     [OP_ROUTE] = op_route,   [OP_EXPERT] = op_expert,
        [OP_MOE_SUM] = op_moe_sum, [OP_LOGITS] = op_matmul, [OP_SAMPLE] = op_sample, [OP_CONV] = op_conv,
        [OP_SCAN] = op_scan,       [OP_DELTA] = op_delta,
    };
    const Op *op = &x->plan->ops[stage->op];
    assert(run[op->code] && "an op of the capability has its function");
    if (stage->is_end)
        quantize_rows(x, b, op);
    else
        run[op->code](x, b, op, &x->scratch[thread]);
}
