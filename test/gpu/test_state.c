/* state: CONV, SCAN and DELTA on the GPU: on tapes, against the formulas that the CPU is tested with; and the
 * launchers alone, on longer runs.
 *
 * Sequences of unequal lengths are computed in three ways: each in one run, all in one launch; in two parts;
 * and row by row, beside a row of padding.  The first must be the formula in double, the others the first to
 * the bit, and so must the states behind the last rows. */
#include "device.h"
#include "gpu.h"
#include "tiny.h"
#include "../unit/state_cases.h"

static void check(const StateCase *c) {
    state_check(&cuda_exec, "auto", c, 5e-6, true);
}

TEST(gpu_conv_over_runs_of_any_length) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    check_convs();
}

TEST(gpu_scan_over_runs_of_any_length) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    check_scans();
}

TEST(gpu_delta_over_runs_of_any_length) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    check_deltas();
}

/* ---- Launchers ------------------------------------------------------------------------------------------ */

enum { N_SEQ = 5, N_ALL = 100 + 1 + 37 + 16 + 17, PAGES = 9, N_PAGES = N_SEQ * PAGES + 1, N_WAYS = 3 };

static const int lengths[N_SEQ] = {100, 1, 37, 16, 17};
static const int parts[N_SEQ] = {64, 1, 9, 0, 16}; // rows of the first of two runs

/* One op over all sequences.  Row t of sequence s is row first_of(s) + t of the registers; the row behind the
 * last is that of padding. */
typedef struct Trial {
    cudaError_t (*launch)(const struct Trial *t, Runs runs, const int *map);
    Conv conv;
    Recurrence recurrence;
    RegRows out;
    int width; // of out
    CacheView cache;
    size_t state_floats;
    int32_t *seq, *position, *map, *first; // of the latest launch, on the device [N_ALL + 1]
} Trial;

static int first_of(int seq) {
    int first = 0;
    for (int s = 0; s < seq; s++) first += lengths[s];
    return first;
}

static float *random_floats(size_t n, float low, float high, uint64_t *state) {
    float *v = mem_new(n, sizeof *v);
    for (size_t i = 0; i < n; i++) v[i] = low + (high - low) * (tiny_float(state) + 1) / 2;
    return v;
}

static float *send(const float *v, size_t n) {
    return device_new(v, n * sizeof *v);
}

/* values[N_ALL][width], or NaN, from a column of a register on that may not be a multiple of four. */
static RegRows rows_of(const float *values, int width, int column) {
    int stride = (width + 11) / 4 * 4;
    size_t n = (size_t)(N_ALL + 1) * (size_t)stride;
    float *all = mem_new(n, sizeof *all);
    for (size_t i = 0; i < n; i++) all[i] = NAN;
    for (int t = 0; values && t < N_ALL; t++)
        memcpy(all + t * stride + column, values + (size_t)t * (size_t)width, (size_t)width * sizeof *all);
    RegRows rows = {send(all, n) + column, stride, NULL};
    free(all);
    return rows;
}

static void trial_open(Trial *t, size_t state_floats, int width, int column) {
    int32_t tables[N_SEQ * PAGES];
    for (int i = 0; i < N_SEQ * PAGES; i++) tables[i] = 1 + i * 7 % (N_SEQ * PAGES); // each page once
    size_t page_bytes = (state_floats * sizeof(float) + 255) / 256 * 256, n = (N_ALL + 1) * sizeof(int32_t);
    t->cache = (CacheView){.layer = {.page_bytes = page_bytes, .table_pages = PAGES},
                           .memory = device_new(NULL, N_PAGES * page_bytes),
                           .tables = device_new(tables, sizeof tables)};
    t->state_floats = state_floats;
    t->width = width;
    t->out = rows_of(NULL, width, column);
    t->seq = device_new(NULL, n);
    t->position = device_new(NULL, n);
    t->map = device_new(NULL, n);
    t->first = device_new(NULL, n);
}

static void copy(int32_t *device, const int32_t *host, int n) {
    device_check(cudaMemcpy(device, host, (size_t)n * sizeof *host, cudaMemcpyHostToDevice), "rows");
}

