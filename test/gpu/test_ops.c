/* ops: the kernels beside the products, one by one, against formulas in double.
 *
 * Buffers lie between guard bands and are NaN where nothing was written.  The limit of f32 sums is an NMSE of
 * 1e-12. */
#include "device.h"
#include "gpu.h"
#include "matrix.h"
#include "tiny.h"
#include "../../src/base/float.h"

static const int widths[] = {16, 64, 100, 256, 331, 4096, 17000};
enum { N_WIDTHS = sizeof widths / sizeof *widths };

/* ---- Rows ---- */

/* An op's operands are columns of wider registers: each row of `width` floats has others before and behind
 * it, and a register has a few rows more than the op reads. */
enum { COLUMN = 5, MORE_COLUMNS = 27, MORE_ROWS = 3 };

typedef struct Input {
    float *rows; // [n][width]: what the op reads
    RegRows device;
} Input;

static int register_stride(int width) {
    return width + MORE_COLUMNS;
}

/* The rows[n][width], in another order in the register where mapped; the other columns are NaN. */
static Input input_of(float *rows, int n, int width, bool mapped) {
    int n_rows = n + MORE_ROWS, stride = register_stride(width);
    size_t elements = (size_t)n_rows * (size_t)stride;
    float *all = mem_new(elements, sizeof *all);
    int *map = mem_new((size_t)n, sizeof *map);
    Input o = {rows, {.stride = stride}};
    for (size_t i = 0; i < elements; i++) all[i] = NAN;
    for (int r = 0; r < n; r++) {
        map[r] = mapped ? n_rows - 1 - r : r;
        memcpy(all + (size_t)map[r] * (size_t)stride + COLUMN, rows + (size_t)r * (size_t)width,
               (size_t)width * sizeof *all);
    }
    o.device.data = (float *)device_new(all, elements * sizeof *all) + COLUMN;
    if (mapped) o.device.map = device_new(map, (size_t)n * sizeof *map);
    free(all);
    free(map);
    return o;
}

static Input input_new(int n, int width, bool mapped, uint64_t *state) {
    return input_of(floats_new((size_t)n * (size_t)width, state), n, width, mapped);
}

/* n rows to be written. */
static RegRows output_new(int n, int width) {
    size_t bytes = (size_t)n * (size_t)register_stride(width) * sizeof(float);
    return (RegRows){(float *)device_new(NULL, bytes) + COLUMN, register_stride(width), NULL};
}

/* The rows written, [n][width]; nothing may have been written to the other columns. */
static float *output_read(RegRows out, int n, int width, const char *name) {
    size_t stride = (size_t)out.stride;
    float *all = mem_new((size_t)n * stride, sizeof *all),
          *rows = mem_new((size_t)n * (size_t)width, sizeof *rows);
    device_read(all, out.data - COLUMN, (size_t)n * stride * sizeof *all);
    int n_touched = 0;
    for (int r = 0; r < n; r++)
        for (int i = 0; i < (int)stride; i++) {
            int column = i - COLUMN;
            float x = all[(size_t)r * stride + (size_t)i];
            if (column >= 0 && column < width)
                rows[(size_t)r * (size_t)width + (size_t)column] = x;
            else
                n_touched += !isnan(x);
        }
    CHECK(n_touched == 0, "%s of %d x %d: %d elements outside of the output's columns are written", name, n,
          width, n_touched);
    free(all);
    return rows;
}

static void output_check(RegRows out, int n, int width, const double *expected, const char *name) {
    float *got = output_read(out, n, width, name);
    double error = 0, power = 0;
    for (size_t i = 0; i < (size_t)n * (size_t)width; i++) {
        double d = got[i] - expected[i];
        error += d * d;
        power += expected[i] * expected[i];
    }
    CHECK(error <= 1e-12 * power, "%s of %d x %d: NMSE %.3g", name, n, width, error / power);
    free(got);
}

