/* verify: see verify.h. */
#include "verify.h"
#include "divergence.h"
#include "../base/mem.h"
#include "../base/stat.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 16 }; // rows of a prompt in one run of the oracle: Ctrl-C is looked for between runs

enum { FACTOR = 4 }; // by which a run may be further from the oracle than rounding takes the oracle
static const double FLOAT_NMSE = 3e-5;
static const double LEAST_NMSE = 1e-4; // least effects of rounding to 8 bits that are assumed
static const double LEAST_KL = 5e-4;

typedef struct Series {  // distances of two executors, step by step
    double *kl, *nmse;   // [n]
    double error, power; // sums over all steps, whose ratio is the NMSE
    int n;
} Series;

struct Verify {
    Engine *oracle, *exact; // exact: NULL where the oracle rounds nothing to 8 bits
    int n_wanted, n_vocab;
    TokIds held;   // tokens in the caches of both
    void *scratch; // the sampler's, and mirostat's mu before and behind a choice
    float mu[2];
    Series run, rounding;
    Verdict verdict; // the fields that grow step by step
};

/* ---- open and close ------------------------------------------------------------------------------------ */

static bool is_rounded(const Engine *g) {
    const Plan *p = engine_plan(g);
    bool rounded = engine_kv_type(g) == KV_Q8_0 || engine_kv_type(g) == KV_FP8;
    for (int i = 0; i < p->n_regs; i++) rounded |= p->regs[i].has[FORM_Q8];
    return rounded;
}

static bool open_scalar(const Model *m, const EngineConfig *run, bool exact, Engine **out, Err *e) {
    EngineConfig c = *run;
    Err why;
    c.device = DEVICE_CPU;
    c.isa = "scalar";
    c.n_seq = c.R_max = 1;
    c.chunk = CHUNK;
    if (exact) {
        c.act_f32 = true;
        c.kv_type = KV_F32;
    }
    return engine_open(m, &c, out, &why) ||
           err_set(e, why.code, "--verify: the scalar executor cannot be opened: %s", why.text);
}

static void open_series(Series *s, int n) {
    s->kl = mem_new((size_t)n, sizeof *s->kl);
    s->nmse = mem_new((size_t)n, sizeof *s->nmse);
}

static void begin(Verify *v) {
    v->run.n = v->rounding.n = 0;
    v->run.error = v->run.power = v->rounding.error = v->rounding.power = 0;
    v->verdict = (Verdict){.by_median = plan_n_expert(engine_plan(v->oracle)) > 0};
}

bool verify_open(const Model *m, const EngineConfig *run, int n_wanted, Verify **out, Err *e) {
    Verify *v = mem_new(1, sizeof *v);
    if (!open_scalar(m, run, false, &v->oracle, e) ||
        (is_rounded(v->oracle) && !open_scalar(m, run, true, &v->exact, e))) {
        verify_close(v);
        return false;
    }
    v->n_wanted = n_wanted < run->n_ctx ? n_wanted : run->n_ctx;
    v->n_vocab = engine_plan(v->oracle)->hparams.n_vocab;
    v->scratch = mem_new(1, sample_scratch_bytes(v->n_vocab));
    open_series(&v->run, v->n_wanted);
    open_series(&v->rounding, v->n_wanted);
    begin(v);
    *out = v;
    return true;
}

void verify_close(Verify *v) {
    if (!v) return;
    engine_close(v->oracle);
    engine_close(v->exact);
    tok_ids_free(&v->held);
    free(v->scratch);
    free(v->run.kl);
    free(v->run.nmse);
    free(v->rounding.kl);
    free(v->rounding.nmse);
    free(v);
}

/* ---- a step -------------------------------------------------------------------------------------------- */

static void add_distance(Series *s, const float *from, const float *logits, int n_vocab) {
    double error = 0, power = 0;
    for (int i = 0; i < n_vocab; i++) {
        double delta = (double)logits[i] - from[i];
        error += delta * delta;
        power += (double)from[i] * from[i];
    }
    s->error += error;
    s->power += power;
    s->nmse[s->n] = error > 0 ? error / power : 0;
    s->kl[s->n++] = kl_divergence(from, logits, n_vocab);
}

/* Adds a step by its three rows of logits. */
static void add_step(Verify *v, const float *exact, const float *oracle, const float *run) {
    Verdict *d = &v->verdict;
    int first = top_token(oracle, v->n_vocab), other = top_token(run, v->n_vocab);
    double margin = (double)oracle[first] - oracle[other];
    add_distance(&v->rounding, exact, oracle, v->n_vocab);
    add_distance(&v->run, oracle, run, v->n_vocab);
    d->n_agree += first == other;
    if (first != other && margin >= d->margin) {
        d->margin = margin;
        d->margin_step = v->run.n;
    }
}

/* Compares the token that the run generated at this step with the choice of the reference sampler. */
static void check_choice(Verify *v, const Engine *g, const float *run, int n_ids, int generated) {
    const Sequence *q = engine_sequence(g, 0);
    Verdict *d = &v->verdict;
    int chosen = sample_token(run, v->n_vocab, engine_sampling(g, 0), q->ids, n_ids, (uint64_t)n_ids,
                              v->mu + 1, v->scratch);
    v->mu[0] = v->mu[1];
    if (chosen == generated || d->wrong_step) return;
    d->wrong_step = v->run.n;
    d->generated = generated;
    d->chosen = chosen;
}

/* ---- a run --------------------------------------------------------------------------------------------- */

/* Computes the logits behind ids[end - 1], as engine_feed; the first *at tokens are in the cache.  NULL: *e, or code 0 when
 * stopped. */
