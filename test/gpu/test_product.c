/* product: the kernels that multiply with weights, each by itself, against the definitions.
 *
 * With 8-bit activations every executor forms the same integers (exec/act.h); the order of the f32 sums is
 * the kernel's own, so that a result may differ by the rounding of a few additions: NMSE 1e-10, which one
 * wrong integer in a row exceeds.  A norm before the product is rounded before the activations are, and may
 * change one of them by a step: 1e-6.  Wide products take f16: 1e-6; the bytes of a row are the same for any
 * number of rows. */
#include "device.h"
#include "gpu.h"
#include "matrix.h"
#include "tiny.h"
#include "../../src/base/float.h"

enum { MAX_T = 513 };

static const int few[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,  12,
                          13, 14, 15, 16, 17, 31, 32, 33, 64, 65, 512, 513};
enum { N_FEW = sizeof few / sizeof *few };

/* Which products: those of few rows, or of many, whose sums are cut or not. */
typedef enum Way { NARROW, WIDE, SLICED } Way;
static const char *const way_names[] = {"narrow", "wide", "wide, sliced"};

static void normalise(const float *x, const float *weight, float eps, int n, float *out) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)x[i] * x[i];
    double scale = 1 / sqrt(sum / n + eps);
    for (int i = 0; i < n; i++) out[i] = (float)(x[i] * scale * weight[i]);
}

/* ---- A product, its reference, and the comparison ---- */

typedef struct Trial {
    Matrix m[OP_MAX_SEGMENTS];
    int n_segments, T, n_in;
    bool norm, residual, bias, permuted;
    Activation act;
    float factor, softcap;
    float *in, *norm_weight, *residual_rows, *biases[OP_MAX_SEGMENTS];
    int *rows, *residual_map; // permuted: row i reads rows rows[i] of in, residual_map[i] of residual_rows
    Product p;                // on the device
    float *expected[OP_MAX_SEGMENTS]; // [T][stride_of(n_out)]
    double limit;
    char name[80];
} Trial;

static const float EPS = 1e-5f;

static Trial *trial_new(const QuantType *types, const int *n_outs, int n_segments, int n_in, uint64_t seed) {
    Trial *t = mem_new(1, sizeof *t);
    *t = (Trial){.n_segments = n_segments, .T = MAX_T, .n_in = n_in, .factor = 1, .limit = 1e-10};
    for (int i = 0; i < n_segments; i++) {
        t->m[i] = matrix_new(types[i], n_in, n_outs[i], 1, &seed);
        matrix_upload(&t->m[i]);
        t->biases[i] = floats_new((size_t)n_outs[i], &seed);
        t->expected[i] = mem_new((size_t)MAX_T * (size_t)stride_of(n_outs[i]), sizeof(float));
    }
    t->in = floats_new((size_t)MAX_T * (size_t)stride_of(n_in), &seed);
    t->norm_weight = floats_new((size_t)n_in, &seed);
    t->residual_rows = floats_new((size_t)MAX_T * (size_t)stride_of(n_outs[0]), &seed);
    t->rows = mem_new(MAX_T, sizeof *t->rows);
    t->residual_map = mem_new(MAX_T, sizeof *t->residual_map);
    snprintf(t->name, sizeof t->name, "%s, %d x %d", quant_traits(types[0])->name, n_in, n_outs[0]);
    return t;
}

static void trial_free(Trial *t) {
    for (int i = 0; i < t->n_segments; i++) {
        matrix_free(&t->m[i]);
        free(t->biases[i]);
        free(t->expected[i]);
    }
    free(t->in);
    free(t->norm_weight);
    free(t->residual_rows);
    free(t->rows);
    free(t->residual_map);
    free(t);
}

/* Fills the maps. */
static void trial_map(Trial *t) {
    for (int i = 0; i < MAX_T; i++) {
        t->rows[i] = t->permuted ? (i * 7 + 3) % MAX_T : i;
        t->residual_map[i] = t->permuted ? (i * 5 + 1) % MAX_T : i;
    }
}

