/* conversation: see conversation.h. */
#include "conversation.h"
#include "messages.h"
#include "out.h"
#include "stop.h"
#include "verdict.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

/* ---- lines for the user ---- */

bool chat_print(const Chat *c, Err *e, const char *format, ...) {
    Buf text = {0};
    char line[2000];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (!c->on_terminal) buf_printf(&text, "zgen: ");
    utf8_escape(line, strlen(line), "", &text);
    buf_printf(&text, "\n");
    bool ok = c->on_terminal ? out_write(text.data, text.n, e)
                             : out_write_to(STDERR_FILENO, "standard error", text.data, text.n, e);
    buf_free(&text);
    return ok;
}

bool chat_failed(const Chat *c, Err *e) {
    if (!c->on_terminal || (e->code != ERR_RUN && e->code != ERR_OUTPUT && e->code != ERR_USAGE))
        return false;
    Err why = *e;
    return chat_print(c, e, "zgen: %s", why.text);
}

/* ---- space in the context ---- */

/* Removes the oldest turn: the first message that is not a system prompt, up to the next one of the user.
 * false: that would remove the last turn. */
static bool drop_oldest(Session *s) {
    json_t *messages = session_messages(s);
    size_t n = json_array_size(messages), first = messages_has_system(s), next = first + 1;
    while (next < n && strcmp(messages_role(s, n - 1 - next), "user") != 0) next++;
    if (next >= n) return false;
    for (; next > first; next--) json_array_remove(messages, first);
    return true;
}

static bool refuse_turn(const Chat *c, Err *e) {
    return err_set(
        e, ERR_RUN,
        "the conversation has %zu tokens and the context holds %d; /clear starts a new conversation, /undo "
        "removes the last turn, -c makes the context larger, --on-full drop drops the oldest turns",
        c->session.ids.n, c->run.config.n_ctx);
}

/* Renders the prompt; where it leaves too little space for an answer, drops turns or refuses.  When turns are
 * dropped a quarter of the context is freed, or the next turn would have to drop some again. */
static bool make_prompt(Chat *c, Err *e) {
    const char *on_full = c->run.options->on_full;
    bool drops = on_full && strcmp(on_full, "drop") == 0;
    int n_ctx = c->run.config.n_ctx, n_dropped = 0, n_predict = c->request.n_predict;
    int n_free = !drops ? 1 : n_predict > 0 && n_predict < n_ctx / 4 ? n_predict : n_ctx / 4 + 1;
    for (;; n_dropped++) {
        if (!messages_prompt(&c->session, e)) return false;
        size_t n = c->session.ids.n;
        if (n + (size_t)n_free <= (size_t)n_ctx) break;
        if (drops && drop_oldest(&c->session)) continue;
        if (n < (size_t)n_ctx) break; // space for a short answer
        return refuse_turn(c, e);
    }
    return n_dropped == 0 || chat_print(c, e, "(the context of %d tokens is full: the oldest %s dropped)",
                                        n_ctx, n_dropped == 1 ? "turn was" : "turns were");
}

/* ---- a turn ---- */

static bool generate(Chat *c, Err *e) {
    Err why = {0}, ignored;
    bool more = true, ok = true;
    answer_begin(&c->answer, c->run.options, &c->session);
    while (ok && more && !stop_wanted()) {
        more = engine_step(c->run.engine, &why);
        ok = answer_take(&c->answer, c->run.engine, c->session.seq, e);
    }
    if (stop_wanted() || why.code) engine_interrupt(c->run.engine);
    ok = ok && answer_take(&c->answer, c->run.engine, c->session.seq, e);
    ok = answer_end(&c->answer, ok ? e : &ignored) && ok && out_write("\n", 1, e);
    if (ok && why.code) *e = why;
    return ok && !why.code;
}

static bool report_turn(Chat *c, Err *e) {
    const Sequence *q = c->session.seq;
    int n_ctx = c->run.config.n_ctx;
    bool is_full = q->finish == FINISH_LENGTH && q->n_prompt + q->n_generated >= n_ctx;
    notice(&c->turn_notices, "turn: %d tokens kept, %d evaluated, %d generated", q->n_reused, q->prompt.n,
           q->n_generated);
    answer_warn(&c->answer, q, n_ctx);
    return !is_full || chat_print(c, e, "(the context of %d tokens is full: the answer ends here)", n_ctx);
}

static bool try_turn(Chat *c, Err *e) {
    if (!make_prompt(c, e) || !session_ask(&c->session, &c->request, e)) return false;
    bool ok = generate(c, e), has_answer = session_answered(&c->session);
    c->total.n_turns++;
    c->total.n_evaluated += c->session.seq->prompt.n;
    c->total.n_generated += c->session.seq->n_generated;
    if (!ok || !report_turn(c, e) || !verdict_of_sequence(&c->run, NULL, e)) return false;
    if (!stop_wanted() && !verdict_passes(&c->run, e)) return false;
    return has_answer || !stop_wanted() || !c->on_terminal || chat_print(c, e, "(no answer)");
}

bool chat_answer(Chat *c, Err *e) {
    bool ok = try_turn(c, e);
    json_t *messages = session_messages(&c->session);
    messages_end_continuation(&c->session);
    if (strcmp(messages_role(&c->session, 0), "user") == 0)
        json_array_remove(messages, json_array_size(messages) - 1);
    if (stop_wanted() && (ok || e->code == ERR_RUN))
        return c->on_terminal && stop_forget() ? true : stop_err(e);
    return ok || chat_failed(c, e);
}
