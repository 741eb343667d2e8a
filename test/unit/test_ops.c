/* ops: single ops with each of their parameters, on the CPU, against their formulas in double precision. */
#include "trial.h"
#include "../../src/cpu/cpu.h"

/* Runs the tape on the scalar kernels and compares. */
static void check(void (*emit)(PlanBuilder *b), void (*expected)(const Trial *t, int row, double *out)) {
    Trial t;
    if (run_trial(&t, &cpu_exec, emit)) check_rows(&t, 2e-6, expected);
}

/* ---- EMBED --------------------------------------------------------------------------------------------- */

static void emit_scaled(PlanBuilder *b) {
    take_all(b);
    result = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 2.5f});
}
static void scaled(const Trial *t, int row, double *out) {
    for (int i = 0; i < WIDTH; i++) out[i] = 2.5 * (double)t->data[A][row * WIDTH + i];
}
TEST(op_embed_scale) {
    check(emit_scaled, scaled);
}

/* ---- NORM ---------------------------------------------------------------------------------------------- */

enum { HEAD = 16 };

static void emit_head_norm(PlanBuilder *b) {
    take_all(b);
    NormParams norm = {.weight = builder_vector(b, "vector", N_VECTOR), .eps = 0.1f, .head_dim = HEAD};
    result = emit_norm(b, "norm", emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1}), norm);
}
static void head_norm(const Trial *t, int row, double *out) {
    const float *x = t->data[A] + row * WIDTH;
    for (int head = 0; head < WIDTH; head += HEAD) {
        double sum = 0;
        for (int i = 0; i < HEAD; i++) sum += (double)x[head + i] * x[head + i];
        for (int i = 0; i < HEAD; i++)
            out[head + i] = x[head + i] / sqrt(sum / HEAD + (double)0.1f) * t->data[VECTOR][i];
    }
}
TEST(op_norm_of_heads) {
    check(emit_head_norm, head_norm);
}

/* ---- ROPE ---------------------------------------------------------------------------------------------- */

static RopeParams tested_rope(RopePairing pairing) {
    return (RopeParams){.n_head = {WIDTH / HEAD, WIDTH / HEAD},
                        .head_dim = HEAD,
                        .n_rot = 8,
                        .first = 4,
                        .pairing = pairing,
                        .base = 100,
                        .scale = 0.5f,
                        .magnitude = 1.25f};
}
static void emit_rotation(PlanBuilder *b, RopePairing pairing) {
    take_all(b);
    int q = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1}),
        k = emit_embed(b, "embd", input_matrix(b, B), (EmbedParams){.scale = 1});
    emit_rope(b, "rope", q, k, tested_rope(pairing));
    result = k;
}
static void rotation(const Trial *t, int row, double *out, bool halves) {
    for (int i = 0; i < WIDTH; i++) out[i] = t->data[B][row * WIDTH + i];
    for (int head = 0; head < WIDTH; head += HEAD)
        for (int i = 0; i < 4; i++) {
            int a = head + 4 + (halves ? i : 2 * i), c = a + (halves ? 4 : 1);
            double angle = (FIRST_POSITION + row) * 0.5 * pow(100, -2.0 * i / 8), x = out[a], y = out[c];
            out[a] = 1.25 * (x * cos(angle) - y * sin(angle));
            out[c] = 1.25 * (x * sin(angle) + y * cos(angle));
        }
}
static void emit_halves(PlanBuilder *b) {
    emit_rotation(b, ROPE_HALVES);
}
static void rotated_halves(const Trial *t, int row, double *out) {
    rotation(t, row, out, true);
}
static void emit_adjacent(PlanBuilder *b) {
    emit_rotation(b, ROPE_ADJACENT);
}
static void rotated_adjacent(const Trial *t, int row, double *out) {
    rotation(t, row, out, false);
}
TEST(op_rope_pairings_first_dimension_and_magnitude) {
    check(emit_halves, rotated_halves);
    check(emit_adjacent, rotated_adjacent);
}

/* ---- GLU and views ------------------------------------------------------------------------------------- */

/* Gate and up are columns of one register. */
static void emit_gelu_of_views(PlanBuilder *b) {
    take_all(b);
    int x = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1});
    int gate = emit_view(b, "gate", x, 0, WIDTH / 2), up = emit_view(b, "up", x, WIDTH / 2, WIDTH / 2);
    result = emit_glu(b, "act", gate, up, (GluParams){.act = ACT_GELU});
}
static void gelu_of_views(const Trial *t, int row, double *out) {
    const float *x = t->data[A] + row * WIDTH;
    for (int i = 0; i < WIDTH / 2; i++) {
        double u = sqrt(2 / M_PI) * (x[i] + 0.044715 * x[i] * x[i] * x[i]);
        out[i] = x[i] / 2.0 * (1 + tanh(u)) * x[WIDTH / 2 + i];
    }
}
TEST(op_glu_of_views) {
    check(emit_gelu_of_views, gelu_of_views);
}

