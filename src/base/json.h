/* json: JSON text as people and programs write it.
 *
 * Jansson reads it, and is stricter than others in two ways.  An integer beyond 64 bits or a real beyond a
 * double is an error there; here it is kept as it is written, because a tool's schema may hold one and is only
 * printed again.  Half of a surrogate pair is an error there; here it is U+FFFD.
 *
 * The one trick: such a number becomes a string that begins with a mark, which each process chooses at random:
 * no file and no user can write a text that counts as a number. */
#ifndef ZGEN_BASE_JSON_H
#define ZGEN_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include "buf.h"

/* NULL: *why has the place and the reason.  NULs in strings are allowed. */
json_t *json_read(const char *text, size_t n, json_error_t *why);

/* The characters of a number that is kept as it is written; NULL: value is something else. */
const char *json_number_text(const json_t *value);

/* Appends value as Jansson writes it (flags: Jansson's), with such numbers as numbers.  false: no memory. */
bool json_write(const json_t *value, size_t flags, Buf *out);

/* The same for people and terminals: invisible characters of strings (utf8_is_invisible) are escaped. */
bool json_write_shown(const json_t *value, size_t flags, Buf *out);

#endif
