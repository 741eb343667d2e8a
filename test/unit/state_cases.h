/* state_cases: tapes of one CONV, SCAN or DELTA with their formulas in double, for the tests of all executors.
 * The file that includes it defines check, which gets every case. */
#ifndef ZGEN_TEST_STATE_CASES_H
#define ZGEN_TEST_STATE_CASES_H

#include "state_trial.h"

static void check(const StateCase *c);

static double softplus(double x) {
    return log1p(exp(x));
}
static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* ---- CONV: more columns than a thread takes at once ----------------------------------------------------- */

enum { CONV_WIDTH = 300, TAPS = 4 };

static const StateTensor conv_tensors[STATE_TENSORS] = {{"in", CONV_WIDTH, false, -2, 2},
                                                        {"weight", CONV_WIDTH *TAPS, true, -1, 1},
                                                        {"bias", CONV_WIDTH, true, -1, 1}};

static int emit_tested_conv(PlanBuilder *b, bool has_bias, Activation act) {
    const float *bias = builder_vector(b, "bias", CONV_WIDTH);
    return emit_conv(b, "conv", state_embed(b, "in", CONV_WIDTH),
                     (ConvParams){.n_tap = TAPS,
                                  .weight = builder_vector(b, "weight", CONV_WIDTH * TAPS),
                                  .bias = has_bias ? bias : NULL,
                                  .act = act});
}
static int emit_plain_conv(PlanBuilder *b) {
    return emit_tested_conv(b, false, ACT_NONE);
}
static int emit_silu_conv(PlanBuilder *b) {
    return emit_tested_conv(b, true, ACT_SILU);
}
static void conv(const float *const *data, const int32_t *token, int n, double *out) {
    for (int t = 0; t < n; t++)
        for (int c = 0; c < CONV_WIDTH; c++) {
            double sum = 0;
            for (int k = 0; k < TAPS; k++) {
                int from = t - TAPS + 1 + k;
                if (from >= 0) sum += (double)data[1][c * TAPS + k] * data[0][token[from] * CONV_WIDTH + c];
            }
            out[t * CONV_WIDTH + c] = sum;
        }
}
static void silu_conv(const float *const *data, const int32_t *token, int n, double *out) {
    conv(data, token, n, out);
    for (int i = 0; i < n * CONV_WIDTH; i++) {
        double x = out[i] + data[2][i % CONV_WIDTH];
        out[i] = x * sigmoid(x);
    }
}
static inline void check_convs(void) {
    StateCase c = {.emit = emit_plain_conv, .width = CONV_WIDTH, .expected = conv};
    memcpy(c.tensors, conv_tensors, sizeof c.tensors);
    check(&c);
    c.emit = emit_silu_conv;
    c.expected = silu_conv;
    check(&c);
}

/* ---- SCAN ---------------------------------------------------------------------------------------------- */

static ScanParams scan; // shapes of the tested op

static int emit_tested_scan(PlanBuilder *b) {
    int n_x = scan.n_head * scan.head_dim, n_state = scan.n_group * scan.n_state;
    ScanParams p = scan;
    const float *bias = builder_vector(b, "bias", p.n_head);
    p.a = builder_vector(b, "a", p.n_head);
    p.d = builder_vector(b, "d", p.n_head);
    p.dt_bias = scan.dt_bias ? bias : NULL;
    return emit_scan(b, "scan", state_embed(b, "x", n_x), state_embed(b, "b", n_state),
                     state_embed(b, "c", n_state), state_embed(b, "dt", p.n_head), p);
}
static void scanned(const float *const *data, const int32_t *token, int n, double *out) {
    int width = scan.n_head * scan.head_dim, n_in = scan.n_group * scan.n_state;
    double *state = mem_new((size_t)width * (size_t)scan.n_state, sizeof *state);
    for (int t = 0; t < n; t++)
        for (int i = 0; i < width; i++) {
            int h = i / scan.head_dim, group = h * scan.n_group / scan.n_head;
            double x = data[0][token[t] * width + i], sum = data[5][h] * x;
            double dt =
                softplus(data[3][token[t] * scan.n_head + h] + (scan.dt_bias ? (double)data[6][h] : 0));
            for (int k = 0; k < scan.n_state; k++) {
                double *s = &state[i * scan.n_state + k];
                int at = token[t] * n_in + group * scan.n_state + k;
                *s = *s * exp(dt * data[4][h]) + dt * x * data[1][at];
                sum += *s * data[2][at];
            }
            out[t * width + i] = sum;
        }
    free(state);
}
static void check_scan(ScanParams p) {
    scan = p;
    int n_x = p.n_head * p.head_dim, n_state = p.n_group * p.n_state;
    StateCase c = {.tensors = {{"x", n_x, false, -2, 2},
                               {"b", n_state, false, -0.3f, 0.3f},
                               {"c", n_state, false, -0.3f, 0.3f},
                               {"dt", p.n_head, false, -3, 3},
                               {"a", p.n_head, true, -2, -0.1f},
                               {"d", p.n_head, true, -1, 1},
                               {"bias", p.n_head, true, -1, 1}},
                   .emit = emit_tested_scan,
                   .width = n_x,
                   .expected = scanned};
    check(&c);
}
static inline void check_scans(void) {
    static const float with_bias = 1;
    check_scan((ScanParams){.n_head = 6, .head_dim = 10, .n_state = 5, .n_group = 2, .dt_bias = &with_bias});
    check_scan((ScanParams){.n_head = 2, .head_dim = 64, .n_state = 128, .n_group = 1});
}

