/* unescape: see unescape.h. */
#include "unescape.h"
#include "../base/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { UNIT = 6 }; // characters of "\u1234"

/* The number of n hexadecimal digits behind a backslash and a letter, or -1. */
static long hex(const char *p, char letter, size_t n) {
    char digits[5] = {0};
    if (p[0] != '\\' || p[1] != letter) return -1;
    strncpy(digits, p + 2, n);
    return strspn(digits, "0123456789abcdefABCDEF") == n ? strtol(digits, NULL, 16) : -1;
}

/* Appends the character of the escape at p; returns its length, 0: there is none. */
static size_t add_character(const char *p, Buf *out) {
    long unit = hex(p, 'u', 4);
    if (unit < 0) return 0;
    bool is_surrogate = unit >= 0xD800 && unit < 0xE000;
    if (!is_surrogate) {
        utf8_add((uint32_t)unit, out);
        return UNIT;
    }
    long low = unit < 0xDC00 ? hex(p + UNIT, 'u', 4) : -1;
    if (low < 0xDC00 || low >= 0xE000) return 0;
    utf8_add((uint32_t)(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)), out);
    return 2 * UNIT;
}

/* Appends what the escape at p stands for; returns its length, 0: there is none. */
static size_t add_escape(const char *p, Buf *out) {
    static const char from[] = "nrt\\\"'", to[] = "\n\r\t\\\"'";
    const char *at = p[0] == '\\' && p[1] ? strchr(from, p[1]) : NULL;
    if (at) buf_add(out, &to[at - from], 1);
    if (at) return 2;
    long byte = hex(p, 'x', 2);
    if (byte < 0) return add_character(p, out);
    buf_add(out, &(char){(char)byte}, 1);
    return 4;
}

void unescape(const char *text, Buf *out) {
    while (*text) {
        size_t n = add_escape(text, out);
        if (n == 0) buf_add(out, text, 1);
        text += n ? n : 1;
    }
}
