/* utf8: decoding, checking, repairing and escaping UTF-8.
 *
 * Ill-formed bytes become U+FFFD as Unicode recommends: one for each longest prefix that could still have
 * become a character.  Overlong forms, surrogates and numbers beyond U+10FFFF are ill-formed.
 *
 * The one trick: an incomplete character (UTF8_CUT) and an impossible one (UTF8_BAD) are different results,
 * so that the same decoder serves a finished text and one that arrives in parts. */
#ifndef ZGEN_BASE_UTF8_H
#define ZGEN_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "buf.h"

enum {
    UTF8_BAD = 0x110000, // these bytes begin no character
    UTF8_CUT = 0x110001, // the text ends inside a character that more bytes could complete
};

/* Decodes the character at s, of n >= 1 bytes: *code_point is its code point or one of the above.  Returns
 * the number of bytes decoded, 1..4. */
size_t utf8_next(const char *s, size_t n, uint32_t *code_point);

/* The same, but returns 0 and leaves *code_point where s begins with no whole character. */
static inline size_t utf8_take(const char *s, size_t n, uint32_t *code_point) {
    uint32_t c;
    size_t length = utf8_next(s, n, &c);
    if (c >= UTF8_BAD) return 0;
    *code_point = c;
    return length;
}

/* Controls, formatting characters such as those that set the direction of text, separators of lines:
 * characters that a terminal obeys or does not show. */
bool utf8_is_invisible(uint32_t code_point);

/* Appends the 1 to 4 bytes of a code point. */
void utf8_add(uint32_t code_point, Buf *out);

bool utf8_is_valid(const char *s, size_t n);

/* Appends n bytes of s in a form for one line of a terminal: characters that are invisible or change the
 * direction of text become \n, \t, \x1b, \u{202e}, ill-formed bytes \xff, and each character of marks gets a
 * backslash. */
void utf8_escape(const char *s, size_t n, const char *marks, Buf *out);

/* The same for a text of several lines: newlines and tabs stay, and the joiners U+200C and U+200D. */
void utf8_show(const char *s, size_t n, Buf *out);

/* Text that arrives in parts: whole characters are passed on, an incomplete one is kept until its bytes
 * arrive. */
typedef struct Utf8Gate {
    char waiting[4];
    size_t n;          // bytes waiting, 0..3 between calls
    size_t n_replaced; // U+FFFD written so far in place of ill-formed bytes
} Utf8Gate;

void utf8_gate_push(Utf8Gate *g, const char *s, size_t n, Buf *out);
void utf8_gate_end(Utf8Gate *g, Buf *out); // an incomplete character becomes U+FFFD

#endif
