/* chat: a conversation, line by line.
 *
 * On a terminal each line is read after a prompt, and replies of commands go to stdout.  In a pipe each line
 * is a turn, stdout carries only the answers, each followed by a newline, and everything else goes to stderr.
 * Ctrl-C ends an answer on a terminal, and the program in a pipe. */
#include "chat_commands.h"
#include "cli.h"
#include "line.h"
#include "messages.h"
#include "profile.h"
#include "prompt.h"
#include "setup.h"
#include "stop.h"
#include "verdict.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

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
    Runner *run = &c->run;
    const Options *o = run->options;
    Session *s = &c->session;
    if (!runner_choose(run, e) || !messages_begin(o, s, e) || !runner_open(run, o->model, e) ||
        !model_need_text(&run->model, e) || !messages_template(o->chat_template, run->model.gguf, s, e) ||
        !sampling_open(o, run->model.tok, &run->sampling, e) ||
        !setup_request(o, &run->sampling, &c->request, e))
        return false;
    run->config.n_seq = run->config.R_max = 1;
    run->config.n_ctx = setup_context(o->n_ctx, run->model.gguf, 0, 0);
    if (!runner_start(run, e) || !verdict_open(run, e)) return false;
    runner_warn_untrained(run, "a context", run->config.n_ctx, "use ");
    s->tok = run->model.tok;
    s->engine = run->engine;
    return true;
}

static bool greet(const Chat *c, Err *e) {
    const Options *o = c->run.options;
    if (!c->on_terminal || o->notices.quiet) return true;
    return chat_print(c, e, "%s; context of %d tokens. /help lists the commands, Ctrl-D leaves.",
                      o->model ? gguf_label(c->run.model.gguf) : "The demo model inside this executable",
                      c->run.config.n_ctx);
}

static bool turn(Chat *c, const Buf *line, Err *e) {
    if (strspn(line->data ? line->data : "", " \t\r\n\v\f") == line->n) return true;
    if (chat_is_command(line->data)) return chat_command(c, line->data, e);
    session_add(&c->session, "user", line->data, line->n);
    return chat_answer(c, e);
}

/* -p or -f is the first turn; without it, a question that ends --messages is, or what --continue goes on
 * with. */
static bool first_turn(Chat *c, Err *e) {
    const Options *o = c->run.options;
    Buf text = {0};
    bool has_prompt = prompt_given(o), ok = !has_prompt || prompt_read(o, true, &text, e);
    if (ok && has_prompt) session_add(&c->session, "user", text.data, text.n);
    if (ok && has_prompt && c->on_terminal)
        ok = out_write("> ", 2, e) && out_write(text.data, text.n, e) && out_write("\n", 1, e);
    buf_free(&text);
    bool is_open = strcmp(messages_role(&c->session, 0), "user") == 0 || chat_continues(c->session.variables);
    return ok && (!is_open || chat_answer(c, e));
}

static bool converse(Chat *c, Line *line, Err *e) {
    Buf text = {0};
    bool ok = true;
    while (ok && !c->is_over) {
        LineEnd end = line_read(line, &text);
        if (end == LINE_NO_MORE) {
            ok = !c->on_terminal || out_write("\n", 1, e);
            break;
        }
        if (end == LINE_FAILED)
            ok = err_set(e, ERR_RUN, "the messages cannot be read from standard input: %s", strerror(errno));
        else if (end == LINE_TEXT)
            ok = turn(c, &text, e);
        else if (c->on_terminal && stop_forget())
            ok = out_write("\n", 1, e);
        else
            ok = stop_err(e);
    }
    buf_free(&text);
    return ok;
}

bool cmd_chat(const Options *o, Err *e) {
    Chat c = {.run = {.options = o}, .on_terminal = isatty(STDIN_FILENO) && out_is_terminal()};
    c.turn_notices = (Notices){.quiet = o->notices.quiet || !o->notices.verbose, .verbose = true};
    stop_install();
    bool ok = check(o, e) && start(&c, e) && greet(&c, e);
    Line *line = ok ? line_open(c.on_terminal, answer_has_colour()) : NULL;
    ok = ok && first_turn(&c, e) && converse(&c, line, e);
    line_close(line);
    const Sequence *last = c.session.seq;
    ok = ok && profile_print(&c.run, last ? last->n_prompt + last->n_generated : 0, NULL, e);
    runner_close(&c.run);
    session_close(&c.session);
    return ok;
}
