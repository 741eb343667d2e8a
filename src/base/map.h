/* map: a regular file as memory, read only.
 *
 * Refuses everything that is not a regular file (a directory, FIFO or device never ends or never comes).
 * A mapped file that somebody shortens raises SIGBUS on the next touch; map installs a handler once that
 * turns this, for its own mappings, into one sentence on stderr naming the file and exit 3. */
#ifndef ZGEN_BASE_MAP_H
#define ZGEN_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>
#include "err.h"

typedef struct Map {
    const uint8_t *data; // NULL when closed or empty
    size_t size;         // bytes
} Map;

/* Maps the file at path; what says what is wanted there ("a GGUF file").  false: ERR_MODEL with a sentence
 * that names the path and the reason. */
bool map_open(const char *path, const char *what, Map *out, Err *e);
void map_close(Map *m);

#endif
