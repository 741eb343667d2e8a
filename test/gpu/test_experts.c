/* experts: products of experts, of one row, of a few and of many, against the definition.
 *
 * Rows choose experts evenly, at random, or all the same ones, so that some experts have all rows and others
 * none.  Limits as in test_product.c: NMSE 1e-10 with the activations of the type's form, 1e-6 on the tensor
 * cores; and a row gives the same bytes in a launch of any number of rows. */
#include "device.h"
#include "gpu.h"
#include "matrix.h"
#include "tiny.h"

enum { MAX_ROWS = 600, IDS_STRIDE = 16 };

typedef enum Spread { EVEN, RANDOM, SAME, FIXED, N_SPREADS } Spread; // FIXED: no ids, slot s has matrix s

typedef struct Experts {
    QuantType type;
    int n_in, n_out, n_expert, n_used;
    bool per_slot, bias;
    Activation act; // not NONE: of gate and up
    Spread spread;
    float scale;
} Experts;

typedef struct Trial {
    Experts e;
    Matrix m[2]; // gate and up, or one
    float *in, *bias[2];
    int32_t *ids; // [MAX_ROWS][IDS_STRIDE]
    int n_m, in_stride, out_stride;
    char name[120];
} Trial;

static void choose(Trial *t, uint64_t *seed) {
    for (int r = 0; r < MAX_ROWS; r++)
        for (int s = 0; s < t->e.n_used; s++) {
            int32_t *id = &t->ids[r * IDS_STRIDE + s];
            bool taken;
            do {
                *id = t->e.spread == RANDOM ? (int32_t)(tiny_random(seed) % (uint64_t)t->e.n_expert)
                      : t->e.spread == EVEN ? (r * t->e.n_used + s) % t->e.n_expert
                                            : s;
                taken = false;
                for (int k = 0; k < s; k++) taken = taken || id[-1 - k] == *id;
            } while (taken && t->e.spread == RANDOM);
        }
}

static void trial_open(Trial *t, Experts e) {
    static const char *const spreads[] = {"even", "random", "the same", "fixed"};
    uint64_t seed = 4;
    *t = (Trial){.e = e, .n_m = e.act ? 2 : 1};
    for (int i = 0; i < t->n_m; i++) {
        t->m[i] = matrix_new(e.type, e.n_in, e.n_out, e.n_expert, &seed);
        matrix_upload(&t->m[i]);
        t->bias[i] = floats_new((size_t)e.n_out * (size_t)e.n_expert, &seed);
    }
    t->in_stride = stride_of(e.n_in * (e.per_slot ? e.n_used : 1));
    t->out_stride = stride_of(e.n_out * e.n_used);
    t->in = floats_new((size_t)MAX_ROWS * (size_t)t->in_stride, &seed);
    t->ids = mem_new((size_t)MAX_ROWS * IDS_STRIDE, sizeof *t->ids);
    if (e.spread != FIXED) choose(t, &seed);
    snprintf(t->name, sizeof t->name, "%s, %d x %d, %d of %d experts, %s%s, %s", quant_traits(e.type)->name,
             e.n_in, e.n_out, e.n_used, e.n_expert, spreads[e.spread], e.per_slot ? ", by slot" : "",
             activation_name(e.act));
}

static void trial_close(Trial *t) {
    for (int i = 0; i < t->n_m; i++) {
        matrix_free(&t->m[i]);
        free(t->bias[i]);
    }
    free(t->in);
    free(t->ids);
}

/* Of row r and slot s, [n_out]. */
static void expect(const Trial *t, int r, int s, bool exact, double *y) {
    const Experts *e = &t->e;
    int expert = e->spread == FIXED ? s : t->ids[r * IDS_STRIDE + s];
    const float *x = t->in + (size_t)r * (size_t)t->in_stride + (e->per_slot ? s * e->n_in : 0);
    double *v[2] = {y, mem_new((size_t)e->n_out, sizeof *y)};
    GluParams glu = {.act = e->act};
    for (int i = 0; i < t->n_m; i++) {
        matrix_multiply(&t->m[i], expert, x, exact, v[i]);
        for (int k = 0; e->bias && k < e->n_out; k++) v[i][k] += t->bias[i][expert * e->n_out + k];
    }
    for (int k = 0; k < e->n_out; k++)
        y[k] = (double)e->scale * (e->act ? tiny_gated(&glu, y[k], v[1][k]) : y[k]);
    free(v[1]);
}