static const float *reach(Engine *g, const int32_t *ids, int n_prompt, int *at, int end,
                          bool (*stopped)(void), Err *e) {
    const float *logits = NULL;
    while (*at < end) {
        e->code = 0;
        if (stopped() || !(logits = engine_feed(g, ids, n_prompt, at, end, e))) return NULL;
    }
    return logits;
}

/* How many of ids[n] are in the caches; at most n - 1, as the logits of the last must be computed. */
static int held(const Verify *v, const int32_t *ids, int n) {
    int i = 0;
    while (i < n - 1 && (size_t)i < v->held.n && v->held.data[i] == ids[i]) i++;
    return i;
}

/* Computes the logits behind ids[end - 1] on the oracle and the exact executor, and adds the step.  false: as
 * reach. */
static bool compare_step(Verify *v, const int32_t *ids, int end, const float *run, bool (*stopped)(void),
                         Err *e) {
    int at = held(v, ids, end), exact_at = at;
    v->held.n = (size_t)at;
    const float *oracle = reach(v->oracle, ids, end, &at, end, stopped, e),
                *exact = oracle && v->exact ? reach(v->exact, ids, end, &exact_at, end, stopped, e) : oracle;
    if (!exact) return false;
    while ((int)v->held.n < end) tok_ids_add(&v->held, ids[v->held.n]);
    add_step(v, exact, oracle, run);
    return true;
}

bool verify_sequence(Verify *v, Engine *g, bool (*stopped)(void), Err *e) {
    const Sequence *q = engine_sequence(g, 0);
    int n_generated = q->n_generated + (q->end >= 0), at = q->n_reused; // an end token counts
    begin(v);
    for (int k = 0; k < n_generated && k < v->n_wanted; k++) {
        int n_ids = q->n_prompt + k;
        const float *run = reach(g, q->ids, q->n_prompt, &at, n_ids, stopped, e);
        if (!run || !compare_step(v, q->ids, n_ids, run, stopped, e)) return e->code == 0;
        check_choice(v, g, run, n_ids, k < q->n_generated ? q->ids[n_ids] : q->end);
    }
    return true;
}

static bool never(void) {
    return false;
}

bool verify_row(Verify *v, const int32_t *ids, int position, const float *logits, Err *e) {
    if (position == 0) begin(v);
    return position >= v->n_wanted || compare_step(v, ids, position + 1, logits, never, e);
}

/* ---- the verdict --------------------------------------------------------------------------------------- */

static LogitsDistance distance_of(const Series *s, bool by_median) {
    LogitsDistance f = {0};
    for (int i = 0; i < s->n; i++) {
        if (i == 0 || s->kl[i] > f.max_kl) {
            f.max_kl = s->kl[i];
            f.max_step = i + 1;
        }
    }
    f.kl = by_median ? stat_quantile(s->kl, s->n, 0.5) : stat_mean(s->kl, s->n);
    f.nmse = by_median ? stat_quantile(s->nmse, s->n, 0.5) : s->error > 0 ? s->error / s->power : 0;
    return f;
}

static Limits limits_of(const Verify *v, const LogitsDistance *rounding) {
    if (!v->exact) return (Limits){.nmse = FLOAT_NMSE, .kl = INFINITY, .margin = 0.05};
    return (Limits){.nmse = FACTOR * fmax(rounding->nmse, LEAST_NMSE),
                    .kl = FACTOR * fmax(rounding->kl, LEAST_KL),
                    .margin = 0.5};
}

Verdict verify_verdict(const Verify *v) {
    Verdict d = v->verdict;
    d.n_steps = v->run.n;
    d.run = distance_of(&v->run, d.by_median);
    d.rounding = distance_of(&v->rounding, d.by_median);
    d.limits = limits_of(v, &d.rounding);
    for (int i = 0; i < v->run.n; i++) d.n_outliers += !(v->run.nmse[i] <= 10 * d.limits.nmse);
    return d;
}

static const char ADVICE[] = "do not trust this run; --isa scalar is slow and right";

static bool exceeds(const Verdict *d, const char *what, double value, double limit, Err *e) {
    return err_set(
        e, ERR_RUN,
        "--verify: over %d steps the %s %s from the scalar executor is %.3g and may be %.3g, the worst is "
        "step %d; %s",
        d->n_steps, d->by_median ? "median" : "mean", what, value, limit, d->run.max_step, ADVICE);
}

bool verify_passes(const Verdict *d, Err *e) {
    const Limits *most = &d->limits;
    if (d->wrong_step)
        return err_set(
            e, ERR_RUN,
            "--verify: the run generated token %d at step %d, where its logits and the sampler give %d; %s",
            d->generated, d->wrong_step, d->chosen, ADVICE);
    if (!(d->run.kl <= most->kl)) return exceeds(d, "KL", d->run.kl, most->kl, e);
    if (!(d->run.nmse <= most->nmse)) return exceeds(d, "NMSE", d->run.nmse, most->nmse, e);
    if (d->by_median && d->n_outliers * 10 > d->n_steps)
        return err_set(
            e, ERR_RUN,
            "--verify: %d of %d steps are further from the scalar executor than ten times an NMSE of "
            "%.3g, the worst is step %d; %s",
            d->n_outliers, d->n_steps, most->nmse, d->run.max_step, ADVICE);
    return d->margin < most->margin || err_set(e, ERR_RUN,
                                               "--verify: at step %d the run ranks another token first than "
                                               "the scalar executor, which prefers "
                                               "its own by %.3g (below %.3g it would be a near tie); %s",
                                               d->margin_step, d->margin, most->margin, ADVICE);
}
