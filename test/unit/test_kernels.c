/* test_kernels: every table of kernels against the scalar one.
 *
 * Products and quantisation must be equal to the bit, for any number of activations, rows and blocks; the
 * rest within NMSE 1e-7 of a computation in double.  Inputs end at (or begin behind) a page that cannot be
 * read, and outputs lie between guard bands, so that a kernel that reaches too far is caught where it
 * does. */
#include "../../src/base/float.h"
#include "../../src/cpu/kernels.h"
#include "../../src/plan/plan.h"
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t state = 88172645463325252u;

static uint32_t random_bits(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}
static int random_below(int n) {
    return (int)(random_bits() % (uint32_t)n);
}
static float random_float(void) {
    return (float)random_bits() * 0x1p-31f - 1;
} // -1..1

/* n readable bytes between two pages that are not. */
typedef struct Fenced {
    uint8_t *pages, *data;
    size_t n, n_pages;
} Fenced;

static Fenced fenced(size_t n, bool at_end) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (n + page - 1) / page * page;
    Fenced f = {.n = n, .n_pages = inner + 2 * page};
    f.pages = mmap(NULL, f.n_pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (f.pages == MAP_FAILED) abort();
    mprotect(f.pages, page, PROT_NONE);
    mprotect(f.pages + page + inner, page, PROT_NONE);
    f.data = f.pages + page + (at_end ? inner - n : 0);
    return f;
}
static void fenced_free(Fenced f) {
    munmap(f.pages, f.n_pages);
}

/* n floats with guard bands before and behind. */
enum { BAND = 64 };
static const float band_value = 12345.678f;

static float *banded(size_t n) {
    float *p = malloc((n + 2 * BAND) * sizeof *p);
    if (!p) abort();
    for (size_t i = 0; i < n + 2 * BAND; i++) p[i] = band_value;
    return p + BAND;
}
static bool bands_whole(const float *p, size_t n) {
    for (int i = 1; i <= BAND; i++)
        if (p[-i] != band_value || p[n + (size_t)i - 1] != band_value) return false;
    return true;
}
static void banded_free(float *p) {
    free(p - BAND);
}

/* The tables to be tested; prints which the machine lacks. */
static int tables(const Kernels **out) {
    int n = 0;
    for (int i = 0; i < kernels_n; i++) {
        if (!strcmp(kernels_all[i]->name, "scalar")) continue;
        if (kernels_all[i]->supported())
            out[n++] = kernels_all[i];
        else
            printf("# kernels of %s are not tested: this machine does not support them\n",
                   kernels_all[i]->name);
    }
    return n;
}

/* A finite f16: zero, subnormal, ordinary or large. */
static void random_f16(uint8_t *p) {
    uint32_t bits = random_bits(), kind = bits >> 16 & 7;
    uint16_t h = (uint16_t)(bits & 0x83FF);
    if (kind == 0)
        h = 0;
    else if (kind > 1)
        h |= (uint16_t)((kind == 2 ? 30 : 1 + random_below(20)) << 10);
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

/* Random bytes, and scales that keep every product finite. */
static void random_block(QuantType type, uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)random_bits();
    size_t f16[2] = {0, 0};
    switch (type) {
    case QUANT_MXFP4:
        p[0] = (uint8_t)(random_below(4) ? 100 + random_below(60) : random_below(3));
        return;
    case QUANT_NVFP4:
        return;
    case QUANT_IQ1_M: { // its f16 in four parts
        uint8_t half[2];
        random_f16(half);
        for (int i = 0; i < 4; i++)
            p[49 + 2 * i] = (uint8_t)((p[49 + 2 * i] & 15) | (half[i / 2] >> i % 2 * 4 & 15) << 4);
        return;
    }
    case QUANT_Q4_1:
    case QUANT_Q5_1:
    case QUANT_Q4_K:
    case QUANT_Q5_K:
        f16[1] = 2;
        break;
    case QUANT_Q2_K:
        f16[0] = offsetof(BlockQ2_K, d);
        f16[1] = offsetof(BlockQ2_K, dmin);
        break;
    case QUANT_Q3_K:
        f16[0] = f16[1] = offsetof(BlockQ3_K, d);
        break;
    case QUANT_Q6_K:
        f16[0] = f16[1] = offsetof(BlockQ6_K, d);
        break;
    case QUANT_TQ1_0:
        f16[0] = f16[1] = offsetof(BlockTQ1_0, d);
        break;
    case QUANT_TQ2_0:
        f16[0] = f16[1] = offsetof(BlockTQ2_0, d);
        break;
    default:
        break;
    }
    random_f16(p + f16[0]);
    random_f16(p + f16[1]);
}

/* Ordinary activations, with some groups zero, tiny or huge, and one value that fills the range. */
static void random_activations(float *x, int n) {
    for (int i = 0; i < n; i += 32) {
        static const float sizes[] = {1, 1, 1, 1, 0, 0x1p-60f, 0x1p30f, 0.01f};
        float size = sizes[random_below(8)];
        for (int j = i; j < n && j < i + 32; j++) x[j] = random_float() * size;
        if (random_below(2))
            for (int j = i; j < n && j < i + 32; j++) x[j] = size; // the largest sums there can be
    }
}

static const int some_T[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 31, 32, 33, 64, 65};
enum { MAX_T = 65, N_T = sizeof some_T / sizeof *some_T };

static bool panels_equal(const float *a, const float *b, int T, int n_rows) {
    for (int t = 0; t < T; t++)
        if (memcmp(a + t * PANEL_ROWS, b + t * PANEL_ROWS, (size_t)n_rows * sizeof *a)) return false;
    return true;
}

/* The panel's first n_rows rows, ending at a fence or beginning behind one. */
static Panel fenced_panel(const Panel *from, int n_rows, size_t length, bool at_end, Fenced *memory) {
    *memory = fenced((size_t)(n_rows - 1) * from->row_bytes + length, at_end);
    memcpy(memory->data, from->rows, memory->n);
    Panel panel = *from;
    panel.rows = memory->data;
    panel.n_rows = n_rows;
    return panel;
}

