/* generate: text after a prompt.
 *
 * The prompt is given to the model unchanged; or, with -st and the other options of conversations, it is a
 * message that a chat template puts into the form that the model was trained on, and white space around the
 * answer is removed.
 *
 * stdout carries the text and nothing else, each part as soon as no stop string can contain it; with --json
 * one object at the end.  Ctrl-C ends the text; what was generated before is printed. */
#include "answer.h"
#include "cli.h"
#include "messages.h"
#include "profile.h"
#include "prompt.h"
#include "report.h"
#include "setup.h"
#include "stop.h"
#include "verdict.h"

#include <string.h>

typedef struct Generation {
    Runner run;
    Buf prompt;
    TokIds ids;
    bool is_chat;    // the prompt goes through a chat template
    Session session; // with is_chat: the messages and the template
    Answer answer;   // with is_chat
    Request request;
    const Sequence *seq;
    size_t n_printed; // bytes of the sequence's text
    char last;        // byte written to stdout
} Generation;

/* ---- the prompt ---- */

static bool check(const Options *o, Err *e) {
    if (o->n_rest && command_find(o->rest[0]))
        return err_set(e, ERR_USAGE, "the command '%s' comes before its options: zgen %s ...", o->rest[0],
                       o->rest[0]);
    if (o->n_rest)
        return err_set(
            e, ERR_USAGE,
            "unexpected argument '%.100s'; put quotes around a prompt with spaces, and -p before it",
            o->rest[0]);
    if (o->n_logprobs && !options_json(o))
        return err_set(e, ERR_USAGE, "--logprobs has no place in plain text; add --json");
    if (o->echo && options_json(o))
        return err_set(e, ERR_USAGE, "--echo and --json exclude each other; the JSON object has the prompt");
    if (!o->bos && messages_wanted(o))
        return err_set(e, ERR_USAGE,
                       "--no-bos is for a plain prompt; BOS of a message is the template's choice: use "
                       "--chat-template");
    if (o->on_full)
        return err_set(e, ERR_USAGE, "--on-full is for conversations; use it with zgen chat, or drop it");
    return true;
}

/* The conversation so far, and the prompt as its next message. */
static bool read_messages(Generation *g, Err *e) {
    const Options *o = g->run.options;
    bool has_prompt = prompt_given(o) || !o->messages;
    if (!messages_begin(o, &g->session, e) || (has_prompt && !prompt_read(o, true, &g->prompt, e)))
        return false;
    if (has_prompt) session_add(&g->session, "user", g->prompt.data, g->prompt.n);
    return true;
}

static bool read_prompt(Generation *g, Err *e) {
    g->is_chat = messages_wanted(g->run.options);
    return g->is_chat ? read_messages(g, e) : prompt_read(g->run.options, true, &g->prompt, e);
}

/* Replaces the prompt by what the template makes of the messages. */
static bool render(Generation *g, Err *e) {
    Session *s = &g->session;
    s->tok = g->run.model.tok;
    if (!messages_template(g->run.options->chat_template, g->run.model.gguf, s, e) || !messages_prompt(s, e))
        return false;
    buf_clear(&g->prompt);
    buf_add(&g->prompt, s->prompt.data, s->prompt.n);
    return true;
}

/* With --chat-template the model is optional: it only gives the text of BOS and EOS. */
static bool print_prompt(Generation *g, Err *e) {
    const Options *o = g->run.options;
    bool needs_model = g->is_chat && (o->model || !o->chat_template);
    return (!needs_model || runner_open(&g->run, o->model, e)) && (!g->is_chat || render(g, e)) &&
           out_write(g->prompt.data, g->prompt.n, e);
}

/* Refuses a prompt whose bytes alone exceed the context, before it is tokenized, which may take hours. */
static bool check_length(const Generation *g, Err *e) {
    const Options *o = g->run.options;
    const Tok *tok = g->run.model.tok;
    size_t longest = 1; // token, in bytes
    for (int id = 0; id < tok_n_vocab(tok); id++) {
        size_t n = tok_text(tok, id).n;
        if (n > longest) longest = n;
    }
    size_t least = g->prompt.n / longest;
    int n_ctx = setup_context(o->n_ctx, g->run.model.gguf, (int64_t)least, o->n_predict);
    return least <= (size_t)n_ctx || err_set(e, ERR_RUN,
                                             "the prompt of %zu bytes has more than %zu tokens, but the "
                                             "context holds %d; shorten the prompt or use a larger -c",
                                             g->prompt.n, least, n_ctx);
}

