/* info: what a model file contains, whether zgen can run it, the memory that it needs, and whether that fits.
 *
 * Every well-formed GGUF file is accepted: where the family, a tensor type or the tokenizer is not
 * supported, it prints why, and the rest all the same.  Names and values come from the file and are escaped.
 * Of the data of tensors only samples are read (zeros.h). */
#include "cli.h"
#include "runner.h"
#include "setup.h"
#include "sha256.h"
#include "show.h"
#include "../base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

typedef struct TypeCount {
    QuantType type;
    int64_t n_tensors;
    uint64_t n_bytes;
} TypeCount;

typedef struct Facts {
    Runner run; // its engine is prepared as by generate, but not loaded; NULL: see why
    Err why;
    const Gguf *g;
    TypeCount *types; // [n_types]
    int n_types;
    double n_weights; // parameters
    GgufString arch, chat_template;
    char digest[65]; // SHA-256 of the template
} Facts;

static void count_types(Facts *f) {
    int64_t n = gguf_n_tensors(f->g);
    f->types = mem_new((size_t)n, sizeof *f->types);
    for (int64_t i = 0; i < n; i++) {
        const GgufTensor *t = gguf_tensor(f->g, i);
        int k = 0;
        while (k < f->n_types && f->types[k].type != t->type) k++;
        if (k == f->n_types) f->types[f->n_types++].type = t->type;
        f->types[k].n_tensors++;
        f->types[k].n_bytes += t->n_bytes;
        f->n_weights += (double)t->ne[0] * (double)t->ne[1] * (double)t->ne[2] * (double)t->ne[3];
    }
}

static bool gather(Facts *f, const char *path, Err *e) {
    Runner *run = &f->run;
    if (!runner_choose(run, e) || !runner_open(run, path, e)) return false;
    f->g = run->model.gguf;
    run->config.n_seq = run->config.R_max = 1;
    run->config.n_ctx = setup_context(run->options->n_ctx, f->g, 0, 0);
    if (!runner_prepare(run, &f->why) && f->why.code != ERR_MODEL) {
        *e = f->why;
        return false;
    }
    if (run->engine) runner_warn_untrained(run, "a context", run->config.n_ctx, "use ");
    Err ignored; // a key of another type counts as missing
    gguf_get_string(f->g, "general.architecture", &f->arch, &ignored);
    gguf_get_string(f->g, "tokenizer.chat_template", &f->chat_template, &ignored);
    sha256_hex(f->chat_template.data, f->chat_template.n, f->digest);
    count_types(f);
    return true;
}

/* Why text cannot be generated, or NULL. */
static const char *obstacle(const Facts *f) {
    return !f->run.engine ? f->why.text : !f->run.model.tok ? f->run.model.tok_err.text : NULL;
}

/* The hyper-parameters are the keys that begin with the architecture and a dot. */
static bool is_hparam(const Facts *f, GgufString key) {
    return f->arch.n && key.n > f->arch.n && memcmp(key.data, f->arch.data, f->arch.n) == 0 &&
           key.data[f->arch.n] == '.';
}

/* ---- as text ---- */

