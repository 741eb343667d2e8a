/* conversation: the state of zgen chat, and one turn of it: messages in, an answer on stdout.
 *
 * A full context is handled by --on-full: the turn is refused, or the oldest turns are dropped; a line
 * reports either.  A user's message without an answer is removed, so that the messages never end with it. */
#ifndef ZGEN_CLI_CONVERSATION_H
#define ZGEN_CLI_CONVERSATION_H

#include "answer.h"
#include "runner.h"
#include "../run/session.h"

typedef struct ChatTotal {
    int n_turns;
    int n_evaluated; // prompt tokens that were computed
    int n_generated; // tokens
} ChatTotal;

typedef struct Chat {
    Runner run;
    Notices turn_notices; // those about single turns
    bool on_terminal;
    Session session;
    Request request; // of every turn, except ids
    Answer answer;
    ChatTotal total;
    bool is_over; // by a command of the user
} Chat;

/* Generates the answer to the messages and prints it, with a newline behind it.  false: the conversation
 * cannot go on; *e has the reason or a signal's code. */
bool chat_answer(Chat *c, Err *e);

/* Reports a failure.  true: the conversation goes on (on a terminal, after
 * ERR_RUN, and ERR_OUTPUT or ERR_USAGE of a file that was not written). */
bool chat_failed(const Chat *c, Err *e);

/* Prints one line about the conversation: to stdout on a terminal, to stderr elsewhere.  false: ERR_OUTPUT,
 * ERR_PIPE. */
bool chat_print(const Chat *c, Err *e, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
