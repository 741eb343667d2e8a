/* chat: messages to the prompt of a model, by its chat template.
 *
 * Owns the variables of a template, the built-in templates by name, and the origin of every part of the
 * prompt: the rendered text comes with runs by author, so that text of the messages never becomes control
 * tokens, whatever it looks like, and with the place of each part of the messages in it.  Messages are
 * rendered as they are (chat_prompt.h makes them into what a template understands); those that the template
 * refuses are refused, and templates that exceed a budget (jinja/value.h).  The template language is the room
 * jinja. */
#ifndef ZGEN_TEXT_CHAT_H
#define ZGEN_TEXT_CHAT_H

#include <stdbool.h>
#include <stddef.h>
#include <jansson.h>
#include "../base/err.h"
#include "tok.h"

typedef struct ChatInput {
    /* An object, as --messages reads it: "messages" (an array of objects with "role" and "content"), and
     * other variables of the template: tools, add_generation_prompt, enable_thinking, ...  Each key is a
     * variable, except "now" ("2026-08-18T09:30:00"), which replaces the time of strftime_now. */
    const json_t *variables;
    const char *bos_token, *eos_token; // the model's, where variables name none; NULL: the model has none
    bool no_thought;                   // chat_prompt: no thought is wanted, see there
    bool (*stop)(void);                // whether the rendering shall end; NULL: it never shall
    int64_t *spent; // steps of earlier renderings that share one budget with this one, or NULL
} ChatInput;

typedef enum ChatPart { CHAT_CONTENT, CHAT_REASONING, CHAT_NAME, CHAT_CALLS } ChatPart; // of a message
enum { CHAT_CALLS_MAX = 4, CHAT_TOOLS = 1 };

/* The origin of a part of message i: an index into ChatText.ends.  CHAT_TOOLS is that of the variable
 * "tools". Of a message's calls the fourth and all behind it share one (call: its index; 0 for other
 * parts), and so do all messages behind the 291st. */
unsigned chat_origin(size_t i, ChatPart part, size_t call);

typedef struct ChatRun {
    size_t start, n; // bytes
    bool from_user;
} ChatRun;

/* Every string and key of the variables is the user's, except names of known roles (user, assistant, system,
 * ...), of which templates make control tokens, and top-level strings whose key ends in "_token". */
typedef struct ChatText {
    char *data; // UTF-8, NUL behind it
    size_t n;
    ChatRun *runs; // in order, without gaps, neighbours differ
    size_t n_runs;
    size_t *ends;  // by origin: bytes up to the end of its last character, 0 if there is none
    bool has_repr; // None, a list or a dict was written as Python does, which no model was trained on
} ChatText;

/* Renders the template (UTF-8, n bytes; ill-formed bytes become U+FFFD) into *out, which the caller frees.
 * false: ERR_MODEL if the template is malformed, uses an unsupported feature or exceeds a budget; ERR_RUN if
 * it refuses these messages or fails on a missing value, or if it was stopped.  The sentence names line and
 * column of the template. */
bool chat_render(const char *source, size_t n, const ChatInput *input, ChatText *out, Err *e);
void chat_text_free(ChatText *text); // back to {0}

/* Appends a text of the template's. */
void chat_text_add(ChatText *text, const char *more);

/* Whether any of the n bytes at start is the user's; O(log n_runs). */
bool chat_text_is_user(const ChatText *text, size_t start, size_t n);

/* Appends the ids of the text from byte `from` on, the first of a character.  A text becomes a special token
 * only if the template wrote all of it; BOS and EOS are not added. */
void chat_encode(const ChatText *text, size_t from, const Tok *tok, TokIds *out);

/* The built-in template of a format ("chatml", "llama3", ...), a C string; NULL: unknown. */
const char *chat_builtin_template(const char *name);
/* The name of built-in template i; NULL behind the last. */
const char *chat_builtin_name(size_t i);

#endif
