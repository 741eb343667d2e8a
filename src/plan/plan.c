/* plan: see plan.h.  The passes are in passes.c, costs in cost.c, the printer in print.c. */
#include "plan.h"
#include "builder.h"
#include "file_kind.h"
#include "passes.h"
#include "family/family.h"
#include "../base/mem.h"

#include <stdlib.h>

/* The family that the file declares; NULL: *e says what the file is, or lists the families. */
static const Family *find_family(const Gguf *g, Err *e) {
    char arch[HPARAMS_ARCH];
    if (!file_kind_check(g, e) || !hparams_read_arch(g, arch, e)) return NULL;
    const Family *family = family_find(arch);
    if (!family) {
        Buf known = {0};
        family_list(&known);
        err_set(e, ERR_MODEL, "%s: the architecture '%s' is not supported; supported: %s", gguf_label(g),
                arch, known.data);
        buf_free(&known);
    }
    return family;
}

/* Whether the op computes the logits of a ROUTE: its matrix is small, and a small error chooses another
 * expert. */
static bool is_router(const Plan *p, const Op *op) {
    for (int i = 0; i < p->n_ops; i++)
        if (p->ops[i].code == OP_ROUTE && op_in(&p->ops[i], 0) == op_out(op, 0)) return true;
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

static bool check_tensors(const Gguf *g, Err *e) {
    return gguf_n_tensors(g) > 0 ||
           err_set(e, ERR_MODEL,
                   "%s: this file has no tensors: it is a vocabulary, for zgen tokenize; give a model",
                   gguf_label(g));
}

bool plan_check_file(const Gguf *g, Err *e) {
    return find_family(g, e) && check_tensors(g, e);
}

Plan *plan_build(const Gguf *g, const PlanConfig *config, Err *e) {
    Plan *p = mem_new(1, sizeof *p);
    p->config = *config;
    p->weights = weights_open(g);
    const Family *family = find_family(g, e);
    if (!family || !check_tensors(g, e) || !hparams_read(g, &p->hparams, e) ||
        !builder_emit(p, g, family->emit, e) || (config->weights_fp8 && !convert_products(p, g, e))) {
        plan_free(p);
        return NULL;
    }
    plan_fuse(p);
    plan_copy_views(p);
    plan_forms(p);
    plan_allocate(p);
    return p;
}

GgufTensor *plan_tensors(const Gguf *g, const char *const *optional, int *n, Err *e) {
    Plan *p = mem_new(1, sizeof *p);
    p->weights = weights_record(g, optional);
    const Family *family = find_family(g, e);
    bool ok = family && hparams_read(g, &p->hparams, e) && builder_emit(p, g, family->emit, e);
    GgufTensor *tensors = ok ? weights_take_recorded(p->weights, n) : NULL;
    plan_free(p);
    return tensors;
}

void plan_free(Plan *p) {
    if (!p) return;
    weights_close(p->weights);
    free(p->ops);
    free(p->regs);
    free(p->kv);
    free(p);
}
