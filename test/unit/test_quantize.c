/* test_quantize: whole files, from one type to another.
 *
 * Files are written to a temporary file without a name and read back from its bytes. */
#include "check.h"
#include "gguf_writer.h"
#include "../../src/base/float.h"
#include "../../src/gguf/encode.h"
#include "../../src/plan/weight.h"
#include "../../src/run/quantize.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#define TINY "test/data/models/llama-s-F32.gguf"

static bool yes(void *arg, double share) {
    (void)arg;
    return share >= 0 && share <= 1;
}

static bool no(void *arg, double share) {
    (void)arg;
    (void)share;
    return false;
}

/* g quantised; the bytes of the new file are appended to out. */
static bool quantize(const Gguf *g, const char *mix, bool again, int n_threads, bool (*go_on)(void *, double),
                     Buf *out, Err *e) {
    FILE *f = tmpfile();
    Quantize *q;
    QuantizeTask task = {.mix = mix_find(mix), .wishes = mix_no_wishes(), .requantize = again};
    bool ok = quantize_open(g, &task, &q, e) &&
              quantize_run(q, &(int){fileno(f)}, &(char *){"the file"}, n_threads, go_on, NULL, e);
    char piece[4096];
    rewind(f);
    for (size_t n; ok && (n = fread(piece, 1, sizeof piece, f)) > 0;) buf_add(out, piece, n);
    CHECK(!ok || out->n == quantize_bytes(q), "%zu bytes", out->n);
    quantize_close(q);
    fclose(f);
    return ok;
}

/* The model at path in another type, opened; *bytes hold it. */
static Gguf *quantized(const char *path, const char *mix, Buf *bytes) {
    Gguf *source, *g = NULL;
    Err e;
    bool ok = gguf_open(path, &source, &e) && quantize(source, mix, false, 3, yes, bytes, &e) &&
              gguf_open_bytes(bytes->data, bytes->n, "the file", &g, &e);
    CHECK(ok, "%s to %s: %s", path, mix, e.text);
    gguf_close(source);
    return g;
}

static bool same_value(const Gguf *a, int64_t i, const Gguf *b, int64_t k) {
    GgufString x = gguf_value_bytes(a, i), y = gguf_value_bytes(b, k);
    return x.n == y.n && memcmp(x.data, y.data, x.n) == 0;
}

static int64_t find_key(const Gguf *g, GgufString name) {
    for (int64_t i = 0; i < gguf_n_keys(g); i++) {
        GgufString key = gguf_key(g, i);
        if (key.n == name.n && memcmp(key.data, name.data, name.n) == 0) return i;
    }
    return -1;
}

TEST(quantize_keeps_the_metadata) {
    Gguf *source, *g;
    Buf bytes = {0};
    Err e;
    REQUIRE(gguf_open(TINY, &source, &e) && (g = quantized(TINY, "q4_k_m", &bytes)));
    int64_t type = 0, version = 0;
    for (int64_t i = 0; i < gguf_n_keys(source); i++) {
        int64_t k = find_key(g, gguf_key(source, i));
        bool is_type = text_is(gguf_key(source, i), "general.file_type");
        CHECK(k >= 0 && same_value(source, i, g, k) == !is_type, "key %d", (int)i);
    }
    CHECK(gguf_n_keys(g) == gguf_n_keys(source));
    CHECK(gguf_get_int(g, "general.file_type", 0, 99, &type, &e) && type == 15);
    CHECK(gguf_get_int(g, "general.quantization_version", 0, 9, &version, &e) && version == 2);
    gguf_close(g);
    gguf_close(source);
    buf_free(&bytes);
}

