/* test_encode: blocks made from values.
 *
 * The expected results come from outside: llama.cpp's own files of the same weights, and the errors
 * that its quantiser leaves on the same numbers. */
#include "check.h"
#include "../../src/base/float.h"
#include "../../src/gguf/encode.h"
#include "../../src/gguf/gguf.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Block types, with the relative RMSE that llama.cpp's quantiser (August 2026, no importance matrix) leaves
 * on the numbers of fill(), and the FNV-1a hash of the bytes that ours makes of them, on any machine. */
static const struct {
    QuantType type;
    double rmse;
    uint64_t hash;
} blocks[] = {
    {QUANT_Q4_0, 0.081961, 0x45BE4CDD4833E956},   {QUANT_Q4_1, 0.075388, 0x82815A43BD432B7A},
    {QUANT_Q5_0, 0.040485, 0x90FEC077DAE281BE},   {QUANT_Q5_1, 0.036813, 0xBBA04846B21D3D65},
    {QUANT_Q8_0, 0.005101, 0x021A7986E2238DDA},   {QUANT_Q4_K, 0.068955, 0xDBFF09372B7FF095},
    {QUANT_Q5_K, 0.034735, 0xBD660C7A377E8555},   {QUANT_Q6_K, 0.017140, 0x8700C2D2A788F075},
    {QUANT_Q2_K, 0.283428, 0x965C7DC3C0A2C56B},   {QUANT_Q3_K, 0.145420, 0x9A70C5703AC54B2B},
    {QUANT_IQ4_NL, 0.073810, 0x5FC303E324BE88A4}, {QUANT_IQ4_XS, 0.074273, 0x5F1E6FE7002A5155},
    {QUANT_MXFP4, 0.113287, 0x8DC0B148C685D57A},  {QUANT_TQ1_0, 0.768024, 0xC00D19024501DCAF},
    {QUANT_TQ2_0, 0.768024, 0x42B73328A3E1CDF4},
};
enum { N_BLOCKS = sizeof blocks / sizeof *blocks, N = 256 * 64 };

static float uniform(uint32_t *state) { // -1 .. 1
    *state = *state * 1664525 + 1013904223;
    return (float)(*state >> 8) * 0x1p-23f - 1;
}

/* About normal, with a deviation of 0.0231 that varies from row to row. */
static void fill(float *x) {
    uint32_t state = 1;
    for (int i = 0; i < N; i++) {
        float sum = 0;
        for (int k = 0; k < 4; k++) sum += uniform(&state);
        x[i] = sum * 0.02f * (float)(1 + i / 4096);
    }
}

static double rms_of_difference(const float *a, const float *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sqrt(sum / (double)n);
}

/* x through the type and back; the caller's block has a guard behind it. */
static void there_and_back(QuantType type, const float *x, size_t n, float *out) {
    const QuantTraits *t = quant_traits(type);
    size_t n_blocks = n / (size_t)t->n_weights, n_bytes = n_blocks * t->n_bytes;
    uint8_t *bytes = malloc(n_bytes + 2); // one before, so that blocks lie at odd addresses, and one behind
    bytes[0] = bytes[n_bytes + 1] = 0xA5;
    quant_encode(type, x, NULL, n_blocks, bytes + 1);
    CHECK(bytes[0] == 0xA5 && bytes[n_bytes + 1] == 0xA5, "%s writes beyond its blocks", t->name);
    t->decode(bytes + 1, n_blocks, out);
    free(bytes);
}

TEST(encode_knows_what_it_writes) {
    int n = 0;
    for (uint32_t id = 0; id <= 1000; id++) n += quant_traits(id) && quant_can_encode((QuantType)id);
    CHECK(n == N_BLOCKS + 4, "%d types", n); // and F32, F16, BF16, FP8
    for (int i = 0; i < N_BLOCKS; i++) CHECK(quant_can_encode(blocks[i].type));
    CHECK(!quant_can_encode(QUANT_IQ3_S) && !quant_can_encode(QUANT_I8) && !quant_can_encode(QUANT_Q8_K));
}

