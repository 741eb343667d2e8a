/* test_importance: sums of squares of the inputs of products.
 *
 * Expected values: the first layer's by hand from the embedding; those of experts from the router, which reads
 * the same rows; the others from the scalar executor with float activations. */
#include "check.h"
#include "../../src/run/importance.h"

#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TINY "test/data/models/llama-s-F32.gguf"

enum { N_CTX = 12, N_WINDOWS = 2 };

typedef struct Trial {
    Model model;
    Engine *engine;
    Importance sums;
} Trial;

static bool yes(void *arg, int n_done) {
    (void)arg;
    return n_done >= 0;
}

static bool no(void *arg, int n_done) {
    (void)arg;
    return n_done < 1;
}

static int32_t ids[N_CTX * N_WINDOWS];

static void fill_ids(void) {
    for (int i = 0; i < N_CTX * N_WINDOWS; i++) ids[i] = 3 + (i * 37) % 200;
}

static bool open_trial(Trial *t, const char *path, const char *isa, int chunk, bool with_output) {
    EngineConfig c = {.isa = isa,
                      .n_ctx = N_CTX,
                      .n_seq = 1,
                      .n_threads = 1,
                      .chunk = chunk,
                      .R_max = chunk,
                      .act_f32 = strcmp(isa, "scalar") == 0,
                      .keeps_inputs = true};
    ImportanceTask task = {.ids = ids,
                           .n_ctx = N_CTX,
                           .n_windows = N_WINDOWS,
                           .bos = -1,
                           .with_output = with_output,
                           .go_on = yes};
    Err e;
    fill_ids();
    *t = (Trial){0};
    bool ok = model_open(path, &t->model, &e) && engine_open(&t->model, &c, &t->engine, &e) &&
              importance_run(t->engine, &task, &t->sums, &e);
    CHECK(ok, "%s: %s", path, e.text);
    return ok;
}

static void close_trial(Trial *t) {
    importance_free(&t->sums);
    engine_close(t->engine);
    model_close(&t->model);
}

static const ImatrixSums *find(const Trial *t, const char *name) {
    for (size_t i = 0; i < t->sums.n; i++)
        if (strcmp(t->sums.sums[i].name, name) == 0) return &t->sums.sums[i];
    return NULL;
}

/* The norm of each embedding, squared and added. */
TEST(importance_of_the_first_layer) {
    Trial t;
    if (!open_trial(&t, TINY, "scalar", N_CTX, false)) return;
    const float *embd =
        (const float *)(const void *)gguf_find_tensor(t.model.gguf, "token_embd.weight")->data;
    const float *weight =
        (const float *)(const void *)gguf_find_tensor(t.model.gguf, "blk.0.attn_norm.weight")->data;
    const ImatrixSums *q = find(&t, "blk.0.attn_q.weight");
    REQUIRE(q && q->n_in == 64 && q->n_mat == 1 && q->counts[0] == N_CTX * N_WINDOWS);
    double wanted[64] = {0};
    for (int i = 0; i < N_CTX * N_WINDOWS; i++) {
        const float *row = embd + 64 * ids[i];
        double sum = 0;
        for (int k = 0; k < 64; k++) sum += (double)row[k] * row[k];
        double scale = 1 / sqrt(sum / 64 + 1e-5);
        for (int k = 0; k < 64; k++) wanted[k] += pow(row[k] * scale * weight[k], 2);
    }
    for (int k = 0; k < 64; k++)
        CHECK(fabs(q->squares[k] - wanted[k]) <= 1e-4 * wanted[k], "column %d: %g, not %g", k, q->squares[k],
              wanted[k]);
    CHECK(t.sums.n == 21, "%zu tensors", t.sums.n);
    close_trial(&t);
}

/* The differences of two sums, added up, as a share of the first. */
static double difference(const ImatrixSums *a, const ImatrixSums *b) {
    size_t n = (size_t)a->n_in * (size_t)a->n_mat;
    double differences = 0, sum = 0;
    for (size_t i = 0; i < n; i++) {
        differences += fabs(a->squares[i] - b->squares[i]);
        sum += a->squares[i];
    }
    return differences / sum;
}

