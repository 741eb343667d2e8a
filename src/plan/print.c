/* print: the tape as text, one line per op.
 *
 *     number, place, op, the field's name: outputs <- inputs . weights, and the bytes that the op must move
 * for one row
 *
 * A register is r<number>[width], with its forms behind it where they are not just floats; "+r7" is a
 * residual, "@r5" the register of expert ids or weights.  Tests compare this text; `zgen info --plan` shows
 * it. */
#include "plan.h"

#include <stdio.h>
#include <string.h>

static void print_reg(const Plan *p, const char *before, int reg, Buf *out) {
    if (reg == NO_REG) return;
    const Reg *r = &p->regs[reg];
    const char *forms = r->forms == FORM_Q8 ? "q8" : r->forms == (FORM_F32 | FORM_Q8) ? "f32+q8" : "";
    buf_printf(out, "%sr%d[%s,%d]%s", before, reg, r->on_R ? "R" : "T", r->width, forms);
}

static void print_weight(const Op *op, int i, Buf *out) {
    const Weight *w = op->w[i];
    buf_printf(out, " . %s %s[%d,%d", w->name, quant_traits(w->type)->name, w->n_in, w->n_out);
    if (w->n_expert > 1) buf_printf(out, ",%d", w->n_expert);
    buf_printf(out, "]%s%s", w->scale ? " *scale" : "", op->bias[i] ? " +bias" : "");
}

static void print_parameters(const Op *op, Buf *out) {
    if (op->eps > 0) buf_printf(out, "%s eps %g", op->code == OP_NORM ? "" : " norm", (double)op->eps);
    if (op->rope.n_rot > 0)
        buf_printf(out, " heads %d+%d of %d, %d rotated, base %g, scale %g%s", op->rope.n_head[0],
                   op->rope.n_head[1], op->rope.head_dim, op->rope.n_rot, (double)op->rope.base,
                   (double)op->rope.scale, op->vector ? ", factors" : "");
    switch (op->code) {
    case OP_KVPUT:
        buf_printf(out, " layer %d, heads %d of %d", op->attn.kv_layer, op->attn.n_kv_head,
                   op->attn.head_dim);
        break;
    case OP_ATTN:
        buf_printf(out, " layer %d, heads %d/%d of %d, scale %g", op->attn.kv_layer, op->attn.n_head,
                   op->attn.n_kv_head, op->attn.head_dim, (double)op->attn.scale);
        break;
    case OP_ROUTE:
        buf_printf(out, " %d of %d, scale %g", op->moe.n_used, op->moe.n_expert, (double)op->moe.scale);
        break;
    default:
        break;
    }
}

void plan_print(const Plan *p, double kv_element_bytes, Buf *out) {
    for (int i = 0; i < p->n_ops; i++) {
        const Op *op = &p->ops[i];
        char place[16] = "-";
        if (op->layer >= 0) snprintf(place, sizeof place, "%d", op->layer);
        buf_printf(out, "%4d %4s %-7s %-14s", i, place, op_name(op->code), op->name);
        for (int k = 0; k < op->n_out; k++) print_reg(p, k ? ", " : " ", op->out[k], out);
        buf_add(out, " <-", 3);
        print_reg(p, " ", op->in, out);
        print_reg(p, ", ", op->in2, out);
        print_reg(p, ", ", op->in3, out);
        print_reg(p, " @", op->ids, out);
        for (int k = 0; k < op->n_w; k++) print_weight(op, k, out);
        if (op->glu) buf_printf(out, " glu");
        print_reg(p, " + ", op->residual, out);
        print_parameters(op, out);
        Cost c = plan_cost(p, op, kv_element_bytes);
        if (c.bytes_fixed + c.bytes_row > 0) buf_printf(out, "  %.0f bytes", c.bytes_fixed + c.bytes_row);
        if (c.bytes_past > 0) buf_printf(out, "  %.0f bytes per past position", c.bytes_past);
        buf_add(out, "\n", 1);
    }
}
