/* quantize: writes a model with weights of another type, and reports the size and the error.
 *
 * stdout gets a line for each type, or with --json an object:
 *
 *     {"in", "out", "type", "bytes_in", "bytes_out", "bits_per_weight", "seconds",
 *      "types": {NAME: {"tensors", "weights", "bytes", "rmse", "relative"}},
 *      "tensors": [{"name", "shape", "from", "to", "bytes", "rmse", "relative"}]}
 *
 * rmse is the root of the mean squared error of a weight; relative is rmse divided by the root mean square of
 * the weights.  Both are null for tensors that were copied. */
#include "atomic_file.h"
#include "cli.h"
#include "progress.h"
#include "show.h"
#include "stop.h"
#include "../base/clock.h"
#include "../base/pool.h"
#include "../gguf/file_type.h"
#include "../gguf/zeros.h"
#include "../run/quantize.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

typedef struct Work {
    const Options *options;
    const char *in, *out;
    const Mix *mix;
    Gguf *gguf;
    Quantize *quantize;
    Progress progress;
    double seconds;
} Work;

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

static bool report_text(const Work *w, Err *e) {
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

static bool report_json(const Work *w, Err *e) {
    json_t *tensors = json_array();
    for (int64_t i = 0; i < quantize_n_tensors(w->quantize); i++)
        json_array_append_new(tensors, tensor_json(quantize_tensor(w->quantize, i)));
    Total total = sum_of(w->quantize, NULL);
    return show_write(json_pack("{s:o,s:o,s:s,s:I,s:I,s:o,s:f,s:o,s:o}", "in",
                                show_json(w->in, strlen(w->in)), "out", show_json(w->out, strlen(w->out)),
                                "type", w->mix->name, "bytes_in", (json_int_t)gguf_n_bytes(w->gguf),
                                "bytes_out", (json_int_t)quantize_bytes(w->quantize), "bits_per_weight",
                                show_number(8 * (double)total.n_bytes / (double)total.n_weights), "seconds",
                                w->seconds, "types", types_json(w->quantize), "tensors", tensors),
                      e);
}

/* With -v: a line for each tensor. */
static void report_tensors(const Work *w) {
    for (int64_t i = 0; w->options->notices.verbose && i < quantize_n_tensors(w->quantize); i++) {
        const Quantized *t = quantize_tensor(w->quantize, i);
        Buf line = {0};
        show_escape(t->source->name, strlen(t->source->name), &line);
        buf_printf(&line, " [");
        for (int k = 0; k < t->source->n_dims; k++)
            buf_printf(&line, "%s%" PRId64, k ? ", " : "", t->source->ne[k]);
        buf_printf(&line, "] %s", quant_traits(t->from)->name);
        if (t->from != t->to) buf_printf(&line, " to %s, RMSE %.4g", quant_traits(t->to)->name, t->rmse);
        if (t->from != t->to && t->rms > 0) buf_printf(&line, ", %.2f %%", 100 * t->rmse / t->rms);
        notice(&w->options->notices, "%s", line.data);
        buf_free(&line);
    }
}

static bool report(const Work *w, Err *e) {
    report_tensors(w);
    notice(&w->options->notices, "%s: %s, %.3f GB instead of %.3f GB, in %.1f s", w->out, w->mix->name,
           (double)quantize_bytes(w->quantize) / 1e9, (double)gguf_n_bytes(w->gguf) / 1e9, w->seconds);
    if (options_json(w->options)) return report_json(w, e);
    return w->options->notices.quiet || report_text(w, e);
}

/* ---- the command --------------------------------------------------------------------------------------- */

static bool check(Work *w, const Options *o, Err *e) {
    Buf known = {0};
    mix_list(true, &known);
    bool ok = o->n_rest == 3;
    if (!ok) {
        err_set(e, ERR_USAGE, "the arguments are two files and a type: zgen quantize IN OUT TYPE; types: %s",
                known.data);
    } else {
        w->options = o;
        w->in = o->rest[0];
        w->out = o->rest[1];
        w->mix = mix_find(o->rest[2]);
        bool is_read = file_type_number(o->rest[2]) >= 0;
        ok = (w->mix && mix_can_encode(w->mix)) ||
             err_set(e, ERR_USAGE, "zgen %s the type '%.100s'; types: %s",
                     is_read ? "reads, but does not write" : "cannot write", o->rest[2], known.data);
    }
    buf_free(&known);
    return ok;
}

static bool go_on(void *arg, double share) {
    progress_show(arg, share);
    return !stop_wanted();
}

static bool write_file(Work *w, Err *e) {
    int n_threads = w->options->n_threads > 0 ? w->options->n_threads : pool_cpus();
    double begun = clock_now();
    AtomicFile file;
    zeros_warn(w->gguf);
    if (!atomic_file_open(&file, w->out, e)) return false;
    progress_begin(&w->progress, &w->options->notices, "quantizing");
    bool ok = quantize_run(w->quantize, file.fd, w->out, n_threads, go_on, &w->progress, e);
    progress_end(&w->progress);
    if (stop_wanted()) ok = stop_err(e);
    ok = atomic_file_close(&file, ok, e);
    w->seconds = clock_now() - begun;
    return ok;
}

bool cmd_quantize(const Options *o, Err *e) {
    Work w = {0};
    stop_install();
    bool ok = check(&w, o, e) && gguf_open(w.in, &w.gguf, e) &&
              quantize_open(w.gguf, w.mix, o->requantize, &w.quantize, e) && write_file(&w, e) &&
              report(&w, e);
    quantize_close(w.quantize);
    gguf_close(w.gguf);
    return ok;
}