/* One launch: rows from[s]..end[s] - 1 of each sequence; if single, each a row by itself, and one of padding. */
static void launch_runs(const Trial *t, const int *from, const int *end, bool single) {
    int32_t seq[N_ALL + 1], position[N_ALL + 1], map[N_ALL + 1], first[N_ALL + 1];
    int n = 0, n_runs = 0, longest = 0;
    for (int s = 0; s < N_SEQ; s++) {
        if (from[s] >= end[s]) continue;
        first[n_runs++] = n;
        longest = end[s] - from[s] > longest ? end[s] - from[s] : longest;
        for (int p = from[s]; p < end[s]; p++, n++) {
            seq[n] = s;
            position[n] = p;
            map[n] = first_of(s) + p;
        }
    }
    if (single) {
        seq[n] = -1;
        position[n] = 3;
        map[n++] = N_ALL;
        n_runs++;
    } else {
        first[n_runs] = n;
        copy(t->first, first, n_runs + 1);
    }
    copy(t->seq, seq, n);
    copy(t->position, position, n);
    copy(t->map, map, n);
    device_check(cudaDeviceSynchronize(), "rows");
    Runs runs = {t->seq, t->position, single ? NULL : t->first, n_runs, longest, false};
    device_check(t->launch(t, runs, t->map), "launch");
    device_check(cudaStreamSynchronize(device_launch()->stream), "a kernel");
}

static void run_way(const Trial *t, int way) {
    int zero[N_SEQ] = {0}, end[N_SEQ];
    if (way == 0) launch_runs(t, zero, lengths, false);
    if (way == 1) {
        launch_runs(t, zero, parts, false);
        launch_runs(t, parts, lengths, false);
    }
    for (int p = 0; way == 2 && p < lengths[0]; p++) {
        int from[N_SEQ];
        for (int s = 0; s < N_SEQ; s++) {
            from[s] = p;
            end[s] = p < lengths[s] ? p + 1 : p;
        }
        launch_runs(t, from, end, true);
    }
}

/* The rows, and behind them the last state of each sequence. */
static float *read_results(const Trial *t) {
    size_t n_rows = (size_t)N_ALL * (size_t)t->width, stride = (size_t)t->out.stride;
    float *results = mem_new(n_rows + N_SEQ * t->state_floats, sizeof *results),
          *rows = mem_new(N_ALL * stride, sizeof *rows);
    device_read(rows, t->out.data, (N_ALL * stride - (stride - (size_t)t->width)) * sizeof *rows);
    for (size_t i = 0; i < N_ALL; i++)
        memcpy(results + i * (size_t)t->width, rows + i * stride, (size_t)t->width * sizeof *rows);
    for (int s = 0; s < N_SEQ; s++) {
        int32_t page = 1 + (s * PAGES + lengths[s] % PAGES) * 7 % (N_SEQ * PAGES);
        device_read(results + n_rows + (size_t)s * t->state_floats, cache_page(&t->cache, page),
                    t->state_floats * sizeof *results);
    }
    free(rows);
    return results;
}

/* Runs all ways; expected: [N_ALL][width].  The buffers end. */
static void trial_check(Trial *t, const double *expected, const char *name) {
    float *results[N_WAYS];
    size_t n = (size_t)N_ALL * (size_t)t->width;
    for (int way = 0; way < N_WAYS; way++) {
        run_way(t, way);
        results[way] = read_results(t);
    }
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)results[0][i] - expected[i];
        error += d * d;
        power += expected[i] * expected[i];
    }
    CHECK(error <= 1e-11 * power, "%s: NMSE %.3g", name, error / power);
    for (int way = 1; way < N_WAYS; way++) {
        int n_rows = 0, n_states = 0;
        for (size_t i = 0; i < n; i++) n_rows += results[way][i] != results[0][i];
        for (size_t i = n; i < n + N_SEQ * t->state_floats; i++) n_states += results[way][i] != results[0][i];
        CHECK(n_rows == 0 && n_states == 0, "%s: %d of %d values and %d of %d of the states differ in way %d",
              name, n_rows, (int)n, n_states, (int)(N_SEQ * t->state_floats), way);
    }
    for (int way = 0; way < N_WAYS; way++) free(results[way]);
    device_end(name);
}

/* ---- CONV ----------------------------------------------------------------------------------------------- */

static cudaError_t launch_tested_conv(const Trial *t, Runs runs, const int *map) {
    Conv c = t->conv;
    c.out = t->out;
    c.in.map = c.factor.map = c.gate.map = c.out.map = map;
    c.cache = t->cache;
    c.runs = runs;
    return launch_conv(device_launch(), &c);
}

