/* atomic_file: an output file that appears under its name only when it is complete.
 *
 * The file is written as a temporary file in the same folder, which is renamed at the end.  After a failure
 * or Ctrl-C the temporary file is removed and an older file of this name is unchanged.  An older file is
 * replaced and its mode kept; behind a symbolic link its target is replaced.  A path that is no regular file
 * (a pipe, /dev/null) is written to directly. */
#ifndef ZGEN_CLI_ATOMIC_FILE_H
#define ZGEN_CLI_ATOMIC_FILE_H

#include <stdbool.h>
#include "../base/err.h"

typedef struct AtomicFile {
    int fd;           // to write to; -1 when closed
    const char *name; // for messages; the caller's
    char *path;       // of the complete file
    char *temporary;  // where it is written; NULL: directly to path
} AtomicFile;

/* path must outlive *f.  false: ERR_OUTPUT, and *f needs no close. */
bool atomic_file_open(AtomicFile *f, const char *path, Err *e);

/* With ok, brings the file to the disk and renames it; else removes it.  Returns ok, with *e unchanged, or
 * false with ERR_OUTPUT if the file could not be completed. */
bool atomic_file_close(AtomicFile *f, bool ok, Err *e);

#endif
