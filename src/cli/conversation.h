/* conversation: the state of zgen chat, and one turn of it: messages in, an answer on stdout.
 *
 * A context that is full is handled as --on-full says: the turn is refused, or the oldest turns are dropped;
 * a line reports either.  A failed turn takes the unanswered message of the user back, so that the messages
 * always end with an answer. */
#ifndef ZGEN_CLI_CONVERSATION_H
#define ZGEN_CLI_CONVERSATION_H

#include "options.h"
#include "voice.h"
#include "../run/session.h"
#include "../run/verify.h"

typedef struct ChatTotal {
    int n_turns, n_evaluated, n_generated; // answers, prompt tokens that were computed, tokens of answers
} ChatTotal;

typedef struct Chat {
    const Options *options, *turn_notices;
    bool on_terminal;
    Model model;
    EngineConfig config;
    Engine *engine;
    Verify *verify; // NULL: not wanted
    Session session;
    Request request; // of every turn, except ids
    Voice voice;
    ChatTotal total;
    bool is_over; // the user asked to leave
} Chat;

/* Generates the answer to the messages and prints it, with a newline behind it.  If there is none, the
 * user's last message is removed.  false: the conversation cannot go on; *e says why, or holds a signal's
 * code. */
bool chat_answer(Chat *c, Err *e);

/* Reports a failure of the turn.  true: the conversation goes on (on a terminal, after ERR_RUN). */
bool chat_failed(const Chat *c, Err *e);

/* Prints one line about the conversation: to stdout on a terminal, to stderr elsewhere.  false: ERR_OUTPUT or
 * ERR_PIPE. */
bool chat_print(const Chat *c, Err *e, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