/* One group of n elements that are normalised together. */
static void normalise(const float *x, int n, bool centred, double *out) {
    double mean = 0, squares = 0;
    for (int i = 0; i < n; i++) mean += x[i];
    mean = centred ? mean / n : 0;
    for (int i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    for (int i = 0; i < n; i++) out[i] = (x[i] - mean) / sqrt(squares / n + 1e-5);
}

/* The kinds of norms, as bits. */
enum { CENTRED = 1, BIASED = 2, PLAIN = 4, RESIDUAL = 8, GATED = 16, PER_HEAD = 32, N_KINDS = 64 };

static void check_norm(int width, int head_dim, int n, bool mapped, int kind) {
    uint64_t seed = 1;
    size_t n_all = (size_t)n * (size_t)width, vector = (size_t)width * sizeof(float);
    Input in = input_new(n, width, mapped, &seed), residual = input_new(n, width, mapped, &seed),
          gate = input_new(n, width, false, &seed);
    GluParams glu = {.act = ACT_SILU};
    float *weight = floats_new((size_t)width, &seed), *bias = floats_new((size_t)width, &seed);
    double *expected = mem_new(n_all, sizeof *expected);
    int group = head_dim ? head_dim : width;
    for (size_t i = 0; i < n_all; i += (size_t)group)
        normalise(in.rows + i, group, kind & CENTRED, expected + i);
    for (size_t i = 0; i < n_all; i++) {
        size_t w = i % (size_t)(head_dim && !(kind & PER_HEAD) ? head_dim : width);
        if (!(kind & PLAIN)) expected[i] *= weight[w];
        if (kind & BIASED) expected[i] += bias[w];
        if (kind & GATED) expected[i] = tiny_gated(&glu, gate.rows[i], expected[i]);
        if (kind & RESIDUAL) expected[i] += residual.rows[i];
    }
    RegRows out = output_new(n, width);
    Norm norm = {.sum_scale = 1,
                 .in = in.device,
                 .gate = kind & GATED ? gate.device : (RegRows){0},
                 .residual = kind & RESIDUAL ? residual.device : (RegRows){0},
                 .out = out,
                 .gate_act = ACT_SILU,
                 .weight = kind & PLAIN ? NULL : device_new(weight, vector),
                 .bias = kind & BIASED ? device_new(bias, vector) : NULL,
                 .eps = 1e-5f,
                 .width = width,
                 .head_dim = head_dim,
                 .centred = kind & CENTRED,
                 .per_head = kind & PER_HEAD};
    device_check(launch_norm(device_launch(), &norm, n), "norm");
    output_check(out, n, width, expected, "norm");
    device_end("norm");
    free(in.rows);
    free(residual.rows);
    free(gate.rows);
    free(weight);
    free(bias);
    free(expected);
}

TEST(gpu_ops_norm) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int i = 0; i < N_WIDTHS; i++)
        for (int n = 1; n <= 65; n += 32)
            for (int kind = 0; kind < PER_HEAD; kind++) check_norm(widths[i], 0, n, n > 1, kind);
}

TEST(gpu_ops_norm_of_heads) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int dims[] = {1, 20, 64, 128, 500};
    for (int i = 0; i < 5; i++)
        for (int n_head = 1; n_head <= 33; n_head += 16)
            for (int kind = 0; kind < N_KINDS; kind++)
                check_norm(dims[i] * n_head, dims[i], 9, n_head > 1, kind);
}

static void check_add(int width, int n, bool a_mapped, bool b_mapped, AddParams add) {
    uint64_t seed = 2;
    Input a = input_new(n, width, a_mapped, &seed), b = input_new(n, width, b_mapped, &seed);
    double *expected = mem_new((size_t)n * (size_t)width, sizeof *expected);
    for (size_t i = 0; i < (size_t)n * (size_t)width; i++)
        expected[i] = (double)add.scale * ((double)add.a_scale * a.rows[i] + b.rows[i]);
    RegRows out = output_new(n, width);
    device_check(launch_add(device_launch(), a.device, b.device, &add, width, n, out), "add");
    output_check(out, n, width, expected, "add");
    device_end("add");
    free(a.rows);
    free(b.rows);
    free(expected);
}