static void check_same(const char *path, const char *isa, int chunk, double bound) {
    Trial a, b;
    if (!open_trial(&a, path, "scalar", N_CTX, true) || !open_trial(&b, path, isa, chunk, true)) return;
    REQUIRE(a.sums.n == b.sums.n);
    for (size_t i = 0; i < a.sums.n; i++) {
        const ImatrixSums *x = &a.sums.sums[i], *y = find(&b, x->name);
        REQUIRE(y && memcmp(x->counts, y->counts, (size_t)x->n_mat * sizeof *x->counts) == 0, "%s", x->name);
        double share = difference(x, y);
        CHECK(share <= bound, "%s, %s in chunks of %d: %s differs by %g", path, isa, chunk, x->name, share);
    }
    close_trial(&a);
    close_trial(&b);
}

TEST(importance_does_not_depend_on_chunks) {
    check_same(TINY, "scalar", 5, 1e-6);
    check_same("test/data/models/llama-moe-Q4_0.gguf", "scalar", 5, 1e-6);
}

TEST(importance_of_rounded_activations_is_near) {
    check_same("test/data/models/llama-s-Q4_0.gguf", "auto", 5, 0.05);
}

/* Each row goes to n_used experts, whose sums together are as many times those of the router. */
TEST(importance_of_experts) {
    Trial t;
    if (!open_trial(&t, "test/data/models/llama-moe-Q4_0.gguf", "auto", 7, false)) return;
    const ImatrixSums *router = find(&t, "blk.1.ffn_gate_inp.weight"),
                      *gate = find(&t, "blk.1.ffn_gate_exps.weight"),
                      *down = find(&t, "blk.1.ffn_down_exps.weight");
    REQUIRE(router && gate && down && gate->n_mat > 2 && gate->n_in == router->n_in);
    int64_t n = 0;
    for (int m = 0; m < gate->n_mat; m++) {
        n += gate->counts[m];
        CHECK(gate->counts[m] == down->counts[m]);
    }
    int64_t n_used = n / router->counts[0];
    CHECK(n_used > 1 && n == n_used * router->counts[0]);
    for (int k = 0; k < gate->n_in; k++) {
        double sum = 0;
        for (int m = 0; m < gate->n_mat; m++) sum += gate->squares[m * gate->n_in + k];
        CHECK(fabs(sum - (double)n_used * router->squares[k]) <= 1e-6 * sum, "column %d", k);
    }
    close_trial(&t);
}

static bool is_quantised(const GgufTensor *t) {
    return strncmp(t->name, "blk.", 4) == 0 && quant_traits(t->type)->act == QUANT_ACT_Q8;
}

/* Layers of gemma3n from 20 on read the keys and values of another layer; a layer of multi-token prediction
 * is not run. */
static bool is_left(const char *path, const char *name) {
    int layer;
    char kind;
    if (strstr(path, "-mtp-")) return strncmp(name, "blk.2.", 6) == 0;
    return strstr(path, "gemma3n") && sscanf(name, "blk.%d.attn_%c.", &layer, &kind) == 2 && layer >= 20 &&
           (kind == 'k' || kind == 'v');
}

/* Every family: each quantised matrix of a layer has sums of its size, and each sum is of a tensor. */
static void check_family(const char *path) {
    Trial t;
    if (!open_trial(&t, path, "auto", N_CTX, false)) return;
    for (size_t i = 0; i < t.sums.n; i++) {
        const ImatrixSums *s = &t.sums.sums[i];
        const GgufTensor *w = gguf_find_tensor(t.model.gguf, s->name);
        CHECK(w && w->ne[0] * w->ne[2] == (int64_t)s->n_in * s->n_mat, "%s: %s", path, s->name);
    }
    for (int64_t i = 0; i < gguf_n_tensors(t.model.gguf); i++) {
        const GgufTensor *w = gguf_tensor(t.model.gguf, i);
        CHECK(!is_quantised(w) || is_left(path, w->name) || find(&t, w->name), "%s: no sums of %s", path,
              w->name);
    }
    close_trial(&t);
}

TEST(importance_of_every_family) {
    glob_t files;
    REQUIRE(glob("test/data/models/*-Q4_0.gguf", 0, NULL, &files) == 0 && files.gl_pathc > 30);
    for (size_t i = 0; i < files.gl_pathc; i++) check_family(files.gl_pathv[i]);
    globfree(&files);
}

TEST(importance_can_be_stopped) {
    Trial t;
    if (!open_trial(&t, TINY, "auto", N_CTX, false)) return;
    ImportanceTask task = {.ids = ids, .n_ctx = N_CTX, .n_windows = N_WINDOWS, .bos = -1, .go_on = no};
    Err e = {0};
    importance_free(&t.sums);
    CHECK(!importance_run(t.engine, &task, &t.sums, &e) && e.code == 0);
    close_trial(&t);
}
