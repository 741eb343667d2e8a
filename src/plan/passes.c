/* passes: fuse, copy views, forms, allocate.  Each goes through the tape from front to back and changes only
 * the fields that it owns.
 *
 * Fusing is a table of rules over neighbouring ops.  A rule is one function that either makes of op a and the
 * op b behind it one op, or leaves both alone; the result is kept if the executor can run it.  Norms, which
 * several products may read, come last.  No executor looks at neighbouring ops for more than to run them
 * together. */
#include "passes.h"
#include "../base/mem.h"

#include <stdlib.h>
#include <string.h>

/* ---- fuse ---------------------------------------------------------------------------------------------- */

/* Operands of all ops that read memory of the register. */
static int n_readers(const Plan *p, int reg) {
    int n = 0;
    for (int i = 0; i < p->n_ops; i++)
        for (int k = 0; k < p->ops[i].n_operands; k++) {
            const Operand *o = &p->ops[i].operand[k];
            n += role_reads(o->role) && plan_overlap(p, o->reg, reg);
        }
    return n;
}

static bool is_matmul_or_expert(const Op *op) {
    return op->code == OP_MATMUL || op->code == OP_EXPERT;
}

/* Products of one input become one op: Q, K and V; gate and up. */
static bool merge_segments(const Plan *p, Op *a, const Op *b) {
    (void)p;
    if (a->code != b->code || !is_matmul_or_expert(a) || a->on_R != b->on_R) return false;
    if (op_in(a, 0) != op_in(b, 0) || op_operand(a, ROLE_IDS, 0) != op_operand(b, ROLE_IDS, 0)) return false;
    if (a->product.norm.weight != b->product.norm.weight || a->product.act || b->product.act) return false;
    if (a->product.scale != 1 || b->product.scale != 1) return false;
    if (op_count(a, ROLE_RESIDUAL) || op_count(b, ROLE_RESIDUAL) || a->n_w + b->n_w > OP_MAX_SEGMENTS)
        return false;
    if (a->code == OP_EXPERT && a->w[0]->type != b->w[0]->type)
        return false; // no activation joins them, and a GPU runs two products of experts only joined
    for (int i = 0; i < b->n_w; i++, a->n_w++) {
        op_add_operand(a, ROLE_WRITE, op_out(b, i));
        a->w[a->n_w] = b->w[i];
        a->bias[a->n_w] = b->bias[i];
    }
    return true;
}

/* The sum of a result and the residual stream becomes the last step of the op that makes it. */
static bool merge_residual(const Plan *p, Op *a, const Op *b) {
    bool can_add = a->code == OP_MATMUL || a->code == OP_MOE_SUM || (a->code == OP_NORM && !a->norm.head_dim);
    if (b->code != OP_ADD || !can_add || a->on_R != b->on_R) return false;
    if (a->code == OP_NORM ? b->add.a_scale != 1 : b->add.scale != 1) return false;
    if (op_count(a, ROLE_WRITE) != 1 || op_count(a, ROLE_RESIDUAL) || op_in(b, 0) != op_out(a, 0))
        return false;
    if (a->code == OP_MATMUL && a->product.act) return false;
    if (n_readers(p, op_out(a, 0)) != 1) return false; // another op reads the sum without the residual
    if (a->code == OP_MATMUL) a->product.scale *= b->add.a_scale;
    if (a->code == OP_MOE_SUM) a->moe.scale *= b->add.a_scale;
    if (a->code == OP_NORM) a->sum_scale = b->add.scale;
    op_add_operand(a, ROLE_RESIDUAL, op_in(b, 1));
    op_replace_operand(a, ROLE_WRITE, 0, op_out(b, 0));
    return true;
}

/* Gate and up are joined where they are made; an activation of one result is applied there, and multiplied by
 * the other factor, if there is one. */
