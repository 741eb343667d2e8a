/* perplexity: see perplexity.h. */
#include "perplexity.h"
#include "divergence.h"
#include "../base/mem.h"
#include "../base/pool.h"
#include "../base/stat.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* ---- formulas ----------------------------------------------------------------------------------------- */

Estimate estimate_mean(const double *x, int n) {
    return (Estimate){stat_mean(x, n), stat_error(x, n)};
}

Estimate perplexity_of(const double *nll, int n) {
    Estimate mean = estimate_mean(nll, n);
    return (Estimate){exp(mean.value), exp(mean.value) * mean.error};
}

/* llama-perplexity leaves out less likely tokens: they share the lowest step of a row. */
static const double LEAST = -16;

static int likeliest(const uint8_t *row, int n_vocab) {
    int best = 0;
    for (int i = 1; i < n_vocab; i++)
        if (logits_row_step(row, i) > logits_row_step(row, best)) best = i;
    return best;
}

bool perplexity_compare(const uint8_t *row, const float *logits, int n_vocab, double log_sum, double *kl,
                        bool *same_top) {
    double scale = logits_row_scale(row), min = logits_row_min(row), total = 0;
    *kl = 0;
    for (int i = 0; i < n_vocab; i++) {
        double base = scale * logits_row_step(row, i) + min;
        if (!(base > LEAST)) continue;
        double p = expf((float)base);
        total += p;
        *kl += p * (base - (logits[i] - log_sum));
    }
    *same_top = top_token(logits, n_vocab) == likeliest(row, n_vocab);
    return scale >= 0 && fabs(total - 1) < 0.1; // the tokens left out of a large vocabulary sum to 3 %
}

/* ---- the run ------------------------------------------------------------------------------------------ */

int perplexity_rows(const PerplexityTask *t) {
    return t->stride ? t->stride : window_rows(t->n_ctx);
}

typedef struct Evaluation {
    const PerplexityTask *task;
    Perplexity *out;
    Pool *pool;
    int n_vocab;
    int32_t *ids;           // of the current window, with its BOS [n_ctx]
    const LogitRows *rows;  // of the current run
    double sum;             // of nll so far
    uint8_t *saved;         // [rows->n] rows of the file that is written
    atomic_bool is_damaged; // a row of the base
    atomic_int n_cut;
    Err failure;
} Evaluation;

/* Row i of the current run, prediction number `at` of the text. */
static void evaluate(Evaluation *r, int i, int at) {
    const PerplexityTask *t = r->task;
    const float *logits = r->rows->data + (size_t)i * r->rows->stride;
    int32_t next = r->ids[r->rows->position + i + 1];
    double log_sum = log_sum_exp(logits, r->n_vocab);
    r->out->nll[at] = log_sum - logits[next];
    if (t->save)
        logits_file_encode(logits, r->n_vocab, log_sum,
                           r->saved + (size_t)i * logits_file_row_bytes(r->n_vocab));
    if (!t->base) return;
    const uint8_t *row = logits_file_row(t->base, at);
    bool same_top;
    if (!perplexity_compare(row, logits, r->n_vocab, log_sum, &r->out->kl[at], &same_top))
        r->is_damaged = true;
    r->out->base_nll[at] = -(logits_row_scale(row) * logits_row_step(row, next) + logits_row_min(row));
    r->out->same_top[at] = same_top;
    r->n_cut += logits_row_is_cut(row, next);
}

static void evaluate_share(void *arg, int thread) {
    Evaluation *r = arg;
    for (int i = thread; i < r->rows->n; i += pool_n(r->pool)) evaluate(r, i, r->out->n_rows + i);
}

/* Adds the rows of the current run to the sums. */
static void add_up(Evaluation *r) {
    Perplexity *p = r->out;
    for (int i = 0; i < r->rows->n; i++) r->sum += p->nll[p->n_rows++];
    if (p->n_rows % perplexity_rows(r->task) == 0) p->running[p->n_windows++] = exp(r->sum / p->n_rows);
}

static bool take_rows(void *arg, const LogitRows *rows) {
    Evaluation *r = arg;
    const PerplexityTask *t = r->task;
    size_t n_bytes = (size_t)rows->n * logits_file_row_bytes(r->n_vocab);
    r->rows = rows;
    if (t->save) r->saved = mem_resize(r->saved, n_bytes);
    pool_run(r->pool, evaluate_share, r);
    if (r->is_damaged)
        return logits_file_damaged(t->base, "the probabilities of a token do not sum to 1", &r->failure);
    add_up(r);
    return (!t->save || t->save(t->arg, r->saved, n_bytes)) && t->go_on(t->arg, r->out);
}

static bool run_window(Evaluation *r, Engine *g, int window, Err *e) {
    const PerplexityTask *t = r->task;
    size_t n = (size_t)t->n_ctx;
    size_t step = t->stride ? (size_t)t->stride : n;
    int first = t->stride ? t->n_ctx - 1 - t->stride : window_first(t->n_ctx);
    memcpy(r->ids, t->ids + (size_t)window * step, n * sizeof *r->ids);
    if (t->bos >= 0) r->ids[0] = t->bos;
    bool ok = engine_logits(g, r->ids, first, t->n_ctx - 1, take_rows, r, e);
    if (r->failure.code) *e = r->failure;
    return ok;
}

bool perplexity_run(Engine *g, const PerplexityTask *t, Perplexity *out, Err *e) {
    assert(t->stride >= 0 && t->stride < t->n_ctx && (!t->stride || (!t->save && !t->base)));
    size_t n = (size_t)t->n_windows * (size_t)perplexity_rows(t);
    Evaluation r = {.task = t, .out = out, .n_vocab = engine_plan(g)->hparams.n_vocab};
    *out = (Perplexity){.nll = mem_new(n, sizeof *out->nll)};
    out->running = mem_new((size_t)t->n_windows, sizeof *out->running);
    if (t->base) {
        out->base_nll = mem_new(n, sizeof *out->base_nll);
        out->kl = mem_new(n, sizeof *out->kl);
        out->same_top = mem_new(n, sizeof *out->same_top);
    }
    r.ids = mem_new((size_t)t->n_ctx, sizeof *r.ids);
    r.pool = pool_open(t->n_threads);
    bool ok = true;
    for (int i = 0; ok && i < t->n_windows; i++) ok = run_window(&r, g, i, e);
    out->n_cut = r.n_cut;
    pool_close(r.pool);
    free(r.ids);
    free(r.saved);
    return ok;
}

void perplexity_free(Perplexity *p) {
    free(p->nll);
    free(p->running);
    free(p->base_nll);
    free(p->kl);
    free(p->same_top);
    *p = (Perplexity){0};
}
