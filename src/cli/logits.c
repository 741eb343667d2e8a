/* logits: what the model thinks comes next behind each of the given tokens, as raw numbers for other
 * programs.
 *
 * The file is [n_ids, n_vocab] float32, little endian, row by row.  It needs no tokenizer. */
#include "cli.h"
#include "draft.h"
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

/* ---- the file ---- */

typedef struct Sink {
    Draft draft; // to stdout: one that is never closed
    int n_vocab;
    uint8_t *row;   // one row as bytes of the file
    Verify *verify; // NULL: not wanted
    const int32_t *ids;
    Err failure; // of a write, of the oracle
} Sink;

static bool is_stdout(const Options *o) {
    return strcmp(o->out, "-") == 0;
}

static bool sink_open(Sink *s, const Options *o, int n_vocab, Err *e) {
    *s = (Sink){.draft = {.fd = STDOUT_FILENO, .name = "standard output"}, .n_vocab = n_vocab};
    if (!is_stdout(o) && !draft_open(&s->draft, o->out, e)) return false;
    s->row = mem_new((size_t)n_vocab, 4);
    return true;
}

static bool sink_row(Sink *s, int position, const float *logits) {
    for (int i = 0; i < s->n_vocab; i++) store_u32(s->row + 4 * (size_t)i, f32_to_bits(logits[i]));
    return !stop_wanted() &&
           out_write_to(s->draft.fd, s->draft.name, s->row, 4 * (size_t)s->n_vocab, &s->failure) &&
           (!s->verify || verify_row(s->verify, s->ids, position, logits, &s->failure));
}

static bool sink_rows(void *arg, const LogitRows *rows) {
    bool ok = true;
    for (int i = 0; ok && i < rows->n; i++)
        ok = sink_row(arg, rows->position + i, rows->data + (size_t)i * rows->stride);
    return ok;
}

/* ---- the command ---- */

typedef struct Work {
    Model model;
    EngineConfig config;
    Engine *engine;
    Verify *verify; // NULL: not wanted
    TokIds ids;
    Sink sink;
} Work;

static bool check(const Options *o, Err *e) {
    if (o->n_rest)
        return err_set(e, ERR_USAGE,
                       "unexpected argument '%.100s'; the model is given with -m, ids with --ids",
                       o->rest[0]);
    if (!o->ids == !o->ids_file)
        return err_set(e, ERR_USAGE, "tokens are wanted: one of --ids 1,5,9 and --ids-file FILE");
    if (!o->out)
        return err_set(e, ERR_USAGE, "a place for the logits is wanted: -o OUT, or -o - for standard output");
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

/* Rows of the embedding: what the plan will take for the vocabulary. */
static bool read_n_vocab(const Gguf *g, int *out, Err *e) {
    const GgufTensor *embd = gguf_find_tensor(g, "token_embd.weight");
    if (!embd)
        return err_set(e, ERR_MODEL,
                       "%s: tensor 'token_embd.weight' is missing; there is nothing to compute with",
                       gguf_label(g));
    *out = (int)embd->ne[1];
    return true;
}

static bool start(Work *w, const Options *o, Err *e) {
    int n_vocab = 0;
    if (!model_open(o->model, &w->model, e) || !setup_layers(o, w->model.gguf, e) ||
        !read_n_vocab(w->model.gguf, &n_vocab, e) || !read_ids(o, n_vocab, &w->ids, e))
        return false;
    w->config.n_seq = 1, w->config.R_max = ROWS;
    int n_least = (int)w->ids.n + (o->profile ? PROFILE_ROOM : 0);
    w->config.n_ctx = o->n_ctx > 0 ? o->n_ctx : o->n_ctx == 0 ? setup_trained(w->model.gguf) : n_least;
    return setup_engine(o, &w->model, &w->config, &w->engine, e) &&
           verdict_open(o, &w->model, &w->config, &w->verify, e);
}

static bool compute(Work *w, const Options *o, Err *e) {
    if (!sink_open(&w->sink, o, engine_plan(w->engine)->hparams.n_vocab, e)) return false;
    w->sink.verify = w->verify, w->sink.ids = w->ids.data;
    bool ok = engine_logits(w->engine, w->ids.data, 0, (int)w->ids.n, sink_rows, &w->sink, e);
    if (!ok && w->sink.failure.code)
        *e = w->sink.failure;
    else if (stop_wanted())
        ok = stop_err(e);
    free(w->sink.row);
    return is_stdout(o) ? ok : draft_close(&w->sink.draft, ok, e);
}

bool cmd_logits(const Options *o, Err *e) {
    Work w = {0};
    stop_install();
    bool ok = check(o, e) && setup_config(o, &w.config, e) && start(&w, o, e);
    if (ok && !o->model)
        setup_notice(
            o, "the logits are those of the demo model, part of this executable; -m FILE names another one");
    ok = ok && compute(&w, o, e) && verdict_tell(o, w.verify, NULL, e) &&
         profile_tell(o, w.engine, (int)w.ids.n, NULL, e);
    if (ok)
        setup_notice(o, "%zu rows of %d logits are in %s", w.ids.n, w.sink.n_vocab,
                     is_stdout(o) ? "standard output" : o->out);
    ok = ok && verdict_passes(w.verify, e);
    verify_close(w.verify);
    engine_close(w.engine);
    tok_ids_free(&w.ids);
    model_close(&w.model);
    return ok;
}