/* x: T rows in the form of the type of the weights, Act8 or const float *. */
static void multiply(const Kernels *table, const Panel *w, const void *x, int T, float *y) {
    if (quant_traits(w->type)->act == QUANT_ACT_Q8)
        table->matmul_q8(w, x, T, y);
    else
        table->matmul_f32(w, x, T, y);
}

/* Every number of the panel's rows, every T. */
static void check_product(const Kernels *table, const Panel *full, size_t length, const void *x,
                          const float *expected) {
    for (int n_rows = 1; n_rows <= PANEL_ROWS; n_rows++) {
        Fenced memory;
        Panel w = fenced_panel(full, n_rows, length, n_rows % 3 != 0, &memory);
        for (int i = 0; i < N_T; i++) {
            int T = some_T[i];
            if (n_rows < PANEL_ROWS && T > 17) continue;
            float *y = banded((size_t)T * PANEL_ROWS);
            multiply(table, &w, x, T, y);
            CHECK(panels_equal(y, expected, T, n_rows), ": %s %s, T %d, %d rows of %d", table->name,
                  quant_traits(w.type)->name, T, n_rows, w.n_in);
            CHECK(bands_whole(y, (size_t)T * PANEL_ROWS), ": %s writes beside y", table->name);
            banded_free(y);
        }
        fenced_free(memory);
    }
}

static void try_q8(const Kernels **fast, int n_fast, QuantType type, int n_blocks, size_t gap) {
    const QuantTraits *traits = quant_traits(type);
    const int n_in = n_blocks * traits->n_weights;
    const size_t length = (size_t)n_blocks * traits->n_bytes;
    Panel w = {.type = type, .row_bytes = length + gap, .n_rows = PANEL_ROWS, .n_in = n_in};
    uint8_t *rows = malloc(PANEL_ROWS * w.row_bytes);
    for (int r = 0; r < PANEL_ROWS; r++)
        for (int b = 0; b < n_blocks; b++)
            random_block(type, rows + (size_t)r * w.row_bytes + (size_t)b * traits->n_bytes, traits->n_bytes);
    w.rows = rows;
    Fenced memory = fenced(MAX_T * act8_bytes(n_in), true);
    float *values = malloc((size_t)n_in * sizeof *values), expected[MAX_T * PANEL_ROWS];
    Act8 x[MAX_T];
    for (int t = 0; t < MAX_T; t++) {
        x[t] = act8_view(memory.data + (size_t)t * act8_bytes(n_in), n_in);
        random_activations(values, n_in);
        act8_quantize(values, n_in, x[t]);
    }
    kernels_find("scalar")->matmul_q8(&w, x, MAX_T, expected);
    for (int i = 0; i < n_fast; i++) check_product(fast[i], &w, length, x, expected);
    fenced_free(memory);
    free(values);
    free(rows);
}

#define NOTHING(...)
#define NAME(type, ...) QUANT_##type,
static const QuantType q8_types[] = {QUANT_TYPES(NOTHING, NAME, NOTHING)};
static const QuantType float_types[] = {QUANT_TYPES(NAME, NOTHING, NOTHING)};
enum { N_Q8 = sizeof q8_types / sizeof *q8_types, N_FLOAT = sizeof float_types / sizeof *float_types };

TEST(kernels_q8_products_equal_the_scalar_ones_to_the_bit) {
    const Kernels *fast[8];
    int n_fast = tables(fast);
    if (!n_fast) SKIP("this machine supports no fast kernels");
    static const int counts[] = {1, 2, 3, 7, 8, 9, 19};
    for (int i = 0; i < N_Q8; i++) {
        int n = quant_traits(q8_types[i])->n_weights == 256 ? 3 : 7;
        for (int j = 0; j < n; j++) try_q8(fast, n_fast, q8_types[i], counts[j], j % 2 ? 0 : 5);
    }
}

/* A panel of per_row blocks a row, one activation; NaN where the scalar table has NaN. */
static void check_blocks(const Kernels **fast, int n_fast, QuantType type, const uint8_t *bytes,
                         size_t per_row) {
    const QuantTraits *traits = quant_traits(type);
    const int n_in = (int)per_row * traits->n_weights;
    Panel w = {type, bytes, per_row * traits->n_bytes, PANEL_ROWS, n_in};
    float *values = malloc((size_t)n_in * sizeof *values);
    for (int k = 0; k < n_in; k++) values[k] = random_float();
    Fenced memory = fenced(act8_bytes(n_in), true);
    Act8 x = act8_view(memory.data, n_in);
    act8_quantize(values, n_in, x);
    float expected[PANEL_ROWS], y[PANEL_ROWS];
    kernels_find("scalar")->matmul_q8(&w, &x, 1, expected);
    for (int f = 0; f < n_fast; f++) {
        fast[f]->matmul_q8(&w, &x, 1, y);
        for (int r = 0; r < PANEL_ROWS; r++)
            CHECK(y[r] == expected[r] || (isnan(y[r]) && isnan(expected[r])), ": %s %s row %d: %g, not %g",
                  fast[f]->name, traits->name, r, y[r], expected[r]);
    }
    fenced_free(memory);
    free(values);
}

/* The files that the other tests decode: real blocks, as a writer of files makes them. */
TEST(kernels_q8_products_of_golden_blocks) {
    const Kernels *fast[8];
    int n_fast = tables(fast);
    if (!n_fast) SKIP("this machine supports no fast kernels");
    for (int i = 0; i < N_Q8; i++) {
        const QuantTraits *traits = quant_traits(q8_types[i]);
        char path[100];
        snprintf(path, sizeof path, "test/data/dequant/%s.blocks", traits->name);
        FILE *file = fopen(path, "rb");
        REQUIRE(file, ": %s", path);
        static uint8_t bytes[1 << 16];
        size_t n_blocks = fread(bytes, 1, sizeof bytes, file) / traits->n_bytes,
               per_row = n_blocks / PANEL_ROWS;
        fclose(file);
        REQUIRE(per_row >= 1, ": %s", path);
        check_blocks(fast, n_fast, q8_types[i], bytes, per_row);
    }
}