TEST(encode_floats) {
    static const float x[4] = {1, -0.333333343f, 65504, 1e-7f};
    float out[4];
    there_and_back(QUANT_F32, x, 4, out);
    CHECK(memcmp(x, out, sizeof x) == 0);
    there_and_back(QUANT_F16, x, 4, out);
    CHECK(out[0] == 1 && out[1] == -0.33325195f && out[2] == 65504 && out[3] == 0x1p-23f);
    there_and_back(QUANT_BF16, x, 4, out);
    CHECK(out[0] == 1 && out[1] == -0.333984375f && out[2] == 65536);
    there_and_back(QUANT_FP8_E4M3, x, 4, out);
    CHECK(out[0] == 1 && out[1] == -0.34375f && out[2] == 448 && out[3] == 0);
}

TEST(encode_fp8_scale_reaches_the_end) {
    static const float x[3] = {1, -896, 3}, zeros[2] = {0, -0.0f}, tiny[2] = {1e-39f, 0},
                       damaged[2] = {INFINITY, 1};
    uint8_t out[3];
    CHECK(quant_fp8_row(x, 3, out) == 2 && out[0] == 0x30 && out[1] == 0xFE && out[2] == 0x3C);
    CHECK(quant_fp8_row(zeros, 2, out) == 0 && out[0] == 0 && out[1] == 0x80);
    CHECK(quant_fp8_row(tiny, 2, out) == 0 && out[0] == 0 && out[1] == 0);
    CHECK(!isfinite(quant_fp8_row(damaged, 2, out) * e4m3_to_f32(out[0])));
}

TEST(encode_leaves_less_error_than_llama_cpp) {
    static float x[N], out[N], zero[N];
    fill(x);
    double rms = rms_of_difference(x, zero, N);
    for (int i = 0; i < N_BLOCKS; i++) {
        there_and_back(blocks[i].type, x, N, out);
        double rmse = rms_of_difference(x, out, N) / rms;
        CHECK(rmse <= blocks[i].rmse, "%s: %.6f, llama.cpp leaves %.6f", quant_traits(blocks[i].type)->name,
              rmse, blocks[i].rmse);
    }
}

static uint64_t hash_of(const uint8_t *bytes, size_t n) {
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ bytes[i]) * 0x100000001B3u;
    return h;
}

/* On every machine, with every compiler. */
TEST(encode_makes_the_same_bytes_everywhere) {
    static float x[N];
    static uint8_t bytes[4 * N];
    fill(x);
    for (int i = 0; i < N_BLOCKS; i++) {
        const QuantTraits *t = quant_traits(blocks[i].type);
        size_t n_blocks = N / (size_t)t->n_weights;
        quant_encode(blocks[i].type, x, NULL, n_blocks, bytes);
        uint64_t hash = hash_of(bytes, n_blocks * t->n_bytes);
        CHECK(hash == blocks[i].hash, "%s: 0x%016" PRIx64, t->name, hash);
    }
}

/* The error of a lone value, as a share of it: of the f16 factors, of which there are two in types with a
 * minimum; of tables, which lack 0 or have only powers of two between large steps. */
static float lone_error(QuantType type) {
    if (type == QUANT_IQ4_NL || type == QUANT_IQ4_XS) return 0x1p-6f;
    if (type == QUANT_MXFP4) return 0.2f;
    return quant_traits(type)->has_min ? 0x1p-10f : 0x1p-11f;
}

/* A value that all weights of a block have, or one of them: nothing rounds but the factors.  A small value's factor is subnormal: half a step of it, times the
 * integers. */
static void check_lone(QuantType type, float value, int at) {
    const QuantTraits *t = quant_traits(type);
    float x[256], out[256],
        bound = fabsf(value) * lone_error(type) + (fabsf(value) < 1 ? 32 * 128 * 0x1p-25f : 0);
    for (int i = 0; i < 256; i++) x[i] = at < 0 || i == at ? value : 0;
    there_and_back(type, x, 256, out);
    for (int i = 0; i < 256; i++)
        CHECK(fabsf(out[i] - x[i]) <= bound, "%s of %g at %d: %g at %d", t->name, value, at, out[i], i);
}

TEST(encode_zeros_constants_and_lone_values) {
    static const float values[] = {0, -0.0f, 1, -1, 0.0123f, -0.0123f, 3e3f, -3e3f};
    static const int places[] = {-1, 0, 17, 31, 32, 255};
    for (int i = 0; i < N_BLOCKS; i++)
        for (size_t v = 0; v < sizeof values / sizeof *values; v++)
            for (size_t p = 0; p < sizeof places / sizeof *places; p++)
                check_lone(blocks[i].type, values[v], places[p]);
}

