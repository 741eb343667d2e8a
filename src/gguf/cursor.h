/* cursor: the only thing that reads a header.
 *
 * It owns a position between the first byte and a limit, and refuses every step that would leave them: a
 * length from the file is compared with the bytes left before it is used for anything.  The one trick: it
 * carries the subject of the sentence ("key 'general.name'"), so that a refusal deep inside a value still
 * says where.
 *
 * Numbers are copied out byte by byte: nothing in a GGUF header is aligned. */
#ifndef ZGEN_GGUF_CURSOR_H
#define ZGEN_GGUF_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "../base/err.h"
#include "gguf_string.h"

typedef struct Cursor {
    const uint8_t *data;
    size_t size, at; // bytes; at <= size
    const char *label;
    Err *err;       // where refusals go
    char where[96]; // subject of a refusal; cursor_in sets it
} Cursor;

/* What the cursor reads next: "key 3", "tensor 'output.weight'". */
void cursor_in(Cursor *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Sets "LABEL: WHERE MESSAGE; the file is damaged, ..." with ERR_MODEL and returns false. */
bool cursor_refuse(Cursor *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline size_t cursor_left(const Cursor *c) {
    return c->size - c->at;
}

/* Steps over n bytes and returns where they begin; NULL (and a refusal) if fewer are left. */
const uint8_t *cursor_take(Cursor *c, uint64_t n);

bool cursor_u32(Cursor *c, uint32_t *out);
bool cursor_u64(Cursor *c, uint64_t *out);

/* A 64-bit length and as many bytes, at most max; the string points into the data. */
bool cursor_string(Cursor *c, uint64_t max, GgufString *out);

#endif