/* Fills expected, with products on exact or on the type's own activations. */
static void trial_expect(Trial *t, bool exact) {
    float *x = mem_new((size_t)t->n_in, sizeof *x);
    double *y = mem_new(1 << 16, sizeof *y), *gate = mem_new(1 << 16, sizeof *gate);
    GluParams glu = {.act = t->act};
    trial_map(t);
    for (int r = 0; r < t->T; r++) {
        const float *in = t->in + (size_t)t->rows[r] * (size_t)stride_of(t->n_in);
        memcpy(x, in, (size_t)t->n_in * sizeof *x);
        if (t->norm) normalise(in, t->norm_weight, EPS, t->n_in, x);
        for (int s = 0; s < t->n_segments; s++) {
            int n_out = t->m[s].w.n_out, to = t->act ? 0 : s;
            matrix_multiply(&t->m[s], 0, x, exact, y);
            for (int i = 0; i < n_out; i++) {
                float *out = t->expected[to] + (size_t)r * (size_t)stride_of(n_out) + i;
                double v = y[i] + (t->bias ? t->biases[s][i] : 0), added = 0;
                if (t->residual && to == 0)
                    added =
                        t->residual_rows[(size_t)t->residual_map[r] * (size_t)stride_of(n_out) + (size_t)i];
                if (t->act && s == 0) {
                    gate[i] = v;
                    continue;
                }
                v = (double)t->factor * (t->act ? tiny_gated(&glu, gate[i], v) : v) + added;
                *out = (float)(t->softcap != 0 ? (double)t->softcap * tanh(v / (double)t->softcap) : v);
            }
        }
    }
    free(x);
    free(y);
    free(gate);
}

/* MAX_T rows of `width` floats on the device, with or without a map. */
static RegRows rows_send(const float *rows, int width, const int *map) {
    size_t stride = (size_t)stride_of(width);
    return (RegRows){device_new(rows, MAX_T * stride * sizeof *rows), (int)stride,
                     map ? device_new(map, MAX_T * sizeof *map) : NULL};
}

/* Describes the product, with its operands in new device memory. */
static void trial_send(Trial *t) {
    Product *p = &t->p;
    *p = (Product){.n_segments = t->n_segments, .norm_eps = EPS, .act = t->act, .scale = t->factor};
    p->softcap = t->softcap;
    p->in = rows_send(t->in, t->n_in, t->permuted ? t->rows : NULL);
    if (t->residual)
        p->residual = rows_send(t->residual_rows, t->m[0].w.n_out, t->permuted ? t->residual_map : NULL);
    if (t->norm) p->norm = device_new(t->norm_weight, (size_t)t->n_in * sizeof(float));
    for (int s = 0; s < t->n_segments; s++) {
        int n_out = t->m[s].w.n_out;
        size_t bytes = (size_t)t->T * (size_t)stride_of(n_out) * sizeof(float);
        p->segment[s] = (ProductSegment){.w = t->m[s].device, .out_stride = stride_of(n_out)};
        p->segment[s].out = s && t->act ? p->segment[0].out : device_new(NULL, bytes);
        if (t->bias) p->segment[s].bias = device_new(t->biases[s], (size_t)n_out * sizeof(float));
    }
}

/* The rows that came out of segment s, packed [T][n_out], and those expected. */
static void trial_rows(const Trial *t, int s, int T, float *got, float *expected) {
    int n_out = t->m[s].w.n_out, stride = stride_of(n_out);
    float *rows = mem_new((size_t)T * (size_t)stride, sizeof *rows);
    device_read(rows, t->p.segment[s].out, (size_t)T * (size_t)stride * sizeof *rows);
    for (int r = 0; r < T; r++) {
        memcpy(got + (size_t)r * (size_t)n_out, rows + (size_t)r * (size_t)stride,
               (size_t)n_out * sizeof *got);
        memcpy(expected + (size_t)r * (size_t)n_out, t->expected[s] + (size_t)r * (size_t)stride,
               (size_t)n_out * sizeof *got);
    }
    free(rows);
}

static void launch(const Trial *t, Way way, int T) {
    const Launch *l = device_launch();
    device_check(way == NARROW ? launch_products(l, &t->p, T, device_scratch())
                               : launch_wide(l, &t->p, T, way == SLICED,
                                             device_new(NULL, wide_scratch_bytes(l, &t->p, T))),
                 t->name);
}

/* Launches for T rows and compares; `whole` is what a launch of all rows gave, which is filled by the first:
 * the same bytes are wanted. */