TEST(gpu_ops_add) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int i = 0; i < N_WIDTHS; i++)
        for (int n = 1; n <= 513; n += 256)
            for (int maps = 0; maps < 4; maps++) {
                check_add(widths[i], n, maps & 1, maps & 2, (AddParams){1, 1});
                check_add(widths[i], n, maps & 1, maps & 2, (AddParams){-0.3f, 2});
            }
}

/* GLU, or an activation alone.  Each input has a map of its own, or none. */
static void check_glu(int n, int width, int columns_per_gate, GluParams params, bool alone, int maps) {
    uint64_t seed = 2;
    int gate_width = width / columns_per_gate;
    float *gates = floats_new((size_t)(n * gate_width), &seed);
    for (int i = 0; i < n * gate_width; i++) gates[i] *= 9; // beyond all limits
    Input gate = input_of(gates, n, gate_width, maps & 1), up = input_new(n, width, maps & 2, &seed);
    double *expected = mem_new((size_t)n * (size_t)width, sizeof *expected);
    for (int i = 0; i < n * width; i++) {
        double x = gate.rows[i / width * gate_width + i % width / columns_per_gate];
        expected[i] = alone ? tiny_activation(&params, x) : tiny_gated(&params, x, up.rows[i]);
    }
    Glu g = {params, gate.device,     alone ? (RegRows){0} : up.device, output_new(n, width),
             width,  columns_per_gate};
    device_check(launch_glu(device_launch(), &g, n), activation_name(params.act));
    output_check(g.out, n, width, expected, activation_name(params.act));
    device_end("glu");
    free(gate.rows);
    free(up.rows);
    free(expected);
}

TEST(gpu_ops_glu) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int act = ACT_NONE; act < ACT_COUNT; act++) {
        GluParams p = {(Activation)act, 0.5f, 0.8f, 0.9f, 0.5f, -1e-6f};
        bool has_alone = act != ACT_SWIGLU_OAI && act != ACT_CLAMPED;
        for (int i = 0; i < N_WIDTHS; i++)
            for (int n = 1; n <= 257; n += 256)
                for (int maps = 0; maps < 4; maps++) {
                    check_glu(n, widths[i], 1, p, false, maps);
                    if (has_alone) check_glu(n, widths[i], 1, p, true, maps);
                }
        check_glu(33, 331, 331, p, false, 3);
        check_glu(33, 256, 64, p, false, 3);
        check_glu(1, 102, 3, p, false, 0);
    }
}

static void check_slice(int period, int first, int n_of_period, int n_periods, int n) {
    uint64_t seed = 5;
    int width = n_of_period * n_periods;
    Input in = input_new(n, period * n_periods, n > 1, &seed);
    double *expected = mem_new((size_t)(n * width), sizeof *expected);
    for (int i = 0; i < n * width; i++)
        expected[i] = in.rows[(i / n_of_period) * period + first + i % n_of_period];
    SliceParams slice = {period, first, n_of_period};
    RegRows out = output_new(n, width);
    device_check(launch_slice(device_launch(), in.device, &slice, width, n, out), "slice");
    output_check(out, n, width, expected, "slice");
    device_end("slice");
    free(in.rows);
    free(expected);
}

TEST(gpu_ops_slice) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int n = 1; n <= 65; n += 32) {
        check_slice(512, 0, 256, 16, n);
        check_slice(512, 256, 256, 16, n);
        check_slice(7, 2, 3, 11, n);
        check_slice(5, 0, 5, 1, n);
    }
}

