/* weight: see weight.h. */
#include "weight.h"
#include "../base/mem.h"
#include "../base/pool.h"
#include "../gguf/encode.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Node { // matrices and vectors live in lists, so that pointers to them stay valid
    struct Node *next;
    Weight matrix;
    Weight source; // what a conversion is made from; its name is NULL where there is none
    uint8_t *copy; // the result of the conversion
    int first;     // row of the tensor, of each expert, with which the matrix begins
    const uint8_t **experts;
    float vector[];
} Node;

struct Weights {
    const Gguf *g;
    bool fp8;   // I8 tensors are E4M3
    bool *used; // [n_tensors]
    Node *nodes;
    const char *const *optional; // while tensors are recorded, otherwise NULL
    GgufTensor *recorded;
    int n_recorded;
};

Weights *weights_open(const Gguf *g) {
    Weights *w = mem_new(1, sizeof *w);
    w->g = g;
    w->used = mem_new((size_t)gguf_n_tensors(g), sizeof *w->used);
    GgufString format = {0};
    Err ignored;
    w->fp8 = gguf_get_string(g, "zgen.fp8.format", &format, &ignored) && format.n == 4 &&
             memcmp(format.data, "e4m3", 4) == 0;
    return w;
}

static size_t n_rows(const Weight *m) {
    return (size_t)m->n_expert * (size_t)m->n_out;
}

/* Row r of all experts' rows. */
static const uint8_t *row_of(const Weight *m, size_t r) {
    size_t n_out = (size_t)m->n_out;
    return weight_rows(m, (int)(r / n_out)) + r % n_out * m->row_bytes;
}

static size_t matrix_bytes(const Weight *m) {
    return m->row_bytes * n_rows(m);
}

void weights_close(Weights *w) {
    if (!w) return;
    for (Node *n = w->nodes, *next; n; n = next) {
        next = n->next;
        if (n->copy) mem_release(n->copy, matrix_bytes(&n->matrix));
        free(n->experts);
        free(n);
    }
    for (int i = 0; i < w->n_recorded; i++) free(w->recorded[i].name);
    free(w->recorded);
    free(w->used);
    free(w);
}

static Node *add_node(Weights *w, size_t n_floats) {
    Node *n = mem_new(1, sizeof *n + n_floats * sizeof(float));
    n->next = w->nodes;
    w->nodes = n;
    return n;
}

bool weights_has(const Weights *w, const char *name) {
    for (const char *const *end = w->optional; end && *end; end++)
        if (strlen(name) >= strlen(*end) && strcmp(name + strlen(name) - strlen(*end), *end) == 0)
            return true;
    return gguf_find_tensor(w->g, name) != NULL;
}

Weights *weights_record(const Gguf *g, const char *const *optional) {
    Weights *w = weights_open(g);
    w->optional = optional;
    return w;
}

/* Returns a node with n_floats zeros. */
static Node *record(Weights *w, const char *name, int n_in, int n_out, int n_expert, size_t n_floats) {
    GgufTensor t = {.name = mem_string(name), .type = QUANT_F32, .ne = {n_in, n_out, n_expert, 1}};
    t.n_dims = n_expert > 1 ? 3 : n_out > 1 ? 2 : 1;
    w->recorded = mem_resize(w->recorded, (size_t)(w->n_recorded + 1) * sizeof *w->recorded);
    w->recorded[w->n_recorded++] = t;
    return add_node(w, n_floats);
}

GgufTensor *weights_take_recorded(Weights *w, int *n) {
    GgufTensor *recorded = w->recorded;
    *n = w->n_recorded;
    w->recorded = NULL;
    w->n_recorded = 0;
    return recorded;
}

/* Sizes of 1 do not count: writers add and drop them. */
static bool has_sizes(const GgufTensor *t, int64_t n0, int64_t n1, int64_t n2) {
    int64_t wanted[] = {n0, n1, n2, 1}, is[4] = {1, 1, 1, 1}, should[4] = {1, 1, 1, 1};
    for (int i = 0, a = 0, b = 0; i < 4; i++) {
        if (t->ne[i] != 1) is[a++] = t->ne[i];
        if (wanted[i] != 1) should[b++] = wanted[i];
    }
    return memcmp(is, should, sizeof is) == 0;
}