/* Every tensor of the new file is what the encoder makes of the old one, or the same. */
static void check_tensors(const Gguf *source, const Gguf *g, const char *mix) {
    CHECK(gguf_n_tensors(g) == gguf_n_tensors(source), "%s", mix);
    for (int64_t i = 0; i < gguf_n_tensors(source); i++) {
        const GgufTensor *s = gguf_tensor(source, i), *t = gguf_find_tensor(g, s->name);
        REQUIRE(t && memcmp(s->ne, t->ne, sizeof s->ne) == 0, "%s of %s", s->name, mix);
        const QuantTraits *traits = quant_traits(t->type);
        uint8_t *wanted = malloc(t->n_bytes);
        if (s->type == t->type)
            memcpy(wanted, s->data, t->n_bytes);
        else
            quant_encode(t->type, (const float *)(const void *)s->data, NULL, t->n_bytes / traits->n_bytes,
                         wanted);
        CHECK(memcmp(wanted, t->data, t->n_bytes) == 0, "%s of %s", s->name, mix);
        CHECK((s->n_dims == 1) == (s->type == t->type), "%s of %s", s->name, mix);
        free(wanted);
    }
}

TEST(quantize_writes_what_the_encoders_make) {
    static const char *const mixes[] = {"f16", "bf16", "q4_0", "q5_1", "q8_0", "q4_k_s", "q5_k_m", "q6_k"};
    Gguf *source, *g;
    Err e;
    REQUIRE(gguf_open(TINY, &source, &e));
    for (size_t i = 0; i < sizeof mixes / sizeof *mixes; i++) {
        Buf bytes = {0};
        if ((g = quantized(TINY, mixes[i], &bytes))) check_tensors(source, g, mixes[i]);
        gguf_close(g);
        buf_free(&bytes);
    }
    gguf_close(source);
}

TEST(quantize_makes_the_same_bytes_with_any_number_of_threads) {
    Gguf *source;
    Buf one = {0}, three = {0};
    Err e;
    REQUIRE(gguf_open(TINY, &source, &e));
    CHECK(quantize(source, "fp8", false, 1, yes, &one, &e) &&
          quantize(source, "fp8", false, 3, yes, &three, &e));
    CHECK(one.n && one.n == three.n && memcmp(one.data, three.data, one.n) == 0);
    gguf_close(source);
    buf_free(&one);
    buf_free(&three);
}

/* FP8 as every loader of zgen reads it: bytes and scales are one weight. */
TEST(quantize_fp8_is_read_back_as_weights) {
    Gguf *source, *g;
    Buf bytes = {0};
    Err e;
    REQUIRE(gguf_open(TINY, &source, &e) && (g = quantized(TINY, "fp8", &bytes)));
    const char *name = "blk.1.ffn_down.weight";
    const GgufTensor *s = gguf_find_tensor(source, name), *t = gguf_find_tensor(g, name);
    Weights *weights = weights_open(g);
    const Weight *w = weights_matrix(weights, name, matrix_whole((int)s->ne[0], (int)s->ne[1], 1), &e);
    REQUIRE(w && t->type == QUANT_I8 && w->type == QUANT_FP8_E4M3 && w->scale, "%s", e.text);
    for (int64_t r = 0; r < s->ne[1]; r++) {
        float row[128], worst = 0, peak = 0;
        REQUIRE(s->ne[0] == 128);
        quant_traits(w->type)->decode(w->data + (size_t)r * w->row_bytes, 128, row);
        for (int i = 0; i < 128; i++) {
            float x = f32_from_bits(load_u32(s->data + 4 * (r * 128 + i)));
            float error = fabsf(row[i] * w->scale[r] - x),
                  step = fmaxf(fabsf(x) / 16, w->scale[r] * 0x1p-10f);
            worst = fmaxf(worst, error / step);
            peak = fmaxf(peak, fabsf(row[i]));
        }
        CHECK(worst <= 1.0001f && peak == 448, "row %d: %g, %g", (int)r, worst, peak);
    }
    CHECK(!gguf_has(g, "general.file_type"));
    weights_close(weights);

    Buf again = {0}; // and from FP8 to another type, scales multiplied in and gone
    Gguf *last = NULL;
    CHECK(!quantize(g, "q8_0", false, 1, yes, &again, &e) && e.code == ERR_USAGE, "%s", e.text);
    CHECK(quantize(g, "q8_0", true, 1, yes, &again, &e) &&
          gguf_open_bytes(again.data, again.n, "x", &last, &e));
    CHECK(gguf_n_tensors(last) == gguf_n_tensors(source) && !gguf_has(last, "zgen.fp8.format"));
    const GgufTensor *u = gguf_find_tensor(last, name);
    float first[32], x = f32_from_bits(load_u32(s->data));
    quant_traits(u->type)->decode(u->data, 1, first);
    CHECK(fabsf(first[0] - x) < 0.1f * fabsf(x) + 0.01f, "%g, not %g", first[0], x);
    gguf_close(last);
    gguf_close(g);
    gguf_close(source);
    buf_free(&again);
    buf_free(&bytes);
}

