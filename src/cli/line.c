/* line: see line.h. */
#include "line.h"
#include "stop.h"
#include "../base/mem.h"

#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HISTORY = 1000 }; // lines

struct Line {
    EditLine *edit; // NULL: not on a terminal
    History *history;
    bool colour, continues;
    bool began; // a line was read
    char *read; // the buffer of getline
    size_t capacity;
};

/* Escape sequences are put between \1 marks, so that libedit can compute the width of the prompt. */
static char *show_prompt(EditLine *edit) {
    static char prompts[4][32] = {"> ", "| ", "\1\033[1m\1>\1\033[0m\1 ", "\1\033[1m\1|\1\033[0m\1 "};
    Line *l;
    el_get(edit, EL_CLIENTDATA, &l);
    return prompts[2 * l->colour + l->continues];
}

/* libedit takes the encoding from the locale; without a locale UTF-8 is assumed. */
static void set_encoding(void) {
    setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
}

Line *line_open(bool on_terminal, bool colour) {
    Line *l = mem_new(1, sizeof *l);
    l->colour = colour;
    if (!on_terminal) return l;
    set_encoding();
    HistEvent event;
    l->history = history_init();
    l->edit = el_init("zgen", stdin, stdout, stderr);
    if (!l->history || !l->edit) {
        line_close(l);
        return line_open(false, false);
    }
    history(l->history, &event, H_SETSIZE, HISTORY);
    history(l->history, &event, H_SETUNIQUE, 1);
    el_set(l->edit, EL_CLIENTDATA, l);
    el_set(l->edit, EL_PROMPT_ESC, show_prompt, '\1');
    el_set(l->edit, EL_HIST, history, l->history);
    el_set(l->edit, EL_EDITOR, "emacs");
    el_set(l->edit, EL_SIGNAL, 1);
    el_set(l->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    return l;
}

void line_close(Line *l) {
    if (!l) return;
    if (l->edit) el_end(l->edit);
    if (l->history) history_end(l->history);
    free(l->read);
    free(l);
}

/* One line of *n bytes, with its newline if there is one; NULL: the end of the input. */
static const char *read_one(Line *l, size_t *n) {
    if (l->edit) {
        int count = 0;
        const char *text = el_gets(l->edit, &count);
        *n = count > 0 ? (size_t)count : 0;
        HistEvent event;
        if (count > 1) history(l->history, &event, H_ENTER, text);
        return count > 0 ? text : NULL;
    }
    ssize_t count = getline(&l->read, &l->capacity, stdin);
    if (count <= 0) return NULL;
    size_t mark = !l->began && strncmp(l->read, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0; // a byte order mark
    l->began = true;
    *n = (size_t)count - mark;
    return l->read + mark;
}

LineEnd line_read(Line *l, Buf *out) {
    buf_clear(out);
    for (l->continues = false;; l->continues = true) {
        size_t n;
        const char *text = read_one(l, &n);
        if (stop_wanted()) return LINE_INTERRUPTED;
        if (!text) return out->n ? LINE_TEXT : LINE_NO_MORE;
        n -= n && text[n - 1] == '\n';
        n -= n && text[n - 1] == '\r';
        bool goes_on = n && text[n - 1] == '\\';
        buf_add(out, text, n - goes_on);
        if (!goes_on) break;
        buf_add(out, "\n", 1);
    }
    return LINE_TEXT;
}
