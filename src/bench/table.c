/* table: see table.h. */
#include "table.h"
#include "../cli/out.h"
#include "../cli/show.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is(const char *format, const char *wanted) {
    return format && strcmp(format, wanted) == 0;
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

static void add_quoted(const char *text, const char *mark, Buf *out) {
    buf_printf(out, "%s", mark);
    for (; *text; text++) buf_printf(out, *text == *mark ? "%c%c" : "%c", *text, *text);
    buf_printf(out, "%s", mark);
}

/* mark: the quote, which is doubled inside. */
static void add_value(const json_t *value, const char *mark, Buf *out) {
    char number[40] = "";
    if (json_is_integer(value))
        snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    if (json_is_real(value)) snprintf(number, sizeof number, "%f", json_real_value(value));
    if (json_is_boolean(value)) snprintf(number, sizeof number, "%d", json_is_true(value));
    add_quoted(json_is_string(value) ? json_string_value(value) : number, mark, out);
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
            add_value(value, "\"", out);
        separator = ",";
    }
    buf_printf(out, "\n");
}

/* ---- sql ---- */

static const char *sql_type(const json_t *value) {
    return json_is_string(value) ? "TEXT" : json_is_real(value) || json_is_null(value) ? "REAL" : "INTEGER";
}

typedef enum SqlPart { SQL_COLUMNS, SQL_NAMES, SQL_VALUES } SqlPart;

static void add_sql_list(json_t *object, SqlPart part, Buf *out) {
    const char *key, *separator = part == SQL_COLUMNS ? "  " : "";
    json_t *value;
    json_object_foreach(object, key, value) {
        if (json_is_array(value)) break; // the samples
        buf_printf(out, "%s", separator);
        if (part == SQL_COLUMNS) buf_printf(out, "%s %s", key, sql_type(value));
        if (part == SQL_NAMES) buf_printf(out, "%s", key);
        if (part == SQL_VALUES) add_value(value, "'", out);
        separator = part == SQL_COLUMNS ? ",\n  " : ", ";
    }
}

static void add_sql_head(json_t *object, Buf *out) {
    buf_printf(out, "CREATE TABLE IF NOT EXISTS llama_bench (\n");
    add_sql_list(object, SQL_COLUMNS, out);
    buf_printf(out, "\n);\n\n");
}

static void add_sql(json_t *object, Buf *out) {
    buf_printf(out, "INSERT INTO llama_bench (");
    add_sql_list(object, SQL_NAMES, out);
    buf_printf(out, ") VALUES (");
    add_sql_list(object, SQL_VALUES, out);
    buf_printf(out, ");\n");
}

/* ---- rows ---- */

static void add_head(const BenchTable *t, const char *format, json_t *object, Buf *out) {
    if (is(format, "json")) buf_printf(out, "[\n");
    if (is(format, "md")) add_line(t, title, t, out);
    if (is(format, "md")) add_rule(t, out);
    if (is(format, "csv")) add_csv(object, true, out);
    if (is(format, "sql")) add_sql_head(object, out);
}

static bool add_row(const BenchTable *t, const char *format, const Buf *cells, json_t *object, Buf *out,
                    Err *e) {
    if (t->n_rows == 0) add_head(t, format, object, out);
    if (is(format, "md")) add_line(t, cell, cells, out);
    if (is(format, "csv")) add_csv(object, false, out);
    if (is(format, "sql")) add_sql(object, out);
    if (is(format, "json") && t->n_rows) buf_printf(out, ",\n");
    if ((is(format, "json") || is(format, "jsonl")) && !show_dump(object, out, e)) return false;
    if (is(format, "jsonl")) buf_printf(out, "\n");
    return true;
}

static bool write_err(const Buf *text, Err *e) {
    return out_write_to(STDERR_FILENO, "standard error", text->data, text->n, e);
}

bool bench_table_row(BenchTable *t, const Buf *cells, json_t *object, Err *e) {
    Buf out = {0}, err = {0};
    bool ok = add_row(t, t->format, cells, object, &out, e) &&
              add_row(t, t->err_format, cells, object, &err, e) && out_write(out.data, out.n, e) &&
              write_err(&err, e);
    t->n_rows++;
    json_decref(object);
    buf_free(&out);
    buf_free(&err);
    return ok;
}

bool bench_table_end(const BenchTable *t, Err *e) {
    static const char end[] = "\n]\n";
    const Buf text = {.data = (char *)end, .n = sizeof end - 1};
    if (t->n_rows == 0) return true;
    return (!is(t->format, "json") || out_write(end, sizeof end - 1, e)) &&
           (!is(t->err_format, "json") || write_err(&text, e));
}
