/* line: reads the user's next message from a terminal or a pipe.
 *
 * On a terminal the line is edited (edit.h); elsewhere lines are read without output.  A line that ends with a
 * backslash continues on the next one; between """ at the beginning of a line and """ at the end of the
 * same or another line, a message may have many lines. */
#ifndef ZGEN_CLI_LINE_H
#define ZGEN_CLI_LINE_H

#include <stdbool.h>
#include "../base/buf.h"

typedef struct Line Line;

typedef enum LineEnd {
    LINE_TEXT,        // a message was read
    LINE_NO_MORE,     // Ctrl-D, or the end of the input
    LINE_INTERRUPTED, // a signal arrived: see stop.h
    LINE_FAILED,      // standard input cannot be read: see errno
} LineEnd;

Line *line_open(bool on_terminal, bool colour);
void line_close(Line *l); // restores the terminal; NULL is allowed

/* Replaces *out by the next message, its lines joined by newlines, without the last one and the marks of its
 * continuation. */
LineEnd line_read(Line *l, Buf *out);

#endif
