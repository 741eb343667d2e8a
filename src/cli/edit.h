/* edit: a line that the user edits on a terminal, by libedit.
 *
 * Keys are those of emacs, with a history.  Deleting and moving take whole characters as readers see them
 * (grapheme clusters); a tab is a tab; what is pasted becomes part of the line, its newlines too. */
#ifndef ZGEN_CLI_EDIT_H
#define ZGEN_CLI_EDIT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct Edit Edit;

Edit *edit_open(bool colour); // NULL: libedit cannot use this terminal
void edit_close(Edit *e);     // restores the terminal; NULL is allowed

/* Shows a prompt, another one if the line continues a message, and reads a line of *n bytes of UTF-8, with its
 * newline.  NULL: the end of the input, or a signal.  Valid until the next call. */
const char *edit_read(Edit *e, bool continues, size_t *n);

#endif
