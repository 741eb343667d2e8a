/* perplexity: how well a model predicts a text, and the KL divergence from another model's predictions.
 *
 * The text is computed in windows, as llama-perplexity does it; run/perplexity.h has the formulas.
 * --save-logits writes the predictions to a file in llama-perplexity's format; --kl compares with such a
 * file, on the text in it, or on the text of -f after a check that both are the same.
 *
 * stdout gets a line for each number, `name = value +/- one standard error`, or with --json an object:
 *
 *     {"model", "n_ctx", "windows", "tokens" (evaluated), "ppl", "running" (after each window),
 *      "executor", "isa", "act", "weights", "kv", "threads", "memory", "seconds", "tok_s",
 *      "base": {"file", "ppl", "cut" (tokens), "ln_ratio",
 *               "kl": {"mean", "median", "p90", "p99", "p999", "max"}, "same_top"},
 *      "verify" (see verdict.h), "profile"}
 *
 * where a number with a standard error is {"value", "error"}. */
#include "atomic_file.h"
#include "cli.h"
#include "profile.h"
#include "progress.h"
#include "prompt.h"
#include "questions.h"
#include "setup.h"
#include "show.h"
#include "stop.h"
#include "verdict.h"
#include "../base/clock.h"
#include "../base/mem.h"
#include "../base/stat.h"
#include "../run/perplexity.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 512, ROWS = 256 }; // tokens without -c; rows of logits in memory at once

typedef struct Work {
    Runner run;
    TokIds ids; // of -f
    LogitsFile base;
    PerplexityTask task;
    Perplexity result;
    AtomicFile file; // of --save-logits
    Progress progress;
    char label[40]; // of the progress bar
    double seconds; // of computing
    json_t *profile, *verdict;
    Err failure; // of a write
} Work;

/* ---- the task ------------------------------------------------------------------------------------------ */

static bool has_text(const Options *o) {
    return o->file || o->binary_file;
}

static bool check(const Options *o, Err *e) {
    if (o->n_rest)
        return err_set(e, ERR_USAGE, "unexpected argument '%.100s'; the text is given with -f", o->rest[0]);
    if (o->file && o->binary_file)
        return err_set(e, ERR_USAGE, "-f and -bf each give the text; use one of them");
    if (o->kl_divergence && !o->base)
        return err_set(e, ERR_USAGE,
                       "--kl-divergence compares with the file of --kl-divergence-base F; name it");
    if (!has_text(o) && !o->base)
        return err_set(e, ERR_USAGE,
                       "no text: give -f FILE, -f - for standard input, or --kl F for the text of F");
    if (o->stride && (o->base || o->save))
        return err_set(e, ERR_USAGE,
                       "windows of --ppl-stride overlap, which a file of logits does not; drop one of both");
    return true;
}

/* Like llama-perplexity: one newline at the end is dropped, and control tokens are not parsed. */
static bool read_text(Work *w, Err *e) {
    const Options *o = w->run.options;
    Buf text = {0};
    bool ok = o->file ? prompt_read_file(o->file, "the text", &text, e)
                      : prompt_read_bytes(o->binary_file, "the text", &text, e);
    if (ok && o->file && text.n && text.data[text.n - 1] == '\n') text.n--;
    if (ok) tok_encode(w->run.model.tok, text.data, text.n, TOK_ADD_SPECIAL, &w->ids);
    buf_free(&text);
    return ok;
}

/* llama-perplexity's windows of --ppl-stride S: half of S longer, and S after each other. */
static bool take_strides(Work *w, Err *e) {
    PerplexityTask *t = &w->task;
    int64_t n = (int64_t)w->ids.n, stride = w->run.options->stride, n_ctx = t->n_ctx + stride / 2;
    if (stride >= n_ctx || n <= n_ctx)
        return err_set(e, ERR_USAGE,
                       "--ppl-stride %d: windows have %d tokens, which must be more than the stride and less "
                       "than the %d of the text; use a smaller stride",
                       (int)stride, (int)n_ctx, (int)n);
    t->n_ctx = (int)n_ctx;
    t->stride = (int)stride;
    t->n_windows = (int)((n - n_ctx + stride - 1) / stride);
    return true;
}

