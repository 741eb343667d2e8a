/* quantize: writes a model with weights of another type, and reports the size and the error.
 *
 * TYPE is a mix; options choose types of single tensors, an importance matrix, and several files in place of
 * one.  --dry-run reports what would be written.
 *
 * stdout gets a line for each type, or with --json an object:
 *
 *     {"in", "out", "type", "bytes_in", "bytes_out", "bits_per_weight", "seconds",
 *      "types": {NAME: {"tensors", "weights", "bytes", "rmse", "relative"}},
 *      "tensors": [{"name", "shape", "from", "to", "bytes", "rmse", "relative"}]}
 *
 * rmse is the root of the mean squared error of a weight; relative is rmse divided by the root mean square of
 * the weights.  Both are null for tensors that were copied, and with --dry-run, where "out" may be null. */
#include "cli.h"
#include "convert.h"
#include "show.h"
#include "stop.h"
#include "../gguf/file_type.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- the report ---------------------------------------------------------------------------------------- */

typedef struct Total {                         // over tensors
    int64_t n_tensors, n_weights, n_converted; // n_converted: weights
    uint64_t n_bytes;
    double error, value; // sums of squares over the converted weights
} Total;

static int64_t n_weights(const Quantized *t) {
    const int64_t *ne = t->source->ne;
    return ne[0] * ne[1] * ne[2] * ne[3];
}

static void add(Total *total, const Quantized *t) {
    double n = (double)n_weights(t);
    total->n_tensors++;
    total->n_weights += n_weights(t);
    total->n_bytes += t->n_bytes;
    if (isnan(t->rmse)) return;
    total->n_converted += n_weights(t);
    total->error += n * t->rmse * t->rmse;
    total->value += n * t->rms * t->rms;
}

/* Over the tensors of one type; NULL: over all tensors. */
static Total sum_of(const Quantize *q, const QuantType *type) {
    Total total = {0};
    for (int64_t i = 0; i < quantize_n_tensors(q); i++)
        if (!type || quantize_tensor(q, i)->to == *type) add(&total, quantize_tensor(q, i));
    return total;
}

/* NAN: no tensor was converted. */
static double rmse(const Total *t) {
    return t->n_converted ? sqrt(t->error / (double)t->n_converted) : NAN;
}

/* NAN: all converted weights are zero, or none was converted. */
static double relative(const Total *t) {
    return t->value > 0 ? sqrt(t->error / t->value) : NAN;
}

static void print_total(const char *name, const Total *t, Buf *out) {
    buf_printf(out, "%-8s %7" PRId64 " %14" PRId64 " %12.1f %11.3f", name, t->n_tensors, t->n_weights,
               (double)t->n_bytes / 1e6, 8 * (double)t->n_bytes / (double)t->n_weights);
    if (!isnan(rmse(t))) buf_printf(out, " %11.4g %8.2f %%", rmse(t), 100 * relative(t));
    buf_printf(out, "\n");
}

/* Moves *id up to the next type that a tensor has.  false: there is none. */
static bool next_type(const Quantize *q, uint32_t *id, Total *out) {
    for (; *id <= QUANT_FP8_E4M3; ++*id) {
        QuantType type = (QuantType)*id;
        *out = sum_of(q, &type);
        if (out->n_tensors) return true;
    }
    return false;
}

static bool report_text(const Convert *w, Err *e) {
    Buf text = {0};
    Total total;
    buf_printf(&text, "%-8s %7s %14s %12s %11s %11s %10s\n", "type", "tensors", "weights", "MB",
               "bits/weight", "RMSE", "relative");
    for (uint32_t id = 0; next_type(w->quantize, &id, &total); id++)
        print_total(quant_traits(id)->name, &total, &text);
    total = sum_of(w->quantize, NULL);
    print_total("all", &total, &text);
    bool ok = out_write(text.data, text.n, e);
    buf_free(&text);
    return ok;
}

static json_t *tensor_json(const Quantized *t) {
    json_t *shape = json_array();
    for (int i = 0; i < t->source->n_dims; i++) json_array_append_new(shape, json_integer(t->source->ne[i]));
    return json_pack("{s:o,s:o,s:s,s:s,s:I,s:o,s:o}", "name",
                     show_json(t->source->name, strlen(t->source->name)), "shape", shape, "from",
                     quant_traits(t->from)->name, "to", quant_traits(t->to)->name, "bytes",
                     (json_int_t)t->n_bytes, "rmse", show_number(t->rmse), "relative",
                     show_number(t->rms > 0 ? t->rmse / t->rms : NAN));
}

