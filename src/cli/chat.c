/* chat: a conversation, line by line.
 *
 * On a terminal each line is read behind a prompt, and replies of commands go to stdout.  In a pipe each line
 * is a turn, stdout carries only the answers, each followed by a newline, and everything else goes to stderr.
 * Ctrl-C ends an answer on a terminal and the program in a pipe. */
#include "chat_commands.h"
#include "cli.h"
#include "line.h"
#include "messages.h"
#include "profile.h"
#include "prompt.h"
#include "setup.h"
#include "stop.h"
#include "verdict.h"

#include <string.h>
#include <unistd.h>

static bool turn(Chat *c, const Buf *line, Err *e) {
    if (line->n == 0) return true;
    if (chat_is_command(line->data)) return chat_command(c, line->data, e);
    session_add(&c->session, "user", line->data, line->n);
    return chat_answer(c, e);
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
    if (ok && asked && c->on_terminal) ok = chat_print(c, e, "> %s", text.data ? text.data : "");
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
    return chat_print(c, e, "%s; context of %d tokens. /help lists the commands, Ctrl-D leaves.",
                      o->model ? gguf_label(c->model.gguf) : "The demo model, part of this executable",
                      c->config.n_ctx);
}

bool cmd_chat(const Options *o, Err *e) {
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
