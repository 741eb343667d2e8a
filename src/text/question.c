/* question: see question.h. */
#include "question.h"
#include "../base/float.h"
#include "../base/mem.h"
#include "../base/mt19937.h"

#include <stdlib.h>
#include <string.h>

enum { SEED = 1, HELLASWAG_STANDARD = 400, MOST_ANSWERS = 100, TRAILING = 3 };

typedef struct Text { // bytes of the file
    const char *data;
    size_t n;
} Text;

typedef struct Reader {
    const char *path;
    const Tok *tok;
    Questions *out;
    Buf text; // of one choice
    Err *e;
} Reader;

/* ---- texts and tokens ---- */

static TokIds encode(Reader *r, const Text *parts, int n) {
    TokIds ids = {0};
    buf_clear(&r->text);
    for (int i = 0; i < n; i++) buf_add(&r->text, parts[i].data, parts[i].n);
    tok_encode(r->tok, r->text.data ? r->text.data : "", r->text.n, TOK_ADD_SPECIAL, &ids);
    return ids;
}

/* The number of first tokens that all texts have in common. */
static int n_common(const Question *q) {
    size_t n = 0;
    for (;; n++)
        for (int i = 0; i < q->n; i++)
            if (n == q->choices[i].ids.n || q->choices[i].ids.data[n] != q->choices[0].ids.data[n])
                return (int)n;
}

static Question *add_question(Reader *r, int n) {
    Questions *q = r->out;
    q->items = mem_resize(q->items, ((size_t)q->n + 1) * sizeof *q->items);
    q->items[q->n] = (Question){.choices = mem_new((size_t)n, sizeof *q->items->choices), .n = n};
    return &q->items[q->n++];
}

static bool refuse(const Reader *r, int number, const char *what) {
    return err_set(r->e, ERR_RUN, "%.300s: question %d %s", r->path, number, what);
}

/* Texts that are the same up to `begin` are scored behind it; but the first token has no prediction, and a text that
 * begins another one is scored by its last token. */
static bool set_range(Reader *r, Choice *c, int begin, int end, int number) {
    int last = (int)c->ids.n - 1;
    c->begin = begin < 1 ? 1 : begin > last ? last : begin;
    c->end = end;
    return (c->begin >= 1 && c->begin < c->end) || refuse(r, number, "has a text of fewer than two tokens");
}

static bool score_behind_common(Reader *r, Question *q, int number) {
    int begin = n_common(q);
    for (int i = 0; i < q->n; i++)
        if (!set_range(r, &q->choices[i], begin, (int)q->choices[i].ids.n, number)) return false;
    return true;
}

/* ---- which questions ---- */

/* The numbers of n_wanted of n questions, in the order of llama-perplexity; the caller frees them. */
static int *choose(QuestionForm form, int n, int n_wanted) {
    int *left = mem_new((size_t)n, sizeof *left), *chosen = mem_new((size_t)n_wanted, sizeof *chosen);
    Mt19937 m;
    mt19937_seed(&m, SEED);
    for (int i = 0; i < n; i++) left[i] = i;
    bool is_drawn = form == QUESTIONS_HELLASWAG || n_wanted < n;
    for (int i = 0, n_left = n; i < n_wanted; i++, n_left--) {
        int at = 0;
        if (form == QUESTIONS_HELLASWAG)
            at = (int)mt19937_below(&m, (uint32_t)n_left);
        else if (is_drawn)
            at = (int)(0x1p-32f * (float)mt19937_next(&m) * (float)n_left);
        if (at >= n_left) at = n_left - 1; // a float rounds up to 1
        chosen[i] = left[at];
        if (form == QUESTIONS_HELLASWAG || !is_drawn)
            memmove(left + at, left + at + 1, (size_t)(n_left - at - 1) * sizeof *left);
        else
            left[at] = left[n_left - 1];
    }
    free(left);
    return chosen;
}

static int n_chosen(QuestionForm form, int n, int n_wanted) {
    if (n_wanted == 0) n_wanted = form == QUESTIONS_HELLASWAG ? HELLASWAG_STANDARD : n;
    return n_wanted < n ? n_wanted : n;
}

/* ---- lines ---- */

/* The lines without their LF or CR LF; an empty one at the end is none.  The caller frees them. */
static Text *split_lines(const char *bytes, size_t n, int *n_lines) {
    Text *lines = NULL;
    *n_lines = 0;
    for (size_t at = 0; at < n;) {
        const char *end = memchr(bytes + at, '\n', n - at);
        size_t length = end ? (size_t)(end - bytes) - at : n - at, next = at + length + 1;
        bool has_cr = length && bytes[at + length - 1] == '\r';
        if ((*n_lines & (*n_lines - 1)) == 0)
            lines = mem_resize(lines, (*n_lines ? 2 * (size_t)*n_lines : 1) * sizeof *lines);
        lines[(*n_lines)++] = (Text){bytes + at, length - has_cr};
        at = next;
    }
    return lines;
}

