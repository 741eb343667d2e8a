/* conversation: see conversation.h. */
#include "conversation.h"
#include "messages.h"
#include "out.h"
#include "setup.h"
#include "stop.h"
#include "verdict.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

/* ---- talking to the user ---- */

bool chat_print(const Chat *c, Err *e, const char *format, ...) {
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
    return chat_print(c, e, "zgen: %s", why.text);
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
    return n_dropped == 0 || chat_print(c, e, "(the context of %d tokens is full: the oldest %s dropped)",
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
           chat_print(c, e, "(the context of %d tokens is full: the answer ends here)", c->config.n_ctx);
}

static bool attempt(Chat *c, Err *e) {
    if (!make_prompt(c, e) || !session_ask(&c->session, &c->request, e)) return false;
    bool ok = speak(c, e), said = session_answered(&c->session);
    c->total.n_turns++;
    c->total.n_evaluated += c->session.seq->prompt.n;
    c->total.n_generated += c->session.seq->n_generated;
    if (!ok || !tell_end(c, e) || !verdict_take(c->options, c->verify, c->engine, NULL, e)) return false;
    if (!stop_wanted() && !verdict_passes(c->verify, e)) return false;
    return said || !stop_wanted() || !c->on_terminal || chat_print(c, e, "(nothing was said)");
}

bool chat_answer(Chat *c, Err *e) {
    bool ok = attempt(c, e);
    json_t *messages = session_messages(&c->session);
    if (strcmp(messages_role(&c->session, 0), "user") == 0) // without an answer there was no question
        json_array_remove(messages, json_array_size(messages) - 1);
    if (ok && stop_wanted()) return c->on_terminal && stop_forget() ? true : stop_err(e);
    return ok || chat_failed(c, e);
}