static void trial_check(Trial *t, Way way, int T, float *whole[OP_MAX_SEGMENTS]) {
    int rows = t->T;
    t->T = T;
    trial_send(t);
    t->T = rows;
    launch(t, way, T);
    for (int s = 0; s < (t->act ? 1 : t->n_segments); s++) {
        size_t n = (size_t)T * (size_t)t->m[s].w.n_out;
        float *got = mem_new(n, sizeof *got), *expected = mem_new(n, sizeof *expected);
        trial_rows(t, s, T, got, expected);
        double nmse = gpu_nmse(got, expected, n);
        CHECK(nmse <= t->limit, "%s, %s, segment %d, %d rows: NMSE %.3g of %.3g", t->name, way_names[way], s,
              T, nmse, t->limit);
        if (whole[s])
            CHECK(memcmp(got, whole[s], n * sizeof *got) == 0, "%s, %s, segment %d: %d rows change a bit",
                  t->name, way_names[way], s, T);
        if (!whole[s])
            whole[s] = got;
        else
            free(got);
        free(expected);
    }
    device_end(t->name);
}

/* All numbers of rows, the largest first. */
static void trial_ways(Trial *t, Way first, Way last) {
    trial_expect(t, first != NARROW);
    for (Way way = first; way <= last; way++) {
        float *whole[OP_MAX_SEGMENTS] = {NULL};
        for (int i = N_FEW - 1; i >= 0; i--)
            if (few[i] <= t->T) trial_check(t, way, few[i], whole);
        for (int s = 0; s < OP_MAX_SEGMENTS; s++) free(whole[s]);
    }
}

static void trial_few(Trial *t) {
    trial_ways(t, NARROW, NARROW);
}

/* ---- Few rows ---- */

/* Rows of one K-slice and of many, of one block and of clusters; an odd number of outputs; bias, residual and
 * scales of rows in the epilogue. */
TEST(gpu_ops_product_of_every_type) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int shapes[][3] = {// n_in, n_out, rows
                                    {256, 331, 513},
                                    {2048, 37, 33},
                                    {7168, 19, 9},
                                    {14336, 75, 33}};
    for (int i = 0; i < tiny_n_types; i++)
        for (int k = 0; k < 4; k++) {
            Trial *t = trial_new(&tiny_types[i], &shapes[k][1], 1, shapes[k][0], 1);
            t->T = shapes[k][2];
            t->bias = k != 1;
            t->residual = k != 2;
            t->factor = k == 1 ? 0.25f : 1;
            t->softcap = k == 2 ? 1.5f : 0;
            trial_few(t);
            trial_free(t);
        }
}

/* As many products as an op may have, of a mixed file, of the mapped rows of an input, with a norm or
 * without. */
TEST(gpu_ops_product_of_mixed_types) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const QuantType types[][OP_MAX_SEGMENTS] = {{QUANT_Q4_K, QUANT_Q4_K, QUANT_Q6_K, QUANT_Q4_K},
                                                       {QUANT_Q8_0, QUANT_F16, QUANT_Q5_1, QUANT_Q8_0},
                                                       {QUANT_BF16, QUANT_NVFP4, QUANT_F32, QUANT_BF16},
                                                       {QUANT_Q3_K, QUANT_IQ4_XS, QUANT_MXFP4, QUANT_F32},
                                                       {QUANT_IQ2_XXS, QUANT_IQ3_S, QUANT_Q4_K, QUANT_Q6_K}};
    static const int n_outs[OP_MAX_SEGMENTS] = {192, 64, 33, 2};
    for (int i = 0; i < 5; i++)
        for (int plain = 0; plain < 2; plain++) {
            Trial *t = trial_new(types[i], n_outs, OP_MAX_SEGMENTS, 512, 2);
            t->T = 65;
            t->norm = !plain;
            t->permuted = t->bias = true;
            if (t->norm) t->limit = 1e-6;
            trial_few(t);
            trial_free(t);
        }
}

TEST(gpu_ops_product_of_gate_and_up) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const QuantType types[][2] = {{QUANT_Q4_K, QUANT_Q4_K},
                                         {QUANT_F16, QUANT_F16},
                                         {QUANT_Q4_0, QUANT_Q8_0},
                                         {QUANT_IQ1_M, QUANT_IQ2_S}};
    static const int n_outs[] = {203, 203};
    for (int i = 0; i < 4; i++)
        for (int norm = 0; norm < 2; norm++)
            for (int act = ACT_SILU; act < ACT_CLAMPED; act++) { // the others have numbers
                Trial *t = trial_new(types[i], n_outs, 2, 512, 3);
                t->T = 33;
                t->act = (Activation)act;
                t->norm = norm;
                t->bias = true;
                t->residual = act == ACT_GELU;
                if (norm) t->limit = 1e-6;
                trial_few(t);
                trial_free(t);
            }
}