/* A number of one digit and spaces around it, or -1. */
static int digit(Text t) {
    while (t.n && t.data[0] == ' ') t = (Text){t.data + 1, t.n - 1};
    while (t.n && t.data[t.n - 1] == ' ') t.n--;
    return t.n == 1 && t.data[0] >= '0' && t.data[0] <= '9' ? t.data[0] - '0' : -1;
}

static bool add_hellaswag(Reader *r, const Text *lines, int number) {
    int right = digit(lines[1]);
    if (right < 0 || right > 3)
        return refuse(r, number, "names no right end: its second line is not 0, 1, 2 or 3");
    Question *q = add_question(r, 4);
    for (int i = 0; i < 4; i++)
        q->choices[i] =
            (Choice){.ids = encode(r, (Text[]){lines[0], {" ", 1}, lines[2 + i]}, 3), .is_right = i == right};
    return score_behind_common(r, q, number);
}

static bool read_hellaswag(Reader *r, const char *bytes, size_t n, int n_wanted) {
    int n_lines;
    Text *lines = split_lines(bytes, n, &n_lines);
    bool ok = n_lines > 0 && n_lines % 6 == 0;
    r->out->n_file = n_lines / 6;
    if (!ok)
        err_set(r->e, ERR_RUN,
                "%.300s: a question of hellaswag has 6 lines, and %d lines are no multiple of that", r->path,
                n_lines);
    int n_items = n_chosen(QUESTIONS_HELLASWAG, n_lines / 6, n_wanted);
    int *chosen = choose(QUESTIONS_HELLASWAG, n_lines / 6, n_items);
    for (int i = 0; ok && i < n_items; i++) ok = add_hellaswag(r, lines + 6 * chosen[i], chosen[i] + 1);
    free(chosen);
    free(lines);
    return ok;
}

/* The five fields of a line; commas inside of quotes separate nothing. */
static bool split_fields(Text line, Text fields[5]) {
    bool is_quoted = false;
    size_t begin = 0;
    int n = 0;
    for (size_t i = 0; i < line.n && n < 4; i++) {
        if (line.data[i] == '"') is_quoted = !is_quoted;
        if (line.data[i] != ',' || is_quoted) continue;
        fields[n++] = (Text){line.data + begin, i - begin};
        begin = i + 1;
    }
    fields[4] = (Text){line.data + begin, line.n - begin};
    return n == 4;
}

static bool add_winogrande(Reader *r, Text line, int number) {
    Text f[5];
    if (!split_fields(line, f)) return refuse(r, number, "is not five fields with commas between them");
    Text sentence = f[1];
    if (sentence.n >= 2 && sentence.data[0] == '"') sentence = (Text){sentence.data + 1, sentence.n - 2};
    const char *gap = memchr(sentence.data, '_', sentence.n);
    int right = digit(f[4]);
    if (!gap) return refuse(r, number, "has no gap _ in its sentence");
    if (right != 1 && right != 2)
        return refuse(r, number, "names no right word: its last field is not 1 or 2");
    Text before = {sentence.data, (size_t)(gap - sentence.data)},
         behind = {gap + 1, sentence.n - before.n - 1};
    Question *q = add_question(r, 2);
    int words_end[2];
    for (int i = 0; i < 2; i++) {
        TokIds head = encode(r, (Text[]){before, f[2 + i]}, 2);
        words_end[i] = (int)head.n;
        tok_ids_free(&head);
        q->choices[i] =
            (Choice){.ids = encode(r, (Text[]){before, f[2 + i], behind}, 3), .is_right = right == i + 1};
    }
    int common = n_common(q), n[2] = {(int)q->choices[0].ids.n, (int)q->choices[1].ids.n};
    bool is_long = n[0] - common > TRAILING && n[1] - common > TRAILING;
    for (int i = 0; i < 2; i++) {
        int begin = is_long ? words_end[i] : common, end = n[i] - (n[i] - begin > 1);
        if (!set_range(r, &q->choices[i], begin, end, number)) return false;
    }
    return true;
}

