/* chat: a conversation, line by line.
 *
 * On a terminal there is a prompt, and what a command has to tell is said there; in a pipe each line is a
 * turn, stdout carries the answers only, one newline behind each, and all else goes to stderr.  Ctrl-C ends
 * an answer on a terminal and the program in a pipe.
 *
 * Nothing is forgotten in silence: a full context ends the answer or takes the oldest turns with it, as
 * --on-full says, and a sentence tells. */
#include "chat_commands.h"
#include "line.h"
#include "messages.h"
#include "profile.h"
#include "prompt.h"
#include "setup.h"
#include "stop.h"
#include "verdict.h"
#include "voice.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

/* ---- talking to the user ---- */

bool chat_tell(const Chat *c, Err *e, const char *format, ...) {
    Buf text = {0};
    char line[2000];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    buf_printf(&text, c->on_terminal ? "%s\n" : "zgen: %s\n", line);
    bool ok = c->on_terminal ? out_write(text.data, text.n, e)
                             : out_write_to(STDERR_FILENO, "standard error", text.data, text.n, e);
    buf_free(&text);
    return ok;
}

/* On a terminal a turn that failed is told and the chat goes on; a script wants to know. */
bool chat_failed(const Chat *c, Err *e) {
    if (!c->on_terminal || e->code != ERR_RUN) return false;
    Err why = *e;
    return chat_tell(c, e, "zgen: %s", why.text);
}

/* ---- room in the context ---- */

/* Takes the oldest message that is no system prompt, and what answers it.  false: only the last one is left.
 */
static bool drop_oldest(Session *s) {
    json_t *messages = session_messages(s);
    size_t n = json_array_size(messages), first = 0;
    const char *oldest = messages_role(s, n - 1);
    if (strcmp(oldest, "system") == 0 || strcmp(oldest, "developer") == 0) first = 1;
    size_t next = first + 1;
    while (next < n && strcmp(messages_role(s, n - 1 - next), "user") != 0) next++;
    if (next >= n) return false;
    for (; next > first; next--) json_array_remove(messages, first);
    return true;
}

static bool too_full(const Chat *c, Err *e) {
    return err_set(
        e, ERR_RUN,
        "the conversation has %zu tokens and the context holds %d; /clear begins anew, /undo goes back, "
        "-c makes it larger, --on-full drop forgets the oldest turns",
        c->session.ids.n, c->config.n_ctx);
}

/* Renders; when that leaves no room for an answer, drops turns until it does, or refuses.  With turns
 * dropped, a quarter of the context is kept free, or it would be full again at once. */
static bool make_prompt(Chat *c, Err *e) {
    bool drops = c->options->on_full && strcmp(c->options->on_full, "drop") == 0;
    int n_ctx = c->config.n_ctx, n_dropped = 0, wanted = c->request.n_predict;
    int room = !drops ? 1 : wanted > 0 && wanted < n_ctx / 4 ? wanted : n_ctx / 4 + 1;
    for (;; n_dropped++) {
        if (!session_prompt(&c->session, e)) return false;
        if (c->session.ids.n + (size_t)room <= (size_t)n_ctx) break;
        if (!drops || !drop_oldest(&c->session)) {
            if (c->session.ids.n < (size_t)n_ctx) break; // little room is better than none
            return too_full(c, e);
        }
    }
    return n_dropped == 0 || chat_tell(c, e, "(the context of %d tokens is full: the oldest %s dropped)",
                                       n_ctx, n_dropped == 1 ? "turn was" : "turns were");
}

/* ---- a turn ---- */

static bool print_new(Chat *c, size_t *n_printed, Err *e) {
    const Sequence *q = c->session.seq;
    size_t from = *n_printed;
    *n_printed = q->n_final;
    return q->n_final == from || voice_push(&c->voice, q->text.data + from, q->n_final - from, e);
}

static bool speak(Chat *c, Err *e) {
    size_t n_printed = 0;
    Err why = {0}, ignored;
    bool more = true, ok = true;
    voice_begin(&c->voice, c->options, c->session.prompt.data, c->session.prompt.n);
    while (ok && more && !stop_wanted()) {
        more = engine_step(c->engine, &why);
        ok = print_new(c, &n_printed, e);
    }
    if (stop_wanted() || why.code) engine_interrupt(c->engine);
    ok = ok && print_new(c, &n_printed, e);
    ok = voice_end(&c->voice, ok ? e : &ignored) && ok && out_write("\n", 1, e);
    if (ok && why.code) *e = why;
    return ok && !why.code;
}

/* What there is to say about how the answer ended. */
static bool tell_end(Chat *c, Err *e) {
    const Sequence *q = c->session.seq;
    bool is_full = q->finish == FINISH_LENGTH && q->n_prompt + q->n_generated >= c->config.n_ctx;
    setup_notice(c->turn_notices, "turn: %d tokens kept, %d evaluated, %d said", q->n_reused, q->prompt.n,
                 q->n_generated);
    return !is_full ||
           chat_tell(c, e, "(the context of %d tokens is full: the answer ends here)", c->config.n_ctx);
}

