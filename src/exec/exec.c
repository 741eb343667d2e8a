/* exec: what is the same for all executors.  See exec.h. */
#include "exec.h"

#include <math.h>

static const double TURN = 6.283185307179586; // radians

/* The pair that turns so many times within the training's positions, as a real number. */
static double yarn_pair(const RopeParams *rope, double turns) {
    return rope->n_rot * log(rope->yarn_context / (turns * TURN)) / (2 * log(rope->base));
}

/* The share of the angle without scale in pair i: `mix` up to the pair of yarn_fast turns, falling to 0 at
 * that of yarn_slow (Peng et al. 2023, "YaRN"). */
static double yarn_share(const RopeParams *rope, int i) {
    double low = fmax(floor(yarn_pair(rope, rope->yarn_fast)), 0);
    double high = fmin(ceil(yarn_pair(rope, rope->yarn_slow)), rope->n_rot - 1);
    double y = (i - low) / fmax(high - low, 0.001);
    return rope->yarn_mix * (1 - fmin(fmax(y, 0), 1));
}

void exec_rope_frequencies(const RopeParams *rope, int n_ctx, double *out) {
    bool is_long = rope->long_factors && n_ctx > rope->long_context;
    const float *factors = is_long ? rope->long_factors : rope->factors;
    for (int i = 0; i < rope->n_rot / 2; i++) {
        double unscaled = pow(rope->base, -2.0 * i / rope->n_rot), share = 0;
        if (factors) unscaled /= factors[i];
        if (rope->yarn_context > 0) share = yarn_share(rope, i);
        out[i] = unscaled * (rope->scale * (1 - share) + share);
    }
}

bool exec_not_finite(const Plan *p, int position, Err *e) {
    const char *tensor = weights_find_nonfinite(p->weights);
    if (tensor)
        return err_set(e, ERR_RUN,
                       "the logits at position %d are not finite: tensor '%s' holds values that are not; "
                       "the file is damaged, get it again",
                       position, tensor);
    return err_set(e, ERR_RUN, "the logits at position %d are not finite: the numbers of this model overflow",
                   position);
}

bool exec_check_kv(const Plan *p, KvType type, Err *e) {
    int multiple = kv_type_multiple(type);
    for (int i = 0; i < p->n_kv; i++) {
        const KvLayer *l = &p->kv[i];
        int odd = l->k_width % multiple ? l->k_width : l->v_width;
        if (l->kind == KV_ROWS && odd % multiple)
            return err_set(
                e, ERR_USAGE,
                "--kv %s keeps %d numbers of a head together, but the heads of this model have %d; use "
                "--kv %s",
                kv_type_name(type), multiple, odd, kv_type_name(KV_F16));
    }
    return true;
}

bool exec_check_context(const Plan *p, int n_ctx, Err *e) {
    for (int i = 0; i < p->n_ops; i++) {
        const Op *op = &p->ops[i];
        if (op->code == OP_EMBED && op->embed.by_position && n_ctx > op->w[0]->n_out)
            return err_set(e, ERR_USAGE,
                           "-c %d: this model has learned %d positions, in tensor '%s'; use -c %d", n_ctx,
                           op->w[0]->n_out, op->w[0]->name, op->w[0]->n_out);
    }
    return true;
}

CacheConfig exec_cache_config(const ExecConfig *c, int n_ahead) {
    return (CacheConfig){.n_ctx = c->n_ctx,
                         .n_seq = c->n_seq,
                         .n_positions = c->n_positions,
                         .type = c->kv_type,
                         .n_step = c->T_max,
                         .n_ahead = n_ahead};
}

ExecMemory exec_memory(const Plan *p, const ExecConfig *c, int n_ahead) {
    CacheConfig cache = exec_cache_config(c, n_ahead);
    CacheNeed need = cache_need(p->kv, p->n_kv, &cache);
    return (ExecMemory){
        .kv = need.bytes,
        .registers = p->row_bytes_T * (size_t)c->T_max + p->row_bytes_R * (size_t)c->R_max,
        .kv_position = need.position_bytes,
        .kv_window = need.window_bytes,
        .kv_state = need.state_bytes,
    };
}

size_t exec_needed(const ExecMemory *m) {
    return (m->is_mapped ? 0 : m->weights) + m->kv + m->registers + m->scratch;
}

bool exec_fits(const ExecMemory *m) {
    return exec_needed(m) <= m->free;
}

bool exec_keeps_weights(const ExecMemory *m) {
    return exec_needed(m) + (m->is_mapped ? m->weights : 0) <= m->free;
}
