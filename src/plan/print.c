/* print: the tape as text, one line per op.
 *
 *     number, layer, op, name: outputs <- inputs . weights parameters, and the bytes that the op must move
 *     for one row
 *
 * A register is r<number>[T or R, width], with its forms behind it where they are not just floats; a view has
 * its base and first column behind it; "+ r7" is a residual, "@r5" the register of expert ids, "cache 2" a
 * layer of the cache.  Tests compare this text; `zgen info --plan` shows it. */
#include "plan.h"

#include <stdio.h>
#include <string.h>

static void print_reg(const Plan *p, const char *before, int reg, Buf *out) {
    const Reg *r = &p->regs[reg];
    const char *forms = !r->has[FORM_Q8] ? "" : r->has[FORM_F32] ? "f32+q8" : "q8";
    buf_printf(out, "%sr%d[%s,%d]%s", before, reg, r->on_R ? "R" : "T", r->width, forms);
    if (r->base != NO_REG) buf_printf(out, " of r%d at %d", r->base, r->column);
}

static void print_operands(const Plan *p, const Op *op, Role role, const char *first, const char *next,
                           Buf *out) {
    for (int i = 0; i < op_count(op, role); i++) print_reg(p, i ? next : first, op_operand(op, role, i), out);
}

static void print_weight(const Op *op, int i, Buf *out) {
    const Weight *w = op->w[i];
    buf_printf(out, " . %s %s[%d,%d", w->name, quant_traits(w->type)->name, w->n_in, w->n_out);
    if (w->n_expert > 1) buf_printf(out, ",%d", w->n_expert);
    buf_printf(out, "]%s%s", w->scale ? " *scale" : "", op->bias[i] ? " +bias" : "");
}

static void print_norm(const NormParams *n, const char *before, Buf *out) {
    if (n->cut != 0) {
        buf_printf(out, "%s cut at %g deviations", before, (double)n->cut);
        return;
    }
    buf_printf(out, "%s eps %g", before, (double)n->eps);
    if (n->centred) buf_printf(out, ", centred");
    if (!n->weight) buf_printf(out, ", no weight");
    if (n->bias) buf_printf(out, ", bias");
    if (n->head_dim) buf_printf(out, ", heads of %d%s", n->head_dim, n->per_head ? ", a weight each" : "");
}

static void print_rope(const RopeParams *r, Buf *out) {
    buf_printf(out, " rotate heads %d+%d of %d, %d dimensions", r->n_head[0], r->n_head[1], r->head_dim,
               r->n_rot);
    if (r->first) buf_printf(out, " from %d", r->first);
    buf_printf(out, "%s, base %g, scale %g", r->pairing == ROPE_HALVES ? " by halves" : "", (double)r->base,
               (double)r->scale);
    if (r->magnitude != 1) buf_printf(out, ", magnitude %g", (double)r->magnitude);
    if (r->factors) buf_printf(out, ", factors");
    if (r->long_factors) buf_printf(out, ", others beyond %d", r->long_context);
    if (r->yarn_context)
        buf_printf(out, ", yarn from %d, %g to %g, mix %g", r->yarn_context, (double)r->yarn_fast,
                   (double)r->yarn_slow, (double)r->yarn_mix);
}

static void print_attn(const AttnParams *a, Buf *out) {
    buf_printf(out, ", heads %d/%d of %d, scale %g", a->n_head, a->n_kv_head, a->head_dim, (double)a->scale);
    if (a->v_dim != a->head_dim) buf_printf(out, ", values of %d", a->v_dim);
    if (a->window) buf_printf(out, ", window %d", a->window);
    if (a->chunk) buf_printf(out, ", chunks of %d", a->chunk);
    if (a->softcap != 0) buf_printf(out, ", softcap %g", (double)a->softcap);
    if (a->sinks) buf_printf(out, ", sinks");
    if (a->temperature != 0)
        buf_printf(out, ", temperature %g per ln((position + %d) / %d)", (double)a->temperature,
                   a->temperature_first, a->temperature_length);
    if (a->q_norm.head_dim) print_norm(&a->q_norm, ", q norm", out);
    if (a->k_norm.head_dim) print_norm(&a->k_norm, ", k norm", out);
    if (a->v_norm.head_dim) print_norm(&a->v_norm, ", v norm", out);
}

static void print_route(const MoeParams *m, Buf *out) {
    buf_printf(out, " %d of %d%s%s", m->n_used, m->n_expert, m->kind == ROUTE_SIGMOID ? " by sigmoid" : "",
               m->bias ? " with bias" : "");
    if (m->n_group > 1) buf_printf(out, " in %d of %d groups", m->n_group_used, m->n_group);
    buf_printf(out, ", scale %g%s", (double)m->scale, m->normalise ? "" : ", not normalised");
}

static void print_glu(const GluParams *g, Buf *out) {
    buf_printf(out, " %s", activation_name(g->act));
    if (g->act == ACT_CLAMPED) buf_printf(out, " %g", (double)g->limit);
    if (g->act == ACT_XIELU)
        buf_printf(out, " %g %g %g %g", (double)g->alpha_p, (double)g->alpha_n, (double)g->beta,
                   (double)g->eps);
}