/* ---- models that are refused -------------------------------------------------------------------------- */

/* A model of one matrix [64, 4] of ones, value `odd` at index 70, and a norm that holds `norm`. */
static Buf small_model(QuantType type, float odd, float norm) {
    Buf b = {0};
    put_header(&b, 3, 2, 2);
    put_key_string(&b, "general.architecture", "llama");
    put_key_u32(&b, "general.alignment", 64);
    put_tensor(&b, "blk.0.ffn_up.weight", 2, (uint64_t[]){64, 4}, type, 0);
    put_vector(&b, "output_norm.weight", 64, 1024);
    pad(&b, 64, 0);
    size_t data = b.n;
    for (int i = 0; i < 256; i++) {
        float x = i == 70 ? odd : 1;
        put(&b, &x, 4);
    }
    CHECK(b.n == data + 1024);
    for (int i = 0; i < 64; i++) put(&b, i == 5 ? &norm : &(float){1}, 4);
    return b;
}

static void check_refusal(float odd, float norm, const char *mix, const char *text) {
    Buf model = small_model(QUANT_F32, odd, norm), out = {0};
    Gguf *g;
    Err e = {0};
    REQUIRE(gguf_open_bytes(model.data, model.n, "it", &g, &e), "%s", e.text);
    bool ok = quantize(g, mix, false, 2, yes, &out, &e);
    CHECK(text ? !ok && says(&e, text) : ok, "%s", e.text);
    gguf_close(g);
    buf_free(&out);
    buf_free(&model);
}

TEST(quantize_refuses_values_that_cannot_be_written) {
    check_refusal(2, 1, "q4_0", NULL);
    check_refusal(NAN, 1, "q4_0",
                  "'blk.0.ffn_up.weight' (F32 to Q4_0) holds a value that is not finite in row 1");
    check_refusal(-INFINITY, 1, "fp8", "'blk.0.ffn_up.weight' (F32 to FP8_E4M3) holds a value");
    check_refusal(2, NAN, "q4_0",
                  "'output_norm.weight' (F32 to F32) holds a value that is not finite in row 0");
    check_refusal(NAN, 1, "f32", "not finite");
    check_refusal(1e6f, 1, "f16",
                  "'blk.0.ffn_up.weight' (F32 to F16) holds 1e+06, which is beyond the range of F16");
    check_refusal(1e38f, 1, "q4_0", "beyond the range of Q4_0");
    check_refusal(1e6f, 1, "bf16", NULL);
    check_refusal(3e38f, 1, "fp8", NULL);
}

/* The new file has the alignment of zgen's writer, whatever the alignment of the source. */
TEST(quantize_drops_a_foreign_alignment) {
    Buf model = small_model(QUANT_F32, 2, 3), out = {0};
    Gguf *g, *h;
    Err e;
    REQUIRE(gguf_open_bytes(model.data, model.n, "it", &g, &e) &&
            quantize(g, "q8_0", false, 1, yes, &out, &e));
    REQUIRE(gguf_open_bytes(out.data, out.n, "it", &h, &e), "%s", e.text);
    const GgufTensor *norm = gguf_find_tensor(h, "output_norm.weight");
    CHECK(!gguf_has(h, "general.alignment") && f32_from_bits(load_u32(norm->data + 4 * 5)) == 3);
    gguf_close(g);
    gguf_close(h);
    buf_free(&out);
    buf_free(&model);
}

