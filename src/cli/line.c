/* line: see line.h. */
#include "line.h"
#include "edit.h"
#include "stop.h"
#include "../base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct Line {
    Edit *edit; // NULL: not on a terminal
    bool began; // a line was read
    char *read; // the buffer of getline
    size_t capacity;
};

Line *line_open(bool on_terminal, bool colour) {
    Line *l = mem_new(1, sizeof *l);
    if (on_terminal) l->edit = edit_open(colour);
    return l;
}

void line_close(Line *l) {
    if (!l) return;
    edit_close(l->edit);
    free(l->read);
    free(l);
}

/* One line of *n bytes, with its newline if there is one; NULL: the end of the input. */
static const char *read_one(Line *l, bool continues, size_t *n) {
    if (l->edit) return edit_read(l->edit, continues, n);
    ssize_t count = getline(&l->read, &l->capacity, stdin);
    if (count <= 0) return NULL;
    size_t mark = !l->began && strncmp(l->read, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0; // a byte order mark
    l->began = true;
    *n = (size_t)count - mark;
    return l->read + mark;
}

/* ---- messages of many lines ---------------------------------------------------------------------------- */

enum { QUOTES = 3 }; // bytes of """

static bool is_quoted(const char *text, size_t n) {
    return n >= QUOTES && memcmp(text, "\"\"\"", QUOTES) == 0;
}

/* Removes the """ that begins a message, and the newline behind it.  A pasted text of several lines is
 * complete as it is, whatever it begins with. */
static bool open_quotes(const char **text, size_t *n) {
    if (!is_quoted(*text, *n) || memchr(*text, '\n', *n)) return false;
    *text += QUOTES;
    *n -= QUOTES;
    return true;
}

/* Adds a line of a message between quotes.  true: it was the last one. */
static bool add_quoted(const char *text, size_t n, Buf *out) {
    bool ends = n >= QUOTES && is_quoted(text + n - QUOTES, QUOTES);
    buf_add(out, text, ends ? n - QUOTES : n);
    bool is_alone = ends && n == QUOTES && out->n && out->data[out->n - 1] == '\n';
    if (is_alone) out->data[--out->n] = 0;
    return ends;
}

/* Adds any other line.  true: it was the last one. */
static bool add_plain(const char *text, size_t n, Buf *out) {
    bool goes_on = n && text[n - 1] == '\\';
    buf_add(out, text, n - goes_on);
    return !goes_on;
}

LineEnd line_read(Line *l, Buf *out) {
    bool quoted = false;
    buf_clear(out);
    for (bool continues = false;; continues = true) {
        size_t n;
        const char *text = read_one(l, continues, &n);
        if (stop_wanted()) return LINE_INTERRUPTED;
        if (!text && !l->edit && !feof(stdin)) return LINE_FAILED;
        if (!text) return out->n ? LINE_TEXT : LINE_NO_MORE;
        n -= n && text[n - 1] == '\n';
        n -= n && text[n - 1] == '\r';
        if (!continues) quoted = open_quotes(&text, &n);
        bool opens = quoted && !continues && n == 0; // no line of the message yet
        if (quoted ? add_quoted(text, n, out) : add_plain(text, n, out)) return LINE_TEXT;
        if (!opens) buf_add(out, "\n", 1);
    }
}