static bool attempt(Chat *c, Err *e) {
    if (!make_prompt(c, e) || !session_ask(&c->session, &c->request, e)) return false;
    bool ok = speak(c, e), said = session_answered(&c->session);
    c->total.n_turns++;
    c->total.n_evaluated += c->session.seq->prompt.n;
    c->total.n_said += c->session.seq->n_generated;
    if (!ok || !tell_end(c, e) || !verdict_take(c->options, c->verify, c->engine, NULL, e)) return false;
    if (!stop_wanted() && !verdict_passes(c->verify, e)) return false;
    return said || !stop_wanted() || !c->on_terminal || chat_tell(c, e, "(nothing was said)");
}

bool chat_answer(Chat *c, Err *e) {
    bool ok = attempt(c, e);
    json_t *messages = session_messages(&c->session);
    if (strcmp(messages_role(&c->session, 0), "user") == 0) // without an answer there was no question
        json_array_remove(messages, json_array_size(messages) - 1);
    if (ok && stop_wanted()) return c->on_terminal && stop_forget() ? true : stop_err(e);
    return ok || chat_failed(c, e);
}

static bool turn(Chat *c, const Buf *line, Err *e) {
    if (line->n == 0) return true;
    if (chat_is_command(line->data)) return chat_command(c, line->data, e);
    session_add(&c->session, "user", line->data, line->n);
    return chat_answer(c, e);
}

/* ---- the conversation ---- */

static bool converse(Chat *c, Line *line, Err *e) {
    Buf text = {0};
    bool ok = true;
    while (ok && !c->is_over) {
        LineEnd end = line_read(line, &text);
        if (end == LINE_NO_MORE) {
            ok = !c->on_terminal || out_write("\n", 1, e);
            break;
        }
        if (end == LINE_TEXT)
            ok = turn(c, &text, e);
        else if (c->on_terminal && stop_forget())
            ok = out_write("\n", 1, e);
        else
            ok = stop_err(e);
    }
    buf_free(&text);
    return ok;
}

/* -p or -f is the first turn, and a conversation from --messages may wait for an answer. */
static bool first_turn(Chat *c, Err *e) {
    const Options *o = c->options;
    Buf text = {0};
    bool asked = o->prompt || o->file, ok = !asked || prompt_read(o, true, &text, e);
    if (ok && asked) session_add(&c->session, "user", text.data, text.n);
    if (ok && asked && c->on_terminal) ok = chat_tell(c, e, "> %s", text.data ? text.data : "");
    buf_free(&text);
    return ok && (strcmp(messages_role(&c->session, 0), "user") != 0 || chat_answer(c, e));
}

static bool check(const Options *o, Err *e) {
    if (o->n_rest)
        return err_set(e, ERR_USAGE, "unexpected argument '%.100s'; a first message is given with -p",
                       o->rest[0]);
    if (options_json(o) || o->n_logprobs || o->echo)
        return err_set(e, ERR_USAGE,
                       "--json, --logprobs and --echo are for single answers; add -st, or drop -cnv");
    return true;
}

static bool start(Chat *c, Err *e) {
    const Options *o = c->options;
    Session *s = &c->session;
    if (!setup_config(o, &c->config, e) || !messages_begin(o, s, e) ||
        !model_open_as(o->model, o->pre, &c->model, e) || !model_need_tok(&c->model, e) ||
        !messages_template(o, c->model.gguf, s, e) || !setup_layers(o, c->model.gguf, e) ||
        !setup_request(o, &c->request, e))
        return false;
    c->config.n_seq = c->config.R_max = 1;
    c->config.n_ctx = setup_context(o, c->model.gguf, 0, 0);
    if (!setup_engine(o, &c->model, &c->config, &c->engine, e) ||
        !verdict_open(o, &c->model, &c->config, &c->verify, e))
        return false;
    s->tok = c->model.tok, s->engine = c->engine;
    return true;
}

/* Who speaks, and what one has to know. */
static bool greet(const Chat *c, Err *e) {
    const Options *o = c->options;
    if (!c->on_terminal || o->quiet) return true;
    return chat_tell(c, e, "%s; context of %d tokens. /help lists the commands, Ctrl-D leaves.",
                     o->model ? gguf_label(c->model.gguf) : "The demo model, part of this executable",
                     c->config.n_ctx);
}

bool cmd_chat(const Options *o, Err *e) {
    if (o->single_turn) return cmd_generate(o, e);
    Options notices = *o; // about turns only where they are asked for: stderr is often the same terminal
    notices.quiet |= !o->verbose;
    Chat c = {
        .options = o, .turn_notices = &notices, .on_terminal = isatty(STDIN_FILENO) && out_is_terminal()};
    stop_install();
    bool ok = check(o, e) && start(&c, e) && greet(&c, e);
    Line *line = ok ? line_open(c.on_terminal, voice_has_colour()) : NULL;
    ok = ok && first_turn(&c, e) && converse(&c, line, e);
    line_close(line);
    const Sequence *said = c.session.seq;
    ok = ok && profile_tell(o, c.engine, said ? said->n_prompt + said->n_generated : 0, NULL, e);
    verify_close(c.verify);
    engine_close(c.engine);
    session_close(&c.session);
    model_close(&c.model);
    return ok;
}
