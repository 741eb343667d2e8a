/* buf: a growing string of bytes.  Always NUL-terminated behind its n bytes, so that data can be handed to
 * C functions; may contain NULs itself.  Out of memory ends the process with one sentence (exit 4): a few
 * bytes of text that cannot be had leave nothing to go on with.  Big allocations go through arena.h. */
#ifndef ZGEN_BASE_BUF_H
#define ZGEN_BASE_BUF_H

#include <stddef.h>

typedef struct Buf {
    char *data; // NULL until the first byte
    size_t n, capacity;
} Buf;

void buf_add(Buf *b, const void *bytes, size_t n);
void buf_printf(Buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_clear(Buf *b); // keeps the memory
void buf_free(Buf *b);  // back to {0}

#endif
