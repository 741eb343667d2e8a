/* changes: see changes.h. */
#include "changes.h"
#include "../base/mem.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* name: n bytes, copied; and so is the text of a value. */
static void add_key(ModelChanges *c, const char *name, size_t n, GgufScalar value) {
    ModelKey added = {.name = mem_new(n + 1, 1), .value = value};
    memcpy(added.name, name, n);
    if (value.kind == GGUF_STRING) added.value.text = mem_string(value.text);
    c->keys = mem_resize(c->keys, ((size_t)c->n_keys + 1) * sizeof *c->keys);
    c->keys[c->n_keys++] = added;
}

void changes_free(ModelChanges *c) {
    for (int i = 0; i < c->n_keys; i++) {
        if (c->keys[i].value.kind == GGUF_STRING) free((char *)c->keys[i].value.text);
        free(c->keys[i].name);
    }
    free(c->keys);
    *c = (ModelChanges){0};
}

/* ---- --override-kv ---- */

static const char *const TYPES[] = {
    [GGUF_INT] = "int", [GGUF_FLOAT] = "float", [GGUF_BOOL] = "bool", [GGUF_STRING] = "str"};
enum { N_TYPES = sizeof TYPES / sizeof *TYPES };

/* The type in front of a colon at text, or -1. */
static int find_type(const char *text) {
    size_t n = strcspn(text, ":");
    for (int i = 0; text[n] && i < N_TYPES; i++)
        if (strlen(TYPES[i]) == n && memcmp(TYPES[i], text, n) == 0) return i;
    return -1;
}

/* Whether text begins with KEY=TYPE:. */
static bool is_change(const char *text) {
    size_t n = strcspn(text, "=,");
    return n > 0 && text[n] == '=' && find_type(text + n + 1) >= 0;
}

/* The end of the change at text: a comma in front of the next change.  Other commas belong to a value. */
static const char *end_of(const char *text) {
    const char *comma = strchr(text, ',');
    while (comma && !is_change(comma + 1)) comma = strchr(comma + 1, ',');
    return comma ? comma : text + strlen(text);
}

static bool is_number(const char *text, const char *letters, const char *end) {
    return end != text && *end == 0 && errno == 0 && strspn(text, letters) == strlen(text);
}

/* out->kind is set.  The text of a string is the caller's. */
static bool read_value(const char *text, GgufScalar *out) {
    char *end = (char *)text;
    errno = 0;
    switch (out->kind) {
    case GGUF_INT:
        out->integer = strtoll(text, &end, 10);
        return is_number(text, "+-0123456789", end);
    case GGUF_FLOAT:
        out->number = strtod(text, &end);
        return is_number(text, "+-.0123456789eE", end) && fabs(out->number) <= 3.4e38;
    case GGUF_BOOL:
        out->flag = strcmp(text, "true") == 0;
        return out->flag || strcmp(text, "false") == 0;
    case GGUF_STRING:
        out->text = text;
        return true;
    }
    return false;
}

/* change: KEY=TYPE:VALUE and nothing behind it. */
static bool read_change(const char *change, ModelChanges *c, Err *e) {
    if (!is_change(change))
        return err_set(e, ERR_USAGE,
                       "option --override-kv: '%.100s' is not KEY=TYPE:VALUE; the types are int, float, bool "
                       "and str",
                       change);
    size_t n = strcspn(change, "=");
    const char *type = change + n + 1, *value = strchr(type, ':') + 1;
    GgufScalar scalar = {.kind = (unsigned)find_type(type)};
    if (!read_value(value, &scalar))
        return err_set(e, ERR_USAGE, "option --override-kv: '%.100s' is not a value of type %s, for %.100s",
                       value, TYPES[scalar.kind], change);
    add_key(c, change, n, scalar);
    return true;
}

static bool read_changes(const char *text, ModelChanges *c, Err *e) {
    bool ok = true;
    for (bool more = true; ok && more;) {
        const char *end = end_of(text);
        char *change = mem_string(text);
        change[end - text] = 0;
        ok = read_change(change, c, e);
        free(change);
        more = *end == ',';
        text = end + more;
    }
    return ok;
}

/* ---- rotation ---- */

static void add_number(ModelChanges *c, const char *name, double x) {
    add_key(c, name, strlen(name), (GgufScalar){.kind = GGUF_FLOAT, .number = x});
}

static void add_rope(const RopeOptions *r, ModelChanges *c) {
    float factor = r->scale > 0 ? r->scale : r->freq_scale > 0 ? 1 / r->freq_scale : 0;
    const struct {
        const char *key;
        double value;
        bool is_given;
    } numbers[] = {
        {".rope.freq_base", (double)r->freq_base, r->freq_base > 0},
        {".rope.scaling.factor", (double)factor, factor > 0},
        {".rope.scaling.yarn_ext_factor", (double)r->yarn_ext_factor, r->yarn_ext_factor >= 0},
        {".rope.scaling.attn_factor", (double)r->yarn_attn_factor, r->yarn_attn_factor > 0},
        {".rope.scaling.yarn_beta_slow", (double)r->yarn_beta_slow, r->yarn_beta_slow > 0},
        {".rope.scaling.yarn_beta_fast", (double)r->yarn_beta_fast, r->yarn_beta_fast > 0},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].is_given) add_number(c, numbers[i].key, numbers[i].value);
    static const char type[] = ".rope.scaling.type", context[] = ".rope.scaling.original_context_length";
    if (r->scaling) add_key(c, type, sizeof type - 1, (GgufScalar){.kind = GGUF_STRING, .text = r->scaling});
    if (r->yarn_orig_ctx > 0)
        add_key(c, context, sizeof context - 1, (GgufScalar){.kind = GGUF_INT, .integer = r->yarn_orig_ctx});
}

/* ---- the whole ---- */

bool changes_read(const Options *o, ModelChanges *out, Err *e) {
    *out = (ModelChanges){.pre = o->pre};
    bool ok = true;
    if (o->rope.scale > 0 && o->rope.freq_scale > 0)
        ok = err_set(e, ERR_USAGE, "--rope-scale N is the same as --rope-freq-scale 1/N; drop one of them");
    for (int i = 0; ok && i < o->n_override; i++) ok = read_changes(o->override[i], out, e);
    add_rope(&o->rope, out);
    return ok;
}

bool changes_open(const Options *o, const char *path, Model *out, Err *e) {
    ModelChanges changes;
    *out = (Model){0};
    bool ok = changes_read(o, &changes, e) && model_open_as(path, &changes, out, e);
    changes_free(&changes);
    return ok;
}
