/* passes: fuse, place, allocate.  Each walks the tape from front to back and changes nothing but what it
 * owns.
 *
 * Fusing is a table of rules over neighbouring ops; a rule is one function that either merges op b into the
 * op a before it or leaves both alone, and the bit of the configuration that allows it.  No executor looks at
 * an op's neighbours for more than to run them together. */
#include "passes.h"
#include "../base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- fuse ---------------------------------------------------------------------------------------------- */

static int n_readers(const Plan *p, int reg) {
    int n = 0;
    for (int i = 0; i < p->n_ops; i++) {
        const Op *op = &p->ops[i];
        n += (op->in == reg) + (op->in2 == reg) + (op->in3 == reg) + (op->residual == reg) + (op->ids == reg);
    }
    return n;
}

/* Products of one input become one op: Q, K and V; gate and up. */
static bool merge_segments(const Plan *p, Op *a, const Op *b) {
    (void)p;
    if (a->code != b->code || (a->code != OP_MATMUL && a->code != OP_EXPERT)) return false;
    if (a->in != b->in || a->ids != b->ids || a->on_R != b->on_R || a->vector != b->vector || a->glu ||
        b->glu)
        return false;
    if (a->residual != NO_REG || b->residual != NO_REG || a->n_out + b->n_out > OP_MAX_SEGMENTS) return false;
    for (int i = 0; i < b->n_out; i++, a->n_out++, a->n_w++) {
        a->out[a->n_out] = b->out[i];
        a->w[a->n_w] = b->w[i];
        a->bias[a->n_w] = b->bias[i];
    }
    return true;
}

/* The sum of a product and the residual stream becomes the product's last step. */
static bool merge_residual(const Plan *p, Op *a, const Op *b) {
    if (b->code != OP_ADD || (a->code != OP_MATMUL && a->code != OP_MIX)) return false;
    if (a->n_out != 1 || a->glu || b->in != a->out[0] || a->on_R != b->on_R || a->residual != NO_REG)
        return false;
    if (n_readers(p, a->out[0]) != 1) return false; // somebody else wants the sum without it
    a->residual = b->in2;
    a->out[0] = b->out[0];
    return true;
}

/* A norm that only one product reads becomes its first step. */
static bool merge_norm(const Plan *p, Op *a, const Op *b) {
    if (a->code != OP_NORM || (b->code != OP_MATMUL && b->code != OP_LOGITS)) return false;
    if (b->in != a->out[0] || a->on_R != b->on_R || b->vector) return false;
    if (n_readers(p, a->out[0]) != 1 || p->regs[a->in].width > p->config.fuse_norm_max) return false;
    int in = a->in;
    const float *vector = a->vector;
    float eps = a->eps;
    *a = *b;
    a->in = in, a->vector = vector, a->eps = eps;
    return true;
}

/* Gate and up are joined where they are made. */
static bool merge_glu(const Plan *p, Op *a, const Op *b) {
    if (b->code != OP_GLU || (a->code != OP_MATMUL && a->code != OP_EXPERT) || a->n_out != 2) return false;
    if (b->in != a->out[0] || b->in2 != a->out[1]) return false;
    if (a->w[0]->n_out != a->w[1]->n_out || a->w[0]->type != a->w[1]->type)
        return false; // they are walked in step
    if (n_readers(p, a->out[0]) != 1 || n_readers(p, a->out[1]) != 1) return false;
    a->glu = true;
    a->n_out = 1, a->out[0] = b->out[0], a->out[1] = NO_REG;
    return true;
}

/* New keys and values go into the cache where they meet the others. */
static bool merge_kvput(const Plan *p, Op *a, const Op *b) {
    (void)p;
    if (a->code != OP_KVPUT || b->code != OP_ATTN || a->attn.kv_layer != b->attn.kv_layer) return false;
    int k = a->in, v = a->in2;
    *a = *b;
    a->in2 = k, a->in3 = v;
    return true;
}

/* Queries and keys that only an attention reads are rotated there. */
static bool merge_rope(const Plan *p, Op *a, const Op *b) {
    if (a->code != OP_ROPE || b->code != OP_ATTN || b->in != a->out[0] || b->in2 != a->out[1]) return false;
    if (n_readers(p, b->in) != 1 || n_readers(p, b->in2) != 1) return false;
    Op rope = *a;
    *a = *b;
    a->rope = rope.rope, a->vector = rope.vector;
    return true;
}

void plan_fuse(Plan *p) {
    const PlanConfig *c = &p->config;
    const struct Rule {
        bool allowed;
        bool (*merge)(const Plan *p, Op *a, const Op *b);
    } rules[] = {
        {c->fuse_segments, merge_segments}, {c->fuse_residual, merge_residual}, {c->fuse_norm, merge_norm},
        {c->fuse_glu, merge_glu},           {c->fuse_attn, merge_kvput},        {c->fuse_attn, merge_rope},
    };
    for (size_t r = 0; r < sizeof rules / sizeof *rules;
         r++) {    // rule after rule: later ones see what earlier ones made
        int n = 0; // ops kept so far
        for (int i = 0; rules[r].allowed && i < p->n_ops; i++)
            if (n == 0 || !rules[r].merge(p, &p->ops[n - 1], &p->ops[i])) p->ops[n++] = p->ops[i];
        if (rules[r].allowed) p->n_ops = n;
    }
}

