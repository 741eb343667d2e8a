/* draft: a file that takes its name when it is whole.
 *
 * It is written beside the place where it will stand, under a name of its own, and moved there at the end; a
 * failure, Ctrl-C included, leaves what was there before and nothing else.  A file in the way is replaced and
 * its mode kept; behind a symbolic link the file is replaced, not the link.  What is no regular file (a pipe,
 * /dev/null) is written to at once. */
#ifndef ZGEN_CLI_DRAFT_H
#define ZGEN_CLI_DRAFT_H

#include <stdbool.h>
#include "../base/err.h"

typedef struct Draft {
    int fd;           // to write to; -1 when closed
    const char *name; // for messages; the caller's
    char *path;       // where it ends up
    char *temporary;  // where it is until then; NULL: at once in path
} Draft;

/* path outlives the draft.  false: ERR_OUTPUT, and there is nothing to close. */
bool draft_open(Draft *d, const char *path, Err *e);

/* Ends it: with ok the file reaches the disk and takes its name, else it goes.  false: !ok, with *e as it is;
 * or ERR_OUTPUT, it could not be completed. */
bool draft_close(Draft *d, bool ok, Err *e);

#endif
