/* chat_commands: what one can say to zgen instead of to the model: /help, /clear, ...
 *
 * Chat is the state of a conversation on the command line, which chat.c leads. */
#ifndef ZGEN_CLI_CHAT_COMMANDS_H
#define ZGEN_CLI_CHAT_COMMANDS_H

#include "cli.h"
#include "voice.h"
#include "../run/session.h"
#include "../run/verify.h"

typedef struct ChatTotal {
    int n_turns, n_evaluated, n_said; // answers, tokens of prompts that were computed, tokens of answers
} ChatTotal;

typedef struct Chat {
    const Options *options, *turn_notices;
    bool on_terminal;
    Model model;
    EngineConfig config;
    Engine *engine;
    Verify *verify; // NULL: not wanted
    Session session;
    Request request; // of every turn, but for ids
    Voice voice;
    ChatTotal total;
    bool is_over;
} Chat;

/* Whether a line is meant for zgen: a slash and one word of letters, not a path. */
bool chat_is_command(const char *line);

/* Does what the line says.  false: see chat_answer. */
bool chat_command(Chat *c, const char *line, Err *e);

/* ---- of chat.c ---- */

/* Has the model answer the messages.  A last message of the user that finds no answer is taken back.  false:
 * the chat cannot go on. */
bool chat_answer(Chat *c, Err *e);

/* After a failure: tells it and returns true where the chat goes on. */
bool chat_failed(const Chat *c, Err *e);

/* One line for the user: on stdout of a terminal, on stderr elsewhere. */
bool chat_tell(const Chat *c, Err *e, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
