/* utf8: see utf8.h. */
#include "utf8.h"

#include <inttypes.h>
#include <string.h>

size_t utf8_next(const char *s, size_t n, uint32_t *code_point) {
    const unsigned char *b = (const unsigned char *)s;
    if (b[0] < 0x80) {
        *code_point = b[0];
        return 1;
    }

    *code_point = UTF8_BAD;
    if (b[0] < 0xC2 || b[0] > 0xF4) return 1;
    size_t length = b[0] < 0xE0 ? 2 : b[0] < 0xF0 ? 3 : 4;
    /* The range of the second byte excludes overlong forms, surrogates and numbers beyond U+10FFFF. */
    unsigned low = b[0] == 0xE0 ? 0xA0 : b[0] == 0xF0 ? 0x90 : 0x80;
    unsigned high = b[0] == 0xED ? 0x9F : b[0] == 0xF4 ? 0x8F : 0xBF;
    uint32_t c = b[0] & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++, low = 0x80, high = 0xBF) {
        if (i == n) {
            *code_point = UTF8_CUT;
            return i;
        }
        if (b[i] < low || b[i] > high) return i;
        c = c << 6 | (b[i] & 0x3F);
    }
    *code_point = c;
    return length;
}

void utf8_add(uint32_t c, Buf *out) {
    static const unsigned char heads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    char bytes[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; c >>= 6) bytes[i] = (char)(0x80 | (c & 0x3F));
    bytes[0] = (char)(heads[n] | c);
    buf_add(out, bytes, n);
}

bool utf8_is_valid(const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        uint32_t c;
        uint64_t eight;
        if (n - i >= sizeof eight && memcpy(&eight, s + i, sizeof eight) && !(eight & 0x8080808080808080)) {
            i += sizeof eight; // ASCII
            continue;
        }
        i += utf8_next(s + i, n - i, &c);
        if (c >= UTF8_BAD) return false;
    }
    return true;
}

/* Neither a table of the C library, which depends on the locale, nor all of the category Cf, of which some are
 * seen in Arabic text. */
bool utf8_is_invisible(uint32_t c) {
    static const uint32_t RANGES[][2] = {
        {0, 0x1F},          {0x7F, 0x9F},       {0xAD, 0xAD},       {0x61C, 0x61C},   {0x180E, 0x180E},
        {0x200B, 0x200F},   {0x2028, 0x202E},   {0x2060, 0x206F},   {0xFEFF, 0xFEFF}, {0xFFF9, 0xFFFB},
        {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A}, {0xE0000, 0xE0FFF},
    };
    if (c >= 0x20 && c < 0x7F) return false;
    size_t i = 0, n = sizeof RANGES / sizeof *RANGES;
    while (i < n && c > RANGES[i][1]) i++;
    return i < n && c >= RANGES[i][0];
}

static void add_escaped(const char *s, size_t n, uint32_t c, Buf *out) {
    if (c == UTF8_BAD || c == UTF8_CUT)
        for (size_t k = 0; k < n; k++) buf_printf(out, "\\x%02x", (uint8_t)s[k]);
    else if (c == '\n' || c == '\t')
        buf_printf(out, "\\%c", c == '\n' ? 'n' : 't');
    else if (utf8_is_invisible(c))
        buf_printf(out, c < 0x80 ? "\\x%02" PRIx32 : "\\u{%" PRIx32 "}", c);
    else
        buf_printf(out, "\\%c", (int)c);
}

/* Characters that stay where a text may have several lines: the joiners shape the letters of many scripts and
 * make one emoji of several. */
static bool is_layout(uint32_t c) {
    return c == '\n' || c == '\t' || c == 0x200C || c == 0x200D;
}

static void escape(const char *s, size_t n, const char *marks, bool keeps_layout, Buf *out) {
    size_t done = 0;
    for (size_t i = 0, taken; i < n; i += taken) {
        uint32_t c;
        taken = utf8_next(s + i, n - i, &c);
        bool is_shown = !utf8_is_invisible(c) || (keeps_layout && is_layout(c));
        if (c < UTF8_BAD && is_shown && !(c < 0x80 && strchr(marks, (int)c))) continue;
        buf_add(out, s + done, i - done);
        done = i + taken;
        add_escaped(s + i, taken, c, out);
    }
    buf_add(out, s + done, n - done);
}

void utf8_escape(const char *s, size_t n, const char *marks, Buf *out) {
    escape(s, n, marks, false, out);
}

void utf8_show(const char *s, size_t n, Buf *out) {
    escape(s, n, "", true, out);
}

static void replace(Utf8Gate *g, Buf *out) {
    buf_add(out, "\xEF\xBF\xBD", 3);
    g->n_replaced++;
}

void utf8_gate_push(Utf8Gate *g, const char *s, size_t n, Buf *out) {
    for (size_t i = 0; i < n; i++) {
        g->waiting[g->n++] = s[i];
        while (g->n) {
            uint32_t c;
            size_t length = utf8_next(g->waiting, g->n, &c);
            if (c == UTF8_CUT) break;
            if (c == UTF8_BAD)
                replace(g, out);
            else
                buf_add(out, g->waiting, length);
            memmove(g->waiting, g->waiting + length, g->n -= length);
        }
    }
}

void utf8_gate_end(Utf8Gate *g, Buf *out) {
    if (g->n) replace(g, out);
    g->n = 0;
}