static json_t *types_json(const Quantize *q) {
    json_t *types = json_object();
    Total t;
    for (uint32_t id = 0; next_type(q, &id, &t); id++)
        json_object_set_new(types, quant_traits(id)->name,
                            json_pack("{s:I,s:I,s:I,s:o,s:o}", "tensors", (json_int_t)t.n_tensors, "weights",
                                      (json_int_t)t.n_weights, "bytes", (json_int_t)t.n_bytes, "rmse",
                                      show_number(rmse(&t)), "relative", show_number(relative(&t))));
    return types;
}

static bool report_json(const Convert *w, Err *e) {
    json_t *tensors = json_array();
    for (int64_t i = 0; i < quantize_n_tensors(w->quantize); i++)
        json_array_append_new(tensors, tensor_json(quantize_tensor(w->quantize, i)));
    Total total = sum_of(w->quantize, NULL);
    return show_write(json_pack("{s:o,s:o,s:s,s:I,s:I,s:o,s:f,s:o,s:o}", "in",
                                show_json(w->in, strlen(w->in)), "out",
                                w->out ? show_json(w->out, strlen(w->out)) : json_null(), "type",
                                w->task.mix->name, "bytes_in", (json_int_t)gguf_n_bytes(w->model.gguf),
                                "bytes_out", (json_int_t)quantize_bytes(w->quantize), "bits_per_weight",
                                show_number(8 * (double)total.n_bytes / (double)total.n_weights), "seconds",
                                w->seconds, "types", types_json(w->quantize), "tensors", tensors),
                      e);
}

/* With -v: a line for each tensor. */
static void report_tensors(const Convert *w) {
    for (int64_t i = 0; w->options->notices.verbose && i < quantize_n_tensors(w->quantize); i++) {
        const Quantized *t = quantize_tensor(w->quantize, i);
        Buf line = {0};
        show_escape(t->source->name, strlen(t->source->name), &line);
        buf_printf(&line, " [");
        for (int k = 0; k < t->source->n_dims; k++)
            buf_printf(&line, "%s%" PRId64, k ? ", " : "", t->source->ne[k]);
        buf_printf(&line, "] %s", quant_traits(t->from)->name);
        if (t->from != t->to) buf_printf(&line, " to %s", quant_traits(t->to)->name);
        if (t->is_weighed) buf_printf(&line, ", weighed");
        if (!isnan(t->rmse)) buf_printf(&line, ", RMSE %.4g", t->rmse);
        if (t->from != t->to && t->rms > 0) buf_printf(&line, ", %.2f %%", 100 * t->rmse / t->rms);
        notice(&w->options->notices, "%s", line.data);
        buf_free(&line);
    }
}

/* What the name of a mix does not say: rows that are no multiple of its blocks. */
static void warn_narrow(const Quantize *q) {
    const Quantized *first = NULL;
    int64_t n = 0, n_matrices = 0;
    for (int64_t i = 0; i < quantize_n_tensors(q); i++) {
        const Quantized *t = quantize_tensor(q, i);
        n_matrices += t->source->ne[1] > 1;
        n += t->wanted != t->to;
        if (t->wanted != t->to && !first) first = t;
    }
    if (!first) return;
    Total total = sum_of(q, NULL);
    err_warn("%" PRId64 " of %" PRId64
             " matrices have rows that are no multiple of the blocks of their type (%s: %" PRId64
             " weights, %s needs %d) and get another one (%s); the model has %.2f bits per weight",
             n, n_matrices, first->source->name, first->source->ne[0], quant_traits(first->wanted)->name,
             quant_traits(first->wanted)->n_weights, quant_traits(first->to)->name,
             8 * (double)total.n_bytes / (double)total.n_weights);
}

/* How much of the model the importance matrix is for. */
static void report_importance(const Convert *c) {
    int64_t n = 0, n_weighed = 0;
    for (int64_t i = 0; i < quantize_n_tensors(c->quantize); i++) {
        const Quantized *t = quantize_tensor(c->quantize, i);
        n += t->from != t->to;
        n_weighed += t->is_weighed;
    }
    if (c->task.importance)
        notice(&c->options->notices, "%s: importance of %" PRId64 " of %" PRId64 " tensors",
               c->task.importance_path, n_weighed, n);
}

