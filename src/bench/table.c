/* table: see table.h. */
#include "table.h"
#include "../cli/out.h"
#include "../cli/show.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static bool is(const BenchTable *t, const char *format) {
    return strcmp(t->format, format) == 0;
}

void bench_add_test(Buf *out, int n_prompt, int n_gen, int n_depth) {
    if (n_prompt) buf_printf(out, "pp%d", n_prompt);
    if (n_gen) buf_printf(out, "%stg%d", n_prompt ? "+" : "", n_gen);
    if (n_depth) buf_printf(out, " @ d%d", n_depth);
}

/* ---- md ---- */

static int n_characters(const char *s) {
    int n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

static void add_cell(int width, const char *text, Buf *out) {
    int pad = abs(width) - n_characters(text);
    if (pad < 0) pad = 0;
    buf_printf(out, "%*s%s%*s", width > 0 ? pad : 0, "", text, width > 0 ? 0 : pad, "");
}

static void add_line(const BenchTable *t, const char *(*text)(const void *arg, int column), const void *arg,
                     Buf *out) {
    for (int i = 0; i < t->n_columns; i++) {
        buf_printf(out, t->is_batched && i == 0 ? "|" : i ? " | " : "| ");
        add_cell(t->columns[i].width, text(arg, i), out);
    }
    buf_printf(out, " |\n");
}

static const char *title(const void *arg, int column) {
    return ((const BenchTable *)arg)->columns[column].title;
}

static const char *cell(const void *arg, int column) {
    return ((const Buf *)arg)[column].data;
}

static void add_rule(const BenchTable *t, Buf *out) {
    static const char dashes[] = "------------------------------------------------";
    for (int i = 0; i < t->n_columns; i++) {
        int width = t->columns[i].width, n = abs(width);
        assert(n < (int)sizeof dashes);
        if (t->is_batched)
            buf_printf(out, "%s%.*s", i ? "-|-" : "|", n, dashes);
        else
            buf_printf(out, "| %.*s%c ", n - 1, dashes, width > 0 ? ':' : '-');
    }
    buf_printf(out, t->is_batched ? "-|\n" : "|\n");
}

/* ---- csv ---- */

static void add_quoted(const char *text, Buf *out) {
    buf_printf(out, "\"");
    for (; *text; text++) buf_printf(out, *text == '"' ? "\"\"" : "%c", *text);
    buf_printf(out, "\"");
}

static void add_value(const json_t *value, Buf *out) {
    char number[40] = "";
    if (json_is_integer(value))
        snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    if (json_is_real(value)) snprintf(number, sizeof number, "%f", json_real_value(value));
    if (json_is_boolean(value)) snprintf(number, sizeof number, "%d", json_is_true(value));
    add_quoted(json_is_string(value) ? json_string_value(value) : number, out);
}

static void add_csv(json_t *object, bool is_header, Buf *out) {
    const char *key, *separator = "";
    json_t *value;
    json_object_foreach(object, key, value) {
        if (json_is_array(value) || json_is_object(value)) continue;
        buf_printf(out, "%s", separator);
        if (is_header)
            buf_printf(out, "%s", key);
        else
            add_value(value, out);
        separator = ",";
    }
    buf_printf(out, "\n");
}

/* ---- rows ---- */

static void add_head(const BenchTable *t, json_t *object, Buf *out) {
    if (is(t, "json")) buf_printf(out, "[\n");
    if (is(t, "md")) add_line(t, title, t, out);
    if (is(t, "md")) add_rule(t, out);
    if (is(t, "csv")) add_csv(object, true, out);
}

bool bench_table_row(BenchTable *t, const Buf *cells, json_t *object, Err *e) {
    Buf out = {0};
    if (t->n_rows == 0) add_head(t, object, &out);
    if (is(t, "md")) add_line(t, cell, cells, &out);
    if (is(t, "csv")) add_csv(object, false, &out);
    if (is(t, "json")) buf_printf(&out, "%s", t->n_rows ? ",\n" : "");
    bool ok = !(is(t, "json") || is(t, "jsonl")) || show_dump(object, &out, e);
    if (is(t, "jsonl")) buf_printf(&out, "\n");
    t->n_rows++;
    json_decref(object);
    ok = ok && out_write(out.data, out.n, e);
    buf_free(&out);
    return ok;
}

bool bench_table_end(const BenchTable *t, Err *e) {
    return !is(t, "json") || t->n_rows == 0 || out_write("\n]\n", 3, e);
}
