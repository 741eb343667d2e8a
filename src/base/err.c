/* err: see err.h.  Both functions escape the text themselves, so that callers pass foreign bytes as they
 * are. */
#include "err.h"
#include "utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Writes text to out, escaped, and cut between two characters to fit size bytes with the NUL. */
static void escape(char *out, size_t size, const char *text) {
    Buf shown = {0};
    utf8_escape(text, strlen(text), "", &shown);
    size_t n = shown.n < size ? shown.n : size - 1;
    while (n < shown.n && (shown.data[n] & 0xC0) == 0x80) n--;
    memcpy(out, shown.n ? shown.data : "", n);
    out[n] = 0;
    buf_free(&shown);
}

bool err_set(Err *e, int code, const char *format, ...) {
    char raw[sizeof e->text];
    va_list args;
    va_start(args, format);
    vsnprintf(raw, sizeof raw, format, args);
    va_end(args);
    e->code = code;
    escape(e->text, sizeof e->text, raw);
    return false;
}

void err_warn(const char *format, ...) {
    char raw[1000], text[1000];
    va_list args;
    va_start(args, format);
    vsnprintf(raw, sizeof raw, format, args);
    va_end(args);
    escape(text, sizeof text, raw);
    fprintf(stderr, "zgen: warning: %s\n", text);
}
