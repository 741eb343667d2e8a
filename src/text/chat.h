/* chat: messages to the text that a model was trained to answer, by the template that came with it.
 *
 * Owns the choice of variables that a template sees, the templates of our own that are known by name, and the
 * record of who wrote what: beside the rendered text stand its runs, so that text of the messages is never
 * read as control tokens, however much it looks like them.  It refuses whatever the template refuses, and
 * templates that run away (see jinja/value.h for the budgets).  The template language is the room jinja. */
#ifndef ZGEN_TEXT_CHAT_H
#define ZGEN_TEXT_CHAT_H

#include <stdbool.h>
#include <stddef.h>
#include <jansson.h>
#include "../base/err.h"
#include "tok.h"

typedef struct ChatInput {
    /* An object, as --messages reads it: "messages" (an array of objects with "role" and "content"), and
     * whatever else the template may ask for: tools, add_generation_prompt, enable_thinking, ...  Each key is
     * a variable of the template, except "now" ("2026-08-18T09:30:00"), the time that strftime_now tells
     * instead of the real one. */
    const json_t *variables;
    const char *bos_token, *eos_token; // the model's, where variables name none; NULL: the model has none
} ChatInput;

typedef struct ChatRun {
    size_t start, n; // bytes
    bool from_user;
} ChatRun;

/* From the user, in the sense of a run, is every string and key of the variables, except names of roles that
 * are known (user, assistant, system, ...), which templates build control tokens from, and top-level strings
 * whose key ends in "_token".  Special tokens should be looked for in the whole text, so that its pieces
 * merge as the model has learnt, but taken only where no byte of them is from the user. */
typedef struct ChatText {
    char *data; // UTF-8, NUL behind it
    size_t n;
    ChatRun *runs; // in order, without gaps, neighbours differ
    size_t n_runs;
} ChatText;

/* Renders the template (UTF-8, n bytes; ill-formed bytes become U+FFFD) into *out, which the caller frees.
 * false: ERR_MODEL if the template is malformed, asks for what is not supported or exceeds a limit; ERR_RUN
 * if it refuses these messages, or stumbles over something that they lack.  The sentence names line and
 * column of the template. */
bool chat_render(const char *source, size_t n, const ChatInput *input, ChatText *out, Err *e);
void chat_text_free(ChatText *text); // back to {0}

/* Whether any of the n bytes at start is from the user.  O(log runs). */
bool chat_text_is_user(const ChatText *text, size_t start, size_t n);

/* Appends the ids of the text from byte `from` on (a border between characters): special tokens only where
 * the template wrote all of them, nothing added around it. */
void chat_encode(const ChatText *text, size_t from, const Tok *tok, TokIds *out);

/* A template of our own by the name of its format ("chatml", "llama3", ...): a C string; NULL if unknown. */
const char *chat_builtin_template(const char *name);
/* Their names, for messages and help: NULL behind the last. */
const char *chat_builtin_name(size_t i);

#endif
