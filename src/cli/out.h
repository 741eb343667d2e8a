/* out: writes standard output, unbuffered and checked, byte for byte; on a terminal only what that shows.
 *
 * A terminal obeys control characters, and text of a model or a file may hold any: it is given printable
 * characters, newlines and tabs, and all others are escaped (utf8_show).
 *
 * All output of commands goes through here.  Bytes that a command has written have reached the reader, and a
 * full disk or a closed pipe is known before the exit code is chosen. */
#ifndef ZGEN_CLI_OUT_H
#define ZGEN_CLI_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include "../base/err.h"

/* To be called first: makes sure that no file opened later gets the number of a closed stdin, stdout or
 * stderr, and that a closed pipe or a file size limit is an error instead of a signal.  false: ERR_OUTPUT,
 * stdout is closed. */
bool out_open(Err *e);

/* Writes all n bytes.  false: ERR_OUTPUT with the reason, or ERR_PIPE without a text: the reader closed the
 * pipe. */
bool out_write(const void *bytes, size_t n, Err *e);

/* Writes text to a terminal in a dimmed style.  The style is set and reset in one write, so that the
 * program may be stopped between two. */
bool out_write_dim(const void *bytes, size_t n, Err *e);

/* Writes bytes as they are to any descriptor; name is for the message. */
bool out_write_to(int fd, const char *name, const void *bytes, size_t n, Err *e);

bool out_is_terminal(void);

/* Whether stdout is a terminal that obeys escape sequences, by the user's TERM. */
bool out_obeys_escapes(void);

/* To be called last: closes stdout; a network file system may report a full disk only then.  false:
 * ERR_OUTPUT. */
bool out_close(Err *e);

#endif