static bool take_text(Work *w, Err *e) {
    const Options *o = w->run.options;
    int n_ctx = o->n_ctx > 0 ? o->n_ctx : o->n_ctx == 0 ? setup_trained(w->run.model.gguf) : WINDOW;
    if (n_ctx < WINDOW_MIN)
        return err_set(e, ERR_USAGE, "a window of %d tokens is too short; use -c %d or more", n_ctx,
                       WINDOW_MIN);
    if (w->ids.n < 2 * (size_t)n_ctx)
        return err_set(
            e, ERR_RUN,
            "the text has %zu tokens, less than two windows of %d; use a longer text or a smaller -c",
            w->ids.n, n_ctx);
    w->task.ids = w->ids.data;
    w->task.n_ctx = n_ctx;
    w->task.n_windows = (int)(w->ids.n / (size_t)n_ctx);
    return !o->stride || take_strides(w, e);
}

/* Text and windows come from the base; -f and -c, where given, must agree with it. */
static bool take_base(Work *w, Err *e) {
    const Options *o = w->run.options;
    const LogitsFile *base = &w->base;
    size_t n = (size_t)base->n_windows * (size_t)base->n_ctx, same = 0;
    if (o->n_ctx > 0 && o->n_ctx != base->n_ctx)
        return err_set(e, ERR_USAGE, "-c %d: the windows of %.300s have %d tokens; drop -c", o->n_ctx,
                       o->base, base->n_ctx);
    while (same < n && same < w->ids.n && w->ids.data[same] == base->ids[same]) same++;
    if (has_text(o) && same < n)
        return err_set(e, ERR_RUN,
                       "%.300s was made from another text or with another tokenizer: they differ from token "
                       "%zu on; drop -f to use its own text, or make it again with --save-logits",
                       o->base, same);
    w->task.base = base;
    w->task.ids = base->ids;
    w->task.n_ctx = base->n_ctx;
    w->task.n_windows = base->n_windows;
    return true;
}

static bool take_task(Work *w, Err *e) {
    const Options *o = w->run.options;
    if (!model_need_text(&w->run.model, e) || (has_text(o) && !read_text(w, e)) ||
        !(o->base ? take_base(w, e) : take_text(w, e)))
        return false;
    if (o->n_windows > 0 && o->n_windows < w->task.n_windows) w->task.n_windows = o->n_windows;
    bool begins = tok_adds_bos(w->run.model.tok) && !w->task.stride; // a text has its own BOS
    w->task.bos = begins ? tok_bos(w->run.model.tok) : -1;
    w->task.n_threads = w->run.config.n_threads;
    return true;
}

static bool check_vocab(const Work *w, Err *e) {
    int n_vocab = engine_plan(w->run.engine)->hparams.n_vocab;
    return !w->task.base || w->base.n_vocab == n_vocab ||
           err_set(
               e, ERR_RUN,
               "%.300s is from a model with %d tokens in its vocabulary, this model has %d; only models with "
               "the same vocabulary can be compared",
               w->run.options->base, w->base.n_vocab, n_vocab);
}

static bool start(Work *w, Err *e) {
    const Options *o = w->run.options;
    Runner *run = &w->run;
    if (!runner_choose(run, e) || (o->base && !logits_file_open(o->base, &w->base, e)) ||
        !runner_open(run, o->model, e) || !take_task(w, e))
        return false;
    run->config.n_seq = 1;
    run->config.chunk = o->n_batch;
    run->config.R_max = o->n_batch && o->n_batch < ROWS ? o->n_batch : ROWS;
    run->config.n_ctx = w->task.n_ctx + (o->profile ? PROFILE_ROOM : 0);
    if (!runner_start(run, e) || !check_vocab(w, e) || !verdict_open(run, e)) return false;
    runner_warn_untrained(run, "a window", w->task.n_ctx, o->base ? "make the base again with " : "use ");
    runner_report_model(run);
    return true;
}

/* ---- computing ----------------------------------------------------------------------------------------- */

static bool save(void *arg, const void *bytes, size_t n) {
    Work *w = arg;
    return out_write_to(w->file.fd, w->file.name, bytes, n, &w->failure);
}

/* Shows the perplexity so far in the bar; with -v prints a line for each window. */
static bool go_on(void *arg, const Perplexity *p) {
    Work *w = arg;
    int n_rows = perplexity_rows(&w->task);
    bool is_new = p->n_rows % n_rows == 0;
    if (is_new) snprintf(w->label, sizeof w->label, "PPL %.4f", p->running[p->n_windows - 1]);
    if (is_new && w->run.options->notices.verbose) {
        progress_end(&w->progress);
        notice(&w->run.options->notices, "window %d of %d: %s", p->n_windows, w->task.n_windows, w->label);
    }
    progress_show(&w->progress, (double)p->n_rows / n_rows / w->task.n_windows);
    return !stop_wanted();
}