/* gated: with a second input and a gate. */
static void check_conv(int width, int n_tap, bool has_bias, Activation act, bool gated, Activation gate_act) {
    uint64_t seed = 1;
    char name[64];
    size_t size = (size_t)N_ALL * (size_t)width;
    float *in = random_floats(size, -2, 2, &seed),
          *weight = random_floats((size_t)(width * n_tap), -1, 1, &seed),
          *bias = random_floats((size_t)width, -1, 1, &seed);
    float *factor = random_floats(size, -2, 2, &seed), *gate = random_floats(size, -2, 2, &seed);
    double *expected = mem_new(size, sizeof *expected);
    GluParams glu = {.act = act}, gate_glu = {.act = gate_act};
    for (int s = 0; s < N_SEQ; s++)
        for (int p = 0; p < lengths[s]; p++)
            for (int i = 0; i < width; i++) {
                int row = first_of(s) + p;
                double sum = has_bias ? (double)bias[i] : 0;
                for (int k = 0; k < n_tap; k++)
                    if (p - n_tap + 1 + k >= 0) {
                        int at = (row - n_tap + 1 + k) * width + i;
                        sum += (double)weight[i * n_tap + k] * in[at] * (gated ? (double)factor[at] : 1);
                    }
                expected[row * width + i] =
                    tiny_activation(&glu, sum) *
                    (gated ? tiny_activation(&gate_glu, (double)gate[row * width + i]) : 1);
            }
    snprintf(name, sizeof name, "CONV of %d columns, %d taps%s", width, n_tap, gated ? ", a gate" : "");
    Trial t = {.launch = launch_tested_conv};
    trial_open(&t, (size_t)((n_tap - 1) * width), width, 3);
    t.conv = (Conv){.in = rows_of(in, width, 1),
                    .width = width,
                    .n_tap = n_tap,
                    .weight = send(weight, (size_t)(width * n_tap)),
                    .bias = has_bias ? send(bias, (size_t)width) : NULL,
                    .act = act};
    if (gated) {
        t.conv.factor = rows_of(factor, width, 2);
        t.conv.gate = rows_of(gate, width, 0);
        t.conv.gate_act = gate_act;
    }
    trial_check(&t, expected, name);
    free(factor);
    free(gate);
    free(in);
    free(weight);
    free(bias);
    free(expected);
}

TEST(gpu_ops_conv) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    check_conv(300, 4, true, ACT_SILU, false, ACT_NONE);
    check_conv(256, 3, false, ACT_NONE, true, ACT_NONE);
    check_conv(5, 2, true, ACT_NONE, false, ACT_NONE);
    check_conv(1027, 5, false, ACT_SILU, true, ACT_SILU);
    check_conv(64, CONV_MAX_TAPS, true, ACT_NONE, false, ACT_NONE);
}

/* ---- SCAN and DELTA ------------------------------------------------------------------------------------- */

static cudaError_t launch_tested_recurrence(const Trial *t, Runs runs, const int *map) {
    Recurrence r = t->recurrence;
    r.out = t->out;
    r.q.map = r.k.map = r.v.map = r.decay.map = r.beta.map = r.gate.map = r.out.map = map;
    r.cache = t->cache;
    r.runs = runs;
    return launch_recurrence(device_launch(), &r);
}

/* Inputs and vectors on the host, in the form of Recurrence. */
typedef struct Host {
    float *q, *k, *v, *decay, *beta, *gate, *a, *dt_bias, *d;
} Host;

static double length_of(const float *x, int n, float eps) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return fmax(sqrt(sum), (double)eps);
}

static double softplus_of(double x) {
    return log1p(exp(x));
}

/* One row through the state [v_dim][k_dim] of a head. */
static void expect_row(const Recurrence *r, const Host *x, int row, int h, double *state, double *out) {
    int key = r->k_tiled ? h % r->n_k_head : h / (r->n_head / r->n_k_head);
    const float *q = x->q + (row * r->n_k_head + key) * r->k_dim,
                *k = x->k + (row * r->n_k_head + key) * r->k_dim,
                *v = x->v + (row * r->n_head + h) * r->v_dim;
    double q_scale = r->delta ? (double)r->scale / length_of(q, r->k_dim, r->eps) : 1,
           k_scale = r->delta ? 1 / length_of(k, r->k_dim, r->eps) : 1, dt = 0;
    for (int c = 0; c < r->v_dim; c++) {
        double *s = state + c * r->k_dim, recalled = 0, u, sum = 0;
        for (int i = 0; i < r->k_dim; i++) {
            int at = r->per_channel ? h * r->k_dim + i : h,
                n_decay = r->per_channel ? r->n_head * r->k_dim : r->n_head;
            dt =
                softplus_of((double)x->decay[row * n_decay + at] + (r->dt_bias ? (double)x->dt_bias[at] : 0));
            s[i] *= exp((double)x->a[h] * dt);
            recalled += s[i] * k[i] * k_scale;
        }
        u = r->delta ? (v[c] - recalled) / (1 + exp(-(double)x->beta[row * r->n_head + h])) : dt * v[c];
        for (int i = 0; i < r->k_dim; i++) {
            s[i] += k[i] * k_scale * u;
            sum += s[i] * q[i] * q_scale;
        }
        out[c] = sum + (r->d ? (double)x->d[h] * v[c] : 0);
        GluParams glu = {.act = r->gate_act};
        if (r->gate_act)
            out[c] *= tiny_activation(&glu, (double)x->gate[(row * r->n_head + h) * r->v_dim + c]);
    }
}

