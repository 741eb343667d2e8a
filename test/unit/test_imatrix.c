/* test_imatrix: importance matrices: both forms, damaged files, and what the quantiser makes of them. */
#include "check.h"
#include "../../src/gguf/encode.h"
#include "../../src/gguf/imatrix.h"
#include "../../src/gguf/write.h"
#include "../../src/run/quantize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void put_u32(Buf *b, uint32_t x) {
    buf_add(b, &x, sizeof x);
}

static void put_old_entry(Buf *b, const char *name, uint32_t n_calls, const float *values, uint32_t n) {
    put_u32(b, (uint32_t)strlen(name));
    buf_add(b, name, strlen(name));
    put_u32(b, n_calls);
    put_u32(b, n);
    buf_add(b, values, 4 * (size_t)n);
}

/* Two entries, of which the second has two matrices, in the old form. */
static Buf old_form(void) {
    Buf b = {0};
    put_u32(&b, 2);
    put_old_entry(&b, "blk.1.b.weight", 2, (float[]){2, 4, 1, 1}, 4);
    put_old_entry(&b, "blk.0.a.weight", 4, (float[]){4, 8}, 2);
    put_u32(&b, 7);
    put_u32(&b, 4);
    buf_add(&b, "text", 4);
    return b;
}

static Buf gguf_form(void) {
    ImatrixSums sums[2] = {{"blk.0.a.weight", (double[]){3, 6}, (int64_t[]){3}, 2, 1},
                           {"blk.1.b.weight", (double[]){5, 10, 0, 0}, (int64_t[]){5, 0}, 2, 2}};
    Buf b = {0};
    imatrix_write(sums, 2, "text", 7, 512, &b);
    return b;
}

static void check_both(const Buf *b) {
    Imatrix m;
    Err e;
    REQUIRE(imatrix_open_bytes(b->data, b->n, "m", &m, &e), "%s", e.text);
    CHECK(m.n == 2 && m.n_chunks == 7 && strcmp(m.dataset, "text") == 0);
    const ImatrixEntry *a = imatrix_find(&m, "blk.0.a.weight"), *c = imatrix_find(&m, "blk.1.b.weight");
    REQUIRE(a && c && !imatrix_find(&m, "blk.0.b.weight"));
    CHECK(a->n == 2 && a->mean[0] == 1 && a->mean[1] == 2);
    CHECK(c->n == 4 && c->mean[0] == 1 && c->mean[1] == 2);
    imatrix_close(&m);
}

TEST(imatrix_both_forms_are_the_same) {
    Buf old = old_form(), new = gguf_form();
    check_both(&old);
    check_both(&new);
    buf_free(&old);
    buf_free(&new);
}

TEST(imatrix_gives_ones_to_experts_without_inputs) {
    Buf b = gguf_form();
    Imatrix m;
    Err e;
    REQUIRE(imatrix_open_bytes(b.data, b.n, "m", &m, &e), "%s", e.text);
    const ImatrixEntry *c = imatrix_find(&m, "blk.1.b.weight");
    CHECK(c && c->mean[2] == 1 && c->mean[3] == 1);
    imatrix_close(&m);
    buf_free(&b);
}

static void refused(const Buf *b, size_t n, const char *text) {
    Imatrix m;
    Err e = {0};
    bool ok = imatrix_open_bytes(b->data, n, "m", &m, &e);
    CHECK(!ok && e.code == ERR_MODEL && strstr(e.text, text), "'%s' instead of '%s'", ok ? "read" : e.text,
          text);
    if (ok) imatrix_close(&m);
}

TEST(imatrix_refuses_every_cut) {
    Buf old = old_form(), new = gguf_form();
    for (size_t n = 0; n < old.n; n++)
        if (n != old.n - 12) refused(&old, n, n < 16 ? "no importance matrix" : "m: ");
    for (size_t n = 0; n < new.n - 32; n++) refused(&new, n, n < 4 ? "no importance matrix" : "m: ");
    buf_free(&old);
    buf_free(&new);
}

TEST(imatrix_refuses_wrong_numbers) {
    Buf b = old_form();
    static const struct {
        size_t at;
        uint32_t value;
        const char *text;
    } edits[] = {{0, 0, "number of entries of 0"},
                 {0, 1000, "number of entries of 1000"},
                 {0, 3, "entry 2"},
                 {26, 0, "number of values of 0"},
                 {26, 1u << 30, "number of values of 107"},
                 {30, 0x7FC00000, "is nan"},
                 {30, 0xBF800000, "is -0.5"},
                 {46, 15, "m: "}};
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        Buf copy = {0};
        buf_add(&copy, b.data, b.n);
        memcpy(copy.data + edits[i].at, &edits[i].value, 4);
        refused(&copy, copy.n, edits[i].text);
        buf_free(&copy);
    }
    buf_free(&b);
}

TEST(imatrix_refuses_wrong_tensors) {
    ImatrixSums twice[2] = {{"a", (double[]){1}, (int64_t[]){1}, 1, 1},
                            {"b", (double[]){1}, (int64_t[]){-1}, 1, 1}};
    Buf b = {0};
    imatrix_write(twice, 2, "", 1, 1, &b);
    refused(&b, b.n, "value 0 of 'b' is -1");
    b.n = 0;
    imatrix_write(NULL, 0, "", 1, 1, &b);
    refused(&b, b.n, "the importance matrix is empty");
    b.n = 0;
    GgufWriter w = {0};
    gguf_write_string(&w, "general.type", "imatrix");
    gguf_write_tensor(&w, "a.in_sum2", QUANT_F32, 2, (int64_t[]){2, 1});
    gguf_write_header(&w, &b);
    buf_add(&b, (char[32]){0}, 32);
    refused(&b, b.n, "'a.counts' is missing");
    b.n = 0;
    w = (GgufWriter){0};
    gguf_write_string(&w, "general.type", "model");
    gguf_write_header(&w, &b);
    refused(&b, b.n, "this is no importance matrix");
    buf_free(&b);
}