/* Whatever a file holds: scales of NaN and Inf, too. */
TEST(kernels_q8_products_of_any_bytes) {
    const Kernels *fast[8];
    int n_fast = tables(fast);
    if (!n_fast) SKIP("this machine supports no fast kernels");
    for (int i = 0; i < N_Q8; i++)
        for (int round = 0; round < 40; round++) {
            size_t n = PANEL_ROWS * quant_traits(q8_types[i])->n_bytes;
            Fenced blocks = fenced(n, true);
            for (size_t k = 0; k < n; k++) blocks.data[k] = (uint8_t)random_bits();
            check_blocks(fast, n_fast, q8_types[i], blocks.data, 1);
            fenced_free(blocks);
        }
}

/* A finite weight of the type, of moderate size or subnormal. */
static void random_weight(QuantType type, uint8_t *p) {
    float value = random_float() * (random_below(8) ? 1 : 0x1p-20f);
    uint32_t bits = f32_to_bits(value);
    uint16_t half = f32_to_f16(value);
    switch (type) {
    case QUANT_F32:
        memcpy(p, &bits, 4);
        break;
    case QUANT_F16:
        memcpy(p, &half, 2);
        break;
    case QUANT_BF16:
        memcpy(p, (uint8_t *)&bits + 2, 2);
        break;
    default:
        do *p = (uint8_t)random_bits();
        while ((*p & 0x7F) == 0x7F);
    }
}

static void try_f32(const Kernels **fast, int n_fast, QuantType type, int n_in, size_t gap) {
    const size_t size = quant_traits(type)->n_bytes, length = (size_t)n_in * size;
    Panel w = {.type = type, .row_bytes = length + gap, .n_rows = PANEL_ROWS, .n_in = n_in};
    uint8_t *rows = malloc(PANEL_ROWS * w.row_bytes);
    for (int r = 0; r < PANEL_ROWS; r++)
        for (int k = 0; k < n_in; k++) random_weight(type, rows + (size_t)r * w.row_bytes + (size_t)k * size);
    w.rows = rows;
    Fenced memory = fenced(MAX_T * length * (4 / size), true);
    float expected[MAX_T * PANEL_ROWS];
    const float *x[MAX_T];
    for (int t = 0; t < MAX_T; t++) {
        float *row = (float *)memory.data + t * n_in;
        for (int k = 0; k < n_in; k++) row[k] = random_float();
        x[t] = row;
    }
    kernels_find("scalar")->matmul_f32(&w, x, MAX_T, expected);
    for (int i = 0; i < n_fast; i++) check_product(fast[i], &w, length, x, expected);
    fenced_free(memory);
    free(rows);
}

TEST(kernels_float_products_equal_the_scalar_ones_to_the_bit) {
    const Kernels *fast[8];
    int n_fast = tables(fast);
    if (!n_fast) SKIP("this machine supports no fast kernels");
    static const int widths[] = {1, 2, 7, 8, 16, 31, 63, 64, 65, 96, 128, 257};
    for (int i = 0; i < N_FLOAT; i++)
        for (int j = 0; j < (int)(sizeof widths / sizeof *widths); j++)
            try_f32(fast, n_fast, float_types[i], widths[j], j % 2 ? 0 : 3);
}

TEST(kernels_fp8_products_of_every_code) {
    const Kernels *fast[8];
    int n_fast = tables(fast);
    if (!n_fast) SKIP("this machine supports no fast kernels");
    uint8_t codes[256];
    float one = 1;
    const float *x = &one;
    for (int i = 0; i < 256; i++) codes[i] = (uint8_t)i;
    for (int f = 0; f < n_fast; f++)
        for (int i = 0; i < 256; i += PANEL_ROWS) {
            float y[PANEL_ROWS];
            fast[f]->matmul_f32(&(Panel){QUANT_FP8_E4M3, codes + i, 1, PANEL_ROWS, 1}, &x, 1, y);
            for (int r = 0; r < PANEL_ROWS; r++) {
                float expected = e4m3_to_f32((uint8_t)(i + r));
                CHECK(y[r] == expected || (isnan(y[r]) && isnan(expected)), ": %s code %d: %g", fast[f]->name,
                      i + r, y[r]);
            }
        }
}

TEST(kernels_quantize_equals_act8_quantize_to_the_bit) {
    const Kernels *fast[8];
    int n_fast = tables(fast);
    if (!n_fast) SKIP("this machine supports no fast kernels");
    enum { N = 32 * 64 };
    Fenced input = fenced(N * sizeof(float), true), a = fenced(act8_bytes(N), true),
           b = fenced(act8_bytes(N), true);
    float *x = (float *)input.data;
    for (int f = 0; f < n_fast; f++)
        for (int round = 0; round < 50; round++) {
            random_activations(x, N);
            for (int i = 0; i < N; i++)
                if (round % 5 == 0) x[i] = (float)(random_below(509) - 254) * 0.5f; // many ties
            static const float odd[] = {INFINITY, -INFINITY, NAN,   0x1p-126f, 0x1p-149f,
                                        3.4e38f,  127,       -0.0f, ACT8_TINY, 0x1.fffffep-101f};
            int at = random_below(N);
            if (round % 2) memset(x + at / 32 * 32, 0, 32 * sizeof *x); // alone in its group
            x[at] = odd[round / 2 % 10];
            act8_quantize(x, N, act8_view(a.data, N));
            fast[f]->quantize(x, N, act8_view(b.data, N));
            Act8 p = act8_view(a.data, N), q = act8_view(b.data, N);
            CHECK(!memcmp(p.q, q.q, N), ": %s integers", fast[f]->name);
            CHECK(!memcmp(p.sum, q.sum, N / ACT8_SUM * sizeof *p.sum), ": %s sums", fast[f]->name);
            for (int i = 0; i < N / 32; i++)
                CHECK(f32_to_bits(p.d[i]) == f32_to_bits(q.d[i]) || (isnan(p.d[i]) && isnan(q.d[i])),
                      ": %s scale %g, not %g", fast[f]->name, q.d[i], p.d[i]);
        }
    fenced_free(input);
    fenced_free(a);
    fenced_free(b);
}