static double *expect(const Recurrence *r, const Host *x) {
    size_t size = (size_t)r->k_dim * (size_t)r->v_dim;
    double *out = mem_new((size_t)(N_ALL * r->n_head * r->v_dim), sizeof *out),
           *state = mem_new(size, sizeof *state);
    for (int s = 0; s < N_SEQ; s++)
        for (int h = 0; h < r->n_head; h++) {
            memset(state, 0, size * sizeof *state);
            for (int p = 0; p < lengths[s]; p++)
                expect_row(r, x, first_of(s) + p, h, state,
                           out + ((first_of(s) + p) * r->n_head + h) * r->v_dim);
        }
    free(state);
    return out;
}

/* r: shapes and numbers; d and dt_bias are not NULL, and gate_act is not ACT_NONE, where the op has them. */
static void check_recurrence(Recurrence r, int column) {
    uint64_t seed = 2;
    char name[64];
    int n_k = r.n_k_head * r.k_dim, n_v = r.n_head * r.v_dim,
        n_decay = r.per_channel ? r.n_head * r.k_dim : r.n_head;
    float key = r.delta ? 2 : 0.3f;
    Host x = {.q = random_floats((size_t)(N_ALL * n_k), -key, key, &seed),
              .k = random_floats((size_t)(N_ALL * n_k), -key, key, &seed),
              .v = random_floats((size_t)(N_ALL * n_v), -2, 2, &seed),
              .decay = random_floats((size_t)(N_ALL * n_decay), -3, 1, &seed),
              .beta = random_floats((size_t)(N_ALL * r.n_head), -2, 2, &seed),
              .gate = random_floats((size_t)(N_ALL * n_v), -2, 2, &seed),
              .a = random_floats((size_t)r.n_head, -2, -0.1f, &seed),
              .dt_bias = random_floats((size_t)n_decay, -1, 1, &seed),
              .d = random_floats((size_t)r.n_head, -1, 1, &seed)};
    double *expected = expect(&r, &x);
    Trial t = {.launch = launch_tested_recurrence};
    trial_open(&t, (size_t)(n_v * r.k_dim), n_v, column);
    r.q = rows_of(x.q, n_k, column);
    r.k = rows_of(x.k, n_k, 0);
    r.v = rows_of(x.v, n_v, column);
    r.decay = rows_of(x.decay, n_decay, column);
    r.beta = rows_of(x.beta, r.n_head, column);
    if (r.gate_act) r.gate = rows_of(x.gate, n_v, 3 - column);
    r.a = send(x.a, (size_t)r.n_head);
    r.dt_bias = r.dt_bias ? send(x.dt_bias, (size_t)n_decay) : NULL;
    r.d = r.d ? send(x.d, (size_t)r.n_head) : NULL;
    t.recurrence = r;
    snprintf(name, sizeof name, "%s of %d heads of %d x %d%s", r.delta ? "DELTA" : "SCAN", r.n_head, r.v_dim,
             r.k_dim, r.per_channel ? ", decays of channels" : "");
    trial_check(&t, expected, name);
    float *all[] = {x.q, x.k, x.v, x.decay, x.beta, x.gate, x.a, x.dt_bias, x.d};
    for (int i = 0; i < 9; i++) free(all[i]);
    free(expected);
}

static const float present = 1; // a vector that the op has

TEST(gpu_ops_scan) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    Recurrence r = {
        .n_head = 8, .v_dim = 64, .n_k_head = 2, .k_dim = 128, .dt_bias = &present, .d = &present};
    check_recurrence(r, 0);
    r.dt_bias = NULL;
    r.gate_act = ACT_SILU;
    check_recurrence(r, 1);
    r.n_k_head = 1;
    r.k_dim = 256;
    check_recurrence(r, 0);
    r = (Recurrence){.n_head = 6, .v_dim = 10, .n_k_head = 3, .k_dim = 5, .dt_bias = &present, .d = &present};
    check_recurrence(r, 2);
    r.v_dim = 33;
    r.k_dim = 130;
    check_recurrence(r, 0);
}

TEST(gpu_ops_delta) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    Recurrence r = {.n_head = 4,
                    .v_dim = 128,
                    .n_k_head = 2,
                    .k_dim = 128,
                    .delta = true,
                    .dt_bias = &present,
                    .scale = 0.0883883f,
                    .eps = 1e-6f};
    check_recurrence(r, 0);
    r.k_tiled = true;
    check_recurrence(r, 1);
    r.per_channel = true;
    check_recurrence(r, 0);
    check_recurrence(r, 3);
    r.k_dim = 256;
    check_recurrence(r, 0);
    r.per_channel = false;
    r.v_dim = 40;
    r.k_dim = 20;
    check_recurrence(r, 0);
    r.v_dim = 16;
    r.k_dim = 16;
    r.eps = 5; // of some heads more than their length
    check_recurrence(r, 0);
    r.k_dim = 7;
    check_recurrence(r, 1);
}
