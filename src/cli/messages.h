/* messages: the messages and the chat template that the options select.
 *
 * Owns --messages and its file, the system prompt, the options that are variables of templates, and the
 * choice of the template.  A model without a template is refused: with a wrong template a model answers
 * nonsense, and nothing shows the cause. */
#ifndef ZGEN_CLI_MESSAGES_H
#define ZGEN_CLI_MESSAGES_H

#include "options.h"
#include "../run/session.h"

/* Whether an option is given that only a chat template can use. */
bool messages_wanted(const Options *o);

/* Whether this value of --think hides thinking: hide or off; NULL: not given. */
bool messages_hide_thoughts(const char *think);

/* Fills s->variables from --messages, -sys or -sysf, and the options that are variables, and
 * s->stop.  false: ERR_USAGE; ERR_RUN for a file that cannot be read or has no messages. */
bool messages_begin(const Options *o, Session *s, Err *e);

/* Sets s->source from the variables of s: with the template of this name in the model (NULL: no model),
 * the known format, the file, or the Jinja text; for NULL with the model's, with tools that for tools if
 * there is one.  false: ERR_USAGE or ERR_MODEL with the known names, ERR_RUN for a file that cannot be
 * read. */
bool messages_template(const char *name, const Gguf *model, Session *s, Err *e);

/* Makes the prompt (session_prompt), and warns of what the chat template leaves out, unless it left out
 * the same in the prompt before. */
bool messages_prompt(Session *s, Err *e);

/* Replaces the messages and all other variables by those of a file in the format of --messages, and sets
 * those of --think.  false: ERR_RUN, and nothing is changed. */
bool messages_load(const char *path, const Options *o, Session *s, Err *e);

/* Writes such a file, whole or not at all.  false: ERR_OUTPUT; ERR_USAGE for another input of the run. */
bool messages_save(const char *path, const Session *s, Err *e);

/* The next prompt is for a new answer, whatever the one before was for. */
void messages_end_continuation(Session *s);

/* Whether the messages begin with a system prompt, of the role system or developer. */
bool messages_has_system(const Session *s);

/* Replaces or adds the system prompt: n bytes. */
void messages_set_system(Session *s, const char *text, size_t n);

/* The role of message i counted from the end, "" if there is none. */
const char *messages_role(const Session *s, size_t i);

#endif
