/* test_quant: the small floats, the block formats and the 8-bit activations.
 *
 * Expected values come from outside the code: test/data/dequant (blocks of random bytes and their values),
 * and for the small floats their definition, computed in double. */
#include "check.h"
#include "../../src/base/float.h"
#include "../../src/exec/act.h"
#include "../../src/gguf/grid.h"
#include "../../src/gguf/quant.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DATA "test/data/dequant/"

/* The supported types: the golden data has all but F32 and FP8. */
static const QuantType types[] = {
    QUANT_F32,   QUANT_F16,   QUANT_BF16,    QUANT_FP8_E4M3, QUANT_Q4_0,  QUANT_Q4_1,
    QUANT_Q5_0,  QUANT_Q5_1,  QUANT_Q8_0,    QUANT_Q2_K,     QUANT_Q3_K,  QUANT_Q4_K,
    QUANT_Q5_K,  QUANT_Q6_K,  QUANT_IQ4_NL,  QUANT_IQ4_XS,   QUANT_MXFP4, QUANT_NVFP4,
    QUANT_IQ1_S, QUANT_IQ1_M, QUANT_IQ2_XXS, QUANT_IQ2_XS,   QUANT_IQ2_S, QUANT_IQ3_XXS,
    QUANT_IQ3_S, QUANT_TQ1_0, QUANT_TQ2_0,   QUANT_Q1_0,     QUANT_Q2_0,
};
enum { N_TYPES = sizeof types / sizeof *types };

/* A value of sign, exponent and mantissa fields by the definition of such formats (no NaN, no Inf). */
static double field_value(int sign, int exponent, int mantissa, int mantissa_bits, int bias) {
    double fraction = ldexp(mantissa, -mantissa_bits);
    double v = exponent ? ldexp(1 + fraction, exponent - bias) : ldexp(fraction, 1 - bias);
    return sign ? -v : v;
}

static bool same_bits(float a, float b) {
    return f32_to_bits(a) == f32_to_bits(b);
}

