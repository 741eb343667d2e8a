/* prompt: reads the text for a model from -p, -f, -bf or standard input, byte by byte.
 *
 * A byte order mark of UTF-8 is not part of a text.  Refused are more than one source, no source, texts above
 * 2 GiB, and those that a mark says to be in UTF-16 or UTF-32. */
#ifndef ZGEN_CLI_PROMPT_H
#define ZGEN_CLI_PROMPT_H

#include "options.h"
#include "../base/buf.h"

/* Appends the prompt that the options name.  Escapes in -p are replaced unless --no-escape is given; with
 * by_lines, a file or standard input is treated by prompt_unify_lines.  false: ERR_USAGE for no prompt or
 * two; ERR_RUN for one that cannot be read or is too large; a signal's code. */
bool prompt_read(const Options *o, bool by_lines, Buf *out, Err *e);

/* Appends a text of the command line, with escapes replaced if `escape`. */
void prompt_add(const char *text, bool escape, Buf *out);

/* CR LF becomes LF, and one LF at the end is dropped. */
void prompt_unify_lines(Buf *text);

/* Replaces *out by the bytes of the file at path; "-" is standard input.  what names the content in
 * messages ("the prompt").  Errors as above. */
bool prompt_read_file(const char *path, const char *what, Buf *out, Err *e);

/* The same with all bytes, a mark too. */
bool prompt_read_bytes(const char *path, const char *what, Buf *out, Err *e);

/* Whether an option names the prompt. */
bool prompt_given(const Options *o);

#endif