/* A view is written, the other columns of its base stay; then the base is read. */
static void emit_written_view(PlanBuilder *b) {
    take_all(b);
    int x = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1}),
        y = emit_embed(b, "embd", input_matrix(b, B), (EmbedParams){.scale = 1});
    int right = emit_view(b, "right", x, WIDTH / 2, WIDTH / 2), left = emit_view(b, "left", y, 0, WIDTH / 2);
    RopeParams rope = tested_rope(ROPE_HALVES);
    rope.n_head[0] = rope.n_head[1] = WIDTH / 2 / HEAD;
    emit_rope(b, "rope", right, left, rope);
    result = emit_add(b, "sum", x, y);
}
static void written_view(const Trial *t, int row, double *out) {
    double x[WIDTH], y[WIDTH];
    Trial swapped = *t;
    swapped.data[B] = t->data[A];
    rotation(&swapped, row, x, true);
    rotation(t, row, y, true);
    for (int i = 0; i < WIDTH; i++) {
        double a = i < WIDTH / 2 ? t->data[A][row * WIDTH + i] : x[i];
        out[i] = a + (i < WIDTH / 2 ? y[i] : t->data[B][row * WIDTH + i]);
    }
}
TEST(op_writes_views) {
    check(emit_written_view, written_view);
}

/* ---- ROUTE --------------------------------------------------------------------------------------------- */

enum { N_USED = 3 };
static MoeParams routing;

static void emit_routing(PlanBuilder *b) {
    int weights;
    take_all(b);
    if (routing.bias) routing.bias = builder_vector(b, "vector", N_VECTOR);
    emit_route(b, "route", emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1}), routing,
               &weights);
    result = weights;
}
static void routed(const Trial *t, int row, double *out) {
    double score[WIDTH], sum = 0, all = 0;
    bool taken[WIDTH] = {false};
    for (int i = 0; i < WIDTH; i++) {
        double x = t->data[A][row * WIDTH + i];
        score[i] = routing.kind == ROUTE_SIGMOID ? 1 / (1 + exp(-x)) : exp(x);
        all += score[i];
    }
    for (int i = 0; routing.kind == ROUTE_SOFTMAX && i < WIDTH; i++) score[i] /= all;
    for (int k = 0; k < N_USED; k++) {
        int best = -1;
        double best_score = 0;
        for (int i = 0; i < WIDTH; i++) {
            double s = score[i] + (routing.bias ? (double)t->data[VECTOR][i] : 0);
            if (taken[i] || (best >= 0 && s <= best_score)) continue;
            best = i;
            best_score = s;
        }
        taken[best] = true;
        out[k] = score[best];
        sum += out[k];
    }
    for (int k = 0; k < N_USED; k++) out[k] *= (double)routing.scale / (routing.normalise ? sum : 1);
}
TEST(op_route_kinds) {
    static const float some = 0; // marks the bias, which emit_routing finds
    for (int i = 0; i < 8; i++) {
        routing = (MoeParams){.n_expert = WIDTH,
                              .n_used = N_USED,
                              .kind = i & 1 ? ROUTE_SIGMOID : ROUTE_SOFTMAX,
                              .bias = i & 2 ? &some : NULL,
                              .normalise = i & 4,
                              .scale = 1.5f};
        check(emit_routing, routed);
    }
}

/* ---- products of views --------------------------------------------------------------------------------- */

/* The product writes a register of which a view is added to a view of the input. */
static void emit_product(PlanBuilder *b) {
    take_all(b);
    int x = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1});
    int y = emit_matmul(b, "product", x, input_matrix(b, MATRIX), builder_vector(b, "matrix.bias", N_VECTOR));
    result = emit_add(b, "sum", emit_view(b, "left", y, 0, 32), emit_view(b, "right", x, 32, 32));
}
static void product(const Trial *t, int row, double *out) {
    const float *x = t->data[A] + row * WIDTH;
    for (int i = 0; i < 32; i++) {
        out[i] = (double)t->data[BIAS][i] + x[32 + i];
        for (int k = 0; k < WIDTH; k++) out[i] += (double)t->data[MATRIX][i * WIDTH + k] * x[k];
    }
}
TEST(op_products_of_views) {
    check(emit_product, product);
}
