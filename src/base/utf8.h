/* utf8: one character at a time, strictly (Unicode 15, table 3-7): no overlong forms, no surrogates, nothing
 * above U+10FFFF. */
#ifndef ZGEN_BASE_UTF8_H
#define ZGEN_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the well-formed sequence at s, of which n >= 1 bytes may be read, and its code point; 0 if there
 * is none. */
static inline size_t utf8_take(const char *s, size_t n, uint32_t *code) {
    static const uint32_t LEAST[5] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t *p = (const uint8_t *)s;
    size_t len = p[0] < 0x80 ? 1 : p[0] < 0xC0 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF8 ? 4 : 0;
    if (len == 0 || len > n) return 0;
    uint32_t c = len == 1 ? p[0] : p[0] & (0x7Fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xC0) != 0x80) return 0;
        c = c << 6 | (p[i] & 0x3F);
    }
    if (c < LEAST[len] || (c >= 0xD800 && c < 0xE000) || c > 0x10FFFF) return 0;
    *code = c;
    return len;
}

#endif
