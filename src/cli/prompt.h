/* prompt: where the text for a model comes from: -p, -f or standard input, always whole and byte by byte.
 *
 * It refuses two sources at once, none at all, and texts that no context could hold. */
#ifndef ZGEN_CLI_PROMPT_H
#define ZGEN_CLI_PROMPT_H

#include "options.h"
#include "../base/buf.h"

/* Appends the prompt that the options name.  Escapes in -p are processed unless --no-escape; with chomp, one
 * newline at the end of a file or stdin is dropped.  false: ERR_USAGE (no prompt to be had, or two), ERR_RUN
 * (unreadable, or larger than 2 GiB), or a signal's code. */
bool prompt_read(const Options *o, bool chomp, Buf *out, Err *e);

/* Appends a text from the command line, its escapes processed unless --no-escape. */
void prompt_add(const Options *o, const char *text, Buf *out);

/* Appends the bytes of the file at path; "-" is stdin.  what names it in messages ("the prompt").  Errors as
 * above. */
bool prompt_read_file(const char *path, const char *what, Buf *out, Err *e);

#endif
