/* ids: parses token ids: "1,5,9", "1 5 9", "[1, 5, 9]". */
#ifndef ZGEN_CLI_IDS_H
#define ZGEN_CLI_IDS_H

#include "../text/tok.h"

/* Appends the ids in n bytes of text.  what names the text in messages.  false: ERR_USAGE for no id, for an
 * id of n_vocab or more, and for what is not a number. */
bool ids_parse(const char *text, size_t n, int n_vocab, const char *what, TokIds *out, Err *e);

#endif