static uint32_t random_bits(uint32_t *state) {
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

static float random_float(uint32_t *state) {
    return (float)random_bits(state) * 0x1p-23f - 1;
}

TEST(float_f16_every_code) {
    for (uint32_t h = 0; h < 0x10000; h++) {
        int exponent = h >> 10 & 31, mantissa = h & 1023;
        float got = f16_to_f32((uint16_t)h);
        if (exponent < 31) {
            CHECK(same_bits(got, (float)field_value(h >> 15, exponent, mantissa, 10, 15)), "at 0x%04X", h);
            CHECK(f32_to_f16(got) == h, "at 0x%04X", h);
        } else if (mantissa == 0) {
            CHECK(same_bits(got, h >> 15 ? -INFINITY : INFINITY));
            CHECK(f32_to_f16(got) == h);
        } else { // a quiet NaN that keeps its sign and payload
            CHECK(f32_to_bits(got) == ((h & 0x8000) << 16 | 0x7FC00000 | (uint32_t)mantissa << 13),
                  "at 0x%04X", h);
            CHECK(f32_to_f16(got) == (h | 0x0200), "at 0x%04X", h);
        }
    }
}

/* Between every two neighbours, 65504 and the 65536 that would follow it included. */
TEST(float_f16_rounds_half_to_even) {
    for (uint32_t h = 0; h < 0x7C00; h++) {
        double low = f16_to_f32((uint16_t)h), high = h == 0x7BFF ? 65536 : f16_to_f32((uint16_t)(h + 1));
        float middle = (float)((low + high) / 2);
        uint32_t even = h & 1 ? h + 1 : h;
        CHECK(f32_to_f16(middle) == even, "at 0x%04X", h);
        CHECK(f32_to_f16(-middle) == (even | 0x8000), "at 0x%04X", h);
        CHECK(f32_to_f16(nextafterf(middle, 0)) == h, "at 0x%04X", h);
        CHECK(f32_to_f16(nextafterf(middle, INFINITY)) == h + 1, "at 0x%04X", h);
    }
    CHECK(f32_to_f16(1e30f) == 0x7C00);
    CHECK(f32_to_f16(-1e-30f) == 0x8000);
    CHECK(f32_to_f16(f32_from_bits(1)) == 0);
    CHECK(f32_to_f16(f32_from_bits(0x7F800001)) == 0x7E00);
}

TEST(float_small_scales_every_code) {
    for (int b = 0; b < 256; b++) {
        int exponent = b >> 3 & 15, mantissa = b & 7;
        bool nan = (b & 0x7F) == 0x7F;
        float signed_value = e4m3_to_f32((uint8_t)b), unsigned_value = ue4m3_to_f32((uint8_t)b);
        if (nan) {
            CHECK(isnan(signed_value) && !!signbit(signed_value) == b >> 7);
            CHECK(same_bits(unsigned_value, 0));
        } else {
            CHECK(same_bits(signed_value, (float)field_value(b >> 7, exponent, mantissa, 3, 7)), "at %d", b);
            CHECK(same_bits(unsigned_value, (float)field_value(0, exponent, mantissa, 3, 7)), "at %d", b);
        }
        CHECK(same_bits(e8m0_half_to_f32((uint8_t)b), (float)ldexp(1, b - 128)), "at %d", b);
    }
    CHECK(e4m3_to_f32(0x7E) == 448);
}

/* Between every two neighbours, and at the ends. */
TEST(float_e4m3_and_bf16_round_half_to_even) {
    for (int b = 0; b < 0x7E; b++) {
        float middle = (e4m3_to_f32((uint8_t)b) + e4m3_to_f32((uint8_t)(b + 1))) / 2;
        int even = b & 1 ? b + 1 : b;
        CHECK(f32_to_e4m3(middle) == even && f32_to_e4m3(-middle) == (even | 0x80), "at 0x%02X", b);
        CHECK(f32_to_e4m3(nextafterf(middle, 0)) == b, "at 0x%02X", b);
        CHECK(f32_to_e4m3(nextafterf(middle, INFINITY)) == b + 1, "at 0x%02X", b);
    }
    CHECK(f32_to_e4m3(1e9f) == 0x7E && f32_to_e4m3(-INFINITY) == 0xFE && f32_to_e4m3(-0.0f) == 0x80);
    CHECK(f32_to_e4m3(NAN) == 0x7F && f32_to_e4m3(f32_from_bits(0xFF800001)) == 0xFF);
    for (uint32_t h = 0; h < 0x7F80; h++) {
        uint32_t middle = h << 16 | 0x8000, even = h & 1 ? h + 1 : h;
        CHECK(f32_to_bf16(f32_from_bits(middle)) == even, "at 0x%04X", h);
        CHECK(f32_to_bf16(f32_from_bits(middle | 0x80000000)) == (even | 0x8000), "at 0x%04X", h);
        CHECK(f32_to_bf16(f32_from_bits(middle - 1)) == h && f32_to_bf16(f32_from_bits(middle + 1)) == h + 1);
    }
    CHECK(f32_to_bf16(f32_from_bits(0x7F800001)) == 0x7FC0 && f32_to_bf16(-INFINITY) == 0xFF80);
}

TEST(float_loads_are_little_endian) {
    const uint8_t bytes[] = {0x00, 0x01, 0x3C, 0x40, 0xFF};
    CHECK(load_u16(bytes + 1) == 0x3C01);
    CHECK(load_u32(bytes + 1) == 0xFF403C01);
    CHECK(load_f16(bytes + 1) == 1 + 0x1p-10f);
}

TEST(quant_sizes) {
    json_error_t error;
    json_t *index = json_load_file(DATA "index.json", 0, &error), *entry;
    REQUIRE(index, "%s", error.text);
    CHECK(json_array_size(index) > 25);
    size_t i;
    json_array_foreach(index, i, entry) {
        const char *name = json_string_value(json_object_get(entry, "type"));
        const QuantTraits *t =
            quant_traits((uint32_t)json_integer_value(json_object_get(entry, "ggml_type_id")));
        CHECK(t, "%s is missing", name);
        if (!t) continue;
        CHECK(strcmp(t->name, name) == 0, "%s is called %s", name, t->name);
        CHECK(t->n_weights == json_integer_value(json_object_get(entry, "block_elements")), "of %s", name);
        CHECK((json_int_t)t->n_bytes == json_integer_value(json_object_get(entry, "block_bytes")), "of %s",
              name);
    }
    json_decref(index);
}

TEST(quant_types_outside_the_golden_data) {
    static const struct {
        uint32_t id;
        const char *name;
        int n_weights;
        size_t n_bytes;
    } others[] = {{0, "F32", 1, 4},  {9, "Q8_1", 32, 36}, {15, "Q8_K", 256, 292},
                  {24, "I8", 1, 1},  {25, "I16", 1, 2},   {26, "I32", 1, 4},
                  {27, "I64", 1, 8}, {28, "F64", 1, 8},   {1000, "FP8_E4M3", 1, 1}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        const QuantTraits *t = quant_traits(others[i].id);
        REQUIRE(t, "%s", others[i].name);
        CHECK(strcmp(t->name, others[i].name) == 0);
        CHECK(t->n_weights == others[i].n_weights && t->n_bytes == others[i].n_bytes, "of %s", t->name);
    }
    static const uint32_t nothing[] = {4, 5, 31, 32, 33, 36, 37, 38, 43, 999, 1001, UINT32_MAX};
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++)
        CHECK(!quant_traits(nothing[i]) && !quant_withdrawn(nothing[i]) == (nothing[i] > 38), "%u",
              nothing[i]);
    for (uint32_t id = 0; id <= 1000; id++) CHECK(!quant_traits(id) || !quant_withdrawn(id), "%u", id);
}

