/* edit: see edit.h.
 *
 * The one trick: a terminal in the mode of bracketed paste sends PASTE_BEGIN and PASTE_END around what is
 * pasted, which are bound like keys; Enter within a paste then is not the end of the line. */
#include "edit.h"
#include "../base/buf.h"
#include "../base/mem.h"
#include "../base/utf8.h"
#include "../text/grapheme.h"
#include "out.h"

#include <histedit.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#define PASTE_BEGIN L"\033[200~"
#define PASTE_END L"\033[201~"

enum { HISTORY = 1000 }; // lines

struct Edit {
    EditLine *edit;
    History *history;
    Graphemes *graphemes;
    bool colour, continues;
    bool can_paste; // the terminal takes escape sequences
};

static Edit *edit_of(EditLine *edit) {
    Edit *e;
    el_get(edit, EL_CLIENTDATA, &e);
    return e;
}

/* Escape sequences are put between \1 marks, so that libedit can compute the width of the prompt. */
static char *show_prompt(EditLine *edit) {
    static char prompts[4][32] = {"> ", "| ", "\1\033[1m\1>\1\033[0m\1 ", "\1\033[1m\1|\1\033[0m\1 "};
    const Edit *e = edit_of(edit);
    return prompts[2 * e->colour + e->continues];
}

/* ---- characters ---------------------------------------------------------------------------------------- */

typedef struct Around { // code points of the clusters on both sides of the cursor
    int before, behind;
} Around;

/* A cluster in which the cursor is counts on either side with its part there. */
static Around clusters_around(EditLine *edit) {
    const LineInfoW *line = el_wline(edit);
    int cursor = (int)(line->cursor - line->buffer), at = 0;
    Around around = {0};
    Buf text = {0};
    for (const wchar_t *c = line->buffer; c < line->lastchar; c++) {
        uint32_t point = (uint32_t)*c; // wchar_t may be signed
        bool is_valid = point < UTF8_BAD && !(point >= 0xD800 && point < 0xE000);
        utf8_add(is_valid ? point : 0xFFFD, &text);
    }
    for (size_t i = 0; i < text.n;) {
        size_t end = i + graphemes_next(edit_of(edit)->graphemes, text.data + i, text.n - i);
        int begin = at;
        for (; i < end; i++) at += (text.data[i] & 0xC0) != 0x80;
        if (begin < cursor && at >= cursor) around.before = cursor - begin;
        if (begin <= cursor && at > cursor) around.behind = at - cursor;
    }
    buf_free(&text);
    return around;
}

static unsigned char move_left(EditLine *edit, wint_t key) {
    (void)key;
    el_cursor(edit, -clusters_around(edit).before);
    return CC_REFRESH;
}

static unsigned char move_right(EditLine *edit, wint_t key) {
    (void)key;
    el_cursor(edit, clusters_around(edit).behind);
    return CC_REFRESH;
}

static unsigned char delete_before(EditLine *edit, wint_t key) {
    (void)key;
    el_deletestr(edit, clusters_around(edit).before);
    return CC_REFRESH;
}

static unsigned char delete_behind(EditLine *edit, wint_t key) {
    (void)key;
    int n = clusters_around(edit).behind;
    el_cursor(edit, n);
    el_deletestr(edit, n);
    return CC_REFRESH;
}

/* Ctrl-D: the end of the input where the line is empty. */
static unsigned char delete_or_end(EditLine *edit, wint_t key) {
    const LineInfoW *line = el_wline(edit);
    return line->lastchar == line->buffer ? CC_EOF : delete_behind(edit, key);
}

/* ---- paste --------------------------------------------------------------------------------------------- */

/* Terminals send a return for each newline of what is pasted. */
static void insert_pasted(EditLine *edit, wchar_t *text, size_t n) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        bool is_pair = text[i] == '\r' && i + 1 < n && text[i + 1] == '\n';
        if (text[i] && !is_pair) text[kept++] = text[i] == '\r' ? '\n' : text[i];
    }
    text[kept] = 0;
    el_winsertstr(edit, text);
}

