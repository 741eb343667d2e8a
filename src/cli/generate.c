/* generate: a prompt in, the model's text out.
 *
 * The prompt is taken as it is; or, with -st and its relatives, it is a message that a chat template puts
 * into the form that the model was trained to answer, and white space around the answer is not said.
 *
 * stdout carries the text and nothing else, as soon as it is certain; with --json one object at the end.
 * Ctrl-C ends the text where it is, and what was said stays. */
#include "cli.h"
#include "messages.h"
#include "profile.h"
#include "prompt.h"
#include "report.h"
#include "setup.h"
#include "stop.h"
#include "verdict.h"
#include "voice.h"
#include "../base/clock.h"

#include <string.h>

typedef struct Run {
    Model model;
    EngineConfig config;
    Engine *engine;
    Verify *verify; // NULL: not wanted
    Buf prompt;
    TokIds ids;
    bool is_chat;    // the prompt goes through a chat template
    Session session; // then: what the template sees
    Voice voice;
    Request request;
    const Sequence *seq;
    size_t n_printed; // bytes of the sequence's text
    char last;        // byte written to stdout
    double device_seconds, load_seconds;
} Run;

/* ---- before the model speaks ---- */

static bool check(const Options *o, Err *e) {
    if (o->n_rest)
        return err_set(
            e, ERR_USAGE,
            "unexpected argument '%.100s'; put quotes around a prompt with spaces, and -p before it",
            o->rest[0]);
    if (o->n_logprobs && !options_json(o))
        return err_set(e, ERR_USAGE, "--logprobs has no place in plain text; add --json");
    if (o->echo && options_json(o))
        return err_set(e, ERR_USAGE, "--echo and --json exclude each other; the JSON object has the prompt");
    if (o->on_full)
        return err_set(e, ERR_USAGE, "--on-full is for conversations; use it with zgen chat, or drop it");
    return true;
}

/* The conversation so far, and the prompt as its next message. */
static bool read_messages(Run *r, const Options *o, Err *e) {
    bool asked = o->prompt || o->file || !o->messages;
    if (!messages_begin(o, &r->session, e) || (asked && !prompt_read(o, true, &r->prompt, e))) return false;
    if (asked) session_add(&r->session, "user", r->prompt.data, r->prompt.n);
    return true;
}

static bool read_prompt(Run *r, const Options *o, Err *e) {
    r->is_chat = messages_wanted(o);
    return r->is_chat ? read_messages(r, o, e) : prompt_read(o, true, &r->prompt, e);
}

/* The prompt is now what the template makes of the messages. */
static bool render(Run *r, const Options *o, Err *e) {
    Session *s = &r->session;
    s->tok = r->model.tok;
    if (!messages_template(o, r->model.gguf, s, e) || !session_prompt(s, e)) return false;
    buf_clear(&r->prompt);
    buf_add(&r->prompt, s->prompt.data, s->prompt.n);
    return true;
}

/* A template that was named needs no model; the model would only add what its first and last tokens are. */
static bool print_prompt(Run *r, const Options *o, Err *e) {
    bool needs_model = r->is_chat && (o->model || !o->chat_template);
    return (!needs_model || model_open_as(o->model, o->pre, &r->model, e)) &&
           (!r->is_chat || render(r, o, e)) && out_write(r->prompt.data, r->prompt.n, e);
}

/* A prompt of so many bytes that no context holds it is refused before hours are spent on its tokens. */
static bool check_length(const Run *r, const Options *o, Err *e) {
    size_t longest = 1;
    for (int id = 0; id < tok_n_vocab(r->model.tok); id++) {
        size_t n = tok_text(r->model.tok, id).n;
        if (n > longest) longest = n;
    }
    size_t least = r->prompt.n / longest;
    int n_ctx = setup_context(o, r->model.gguf, (int64_t)least, o->n_predict);
    return least <= (size_t)n_ctx || err_set(e, ERR_RUN,
                                             "the prompt of %zu bytes has more than %zu tokens, but the "
                                             "context holds %d; shorten the prompt or use a larger -c",
                                             r->prompt.n, least, n_ctx);
}

static bool encode(Run *r, const Options *o, Err *e) {
    const Tok *tok = r->model.tok;
    if (!model_need_tok(&r->model, e)) return false;
    if (r->is_chat) {
        if (!render(r, o, e)) return false;
        r->ids = r->session.ids, r->session.ids = (TokIds){0};
        return true;
    }
    if (!check_length(r, o, e)) return false;
    tok_encode(tok, r->prompt.data, r->prompt.n, TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, &r->ids);
    if (r->ids.n == 0 && tok_bos(tok) >= 0) tok_ids_add(&r->ids, tok_bos(tok));
    return r->ids.n > 0 ||
           err_set(e, ERR_USAGE,
                   "the prompt is empty and the model has no token to begin with; give it some text");
}

