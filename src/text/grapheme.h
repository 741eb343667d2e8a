/* grapheme: what a reader takes for one character: a grapheme cluster of Unicode (UAX 29).
 *
 * A letter with its accents, a syllable of Hangul, an emoji made of several are one, though they have many
 * code points.  The rules are PCRE2's \X. */
#ifndef ZGEN_TEXT_GRAPHEME_H
#define ZGEN_TEXT_GRAPHEME_H

#include <stddef.h>

typedef struct Graphemes Graphemes; // the compiled rules

Graphemes *graphemes_open(void); // NULL: there is not enough memory
void graphemes_close(Graphemes *g);

/* Bytes of the cluster at the beginning of n >= 1 bytes of well-formed UTF-8. */
size_t graphemes_next(const Graphemes *g, const char *s, size_t n);

#endif