static void check_join(int a_dim, int b_dim, int n_head, int n) {
    uint64_t seed = 6;
    int dim = a_dim + b_dim, width = dim * n_head;
    Input a = input_new(n, a_dim * n_head, n > 1, &seed), b = input_new(n, b_dim * n_head, false, &seed);
    double *expected = mem_new((size_t)(n * width), sizeof *expected);
    for (int i = 0; i < n * width; i++) {
        int head = i / dim, k = i % dim; // of all rows' heads
        expected[i] = k < a_dim ? a.rows[head * a_dim + k] : b.rows[head * b_dim + k - a_dim];
    }
    Join j = {a.device, b.device, output_new(n, width), a_dim, b_dim, n_head};
    device_check(launch_join(device_launch(), &j, n), "join");
    output_check(j.out, n, width, expected, "join");
    device_end("join");
    free(a.rows);
    free(b.rows);
    free(expected);
}

TEST(gpu_ops_join) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int n = 1; n <= 65; n += 32) {
        check_join(512, 64, 16, n);
        check_join(3, 5, 7, n);
        check_join(1, 255, 1, n);
    }
}

/* ---- Experts ---- */

/* The experts chosen in falling order of choice, the lower id of two equal ones first, and their weights; a
 * group's score is the sum of its two best. */
static void route(const MoeParams *m, const float *logits, double *choice, int *ids, double *weights) {
    double score[MAX_EXPERTS], left[MAX_EXPERTS], sum = 0, most = -INFINITY;
    int size = m->n_group > 1 ? m->n_expert / m->n_group : m->n_expert;
    for (int e = 0; e < m->n_expert; e++) most = fmax(most, (double)logits[e]);
    for (int e = 0; e < m->n_expert; e++) {
        score[e] = m->kind == ROUTE_SIGMOID ? 1 / (1 + exp(-(double)logits[e])) : exp(logits[e] - most);
        sum += score[e];
    }
    for (int e = 0; e < m->n_expert; e++) {
        if (m->kind == ROUTE_SOFTMAX) score[e] /= sum;
        left[e] = choice[e] = score[e] + (m->bias ? (double)m->bias[e] : 0);
    }
    double of_group[32];
    for (int g = 0; m->n_group > 1 && g < m->n_group; g++) {
        double best[2] = {-INFINITY, -INFINITY};
        for (int e = g * size; e < (g + 1) * size; e++)
            if (choice[e] > best[0]) {
                best[1] = best[0];
                best[0] = choice[e];
            } else
                best[1] = fmax(best[1], choice[e]);
        of_group[g] = best[0] + best[1];
    }
    for (int g = 0; m->n_group > 1 && g < m->n_group; g++) {
        int n_better = 0;
        for (int k = 0; k < m->n_group; k++)
            n_better += of_group[k] > of_group[g] || (of_group[k] == of_group[g] && k < g);
        for (int e = g * size; n_better >= m->n_group_used && e < (g + 1) * size; e++) left[e] = -INFINITY;
    }
    sum = 0;
    for (int s = 0; s < m->n_used; s++) {
        ids[s] = 0;
        for (int e = 1; e < m->n_expert; e++)
            if (left[e] > left[ids[s]]) ids[s] = e;
        left[ids[s]] = -INFINITY;
        sum += weights[s] = score[ids[s]];
    }
    for (int s = 0; s < m->n_used; s++) weights[s] *= m->scale / (m->normalise ? sum : 1);
}