static void print_product(const ProductParams *p, Buf *out) {
    if (p->act) buf_printf(out, " %s", activation_name(p->act));
    if (p->norm.weight) print_norm(&p->norm, " norm", out);
    if (p->scale != 1) buf_printf(out, " scale %g", (double)p->scale);
    if (p->softcap != 0) buf_printf(out, " softcap %g", (double)p->softcap);
}

/* Ops with a state: its layer of the cache and its shape. */
static void print_state(const Op *op, Buf *out) {
    buf_printf(out, " cache %d", op_operand(op, ROLE_CACHE, 0));
    if (op->code == OP_CONV)
        buf_printf(out, ", %d taps%s%s", op->conv.n_tap, op->conv.bias ? ", bias" : "",
                   op->conv.act ? ", silu" : "");
    if (op->code == OP_SCAN)
        buf_printf(out, ", heads %d of %d, states of %d in %d groups", op->scan.n_head, op->scan.head_dim,
                   op->scan.n_state, op->scan.n_group);
    if (op->code == OP_DELTA)
        buf_printf(out, ", heads %d of %d, keys %d of %d%s, scale %g%s", op->delta.n_head, op->delta.v_dim,
                   op->delta.n_k_head, op->delta.k_dim, op->delta.k_tiled ? " tiled" : "",
                   (double)op->delta.scale, op->delta.per_channel ? ", decay per channel" : "");
}

static void print_parameters(const Op *op, Buf *out) {
    if (op_rotation(op)) print_rope(op_rotation(op), out);
    if (op_is_product(op)) print_product(&op->product, out);
    switch (op->code) {
    case OP_EMBED:
        if (op->embed.scale != 1) buf_printf(out, " scale %g", (double)op->embed.scale);
        if (op->embed.by_position) buf_printf(out, " by position");
        break;
    case OP_NORM:
        print_norm(&op->norm, "", out);
        if (op->sum_scale != 1) buf_printf(out, ", scale %g", (double)op->sum_scale);
        break;
    case OP_GLU:
        print_glu(&op->glu, out);
        break;
    case OP_ADD:
        if (op->add.a_scale != 1) buf_printf(out, " first * %g", (double)op->add.a_scale);
        if (op->add.scale != 1) buf_printf(out, " scale %g", (double)op->add.scale);
        break;
    case OP_SLICE:
        buf_printf(out, " %d from %d of each %d", op->slice.n, op->slice.first, op->slice.period);
        break;
    case OP_CONV:
    case OP_SCAN:
    case OP_DELTA:
        print_state(op, out);
        break;
    case OP_KVPUT:
        buf_printf(out, " cache %d, heads %d of %d", op_operand(op, ROLE_CACHE, 0), op->attn.n_kv_head,
                   op->attn.head_dim);
        break;
    case OP_ATTN:
        buf_printf(out, " cache %d", op_operand(op, ROLE_CACHE, 0));
        print_attn(&op->attn, out);
        break;
    case OP_ROUTE:
        print_route(&op->moe, out);
        break;
    case OP_MOE_SUM:
        if (op->moe.scale != 1) buf_printf(out, " scale %g", (double)op->moe.scale);
        break;
    default:
        break;
    }
}

static void print_gate(const Plan *p, const Op *op, Buf *out) {
    if (op_count(op, ROLE_GATE) == 0) return;
    buf_printf(out, " *%s%s", op->gate ? " " : "", op->gate ? activation_name(op->gate) : "");
    print_operands(p, op, ROLE_GATE, " ", ", ", out);
}

static void print_cost(const Plan *p, const Op *op, double kv_element_bytes, Buf *out) {
    Cost first = plan_cost(p, op, kv_element_bytes, 0, 1), second = plan_cost(p, op, kv_element_bytes, 1, 1);
    double bytes = first.bytes_fixed + first.bytes_rows, past = second.bytes_rows - first.bytes_rows;
    if (bytes > 0) buf_printf(out, "  %.0f bytes", bytes);
    if (past > 0) buf_printf(out, "  %.0f bytes per past position", past);
}

void plan_print(const Plan *p, double kv_element_bytes, Buf *out) {
    for (int i = 0; i < p->n_ops; i++) {
        const Op *op = &p->ops[i];
        char layer[16] = "-";
        if (op->layer >= 0) snprintf(layer, sizeof layer, "%d", op->layer);
        buf_printf(out, "%4d %4s %-7s %-14s", i, layer, op_name(op->code), op->name);
        print_operands(p, op, ROLE_WRITE, " ", ", ", out);
        print_operands(p, op, ROLE_BOTH, " ", ", ", out);
        buf_add(out, " <-", 3);
        print_operands(p, op, ROLE_READ, " ", ", ", out);
        print_operands(p, op, ROLE_IDS, " @", " @", out);
        for (int k = 0; k < op->n_w; k++) print_weight(op, k, out);
        print_operands(p, op, ROLE_RESIDUAL, " + ", " + ", out);
        print_gate(p, op, out);
        print_parameters(op, out);
        print_cost(p, op, kv_element_bytes, out);
        buf_add(out, "\n", 1);
    }
}
