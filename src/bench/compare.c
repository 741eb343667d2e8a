/* compare: zgen bench --compare A B: the speeds in B as multiples of those in A.
 *
 * Reads what zgen bench, llama-bench and llama-batched-bench print with -o jsonl (or json).  Two results are
 * partners when model, test and cache types agree; several such results are paired in the order of the files,
 * so that lists of threads or of batch sizes can be compared.  The ratio is that of the means; its spread
 * follows from the standard deviations of both sets of samples, taken as independent, to first order:
 *
 *     ratio = b / a        spread = ratio * sqrt((sd_a / a)^2 + (sd_b / b)^2) */
#include "bench.h"
#include "model_type.h"
#include "table.h"
#include "../cli/prompt.h"
#include "../cli/show.h"
#include "../base/mem.h"
#include "../base/stat.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct Result {
    char model[80], test[60], types[40]; // types of keys and values
    double mean, deviation;              // tokens per second
    bool is_paired;
} Result;

typedef struct Results {
    const char *path;
    Result *data; // [n]
    int n;
} Results;

/* ---- reading ---- */

static int read_int(const json_t *row, const char *key) {
    return (int)json_integer_value(json_object_get(row, key));
}

static double read_real(const json_t *row, const char *key) {
    return json_number_value(json_object_get(row, key));
}

static void read_text(const json_t *row, const char *key, char *out, size_t size) {
    const char *text = json_string_value(json_object_get(row, key));
    snprintf(out, size, "%s", text ? text : "");
}

/* The model as zgen bench names it: llama-bench prints "?B" for a size without a name, or the name of another one, and
 * either program may have guessed the file type. */
static void read_model(const json_t *row, char *out, size_t size) {
    static const char guessed[] = "(guessed) ";
    char model[80], arch[80], label[80];
    Buf name = {0};
    int rest = 0;
    double n_params = read_real(row, "model_n_params");
    read_text(row, "model_type", model, sizeof model);
    char *at = strstr(model, guessed);
    if (at) memmove(at, at + strlen(guessed), strlen(at + strlen(guessed)) + 1);
    if (n_params > 0 && sscanf(model, "%79s %79s%n", arch, label, &rest) == 2) {
        buf_printf(&name, "%s ", arch);
        bench_true_size(label, n_params, &name);
        buf_printf(&name, "%s", model + rest);
    } else {
        buf_printf(&name, "%s", model);
    }
    snprintf(out, size, "%s", name.data);
    buf_free(&name);
}

static void add(Results *r, Result result) {
    if (!(result.mean > 0)) return;
    r->data = mem_resize(r->data, (size_t)(r->n + 1) * sizeof *r->data);
    r->data[r->n++] = result;
}

/* The mean and deviation of the samples, or those that the row names. */
static void read_rate(const json_t *row, Result *out) {
    const json_t *samples = json_object_get(row, "samples_ts");
    int n = (int)json_array_size(samples);
    double *x = mem_new((size_t)n, sizeof *x);
    for (int i = 0; i < n; i++) x[i] = json_number_value(json_array_get(samples, (size_t)i));
    out->mean = n ? stat_mean(x, n) : read_real(row, "avg_ts");
    out->deviation = n ? stat_deviation(x, n) : read_real(row, "stddev_ts");
    free(x);
}

static void add_plain(Results *r, const json_t *row) {
    Result result = {0};
    char k[16], v[16];
    read_model(row, result.model, sizeof result.model);
    read_text(row, "type_k", k, sizeof k);
    read_text(row, "type_v", v, sizeof v);
    snprintf(result.types, sizeof result.types, "%s %s", k, v);
    Buf test = {0};
    bench_add_test(&test, read_int(row, "n_prompt"), read_int(row, "n_gen"), read_int(row, "n_depth"));
    snprintf(result.test, sizeof result.test, "%s", test.n ? test.data : "");
    buf_free(&test);
    read_rate(row, &result);
    add(r, result);
}

/* llama-batched-bench prints neither the model nor the deviation of its times. */
static void add_batch(Results *r, const json_t *row) {
    int pl = read_int(row, "pl");
    for (int g = 0; g < 2; g++) {
        Result result = {.mean = read_real(row, g ? "speed_tg" : "speed_pp"),
                         .deviation = read_real(row, g ? "stddev_tg" : "stddev_pp")};
        snprintf(result.test, sizeof result.test, "%s%d x %d", g ? "tg" : "pp",
                 read_int(row, g ? "tg" : "pp"), pl);
        add(r, result);
    }
}

static void add_row(Results *r, const json_t *row) {
    if (json_object_get(row, "pl"))
        add_batch(r, row);
    else
        add_plain(r, row);
}