static Product product_of(const Trial *t, int T) {
    const Experts *e = &t->e;
    Product p = {.n_segments = t->n_m,
                 .act = e->act,
                 .scale = e->scale,
                 .ids_stride = IDS_STRIDE,
                 .n_used = e->n_used,
                 .per_slot = e->per_slot};
    size_t rows = (size_t)T;
    p.in = (RegRows){device_new(t->in, rows * (size_t)t->in_stride * sizeof(float)), t->in_stride, NULL};
    if (e->spread != FIXED) p.ids = device_new(t->ids, rows * IDS_STRIDE * sizeof(int32_t));
    for (int i = 0; i < t->n_m; i++) {
        p.segment[i] = (ProductSegment){.w = t->m[i].device, .out_stride = t->out_stride};
        if (e->bias)
            p.segment[i].bias =
                device_new(t->bias[i], (size_t)e->n_out * (size_t)e->n_expert * sizeof(float));
    }
    p.segment[0].out = device_new(NULL, rows * (size_t)t->out_stride * sizeof(float));
    return p;
}

/* The outputs of a launch of T rows, [T][out_stride]; many: by launch_experts. */
static float *outputs(const Trial *t, int T, bool many) {
    Product p = product_of(t, T);
    const Launch *l = device_launch();
    size_t n = (size_t)T * (size_t)t->out_stride;
    float *got = mem_new(n, sizeof *got);
    void *scratch = many ? device_new(NULL, experts_scratch_bytes(&p, T)) : device_scratch();
    device_check(many ? launch_experts(l, &p, T, scratch) : launch_products(l, &p, T, scratch), t->name);
    device_read(got, p.segment[0].out, n * sizeof *got);
    device_end(t->name);
    return got;
}

/* Names the first output that differs by far more than the others may. */
static void compare(const Trial *t, const float *got, int T, bool exact, double limit) {
    double *y = mem_new((size_t)t->e.n_out, sizeof *y), error = 0, power = 0, worst = 0;
    int at[3] = {0};
    for (int r = 0; r < T; r++)
        for (int s = 0; s < t->e.n_used; s++) {
            expect(t, r, s, exact, y);
            for (int k = 0; k < t->e.n_out; k++) {
                double d = got[(size_t)r * (size_t)t->out_stride + (size_t)(s * t->e.n_out + k)] - y[k];
                error += d * d;
                power += y[k] * y[k];
                if (fabs(d) <= worst) continue; // false for NaN, too
                worst = isnan(d) ? INFINITY : fabs(d);
                memcpy(at, (int[]){r, s, k}, sizeof at);
            }
        }
    CHECK(error <= limit * power,
          "%s, %d rows%s: NMSE %.3g of %.3g, worst %.3g at row %d, slot %d, output %d", t->name, T,
          exact ? " on the tensor cores" : "", error / power, limit, worst, at[0], at[1], at[2]);
    free(y);
}

/* All numbers of rows: the results of the most, and the same bytes for fewer. */
static void check_few(Experts e) {
    static const int rows[] = {1, 2, 3, 5, 8, 19, 64, 65, 130};
    enum { MOST = 130 };
    Trial t;
    trial_open(&t, e);
    float *whole = outputs(&t, MOST, false);
    compare(&t, whole, MOST, false, 1e-10);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        float *got = outputs(&t, rows[i], false);
        int n_wrong = 0;
        for (int r = 0; r < rows[i]; r++) {
            size_t at = (size_t)r * (size_t)t.out_stride, n = (size_t)(e.n_out * e.n_used);
            n_wrong += memcmp(got + at, whole + at, n * sizeof *got) != 0;
        }
        CHECK(n_wrong == 0, "%s: bytes of %d of %d rows are not those among %d", t.name, n_wrong, rows[i],
              MOST);
        free(got);
    }
    free(whole);
    trial_close(&t);
}

static void check_many(Experts e) {
    static const int rows[] = {1, 33, 129, MAX_ROWS};
    Trial t;
    trial_open(&t, e);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i] * e.n_used * e.n_out < 16) continue; // of so few sums each may be small by cancellation
        float *got = outputs(&t, rows[i], true);
        compare(&t, got, rows[i], true, 1e-6);
        free(got);
    }
    trial_close(&t);
}