/* Shard no of a model of two, with one matrix of its own. */
static void write_shard(const char *path, int no) {
    Buf b = {0};
    put_header(&b, 3, 1, 4);
    put_key_string(&b, "general.architecture", "llama");
    put_key_u32(&b, "split.no", (uint32_t)no);
    put_key_u32(&b, "split.count", 2);
    put_key_u32(&b, "split.tensors.count", 2);
    put_tensor(&b, no ? "blk.1.ffn_up.weight" : "blk.0.ffn_up.weight", 2, (uint64_t[]){32, 2}, QUANT_F32, 0);
    pad(&b, 32, 0);
    for (int i = 0; i < 64; i++) put(&b, &(float){(float)(no + 1)}, 4);
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(b.data, 1, b.n, f) == b.n);
    fclose(f);
    buf_free(&b);
}

TEST(quantize_joins_a_split_model) {
    char folder[] = "/tmp/zgen-quantize-XXXXXX", paths[2][80];
    REQUIRE(mkdtemp(folder));
    for (int i = 0; i < 2; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/m-%05d-of-00002.gguf", folder, i + 1);
        write_shard(paths[i], i);
    }
    Buf bytes = {0};
    Gguf *g = quantized(paths[1], "q8_0", &bytes);
    for (int i = 0; i < 2; i++) remove(paths[i]);
    rmdir(folder);
    REQUIRE(g);
    CHECK(gguf_n_tensors(g) == 2 && gguf_n_shards(g) == 1 && !gguf_has(g, "split.count"));
    float x[32];
    quant_traits(QUANT_Q8_0)->decode(gguf_find_tensor(g, "blk.1.ffn_up.weight")->data, 1, x);
    CHECK(fabsf(x[31] - 2) < 0.001f, "%g", x[31]);
    gguf_close(g);
    buf_free(&bytes);
}

/* Rows that many threads write in many slices: row r holds r + 1. */
TEST(quantize_writes_every_row_at_its_offset) {
    enum { WIDTH = 64, ROWS = 5000 };
    Buf b = {0}, out = {0};
    put_header(&b, 3, 1, 1);
    put_key_string(&b, "general.architecture", "llama");
    put_tensor(&b, "blk.0.ffn_up.weight", 2, (uint64_t[]){WIDTH, ROWS}, QUANT_F32, 0);
    pad(&b, 32, 0);
    for (int i = 0; i < WIDTH * ROWS; i++) put(&b, &(float){(float)(i / WIDTH + 1)}, 4);
    Gguf *g, *h;
    Err e;
    REQUIRE(gguf_open_bytes(b.data, b.n, "it", &g, &e) && quantize(g, "fp8", false, 4, yes, &out, &e), "%s",
            e.text);
    REQUIRE(gguf_open_bytes(out.data, out.n, "it", &h, &e), "%s", e.text);
    const GgufTensor *t = gguf_find_tensor(h, "blk.0.ffn_up.weight"),
                     *scale = gguf_find_tensor(h, "blk.0.ffn_up.scale");
    REQUIRE(t && scale && scale->ne[0] == ROWS);
    for (int r = 0; r < ROWS; r++) {
        CHECK(f32_from_bits(load_u32(scale->data + 4 * r)) == (float)(r + 1) / 448, "row %d", r);
        CHECK(t->data[r * WIDTH] == 0x7E && t->data[r * WIDTH + WIDTH - 1] == 0x7E, "row %d", r);
    }
    gguf_close(g);
    gguf_close(h);
    buf_free(&out);
    buf_free(&b);
}

TEST(quantize_can_be_stopped) {
    Gguf *source;
    Buf bytes = {0};
    Err e = {0};
    REQUIRE(gguf_open(TINY, &source, &e));
    CHECK(!quantize(source, "q4_0", false, 1, no, &bytes, &e) && e.code == 0);
    gguf_close(source);
}

TEST(quantize_reports_that_it_cannot_write) {
    Gguf *source;
    Quantize *q;
    QuantizeTask task = {.mix = mix_find("q4_0"), .wishes = mix_no_wishes()};
    Err e = {0};
    REQUIRE(gguf_open(TINY, &source, &e) && quantize_open(source, &task, &q, &e));
    CHECK(!quantize_run(q, &(int){-1}, &(char *){"nowhere"}, 2, yes, NULL, &e) && e.code == ERR_OUTPUT &&
          strstr(e.text, "nowhere"));
    quantize_close(q);
    gguf_close(source);
}
