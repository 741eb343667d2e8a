/* cursor: see cursor.h. */
#include "cursor.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void cursor_in(Cursor *c, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(c->where, sizeof c->where, format, args);
    va_end(args);
}

bool cursor_refuse(Cursor *c, const char *format, ...) {
    char what[300];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return err_set(c->err, ERR_MODEL, "%.300s: %s %s; the file is damaged, download or convert it again",
                   c->label, c->where, what);
}

const uint8_t *cursor_take(Cursor *c, uint64_t n) {
    if (n > cursor_left(c)) {
        cursor_refuse(c, "needs %" PRIu64 " bytes where the file of %zu has only %zu left", n, c->size,
                      cursor_left(c));
        return NULL;
    }
    const uint8_t *p = c->data + c->at;
    c->at += (size_t)n;
    return p;
}

bool cursor_u32(Cursor *c, uint32_t *out) {
    const uint8_t *p = cursor_take(c, sizeof *out);
    if (p) memcpy(out, p, sizeof *out);
    return p != NULL;
}

bool cursor_u64(Cursor *c, uint64_t *out) {
    const uint8_t *p = cursor_take(c, sizeof *out);
    if (p) memcpy(out, p, sizeof *out);
    return p != NULL;
}

bool cursor_string(Cursor *c, uint64_t max, GgufString *out) {
    uint64_t n;
    if (!cursor_u64(c, &n)) return false;
    if (n > max && n <= cursor_left(c))
        return cursor_refuse(c, "holds a string of %" PRIu64 " bytes, more than the %" PRIu64 " allowed", n,
                             max);
    const uint8_t *p = cursor_take(c, n);
    if (!p) return false;
    *out = (GgufString){(const char *)p, (size_t)n};
    return true;
}
