/* magic: is this a GGUF file at all, and if not, what did the user get instead?
 *
 * It owns the first bytes of a file.  Most files that fail here are honest mistakes (a page instead of a
 * download, a pointer instead of the file, another program's format), so each is called by its name. */
#ifndef ZGEN_GGUF_MAGIC_H
#define ZGEN_GGUF_MAGIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "../base/err.h"

/* Checks the magic and the version of the n bytes of a file.  false: ERR_MODEL, saying what the file is. */
bool magic_check(const uint8_t *data, size_t n, const char *label, int *version, Err *e);

#endif
