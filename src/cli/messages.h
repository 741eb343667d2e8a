/* messages: the conversation that the options ask for, before anybody answers.
 *
 * Owns what stands between the command line and a chat template: --messages and its file, the system prompt,
 * --think as the templates' own switches, and the choice of the template.  It refuses to guess a template: a
 * wrong one makes a model talk nonsense, and nobody knows why. */
#ifndef ZGEN_CLI_MESSAGES_H
#define ZGEN_CLI_MESSAGES_H

#include "options.h"
#include "../run/session.h"

/* Whether an option was given that makes sense only with a chat template. */
bool messages_wanted(const Options *o);

/* Fills s->variables from --messages, -sys or -sysf, and --think.  false: ERR_USAGE, or ERR_RUN for files
 * that cannot be read or are no such object. */
bool messages_begin(const Options *o, Session *s, Err *e);

/* Fills s->source: --chat-template, or the template of the model (NULL: there is none).  false: ERR_USAGE or
 * ERR_MODEL with the choices, ERR_RUN for a file that cannot be read. */
bool messages_template(const Options *o, const Gguf *model, Session *s, Err *e);

/* Replaces the messages by those of a file as --messages reads it; the other variables in it too.  false:
 * ERR_RUN, and nothing changes. */
bool messages_load(const char *path, Session *s, Err *e);

/* Writes such a file.  false: ERR_RUN. */
bool messages_save(const char *path, const Session *s, Err *e);

/* Sets the system prompt: n bytes. */
void messages_set_system(Session *s, const char *text, size_t n);

/* The role of message i from the end, "" if there is none. */
const char *messages_role(const Session *s, size_t from_end);

#endif
