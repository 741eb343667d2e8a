/* session: one conversation with a model.
 *
 *     session_prompt -> session_ask -> while (engine_step) print what is new -> session_answered
 *
 * Owns the messages and the tokens of the last turn.  The messages decide: each turn renders all of
 * them through the template, so that they may be changed between two turns, and the engine computes only the
 * tokens that its cache does not hold.
 *
 * The one trick: generated text may be encoded into other tokens than those that were generated.  As long as
 * a new prompt begins with the text of the last prompt and its answer, the ids of both are kept, and only the
 * rest is encoded: a turn computes exactly its new tokens. */
#ifndef ZGEN_RUN_SESSION_H
#define ZGEN_RUN_SESSION_H

#include "engine.h"
#include "../text/chat_prompt.h"
#include "../text/think.h"

typedef struct Session {
    Buf source;         // of the chat template
    json_t *variables;  // of the template, see ChatInput; "messages" among them
    const Tok *tok;     // NULL: prompts are text only
    Engine *engine;     // of one sequence; NULL: prompts are not answered
    bool no_thought;    // see ChatInput
    bool (*stop)(void); // whether a rendering shall end; NULL: it never shall

    Buf notes;       // of session_prompt: a line for each part of the messages that the template leaves out
    ChatText prompt; // session_prompt's, and its ids
    TokIds ids;
    const Sequence *seq; // the latest answer; NULL before the first
    bool is_cut;         // by a stop string: its last ids are not those of its text
    Buf past_text;       // the last prompt and its answer; empty: their ids cannot be kept
    TokIds past_ids;     // the same as tokens, as they were computed
} Session;

/* Frees what the session owns: not tok, not the engine. */
void session_close(Session *s);

json_t *session_messages(const Session *s);

/* Appends a message; ill-formed UTF-8 becomes U+FFFD. */
void session_add(Session *s, const char *role, const char *text, size_t n);

/* Renders the messages into s->prompt, and into s->ids if there is a tokenizer.  Nothing else changes. false:
 * see chat_render. */
bool session_prompt(Session *s, Err *e);

/* Hands the prompt to the engine, with everything but ids and reuse from settings.  false: see engine_add. */
bool session_ask(Session *s, const Request *settings, Err *e);

/* Starts the separation of the answer to the prompt into reasoning and the rest. */
void session_think(const Session *s, Think *t);

/* Takes the finished answer, without white space around it, into the messages; what continues a message
 * (chat_continues) goes to the end of that, without white space behind it.  false: it has no text, and
 * nothing changes. */
bool session_answered(Session *s);

#endif