/* Tile rows whose K-slices are shared by the blocks of a cluster, not all of one length: of one matrix, of
 * gate and up, of several matrices. */
TEST(gpu_ops_product_by_clusters) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    const Launch *l = device_launch();
    if (!l->dependent) SKIP("this GPU has no clusters");
    CHECK(l->n_clusters[2] > 0 && l->n_clusters[4] > 0, "%d and %d", l->n_clusters[2], l->n_clusters[4]);
    static const struct {
        QuantType types[OP_MAX_SEGMENTS];
        int n_in, n_outs[OP_MAX_SEGMENTS], n;
        Activation act;
    } cases[] = {{{QUANT_Q4_K}, 18944, {1043}, 1, ACT_NONE},
                 {{QUANT_Q6_K}, 27648, {50}, 1, ACT_NONE},
                 {{QUANT_Q5_0}, 13824, {4200}, 1, ACT_NONE},
                 {{QUANT_Q8_0}, 8448, {300}, 1, ACT_NONE},
                 {{QUANT_Q4_K, QUANT_Q4_K}, 14336, {203, 203}, 2, ACT_SILU},
                 {{QUANT_Q4_0, QUANT_Q6_K}, 8192, {203, 203}, 2, ACT_SILU},
                 {{QUANT_Q4_K, QUANT_Q4_K, QUANT_Q6_K}, 8192, {200, 64, 33}, 3, ACT_NONE}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Trial *t = trial_new(cases[i].types, cases[i].n_outs, cases[i].n, cases[i].n_in, 4);
        t->T = 17;
        t->act = cases[i].act;
        t->bias = true;
        t->residual = !t->act;
        trial_few(t);
        trial_free(t);
    }
}

/* Rows of a register in the order of a map. */
static void gather(float *rows, const int *map, int width) {
    size_t stride = (size_t)stride_of(width);
    float *from = mem_new(MAX_T * stride, sizeof *from);
    memcpy(from, rows, MAX_T * stride * sizeof *from);
    for (int i = 0; i < MAX_T; i++)
        memcpy(rows + (size_t)i * stride, from + (size_t)map[i] * stride, stride * sizeof *from);
    free(from);
}

/* Maps of the input and of the residual change no bit: the product of rows gathered before is the same. */
static void check_maps(QuantType type, int n_in, bool norm, bool bias, Way way, int T) {
    static const int n_out = 331;
    Trial *t = trial_new(&type, &n_out, 1, n_in, 10);
    t->T = T;
    t->norm = norm;
    t->bias = bias;
    t->residual = true;
    size_t n = (size_t)T * (size_t)n_out;
    float *got[2], *ignored = mem_new(n, sizeof *ignored);
    for (int mapped = 1; mapped >= 0; mapped--) {
        t->permuted = mapped;
        if (mapped) trial_map(t);
        trial_send(t);
        launch(t, way, T);
        trial_rows(t, 0, T, got[mapped] = mem_new(n, sizeof(float)), ignored);
        device_end(t->name);
        gather(t->in, t->rows, n_in);
        gather(t->residual_rows, t->residual_map, n_out);
    }
    CHECK(memcmp(got[0], got[1], n * sizeof(float)) == 0, "%s, %s, %d rows: maps change a bit", t->name,
          way_names[way], T);
    free(got[0]);
    free(got[1]);
    free(ignored);
    trial_free(t);
}

TEST(gpu_ops_product_of_mapped_rows) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int sizes[] = {1, 2, 5, 16, 33, 65, 129};
    for (int i = 0; i < 7; i++)
        for (int bias = 0; bias < 2; bias++)
            for (Way way = NARROW; way <= SLICED; way++) {
                check_maps(QUANT_Q4_K, 512, true, bias, way, sizes[i]);
                check_maps(QUANT_Q8_0, 8448, false, bias, way, sizes[i]);
                check_maps(QUANT_F16, 512, false, bias, way, sizes[i]);
            }
}

/* ---- Many rows ---- */

static void check_wide(Trial *t) {
    t->limit = 1e-6;
    trial_ways(t, WIDE, SLICED);
    trial_free(t);
}

