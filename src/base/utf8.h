/* utf8: the encoding, and what to do where bytes are not in it.
 *
 * Owns decoding one sequence, checking a text, repairing one, and showing one to a terminal.  Ill-formed
 * bytes become U+FFFD the way browsers and Unicode recommend: one for each longest prefix that could still
 * have become a character. Overlong forms, surrogates and numbers beyond U+10FFFF are ill-formed.
 *
 * The one trick: "not yet" (UTF8_CUT) and "never" (UTF8_BAD) are told apart, so that the same decoder serves
 * a finished text and one that arrives in pieces. */
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

/* The character at s, of n >= 1 bytes: its code point or one of the above.  Returns the bytes it takes, 1..4.
 */
size_t utf8_next(const char *s, size_t n, uint32_t *code_point);

/* The same for who does not ask why: 0 bytes where there is no whole character. */
static inline size_t utf8_take(const char *s, size_t n, uint32_t *code_point) {
    uint32_t c;
    size_t length = utf8_next(s, n, &c);
    if (c >= UTF8_BAD) return 0;
    *code_point = c;
    return length;
}

bool utf8_is_valid(const char *s, size_t n);

/* Appends n bytes as they can be shown on one line: what prints nothing or turns the line around becomes \n,
 * \t, \x1b, \u{202e}, a byte of no character \xff, and each of marks gets a backslash. */
void utf8_escape(const char *s, size_t n, const char *marks, Buf *out);

/* Text that arrives in pieces: whole characters pass through, the beginning of one waits for its end. */
typedef struct Utf8Gate {
    char waiting[4];
    size_t n;          // bytes waiting, 0..3 between calls
    size_t n_replaced; // U+FFFD written so far in place of ill-formed bytes
} Utf8Gate;

void utf8_gate_push(Utf8Gate *g, const char *s, size_t n, Buf *out);
void utf8_gate_end(Utf8Gate *g, Buf *out); // what still waits will not be completed: U+FFFD

#endif
