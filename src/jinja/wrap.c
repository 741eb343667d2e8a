/* wrap: the filter wordwrap, lines as Python's textwrap breaks them.
 *
 * A line is cut into chunks (words, parts of words behind hyphens, dashes, white space); chunks are put
 * into lines up to the width. */
#include "interp.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <assert.h>
#include <pcre2.h>

static const char CHUNK[] = // a chunk, where words may be broken behind hyphens
    "[\\t\\n\\x0b\\x0c\\r ]+"
    "|(?<=[\\w!\"'&.,?])-{2,}(?=\\w)"
    "|[^\\t\\n\\x0b\\x0c\\r ]+?(?:-(?:(?<=[^\\d\\W]{2}-)|(?<=[^\\d\\W]-[^\\d\\W]-))(?=[^\\d\\W]-?[^\\d\\W])"
    "|(?=[\\t\\n\\x0b\\x0c\\r ]|\\Z)|(?<=[\\w!\"'&.,?])(?=-{2,}\\w))";
static const char WORD[] = "[\\t\\n\\x0b\\x0c\\r ]+|[^\\t\\n\\x0b\\x0c\\r ]+";

/* The ends of the chunks of s, in characters; *n: how many. */
static size_t *cut(Jinja *j, Str s, const char *pattern, size_t *n) {
    char *text = jinja_alloc(j, 4 * s.n, 1);
    size_t *begins = jinja_alloc(j, s.n + 1, sizeof *begins), *ends = jinja_alloc(j, s.n, sizeof *ends), at;
    int error;
    for (size_t i = 0; i < s.n; i++) begins[i + 1] = begins[i] + js_put_utf8(s.c[i], text + begins[i]);
    jinja_spend(j, 64 + 8 * s.n);
    *n = 0;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);
    assert(code);
    pcre2_match_data *data = pcre2_match_data_create_from_pattern(code, NULL);
    for (size_t from = 0; from < s.n; from = ends[(*n)++]) {
        int rc = pcre2_match(code, (PCRE2_SPTR)text, begins[s.n], begins[from], PCRE2_ANCHORED, data, NULL);
        size_t end = rc > 0 ? pcre2_get_ovector_pointer(data)[1] : begins[from + 1], k = from;
        while (k < s.n && begins[k] < end) k++;
        ends[*n] = k;
    }
    pcre2_match_data_free(data);
    pcre2_code_free(code);
    return ends;
}

static bool is_blank(Str s) {
    for (size_t i = 0; i < s.n; i++)
        if (!char_is_space(s.c[i])) return false;
    return true;
}

typedef struct Wrap {
    Jinja *j;
    size_t width;
    bool breaks_words, breaks_hyphens;
    Seq *lines;
} Wrap;

/* How many characters of a chunk that is longer than a line go into the `left` characters that a line has. */
static size_t part_that_fits(const Wrap *w, Str chunk, size_t left) {
    size_t hyphen = left;
    if (!w->breaks_hyphens || chunk.n <= left) return left;
    while (hyphen > 0 && char_code(chunk.c[hyphen - 1]) != '-')
        hyphen--; // hyphen: the index behind the last one
    for (size_t i = 0; hyphen > 1 && i < hyphen - 1; i++)
        if (char_code(chunk.c[i]) != '-') return hyphen;
    return left;
}

/* Wraps one line of the text.  Chunks follow each other in s, so that a line is a part of s. */
static void wrap_line(Wrap *w, Str s) {
    size_t n, *ends = cut(w->j, s, w->breaks_hyphens ? CHUNK : WORD, &n), begin = 0, first = w->lines->n;
    for (size_t i = 0; i < n;) {
        if (w->lines->n > first && is_blank(js_part(s, begin, ends[i]))) begin = ends[i++];
        size_t from = begin, last = begin; // the line, and the begin of its last chunk
        for (; i < n && ends[i] - from <= w->width; i++) {
            last = begin;
            begin = ends[i];
        }
        if (i < n && ends[i] - begin > w->width) {
            Str chunk = js_part(s, begin, ends[i]);
            size_t left = w->width - (begin - from);
            bool whole = !w->breaks_words && begin == from;
            if (w->breaks_words || whole) last = begin;
            if (w->breaks_words) begin += part_that_fits(w, chunk, left);
            if (whole) begin = ends[i++];
        }
        jinja_spend(w->j, 1);
        size_t end = begin > last && is_blank(js_part(s, last, begin)) ? last : begin;
        if (end > from) jv_add(w->j, w->lines, jv_str(js_part(s, from, end)));
    }
}

Value jinja_wordwrap(Jinja *j, const Value *a) {
    Str s = jv_need_str(j, a[0], "the text to wrap");
    Str between = jv_is_given(a[3]) ? jv_need_str(j, a[3], "wrapstring") : js_ascii(j, "\n");
    int64_t width = jv_int_or(j, a[1], 79, "width");
    if (width < 1 || width > JINJA_TEXT_MAX)
        jinja_fail(j, ERR_RUN, "wordwrap cannot wrap to %lld characters", (long long)width);
    Wrap w = {.j = j,
              .width = (size_t)width,
              .breaks_words = a[2].kind == V_ABSENT || jv_truth(j, a[2]),
              .breaks_hyphens = a[4].kind == V_ABSENT || jv_truth(j, a[4])};
    Text t = {0};
    for (size_t from = 0, next; from < s.n; from = next) {
        size_t end = js_line(s, from, &next);
        w.lines = jv_new_seq(j, 0);
        wrap_line(&w, js_part(s, from, end));
        if (from) js_add(j, &t, between);
        for (size_t i = 0; i < w.lines->n; i++) {
            if (i) js_add(j, &t, between);
            js_add(j, &t, w.lines->items[i].s);
        }
    }
    return jv_str(js_text(&t));
}
