/* chat_commands: see chat_commands.h. */
#include "chat_commands.h"
#include "messages.h"

#include <string.h>

static void pop(Session *s) {
    json_t *messages = session_messages(s);
    json_array_remove(messages, json_array_size(messages) - 1);
}

static bool last_is(const Session *s, const char *role) {
    return strcmp(messages_role(s, 0), role) == 0;
}

/* ---- the commands ---- */

static bool clear(Chat *c, const char *argument, Err *e) {
    (void)argument;
    json_t *messages = session_messages(&c->session);
    bool has_system = messages_has_system(&c->session);
    while (json_array_size(messages) > has_system) pop(&c->session);
    return chat_print(c, e,
                      has_system ? "(a new conversation; the system prompt stays)" : "(a new conversation)");
}

/* With the same seed the answer would be the same. */
static bool regenerate(Chat *c, const char *argument, Err *e) {
    (void)argument;
    if (!last_is(&c->session, "assistant")) return chat_print(c, e, "(there is no answer to replace)");
    while (last_is(&c->session, "assistant")) pop(&c->session);
    c->request.params.seed++;
    return chat_answer(c, e);
}

static bool undo(Chat *c, const char *argument, Err *e) {
    (void)argument;
    Session *s = &c->session;
    size_t n = json_array_size(session_messages(s)), user = 0;
    while (user < n && strcmp(messages_role(s, user), "user") != 0) user++;
    if (user == n) return chat_print(c, e, "(there is no turn to remove)");
    for (size_t i = 0; i <= user; i++) pop(s);
    return chat_print(c, e, "(the last turn is removed)");
}

static bool save(Chat *c, const char *path, Err *e) {
    if (!*path) return chat_print(c, e, "(/save needs the name of a file)");
    if (!messages_save(path, &c->session, e)) return chat_failed(c, e);
    return chat_print(c, e, "(saved %zu messages)", json_array_size(session_messages(&c->session)));
}

static bool load(Chat *c, const char *path, Err *e) {
    if (!*path) return chat_print(c, e, "(/load needs the name of a file)");
    const Options *o = c->run.options;
    if (!messages_load(path, o, &c->session, e)) return chat_failed(c, e);
    if (!o->chat_template && !messages_template(NULL, c->run.model.gguf, &c->session, e)) return false;
    if (!chat_print(c, e, "(loaded %zu messages)", json_array_size(session_messages(&c->session))))
        return false;
    return !last_is(&c->session, "user") || chat_answer(c, e);
}

static bool set_system(Chat *c, const char *text, Err *e) {
    if (!*text) return chat_print(c, e, "(/system needs a text)");
    messages_set_system(&c->session, text, strlen(text));
    return chat_print(c, e, "(the system prompt is set)");
}

static bool stats(Chat *c, const char *argument, Err *e) {
    (void)argument;
    const Sequence *q = c->session.seq;
    if (!q) return chat_print(c, e, "no turn yet; context of %d tokens", c->run.config.n_ctx);
    const Timing *d = &q->decode, *p = &q->prompt;
    return chat_print(c, e, "context: %d of %d tokens", q->n_prompt + q->n_generated, c->run.config.n_ctx) &&
           chat_print(c, e, "last turn: %d tokens kept, %d evaluated in %.3f s, %d generated at %.1f tok/s",
                      q->n_reused, p->n, p->seconds, q->n_generated,
                      d->seconds > 0 ? d->n / d->seconds : 0) &&
           chat_print(c, e, "%d turns: %d tokens evaluated, %d generated", c->total.n_turns,
                      c->total.n_evaluated, c->total.n_generated);
}

static bool leave(Chat *c, const char *argument, Err *e) {
    (void)argument;
    (void)e;
    c->is_over = true;
    return true;
}

static bool help(Chat *c, const char *argument, Err *e);

static const struct {
    const char *name, *argument, *text;
    bool (*run)(Chat *c, const char *argument, Err *e);
} COMMANDS[] = {
    {"/help", "", "this list", help},
    {"/clear", "", "starts a new conversation with the same system prompt", clear},
    {"/regen", "", "replaces the last answer by another one", regenerate},
    {"/undo", "", "removes the last message and its answer", undo},
    {"/save", " FILE", "writes the conversation in the format of --messages", save},
    {"/load", " FILE", "continues a conversation that /save wrote", load},
    {"/system", " TEXT", "sets the system prompt", set_system},
    {"/stats", "", "tokens and speed", stats},
    {"/exit", "", "leaves, as Ctrl-D does", leave},
};

enum { N_COMMANDS = sizeof COMMANDS / sizeof *COMMANDS };

static bool help(Chat *c, const char *argument, Err *e) {
    (void)argument;
    for (int i = 0; i < N_COMMANDS; i++) {
        char usage[40];
        snprintf(usage, sizeof usage, "%s%s", COMMANDS[i].name, COMMANDS[i].argument);
        if (!chat_print(c, e, "%-14s %s", usage, COMMANDS[i].text)) return false;
    }
    return chat_print(c, e,
                      "A line that ends with \\ continues on the next one; \"\"\" begins and ends a message "
                      "of many lines.  "
                      "Ctrl-C stops an answer.");
}

/* ---- lookup ---- */

static size_t word_length(const char *line) {
    return *line == '/' ? 1 + strspn(line + 1, "abcdefghijklmnopqrstuvwxyz") : 0;
}

/* The index of the command that a line begins with; N_COMMANDS: none. */
static int find(const char *line) {
    size_t n = word_length(line);
    bool ends = line[n] == 0 || line[n] == ' ' || line[n] == '\t';
    for (int i = 0; ends && i < N_COMMANDS; i++)
        if (strlen(COMMANDS[i].name) == n && memcmp(COMMANDS[i].name, line, n) == 0) return i;
    return N_COMMANDS;
}

bool chat_is_command(const char *line) {
    return find(line) < N_COMMANDS;
}

bool chat_command(Chat *c, const char *line, Err *e) {
    const char *argument = line + word_length(line);
    return COMMANDS[find(line)].run(c, argument + strspn(argument, " \t"), e);
}
