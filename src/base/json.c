/* json: see json.h. */
#include "json.h"
#include "utf8.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define UNKNOWN "\\ufffd"

enum { MARK_N = 3 + 16, ESCAPE_N = 6 }; // bytes of the mark and of "\u1234"

/* The begin of a string that is a number: chosen by each process, so that no text can have it. */
static const char *mark(void) {
    static char text[MARK_N + 1];
    if (text[0]) return text;
    uint64_t word;
    if (getrandom(&word, sizeof word, 0) < 0) word = (uintptr_t)text;
    snprintf(text, sizeof text, "\uFDD0%016" PRIx64, word);
    return text;
}

/* ---- numbers ---- */

static size_t digits(const char *s, size_t n, size_t from) {
    size_t i = from;
    while (i < n && s[i] >= '0' && s[i] <= '9') i++;
    return i - from;
}

/* The bytes of the number at s, 0: there is none; *is_real: it has a fraction or an exponent. */
static size_t number_length(const char *s, size_t n, bool *is_real) {
    size_t i = n && s[0] == '-';
    size_t whole = digits(s, n, i);
    *is_real = false;
    if (!whole || (whole > 1 && s[i] == '0')) return 0;
    i += whole;
    if (i < n && s[i] == '.') {
        size_t fraction = digits(s, n, i + 1);
        if (!fraction) return 0;
        i += 1 + fraction;
        *is_real = true;
    }
    if (i < n && (s[i] == 'e' || s[i] == 'E')) {
        i++;
        i += i < n && (s[i] == '+' || s[i] == '-');
        size_t exponent = digits(s, n, i);
        if (!exponent) return 0;
        i += exponent;
        *is_real = true;
    }
    return i;
}

static bool is_too_large(const char *s, size_t n, bool is_real) {
    Buf copy = {0};
    buf_add(&copy, s, n);
    bool is_large = isinf(strtod(copy.data, NULL));
    if (!is_real) {
        errno = 0;
        strtoll(copy.data, NULL, 10);
        is_large = errno == ERANGE;
    }
    buf_free(&copy);
    return is_large;
}

/* ---- reading ---- */

typedef struct Source { // text that is copied with changes
    const char *s;
    size_t n, i;
    size_t copied; // bytes of s that are in out or replaced
    Buf out;
} Source;

static void replace(Source *t, size_t n, const char *by) {
    buf_add(&t->out, t->s + t->copied, t->i - t->copied);
    buf_add(&t->out, by, strlen(by));
    t->i += n;
    t->copied = t->i;
}

/* The code unit of an escape "\u1234" at byte at, or -1. */
static long unit_at(const Source *t, size_t at) {
    if (at + ESCAPE_N > t->n || t->s[at] != '\\' || t->s[at + 1] != 'u') return -1;
    char hex[5] = {0};
    memcpy(hex, t->s + at + 2, 4);
    return strspn(hex, "0123456789abcdefABCDEF") == 4 ? strtol(hex, NULL, 16) : -1;
}

static void copy_escape(Source *t) {
    long unit = unit_at(t, t->i), next = unit_at(t, t->i + ESCAPE_N);
    bool is_high = unit >= 0xD800 && unit < 0xDC00, is_low = unit >= 0xDC00 && unit < 0xE000;
    if (is_high && next >= 0xDC00 && next < 0xE000)
        t->i += 2 * ESCAPE_N;
    else if (is_high || is_low)
        replace(t, ESCAPE_N, UNKNOWN);
    else
        t->i += t->n - t->i < 2 ? 1 : 2;
}

static void copy_string(Source *t) {
    t->i++;
    while (t->i < t->n && t->s[t->i] != '"') {
        if (t->s[t->i] == '\\')
            copy_escape(t);
        else
            t->i++;
    }
    t->i++;
}

static void copy_number(Source *t) {
    bool is_real;
    const char *s = t->s + t->i;
    size_t n = number_length(s, t->n - t->i, &is_real);
    if (n && is_too_large(s, n, is_real)) {
        replace(t, 0, "\"");
        replace(t, 0, mark());
        t->i += n;
        replace(t, 0, "\"");
    } else {
        t->i += n ? n : 1;
    }
}

json_t *json_read(const char *text, size_t n, json_error_t *why) {
    Source t = {.s = text, .n = n};
    while (t.i < n) {
        if (text[t.i] == '"')
            copy_string(&t);
        else if (text[t.i] == '-' || digits(text, n, t.i))
            copy_number(&t);
        else
            t.i++;
    }
    t.i = n;
    if (t.copied) replace(&t, 0, "");
    json_t *value = t.copied ? json_loadb(t.out.data, t.out.n, JSON_ALLOW_NUL, why)
                             : json_loadb(n ? text : "", n, JSON_ALLOW_NUL, why);
    buf_free(&t.out);
    return value;
}

/* ---- the numbers that were kept ---- */

const char *json_number_text(const json_t *value) {
    const char *s = json_string_value(value);
    bool is_real;
    if (!s || strncmp(s, mark(), MARK_N) != 0) return NULL;
    size_t n = json_string_length(value) - MARK_N;
    return n && number_length(s + MARK_N, n, &is_real) == n ? s + MARK_N : NULL;
}

/* Appends n bytes of text that Jansson has written, with such numbers as numbers. */
static void add_numbers(const char *text, size_t n, Buf *out) {
    Source t = {.s = text, .n = n, .out = *out};
    while (t.i < n) {
        bool is_real;
        size_t digits_at = t.i + 1 + MARK_N, length = 0;
        if (digits_at < n && text[t.i] == '"' && memcmp(text + t.i + 1, mark(), MARK_N) == 0)
            length = number_length(text + digits_at, n - digits_at, &is_real);
        if (length && digits_at + length < n && text[digits_at + length] == '"') {
            replace(&t, 1 + MARK_N, "");
            t.i += length;
            replace(&t, 1, "");
        } else {
            t.i += text[t.i] == '\\' && n - t.i > 1 ? 2 : 1;
        }
    }
    replace(&t, 0, "");
    *out = t.out;
}

bool json_write(const json_t *value, size_t flags, Buf *out) {
    char *text = json_dumps(value, flags);
    if (text) add_numbers(text, strlen(text), out);
    bool ok = text != NULL;
    free(text);
    return ok;
}

/* ---- invisible characters ---- */

/* A surrogate pair beyond U+FFFF. */
static void add_escape(uint32_t c, Buf *out) {
    if (c > 0xFFFF) buf_printf(out, "\\u%04x", (unsigned)(0xD7C0 + (c >> 10)));
    buf_printf(out, "\\u%04x", (unsigned)(c > 0xFFFF ? 0xDC00 + (c & 0x3FF) : c));
}

/* All but the newlines between values are in strings. */
bool json_write_shown(const json_t *value, size_t flags, Buf *out) {
    Buf text = {0};
    bool ok = json_write(value, flags, &text);
    for (size_t i = 0, taken; i < text.n; i += taken) {
        uint32_t c;
        taken = utf8_next(text.data + i, text.n - i, &c);
        if (c != '\n' && utf8_is_invisible(c))
            add_escape(c, out);
        else
            buf_add(out, text.data + i, taken);
    }
    buf_free(&text);
    return ok;
}