static unsigned char paste(EditLine *edit, wint_t key) {
    static const size_t END = sizeof PASTE_END / sizeof(wchar_t) - 1;
    (void)key;
    wchar_t *text = NULL, c;
    size_t n = 0, capacity = 0;
    bool ends = false;
    while (!ends && el_wgetc(edit, &c) == 1) {
        if (n + 2 > capacity) text = mem_resize(text, (capacity = 2 * capacity + 256) * sizeof *text);
        text[n++] = c;
        ends = n >= END && wmemcmp(text + n - END, PASTE_END, END) == 0;
    }
    if (ends) insert_pasted(edit, text, n - END);
    free(text);
    return ends ? CC_REFRESH : CC_EOF;
}

/* ---- the line ------------------------------------------------------------------------------------------ */

/* The wide functions keep the names as they are; the others copy them and never free the copies. */
static void bind_keys(EditLine *edit) {
    static const struct {
        const wchar_t *name, *help, *keys[4];
        unsigned char (*run)(EditLine *, wint_t);
    } BINDINGS[] = {
        {L"zgen-left", L"Moves a character to the left", {L"^B", L"\\e[D", L"\\eOD"}, move_left},
        {L"zgen-right", L"Moves a character to the right", {L"^F", L"\\e[C", L"\\eOC"}, move_right},
        {L"zgen-backspace", L"Deletes the character before the cursor", {L"^?", L"^H"}, delete_before},
        {L"zgen-delete", L"Deletes the character behind the cursor", {L"\\e[3~"}, delete_behind},
        {L"zgen-delete-or-end", L"Deletes a character, or ends the input", {L"^D"}, delete_or_end},
        {L"zgen-paste", L"Inserts what is pasted", {PASTE_BEGIN}, paste},
    };
    for (size_t i = 0; i < sizeof BINDINGS / sizeof *BINDINGS; i++) {
        el_wset(edit, EL_ADDFN, BINDINGS[i].name, BINDINGS[i].help, BINDINGS[i].run);
        for (int k = 0; BINDINGS[i].keys[k]; k++)
            el_wset(edit, EL_BIND, BINDINGS[i].keys[k], BINDINGS[i].name, NULL);
    }
    el_set(edit, EL_BIND, "^I", "ed-insert", NULL);
    el_set(edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
}

/* libedit takes the encoding from the locale; without a locale UTF-8 is assumed. */
static void set_encoding(void) {
    setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
}

Edit *edit_open(bool colour) {
    Edit *e = mem_new(1, sizeof *e);
    HistEvent event;
    e->colour = colour;
    e->can_paste = out_obeys_escapes();
    set_encoding();
    e->graphemes = graphemes_open();
    e->history = history_init();
    e->edit = el_init("zgen", stdin, stdout, stderr);
    if (!e->graphemes || !e->history || !e->edit) {
        edit_close(e);
        return NULL;
    }
    history(e->history, &event, H_SETSIZE, HISTORY);
    history(e->history, &event, H_SETUNIQUE, 1);
    el_set(e->edit, EL_CLIENTDATA, e);
    el_set(e->edit, EL_PROMPT_ESC, show_prompt, '\1');
    el_set(e->edit, EL_HIST, history, e->history);
    el_set(e->edit, EL_EDITOR, "emacs");
    el_set(e->edit, EL_SIGNAL, 1);
    el_set(e->edit, EL_SETTY, "-d", "-icrnl", "-inlcr", NULL); // what is pasted may have returns and newlines
    bind_keys(e->edit);
    return e;
}

void edit_close(Edit *e) {
    if (!e) return;
    if (e->edit) el_end(e->edit);
    if (e->history) history_end(e->history);
    graphemes_close(e->graphemes);
    free(e);
}

/* Turns bracketed paste on or off. */
static void set_paste(const Edit *e, bool on) {
    if (!e->can_paste) return;
    printf("\033[?2004%c", on ? 'h' : 'l');
    fflush(stdout);
}

const char *edit_read(Edit *e, bool continues, size_t *n) {
    int count = 0;
    HistEvent event;
    e->continues = continues;
    set_paste(e, true);
    const char *text = el_gets(e->edit, &count);
    set_paste(e, false);
    if (count > 1) history(e->history, &event, H_ENTER, text);
    *n = count > 0 ? (size_t)count : 0;
    return count > 0 ? text : NULL;
}