static const GgufTensor *find(Weights *w, const char *name, int64_t n0, int64_t n1, int64_t n2, Err *e) {
    const GgufTensor *t = gguf_find_tensor(w->g, name);
    if (!t) {
        err_set(e, ERR_MODEL, "%s: tensor '%s' is missing", gguf_label(w->g), name);
        return NULL;
    }
    if (!has_sizes(t, n0, n1, n2)) {
        err_set(e, ERR_MODEL,
                "%s: tensor '%s' is [%lld, %lld, %lld, %lld], but the hyper-parameters require [%lld, %lld, "
                "%lld]",
                gguf_label(w->g), name, (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2],
                (long long)t->ne[3], (long long)n0, (long long)n1, (long long)n2);
        return NULL;
    }
    w->used[t - gguf_tensor(w->g, 0)] = true;
    return t;
}

/* Returns NULL. */
static void *refuse_type(const Weights *w, const GgufTensor *t, Err *e) {
    err_set(e, ERR_MODEL, "%s: tensor '%s' has type %s, which zgen cannot compute with", gguf_label(w->g),
            t->name, quant_traits(t->type)->name);
    return NULL;
}

const char *weight_scale_name(const char *name, char out[WEIGHT_NAME]) {
    snprintf(out, WEIGHT_NAME, "%.*s.scale", (int)(strlen(name) - strlen(".weight")), name);
    return out;
}

/* NAME.scale for NAME.weight, where the file has it: per row for FP8, per expert or one for all elsewhere.  A
 * tensor of another size is no factor of results: a family requests it, or the file is refused. */
static bool add_scale(Weights *w, Weight *m, const MatrixShape *shape, Err *e) {
    char name[WEIGHT_NAME];
    const GgufTensor *t = gguf_find_tensor(w->g, weight_scale_name(m->name, name));
    int n_all = shape->n_expert * shape->n_rows;
    int64_t n = t ? t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3] : 0;
    bool fits = t && t->type == QUANT_F32 && (n == 1 || n == m->n_expert || n == n_all);
    if (!fits && m->type != QUANT_FP8_E4M3) return true;
    if (!fits)
        return err_set(e, ERR_MODEL, "%s: the scales '%s' are missing or not %d values of type F32",
                       gguf_label(w->g), name, n_all);
    w->used[t - gguf_tensor(w->g, 0)] = true;
    Node *node = add_node(w, n_rows(m));
    for (int x = 0; x < m->n_expert; x++)
        for (int r = 0; r < m->n_out; r++) {
            int64_t from = n == 1 ? 0 : n == n_all ? (int64_t)x * shape->n_rows + shape->first + r : x;
            memcpy(&node->vector[(size_t)x * (size_t)m->n_out + (size_t)r], t->data + 4 * from, 4);
        }
    m->scale = node->vector;
    return true;
}

/* The name of an expert's tensor in an old file. */
static const char *expert_name(const char *name, int expert, char out[WEIGHT_NAME]) {
    const char *end = strstr(name, "_exps.weight");
    snprintf(out, WEIGHT_NAME, "%.*s.%d.weight", (int)(end ? end - name : 0), name, expert);
    return out;
}

/* The tensors that hold the matrix: one, or one for each expert.  NULL: *e. */
static const GgufTensor **find_parts(Weights *w, const char *name, const MatrixShape *s, int *n, Err *e) {
    char first[WEIGHT_NAME], one[WEIGHT_NAME];
    bool apart = !gguf_find_tensor(w->g, name) && gguf_find_tensor(w->g, expert_name(name, 0, first));
    *n = apart ? s->n_expert : 1;
    const GgufTensor **parts = mem_new((size_t)*n, sizeof *parts);
    for (int i = 0; i < *n; i++) {
        parts[i] =
            find(w, apart ? expert_name(name, i, one) : name, s->n_in, s->n_rows, apart ? 1 : s->n_expert, e);
        bool ok = parts[i] && (parts[i]->type == parts[0]->type ||
                               err_set(e, ERR_MODEL, "%s: tensor '%s' has another type than '%s'",
                                       gguf_label(w->g), one, first));
        if (ok) continue;
        free(parts);
        return NULL;
    }
    return parts;
}

/* Sets where the rows of each expert are. */
static void place_rows(Node *node, const GgufTensor *const *parts, int n_parts, const MatrixShape *s) {
    Weight *m = &node->matrix;
    size_t first = (size_t)s->first * m->row_bytes, expert_bytes = (size_t)s->n_rows * m->row_bytes;
    m->data = parts[0]->data + first;
    if (m->n_expert == 1 || (n_parts == 1 && m->n_out == s->n_rows)) return;
    node->experts = mem_new((size_t)m->n_expert, sizeof *node->experts);
    for (int x = 0; x < m->n_expert; x++)
        node->experts[x] = n_parts == 1 ? m->data + (size_t)x * expert_bytes : parts[x]->data + first;
    m->experts = node->experts;
}