TEST(gpu_experts_of_every_type) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int i = 0; i < tiny_n_types; i++)
        for (int per_slot = 0; per_slot < 2; per_slot++) {
            Experts e = {tiny_types[i], 512, 75, 6, 3, per_slot, !per_slot, ACT_NONE, RANDOM, 1};
            check_few(e);
            e.n_in = 768;
            check_many(e);
        }
}

/* Gate and up: more tile rows than a block's warps have, biases, a row of input that fills no tile. */
TEST(gpu_experts_of_gate_and_up) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const QuantType types[] = {QUANT_Q4_K, QUANT_MXFP4, QUANT_Q6_K, QUANT_Q8_0, QUANT_F16, QUANT_F32};
    for (int i = 0; i < 6; i++)
        for (int act = ACT_SILU; act < ACT_CLAMPED; act++) {
            int n_in = quant_traits(types[i])->n_weights == 256 ? 256 : 416; // 13 chunks
            Experts e = {types[i], n_in, 139, 5, 2, false, act != ACT_GELU, (Activation)act, RANDOM, 1};
            check_few(e);
            check_many(e);
        }
}

/* Experts with all rows and experts with none, 1 to 8 of them, and a factor. */
TEST(gpu_experts_of_all_spreads) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int spread = 0; spread < N_SPREADS; spread++)
        for (int n_used = 1; n_used <= 8; n_used += n_used == 1 ? 2 : 5) {
            int n_expert = spread == FIXED ? n_used : 40;
            Experts e = {QUANT_Q4_0, 320,  33,       n_expert,       n_used,
                         n_used > 1, true, ACT_NONE, (Spread)spread, 0.5f};
            check_few(e);
            check_many(e);
        }
}

/* Rows of floats that fill no chunk; few outputs; many small experts. */
TEST(gpu_experts_of_odd_shapes) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const QuantType floats[] = {QUANT_F32, QUANT_F16, QUANT_BF16, QUANT_FP8_E4M3};
    for (int i = 0; i < 4; i++)
        for (int n_in = 40; n_in < 400; n_in += 59) {
            Experts e = {floats[i], n_in, 1 + i * 16, 7, 2, i % 2, false, ACT_NONE, RANDOM, 1};
            check_few(e);
            check_many(e);
        }
    Experts many = {QUANT_Q8_0, 64, 32, 512, 8, false, false, ACT_NONE, RANDOM, 1};
    check_few(many);
    check_many(many);
}

/* As heads of latent attention: the inputs of all slots do not fit into one block. */
TEST(gpu_experts_of_many_slots) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const QuantType types[] = {QUANT_F32, QUANT_Q8_0};
    for (int i = 0; i < 2; i++) {
        Experts e = {types[i], 512, 48, IDS_STRIDE * 8, IDS_STRIDE * 8, true, false, ACT_NONE, FIXED, 1};
        Trial t;
        trial_open(&t, e);
        float *one = outputs(&t, 1, false), *two = outputs(&t, 2, false), *many = outputs(&t, 70, true);
        compare(&t, two, 2, false, 1e-10);
        compare(&t, many, 70, true, 1e-6);
        CHECK(memcmp(one, two, (size_t)(e.n_out * e.n_used) * sizeof *one) == 0, "%s: a row alone", t.name);
        free(one);
        free(two);
        free(many);
        trial_close(&t);
    }
}

/* Rows of a real size: the K-slices of one expert are shared by all warps, and blocks cross groups. */
TEST(gpu_experts_of_real_shapes) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    check_few((Experts){QUANT_Q4_K, 2048, 400, 16, 4, false, false, ACT_SILU, RANDOM, 1});
    check_few((Experts){QUANT_Q6_K, 14336, 256, 4, 2, true, false, ACT_NONE, RANDOM, 1});
    check_many((Experts){QUANT_Q4_K, 2048, 304, 8, 2, false, false, ACT_SILU, RANDOM, 1});
    check_many((Experts){QUANT_MXFP4, 2880, 300, 4, 2, true, true, ACT_NONE, RANDOM, 1});
}