static bool start(Run *r, const Options *o, Err *e) {
    double begin = clock_now();
    if (!model_open_as(o->model, o->pre, &r->model, e) || !setup_layers(o, r->model.gguf, e) ||
        !encode(r, o, e) || !setup_request(o, &r->request, e))
        return false;
    r->request.ids = r->ids.data, r->request.n_ids = (int)r->ids.n;
    r->config.n_seq = r->config.R_max = 1;
    r->config.n_ctx = setup_context(o, r->model.gguf, r->request.n_ids, o->n_predict);
    if (!setup_engine(o, &r->model, &r->config, &r->engine, e) ||
        !verdict_open(o, &r->model, &r->config, &r->verify, e))
        return false;
    int seq = engine_add(r->engine, &r->request, e);
    if (seq < 0) return false;
    r->seq = engine_sequence(r->engine, seq);
    r->load_seconds = clock_now() - begin;
    return true;
}

/* ---- the text ---- */

static bool print(Run *r, const char *text, size_t n, Err *e) {
    if (n) r->last = text[n - 1];
    return out_write(text, n, e);
}

static bool print_new(Run *r, const Options *o, Err *e) {
    size_t from = r->n_printed;
    r->n_printed = r->seq->n_final;
    const char *text = r->seq->text.data + from;
    size_t n = r->n_printed - from;
    if (options_json(o) || n == 0) return true;
    if (!r->is_chat) return print(r, text, n, e);
    bool ok = voice_push(&r->voice, text, n, e);
    if (r->voice.last) r->last = r->voice.last;
    return ok;
}

static bool print_end(Run *r, Err *e) {
    bool ok = !r->is_chat || voice_end(&r->voice, e);
    if (r->voice.last) r->last = r->voice.last;
    return ok;
}

/* On a terminal the shell's next line begins on a line of its own. */
static bool end_line(Run *r, const Options *o, Err *e) {
    bool is_needed = !options_json(o) && r->last && r->last != '\n' && out_is_terminal();
    return !is_needed || print(r, "\n", 1, e);
}

static bool speak(Run *r, const Options *o, Err *e) {
    if (o->echo && !print(r, r->prompt.data, r->prompt.n, e)) return false;
    voice_begin(&r->voice, o, r->prompt.data, r->prompt.n);
    bool more = true;
    while (more && !stop_wanted()) {
        more = engine_step(r->engine, e);
        Err why = *e;
        if (!print_new(r, o, e)) return false;
        if (why.code) {
            print_end(r, e);
            end_line(r, o, e);
            *e = why;
            return false;
        }
    }
    if (stop_wanted()) engine_interrupt(r->engine);
    return print_new(r, o, e) && print_end(r, e) && end_line(r, o, e);
}

/* What was asked for besides the text: the profile comes last, as it spoils the sequence. */
static bool look_back(Run *r, const Options *o, Report *report, Err *e) {
    int n_past = r->seq->n_prompt + r->seq->n_generated;
    bool json = options_json(o);
    if (!verdict_take(o, r->verify, r->engine, json ? &report->verify : NULL, e)) return false;
    return stop_wanted() || profile_tell(o, r->engine, n_past, json ? &report->profile : NULL, e);
}

static bool run(Run *r, const Options *o, Err *e) {
    if (!start(r, o, e)) return false;
    if (stop_wanted()) return stop_err(e);
    Report report = {.options = o,
                     .model = &r->model,
                     .engine = r->engine,
                     .config = &r->config,
                     .request = &r->request,
                     .prompt = &r->prompt,
                     .seq = r->seq,
                     .device_seconds = r->device_seconds,
                     .load_seconds = r->load_seconds};
    report_begin(&report);
    if (!speak(r, o, e)) return false;
    bool ok = look_back(r, o, &report, e) && (!options_json(o) || report_json(&report, e));
    if (ok) report_end(&report);
    return ok && (stop_wanted() ? stop_err(e) : verdict_passes(r->verify, e));
}

bool cmd_generate(const Options *o, Err *e) {
    Run r = {0};
    stop_install();
    double begin = clock_now();
    bool ok = check(o, e) && (o->print_prompt || setup_config(o, &r.config, e));
    r.device_seconds = clock_now() - begin;
    ok = ok && read_prompt(&r, o, e) && (o->print_prompt ? print_prompt(&r, o, e) : run(&r, o, e));
    verify_close(r.verify);
    engine_close(r.engine);
    session_close(&r.session);
    model_close(&r.model);
    tok_ids_free(&r.ids);
    buf_free(&r.prompt);
    return ok;
}