static bool report(const Convert *c, Err *e) {
    report_tensors(c);
    report_importance(c);
    notice(&c->options->notices, "%s: %s, %.3f GB instead of %.3f GB, in %.1f s",
           c->options->quantize.dry_run ? "nothing is written" : c->names[0], c->task.mix->name,
           (double)quantize_bytes(c->quantize) / 1e9, (double)gguf_n_bytes(c->model.gguf) / 1e9, c->seconds);
    if (options_json(c->options)) return report_json(c, e);
    return c->options->notices.quiet || report_text(c, e);
}

/* ---- the command --------------------------------------------------------------------------------------- */

static bool find_mix(const char *name, const Mix **out, Err *e) {
    Buf known = {0};
    *out = mix_find(name);
    mix_list(true, &known);
    bool is_read = file_type_number(name) >= 0;
    bool ok = *out || err_set(e, ERR_USAGE, "zgen %s the type '%.100s'; types: %s",
                              is_read ? "reads, but does not write" : "cannot write", name, known.data);
    buf_free(&known);
    return ok;
}

/* A number of threads behind the type, as llama-quantize takes it; 0: the argument is none. */
static int read_threads(const char *argument) {
    enum { MOST = 1024 };
    size_t n = strlen(argument);
    bool is_number = n > 0 && n <= 4 && strspn(argument, "0123456789") == n;
    return is_number && atoi(argument) <= MOST ? atoi(argument) : 0;
}

static bool read_arguments(Convert *c, Err *e) {
    const Options *o = c->options;
    int n = o->n_rest;
    c->n_threads = n > 2 ? read_threads(o->rest[n - 1]) : 0;
    n -= c->n_threads > 0;
    bool no_out = o->quantize.dry_run && n == 2;
    if (n != 3 && !no_out) {
        Buf known = {0};
        mix_list(true, &known);
        err_set(e, ERR_USAGE, "the arguments are two files and a type: zgen quantize IN OUT TYPE; types: %s",
                known.data);
        buf_free(&known);
        return false;
    }
    c->in = o->rest[0];
    c->out = no_out ? NULL : o->rest[1];
    return find_mix(o->rest[n - 1], &c->task.mix, e);
}

static bool read_wishes(const QuantizeOptions *o, MixWishes *out, Err *e) {
    QuantType type;
    *out = mix_no_wishes();
    out->pure = o->pure;
    out->keep_output = o->keep_output;
    if (o->embd_type) {
        if (!mix_read_type("--token-embedding-type", o->embd_type, &type, e)) return false;
        out->embd = (int)type;
    }
    if (o->output_type) {
        if (!mix_read_type("--output-tensor-type", o->output_type, &type, e)) return false;
        out->output = (int)type;
    }
    for (int i = 0; i < o->n_rules; i++)
        if (!mix_add_rule(out, o->rules[i], e)) return false;
    return true;
}

static bool read_task(Convert *c, Imatrix *importance, Err *e) {
    const QuantizeOptions *o = &c->options->quantize;
    QuantizeTask *t = &c->task;
    if (!read_wishes(o, &t->wishes, e)) return false;
    if (o->keep_split && o->split_max_size)
        return err_set(e, ERR_USAGE, "--keep-split and --split-max-size exclude each other");
    if (o->split_max_size && !convert_read_size(o->split_max_size, &t->split.max_bytes, e)) return false;
    t->split.as_source = o->keep_split;
    t->requantize = o->requantize;
    if (!o->imatrix) return true;
    t->importance = importance;
    t->importance_path = o->imatrix;
    return imatrix_open(o->imatrix, importance, e);
}

bool cmd_quantize(const Options *o, Err *e) {
    Convert c = {.options = o, .what = "quantizing"};
    Imatrix importance = {0};
    stop_install();
    c.task.wishes = mix_no_wishes();
    bool ok = read_arguments(&c, e) && read_task(&c, &importance, e) && convert_open(&c, e);
    if (ok) warn_narrow(c.quantize);
    ok = ok && (o->quantize.dry_run || convert_write(&c, e)) && report(&c, e);
    convert_close(&c);
    mix_wishes_free(&c.task.wishes);
    imatrix_close(&importance);
    return ok;
}