static bool run(Work *w, Err *e) {
    double begun = clock_now();
    snprintf(w->label, sizeof w->label, "perplexity");
    progress_begin(&w->progress, &w->run.options->notices, w->label);
    w->task.go_on = go_on;
    w->task.arg = w;
    bool ok = perplexity_run(w->run.engine, &w->task, &w->result, e);
    progress_end(&w->progress);
    w->seconds = clock_now() - begun;
    if (!ok && w->failure.code) *e = w->failure;
    return stop_wanted() ? stop_err(e) : ok;
}

static bool run_saving(Work *w, Err *e) {
    const PerplexityTask *t = &w->task;
    Buf head = {0};
    if (!atomic_file_open(&w->file, w->run.options->save, e)) return false;
    logits_file_head(t->n_ctx, engine_plan(w->run.engine)->hparams.n_vocab, t->n_windows, t->ids, &head);
    bool ok = out_write_to(w->file.fd, w->file.name, head.data, head.n, e);
    buf_free(&head);
    w->task.save = save;
    return atomic_file_close(&w->file, ok && run(w, e), e);
}

/* Verifies the first tokens of the first window. */
static bool verify(Work *w, Err *e) {
    const PerplexityTask *t = &w->task;
    int32_t *ids = mem_new((size_t)t->n_ctx, sizeof *ids);
    memcpy(ids, t->ids, (size_t)t->n_ctx * sizeof *ids);
    if (t->bos >= 0) ids[0] = t->bos;
    bool ok = verdict_of_ids(&w->run, ids, t->n_ctx, options_json(w->run.options) ? &w->verdict : NULL, e);
    free(ids);
    return ok;
}

/* ---- the report ---------------------------------------------------------------------------------------- */

typedef struct Summary { // of n predictions
    int n;
    Estimate ppl;
    Estimate base_ppl, ln_ratio, kl, p99, same_top; // with --kl; kl and its quantiles in nats
    double median, p90, p999, max;                  // of the KL divergence
} Summary;

/* ln_ratio is the logarithm of the ratio of both perplexities, that is the mean of the differences of the
 * negative log-likelihoods.  The error of that mean takes their correlation into account. */
static Summary summary_of(const Perplexity *p) {
    int n = p->n_rows;
    Summary s = {.n = n, .ppl = perplexity_of(p->nll, n)};
    if (!p->kl) return s;
    double *difference = mem_new((size_t)n, sizeof *difference);
    for (int i = 0; i < n; i++) difference[i] = p->nll[i] - p->base_nll[i];
    s.base_ppl = perplexity_of(p->base_nll, n);
    s.ln_ratio = estimate_mean(difference, n);
    s.kl = estimate_mean(p->kl, n);
    s.same_top = estimate_mean(p->same_top, n);
    s.p99 = (Estimate){stat_quantile(p->kl, n, 0.99), stat_quantile_error(p->kl, n, 0.99)};
    s.median = stat_quantile(p->kl, n, 0.5);
    s.p90 = stat_quantile(p->kl, n, 0.9);
    s.p999 = stat_quantile(p->kl, n, 0.999);
    s.max = stat_quantile(p->kl, n, 1);
    free(difference);
    return s;
}

static bool report_text(const Summary *s, bool has_base, Err *e) {
    Buf text = {0};
    buf_printf(&text, "PPL = %.4f +/- %.5f\n", s->ppl.value, s->ppl.error);
    if (has_base)
        buf_printf(&text,
                   "PPL of base = %.4f +/- %.5f\nln(PPL / PPL of base) = %.5g +/- %.2g\n"
                   "KL mean = %.5g +/- %.2g\nKL median = %.5g\nKL 90 %% = %.5g\n"
                   "KL 99 %% = %.5g +/- %.2g\nKL 99.9 %% = %.5g\nKL max = %.5g\n"
                   "same top %% = %.3f +/- %.3f\n",
                   s->base_ppl.value, s->base_ppl.error, s->ln_ratio.value, s->ln_ratio.error, s->kl.value,
                   s->kl.error, s->median, s->p90, s->p99.value, s->p99.error, s->p999, s->max,
                   100 * s->same_top.value, 100 * s->same_top.error);
    bool ok = out_write(text.data, text.n, e);
    buf_free(&text);
    return ok;
}