static const Weight *open_matrix(Weights *w, const char *name, const MatrixShape *s, Err *e) {
    int n_parts;
    const GgufTensor **parts = find_parts(w, name, s, &n_parts, e);
    if (!parts) return NULL;
    const GgufTensor *t = parts[0];
    QuantType type = w->fp8 && t->type == QUANT_I8 ? QUANT_FP8_E4M3 : t->type;
    const QuantTraits *traits = quant_traits(type);
    Weight m = {.name = t->name, .type = type, .n_in = s->n_in, .n_out = s->n_out, .n_expert = s->n_expert};
    size_t length = strlen(t->name);
    bool has_suffix = length > 7 && strcmp(t->name + length - 7, ".weight") == 0;
    bool ok = traits->act != QUANT_ACT_NONE && (type != QUANT_FP8_E4M3 || n_parts == 1);
    if (!ok) refuse_type(w, t, e);
    if (ok && has_suffix && n_parts == 1) ok = add_scale(w, &m, s, e);
    Node *node = ok ? add_node(w, 0) : NULL;
    if (ok) {
        m.row_bytes = (size_t)(s->n_in / traits->n_weights) * traits->n_bytes;
        node->matrix = m;
        node->first = s->first;
        place_rows(node, parts, n_parts, s);
    }
    free(parts);
    return ok ? &node->matrix : NULL;
}

static bool is_recorded(const Weights *w, const char *name) {
    for (int i = 0; i < w->n_recorded; i++)
        if (strcmp(w->recorded[i].name, name) == 0) return true;
    return false;
}

/* known: the matrix is another part of a tensor that is recorded. */
static const Weight *record_matrix(Weights *w, const char *name, const MatrixShape *s, const Weight *known) {
    Node *node = known ? add_node(w, 0) : record(w, name, s->n_in, s->n_rows, s->n_expert, 0);
    node->first = s->first;
    node->matrix = (Weight){.name = known ? known->name : w->recorded[w->n_recorded - 1].name,
                            .type = QUANT_F32,
                            .n_in = s->n_in,
                            .n_out = s->n_out,
                            .n_expert = s->n_expert};
    return &node->matrix;
}

const Weight *weights_matrix(Weights *w, const char *name, MatrixShape s, Err *e) {
    assert(s.first >= 0 && s.first + s.n_out <= s.n_rows);
    const Weight *known = NULL;
    for (Node *n = w->nodes; n; n = n->next) {
        if (!n->matrix.name || strcmp(n->matrix.name, name) != 0) continue;
        if (n->first == s.first && n->matrix.n_out == s.n_out) return &n->matrix; // tied embeddings
        known = &n->matrix;
    }
    return w->optional ? record_matrix(w, name, &s, known) : open_matrix(w, name, &s, e);
}

const float *weights_vector(Weights *w, const char *name, int n, int n_rows, Err *e) {
    size_t n_floats = (size_t)n * (size_t)n_rows;
    if (w->optional && is_recorded(w, name)) return add_node(w, n_floats)->vector; // a bias of several parts
    if (w->optional) return record(w, name, n, n_rows, 1, n_floats)->vector;
    const GgufTensor *t = find(w, name, n, n_rows, 1, e);
    if (!t) return NULL;
    const QuantTraits *traits = quant_traits(t->type);
    if (!traits->decode) return refuse_type(w, t, e);
    Node *node = add_node(w, n_floats);
    traits->decode(t->data, n_floats / (size_t)traits->n_weights, node->vector);
    for (size_t i = 0; i < n_floats; i++)
        if (!isfinite(node->vector[i])) {
            err_set(e, ERR_MODEL, "%s: tensor '%s' holds a value that is not finite at index %zu",
                    gguf_label(w->g), name, i);
            return NULL;
        }
    return node->vector;
}

void weights_leave(Weights *w, const char *name) {
    const GgufTensor *t = gguf_find_tensor(w->g, name);
    if (t) w->used[t - gguf_tensor(w->g, 0)] = true;
}

void weights_leave_layers(Weights *w, int first, int end) {
    int layer;
    for (int64_t i = 0; i < gguf_n_tensors(w->g); i++)
        w->used[i] |=
            sscanf(gguf_tensor(w->g, i)->name, "blk.%d.", &layer) == 1 && layer >= first && layer < end;
}

/* Tensors without which the model is the same: rotary tables that old converters wrote, and for NVFP4 the
 * range of each product's activations, for executors that quantise these to four bits, too. */
static bool is_needless(const char *name) {
    size_t n = strlen(name), end = strlen(".input_scale");
    return strstr(name, ".attn_rot_embd") || strstr(name, ".rope.freqs") ||
           (n > end && strcmp(name + n - end, ".input_scale") == 0);
}