/* The golden blocks reach a part of the points only.  Expected: FNV-1a of the values, in the order of the
 * points, of the tables in gguf-py (those of iq1 as 8 * point + 8). */
TEST(quant_grids_are_those_of_the_format) {
    const QuantGrids *g = quant_grids();
    const struct {
        const char *name;
        const uint32_t *words;
        size_t n;
        uint32_t hash;
    } grids[] = {
        {"iq1", g->iq1, sizeof g->iq1, 0x227c2d6d},
        {"iq2_xxs", g->iq2_xxs, sizeof g->iq2_xxs, 0x3db4a16e},
        {"iq2_xs", g->iq2_xs, sizeof g->iq2_xs, 0xebeb17dd},
        {"iq2_s", g->iq2_s, sizeof g->iq2_s, 0x82981110},
        {"iq3_xxs", g->iq3_xxs, sizeof g->iq3_xxs, 0x49a45035},
        {"iq3_s", g->iq3_s, sizeof g->iq3_s, 0x71cc6c89},
    };
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
        uint32_t hash = 2166136261;
        for (size_t k = 0; k < grids[i].n; k++)
            hash = (hash ^ (grids[i].words[k / 4] >> k % 4 * 8 & 255)) * 16777619;
        CHECK(hash == grids[i].hash, "%s: %08x", grids[i].name, hash);
    }
}

TEST(quant_traits_agree_with_themselves) {
    int n_supported = 0;
    for (uint32_t id = 0; id <= 1000; id++) {
        const QuantTraits *t = quant_traits(id);
        if (!t) continue;
        bool q8 = t->act == QUANT_ACT_Q8;
        n_supported += t->act != QUANT_ACT_NONE;
        CHECK((t->decode != NULL) == (t->act != QUANT_ACT_NONE), "of %s", t->name);
        CHECK((t->unpack != NULL) == q8 && (t->group != 0) == q8 && (q8 || !t->has_min), "of %s", t->name);
    }
    CHECK(n_supported == N_TYPES);
    for (int i = 0; i < N_TYPES; i++) {
        const QuantTraits *t = quant_traits(types[i]);
        REQUIRE(t);
        CHECK(t->act == (t->n_weights == 1 ? QUANT_ACT_F32 : QUANT_ACT_Q8), "of %s", t->name);
    }
}