/* ---- place --------------------------------------------------------------------------------------------- */

/* The forms in which an op reads its `in`: products as their weights ask, unless they normalise it first;
 * everything else floats. */
static unsigned forms_read(const Plan *p, const Op *op) {
    bool has_norm = op->code != OP_EXPERT && op->vector;
    if (!op_is_product(op) || has_norm) return FORM_F32;
    unsigned forms = 0;
    for (int i = 0; i < op->n_w; i++) {
        bool q8 =
            quant_traits(op->w[i]->type)->act == QUANT_ACT_Q8 && p->config.act_forms && !p->config.act_f32;
        forms |= q8 ? FORM_Q8 : FORM_F32;
    }
    return forms;
}

enum { OTHER_INPUTS = 5 };

/* The registers an op reads, without `in`. */
static void other_inputs(const Op *op, int regs[OTHER_INPUTS]) {
    regs[0] = op->in2, regs[1] = op->in3, regs[2] = op->residual, regs[3] = op->ids;
    regs[4] = op->code == OP_ROPE ? op->out[1] : NO_REG; // in place: reads what it writes
}

void plan_place(Plan *p) {
    for (int i = 0; i < p->n_ops; i++) {
        const Op *op = &p->ops[i];
        int others[OTHER_INPUTS];
        other_inputs(op, others);
        if (op->in != NO_REG) p->regs[op->in].forms |= forms_read(p, op);
        for (int k = 0; k < OTHER_INPUTS; k++)
            if (others[k] != NO_REG) p->regs[others[k]].forms |= FORM_F32;
        for (int k = 0; (op_is_product(op) || op->code == OP_ATTN) && k < op->n_out; k++)
            p->regs[op->out[k]].forms |= FORM_F32;
    }
}

/* ---- allocate ------------------------------------------------------------------------------------------ */

typedef struct Slot { // a stretch of the block, busy until op `last` is done
    size_t offset, bytes;
    int last;
} Slot;

static size_t form_bytes(const Plan *p, const Reg *reg, int form) {
    if (!(reg->forms & (1u << form))) return 0;
    return form == 0 ? ((size_t)reg->width * sizeof(float) + 63) / 64 * 64 : p->config.q8_bytes(reg->width);
}

static void find_lifetimes(const Plan *p, int *first, int *last) {
    for (int r = 0; r < p->n_regs; r++) first[r] = -1;
    for (int i = 0; i < p->n_ops; i++) {
        const Op *op = &p->ops[i];
        int used[OTHER_INPUTS + 1 + OP_MAX_SEGMENTS], n = OTHER_INPUTS;
        other_inputs(op, used);
        used[n++] = op->in;
        for (int k = 0; k < op->n_out; k++) used[n++] = op->out[k];
        for (int k = 0; k < n; k++)
            if (used[k] != NO_REG) {
                if (first[used[k]] < 0) first[used[k]] = i;
                last[used[k]] = i;
            }
    }
}

/* First fit: the lowest stretch that no register alive in [first, last] occupies. */
static size_t fit(Slot *slots, int *n, size_t bytes, int first, int last) {
    int kept = 0;
    for (int i = 0; i < *n; i++)
        if (slots[i].last >= first) slots[kept++] = slots[i]; // in order of offset
    size_t offset = 0;
    int at = 0;
    while (at < kept && slots[at].offset < offset + bytes) offset = slots[at].offset + slots[at].bytes, at++;
    memmove(&slots[at + 1], &slots[at], (size_t)(kept - at) * sizeof *slots);
    slots[at] = (Slot){offset, bytes, last};
    *n = kept + 1;
    return offset;
}

static size_t allocate_kind(Plan *p, bool on_R, const int *first, const int *last) {
    Slot *slots = mem_new((size_t)p->n_regs * N_FORMS + 1, sizeof *slots);
    int n_slots = 0;
    size_t total = 0;
    for (int i = 0; i < p->n_ops; i++)
        for (int k = 0; k < p->ops[i].n_out; k++) {
            int r = p->ops[i].out[k];
            Reg *reg = &p->regs[r];
            if (reg->on_R != on_R || first[r] != i) continue;
            for (int form = 0; form < N_FORMS; form++) {
                size_t bytes = form_bytes(p, reg, form);
                if (bytes == 0) continue;
                reg->offset[form] = fit(slots, &n_slots, bytes, first[r], last[r]);
                if (reg->offset[form] + bytes > total) total = reg->offset[form] + bytes;
            }
        }
    free(slots);
    return total;
}

void plan_allocate(Plan *p) {
    int *first = mem_new((size_t)p->n_regs, sizeof *first), *last = mem_new((size_t)p->n_regs, sizeof *last);
    find_lifetimes(p, first, last);
    p->row_bytes_T = allocate_kind(p, false, first, last);
    p->row_bytes_R = allocate_kind(p, true, first, last);
    free(first);
    free(last);
}