static double nmse(const float *a, const double *expected, int n) {
    double error = 0, size = 0;
    for (int i = 0; i < n; i++) {
        double e = a[i] - expected[i];
        error += e * e;
        size += expected[i] * expected[i];
    }
    return size > 0 ? error / size : error;
}

static const int odd_sizes[] = {1, 2, 3, 15, 16, 17, 31, 33, 63, 65, 127, 129, 255, 257, 512, 513};
enum { N_SIZES = sizeof odd_sizes / sizeof *odd_sizes, MAX_SIZE = 513 };

static Fenced fenced_floats(int n, float size) {
    Fenced f = fenced((size_t)n * sizeof(float), true);
    for (int i = 0; i < n; i++) ((float *)f.data)[i] = random_float() * size;
    return f;
}

TEST(kernels_norm) {
    double expected[MAX_SIZE];
    for (int k = 0; k < kernels_n; k++) {
        if (!kernels_all[k]->supported()) continue;
        for (int i = 0; i < 8 * N_SIZES; i++) {
            int n = odd_sizes[i / 8];
            Fenced x = fenced_floats(n, i / 8 % 2 ? 3 : 3e-3f), weight = fenced_floats(n, 2),
                   bias = fenced_floats(n, 2);
            const float *px = (const float *)x.data, *pw = (const float *)weight.data,
                        *pb = (const float *)bias.data;
            NormParams p = {
                .centred = i & 1, .weight = i & 2 ? pw : NULL, .bias = i & 4 ? pb : NULL, .eps = 1e-5f};
            float *out = banded((size_t)n);
            double mean = 0, sum = 0;
            for (int j = 0; p.centred && j < n; j++) mean += (double)px[j] / n;
            for (int j = 0; j < n; j++) sum += (px[j] - mean) * (px[j] - mean);
            for (int j = 0; j < n; j++)
                expected[j] =
                    (px[j] - mean) / sqrt(sum / n + 1e-5f) * (p.weight ? pw[j] : 1) + (p.bias ? pb[j] : 0);
            kernels_all[k]->norm(&p, px, n, out);
            CHECK(nmse(out, expected, n) <= 1e-7, ": %s, %d values, case %d", kernels_all[k]->name, n, i % 8);
            CHECK(bands_whole(out, (size_t)n), ": %s writes beside its output", kernels_all[k]->name);
            kernels_all[k]->norm(&p, px, n, (float *)x.data);
            CHECK(!memcmp(out, x.data, (size_t)n * sizeof *out), ": %s in place", kernels_all[k]->name);
            banded_free(out);
            fenced_free(x);
            fenced_free(weight);
            fenced_free(bias);
        }
    }
}

static double clip(double low, double x, double high) {
    return x < low ? low : x > high ? high : x;
}

static double activate(const GluParams *p, double x) {
    double sigmoid = 1 / (1 + exp(-x)), top = clip(-INFINITY, x, 7);
    switch (p->act) {
    case ACT_SILU:
        return x * sigmoid;
    case ACT_GELU:
        return x / 2 * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ACT_RELU2:
        return x > 0 ? x * x : 0;
    case ACT_SIGMOID:
        return sigmoid;
    case ACT_SWIGLU_OAI:
        return top / (1 + exp(-1.702 * top));
    case ACT_CLAMPED:
        return clip(-INFINITY, x * sigmoid, p->limit);
    case ACT_XIELU:
        return (x > 0 ? p->alpha_p * x * x : p->alpha_n * (expm1(clip(-INFINITY, x, p->eps)) - x)) +
               p->beta * x;
    default:
        return x;
    }
}

static double factor(const GluParams *p, double up) {
    return p->act == ACT_SWIGLU_OAI ? clip(-7, up, 7) + 1
           : p->act == ACT_CLAMPED  ? clip(-p->limit, up, p->limit)
                                    : up;
}

TEST(kernels_glu) {
    double expected[MAX_SIZE];
    for (int k = 0; k < kernels_n; k++) {
        if (!kernels_all[k]->supported()) continue;
        for (int i = 0; i < 2 * ACT_COUNT * N_SIZES; i++) {
            int n = odd_sizes[i / (2 * ACT_COUNT)];
            GluParams p = {.act = (Activation)(i / 2 % ACT_COUNT),
                           .limit = 6,
                           .alpha_p = 0.8f,
                           .alpha_n = 1.3f,
                           .beta = 0.5f,
                           .eps = -1e-6f};
            Fenced gate = fenced_floats(n, 20), up = fenced_floats(n, 12);
            const float *pg = (const float *)gate.data, *pu = i % 2 ? (const float *)up.data : NULL;
            float *out = banded((size_t)n);
            for (int j = 0; j < n; j++) expected[j] = activate(&p, pg[j]) * (pu ? factor(&p, pu[j]) : 1);
            kernels_all[k]->glu(&p, pg, pu, n, out);
            CHECK(nmse(out, expected, n) <= 1e-7, ": %s, %s of %d values", kernels_all[k]->name,
                  activation_name(p.act), n);
            CHECK(bands_whole(out, (size_t)n), ": %s writes beside its output", kernels_all[k]->name);
            kernels_all[k]->glu(&p, pg, pu, n, (float *)gate.data);
            CHECK(!memcmp(out, gate.data, (size_t)n * sizeof *out), ": %s in place", kernels_all[k]->name);
            banded_free(out);
            fenced_free(gate);
            fenced_free(up);
        }
    }
}