static bool merge_activation(const Plan *p, Op *a, const Op *b) {
    int n = op_count(a, ROLE_WRITE);
    if (b->code != OP_GLU || !is_matmul_or_expert(a) || a->on_R != b->on_R || a->product.act || n > 2)
        return false;
    for (int i = 0; i < n; i++)
        if (op_in(b, i) != op_out(a, i) || n_readers(p, op_out(a, i)) != 1) return false;
    if (b->glu.act == ACT_CLAMPED || b->glu.act == ACT_XIELU) return false; // these have numbers
    if (b->glu.act == ACT_NONE) return false; // of a product: results as they are
    if (n == 2 && (a->w[0]->n_out != a->w[1]->n_out || a->w[0]->type != a->w[1]->type))
        return false; // the kernels go through both in step
    if (n == 1) {
        if (b->glu.act == ACT_SWIGLU_OAI || a->product.scale != 1) return false;
        if (op_count(a, ROLE_RESIDUAL) || op_count(a, ROLE_GATE)) return false;
        int factor = op_in(b, 1);
        if (factor != NO_REG &&
            (a->code != OP_MATMUL || p->regs[factor].width != p->regs[op_out(a, 0)].width))
            return false;
        op_add_operand(a, ROLE_GATE, factor);
    }
    a->product.act = b->glu.act;
    if (n == 2) a->n_operands--; // up, the last output
    op_replace_operand(a, ROLE_WRITE, 0, op_out(b, 0));
    return true;
}

/* A convolution multiplies its two inputs. */
static bool merge_factor(const Plan *p, Op *a, const Op *b) {
    if (a->code != OP_GLU || a->glu.act != ACT_NONE || b->code != OP_CONV || a->on_R != b->on_R) return false;
    int product = op_out(a, 0), width = p->regs[product].width;
    if (op_in(b, 0) != product || n_readers(p, product) != 1 || p->regs[op_in(a, 0)].width != width)
        return false;
    Op merged = *b;
    op_replace_operand(&merged, ROLE_READ, 0, op_in(a, 0));
    op_add_operand(&merged, ROLE_READ, op_in(a, 1));
    *a = merged;
    return true;
}

/* A gate is multiplied where its other factor is made; by a product, one of a single column. */
static bool merge_gate(const Plan *p, Op *a, const Op *b) {
    bool is_product = a->code == OP_MATMUL && a->n_w == 1 && !a->product.act && a->product.scale == 1,
         has_gate = a->code == OP_NORM || a->code == OP_CONV || a->code == OP_SCAN || is_product;
    if (!has_gate || op_count(a, ROLE_RESIDUAL) || b->code != OP_GLU || a->on_R != b->on_R) return false;
    int gate = op_in(b, 0), factor = op_out(a, 0);
    bool has_other_form =
        b->glu.act == ACT_CLAMPED || b->glu.act == ACT_XIELU || b->glu.act == ACT_SWIGLU_OAI;
    if (op_in(b, 1) != factor || has_other_form || op_count(a, ROLE_GATE)) return false;
    if (is_product && b->glu.act != ACT_SIGMOID) return false;
    int width = is_product ? 1 : p->regs[factor].width;
    if (n_readers(p, factor) != 1 || p->regs[gate].width != width) return false;
    op_add_operand(a, ROLE_GATE, gate);
    a->gate = b->glu.act;
    op_replace_operand(a, ROLE_WRITE, 0, op_out(b, 0));
    return true;
}

/* Attention puts new keys and values into the cache. */
static bool merge_kvput(const Plan *p, Op *a, const Op *b) {
    (void)p;
    if (a->code != OP_KVPUT || b->code != OP_ATTN || a->on_R != b->on_R) return false;
    if (op_operand(a, ROLE_CACHE, 0) != op_operand(b, ROLE_CACHE, 0)) return false;
    Op merged = *b;
    op_add_operand(&merged, ROLE_READ, op_in(a, 0));
    op_add_operand(&merged, ROLE_READ, op_in(a, 1));
    *a = merged;
    return true;
}

/* Whether attention in registers can rotate so: pairs of dimensions stay together. */
static bool fits_attention(const Plan *p, const RopeParams *r) {
    int multiple = p->config.can.fused_rope_multiple;
    return !multiple ||
           (r->first % multiple == 0 && (r->pairing == ROPE_ADJACENT || r->n_rot / 2 % multiple == 0));
}

/* Attention rotates queries, and keys where it has new ones, that no other op reads. */
static bool merge_rope(const Plan *p, Op *a, const Op *b) {
    if (a->code != OP_ROPE || b->code != OP_ATTN || a->on_R != b->on_R) return false;
    if (b->attn.rope.n_rot || b->attn.q_norm.head_dim || b->attn.k_norm.head_dim)
        return false; // come after it
    int q = op_operand(a, ROLE_BOTH, 0), k = op_operand(a, ROLE_BOTH, 1);
    if (op_in(b, 0) != q || op_in(b, 1) != k || !fits_attention(p, &a->rope)) return false;
    if (n_readers(p, q) != 2 || (k != NO_REG && n_readers(p, k) != 2)) return false; // rotation and attention
    RopeParams rope = a->rope;
    *a = *b;
    a->attn.rope = rope;
    return true;
}