static bool encode(Generation *g, Err *e) {
    const Tok *tok = g->run.model.tok;
    if (!model_need_text(&g->run.model, e)) return false;
    if (g->is_chat) {
        if (!render(g, e)) return false;
        g->ids = g->session.ids;
        g->session.ids = (TokIds){0};
        return true;
    }
    if (!check_length(g, e)) return false;
    unsigned added = g->run.options->bos ? TOK_ADD_SPECIAL : 0;
    tok_encode(tok, g->prompt.data, g->prompt.n, added | TOK_PARSE_SPECIAL, &g->ids);
    if (g->ids.n == 0 && tok_bos(tok) >= 0 && added) tok_ids_add(&g->ids, tok_bos(tok));
    return g->ids.n > 0 ||
           err_set(e, ERR_USAGE,
                   "the prompt is empty and the model has no token to begin with; give it some text");
}

static bool start(Generation *g, Err *e) {
    Runner *run = &g->run;
    const Options *o = run->options;
    if (!runner_open(run, o->model, e) || !encode(g, e) ||
        !sampling_open(o, run->model.tok, &run->sampling, e) ||
        !setup_request(o, &run->sampling, &g->request, e))
        return false;
    g->request.ids = g->ids.data;
    g->request.n_ids = (int)g->ids.n;
    g->request.tags = g->is_chat;
    run->config.n_seq = run->config.R_max = 1;
    run->config.n_ctx = setup_context(o->n_ctx, run->model.gguf, g->request.n_ids, o->n_predict);
    if (!runner_start(run, e) || !verdict_open(run, e)) return false;
    runner_warn_untrained(run, "a context", run->config.n_ctx, "use ");
    int seq = engine_add(run->engine, &g->request, e);
    if (seq < 0) return false;
    g->seq = engine_sequence(run->engine, seq);
    return true;
}

/* ---- the text ---- */

static bool print(Generation *g, const char *text, size_t n, Err *e) {
    if (n) g->last = text[n - 1];
    return out_write(text, n, e);
}

static bool print_new(Generation *g, Err *e) {
    if (g->is_chat) return answer_take(&g->answer, g->run.engine, g->seq, e);
    const char *text = g->seq->text.data + g->n_printed;
    size_t n = g->seq->n_final - g->n_printed;
    g->n_printed += n;
    return options_json(g->run.options) || n == 0 || print(g, text, n, e);
}

static bool print_end(Generation *g, Err *e) {
    bool ok = !g->is_chat || answer_end(&g->answer, e);
    if (g->answer.last) g->last = g->answer.last;
    return ok;
}

/* On a terminal the shell's prompt must begin on a new line. */
static bool end_line(Generation *g, Err *e) {
    bool is_needed = !options_json(g->run.options) && g->last && g->last != '\n' && out_is_terminal();
    return !is_needed || print(g, "\n", 1, e);
}

static bool generate(Generation *g, Err *e) {
    const Options *o = g->run.options;
    if (o->echo && !print(g, g->prompt.data, g->prompt.n, e)) return false;
    if (g->is_chat) answer_begin(&g->answer, o, &g->session);
    bool more = true;
    while (more && !stop_wanted()) {
        more = engine_step(g->run.engine, e);
        Err why = *e;
        if (!print_new(g, e)) return false;
        if (why.code) {
            print_end(g, e);
            end_line(g, e);
            *e = why;
            return false;
        }
    }
    if (stop_wanted()) engine_interrupt(g->run.engine);
    return print_new(g, e) && print_end(g, e) && end_line(g, e);
}

/* The profile is last: it overwrites the sequence's cache. */
static bool examine(Generation *g, Report *report, Err *e) {
    int n_past = g->seq->n_prompt + g->seq->n_generated;
    bool json = options_json(g->run.options);
    if (!verdict_of_sequence(&g->run, json ? &report->verify : NULL, e)) return false;
    return stop_wanted() || profile_print(&g->run, n_past, json ? &report->profile : NULL, e);
}

static bool run(Generation *g, Err *e) {
    if (!start(g, e)) return false;
    if (stop_wanted()) return stop_err(e);
    Report report = {.runner = &g->run,
                     .request = &g->request,
                     .prompt = &g->prompt,
                     .seq = g->seq,
                     .answer = g->is_chat ? &g->answer : NULL};
    report_begin(&report);
    if (!generate(g, e)) return false;
    if (g->is_chat) answer_warn(&g->answer, g->seq, g->run.config.n_ctx);
    bool ok = examine(g, &report, e) && (!options_json(g->run.options) || report_json(&report, e));
    if (ok) report_end(&report);
    return ok && (stop_wanted() ? stop_err(e) : verdict_passes(&g->run, e));
}

bool cmd_generate(const Options *o, Err *e) {
    Generation g = {.run = {.options = o}};
    stop_install();
    bool ok = check(o, e) && (o->print_prompt || runner_choose(&g.run, e)) && read_prompt(&g, e) &&
              (o->print_prompt ? print_prompt(&g, e) : run(&g, e));
    if (!ok && e->code == ERR_RUN && stop_wanted()) stop_err(e); // a template that was stopped
    runner_close(&g.run);
    session_close(&g.session);
    answer_free(&g.answer);
    tok_ids_free(&g.ids);
    buf_free(&g.prompt);
    return ok;
}