TEST(kernels_softcap) {
    double expected[MAX_SIZE];
    for (int k = 0; k < kernels_n; k++) {
        if (!kernels_all[k]->supported()) continue;
        for (int i = 0; i < N_SIZES; i++) {
            int n = odd_sizes[i];
            Fenced x = fenced_floats(n, i % 2 ? 200 : 5);
            const float *px = (const float *)x.data;
            float *out = banded((size_t)n);
            for (int j = 0; j < n; j++) expected[j] = 30 * tanh(px[j] / 30.0);
            kernels_all[k]->softcap(30, px, n, out);
            CHECK(nmse(out, expected, n) <= 1e-7, ": %s, %d values", kernels_all[k]->name, n);
            CHECK(bands_whole(out, (size_t)n), ": %s writes beside its output", kernels_all[k]->name);
            banded_free(out);
            fenced_free(x);
        }
    }
}

/* Every magnitude, each value by itself: relative error, or next to nothing where the result leaves the
 * normal range. */
TEST(kernels_silu_is_right_at_any_value) {
    static const GluParams silu = {.act = ACT_SILU};
    for (int k = 0; k < kernels_n; k++) {
        if (!kernels_all[k]->supported()) continue;
        for (uint32_t step = 0; step < 4000; step++) {
            float x = f32_from_bits(step * 0x7F800000u / 4000 & 0x7FFFFFFF), one = 1, out[2];
            const float values[2] = {x, -x}, ones[2] = {one, one};
            kernels_all[k]->glu(&silu, values, ones, 2, out);
            for (int i = 0; i < 2; i++) {
                double expected = values[i] / (1 + exp(-(double)values[i]));
                CHECK(fabs(out[i] - expected) <= 4e-7 * fabs(expected) + 1e-35, ": %s silu(%g) = %g, not %g",
                      kernels_all[k]->name, values[i], out[i], expected);
            }
        }
        static const float dense[] = {0.1f, 1, 5, 10, 50, 85};
        for (int i = 0; i < 6 * 1000; i++) {
            float x = -dense[i / 1000] * (1 + (float)(i % 1000) * 1e-3f), one = 1, out;
            kernels_all[k]->glu(&silu, &x, &one, 1, &out);
            double expected = x / (1 + exp(-(double)x));
            CHECK(fabs(out - expected) <= 4e-7 * fabs(expected) + 1e-35, ": %s silu(%g) = %g, not %g",
                  kernels_all[k]->name, x, out, expected);
        }
    }
}

TEST(kernels_to_f16) {
    for (int k = 0; k < kernels_n; k++) {
        if (!kernels_all[k]->supported()) continue;
        for (int i = 0; i < N_SIZES; i++) {
            int n = odd_sizes[i];
            Fenced x = fenced_floats(n, 1), out = fenced((size_t)n * 2, true);
            float *px = (float *)x.data;
            static const float sizes[] = {1, 0x1p-14f, 0x1p-20f, 0x1p16f, 0x1p-24f};
            for (int j = 0; j < n; j++) px[j] *= sizes[j % 5];
            kernels_all[k]->to_f16(px, n, (uint16_t *)out.data);
            for (int j = 0; j < n; j++)
                CHECK(load_u16(out.data + 2 * j) == f32_to_f16(px[j]), ": %s of %a", kernels_all[k]->name,
                      px[j]);
            fenced_free(x);
            fenced_free(out);
        }
    }
}

/* A sequence's rows in pages of a memory that ends at a fence, and what else is there is NaN.  The addresses
 * are those that the text of cache.h gives, computed without its functions. */
enum { PAGED_HEADS = 2, PAGED_HEAD = 1 }; // the last head ends where the page does

typedef struct Paged {
    Fenced memory;
    int32_t pages[8];
    CacheView view;
} Paged;

typedef struct Heads { // widths of K and V
    int k, v;
    bool v_in_k;
} Heads;

/* is_scattered: pages in reverse order, so that the first of them ends at the fence. */
static Paged paged(KvType type, Heads width, int n_positions, bool is_scattered) {
    int n_pages = (n_positions + CACHE_PAGE - 1) / CACHE_PAGE;
    KvLayer rows = {.kind = KV_ROWS,
                    .n_head = PAGED_HEADS,
                    .k_width = width.k,
                    .v_width = width.v,
                    .v_in_k = width.v_in_k};
    CacheConfig config = {.n_ctx = n_positions, .n_seq = 1, .type = type, .n_step = n_positions};
    Cache *cache = cache_open(&rows, 1, &config);
    Paged p = {.memory = fenced(cache_need(&rows, 1, &config).bytes, true)};
    for (int i = 0; i < n_pages; i++) p.pages[i] = is_scattered ? n_pages - i : i + 1;
    p.view = (CacheView){.layer = *cache_layer(cache, 0), .memory = p.memory.data};
    memset(p.memory.data, 0xFF, p.memory.n);
    cache_close(cache);
    return p;
}

/* The rows of the page that holds a position, and the number of the position's first element in them. */
static KvRows paged_rows(const Paged *p, CachePart part, int position, size_t *at) {
    const CacheLayer *l = &p->view.layer;
    bool v_in_k = part == CACHE_V && l->pitch[CACHE_V] != l->width[CACHE_V];
    size_t bytes = kv_row_bytes(l->type, l->pitch[CACHE_K]) * 64,
           v_bytes = kv_row_bytes(l->type, l->pitch[CACHE_V]) * 64;
    uint8_t *page = p->memory.data + (size_t)p->pages[position / 64] * l->page_bytes;
    uint8_t *cells = part == CACHE_K || v_in_k ? page + PAGED_HEAD * bytes
                                               : page + PAGED_HEADS * bytes + PAGED_HEAD * v_bytes;
    *at = (size_t)(position % 64) * (size_t)l->pitch[part];
    return (KvRows){cells, (uint16_t *)(void *)(cells + (size_t)64 * (size_t)l->pitch[part])};
}