/* Attention normalises heads of queries, of new keys or of new values that no other op reads; it may change
 * the queries in place. */
static bool merge_head_norm(const Plan *p, Op *a, const Op *b) {
    if (a->code != OP_NORM || b->code != OP_ATTN || a->on_R != b->on_R) return false;
    if (a->norm.centred || a->norm.bias || a->norm.per_head) return false;
    if (op_count(a, ROLE_READ) > 1 || op_count(a, ROLE_GATE)) return false;
    Op merged = *b;
    NormParams *const norms[] = {&merged.attn.q_norm, &merged.attn.k_norm, &merged.attn.v_norm};
    int nth = 0;
    while (nth < 3 && op_in(b, nth) != op_out(a, 0)) nth++;
    if (nth == 3 || norms[nth]->head_dim || n_readers(p, op_out(a, 0)) != 1) return false;
    if (a->norm.head_dim != (nth == 2 ? b->attn.v_dim : b->attn.head_dim)) return false;
    if (nth == 0 && n_readers(p, op_in(a, 0)) != 1) return false;
    op_replace_operand(&merged, ROLE_READ, nth, op_in(a, 0));
    *norms[nth] = a->norm;
    *a = merged;
    return true;
}

static bool can_run(const Plan *p, const Op *op) {
    return (plan_op_features(p, op) & ~p->config.can.features) == 0;
}

static bool writes(const Plan *p, const Op *op, int reg) {
    for (int k = 0; k < op->n_operands; k++)
        if (role_writes(op->operand[k].role) && plan_overlap(p, op->operand[k].reg, reg)) return true;
    return false;
}

/* Makes op i, a norm that only products read, the first step of each of these. */
static bool fold_norm(Plan *p, int i) {
    const Op *norm = &p->ops[i];
    if (norm->code != OP_NORM || op_count(norm, ROLE_READ) > 1 || norm->norm.head_dim || !norm->norm.weight ||
        norm->norm.bias || norm->norm.centred || op_count(norm, ROLE_RESIDUAL) || op_count(norm, ROLE_GATE))
        return false;
    int in = op_in(norm, 0), out = op_out(norm, 0), width = p->regs[in].width, n = n_readers(p, out);
    Op *folded = mem_new((size_t)n + 1, sizeof *folded);
    int n_folded = 0, *at = mem_new((size_t)n + 1, sizeof *at);
    bool ok = width <= p->config.can.fused_norm_max;
    for (int k = i + 1; ok && n_folded < n && k < p->n_ops; k++) {
        const Op *op = &p->ops[k];
        if (op_is_product(op) && op_in(op, 0) == out && op->w[0]->n_in == width) {
            Op *to = &folded[n_folded];
            *to = *op;
            op_replace_operand(to, ROLE_READ, 0, in);
            to->product.norm = norm->norm;
            at[n_folded++] = k;
            ok = op->on_R == norm->on_R && !op->product.norm.weight && can_run(p, to);
        }
        ok = ok && (n_folded == n || !writes(p, op, in));
    }
    ok = ok && n > 0 && n_folded == n;
    for (int k = 0; ok && k < n; k++) p->ops[at[k]] = folded[k];
    free(folded);
    free(at);
    return ok;
}

static void fold_norms(Plan *p) {
    int n = 0;
    for (int i = 0; i < p->n_ops; i++) {
        bool folded = fold_norm(p, i);
        if (!folded) p->ops[n++] = p->ops[i];
        if (folded || n - 1 != i) p->ops[i].n_operands = 0; // an op that is gone or was moved has none here
    }
    p->n_ops = n;
}

