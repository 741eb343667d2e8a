/* supported: the features that the ops of a plan need, and the refusal of those that its executor lacks;
 * declared in capability.h and tape.h. */
#include "tape.h"

#include <assert.h>
#include <stdio.h>

const char *feature_text(Feature f) {
    static const char *const texts[FEATURE_COUNT] = {
#define X(name, text) #name,
        OP_LIST(X)
#undef X
#define X(name, text, when) text,
            PARAMETER_LIST(X)
#undef X
    };
    return texts[f];
}

static bool has_view(const Plan *p, const Op *op) {
    for (int i = 0; i < op->n_operands; i++)
        if (op->operand[i].role != ROLE_CACHE && p->regs[op->operand[i].reg].base != NO_REG) return true;
    return false;
}

static bool has_bias(const Op *op) {
    for (int i = 0; i < op->n_w; i++)
        if (op->bias[i]) return true;
    return false;
}

static const NormParams *norm_of(const Op *op) {
    if (op->code == OP_NORM) return &op->norm;
    return op_is_product(op) && op->product.norm.weight ? &op->product.norm : NULL;
}

static const MoeParams *moe_of(const Op *op) {
    if (op->code == OP_ROUTE || op->code == OP_MOE_SUM) return &op->moe;
    return op->code == OP_EXPERT ? &op->product.moe : NULL;
}

static Activation act_of(const Op *op) {
    if (op->code == OP_CONV) return op->conv.act;
    return op->code == OP_GLU ? op->glu.act : op_is_product(op) ? op->product.act : ACT_NONE;
}

/* Whether a column of the gate counts for several of the other factor. */
static bool has_narrow_gate(const Plan *p, const Op *op) {
    return op->code == OP_GLU && op_count(op, ROLE_READ) > 1 &&
           p->regs[op_in(op, 0)].width < p->regs[op_in(op, 1)].width;
}

FeatureSet plan_op_features(const Plan *p, const Op *op) {
    const NormParams *norm = norm_of(op);
    const RopeParams *rope = op_rotation(op);
    const AttnParams *attn = op->code == OP_ATTN ? &op->attn : NULL;
    const MoeParams *moe = moe_of(op);
    Activation act = act_of(op);
    bool view = has_view(p, op), bias = has_bias(op), gate_narrow = has_narrow_gate(p, op);
    FeatureSet set = (FeatureSet)1 << op->code; // the ops are the first features
#define X(name, text, when)                                                                                  \
    if (when) set |= FEATURE_BIT(name);
    PARAMETER_LIST(X)
#undef X
    return set;
}

/* ---- refusals ------------------------------------------------------------------------------------------ */

/* Writes what would run the plan's op instead: an executor, or that there is none. */
static void add_advice(const Capability *const *others, int n, FeatureSet needed, char *out, size_t size) {
    for (int i = 0; i < n; i++)
        if ((others[i]->features & needed) == needed) {
            snprintf(out, size, "--device %s runs it", others[i]->name);
            return;
        }
    snprintf(out, size, "no executor of this zgen does");
}

static bool refuse(const Plan *p, const Op *op, const char *what, const char *advice, Err *e) {
    char layer[32] = "";
    if (op->layer >= 0) snprintf(layer, sizeof layer, " of layer %d", op->layer);
    return err_set(e, ERR_MODEL, "the executor '%s' does not run %s (op %s '%s'%s of family '%s'); %s",
                   p->config.can.name, what, op_name(op->code), op->name, layer, p->hparams.arch, advice);
}

static bool check_features(const Plan *p, const Op *op, const Capability *const *others, int n, Err *e) {
    FeatureSet missing = plan_op_features(p, op) & ~p->config.can.features;
    if (!missing) return true;
    int f = FEATURE_COUNT - 1; // a parameter rather than its op
    while (!(missing >> f & 1)) f--;
    char advice[96];
    add_advice(others, n, missing, advice, sizeof advice);
    return refuse(p, op, feature_text((Feature)f), advice, e);
}

static bool head_dim_fits(const Capability *c, int head_dim, int most, const char *whose, char *what,
                          size_t size) {
    if (head_dim >= c->head_dim_min && head_dim <= most && head_dim % c->head_dim_multiple == 0) return true;
    snprintf(what, size, "attention heads of %d dimensions%s, only multiples of %d from %d to %d", head_dim,
             whose, c->head_dim_multiple, c->head_dim_min, most);
    return false;
}

static bool view_fits(const Capability *c, const Reg *r) {
    return r->base == NO_REG || (r->column % c->view_multiple == 0 && r->width % c->view_multiple == 0);
}

/* Whether `c` allows the op by one of its limits; writes to `what` what that limit forbids. */
static bool limits_allow(const Plan *p, const Op *op, const Capability *c, char *what, size_t size) {
    if (op->code == OP_ATTN && (!head_dim_fits(c, op->attn.head_dim, c->head_dim_max, "", what, size) ||
                                !head_dim_fits(c, op->attn.v_dim, c->v_dim_max, " of V", what, size)))
        return false;
    if (op->code == OP_ATTN && op->attn.n_head > c->n_head_max) {
        snprintf(what, size, "%d attention heads, at most %d", op->attn.n_head, c->n_head_max);
        return false;
    }
    if (op->code == OP_SAMPLE && p->regs[op_in(op, 0)].width > c->n_vocab_max) {
        snprintf(what, size, "vocabularies of %d tokens, at most %d", p->regs[op_in(op, 0)].width,
                 c->n_vocab_max);
        return false;
    }
    if (op->code == OP_ROUTE && op->moe.n_expert > c->n_expert_max) {
        snprintf(what, size, "%d experts, at most %d", op->moe.n_expert, c->n_expert_max);
        return false;
    }
    if (op_state_shape(op).n > c->state_rows_max) {
        snprintf(what, size, "states of %d rows, at most %d", op_state_shape(op).n, c->state_rows_max);
        return false;
    }
    for (int i = 0; i < op->n_operands; i++)
        if (op->operand[i].role != ROLE_CACHE && !view_fits(c, &p->regs[op->operand[i].reg])) {
            snprintf(what, size, "views of columns that are no multiples of %d", c->view_multiple);
            return false;
        }
    return true;
}

static bool check_limits(const Plan *p, const Op *op, const Capability *const *others, int n, Err *e) {
    char what[128], ignored[128], advice[96];
    if (limits_allow(p, op, &p->config.can, what, sizeof what)) return true;
    snprintf(advice, sizeof advice, "no executor of this zgen does");
    for (int i = 0; i < n; i++)
        if (limits_allow(p, op, others[i], ignored, sizeof ignored))
            snprintf(advice, sizeof advice, "--device %s runs it", others[i]->name);
    return refuse(p, op, what, advice, e);
}

bool plan_supported(const Plan *p, const Capability *const *others, int n_others, Err *e) {
    assert(p->config.can.name);
    for (int i = 0; i < p->n_ops; i++)
        if (!check_features(p, &p->ops[i], others, n_others, e) ||
            !check_limits(p, &p->ops[i], others, n_others, e))
            return false;
    return true;
}
