/* file_type: general.file_type, the number in a GGUF file for the mixture of its tensor types.
 *
 * The one table of these numbers, of their names in quantisers ("Q4_K_M") and of the names that llama-bench
 * prints ("Q4_K - Medium").  Numbers and names are llama.cpp's (LLAMA_FTYPE_*).  A number outside the table
 * has no name here; the tensors of such a file are read by their own types. */
#ifndef ZGEN_GGUF_FILE_TYPE_H
#define ZGEN_GGUF_FILE_TYPE_H

#include <stdbool.h>
#include "gguf.h"

/* The number of a quantiser's name, letters in either case; -1 if the table has no such name. */
int file_type_number(const char *name);

/* llama-bench's name for the file type of g.  Where g states none, or one outside the table, the name follows
 * from the type that most weights of g have, and *is_guess is true. */
const char *file_type_label(const Gguf *g, bool *is_guess);

#endif
