/* err: see err.h.  The one trick: foreign text is escaped here, at the only door to stderr, so that no
 * caller has to remember it. */
#include "err.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* Length of the well-formed UTF-8 sequence at s (at most n bytes), 0 if there is none. */
static size_t utf8_length(const unsigned char *s, size_t n) {
    size_t len = s[0] < 0x80                   ? 1
                 : s[0] >= 0xC2 && s[0] < 0xE0 ? 2
                 : s[0] >= 0xE0 && s[0] < 0xF0 ? 3
                 : s[0] >= 0xF0 && s[0] < 0xF5 ? 4
                                               : 0;
    if (len == 0 || len > n) return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    return len;
}

static void escape(char *out, size_t size, const char *text) {
    size_t n = strlen(text), w = 0;
    for (size_t i = 0; i < n;) {
        const unsigned char *s = (const unsigned char *)text + i;
        size_t len = utf8_length(s, n - i);
        bool plain = len > 1 ? !(s[0] == 0xC2 && s[1] < 0xA0) : len == 1 && s[0] >= 0x20 && s[0] != 0x7F;
        if (plain) {
            if (w + len >= size) break;
            memcpy(out + w, s, len);
            w += len, i += len;
        } else {
            if (w + 5 > size) break;
            w += (size_t)snprintf(out + w, size - w, "\\x%02x", s[0]);
            i++;
        }
    }
    out[w] = 0;
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
