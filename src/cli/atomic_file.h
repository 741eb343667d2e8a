/* atomic_file: an output file that appears under its name only when it is complete.
 *
 * The file is written without a name (O_TMPFILE) in the folder of its path and named at the end, so that
 * nothing is left whatever ends the process; where the file system has no such files, it is written under
 * a temporary name that every exit but SIGKILL removes.  Until it is complete an older file of this name is
 * unchanged; then that is replaced and its mode kept.  Behind a symbolic link its target is made or
 * replaced.  A path that is no regular file (a pipe, /dev/null) is written to directly.
 *
 * Refuses to replace a file that the process has read (base/inputs.h). */
#ifndef ZGEN_CLI_ATOMIC_FILE_H
#define ZGEN_CLI_ATOMIC_FILE_H

#include <stdbool.h>
#include "../base/err.h"

typedef struct AtomicFile {
    int fd;           // to write to; -1 when closed
    const char *name; // for messages; the caller's
    char *path;       // of the complete file
    bool is_unnamed;  // written without a name
    char *temporary;  // the name under which it is written; NULL: unnamed, or written directly to path
} AtomicFile;

/* path must outlive *f; all inputs have been opened before.  false: ERR_OUTPUT; ERR_USAGE for an input; *f
 * needs no close. */
bool atomic_file_open(AtomicFile *f, const char *path, Err *e);

/* With ok, brings the file to the disk and names it; else removes it.  Returns ok, with *e unchanged, or
 * false with ERR_OUTPUT if the file could not be completed. */
bool atomic_file_close(AtomicFile *f, bool ok, Err *e);

#endif