/* Rows of a tile and less, of many, whose sums are cut. */
TEST(gpu_ops_wide_product_of_every_type) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int shapes[][2] = {{256, 331}, {4096, 37}, {14336, 19}}; // n_in, n_out
    for (int i = 0; i < tiny_n_types; i++)
        for (int k = 0; k < 3; k++) {
            Trial *t = trial_new(&tiny_types[i], &shapes[k][1], 1, shapes[k][0], 5);
            t->T = k ? 65 : MAX_T;
            t->bias = (i + k) % 2;
            t->residual = (i + k) % 3 != 0;
            t->norm = i % 4 == 1 && k < 2;
            t->factor = k == 1 ? 0.25f : 1;
            t->softcap = k == 2 ? 1.5f : 0;
            check_wide(t);
        }
}

/* Rows that end within a tile and within 64 columns; of one type, and of types whose tiles are of other
 * lengths; gate and up of one type, and of two. */
TEST(gpu_ops_wide_product_of_several) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const QuantType types[][3] = {{QUANT_Q4_K, QUANT_Q6_K, QUANT_F16},
                                         {QUANT_Q8_0, QUANT_Q8_0, QUANT_F32},
                                         {QUANT_F16, QUANT_F16, QUANT_F16}};
    static const int apart[] = {592, 64, 33}, equal[] = {203, 203};
    for (int i = 0; i < 3; i++)
        for (int act = ACT_NONE; act < ACT_CLAMPED; act++) { // the others have numbers
            Trial *t = trial_new(types[i], act ? equal : apart, act ? 2 : 3,
                                 i == 0   ? 2560
                                 : i == 1 ? 1056
                                          : 1283,
                                 6);
            t->T = 131;
            t->norm = t->permuted = t->residual = true;
            t->act = (Activation)act;
            t->bias = act != ACT_NONE;
            t->factor = act == ACT_GELU || act == ACT_NONE ? 0.3f : 1;
            check_wide(t);
        }
}

/* ---- Decoded weights ---- */

/* The last n_in of skip + n_in columns of a matrix. */
static void check_decoding(QuantType type, int n_in, int skip) {
    enum { N_OUT = 77, T = 40 };
    uint64_t seed = 7;
    const QuantTraits *traits = quant_traits(type);
    Matrix m = matrix_new(type, skip + n_in, N_OUT, 2, &seed);
    const uint8_t *data = m.w.data;
    m.w.n_in = n_in;
    m.w.data += (size_t)(skip / traits->n_weights) * traits->n_bytes;
    matrix_upload(&m);
    m.w.data = data;
    int32_t token[T];
    float factor = skip ? 3 : 1;
    for (int i = 0; i < T; i++) token[i] = i * 13 % N_OUT;
    size_t stride = (size_t)stride_of(n_in), row = (size_t)(skip + n_in);
    float *rows = mem_new(T * stride, sizeof *rows);
    DeviceWeight first = m.device; // EMBED refuses experts
    first.n_expert = 1;
    float *out = device_new(NULL, T * stride * sizeof *rows);
    device_check(launch_embed(device_launch(), &first, device_new(token, sizeof token), factor, T,
                              (RegRows){out, (int)stride, NULL}),
                 "embed");
    device_read(rows, out, T * stride * sizeof *rows);
    int n_wrong = 0;
    for (int i = 0; i < T; i++)
        for (int k = 0; k < n_in; k++) {
            float w = m.decoded[(size_t)token[i] * row + (size_t)(skip + k)],
                  by = m.w.scale ? factor * m.w.scale[token[i]] : factor;
            n_wrong += rows[(size_t)i * stride + (size_t)k] != w * by;
        }
    CHECK(n_wrong == 0, "%s, rows of %d: %d embedded values differ", traits->name, n_in, n_wrong);
    device_end("decoding");
    free(rows);
    matrix_free(&m);
}

TEST(gpu_ops_weights_decode_exactly) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int widths[] = {256, 2048, 7168}, odd[] = {8, 33, 100, 1283};
    for (int i = 0; i < tiny_n_types; i++) {
        for (int k = 0; k < 3; k++) check_decoding(tiny_types[i], widths[k], 0);
        for (int k = 0; k < 4 && quant_traits(tiny_types[i])->act == QUANT_ACT_F32; k++)
            check_decoding(tiny_types[i], odd[k], 0);
    }
}

