/* imatrix: makes the importance matrix of a model, for zgen quantize --imatrix, from a text.
 *
 *     zgen imatrix -m M -f TEXT [-o OUT] [-c N] [--chunks N]
 *
 * The text is computed in windows of N tokens, as llama-imatrix does it.  Nothing is printed on stdout. */
#include "atomic_file.h"
#include "cli.h"
#include "out.h"
#include "progress.h"
#include "prompt.h"
#include "runner.h"
#include "setup.h"
#include "stop.h"
#include "../base/clock.h"
#include "../run/importance.h"

#include <inttypes.h>
#include <string.h>

enum { WINDOW = 512, WINDOW_LEAST = 2, ROWS = 512 }; // tokens without -c; at least; rows of a run

typedef struct Work {
    Runner run;
    TokIds ids;
    ImportanceTask task;
    Importance result;
    Progress progress;
    double seconds; // of computing
} Work;

static bool check(const Options *o, Err *e) {
    if (o->n_rest)
        return err_set(e, ERR_USAGE, "unexpected argument '%.100s'; the text is given with -f", o->rest[0]);
    return o->file || err_set(e, ERR_USAGE, "no text: give -f FILE, or -f - for standard input");
}

/* Control tokens in the text are not parsed. */
static bool take_text(Work *w, Err *e) {
    const Options *o = w->run.options;
    const Tok *tok = w->run.model.tok;
    int n_ctx = o->n_ctx > 0 ? o->n_ctx : o->n_ctx == 0 ? setup_trained(w->run.model.gguf) : WINDOW;
    Buf text = {0};
    if (n_ctx < WINDOW_LEAST)
        return err_set(e, ERR_USAGE, "a window of %d token is too short; use -c %d or more", n_ctx,
                       WINDOW_LEAST);
    if (!prompt_read_file(o->file, "the text", &text, e)) return false;
    tok_encode(tok, text.data, text.n, TOK_ADD_SPECIAL, &w->ids);
    buf_free(&text);
    if (w->ids.n < (size_t)n_ctx)
        return err_set(e, ERR_RUN,
                       "the text has %zu tokens, less than a window of %d; use a longer text or a smaller -c",
                       w->ids.n, n_ctx);
    size_t n = w->ids.n / (size_t)n_ctx;
    w->task =
        (ImportanceTask){.ids = w->ids.data,
                         .n_ctx = n_ctx,
                         .n_windows = o->n_windows > 0 && (size_t)o->n_windows < n ? o->n_windows : (int)n,
                         .bos = tok_adds_bos(tok) ? tok_bos(tok) : -1,
                         .with_output = o->process_output};
    return true;
}

static bool start(Work *w, Err *e) {
    Runner *run = &w->run;
    if (!runner_choose(run, e) || !runner_open(run, run->options->model, e) ||
        !model_need_text(&run->model, e) || !take_text(w, e))
        return false;
    run->config.keeps_inputs = true;
    run->config.n_seq = 1;
    run->config.n_ctx = w->task.n_ctx;
    run->config.chunk = run->config.R_max = w->task.n_ctx < ROWS ? w->task.n_ctx : ROWS;
    if (!runner_start(run, e)) return false;
    runner_report_model(run);
    return true;
}

static bool go_on(void *arg, int n_done) {
    Work *w = arg;
    progress_show(&w->progress, (double)n_done / w->task.n_windows);
    return !stop_wanted();
}

static bool compute(Work *w, Err *e) {
    double begun = clock_now();
    progress_begin(&w->progress, &w->run.options->notices, "importance");
    w->task.go_on = go_on;
    w->task.arg = w;
    bool ok = importance_run(w->run.engine, &w->task, &w->result, e);
    progress_end(&w->progress);
    w->seconds = clock_now() - begun;
    return stop_wanted() ? stop_err(e) : ok;
}

/* Experts that no token was routed to have no importance of their own. */
static void warn_unused(const Importance *p) {
    int64_t n = 0, n_unused = 0;
    for (size_t i = 0; i < p->n; i++)
        for (int m = 0; m < p->sums[i].n_mat; m++, n++) n_unused += p->sums[i].counts[m] == 0;
    if (n_unused)
        err_warn("%" PRId64 " of %" PRId64 " matrices saw no token of the text; use a longer one", n_unused,
                 n);
}

static bool save(const Work *w, AtomicFile *file, Err *e) {
    Buf bytes = {0};
    imatrix_write(w->result.sums, w->result.n, w->run.options->file, w->task.n_windows, w->task.n_ctx,
                  &bytes);
    bool ok = out_write_to(file->fd, file->name, bytes.data, bytes.n, e);
    buf_free(&bytes);
    return ok;
}

bool cmd_imatrix(const Options *o, Err *e) {
    Work w = {.run.options = o};
    AtomicFile file;
    const char *path = o->out ? o->out : "imatrix.gguf"; // as llama-imatrix
    stop_install();
    bool ok = check(o, e) && start(&w, e);
    if (ok && (ok = atomic_file_open(&file, path, e))) {
        ok = compute(&w, e) && save(&w, &file, e);
        ok = atomic_file_close(&file, ok, e);
    }
    if (ok) {
        warn_unused(&w.result);
        notice(&o->notices, "%s: %zu tensors, %d windows of %d tokens, in %.1f s", path, w.result.n,
               w.task.n_windows, w.task.n_ctx, w.seconds);
    }
    importance_free(&w.result);
    tok_ids_free(&w.ids);
    runner_close(&w.run);
    return ok;
}
