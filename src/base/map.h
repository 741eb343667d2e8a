/* map: a regular file as memory, read only.
 *
 * Refuses everything but regular files: reading a FIFO or a device may block or never end.  Where another
 * process shortens a mapped file, an access behind its new end raises SIGBUS; map installs one handler that,
 * for its own mappings, writes a sentence with the file's name to stderr and exits with ERR_MODEL. */
#ifndef ZGEN_BASE_MAP_H
#define ZGEN_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>
#include "err.h"

typedef struct Map {
    const uint8_t *data; // NULL when closed or empty
    size_t size;         // bytes
} Map;

/* Maps the file at path; what names the expected kind of file ("a GGUF file") in errors.  false: ERR_MODEL,
 * or ERR_MEMORY where the address space is full, with a sentence that names path and reason. */
bool map_open(const char *path, const char *what, Map *out, Err *e);
void map_close(Map *m); // back to {0}

#endif
