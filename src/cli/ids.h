/* ids: tokens as numbers that a user wrote: "1,5,9", "1 5 9", "[1, 5, 9]". */
#ifndef ZGEN_CLI_IDS_H
#define ZGEN_CLI_IDS_H

#include "../text/tok.h"

/* Appends the ids in n bytes of text, at least one, each below n_vocab.  false: ERR_USAGE, what names the
 * text. */
bool ids_parse(const char *text, size_t n, int n_vocab, const char *what, TokIds *out, Err *e);

#endif