static bool parse(Results *r, const Buf *text, Err *e) {
    json_error_t why;
    for (size_t at = 0, line = 1; at < text->n; line++) {
        size_t n = strcspn(text->data + at, "\n");
        bool is_array = text->data[at] == '[';
        if (is_array) n = text->n - at;
        bool is_blank = strspn(text->data + at, " \t\r") >= n;
        json_t *row = is_blank ? NULL : json_loadb(text->data + at, n, 0, &why);
        if (!is_blank && !row)
            return err_set(e, ERR_RUN, "%s: line %zu is not JSON (%s); --compare reads -o jsonl and -o json",
                           r->path, line, why.text);
        for (size_t i = 0; i < json_array_size(row); i++) add_row(r, json_array_get(row, i));
        if (json_is_object(row)) add_row(r, row);
        json_decref(row);
        at += n + 1;
    }
    return r->n > 0 ||
           err_set(e, ERR_RUN, "%s: there are no results; --compare reads -o jsonl and -o json", r->path);
}

static bool read_results(const char *path, Results *out, Err *e) {
    Buf text = {0};
    *out = (Results){.path = path};
    bool ok = prompt_read_file(path, "results", &text, e);
    if (ok) buf_add(&text, "", 0);
    ok = ok && parse(out, &text, e);
    buf_free(&text);
    return ok;
}

/* ---- partners ---- */

static const BenchColumn columns[] = {
    {"model", -30}, {"test", 18}, {"A t/s", 20}, {"B t/s", 20}, {"B / A", 15}};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

static bool print_pair(BenchTable *t, const Result *a, const Result *b, Err *e) {
    double ratio = b->mean / a->mean, x = a->deviation / a->mean, y = b->deviation / b->mean;
    double spread = ratio * sqrt(x * x + y * y);
    Buf cells[N_COLUMNS] = {0};
    buf_printf(&cells[0], "%s", a->model);
    buf_printf(&cells[1], "%s", a->test);
    buf_printf(&cells[2], "%.2f ± %.2f", a->mean, a->deviation);
    buf_printf(&cells[3], "%.2f ± %.2f", b->mean, b->deviation);
    buf_printf(&cells[4], "%.3f ± %.3f", ratio, spread);
    json_t *object =
        json_pack("{s:o,s:o,s:f,s:f,s:f,s:f,s:f,s:f}", "model_type", show_json(a->model, strlen(a->model)),
                  "test", show_json(a->test, strlen(a->test)), "a_ts", a->mean, "a_stddev", a->deviation,
                  "b_ts", b->mean, "b_stddev", b->deviation, "ratio", ratio, "spread", spread);
    bool ok = bench_table_row(t, cells, object, e);
    for (int i = 0; i < N_COLUMNS; i++) buf_free(&cells[i]);
    return ok;
}

static Result *find_partner(const Result *a, Results *b) {
    for (int i = 0; i < b->n; i++) {
        Result *r = &b->data[i];
        if (!r->is_paired && strcmp(a->test, r->test) == 0 && strcmp(a->model, r->model) == 0 &&
            strcmp(a->types, r->types) == 0)
            return r;
    }
    return NULL;
}

static void warn_alone(const Results *r, const char *other) {
    for (int i = 0; i < r->n; i++)
        if (!r->data[i].is_paired)
            err_warn("%s: %s%s%s has no partner in %s", r->path, r->data[i].model,
                     r->data[i].model[0] ? " " : "", r->data[i].test, other);
}

static bool compare(const BenchOptions *o, Results *a, Results *b, Err *e) {
    BenchTable t = {
        .format = o->format, .err_format = o->err_format, .columns = columns, .n_columns = N_COLUMNS};
    bool ok = true;
    int n = 0;
    for (int i = 0; i < a->n; i++) n += find_partner(&a->data[i], b) != NULL;
    if (n == 0) return err_set(e, ERR_RUN, "%s and %s have no model and test in common", a->path, b->path);
    for (int i = 0; ok && i < a->n; i++) {
        Result *partner = find_partner(&a->data[i], b);
        if (!partner) continue;
        a->data[i].is_paired = partner->is_paired = true;
        ok = print_pair(&t, &a->data[i], partner, e);
    }
    ok = bench_table_end(&t, e) && ok;
    if (ok) warn_alone(a, b->path);
    if (ok) warn_alone(b, a->path);
    return ok;
}

bool bench_compare(const Options *o, Err *e) {
    if (o->n_rest != 2)
        return err_set(e, ERR_USAGE, "the arguments are two files: zgen bench --compare A.jsonl B.jsonl");
    Results a = {0}, b = {0};
    bool ok =
        read_results(o->rest[0], &a, e) && read_results(o->rest[1], &b, e) && compare(&o->bench, &a, &b, e);
    free(a.data);
    free(b.data);
    return ok;
}
