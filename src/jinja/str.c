/* str: strings of marked characters: conversion, comparison, search, parts, building.
 *
 * A part shares the memory of its string, as strings never change.  Comparisons ignore the marks; copies keep
 * them, as the mark is a bit of the character. */
#include "value.h"
#include "../base/utf8.h"

#include <string.h>

/* ---- From and to bytes ---- */

Str js_utf8(Jinja *j, const char *bytes, size_t n, Char mark) {
    Char *c = jinja_alloc(j, n, sizeof *c);
    size_t w = 0;
    jinja_spend(j, n / 64);
    for (size_t i = 0; i < n;) {
        uint32_t code;
        i += utf8_next(bytes + i, n - i, &code);
        c[w++] = (code < UTF8_BAD ? code : 0xFFFD) | mark;
    }
    if (w > JINJA_TEXT_MAX) jinja_fail(j, ERR_MODEL, "a text is longer than %d characters", JINJA_TEXT_MAX);
    return (Str){c, w};
}

Str js_ascii(Jinja *j, const char *s) {
    return js_utf8(j, s, strlen(s), 0);
}

size_t js_put_utf8(Char c, char bytes[4]) {
    uint32_t u = char_code(c);
    if (u < 0x80) {
        bytes[0] = (char)u;
        return 1;
    }
    size_t length = u < 0x800 ? 2 : u < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, u >>= 6) bytes[i] = (char)(0x80 | (u & 0x3F));
    bytes[0] = (char)((length == 2 ? 0xC0 : length == 3 ? 0xE0 : 0xF0) | u);
    return length;
}

/* ---- Comparing and searching ---- */

static bool same(Char a, Char b) {
    return char_code(a) == char_code(b);
}

static bool same_run(const Char *a, const Char *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!same(a[i], b[i])) return false;
    return true;
}

bool js_equal(Str a, Str b) {
    return a.n == b.n && same_run(a.c, b.c, a.n);
}

bool js_is(Str s, const char *ascii) {
    size_t i = 0;
    for (; i < s.n && ascii[i]; i++)
        if (char_code(s.c[i]) != (unsigned char)ascii[i]) return false;
    return i == s.n && !ascii[i];
}

int js_compare(Str a, Str b) {
    for (size_t i = 0; i < a.n && i < b.n; i++)
        if (!same(a.c[i], b.c[i])) return char_code(a.c[i]) < char_code(b.c[i]) ? -1 : 1;
    return a.n < b.n ? -1 : a.n > b.n;
}

Str js_part(Str s, size_t from, size_t to) {
    if (to > s.n) to = s.n;
    if (from >= to) return (Str){0};
    return (Str){s.c + from, to - from};
}

bool js_starts(Str s, Str with) {
    return s.n >= with.n && same_run(s.c, with.c, with.n);
}

bool js_ends(Str s, Str with) {
    return s.n >= with.n && js_equal(js_part(s, s.n - with.n, s.n), with);
}

/* Whether `what` is at index i of s.  A search in repetitive text takes n * m comparisons, so they are
 * counted in *work, which is spent from time to time. */
static bool is_at(Jinja *j, Str s, Str what, size_t i, size_t *work) {
    size_t k = 0;
    while (k < what.n && same(s.c[i + k], what.c[k])) k++;
    if ((*work += k + 1) >= 4096) {
        jinja_spend(j, *work / 64);
        *work = 0;
    }
    return k == what.n;
}

size_t js_find(Jinja *j, Str s, Str what, size_t from) {
    size_t work = 0;
    for (size_t i = from; i <= s.n && what.n <= s.n - i; i++)
        if (is_at(j, s, what, i, &work)) return i;
    jinja_spend(j, work / 64);
    return JS_NOWHERE;
}

size_t js_find_last(Jinja *j, Str s, Str what) {
    size_t work = 0;
    if (what.n > s.n) return JS_NOWHERE;
    for (size_t i = s.n - what.n + 1; i-- > 0;)
        if (is_at(j, s, what, i, &work)) return i;
    jinja_spend(j, work / 64);
    return JS_NOWHERE;
}

size_t js_line(Str s, size_t from, size_t *next) {
    size_t end = from;
    while (end < s.n && !char_ends_line(s.c[end])) end++;
    *next = end + (end < s.n);
    if (*next < s.n && char_code(s.c[end]) == '\r' && char_code(s.c[*next]) == '\n') ++*next;
    return end;
}

