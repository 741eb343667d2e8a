/* saved: a conversation as a file: a JSON object with "messages", an array of messages, and other variables
 * of the chat template.
 *
 * All of a file comes back as it was, to the last digit of its numbers; what is written has no invisible
 * characters. */
#ifndef ZGEN_TEXT_SAVED_H
#define ZGEN_TEXT_SAVED_H

#include <jansson.h>
#include "../base/buf.h"
#include "../base/err.h"

/* The object of n bytes of a file of that name.  NULL: ERR_RUN, it is not JSON, or no conversation. */
json_t *saved_read(const char *text, size_t n, const char *name, Err *e);

/* Appends such a file. */
void saved_write(const json_t *conversation, Buf *out);

#endif
