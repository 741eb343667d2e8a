/* buf: a growing string of bytes.
 *
 * A NUL follows the n bytes, so that data can be handed to C functions; the bytes may contain NULs
 * themselves. Memory comes from mem_resize, which ends the process when there is none: a Buf holds text and
 * tables, and large blocks come from mem_try. */
#ifndef ZGEN_BASE_BUF_H
#define ZGEN_BASE_BUF_H

#include <stddef.h>

typedef struct Buf {
    char *data; // NULL until the first byte
    size_t n, capacity;
} Buf;

void buf_add(Buf *b, const void *bytes, size_t n); // appends, as does
void buf_printf(Buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_clear(Buf *b); // keeps the memory
void buf_free(Buf *b);  // back to {0}

#endif
