/* plan: see plan.h.  Build and cost; the passes are in passes.c, the printer in print.c. */
#include "plan.h"
#include "emit.h"
#include "passes.h"
#include "family/family.h"
#include "../base/mem.h"

#include <stdlib.h>

const char *op_name(OpCode code) {
    static const char *const names[] = {
#define X(name, text) #name,
        OP_LIST(X)
#undef X
    };
    return names[code];
}

const char *op_text(OpCode code) {
    static const char *const texts[] = {
#define X(name, text) text,
        OP_LIST(X)
#undef X
    };
    return texts[code];
}

bool op_is_product(const Op *op) {
    return op->code == OP_MATMUL || op->code == OP_EXPERT || op->code == OP_LOGITS;
}

/* The family that the file declares; NULL: *e lists those there are. */
static const Family *find_family(const Gguf *g, Err *e) {
    Hparams h;
    if (!hparams_read_arch(g, &h, e)) return NULL;
    const Family *family = family_find(h.arch);
    if (!family) {
        Buf known = {0};
        family_list(&known);
        err_set(e, ERR_MODEL, "%s: the architecture '%s' is not supported; supported: %s", gguf_label(g),
                h.arch, known.data);
        buf_free(&known);
    }
    return family;
}

static bool emit_family(Plan *p, const Family *family, Err *e) {
    Pen pen = {.plan = p, .e = e, .ok = true, .layer = -1};
    family->emit(&pen);
    return pen.ok && weights_all_used(p->weights, e);
}

/* Whether the op makes what a ROUTE decides by: small, and a small error chooses another expert. */
static bool is_router(const Plan *p, const Op *op) {
    for (int i = 0; i < p->n_ops; i++)
        if (p->ops[i].code == OP_ROUTE && p->ops[i].in == op->out[0]) return true;
    return false;
}

/* Before the passes, while each product is an op. */
static bool convert_products(Plan *p, const Gguf *g, Err *e) {
    bool any = false;
    for (int i = 0; i < p->n_ops; i++)
        for (int k = 0; op_is_product(&p->ops[i]) && k < p->ops[i].n_w && !is_router(p, &p->ops[i]); k++)
            any |= weights_convert(p->weights, p->ops[i].w[k]);
    return any ||
           err_set(
               e, ERR_USAGE,
               "--weights fp8: no matrix of %s takes more than a byte per weight, so that none would become "
               "smaller; leave it out",
               gguf_label(g));
}

Plan *plan_build(const Gguf *g, const PlanConfig *config, Err *e) {
    Plan *p = mem_new(1, sizeof *p);
    p->config = *config;
    p->weights = weights_open(g);
    const Family *family = find_family(g, e);
    if (!family || !hparams_read(g, &p->hparams, e) || !emit_family(p, family, e) ||
        (config->weights_fp8 && !convert_products(p, g, e))) {
        plan_free(p);
        return NULL;
    }
    plan_fuse(p);
    plan_place(p);
    plan_allocate(p);
    return p;
}

GgufTensor *plan_tensors(const Gguf *g, const char *const *optional, int *n, Err *e) {
    Plan *p = mem_new(1, sizeof *p);
    p->weights = weights_record(g, optional);
    const Family *family = find_family(g, e);
    bool ok = family && hparams_read(g, &p->hparams, e) && emit_family(p, family, e);
    GgufTensor *tensors = ok ? weights_take_recorded(p->weights, n) : NULL;
    plan_free(p);
    return tensors;
}

void plan_free(Plan *p) {
    if (!p) return;
    hparams_free(&p->hparams);
    weights_close(p->weights);
    free(p->ops);
    free(p->regs);
    free(p->kv);
    free(p);
}

Cost plan_cost(const Plan *p, const Op *op, double kv_element_bytes) {
    Cost c = {0};
    if (op->code == OP_EMBED) c.bytes_row = (double)op->w[0]->row_bytes;
    for (int i = 0; op_is_product(op) && i < op->n_w; i++) {
        double macs = (double)op->w[i]->n_in * op->w[i]->n_out,
               bytes = (double)op->w[i]->row_bytes * op->w[i]->n_out;
        double n = op->code == OP_EXPERT ? op->moe.n_used : 1; // of one row; many rows choose more of them
        c.macs_row += n * macs, c.bytes_fixed += n * bytes;
    }
    double kv_width = op->attn.n_kv_head * (double)op->attn.head_dim;
    if (op->code == OP_KVPUT || (op->code == OP_ATTN && op->in2 != NO_REG))
        c.bytes_row = 2 * kv_width * kv_element_bytes;
    if (op->code == OP_ATTN) {
        c.bytes_past = 2 * kv_width * kv_element_bytes;
        c.macs_past = 2.0 * op->attn.n_head * op->attn.head_dim;
    }
    (void)p;
    return c;
}

Cost plan_cost_total(const Plan *p, double kv_element_bytes) {
    Cost sum = {0};
    for (int i = 0; i < p->n_ops; i++) {
        Cost c = plan_cost(p, &p->ops[i], kv_element_bytes);
        sum.bytes_fixed += c.bytes_fixed, sum.bytes_row += c.bytes_row, sum.bytes_past += c.bytes_past;
        sum.macs_row += c.macs_row, sum.macs_past += c.macs_past;
    }
    return sum;
}

size_t plan_kv_bytes(const Plan *p, double kv_element_bytes) {
    double n = 0;
    for (int i = 0; i < p->n_kv; i++) n += 2.0 * p->kv[i].n_head * p->kv[i].head_dim;
    return (size_t)(n * kv_element_bytes);
}
