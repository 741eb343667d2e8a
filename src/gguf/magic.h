/* magic: the first bytes of a file: GGUF's magic and version, or those of another format, by name.
 *
 * Most files that are refused here are mistakes (an HTML page instead of a download, a git-lfs pointer
 * instead of the file, another program's format), so the error names the format and the remedy. */
#ifndef ZGEN_GGUF_MAGIC_H
#define ZGEN_GGUF_MAGIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "../base/err.h"

/* Checks magic and version of a file of n bytes.  false: ERR_MODEL with the format that the file has. */
bool magic_check(const uint8_t *data, size_t n, const char *label, int *version, Err *e);

/* Whether the bytes begin as an importance matrix from before GGUF. */
bool magic_is_imatrix(const uint8_t *data, size_t n);

/* What to do about a file that is not whole: `otherwise`, or another sentence where the name is that of a part
 * (model.gguf.part1of2, model.gguf-split-a), which some publishers cut large files into. */
const char *magic_remedy(const char *label, const char *otherwise);

#endif
