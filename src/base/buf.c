/* buf: see buf.h. */
#include "buf.h"
#include "mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void reserve(Buf *b, size_t more) {
    if (b->n + more + 1 <= b->capacity) return;
    size_t capacity = b->capacity ? b->capacity * 2 : 64;
    while (capacity < b->n + more + 1) capacity *= 2;
    b->data = mem_resize(b->data, capacity);
    b->capacity = capacity;
}

void buf_add(Buf *b, const void *bytes, size_t n) {
    reserve(b, n);
    if (n) memcpy(b->data + b->n, bytes, n);
    b->n += n;
    b->data[b->n] = 0;
}

void buf_printf(Buf *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    reserve(b, (size_t)n);
    va_start(args, format);
    vsnprintf(b->data + b->n, (size_t)n + 1, format, args);
    va_end(args);
    b->n += (size_t)n;
}

void buf_clear(Buf *b) {
    b->n = 0;
    if (b->data) b->data[0] = 0;
}

void buf_free(Buf *b) {
    free(b->data);
    *b = (Buf){0};
}