void plan_fuse(Plan *p) {
    static bool (*const rules[])(const Plan *p, Op *a, const Op *b) = {
        merge_segments,  merge_factor, merge_gate, merge_residual, merge_activation, merge_kvput,
        merge_head_norm, // of v
        merge_rope,
        merge_head_norm, // of k
        merge_head_norm, // of q
    };
    // Rule after rule: later ones see what earlier ones made.
    for (size_t r = 0; r < sizeof rules / sizeof *rules; r++) {
        int n = 0; // ops kept so far
        for (int i = 0; i < p->n_ops; i++) {
            Op merged = n ? p->ops[n - 1] : (Op){0};
            bool fused = n > 0 && rules[r](p, &merged, &p->ops[i]) && can_run(p, &merged);
            int to = fused ? n - 1 : n++;
            p->ops[to] = fused ? merged : p->ops[i];
            if (to != i) p->ops[i].n_operands = 0; // the op that was moved has no operands here
        }
        p->n_ops = n;
    }
    if (!p->config.keeps_inputs) fold_norms(p);
}

/* ---- forms --------------------------------------------------------------------------------------------- */

/* Whether the op reads its input in the 8-bit form for its kth weight: not if it normalises it first. */
static bool reads_q8(const Plan *p, const Op *op, int k) {
    return p->config.can.q8_bytes && !p->config.act_f32 && !op->product.norm.weight &&
           quant_traits(op->w[k]->type)->act == QUANT_ACT_Q8;
}

static bool is_multiple(const Reg *view, int of) {
    return view->column % of == 0 && view->width % of == 0;
}

/* Whether the op can read an operand that is a view where it is. */
static bool reads_in_place(const Plan *p, const Op *op, const Operand *o) {
    const Capability *can = &p->config.can;
    const Reg *view = &p->regs[o->reg];
    if (can->view_multiple && !is_multiple(view, can->view_multiple)) return false;
    for (int i = 0; op_is_product(op) && o->role == ROLE_READ && i < op->n_w; i++)
        if (reads_q8(p, op, i) &&
            (!is_multiple(view, can->q8_multiple) || p->regs[view->base].width % can->q8_multiple != 0))
            return false;
    return true;
}

/* SLICE of the columns of a view to a register of its own, for `reader`. */
static Op copy_of_view(Plan *p, const Op *reader, int view) {
    const Reg r = p->regs[view];
    Op copy = {.code = OP_SLICE, .layer = reader->layer, .name = r.name, .on_R = reader->on_R};
    copy.slice = (SliceParams){.period = p->regs[r.base].width, .first = r.column, .n = r.width};
    op_add_operand(&copy, ROLE_READ, r.base);
    op_add_operand(&copy, ROLE_WRITE, p->n_regs);
    p->regs = mem_resize(p->regs, (size_t)(p->n_regs + 1) * sizeof *p->regs);
    p->regs[p->n_regs++] =
        (Reg){.name = r.name, .layer = r.layer, .width = r.width, .on_R = reader->on_R, .base = NO_REG};
    return copy;
}

void plan_copy_views(Plan *p) {
    if (!(p->config.can.features & FEATURE_BIT(OP_SLICE))) return; // plan_supported refuses these views
    Op *ops = mem_new((size_t)p->n_ops * (OP_MAX_OPERANDS + 1), sizeof *ops);
    int n = 0;
    for (int i = 0; i < p->n_ops; i++) {
        Op op = p->ops[i];
        for (int k = 0; k < op.n_operands; k++) {
            Operand *o = &op.operand[k];
            if (!role_reads(o->role) || role_writes(o->role) || p->regs[o->reg].base == NO_REG ||
                reads_in_place(p, &op, o))
                continue;
            ops[n++] = copy_of_view(p, &op, o->reg);
            o->reg = p->n_regs - 1;
        }
        ops[n++] = op;
    }
    free(p->ops);
    p->ops = ops;
    p->n_ops = n;
}

/* Marks the forms in which a product reads its input, and the floats where these are wanted anyway. */
static void mark_input(const Plan *p, const Op *op, Reg *in) {
    in->has[FORM_F32] |= p->config.keeps_inputs;
    for (int i = 0; i < op->n_w; i++) in->has[reads_q8(p, op, i) ? FORM_Q8 : FORM_F32] = true;
}

void plan_forms(Plan *p) {
    for (int i = 0; i < p->n_ops; i++) {
        const Op *op = &p->ops[i];
        for (int k = 0; k < op->n_operands; k++) {
            const Operand *o = &op->operand[k];
            if (o->role == ROLE_CACHE) continue;
            Reg *reg = &p->regs[plan_base(p, o->reg)];
            if (op_is_product(op) && o->role == ROLE_READ)
                mark_input(p, op, reg);
            else if (o->role != ROLE_WRITE || op_writes_parts(op))
                reg->has[FORM_F32] = true;
        }
    }
}

