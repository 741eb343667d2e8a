/* cursor: bounded reading of a header.
 *
 * A cursor owns a position between the first byte and a limit, and refuses every step beyond: a length from
 * the file is compared with the bytes left before it is used.  The one trick: the cursor carries the subject
 * of the sentence ("key 'general.name'"), so that an error deep inside a value names its position.
 *
 * Numbers are copied out of unaligned bytes: GGUF does not align its header. */
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
    Err *err;       // of a refusal
    char where[96]; // its subject; cursor_in sets it
} Cursor;

/* Names what is read next: "key 3", "tensor 'output.weight'". */
void cursor_in(Cursor *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Sets "LABEL: WHERE MESSAGE; the file is damaged, ..." with ERR_MODEL and returns false. */
bool cursor_refuse(Cursor *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline size_t cursor_left(const Cursor *c) {
    return c->size - c->at;
}

/* Steps over n bytes and returns their begin; NULL, after a refusal, if fewer are left. */
const uint8_t *cursor_take(Cursor *c, uint64_t n);

bool cursor_u32(Cursor *c, uint32_t *out);
bool cursor_u64(Cursor *c, uint64_t *out);

/* Reads a 64-bit length, at most max, and as many bytes; the string points into the data. */
bool cursor_string(Cursor *c, uint64_t max, GgufString *out);

#endif