static void paged_put(const Paged *p, CachePart part, int position, const float *x) {
    size_t at;
    KvRows rows = paged_rows(p, part, position, &at);
    kv_put(p->view.layer.type, x, p->view.layer.width[part], rows, at);
}

static double paged_at(const Paged *p, CachePart part, int position, int d) {
    size_t at;
    KvRows rows = paged_rows(p, part, position, &at);
    at += (size_t)d;
    switch (p->view.layer.type) {
    case KV_F16:
        return f16_to_f32(load_u16(rows.cells + 2 * at));
    case KV_Q8_0:
        return (double)(int8_t)rows.cells[at] *
               f16_to_f32(load_u16(rows.cells + (size_t)(64 * p->view.layer.pitch[part]) + at / 32 * 2));
    case KV_FP8:
        return e4m3_to_f32(rows.cells[at]);
    default:
        return f32_from_bits(load_u32(rows.cells + 4 * at));
    }
}

/* Keys or values of n positions from first on, [n][width]; the caller frees them. */
static double *paged_read(const Paged *p, CachePart part, int first, int n, int width) {
    double *x = malloc((size_t)(n * width) * sizeof *x);
    for (int i = 0; i < n; i++)
        for (int d = 0; d < width; d++) x[i * width + d] = paged_at(p, part, first + i, d);
    return x;
}

static void attn_double(const AttnJob *job, const Paged *p, Heads width, double *out) {
    double *keys = paged_read(p, CACHE_K, job->first, job->n_pos, width.k);
    double *values = paged_read(p, CACHE_V, job->first, job->n_pos, width.v);
    for (int h = 0; h < job->n_q; h++) {
        double score[300], max = -INFINITY, sum = 0;
        for (int i = 0; i < job->n_pos; i++) {
            score[i] = 0;
            for (int d = 0; d < width.k; d++) score[i] += job->q[h * width.k + d] * keys[i * width.k + d];
            score[i] *= job->scale;
            if (job->softcap != 0) score[i] = job->softcap * tanh(score[i] / job->softcap);
            max = fmax(max, score[i]);
        }
        if (job->sinks) sum = exp(job->sinks[h] - max);
        for (int i = 0; i < job->n_pos; i++) sum += score[i] = exp(score[i] - max);
        for (int d = 0; d < width.v; d++) {
            double value = 0;
            for (int i = 0; i < job->n_pos; i++) value += score[i] / sum * values[i * width.v + d];
            out[h * width.v + d] = value;
        }
    }
    free(keys);
    free(values);
}

/* Attention of n_q heads over positions first.., in pages in order and in scattered ones; with a softcap, if
 * that is not 0, and a sink for each head. */
static void try_attn_with(const Kernels *table, KvType type, int n_q, Heads width, int first, int n_pos,
                          float size, float softcap) {
    static const float sinks[] = {0.5f, -20, 3, 0, 1, 2, -1, 7, 0.1f};
    size_t n_out = (size_t)(n_q * width.v);
    Fenced q = fenced_floats(n_q * width.k, size);
    Paged p[2];
    float *scores = banded((size_t)(n_q * n_pos)), *out[2];
    double *expected = malloc(n_out * sizeof *expected);
    for (int i = 0; i < 2; i++) {
        p[i] = paged(type, width, first + n_pos, i);
        out[i] = banded(n_out);
    }
    for (int position = first; position < first + n_pos; position++)
        for (CachePart part = CACHE_K; part <= (width.v_in_k ? CACHE_K : CACHE_V); part++) {
            float x[576];
            for (int d = 0; d < p[0].view.layer.width[part]; d++) x[d] = random_float();
            for (int i = 0; i < 2; i++) paged_put(&p[i], part, position, x);
        }
    for (int i = 0; i < 2; i++) {
        AttnJob job = {.q = (const float *)q.data,
                       .n_q = n_q,
                       .cache = &p[i].view,
                       .pages = p[i].pages,
                       .head = PAGED_HEAD,
                       .first = first,
                       .n_pos = n_pos,
                       .scale = 1 / sqrtf((float)width.k),
                       .softcap = softcap,
                       .sinks = softcap != 0 ? sinks : NULL,
                       .scores = scores,
                       .out = out[i]};
        table->attn(&job);
        if (i == 0) attn_double(&job, &p[i], width, expected); // the same values are in the other pages
    }
    double error = nmse(out[0], expected, (int)n_out);
    CHECK(error <= 1e-7, ": %s, %s, %d heads of %d over %d positions: %g", table->name, kv_type_name(type),
          n_q, width.k, n_pos, error);
    CHECK(memcmp(out[0], out[1], n_out * sizeof *out[0]) == 0,
          ": %s, %s, %d heads of %d over %d positions: other bytes in scattered pages", table->name,
          kv_type_name(type), n_q, width.k, n_pos);
    CHECK(bands_whole(out[0], n_out) && bands_whole(out[1], n_out) &&
              bands_whole(scores, (size_t)(n_q * n_pos)),
          ": %s writes beside its output", table->name);
    for (int i = 0; i < 2; i++) {
        banded_free(out[i]);
        fenced_free(p[i].memory);
    }
    banded_free(scores);
    free(expected);
    fenced_free(q);
}

static void try_attn(const Kernels *table, KvType type, int n_q, Heads width, int first, int n_pos,
                     float size) {
    try_attn_with(table, type, n_q, width, first, n_pos, size, 0);
}

