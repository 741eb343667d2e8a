/* nfc: the composed form of a text (Unicode's normalization form C).
 *
 * An accented letter may be written as one character or as a letter and marks.  Some makers of tokenizers
 * compose a text before they cut it into words, so that both spellings have the same tokens. */
#ifndef ZGEN_TEXT_NFC_H
#define ZGEN_TEXT_NFC_H

#include <stdbool.h>
#include <stddef.h>
#include "../base/buf.h"

/* Replaces *out by the composed form of n bytes of well-formed UTF-8.  Time is proportional to n log n, also
 * for a million marks on one letter.  false: nothing in the text can change, and *out is unchanged. */
bool nfc_compose(const char *text, size_t n, Buf *out);

#endif