static void line(Buf *out, const char *label, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void line(Buf *out, const char *label, const char *format, ...) {
    char text[1200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    buf_printf(out, "%-14s %s\n", label, text);
}

static void add_key(const Facts *f, int64_t i, size_t skip, size_t max, Buf *out) {
    GgufString key = gguf_key(f->g, i);
    size_t begin = out->n;
    buf_printf(out, "  ");
    show_escape(key.data + skip, key.n - skip, out);
    int used = (int)(out->n - begin);
    buf_printf(out, "%*s", used < 42 ? 42 - used : 1, "");
    gguf_print_value(f->g, i, max, out);
    buf_printf(out, "\n");
}

static void add_file(const Facts *f, Buf *out) {
    int n = gguf_n_shards(f->g);
    Buf label = {0};
    show_escape(gguf_label(f->g), strlen(gguf_label(f->g)), &label);
    line(out, "file", "%.900s: GGUF version %d, %.2f MB in %d file%s", label.data, gguf_version(f->g),
         (double)gguf_n_bytes(f->g) / 1e6, n, n == 1 ? "" : "s");
    for (int64_t i = 0; i < gguf_n_keys(f->g); i++) {
        GgufString key = gguf_key(f->g, i);
        if (key.n != 12 || memcmp(key.data, "general.name", 12) != 0) continue;
        buf_printf(out, "%-14s ", "name");
        gguf_print_value(f->g, i, 200, out);
        buf_printf(out, "\n");
    }
    buf_clear(&label);
    show_escape(f->arch.data, f->arch.n, &label);
    line(out, "architecture", "%.200s", f->arch.n ? label.data : "none is named");
    buf_free(&label);
}

static void add_hparams(const Facts *f, Buf *out) {
    for (int64_t i = 0; i < gguf_n_keys(f->g); i++)
        if (is_hparam(f, gguf_key(f->g, i))) add_key(f, i, f->arch.n + 1, 60, out);
}

static void add_tensors(const Facts *f, Buf *out) {
    line(out, "tensors", "%" PRId64 ", %.0f parameters", gguf_n_tensors(f->g), f->n_weights);
    for (int k = 0; k < f->n_types; k++) {
        const QuantTraits *t = quant_traits(f->types[k].type);
        buf_printf(out, "  %-8s %6" PRId64 " tensors %12.2f MB%s\n", t->name, f->types[k].n_tensors,
                   (double)f->types[k].n_bytes / 1e6, t->decode ? "" : "   not supported");
    }
}

/* Layers that the file has and zgen does not run. */
static void add_nextn(const Facts *f, Buf *out) {
    const Hparams *h = f->run.engine ? &engine_plan(f->run.engine)->hparams : NULL;
    if (h && h->n_nextn > 0)
        line(out, "layers", "%d; %d more, for guesses of further tokens (nextn), %s not run", h->n_layer,
             h->n_nextn, h->n_nextn == 1 ? "is" : "are");
}

static void add_special(const Facts *f, const char *name, int id, Buf *out) {
    if (id < 0) return;
    GgufString text = tok_text(f->run.model.tok, id);
    buf_printf(out, ", %s %d '", name, id);
    show_escape(text.data, text.n < 100 ? text.n : 100, out);
    buf_printf(out, "'");
}

static void add_tokenizer(const Facts *f, Buf *out) {
    const Tok *tok = f->run.model.tok;
    if (!tok) {
        line(out, "tokenizer", "%s", f->run.model.tok_err.text);
        return;
    }
    GgufString pre = tok_pre(tok);
    buf_printf(out, "%-14s %s%s%.*s, %d tokens", "tokenizer", tok_describe(tok),
               pre.n ? ", pre-tokenizer " : "", (int)pre.n, pre.data ? pre.data : "", tok_n_vocab(tok));
    add_special(f, "BOS", tok_bos(tok), out);
    add_special(f, "EOS", tok_eos(tok), out);
    add_special(f, "unknown", tok_unknown(tok), out);
    for (int id = 0; id < tok_n_vocab(tok); id++)
        if (tok_is_eog(tok, id) && id != tok_eos(tok)) add_special(f, "ends at", id, out);
    buf_printf(out, "%s\n", tok_adds_bos(tok) ? "; BOS is added" : "");
}

static void add_memory(const Facts *f, Buf *out) {
    if (!f->run.engine) return;
    ExecMemory m = engine_memory(f->run.engine);
    buf_printf(out, "%-14s ", "memory");
    engine_print_memory(f->run.engine, out);
    buf_printf(out, "\n%-14s ", "fits");
    if (!exec_fits(&m)) {
        buf_printf(out, "no; ");
        engine_print_advice(f->run.engine, out);
    } else if (exec_keeps_weights(&m)) {
        buf_printf(out, "yes, as does any context up to %d tokens", engine_context_that_fits(f->run.engine));
    } else {
        buf_printf(out, "no: parts of the weights would be read from the disk for every token; ");
        engine_print_advice(f->run.engine, out);
    }
    buf_printf(out, "\n");
}

static bool print_text(const Facts *f, Err *e) {
    Buf out = {0};
    add_file(f, &out);
    add_hparams(f, &out);
    add_tensors(f, &out);
    add_nextn(f, &out);
    add_tokenizer(f, &out);
    if (f->chat_template.n)
        line(&out, "chat template", "%zu bytes, sha256 %s", f->chat_template.n, f->digest);
    else
        line(&out, "chat template", "none");
    add_memory(f, &out);
    const char *why = obstacle(f);
    line(&out, "runs", "%s%s", why ? "no: " : "yes", why ? why : "");
    if (f->run.options->keys) {
        line(&out, "metadata", "%" PRId64 " keys", gguf_n_keys(f->g));
        for (int64_t i = 0; i < gguf_n_keys(f->g); i++) add_key(f, i, 0, 200, &out);
    }
    bool ok = out_write(out.data, out.n, e);
    buf_free(&out);
    return ok;
}

/* ---- as JSON ---- */

/* Value i of the metadata; an array of more than LONGEST elements as the beginning of its text. */
static json_t *value_json(const Gguf *g, int64_t i) {
    enum { LONGEST = 64 };
    GgufString name = gguf_key(g, i), string;
    Buf text = {0};
    buf_add(&text, name.data, name.n);
    const int64_t *ints;
    size_t n;
    int64_t number;
    float real;
    bool truth;
    Err ignored;
    json_t *value = NULL;
    if (gguf_get_int(g, text.data, INT64_MIN, INT64_MAX, &number, &ignored))
        value = json_integer(number);
    else if (gguf_get_float(g, text.data, -INFINITY, INFINITY, &real, &ignored))
        value = json_real(real);
    else if (gguf_get_bool(g, text.data, &truth, &ignored))
        value = json_boolean(truth);
    else if (gguf_get_string(g, text.data, &string, &ignored))
        value = show_json(string.data, string.n);
    else if (gguf_get_ints(g, text.data, &ints, &n, &ignored) && n <= LONGEST) {
        value = json_array();
        for (size_t k = 0; k < n; k++) json_array_append_new(value, json_integer(ints[k]));
    }
    buf_clear(&text);
    if (!value) {
        gguf_print_value(g, i, 200, &text);
        value = show_json(text.data, text.n);
    }
    buf_free(&text);
    return value;
}

static json_t *keys_json(const Facts *f, bool is_all) {
    json_t *object = json_object();
    Buf name = {0};
    for (int64_t i = 0; i < gguf_n_keys(f->g); i++) {
        GgufString key = gguf_key(f->g, i);
        if (!is_all && !is_hparam(f, key)) continue;
        size_t skip = is_all ? 0 : f->arch.n + 1;
        buf_clear(&name);
        show_escape(key.data + skip, key.n - skip, &name);
        json_object_set_new(object, name.data, value_json(f->g, i));
    }
    buf_free(&name);
    return object;
}

static json_t *tensors_json(const Facts *f) {
    json_t *types = json_object();
    for (int k = 0; k < f->n_types; k++)
        json_object_set_new(types, quant_traits(f->types[k].type)->name,
                            json_pack("{s:I,s:I}", "tensors", (json_int_t)f->types[k].n_tensors, "bytes",
                                      (json_int_t)f->types[k].n_bytes));
    return types;
}

static json_t *id_or_null(int id) {
    return id >= 0 ? json_integer(id) : json_null();
}

static json_t *tokenizer_json(const Facts *f) {
    const Tok *tok = f->run.model.tok;
    if (!tok)
        return json_pack("{s:o}", "error",
                         show_json(f->run.model.tok_err.text, strlen(f->run.model.tok_err.text)));
    json_t *ends = json_array();
    for (int id = 0; id < tok_n_vocab(tok); id++)
        if (tok_is_eog(tok, id)) json_array_append_new(ends, json_integer(id));
    GgufString pre = tok_pre(tok);
    return json_pack("{s:s,s:o,s:i,s:o,s:o,s:o,s:o,s:b}", "model", tok_model(tok), "pre",
                     pre.n ? show_json(pre.data, pre.n) : json_null(), "tokens", tok_n_vocab(tok), "bos",
                     id_or_null(tok_bos(tok)), "eos", id_or_null(tok_eos(tok)), "unknown",
                     id_or_null(tok_unknown(tok)), "ends", ends, "adds_bos", tok_adds_bos(tok));
}

static json_t *memory_json(const Facts *f) {
    if (!f->run.engine) return json_null();
    ExecMemory m = engine_memory(f->run.engine);
    json_t *object = runner_memory(&f->run);
    json_object_set_new(object, "kv_per_position", json_integer((json_int_t)m.kv_position));
    json_object_set_new(object, "kv_of_windows", json_integer((json_int_t)m.kv_window));
    json_object_set_new(object, "kv_of_states", json_integer((json_int_t)m.kv_state));
    json_object_set_new(object, "n_ctx", json_integer(f->run.config.n_ctx));
    json_object_set_new(object, "fits", json_boolean(exec_fits(&m) && exec_keeps_weights(&m)));
    json_object_set_new(object, "n_ctx_that_fits", json_integer(engine_context_that_fits(f->run.engine)));
    return object;
}

static bool print_json(const Facts *f, Err *e) {
    const char *label = gguf_label(f->g), *why = obstacle(f);
    json_t *root = json_object();
    json_object_set_new(root, "file", show_json(label, strlen(label)));
    json_object_set_new(root, "version", json_integer(gguf_version(f->g)));
    json_object_set_new(root, "shards", json_integer(gguf_n_shards(f->g)));
    json_object_set_new(root, "bytes", json_integer((json_int_t)gguf_n_bytes(f->g)));
    json_object_set_new(root, "architecture", f->arch.n ? show_json(f->arch.data, f->arch.n) : json_null());
    json_object_set_new(root, "hparams", keys_json(f, false));
    json_object_set_new(root, "parameters", json_integer((json_int_t)f->n_weights));
    json_object_set_new(root, "types", tensors_json(f));
    json_object_set_new(root, "tokenizer", tokenizer_json(f));
    json_object_set_new(root, "chat_template",
                        !f->chat_template.n
                            ? json_null()
                            : json_pack("{s:i,s:s}", "bytes", (int)f->chat_template.n, "sha256", f->digest));
    json_object_set_new(root, "memory", memory_json(f));
    json_object_set_new(root, "runs", json_boolean(!why));
    if (why) json_object_set_new(root, "obstacle", show_json(why, strlen(why)));
    if (f->run.options->keys) json_object_set_new(root, "metadata", keys_json(f, true));
    return show_write(root, e);
}

/* ---- the command ---- */

/* The tape of an executor can be printed where that executor cannot run. */
static bool print_plan(Runner *run, const char *path, Err *e) {
    if (!runner_choose(run, e) || !runner_open(run, path, e)) return false;
    Plan *plan = engine_build_plan(&run->model, &run->config, e);
    if (!plan) return false;
    Buf text = {0};
    plan_print(plan, kv_element_bytes(run->config.kv_type), &text);
    bool ok = options_json(run->options)
                  ? show_write(json_pack("{s:o}", "plan", show_json(text.data, text.n)), e)
                  : out_write(text.data, text.n, e);
    buf_free(&text);
    plan_free(plan);
    return ok;
}

static bool print_facts(Facts *f, const char *path, Err *e) {
    return gather(f, path, e) && (options_json(f->run.options) ? print_json(f, e) : print_text(f, e));
}

bool cmd_info(const Options *o, Err *e) {
    if (o->n_rest > 1 || (o->n_rest && o->model))
        return err_set(e, ERR_USAGE, "unexpected argument '%.100s'; info takes one model",
                       o->rest[o->n_rest - 1]);
    Facts f = {.run = {.options = o}};
    const char *path = o->n_rest ? o->rest[0] : o->model;
    bool ok = o->plan ? print_plan(&f.run, path, e) : print_facts(&f, path, e);
    runner_close(&f.run);
    free(f.types);
    return ok;
}