TEST(kernels_attn_softcap_and_sinks) {
    for (int k = 0; k < kernels_n; k++)
        for (int n_pos = 1; kernels_all[k]->supported() && n_pos < 40; n_pos += 7)
            for (int i = 0; i < 3; i++)
                try_attn_with(kernels_all[k], KV_F32, 1 + 4 * i, (Heads){64, 64, false}, 60, n_pos, 20,
                              i == 0   ? 0.7f
                              : i == 1 ? 30
                                       : 50);
}

TEST(kernels_attn) {
    static const int dims[] = {2, 6, 32, 40, 48, 64, 80, 96, 128, 192, 256},
                     positions[] = {1, 2, 15, 16, 17, 33, 64, 257};
    for (int k = 0; k < kernels_n; k++) {
        if (!kernels_all[k]->supported()) continue;
        for (int i = 0; i < 11; i++)
            for (int j = 0; j < 8; j++)
                for (int n_q = 1; n_q <= 9; n_q += n_q < 5 ? 1 : 4)
                    for (int type = 0; type < KV_N_TYPES; type++)
                        if (dims[i] % kv_type_multiple((KvType)type) == 0)
                            try_attn(kernels_all[k], (KvType)type, n_q, (Heads){dims[i], dims[i], false}, 0,
                                     positions[j], j % 3 ? 1 : 30);
    }
}

/* Values of another width than the keys', or the beginning of these; only the positions of a window. */
TEST(kernels_attn_of_other_shapes) {
    static const Heads widths[] = {{64, 32, false}, {96, 64, true}, {32, 128, false}, {576, 512, true}};
    static const int windows[][2] = {{0, 70}, {1, 63}, {63, 2}, {64, 64}, {100, 129}};
    for (int k = 0; k < kernels_n; k++)
        for (int i = 0; kernels_all[k]->supported() && i < 4; i++)
            for (int j = 0; j < 5; j++)
                for (int type = 0; type < KV_N_TYPES; type++)
                    try_attn(kernels_all[k], (KvType)type, 1 + j, widths[i], windows[j][0], windows[j][1], 1);
}

/* ---- The numbers of the cache ---- */

TEST(kv_layout) {
    static const struct {
        KvType type;
        const char *name;
        size_t row; // bytes of 64 elements
    } types[] = {{KV_F16, "f16", 128}, {KV_F32, "f32", 256}, {KV_Q8_0, "q8_0", 68}, {KV_FP8, "fp8", 64}};
    for (int i = 0; i < KV_N_TYPES; i++) {
        KvType found = KV_N_TYPES;
        CHECK(kv_type_find(types[i].name, &found) && found == types[i].type);
        CHECK(strcmp(kv_type_name(found), types[i].name) == 0);
        CHECK(kv_row_bytes(found, 64) == types[i].row &&
              kv_element_bytes(found) * 64 == (double)types[i].row);
    }
    KvType none;
    CHECK(!kv_type_find("q4_0", &none) && !kv_type_find("", &none) && !kv_type_find("F16", &none));
}

/* Each number is the nearest that its type has, and nothing beside the position is written. */
static void check_put(KvType type, float size) {
    enum { N = 96, AT = 2 };
    uint8_t memory[5 * N * 4];
    uint16_t scales[5 * N / 32];
    float x[N];
    memset(memory, 0x5A, sizeof memory);
    memset(scales, 0x5A, sizeof scales);
    for (int i = 0; i < N; i++) x[i] = random_float() * size * (i < 32 ? 1 : i < 64 ? 0.01f : 0);
    KvRows h = {memory, scales};
    kv_put(type, x, N, h, AT * N);
    size_t bytes = kv_row_bytes(type, N) - (type == KV_Q8_0 ? 2 * N / 32 : 0);
    for (size_t i = 0; i < sizeof memory; i++)
        CHECK(memory[i] == 0x5A || (i >= AT * bytes && i < (AT + 1) * bytes), ": %s", kv_type_name(type));
    for (int i = 0; i < 5 * N / 32; i++)
        CHECK(scales[i] == 0x5A5A || (type == KV_Q8_0 && i / 3 == AT), ": %s", kv_type_name(type));
    for (int i = 0; i < N; i++) {
        double d = f16_to_f32(scales[AT * 3 + i / 32]), magnitude = fabs((double)x[i]);
        double step = type == KV_F32   ? 0
                      : type == KV_F16 ? fmax(magnitude * 0x1p-11, 0x1p-25)
                      : type == KV_FP8 ? fmax(magnitude * 0x1p-4, 0x1p-10)
                                       : d * 0.5;
        double limit = type == KV_FP8 && magnitude > 448 ? magnitude - 448 : step * 1.0001;
        double error = fabs((double)kv_get(type, h, AT * N + (size_t)i) - (double)x[i]);
        CHECK(error <= limit, ": %s of %a: %g", kv_type_name(type), (double)x[i], error);
    }
}

TEST(kv_keeps_the_nearest_numbers) {
    static const float sizes[] = {1, 30, 1e-3f, 400, 600, 1e-5f, 1e-7f, 0};
    for (int type = 0; type < KV_N_TYPES; type++)
        for (int i = 0; i < 8; i++) {
            if (type == KV_Q8_0 && sizes[i] < 1 && sizes[i] > 0) continue; // d has few bits: below
            check_put((KvType)type, sizes[i]);
        }
}

