/* show: foreign text on its way to a terminal or into JSON.
 *
 * A name inside a file may hold anything: broken UTF-8, control characters that drive a terminal, marks that
 * turn a line around, NULs.  JSON wants UTF-8, a terminal wants what can be seen. */
#ifndef ZGEN_CLI_SHOW_H
#define ZGEN_CLI_SHOW_H

#include <jansson.h>
#include "../text/tok.h"

/* A JSON string of n bytes; U+FFFD stands for what is not UTF-8. */
json_t *show_json(const char *s, size_t n);

/* What a token adds to a text, as JSON.  A token that is no whole character alone appears as the file spells
 * it
 * ("<0xE2>"). */
json_t *show_piece(const Tok *t, int id);

/* null for what is no number. */
json_t *show_number(double x);

/* Appends n bytes as utf8_escape does, for between single quotes. */
void show_escape(const char *s, size_t n, Buf *out);

/* Writes the value and a newline to stdout, and releases it. */
bool show_write(json_t *value, Err *e);

#endif