/* A whole golden file; NULL where there is none.  The caller frees. */
static uint8_t *read_golden(const QuantTraits *t, const char *suffix, size_t *n) {
    char path[100];
    snprintf(path, sizeof path, DATA "%s.%s", t->name, suffix);
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    uint8_t *bytes = malloc(1 << 20);
    *n = fread(bytes, 1, 1 << 20, f);
    fclose(f);
    return bytes;
}

/* Decodes the golden blocks from an address that is `shift` bytes off alignment. */
static void check_golden(const QuantTraits *t, size_t shift) {
    size_t n_block_bytes, n_value_bytes;
    uint8_t *blocks = read_golden(t, "blocks", &n_block_bytes),
            *values = read_golden(t, "f32", &n_value_bytes);
    CHECK(blocks && values, "%s: no golden data", t->name);
    if (blocks && values) {
        size_t n_blocks = n_block_bytes / t->n_bytes, n = n_blocks * (size_t)t->n_weights;
        CHECK(n_blocks >= 16 && n_blocks * t->n_bytes == n_block_bytes && n * 4 == n_value_bytes, "%s",
              t->name);
        uint8_t *moved = malloc(n_block_bytes + shift); // exactly as large, so that ASan sees a read beyond
        memcpy(moved + shift, blocks, n_block_bytes);
        float *got = malloc(n * sizeof *got);
        t->decode(moved + shift, n_blocks, got);
        for (size_t i = 0; i < n; i++) {
            float wanted = f32_from_bits(load_u32(values + 4 * i));
            CHECK(same_bits(got[i], wanted), "%s value %zu: %.9g, not %.9g", t->name, i, got[i], wanted);
        }
        free(moved);
        free(got);
    }
    free(blocks);
    free(values);
}

TEST(quant_decodes_golden_blocks) {
    for (int i = 0; i < N_TYPES; i++)
        if (types[i] != QUANT_F32 && types[i] != QUANT_FP8_E4M3) check_golden(quant_traits(types[i]), 0);
}

TEST(quant_decodes_at_odd_addresses) {
    for (int i = 0; i < N_TYPES; i++)
        if (types[i] != QUANT_F32 && types[i] != QUANT_FP8_E4M3) check_golden(quant_traits(types[i]), 1);
}

TEST(quant_decodes_f32_and_fp8) {
    float values[5] = {0, -0.0f, 1.5f, -INFINITY, 1e-40f}, out[256];
    uint8_t bytes[sizeof values + 1], codes[256];
    memcpy(bytes + 1, values, sizeof values);
    quant_traits(QUANT_F32)->decode(bytes + 1, 5, out);
    CHECK(memcmp(out, values, sizeof values) == 0);

    for (int b = 0; b < 256; b++) codes[b] = (uint8_t)b;
    quant_traits(QUANT_FP8_E4M3)->decode(codes, 256, out);
    for (int b = 0; b < 256; b++) {
        float wanted = (float)field_value(b >> 7, b >> 3 & 15, b & 7, 3, 7);
        CHECK((b & 0x7F) == 0x7F ? isnan(out[b]) : same_bits(out[b], wanted), "at %d", b);
    }
}

/* Random bytes, NaN and Inf scales among them: w = scale * q - min with a single rounding, in double. */
TEST(quant_unpack_agrees_with_decode) {
    uint32_t state = 1;
    for (int k = 0; k < N_TYPES; k++) {
        const QuantTraits *t = quant_traits(types[k]);
        if (t->act != QUANT_ACT_Q8) continue;
        for (int round = 0; round < 500; round++) {
            uint8_t block[256];
            for (size_t i = 0; i < t->n_bytes; i++) block[i] = (uint8_t)random_bits(&state);
            int8_t q[QUANT_MAX_WEIGHTS + 1];
            float scale[QUANT_MAX_GROUPS], min[QUANT_MAX_GROUPS], w[QUANT_MAX_WEIGHTS];
            q[t->n_weights] = 99;
            t->unpack(block, q, scale, min);
            t->decode(block, 1, w);
            CHECK(q[t->n_weights] == 99, "%s writes too much", t->name);
            for (int i = 0; i < t->n_weights; i++) {
                int g = i / t->group;
                float wanted = (float)((double)scale[g] * q[i] - (double)min[g]);
                CHECK(same_bits(w[i], wanted) || (isnan(w[i]) && isnan(wanted)), "%s weight %d", t->name, i);
                CHECK(t->has_min || same_bits(min[g], 0), "%s has a min", t->name);
            }
        }
    }
}

