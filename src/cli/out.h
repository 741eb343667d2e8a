/* out: standard output, written at once and checked.
 *
 * Nothing is buffered and nothing is printed by another door, so that what a command has said is what the
 * reader has, and a full disk or a closed pipe is known before the exit code is. */
#ifndef ZGEN_CLI_OUT_H
#define ZGEN_CLI_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include "../base/err.h"

/* To be called first: makes sure that no file opened later becomes stdin, stdout or stderr by accident, and
 * that a closed pipe or a file size limit is an error and not a death.  false: ERR_OUTPUT, stdout is closed.
 */
bool out_open(Err *e);

/* Writes all n bytes.  false: ERR_OUTPUT with the reason, or ERR_PIPE without a text: the reader went away.
 */
bool out_write(const void *bytes, size_t n, Err *e);

/* The same to any descriptor; name is for the message. */
bool out_write_to(int fd, const char *name, const void *bytes, size_t n, Err *e);

bool out_is_terminal(void);

/* To be called last: closes stdout, which is where a remote disk says that it is full. */
bool out_close(Err *e);

#endif
