/* prompt: reads the text for a model from -p, -f or standard input, byte by byte.
 *
 * Refused are more than one source, no source, and texts above 2 GiB. */
#ifndef ZGEN_CLI_PROMPT_H
#define ZGEN_CLI_PROMPT_H

#include "options.h"
#include "../base/buf.h"

/* Appends the prompt that the options name.  Escapes in -p are replaced unless --no-escape is given; with
 * chomp, one newline at the end of a file or of standard input is dropped.  false: ERR_USAGE for no prompt or
 * two; ERR_RUN for one that cannot be read or is too large; a signal's code. */
bool prompt_read(const Options *o, bool chomp, Buf *out, Err *e);

/* Appends a text of the command line, with escapes replaced if `escape`. */
void prompt_add(const char *text, bool escape, Buf *out);

/* Appends the bytes of the file at path; "-" is standard input.  what names the content in messages ("the
 * prompt").  Errors as above. */
bool prompt_read_file(const char *path, const char *what, Buf *out, Err *e);

#endif