/* A row of memory for n activations; free() releases it. */
static Act8 new_row(int n) {
    return act8_view(aligned_alloc(64, act8_bytes(n)), n);
}

TEST(act8_layout) {
    for (int n = 32; n < 1000; n += 32) {
        Act8 row = new_row(n);
        uintptr_t q = (uintptr_t)row.q, d = (uintptr_t)row.d, sum = (uintptr_t)row.sum, size = (size_t)n;
        CHECK(((q | d | sum | act8_bytes(n)) & 63) == 0, "n = %d", n);
        CHECK(q + size <= d && d + size / 32 * 4 <= sum && sum + size / 16 * 2 <= q + act8_bytes(n), "n = %d",
              n);
        free(row.q);
    }
}

TEST(act8_rounds_half_to_even) {
    static const float x[] = {127,   0.5f,   1.5f,    2.5f,   -0.5f,       -1.5f,
                              -2.5f, 126.5f, -126.5f, 125.5f, 0.49999997f, 3};
    static const int q[] = {127, 0, 2, 2, 0, -2, -2, 126, -126, 126, 0, 3};
    float padded[32] = {0};
    memcpy(padded, x, sizeof x);
    Act8 row = new_row(32);
    act8_quantize(padded, 32, row);
    CHECK(row.d[0] == 1);
    for (int i = 0; i < 12; i++) CHECK(row.q[i] == q[i], "of %g: %d", x[i], row.q[i]);
    CHECK(row.sum[0] == 127 + 2 + 2 - 2 - 2 + 126 - 126 + 126 + 3 && row.sum[1] == 0);
    free(row.q);
}

TEST(act8_bounds) {
    uint32_t state = 7;
    enum { N = 32 * 64 };
    float x[N];
    for (int i = 0; i < N; i++) x[i] = random_float(&state) * ldexpf(1, i / 32 * 3 - 90);
    Act8 row = new_row(N);
    act8_quantize(x, N, row);
    for (int g = 0; g < N / 32; g++) {
        float amax = 0;
        int peak = 0, sums[2] = {0, 0};
        for (int i = 0; i < 32; i++) {
            amax = fmaxf(amax, fabsf(x[32 * g + i]));
            peak = abs(row.q[32 * g + i]) > peak ? abs(row.q[32 * g + i]) : peak;
            sums[i / 16] += row.q[32 * g + i];
        }
        CHECK(same_bits(row.d[g], amax / 127) && peak == 127, "group %d", g);
        CHECK(row.sum[2 * g] == sums[0] && row.sum[2 * g + 1] == sums[1], "group %d", g);
        for (int i = 32 * g; i < 32 * g + 32; i++)
            CHECK(fabs(x[i] - (double)row.d[g] * row.q[i]) <= row.d[g] * 0.50002, "value %d", i);
    }
    free(row.q);
}