/* Values that no f16 scale can hold are not finite afterwards, and nothing traps on the way. */
TEST(encode_extremes) {
    static const float values[] = {1e-45f, 1e-38f, 1e-20f, 1e-9f, 3e38f, -3e38f};
    for (int i = 0; i < N_BLOCKS; i++)
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            float x[256], out[256];
            for (int k = 0; k < 256; k++) x[k] = values[v] * (float)(k % 3 - 1);
            there_and_back(blocks[i].type, x, 256, out);
            for (int k = 0; k < 256; k++) {
                bool wanted = fabsf(values[v]) < 1 ? fabsf(out[k]) <= 1e-6f : !isfinite(out[0]);
                CHECK(wanted, "%s of %g: %g", quant_traits(blocks[i].type)->name, values[v], out[k]);
            }
        }
}

/* Values that a type has already written come out as they were where its scale follows from them; the scales
 * of k-quants can be taken apart in more than one way, so that a little is lost there. */
TEST(encode_again_loses_nothing) {
    static float x[N], once[N], twice[N];
    fill(x);
    for (int i = 0; i < N_BLOCKS; i++) {
        const QuantTraits *t = quant_traits(blocks[i].type);
        there_and_back(blocks[i].type, x, N, once);
        there_and_back(blocks[i].type, once, N, twice);
        double first = rms_of_difference(x, once, N), second = rms_of_difference(once, twice, N);
        CHECK(t->n_weights == 32 ? second == 0 : second < 0.25 * first, "%s: %g after %g", t->name, second,
              first);
    }
}

/* ---- beside llama.cpp's files ------------------------------------------------------------------------- */

static void decode_tensor(const GgufTensor *t, float *out) {
    const QuantTraits *traits = quant_traits(t->type);
    traits->decode(t->data, t->n_bytes / traits->n_bytes, out);
}

/* Our error in a tensor of the type that llama.cpp gave it, as a share of its own. */
static double compare(const GgufTensor *source, const GgufTensor *theirs) {
    size_t n = (size_t)(source->ne[0] * source->ne[1] * source->ne[2] * source->ne[3]);
    float *x = malloc(n * 4), *a = malloc(n * 4), *b = malloc(n * 4);
    decode_tensor(source, x);
    decode_tensor(theirs, a);
    there_and_back(theirs->type, x, n, b);
    double share = rms_of_difference(x, b, n) / rms_of_difference(x, a, n);
    free(x);
    free(a);
    free(b);
    return share;
}

static void check_file(const char *source_path, const char *path) {
    Gguf *source, *theirs;
    Err e;
    int n = 0;
    REQUIRE(gguf_open(source_path, &source, &e) && gguf_open(path, &theirs, &e), "%s", e.text);
    for (int64_t i = 0; i < gguf_n_tensors(theirs); i++) {
        const GgufTensor *t = gguf_tensor(theirs, i), *s = gguf_find_tensor(source, t->name);
        if (s->type == t->type) continue;
        double share = compare(s, t);
        CHECK(share <= 1, "%s %s (%s): %.4f", path, t->name, quant_traits(t->type)->name, share);
        n++;
    }
    CHECK(n > 10, "%s", path);
    gguf_close(source);
    gguf_close(theirs);
}

TEST(encode_beside_llama_cpp_on_random_weights) {
    static const char *const types[] = {"Q4_0", "Q4_1", "Q5_0",   "Q5_1", "Q8_0",
                                        "F16",  "BF16", "IQ4_NL", "MXFP4"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char path[80];
        snprintf(path, sizeof path, "test/data/models/llama-s-%s.gguf", types[i]);
        check_file("test/data/models/llama-s-F32.gguf", path);
    }
}

TEST(encode_beside_llama_cpp_on_the_demo_model) {
    static const char *const types[] = {"q4_0", "q4_k_m", "q6_k", "q8_0"};
    FILE *f = fopen("../shared/models/stories-f16.gguf", "rb");
    if (!f) SKIP("no ../shared/models");
    fclose(f);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char path[80];
        snprintf(path, sizeof path, "../shared/models/stories-%s.gguf", types[i]);
        check_file("../shared/models/stories-f16.gguf", path);
    }
}