static json_t *estimate_json(Estimate x) {
    return json_pack("{s:o,s:o}", "value", show_number(x.value), "error", show_number(x.error));
}

static json_t *base_json(const Work *w, const Summary *s) {
    json_t *kl = json_pack("{s:o,s:o,s:o,s:o,s:o,s:o}", "mean", estimate_json(s->kl), "median",
                           show_number(s->median), "p90", show_number(s->p90), "p99", estimate_json(s->p99),
                           "p999", show_number(s->p999), "max", show_number(s->max));
    return json_pack("{s:o,s:o,s:i,s:o,s:o,s:o}", "file", show_json(w->base.path, strlen(w->base.path)),
                     "ppl", estimate_json(s->base_ppl), "cut", w->result.n_cut, "ln_ratio",
                     estimate_json(s->ln_ratio), "kl", kl, "same_top", estimate_json(s->same_top));
}

static double n_computed(const Work *w) {
    return (double)w->task.n_windows * (w->task.n_ctx - 1);
}

static bool report_json(const Work *w, const Summary *s, Err *e) {
    const EngineConfig *c = &w->run.config;
    const char *label = gguf_label(w->run.model.gguf);
    json_t *running = json_array();
    for (int i = 0; i < w->result.n_windows; i++)
        json_array_append_new(running, show_number(w->result.running[i]));
    json_t *root = json_pack(
        "{s:o,s:i,s:i,s:i,s:o,s:o,s:s,s:s,s:s,s:s,s:s,s:i,s:o,s:f,s:f}", "model",
        show_json(label, strlen(label)), "n_ctx", w->task.n_ctx, "windows", w->task.n_windows, "tokens", s->n,
        "ppl", estimate_json(s->ppl), "running", running, "executor", engine_executor(w->run.engine), "isa",
        c->isa, "act", c->act_f32 ? "f32" : "q8", "weights", c->weights_fp8 ? "fp8" : "file", "kv",
        kv_type_name(c->kv_type), "threads", c->n_threads, "memory", runner_memory(&w->run), "seconds",
        w->seconds, "tok_s", n_computed(w) / w->seconds);
    if (w->task.base) json_object_set_new(root, "base", base_json(w, s));
    if (w->verdict) json_object_set_new(root, "verify", w->verdict);
    if (w->profile) json_object_set_new(root, "profile", w->profile);
    return show_write(root, e);
}

static bool report(const Work *w, Err *e) {
    const Options *o = w->run.options;
    Summary s = summary_of(&w->result);
    notice(&o->notices, "%d windows of %d tokens in %.1f s, %.0f tok/s", w->task.n_windows, w->task.n_ctx,
           w->seconds, n_computed(w) / w->seconds);
    if (w->result.n_cut)
        err_warn(
            "%d of the %d tokens are less likely than %.300s can store (16 nats below the most likely "
            "token); "
            "the perplexity of the base is better here than it was",
            w->result.n_cut, s.n, o->base);
    return options_json(o) ? report_json(w, &s, e) : report_text(&s, w->task.base, e);
}

/* llama-perplexity reads the file of --kl-divergence-base with --kl-divergence, and writes it without. */
static Options with_base(const Options *o) {
    Options own = *o;
    if (!o->kl_divergence || !o->save || o->base) return own;
    own.base = o->save;
    own.save = NULL;
    return own;
}

bool cmd_perplexity(const Options *options, Err *e) {
    Options own = with_base(options);
    const Options *o = &own;
    if (o->questions) return questions_run(o, e);
    Work w = {.run = {.options = o}};
    stop_install();
    bool ok = check(o, e) && start(&w, e) && (o->save ? run_saving(&w, e) : run(&w, e)) && verify(&w, e) &&
              profile_print(&w.run, w.task.n_ctx - 1, options_json(o) ? &w.profile : NULL, e) &&
              report(&w, e) && (stop_wanted() ? stop_err(e) : verdict_passes(&w.run, e));
    perplexity_free(&w.result);
    runner_close(&w.run);
    logits_file_close(&w.base);
    tok_ids_free(&w.ids);
    return ok;
}