/* Each odd value is in a group of its own and leaves the others alone. */
TEST(act8_odd_values) {
    static const float odd[] = {0, -0.0f, 1e-45f, 0x1p-101f, 0x1p-100f, 3e38f, INFINITY, -INFINITY, NAN, 1};
    enum { N = 32 * sizeof odd / sizeof *odd };
    float x[N] = {0};
    for (int g = 0; g < N / 32; g++) {
        x[32 * g + 17] = odd[g];
        x[32 * g + 18] = odd[g] / 2;
    }
    Act8 row = new_row(N);
    memset(row.q, 55, act8_bytes(N));
    act8_quantize(x, N, row);
    for (int g = 0; g < N / 32; g++) {
        bool tiny = fabsf(odd[g]) < ACT8_TINY, finite = isfinite(odd[g]);
        CHECK(finite ? same_bits(row.d[g], tiny ? 0 : odd[g] / 127) : isnan(row.d[g]), "%g", odd[g]);
        int peak = tiny || !finite ? 0 : 127, half = peak ? 64 : 0;
        CHECK(row.q[32 * g] == 0 && row.q[32 * g + 17] == peak && row.q[32 * g + 18] == half, "%g", odd[g]);
        CHECK(row.sum[2 * g] == 0 && row.sum[2 * g + 1] == peak + half, "%g", odd[g]);
    }
    free(row.q);
}

/* The contract of act8_dot once more, from the parts of one block at a time. */
static float dot_by_contract(const QuantTraits *t, const uint8_t *blocks, int n, Act8 x) {
    float acc = 0;
    for (int first = 0; first < n; first += t->group) {
        int8_t q[QUANT_MAX_WEIGHTS];
        float scale[QUANT_MAX_GROUPS], min[QUANT_MAX_GROUPS];
        t->unpack(blocks + first / t->n_weights * t->n_bytes, q, scale, min);
        int at = first % t->n_weights, isum = 0, sum = 0;
        for (int i = 0; i < t->group; i++) {
            isum += q[at + i] * x.q[first + i];
            sum += x.q[first + i];
        }
        float w_scale = scale[at / t->group] * x.d[first / 32], w_min = -min[at / t->group] * x.d[first / 32];
        acc = fmaf((float)isum, w_scale, acc);
        if (t->has_min) acc = fmaf((float)sum, w_min, acc);
    }
    return acc;
}

/* Rows of golden blocks at an odd address, against the contract to the bit and against double arithmetic. */
static void check_dot(const QuantTraits *t, const uint8_t *blocks, int n_blocks, uint32_t *state) {
    int n = n_blocks * t->n_weights;
    float *x = malloc((size_t)n * sizeof *x), *w = malloc((size_t)n * sizeof *w);
    uint8_t *odd = malloc(n_blocks * t->n_bytes + 1);
    memcpy(odd + 1, blocks, n_blocks * t->n_bytes);
    for (int i = 0; i < n; i++) x[i] = random_float(state) + 0.25f; // not centred, so that the sums matter
    t->decode(blocks, (size_t)n_blocks, w);
    Act8 row = new_row(n);
    act8_quantize(x, n, row);

    float got = act8_dot(t, odd + 1, n, row);
    double exact = 0, magnitude = 0;
    for (int i = 0; i < n; i++) {
        double term = (double)w[i] * row.d[i / 32] * row.q[i];
        exact += term;
        magnitude += fabs(term);
    }
    CHECK(same_bits(got, dot_by_contract(t, blocks, n, row)), "%s, %d blocks", t->name, n_blocks);
    CHECK(fabs(got - exact) <= 1e-6 * magnitude + 1e-30, "%s: %g, not %g", t->name, got, exact);

    x[n - 5] = NAN;
    act8_quantize(x, n, row);
    CHECK(isnan(act8_dot(t, odd + 1, n, row)), "%s hides a NaN", t->name);
    free(row.q);
    free(odd);
    free(w);
    free(x);
}

TEST(act8_dot_is_what_it_says) {
    uint32_t state = 3;
    for (int i = 0; i < N_TYPES; i++) {
        const QuantTraits *t = quant_traits(types[i]);
        if (t->act != QUANT_ACT_Q8) continue;
        size_t n_bytes = 0;
        uint8_t *blocks = read_golden(t, "blocks", &n_bytes);
        CHECK(n_bytes, "%s: no golden data", t->name);
        for (int n = 1; n * t->n_bytes <= n_bytes; n += t->n_bytes * 64 > n_bytes ? 5 : 9)
            check_dot(t, blocks, n, &state);
        free(blocks);
    }
}
