/* logits: the raw logits after each of the given tokens, for other programs.
 *
 * The output is [n_ids, n_vocab] float32, little-endian, row by row.  The model needs no tokenizer. */
#include "atomic_file.h"
#include "cli.h"
#include "ids.h"
#include "profile.h"
#include "prompt.h"
#include "setup.h"
#include "stop.h"
#include "verdict.h"
#include "../base/float.h"
#include "../base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROWS = 64 }; // positions whose logits are computed at once

/* ---- the output ---- */

typedef struct Sink {
    AtomicFile file; // for stdout: only fd and name, never closed
    int n_vocab;
    uint8_t *row;   // one row in the format of the file
    Verify *verify; // NULL without --verify
    const int32_t *ids;
    Err failure; // of a write, or of the scalar engine
} Sink;

static bool is_stdout(const char *path) {
    return strcmp(path, "-") == 0;
}

static bool sink_open(Sink *s, const char *path, int n_vocab, Err *e) {
    *s = (Sink){.file = {.fd = STDOUT_FILENO, .name = "standard output"}, .n_vocab = n_vocab};
    if (!is_stdout(path) && !atomic_file_open(&s->file, path, e)) return false;
    s->row = mem_new((size_t)n_vocab, 4);
    return true;
}

static bool sink_row(Sink *s, int position, const float *logits) {
    for (int i = 0; i < s->n_vocab; i++) store_u32(s->row + 4 * (size_t)i, f32_to_bits(logits[i]));
    return !stop_wanted() &&
           out_write_to(s->file.fd, s->file.name, s->row, 4 * (size_t)s->n_vocab, &s->failure) &&
           (!s->verify || verify_row(s->verify, s->ids, position, logits, &s->failure));
}

static bool sink_rows(void *arg, const LogitRows *rows) {
    bool ok = true;
    for (int i = 0; ok && i < rows->n; i++)
        ok = sink_row(arg, rows->position + i, rows->data + (size_t)i * rows->stride);
    return ok;
}

/* ---- the command ---- */

typedef struct Logits {
    Runner run;
    TokIds ids;
    Sink sink;
} Logits;

static bool check(const Options *o, Err *e) {
    if (o->n_rest)
        return err_set(e, ERR_USAGE,
                       "unexpected argument '%.100s'; the model is given with -m, ids with --ids",
                       o->rest[0]);
    if (!o->ids == !o->ids_file)
        return err_set(e, ERR_USAGE, "no tokens: give one of --ids 1,5,9 and --ids-file FILE");
    if (!o->out) return err_set(e, ERR_USAGE, "no output: give -o OUT, or -o - for standard output");
    if (is_stdout(o->out) && out_is_terminal())
        return err_set(e, ERR_USAGE,
                       "the logits are no text for a terminal; use -o FILE, or redirect the output");
    return true;
}

static bool read_ids(const Options *o, int n_vocab, TokIds *out, Err *e) {
    if (o->ids) return ids_parse(o->ids, strlen(o->ids), n_vocab, "--ids", out, e);
    Buf text = {0};
    bool ok = prompt_read_file(o->ids_file, "the tokens", &text, e) &&
              ids_parse(text.data, text.n, n_vocab, "--ids-file", out, e);
    buf_free(&text);
    return ok;
}

/* The rows of the embedding, which the plan takes for the size of the vocabulary. */
static bool read_n_vocab(const Gguf *g, int *out, Err *e) {
    const GgufTensor *embd = gguf_find_tensor(g, "token_embd.weight");
    if (!plan_check_file(g, e)) return false;
    if (!embd) return err_set(e, ERR_MODEL, "%s: the tensor 'token_embd.weight' is missing", gguf_label(g));
    *out = (int)embd->ne[1];
    return true;
}

static bool start(Logits *l, Err *e) {
    Runner *run = &l->run;
    const Options *o = run->options;
    int n_vocab = 0;
    if (!runner_choose(run, e) || !runner_open(run, o->model, e) ||
        !read_n_vocab(run->model.gguf, &n_vocab, e) || !read_ids(o, n_vocab, &l->ids, e))
        return false;
    run->config.n_seq = 1;
    run->config.R_max = ROWS;
    int n_least = (int)l->ids.n + (o->profile ? PROFILE_ROOM : 0);
    run->config.n_ctx = o->n_ctx > 0 ? o->n_ctx : o->n_ctx == 0 ? setup_trained(run->model.gguf) : n_least;
    if (!runner_start(run, e) || !verdict_open(run, e)) return false;
    runner_warn_untrained(run, "a context", o->n_ctx > 0 ? o->n_ctx : (int)l->ids.n, "use ");
    runner_report_model(run);
    return true;
}

static bool compute(Logits *l, Err *e) {
    const char *path = l->run.options->out;
    Sink *s = &l->sink;
    Engine *engine = l->run.engine;
    if (!sink_open(s, path, engine_plan(engine)->hparams.n_vocab, e)) return false;
    s->verify = l->run.verify;
    s->ids = l->ids.data;
    bool ok = engine_logits(engine, l->ids.data, 0, (int)l->ids.n, sink_rows, s, e);
    if (!ok && s->failure.code)
        *e = s->failure;
    else if (stop_wanted())
        ok = stop_err(e);
    free(s->row);
    return is_stdout(path) ? ok : atomic_file_close(&s->file, ok, e);
}

bool cmd_logits(const Options *o, Err *e) {
    Logits l = {.run = {.options = o}};
    stop_install();
    bool ok = check(o, e) && start(&l, e) && compute(&l, e) && verdict_print(&l.run, NULL, e) &&
              profile_print(&l.run, (int)l.ids.n, NULL, e);
    if (ok)
        notice(&o->notices, "%zu rows of %d logits are in %s", l.ids.n, l.sink.n_vocab,
               is_stdout(o->out) ? "standard output" : o->out);
    ok = ok && verdict_passes(&l.run, e);
    runner_close(&l.run);
    tok_ids_free(&l.ids);
    return ok;
}