static bool read_winogrande(Reader *r, const char *bytes, size_t n, int n_wanted) {
    int n_lines;
    Text *lines = split_lines(bytes, n, &n_lines);
    bool ok = n_lines > 0 || err_set(r->e, ERR_RUN, "%.300s: the file has no questions", r->path);
    int n_items = n_chosen(QUESTIONS_WINOGRANDE, n_lines, n_wanted);
    int *chosen = choose(QUESTIONS_WINOGRANDE, n_lines, n_items);
    r->out->n_file = n_lines;
    for (int i = 0; ok && i < n_items; i++) ok = add_winogrande(r, lines[chosen[i]], chosen[i] + 1);
    free(chosen);
    free(lines);
    return ok;
}

/* ---- multiple-choice ---- */

typedef struct Cursor { // of the file
    const char *data;
    size_t n, at;
} Cursor;

static bool take_u32(Cursor *c, uint32_t *out) {
    if (c->n - c->at < 4) return false;
    *out = load_u32((const uint8_t *)c->data + c->at);
    c->at += 4;
    return true;
}

static bool take_text(Cursor *c, Text *out) {
    uint32_t n;
    if (!take_u32(c, &n) || n > c->n - c->at) return false;
    *out = (Text){c->data + c->at, n};
    c->at += n;
    return true;
}

typedef struct Answers {
    Text texts[MOST_ANSWERS];
    uint32_t labels[MOST_ANSWERS], n;
} Answers;

static bool take_answers(Cursor *c, Answers *a) {
    if (!take_u32(c, &a->n) || a->n > MOST_ANSWERS) return false;
    for (uint32_t i = 0; i < a->n; i++)
        if (!take_text(c, &a->texts[i])) return false;
    for (uint32_t i = 0; i < a->n; i++)
        if (!take_u32(c, &a->labels[i])) return false;
    return true;
}

static bool add_choices(Reader *r, Cursor *c, int number) {
    Text question;
    Answers answers, others;
    if (!take_text(c, &question) || !take_answers(c, &answers) || !take_answers(c, &others))
        return refuse(r, number, "is cut off or damaged; make the file again");
    if (question.n == 0 || answers.n == 0) return refuse(r, number, "has no text or no answers");
    Question *q = add_question(r, (int)answers.n);
    for (int i = 0; i < q->n; i++) {
        if (answers.texts[i].n == 0) return refuse(r, number, "has an empty answer");
        q->choices[i] = (Choice){.ids = encode(r, (Text[]){question, {" ", 1}, answers.texts[i]}, 3),
                                 .is_right = answers.labels[i] == 1};
    }
    return score_behind_common(r, q, number);
}

static bool read_multiple_choice(Reader *r, const char *bytes, size_t n, int n_wanted) {
    Cursor c = {bytes, n, 0};
    uint32_t n_file;
    if (!take_u32(&c, &n_file) || n_file == 0 || n_file > (n - 4) / 4)
        return err_set(r->e, ERR_RUN, "%.300s: this is no file of multiple-choice questions", r->path);
    r->out->n_file = (int)n_file;
    int n_items = n_chosen(QUESTIONS_MULTIPLE_CHOICE, (int)n_file, n_wanted);
    int *chosen = choose(QUESTIONS_MULTIPLE_CHOICE, (int)n_file, n_items);
    bool ok = true, in_order = n_items == (int)n_file;
    c.at = 4 + 4 * (size_t)n_file;
    for (int i = 0; ok && i < n_items; i++) {
        if (!in_order) c.at = load_u32((const uint8_t *)bytes + 4 + 4 * (size_t)chosen[i]);
        ok = (c.at <= n || refuse(r, chosen[i] + 1, "has a position beyond the end of the file")) &&
             add_choices(r, &c, chosen[i] + 1);
    }
    free(chosen);
    return ok;
}

/* ---- the whole ---- */

bool questions_read(QuestionForm form, const char *bytes, size_t n, const char *path, int n_wanted,
                    const Tok *tok, Questions *out, Err *e) {
    bool (*const readers[])(Reader *, const char *, size_t, int) = {read_hellaswag, read_winogrande,
                                                                    read_multiple_choice};
    *out = (Questions){0};
    Reader r = {.path = path, .tok = tok, .out = out, .e = e};
    bool ok = readers[form](&r, bytes, n, n_wanted);
    buf_free(&r.text);
    return ok;
}

void questions_free(Questions *q) {
    for (int i = 0; i < q->n; i++) {
        for (int k = 0; k < q->items[i].n; k++) tok_ids_free(&q->items[i].choices[k].ids);
        free(q->items[i].choices);
    }
    free(q->items);
    *q = (Questions){0};
}

int questions_longest(const Questions *q) {
    size_t most = 0;
    for (int i = 0; i < q->n; i++)
        for (int k = 0; k < q->items[i].n; k++)
            if (q->items[i].choices[k].ids.n > most) most = q->items[i].choices[k].ids.n;
    return (int)most;
}