/* ---- allocate ------------------------------------------------------------------------------------------ */

typedef struct Buffer { // the rows of one register in one form
    int reg;
    Form form;
    size_t bytes, offset;
    int first, last; // ops between which it must be kept
} Buffer;

/* The first and the last op that use each register's memory; -1 where none does.  What is added to a result
 * may be read late where ops run together. */
static void find_lifetimes(const Plan *p, int *first, int *last) {
    for (int r = 0; r < p->n_regs; r++) first[r] = last[r] = -1;
    for (int i = 0; i < p->n_ops; i++)
        for (int k = 0; k < p->ops[i].n_operands; k++) {
            const Operand *o = &p->ops[i].operand[k];
            if (o->role == ROLE_CACHE) continue;
            int reg = plan_base(p, o->reg),
                end = o->role == ROLE_RESIDUAL || o->role == ROLE_GATE ? i + p->config.can.late_ops : i;
            if (first[reg] < 0) first[reg] = i;
            if (end > last[reg]) last[reg] = end;
        }
}

static int by_size(const void *a, const void *b) { // the largest first
    const Buffer *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
    return x->reg != y->reg ? x->reg - y->reg : (int)x->form - (int)y->form;
}

/* Puts a buffer among the n that are placed, in order of offset: into the lowest range that is free of all
 * buffers kept at the same time. */
static void place_buffer(Buffer *placed, int n, Buffer buffer) {
    int at = 0;
    buffer.offset = 0;
    for (int i = 0; i < n; i++) {
        const Buffer *other = &placed[i];
        if (other->last < buffer.first || buffer.last < other->first) continue;
        if (other->offset >= buffer.offset + buffer.bytes) break;
        size_t end = other->offset + other->bytes;
        if (end > buffer.offset) buffer.offset = end;
    }
    while (at < n && placed[at].offset <= buffer.offset) at++;
    memmove(&placed[at + 1], &placed[at], (size_t)(n - at) * sizeof *placed);
    placed[at] = buffer;
}

/* The largest buffers are placed first, so that they leave no gaps between small ones. */
static size_t allocate_kind(Plan *p, bool on_R, const int *first, const int *last) {
    size_t room = (size_t)p->n_regs * N_FORMS + 1, total = 0;
    Buffer *buffers = mem_new(room, sizeof *buffers), *placed = mem_new(room, sizeof *placed);
    int n = 0;
    for (int r = 0; r < p->n_regs; r++)
        for (int form = 0; form < N_FORMS; form++)
            if (first[r] >= 0 && p->regs[r].on_R == on_R && p->regs[r].has[form])
                buffers[n++] = (Buffer){.reg = r,
                                        .form = (Form)form,
                                        .bytes = plan_row_bytes(p, r, (Form)form),
                                        .first = first[r],
                                        .last = last[r]};
    qsort(buffers, (size_t)n, sizeof *buffers, by_size);
    for (int i = 0; i < n; i++) place_buffer(placed, i, buffers[i]);
    for (int i = 0; i < n; i++) {
        p->regs[placed[i].reg].offset[placed[i].form] = placed[i].offset;
        if (placed[i].offset + placed[i].bytes > total) total = placed[i].offset + placed[i].bytes;
    }
    free(buffers);
    free(placed);
    return total;
}

/* A view has the forms and the offsets of its base. */
static void place_views(Plan *p) {
    for (int r = 0; r < p->n_regs; r++) {
        const Reg *base = &p->regs[plan_base(p, r)];
        memcpy(p->regs[r].has, base->has, sizeof base->has);
        memcpy(p->regs[r].offset, base->offset, sizeof base->offset);
    }
}

void plan_allocate(Plan *p) {
    int *first = mem_new((size_t)p->n_regs, sizeof *first), *last = mem_new((size_t)p->n_regs, sizeof *last);
    find_lifetimes(p, first, last);
    p->row_bytes_T = allocate_kind(p, false, first, last);
    p->row_bytes_R = allocate_kind(p, true, first, last);
    place_views(p);
    free(first);
    free(last);
}