/* ---- DELTA --------------------------------------------------------------------------------------------- */

static DeltaParams delta;

static int n_decay(void) {
    return delta.n_head * (delta.per_channel ? delta.k_dim : 1);
}
static int emit_tested_delta(PlanBuilder *b) {
    DeltaParams p = delta;
    p.a = builder_vector(b, "a", p.n_head);
    p.dt_bias = builder_vector(b, "bias", n_decay());
    return emit_delta(b, "delta", state_embed(b, "q", p.n_k_head * p.k_dim),
                      state_embed(b, "k", p.n_k_head * p.k_dim), state_embed(b, "v", p.n_head * p.v_dim),
                      state_embed(b, "decay", n_decay()), state_embed(b, "beta", p.n_head), p);
}
static double length(const float *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return fmax(sqrt(sum), (double)delta.eps);
}
/* One row through the state [k_dim][v_dim] of head h. */
static void delta_row(const float *const *data, int token, int h, double *state, double *out) {
    int key_head = delta.k_tiled ? h % delta.n_k_head : h * delta.n_k_head / delta.n_head;
    const float *q = data[0] + (token * delta.n_k_head + key_head) * delta.k_dim;
    const float *k = data[1] + (token * delta.n_k_head + key_head) * delta.k_dim;
    const float *v = data[2] + (token * delta.n_head + h) * delta.v_dim;
    double q_length = length(q, delta.k_dim), k_length = length(k, delta.k_dim);
    double beta = sigmoid(data[4][token * delta.n_head + h]);
    for (int i = 0; i < delta.k_dim; i++) {
        int at = delta.per_channel ? h * delta.k_dim + i : h;
        double decay = exp(data[5][h] * softplus((double)data[3][token * n_decay() + at] + data[6][at]));
        for (int c = 0; c < delta.v_dim; c++) state[i * delta.v_dim + c] *= decay;
    }
    for (int c = 0; c < delta.v_dim; c++) {
        double recalled = 0;
        for (int i = 0; i < delta.k_dim; i++) recalled += state[i * delta.v_dim + c] * k[i] / k_length;
        out[c] = 0;
        for (int i = 0; i < delta.k_dim; i++) {
            state[i * delta.v_dim + c] += k[i] / k_length * beta * (v[c] - recalled);
            out[c] += delta.scale * q[i] / q_length * state[i * delta.v_dim + c];
        }
    }
}
static void delta_rule(const float *const *data, const int32_t *token, int n, double *out) {
    size_t size = (size_t)delta.k_dim * (size_t)delta.v_dim;
    double *states = mem_new((size_t)delta.n_head * size, sizeof *states);
    for (int t = 0; t < n; t++)
        for (int h = 0; h < delta.n_head; h++)
            delta_row(data, token[t], h, states + (size_t)h * size,
                      out + (t * delta.n_head + h) * delta.v_dim);
    free(states);
}
static void check_delta(DeltaParams p) {
    delta = p;
    StateCase c = {.tensors = {{"q", p.n_k_head * p.k_dim, false, -2, 2},
                               {"k", p.n_k_head * p.k_dim, false, -2, 2},
                               {"v", p.n_head * p.v_dim, false, -2, 2},
                               {"decay", n_decay(), false, -3, 1},
                               {"beta", p.n_head, false, -2, 2},
                               {"a", p.n_head, true, -2, -0.1f},
                               {"bias", n_decay(), true, -1, 1}},
                   .emit = emit_tested_delta,
                   .width = p.n_head * p.v_dim,
                   .expected = delta_rule};
    check(&c);
}
static inline void check_deltas(void) {
    DeltaParams tiny = {.n_head = 6, .v_dim = 10, .n_k_head = 2, .k_dim = 5, .scale = 0.5f, .eps = 1e-6f};
    check_delta(tiny);
    tiny.k_tiled = true;
    check_delta(tiny);
    tiny.per_channel = true;
    tiny.eps = 3; // of many heads more than their length
    check_delta(tiny);
    check_delta((DeltaParams){
        .n_head = 2, .v_dim = 128, .n_k_head = 1, .k_dim = 128, .scale = 0.08838835f, .eps = 1e-6f});
}

#endif