TEST(gpu_ops_weights_of_a_range_of_columns) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int i = 0; i < tiny_n_types; i++) check_decoding(tiny_types[i], 512, 256);
}

/* ---- Fused products ---- */

/* As in a layer: a product, gate and up with a norm, one back to the width with a residual, and one of
 * another type. The first, third and last have fewer tile rows than an H200 has SMs, the second has more. */
enum { N_FUSED = 4, WIDTH = 160, MIDDLE = 2304, N_FIRST = 256, N_LAST = 52, EPOCHS = 50 };

static void check_fused(const QuantType types[N_FUSED]) {
    static const int n_ins[] = {N_FIRST, WIDTH, MIDDLE, WIDTH}, n_outs[] = {WIDTH, MIDDLE, WIDTH, N_LAST};
    uint64_t seed = 9;
    Matrix m[N_FUSED], up = matrix_new(types[1], WIDTH, MIDDLE, 1, &seed);
    Fusion fusion = {.n = N_FUSED, .router = -1};
    Product *p = fusion.p;
    float *norm = floats_new(WIDTH, &seed), got[2][N_LAST];
    for (int i = 0; i < N_FUSED; i++) {
        m[i] = matrix_new(types[i], n_ins[i], n_outs[i], 1, &seed);
        matrix_upload(&m[i]);
        float *out = device_new(NULL, (size_t)n_outs[i] * sizeof(float));
        p[i].n_segments = 1;
        p[i].scale = 1;
        p[i].segment[0] = (ProductSegment){.w = m[i].device, .out = out, .out_stride = stride_of(n_outs[i])};
        p[i].flagged = device_zeros(sizeof(FlaggedOutput) + (size_t)n_outs[i] * sizeof(uint32_t));
        p[i].from = i - 1;
        p[i].kept = p[i].gate_from = -1;
        if (i) p[i].in = (RegRows){p[i - 1].segment[0].out, stride_of(n_ins[i]), NULL};
    }
    matrix_upload(&up);
    p[1].n_segments = 2;
    p[1].segment[1] = (ProductSegment){.w = up.device};
    p[1].act = ACT_SILU;
    p[1].norm = device_new(norm, WIDTH * sizeof(float));
    p[1].norm_eps = EPS;
    p[2].residual = (RegRows){p[0].segment[0].out, stride_of(WIDTH), NULL};
    static const int third[] = {2}, second[] = {1}; // rows of the input, and of the last residual
    float *in = device_new(NULL, 3 * N_FIRST * sizeof(float)), *more = floats_new(2 * 64, &seed);
    p[0].in = (RegRows){in, N_FIRST, device_new(third, sizeof third)};
    p[3].residual = (RegRows){device_new(more, 2 * 64 * sizeof *more), 64, device_new(second, sizeof second)};
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        float *x = floats_new(N_FIRST, &seed);
        device_check(cudaMemcpy(in + 2 * N_FIRST, x, N_FIRST * sizeof(float), cudaMemcpyHostToDevice),
                     "input");
        for (int i = 0; i < N_FUSED; i++)
            device_check(launch_products(device_launch(), &p[i], 1, NULL), "one by one");
        device_read(got[0], p[N_FUSED - 1].segment[0].out, sizeof got[0]);
        device_check(cudaMemset(p[N_FUSED - 1].segment[0].out, 0xFF, sizeof got[0]), "clearing");
        device_check(launch_fusion(device_launch(), &fusion), "a fusion");
        device_read(got[1], p[N_FUSED - 1].segment[0].out, sizeof got[1]);
        CHECK(memcmp(got[0], got[1], sizeof got[0]) == 0, "%s, epoch %d: one kernel gives other bytes",
              quant_traits(types[1])->name, epoch);
        free(x);
    }
    device_end("fused products");
    free(norm);
    free(more);
    matrix_free(&up);
    for (int i = 0; i < N_FUSED; i++) matrix_free(&m[i]);
}

TEST(gpu_ops_products_fused) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    check_fused((const QuantType[N_FUSED]){QUANT_Q8_0, QUANT_Q8_0, QUANT_Q8_0, QUANT_Q4_0});
    check_fused((const QuantType[N_FUSED]){QUANT_F16, QUANT_Q5_1, QUANT_Q8_0, QUANT_F32});
    check_fused((const QuantType[N_FUSED]){QUANT_Q4_K, QUANT_F32, QUANT_Q6_K, QUANT_BF16});
}