bool weights_all_used(const Weights *w, Err *e) {
    for (int64_t i = 0; i < gguf_n_tensors(w->g); i++) {
        const GgufTensor *t = gguf_tensor(w->g, i);
        if (!w->used[i] && !is_needless(t->name))
            return err_set(e, ERR_MODEL,
                           "%s: tensor '%s' is not part of any model that zgen runs under this architecture; "
                           "leaving it out would give wrong text",
                           gguf_label(w->g), t->name);
    }
    return true;
}

static bool all_finite(const Weight *m) {
    const QuantTraits *traits = quant_traits(m->type);
    float values[256];
    for (size_t r = 0; r < n_rows(m); r++) {
        const uint8_t *row = row_of(m, r);
        for (const uint8_t *p = row; p < row + m->row_bytes; p += traits->n_bytes) {
            traits->decode(p, 1, values);
            for (int k = 0; k < traits->n_weights; k++)
                if (!isfinite(m->scale ? values[k] * m->scale[r] : values[k])) return false;
        }
    }
    return true;
}

const char *weights_find_nonfinite(const Weights *w) {
    for (const Node *n = w->nodes; n; n = n->next)
        if (n->matrix.name && !all_finite(&n->matrix)) return n->matrix.name;
    return NULL;
}

uint64_t weights_bytes(const Weights *w) {
    uint64_t sum = 0;
    for (const Node *n = w->nodes; n; n = n->next)
        if (n->matrix.name) sum += matrix_bytes(&n->matrix);
    return sum;
}

uint64_t weights_converted_bytes(const Weights *w) {
    uint64_t sum = 0;
    for (const Node *n = w->nodes; n; n = n->next)
        if (n->source.name) sum += matrix_bytes(&n->matrix);
    return sum;
}

/* ---- conversion ---------------------------------------------------------------------------------------- */

static Node *node_of(Weights *w, const Weight *m) {
    Node *n = w->nodes;
    while (&n->matrix != m) n = n->next;
    return n;
}

bool weights_convert(Weights *w, const Weight *m) {
    Node *n = node_of(w, m);
    if (m->row_bytes <= (size_t)m->n_in) return n->source.name != NULL; // a tied matrix is requested twice
    n->source = *m;
    n->matrix.type = QUANT_FP8_E4M3;
    n->matrix.row_bytes = (size_t)m->n_in;
    n->matrix.data = NULL;
    n->matrix.experts = NULL;
    n->matrix.scale = add_node(w, n_rows(m))->vector;
    return true;
}

typedef struct Conversion {
    Node *node;
    float *scale;
    atomic_size_t next; // row
    bool (*stop)(void);
} Conversion;

static bool is_stopped(bool (*stop)(void)) {
    return stop && stop();
}

static void convert_rows(void *arg, int thread) {
    enum { ROWS = 16 }; // taken at a time
    Conversion *c = arg;
    const Weight *from = &c->node->source;
    const QuantTraits *traits = quant_traits(from->type);
    size_t n_in = (size_t)from->n_in, n = n_rows(from), first;
    float *x = mem_new(n_in, sizeof *x);
    (void)thread;
    while ((first = atomic_fetch_add(&c->next, ROWS)) < n)
        for (size_t r = first; r < first + ROWS && r < n && !is_stopped(c->stop); r++) {
            traits->decode(row_of(from, r), n_in / (size_t)traits->n_weights, x);
            float scale = quant_fp8_row(x, n_in, c->node->copy + r * n_in);
            c->scale[r] = from->scale ? scale * from->scale[r] : scale;
        }
    free(x);
}

bool weights_load(Weights *w, int n_threads, bool (*stop)(void), Err *e) {
    Pool *pool = weights_converted_bytes(w) ? pool_open(n_threads) : NULL;
    bool ok = true;
    for (Node *n = w->nodes; n && ok; n = n->next) {
        if (!n->source.name || n->copy) continue;
        Conversion c = {.node = n, .scale = (float *)n->matrix.scale, .stop = stop};
        n->copy = mem_try(matrix_bytes(&n->matrix));
        ok = n->copy || err_set(e, ERR_MEMORY, "%s: the weights do not fit in fp8 beside the file: %.1f GB",
                                gguf_label(w->g), (double)weights_converted_bytes(w) / 1e9);
        if (ok) pool_run(pool, convert_rows, &c);
        n->matrix.data = n->copy;
        if (ok && is_stopped(stop)) {
            e->code = 0;
            ok = false;
        }
    }
    if (pool) pool_close(pool);
    return ok;
}