static bool to_trim(Jinja *j, Char c, const Str *chars) {
    if (!chars) return char_is_space(c);
    jinja_spend(j, chars->n / 64);
    for (size_t i = 0; i < chars->n; i++)
        if (same(c, chars->c[i])) return true;
    return false;
}

Str js_trim(Jinja *j, Str s, const Str *chars, bool left, bool right) {
    while (left && s.n && to_trim(j, s.c[0], chars)) s = js_part(s, 1, s.n);
    while (right && s.n && to_trim(j, s.c[s.n - 1], chars)) s.n--;
    return s;
}

Str js_replace(Jinja *j, Str s, Str old, Str with, int64_t most) {
    Text t = {0};
    size_t from = 0, search = 0;
    for (; most != 0; most -= most > 0) {
        size_t at = js_find(j, s, old, search);
        if (at == JS_NOWHERE) break;
        js_add(j, &t, js_part(s, from, at));
        js_add(j, &t, with);
        from = at + old.n;
        search = old.n ? from : at + 1; // an empty text is found before each character and at the end
    }
    if (!from && !t.n) return s;
    js_add(j, &t, js_part(s, from, s.n));
    return js_text(&t);
}

/* Memory for the n characters of a new string. */
static Char *new_chars(Jinja *j, size_t n) {
    if (n > JINJA_TEXT_MAX) jinja_fail(j, ERR_MODEL, "a text grows beyond %d characters", JINJA_TEXT_MAX);
    jinja_spend(j, n / 64);
    return jinja_alloc(j, n, sizeof(Char));
}

Str js_joined(Jinja *j, Str a, Str b) {
    if (!a.n || !b.n) return a.n ? a : b;
    Char *c = new_chars(j, a.n + b.n);
    memcpy(c, a.c, a.n * sizeof *c);
    memcpy(c + a.n, b.c, b.n * sizeof *c);
    return (Str){c, a.n + b.n};
}

Str js_repeated(Jinja *j, Str s, size_t times) {
    size_t n = s.n && times > JINJA_TEXT_MAX / s.n ? JINJA_TEXT_MAX + 1 : s.n * times;
    Char *c = new_chars(j, n);
    for (size_t i = 0; i < n; i++) c[i] = s.c[i % s.n];
    return (Str){c, n};
}

/* ---- Building ---- */

static Char *reserve(Jinja *j, Text *t, size_t more) {
    if (more > JINJA_TEXT_MAX - t->n)
        jinja_fail(j, ERR_MODEL, "a text grows beyond %d characters", JINJA_TEXT_MAX);
    if (t->n + more > t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 32;
        if (capacity < t->n + more) capacity = t->n + more;
        Char *c = jinja_alloc(j, capacity, sizeof *c);
        if (t->n) memcpy(c, t->c, t->n * sizeof *c);
        t->c = c;
        t->capacity = capacity;
    }
    return t->c + t->n;
}

void js_add(Jinja *j, Text *t, Str s) {
    if (!s.n) return;
    jinja_spend(j, s.n / 64);
    memcpy(reserve(j, t, s.n), s.c, s.n * sizeof *s.c);
    t->n += s.n;
}

void js_add_char(Jinja *j, Text *t, Char c) {
    *reserve(j, t, 1) = c;
    t->n++;
}

void js_add_times(Jinja *j, Text *t, Char c, size_t n) {
    if (!n) return;
    Char *to = reserve(j, t, n);
    jinja_spend(j, n / 64);
    for (size_t i = 0; i < n; i++) to[i] = c;
    t->n += n;
}

void js_add_ascii(Jinja *j, Text *t, const char *s) {
    for (; *s; s++) js_add_char(j, t, (unsigned char)*s);
}

Str js_text(const Text *t) {
    return (Str){t->c, t->n};
}

Str js_padded(Jinja *j, Str s, int64_t width, Char fill, Side side) {
    size_t pad = width > (int64_t)s.n ? (size_t)width - s.n : 0;
    size_t middle = pad / 2 + (pad & (size_t)width & 1); // an odd one goes where Python's center has it
    size_t before = side == LEFT ? 0 : side == RIGHT ? pad : middle;
    Text t = {0};
    js_add_times(j, &t, fill, before);
    js_add(j, &t, s);
    js_add_times(j, &t, fill, pad - before);
    return js_text(&t);
}
