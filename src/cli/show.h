/* show: text from files and models, made safe for a terminal and for JSON.
 *
 * Such text may hold broken UTF-8, control characters that drive a terminal, marks that reverse the direction
 * of a line, NULs.  JSON needs UTF-8, a terminal needs visible characters. */
#ifndef ZGEN_CLI_SHOW_H
#define ZGEN_CLI_SHOW_H

#include <jansson.h>
#include "../text/tok.h"

/* To be called first: JSON values take their memory from mem_resize, so that none is made with parts
 * missing. */
void show_open(void);

/* A JSON string of n bytes; U+FFFD replaces what is not UTF-8. */
json_t *show_json(const char *s, size_t n);

/* A JSON string of the text that a token adds.  A token that is only a part of a character appears in the
 * spelling of the file ("<0xE2>"). */
json_t *show_piece(const Tok *t, int id);

/* The bytes of this text as a JSON array of numbers, which tell parts of a character from letters. */
json_t *show_bytes(const Tok *t, int id);

/* A JSON number, or null for NAN and infinity. */
json_t *show_number(double x);

/* Appends n bytes as utf8_escape does, for use between single quotes. */
void show_escape(const char *s, size_t n, Buf *out);

/* Appends the value as JSON, in which invisible characters are escaped.  false: ERR_MEMORY. */
bool show_dump(const json_t *value, Buf *out, Err *e);

/* Prints the value and a newline to stdout, and releases it.  false: ERR_OUTPUT, ERR_PIPE, ERR_MEMORY. */
bool show_write(json_t *value, Err *e);

#endif