static void check_route(MoeParams m, int n, bool mapped) {
    uint64_t seed = 3;
    int chosen[64], n_expert = m.n_expert, n_used = m.n_used;
    double shares[64], choice[MAX_EXPERTS];
    float *values = floats_new((size_t)(n * n_expert), &seed);
    for (int r = 0; r < n; r += 3) // equal ones among the largest
        for (int e = 1; e < n_expert; e += 2) values[r * n_expert + e] = 1.5f;
    Input logits = input_of(values, n, n_expert, mapped);
    RegRows ids = output_new(n, n_used), weights = output_new(n, n_used);
    Route op = {logits.device, m, ids, weights};
    if (m.bias) op.moe.bias = device_new(m.bias, (size_t)n_expert * sizeof(float));
    device_check(launch_route(device_launch(), &op, n), "route");
    float *got_ids = output_read(ids, n, n_used, "route"), *got = output_read(weights, n, n_used, "route");
    for (int r = 0; r < n; r++) {
        route(&m, logits.rows + r * n_expert, choice, chosen, shares);
        for (int s = 0; s < n_used; s++) {
            int32_t id;
            memcpy(&id, &got_ids[r * n_used + s], sizeof id);
            double want = choice[chosen[s]], apart = id < 0 || id >= n_expert ? NAN : fabs(choice[id] - want);
            bool rounded = apart > 0 && apart <= 1e-6 * (m.bias ? 1 : want); // f32 may change their order
            CHECK(id == chosen[s] || rounded, "%d of %d, row %d: slot %d is %d, not %d", n_used, n_expert, r,
                  s, id, chosen[s]);
            CHECK(fabs(got[r * n_used + s] - shares[s]) <= 4e-6 * fmax(1, shares[s]),
                  "%d of %d, row %d: weight %d is %g, not %g", n_used, n_expert, r, s,
                  (double)got[r * n_used + s], shares[s]);
        }
    }
    device_end("route");
    free(logits.rows);
    free(got_ids);
    free(got);
}

TEST(gpu_ops_route) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int cases[][2] = {{2, 1},   {4, 2},    {8, 8},    {31, 3},
                                   {128, 8}, {257, 10}, {512, 10}, {1024, 64}};
    uint64_t seed = 11;
    float *bias = floats_new(MAX_EXPERTS, &seed);
    for (int i = 0; i < 8; i++)
        for (int n = 1; n <= 65; n += 32)
            for (int k = 0; k < 8; k++) {
                MoeParams m = {.n_expert = cases[i][0],
                               .n_used = cases[i][1],
                               .kind = k & 1 ? ROUTE_SIGMOID : ROUTE_SOFTMAX,
                               .bias = k & 2 ? bias : NULL,
                               .normalise = !(k & 4),
                               .scale = 2.5f};
                check_route(m, n, n > 1);
            }
    static const int groups[][4] = {
        {8, 4, 2, 2}, {64, 8, 4, 6}, {256, 8, 4, 8}, {160, 8, 3, 6}, {6, 3, 1, 2}};
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 4; k++) {
            MoeParams m = {.n_expert = groups[i][0],
                           .n_group = groups[i][1],
                           .n_group_used = groups[i][2],
                           .n_used = groups[i][3],
                           .kind = k & 1 ? ROUTE_SIGMOID : ROUTE_SOFTMAX,
                           .bias = k & 2 ? bias : NULL,
                           .scale = 1};
            check_route(m, 33, true);
        }
    free(bias);
}

static void check_moe_sum(int width, int n_used, int n, bool residual) {
    uint64_t seed = 4;
    bool mapped = n > 1;
    Input in = input_new(n, width * n_used, false, &seed), weights = input_new(n, n_used, mapped, &seed),
          more = input_new(n, width, mapped, &seed);
    double *expected = mem_new((size_t)n * (size_t)width, sizeof *expected);
    for (int r = 0; r < n; r++)
        for (int i = 0; i < width; i++) {
            size_t at = (size_t)r * (size_t)width + (size_t)i;
            double sum = residual ? more.rows[at] : 0;
            for (int s = 0; s < n_used; s++)
                sum += (double)weights.rows[r * n_used + s] *
                       in.rows[(size_t)(r * n_used + s) * (size_t)width + (size_t)i];
            expected[at] = sum;
        }
    MoeSum op = {in.device,           weights.device, n_used, width, 1, residual ? more.device : (RegRows){0},
                 output_new(n, width)};
    device_check(launch_moe_sum(device_launch(), &op, n), "moe_sum");
    output_check(op.out, n, width, expected, "moe_sum");
    device_end("moe_sum");
    free(in.rows);
    free(weights.rows);
    free(more.rows);
    free(expected);
}

TEST(gpu_ops_moe_sum) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int i = 0; i < N_WIDTHS - 1; i++)
        for (int n = 1; n <= 65; n += 32) check_moe_sum(widths[i], 1 + n % 7, n, n > 1);
}
