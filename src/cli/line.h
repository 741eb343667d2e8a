/* line: what the user says next.
 *
 * On a terminal libedit edits the line, remembers earlier ones and shows a prompt; elsewhere lines are read
 * as they come, without a word on stdout.  A backslash at the end of a line says that it goes on in the next.
 */
#ifndef ZGEN_CLI_LINE_H
#define ZGEN_CLI_LINE_H

#include <stdbool.h>
#include "../base/buf.h"

typedef struct Line Line;

typedef enum LineEnd {
    LINE_TEXT,        // a line was read
    LINE_NO_MORE,     // Ctrl-D, or the end of the input
    LINE_INTERRUPTED, // a signal came: see stop.h
} LineEnd;

Line *line_open(bool on_terminal, bool colour);
void line_close(Line *l); // gives the terminal back as it was; NULL is fine

/* Replaces *out by the next line, without its newline. */
LineEnd line_read(Line *l, Buf *out);

#endif