/* ---- weighing ------------------------------------------------------------------------------------------- */

static const QuantType types[] = {QUANT_Q4_0,   QUANT_Q4_1,   QUANT_Q5_0,  QUANT_Q5_1,  QUANT_Q8_0,
                                  QUANT_Q2_K,   QUANT_Q3_K,   QUANT_Q4_K,  QUANT_Q5_K,  QUANT_Q6_K,
                                  QUANT_IQ4_NL, QUANT_IQ4_XS, QUANT_MXFP4, QUANT_TQ1_0, QUANT_TQ2_0};

/* The sum of weighed squared errors of x through the type. */
static double weighed_error(QuantType type, const float *x, const float *importance, const float *by,
                            size_t n) {
    const QuantTraits *t = quant_traits(type);
    size_t n_blocks = n / (size_t)t->n_weights;
    uint8_t *bytes = malloc(n_blocks * t->n_bytes);
    float *out = malloc(4 * n);
    double sum = 0;
    quant_encode(type, x, importance, n_blocks, bytes);
    t->decode(bytes, n_blocks, out);
    for (size_t i = 0; i < n; i++) sum += by[i] * ((double)out[i] - x[i]) * ((double)out[i] - x[i]);
    free(bytes);
    free(out);
    return sum;
}

TEST(imatrix_lowers_the_errors_that_it_weighs) {
    enum { N = 256 * 32 };
    static float x[N], importance[N], ones[N];
    uint32_t state = 1;
    for (int i = 0; i < N; i++) {
        float sum = 0;
        for (int k = 0; k < 4; k++)
            sum += (float)((state = state * 1664525 + 1013904223) >> 8) * 0x1p-23f - 1;
        x[i] = sum;
        importance[i] = i % 7 == 0 ? 10 : 0.1f;
        ones[i] = 1;
    }
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        double with = weighed_error(types[i], x, importance, importance, N),
               without = weighed_error(types[i], x, NULL, importance, N),
               same = weighed_error(types[i], x, ones, importance, N);
        CHECK(with < 0.99 * without, "%s: %g, without %g", quant_traits(types[i])->name, with, without);
        CHECK(quant_traits(types[i])->has_min || same == without, "%s: ones change it",
              quant_traits(types[i])->name);
    }
}

TEST(imatrix_of_zeros_is_finite) {
    static float x[256], zeros[256];
    for (int i = 0; i < 256; i++) x[i] = (float)(i % 17) - 8;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        CHECK(isfinite(weighed_error(types[i], x, zeros, x, 256)), "%s", quant_traits(types[i])->name);
}

/* ---- files ---------------------------------------------------------------------------------------------- */

#define TINY "test/data/models/llama-s-F32.gguf"

static bool plan(const Gguf *g, const char *mix, const Imatrix *m, Quantize **q, Err *e) {
    static QuantizeTask task;
    task = (QuantizeTask){
        .mix = mix_find(mix), .wishes = mix_no_wishes(), .importance = m, .importance_path = "m"};
    return quantize_open(g, &task, q, e);
}

/* An importance matrix with one entry of n ones. */
static void one_entry(const char *name, int n, Imatrix *out) {
    double *squares = calloc((size_t)n, sizeof *squares);
    for (int i = 0; i < n; i++) squares[i] = 1;
    ImatrixSums sums = {name, squares, (int64_t[]){1}, n, 1};
    Buf b = {0};
    Err e;
    imatrix_write(&sums, 1, "", 1, 1, &b);
    REQUIRE(imatrix_open_bytes(b.data, b.n, "m", out, &e), "%s", e.text);
    buf_free(&b);
    free(squares);
}

TEST(imatrix_belongs_to_a_model) {
    Gguf *g;
    Imatrix fits, other, narrow;
    Quantize *q;
    Err e;
    REQUIRE(gguf_open(TINY, &g, &e), "%s", e.text);
    one_entry("blk.1.ffn_up.weight", 64, &fits);
    one_entry("blk.77.ffn_up.weight", 64, &other);
    one_entry("blk.1.ffn_up.weight", 32, &narrow);
    CHECK(!plan(g, "q4_0", &other, &q, &e) && e.code == ERR_USAGE && strstr(e.text, "another model"), "%s",
          e.text);
    CHECK(!plan(g, "q4_0", &narrow, &q, &e) && e.code == ERR_USAGE && strstr(e.text, "has 64 inputs"), "%s",
          e.text);
    CHECK(!plan(g, "q2_k_s", NULL, &q, &e) && e.code == ERR_USAGE && strstr(e.text, "--imatrix"), "%s",
          e.text);
    REQUIRE(plan(g, "q4_0", &fits, &q, &e), "%s", e.text);
    for (int64_t i = 0; i < quantize_n_tensors(q); i++) {
        const Quantized *t = quantize_tensor(q, i);
        CHECK(t->is_weighed == (strcmp(t->source->name, "blk.1.ffn_up.weight") == 0), "%s", t->source->name);
    }
    quantize_close(q);
    gguf_close(g);
    imatrix_close(&fits);
    imatrix_close(&other);
    imatrix_close(&narrow);
}