/* Halves go to the even neighbour; ends of the range; a scale of few bits; what is not finite. */
TEST(kv_q8_0_at_its_ends) {
    float x[32] = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, -127, 126.5f, -126.5f};
    static const int expected[] = {127, 0, 2, 2, 0, -2, -2, -127, 126, -126};
    int8_t q[32];
    uint16_t d;
    KvRows h = {(uint8_t *)q, &d};
    kv_put(KV_Q8_0, x, 32, h, 0);
    CHECK(f16_to_f32(d) == 1);
    for (int i = 0; i < 10; i++) CHECK(q[i] == expected[i], ": %d is %d", i, q[i]);
    for (int i = 0; i < 32; i++) x[i] = i % 2 ? -1.4f * 127 * 0x1p-24f : 1.4f * 127 * 0x1p-24f;
    kv_put(KV_Q8_0, x, 32, h, 0); // the scale is the smallest there is, and too small
    for (int i = 0; i < 32; i++) CHECK(d == 1 && q[i] == (x[i] < 0 ? -127 : 127), ": %d", q[i]);
    static const float damage[] = {NAN, -NAN, INFINITY, -INFINITY, 3e38f, 1e7f};
    for (int k = 0; k < 6; k++) {
        x[k] = damage[k];
        kv_put(KV_Q8_0, x, 32, h, 0);
        for (size_t i = 0; i < 32; i++) CHECK(isnan(kv_get(KV_Q8_0, h, i)) && q[i] == 0, ": %g", damage[k]);
        x[k] = 1;
    }
}

TEST(kv_fp8_at_its_ends) {
    static const struct {
        float x;
        uint8_t code;
    } cases[] = {{0, 0},           {-0.0f, 0x80},  {448, 0x7E},     {-449, 0xFE},    {INFINITY, 0x7E},
                 {464, 0x7E},      {-3e38f, 0xFE}, {0x1p-9f, 1},    {0x1p-10f, 0},   {0x1.8p-9f, 2},
                 {0x1p-6f, 8},     {1, 0x38},      {1.0625f, 0x38}, {1.1875f, 0x3A}, {0x1.fp-7f, 8},
                 {0x1.01p-10f, 1}, {1.124f, 0x39}, {-240, 0xF7},    {0x1.ep-7f, 8},  {432, 0x7E}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK(f32_to_e4m3(cases[i].x) == cases[i].code, ": %a is %02x", (double)cases[i].x,
              f32_to_e4m3(cases[i].x));
    CHECK((f32_to_e4m3(NAN) & 0x7F) == 0x7F);
    for (int b = 0; b < 256; b++) {
        float x = e4m3_to_f32((uint8_t)b);
        CHECK(isnan(x) ? (b & 0x7F) == 0x7F : f32_to_e4m3(x) == b, ": %02x", b);
        float above =
            e4m3_to_f32((uint8_t)(b + 1)); // the last before the middle between two, and the first behind
        if (isnan(x) || isnan(above) || (b & 0x7F) == 0x7F || b == 0xFF) continue;
        float middle = (x + above) / 2;
        CHECK(f32_to_e4m3(nextafterf(middle, x)) == b && f32_to_e4m3(nextafterf(middle, above)) == b + 1,
              ": %02x", b);
        CHECK((f32_to_e4m3(middle) & 1) == 0, ": %02x", b);
    }
}

/* A number that is not finite shows in all results of it, and does not vanish in a maximum. */
TEST(kernels_let_no_nan_vanish) {
    for (int k = 0; k < kernels_n; k++) {
        const Kernels *table = kernels_all[k];
        if (!table->supported()) continue;
        for (int at = 0; at < 40; at++) {
            float x[40], ones[40], out[40], scores[40];
            for (int i = 0; i < 40; i++) {
                x[i] = -random_float();
                ones[i] = 1;
            }
            x[at] = NAN;
            for (int act = ACT_NONE; act < ACT_COUNT; act++)
                for (int in_gate = 0; in_gate < 2; in_gate++) {
                    GluParams p = {.act = (Activation)act, .limit = 1, .alpha_n = 1, .eps = -1};
                    table->glu(&p, in_gate ? x : ones, in_gate ? ones : x, 40, out);
                    CHECK(isnan(out[at]) && !isnan(out[39 - at]), ": %s %s", table->name,
                          activation_name(p.act));
                }
            for (int centred = 0; centred < 2; centred++) {
                NormParams p = {.centred = centred, .eps = 1e-5f};
                table->norm(&p, x, 40, out);
                CHECK(isnan(out[0]) && isnan(out[39]), ": %s norm", table->name);
            }
            table->softcap(30, x, 40, out);
            CHECK(isnan(out[at]) && !isnan(out[39 - at]), ": %s softcap", table->name);
            for (CachePart part = CACHE_K; part <= CACHE_V; part++) {
                Paged p = paged(KV_F32, (Heads){2, 2, false}, 20, false);
                for (int i = 0; i < 20; i++) {
                    paged_put(&p, part, i, x + 2 * i);
                    paged_put(&p, part == CACHE_K ? CACHE_V : CACHE_K, i, ones + 2 * i);
                }
                AttnJob job = {.q = ones,
                               .n_q = 1,
                               .cache = &p.view,
                               .pages = p.pages,
                               .head = PAGED_HEAD,
                               .n_pos = 20,
                               .scale = 1,
                               .scores = scores,
                               .out = out};
                table->attn(&job);
                CHECK(isnan(out[at & 1]) && (part == CACHE_V || isnan(out[1 - (at & 1)])),
                      ": %s attn, NaN in %s at %d", table->name, part == CACHE_K ? "K" : "V", at);
                fenced_free(p.memory);
            }
        }
    }
}

TEST(kernels_find_knows_the_names) {
    CHECK(kernels_find("scalar") == kernels_all[0]);
    CHECK(kernels_find("mmx") == NULL);
    CHECK(kernels_find("") == NULL);
    const Kernels *fastest = kernels_find("auto");
    REQUIRE(fastest && fastest->supported());
    for (int i = 0; i < kernels_n; i++) {
        const Kernels *table = kernels_all[i];
        CHECK(kernels_find(table->name) == (table->supported() ? table : NULL), ": %s", table->name);
        if (table == fastest)
            while (++i < kernels_n)
                CHECK(!kernels_all[i]->supported(), ": %s is faster", kernels_all[i]->name);
    }
}
