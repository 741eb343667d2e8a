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

/* Positions as row numbers of a matrix. */
static void emit_position(PlanBuilder *b) {
    take_all(b);
    result =
        emit_embed(b, "positions", input_matrix(b, MATRIX), (EmbedParams){.scale = 1, .by_position = true});
}
static void position_row(const Trial *t, int row, double *out) {
    for (int i = 0; i < WIDTH; i++) out[i] = t->data[MATRIX][(FIRST_POSITION + row) * WIDTH + i];
}
TEST(op_embed_by_position) {
    Trial t;
    Err e;
    check(emit_position, position_row);
    if (!run_trial(&t, &cpu_exec, emit_position)) return;
    CHECK(exec_check_context(t.plan, WIDTH, &e)); // the rows of the matrix
    CHECK(!exec_check_context(t.plan, WIDTH + 1, &e) && e.code == ERR_USAGE);
    CHECK(strstr(e.text, "use -c 64"), ": %s", e.text);
    close_trial(&t);
}

/* ---- NORM ---------------------------------------------------------------------------------------------- */

enum { HEAD = 16 };
static const float some = 0; // marks a vector, which the emit function finds

static NormParams tested_norm;
static bool with_residual;

static void emit_tested_norm(PlanBuilder *b) {
    NormParams norm = tested_norm;
    take_all(b);
    if (norm.weight) norm.weight = builder_vector(b, "vector", N_VECTOR);
    if (norm.bias) norm.bias = builder_vector(b, "matrix.bias", N_VECTOR);
    int x = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1}),
        y = emit_embed(b, "embd", input_matrix(b, B), (EmbedParams){.scale = 1});
    result = emit_norm(b, "norm", x, norm);
    if (with_residual) result = emit_add(b, "sum", result, y);
}
static void normed(const Trial *t, int row, double *out) {
    const float *x = t->data[A] + row * WIDTH, *weight = t->data[VECTOR], *bias = t->data[BIAS];
    int n = tested_norm.head_dim ? tested_norm.head_dim : WIDTH;
    for (int at = 0; at < WIDTH; at += n) {
        double mean = 0, sum = 0;
        for (int i = at; tested_norm.centred && i < at + n; i++) mean += (double)x[i] / n;
        for (int i = at; i < at + n; i++) sum += (x[i] - mean) * (x[i] - mean);
        for (int i = at; i < at + n; i++) {
            int k = tested_norm.per_head ? i : i - at;
            out[i] = (x[i] - mean) / sqrt(sum / n + (double)0.1f);
            if (tested_norm.weight) out[i] *= (double)weight[k];
            if (tested_norm.bias) out[i] += (double)bias[k];
            if (with_residual) out[i] += (double)t->data[B][row * WIDTH + i];
        }
    }
}
TEST(op_norm_kinds) {
    for (int i = 0; i < 64; i++) {
        tested_norm = (NormParams){.centred = i & 1,
                                   .weight = i & 2 ? &some : NULL,
                                   .bias = i & 4 ? &some : NULL,
                                   .eps = 0.1f,
                                   .head_dim = i & 8 ? HEAD : 0,
                                   .per_head = (i & 24) == 24};
        with_residual = i & 32;
        check(emit_tested_norm, normed);
    }
}

/* out = norm(x) * the length of y's row */
static void emit_norm_like_y(PlanBuilder *b) {
    take_all(b);
    NormParams norm = {.weight = builder_vector(b, "vector", N_VECTOR), .eps = 0.1f, .head_dim = HEAD};
    int x = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1}),
        y = emit_embed(b, "embd", input_matrix(b, B), (EmbedParams){.scale = 1});
    result = emit_norm_like(b, "norm", x, y, norm);
}
static void normed_like_y(const Trial *t, int row, double *out) {
    double squares = 0;
    for (int i = 0; i < WIDTH; i++) squares += pow(t->data[B][row * WIDTH + i], 2);
    tested_norm = (NormParams){.weight = &some, .head_dim = HEAD};
    with_residual = false;
    normed(t, row, out);
    for (int i = 0; i < WIDTH; i++) out[i] *= sqrt(squares / WIDTH);
}

static void emit_cut(PlanBuilder *b) {
    take_all(b);
    int x = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1});
    result = emit_norm(b, "norm", x, (NormParams){.cut = 0.5f});
}
static void cut(const Trial *t, int row, double *out) {
    const float *x = t->data[A] + row * WIDTH;
    double mean = 0, squares = 0;
    for (int i = 0; i < WIDTH; i++) mean += (double)x[i] / WIDTH;
    for (int i = 0; i < WIDTH; i++) squares += pow(x[i] - mean, 2);
    for (int i = 0; i < WIDTH; i++) out[i] = fmax(0, x[i] - mean - 0.5 * sqrt(squares / (WIDTH - 1)));
}

TEST(op_norm_like_another_row_and_cut) {
    check(emit_norm_like_y, normed_like_y);
    check(emit_cut, cut);
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

/* The activations, alone and as factors, of a gate as wide as the other factor and of one for 16 columns. */
static GluParams tested_glu;
static int gate_width; // 0: the gate alone

static void emit_tested_glu(PlanBuilder *b) {
    take_all(b);
    int x = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 5}),
        up = emit_embed(b, "embd", input_matrix(b, B), (EmbedParams){.scale = 5});
    int gate = gate_width == 0 || gate_width == WIDTH ? x : emit_view(b, "gate", x, 0, gate_width);
    result =
        gate_width ? emit_glu(b, "act", gate, up, tested_glu) : emit_glu(b, "act", NO_REG, gate, tested_glu);
}
static double between(double low, double x, double high) {
    return x < low ? low : x > high ? high : x;
}
static double activated(double x) {
    const GluParams *p = &tested_glu;
    double sigmoid = 1 / (1 + exp(-x)), top = between(-INFINITY, x, 7);
    double values[ACT_COUNT] = {
        [ACT_NONE] = x,
        [ACT_SILU] = x * sigmoid,
        [ACT_GELU] = x / 2 * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))),
        [ACT_RELU2] = x > 0 ? x * x : 0,
        [ACT_SIGMOID] = sigmoid,
        [ACT_SWIGLU_OAI] = top / (1 + exp(-1.702 * top)),
        [ACT_CLAMPED] = between(-INFINITY, x * sigmoid, (double)p->limit),
        [ACT_XIELU] = x > 0 ? (double)p->alpha_p * x * x + (double)p->beta * x
                            : (double)p->alpha_n * (expm1(between(-INFINITY, x, (double)p->eps)) - x) +
                                  (double)p->beta * x,
    };
    return values[p->act];
}
static void glu(const Trial *t, int row, double *out) {
    const float *gate = t->data[A] + row * WIDTH, *up = t->data[B] + row * WIDTH;
    double limit = (double)tested_glu.limit;
    for (int i = 0; i < WIDTH; i++) {
        double factor = 5.0 * (double)up[i];
        if (tested_glu.act == ACT_SWIGLU_OAI) factor = between(-7, factor, 7) + 1;
        if (tested_glu.act == ACT_CLAMPED) factor = between(-limit, factor, limit);
        int column = gate_width ? i / (WIDTH / gate_width) : i;
        out[i] = activated(5.0 * (double)gate[column]) * (gate_width ? factor : 1);
    }
}
TEST(op_glu_activations_and_gates) {
    static const int widths[] = {0, WIDTH, WIDTH / 16, 1};
    for (int act = ACT_NONE; act < ACT_COUNT; act++)
        for (int i = 0; i < 4; i++) {
            tested_glu = (GluParams){.act = (Activation)act,
                                     .limit = 2.5f,
                                     .alpha_p = 0.8f,
                                     .alpha_n = 1.3f,
                                     .beta = 0.5f,
                                     .eps = -1};
            gate_width = widths[i];
            check(emit_tested_glu, glu);
        }
}

/* ---- ADD, SLICE, JOIN ---------------------------------------------------------------------------------- */

static void emit_scaled_sum(PlanBuilder *b) {
    take_all(b);
    int x = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1}),
        y = emit_embed(b, "embd", input_matrix(b, B), (EmbedParams){.scale = 1});
    result = emit_add_scaled(b, "sum", x, y, (AddParams){.a_scale = 0.25f, .scale = 3});
}
static void scaled_sum(const Trial *t, int row, double *out) {
    for (int i = 0; i < WIDTH; i++)
        out[i] = 3 * (0.25 * (double)t->data[A][row * WIDTH + i] + (double)t->data[B][row * WIDTH + i]);
}
TEST(op_add_scales) {
    check(emit_scaled_sum, scaled_sum);
}

static void emit_sliced(PlanBuilder *b) {
    take_all(b);
    int x = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1});
    result = emit_slice(b, "slice", x, (SliceParams){.period = 16, .first = 5, .n = 9});
}
static void sliced(const Trial *t, int row, double *out) {
    for (int i = 0; i < 36; i++) out[i] = t->data[A][row * WIDTH + i / 9 * 16 + 5 + i % 9];
}
/* The heads of a view of 12 columns, of 3 each, and of 64 columns, of 16 each. */
static void emit_joined(PlanBuilder *b) {
    take_all(b);
    int x = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1}),
        y = emit_embed(b, "embd", input_matrix(b, B), (EmbedParams){.scale = 1});
    result = emit_join(b, "join", emit_view(b, "left", x, 7, 12), y, 4);
}
static void joined(const Trial *t, int row, double *out) {
    for (int i = 0; i < 4 * 19; i++)
        out[i] = i % 19 < 3 ? t->data[A][row * WIDTH + 7 + i / 19 * 3 + i % 19]
                            : t->data[B][row * WIDTH + i / 19 * 16 + i % 19 - 3];
}
TEST(op_slice_and_join) {
    check(emit_sliced, sliced);
    check(emit_joined, joined);
}

/* ---- ATTN ---------------------------------------------------------------------------------------------- */

/* q: heads in A; K: heads in C, or B; V: in B. */
static AttnParams tested_attn;
static bool v_in_k, reads_other;

static void emit_tested_attn(PlanBuilder *b) {
    take_all(b);
    int q = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1}),
        v = emit_embed(b, "embd", input_matrix(b, B), (EmbedParams){.scale = 1}),
        k = emit_embed(b, "embd", input_matrix(b, C), (EmbedParams){.scale = 1});
    int n = tested_attn.n_kv_head, v_dim = tested_attn.v_dim ? tested_attn.v_dim : tested_attn.head_dim;
    int keys = emit_view(b, "k", k, 0, n * tested_attn.head_dim), values = emit_view(b, "v", v, 0, n * v_dim);
    int cache = emit_kvput(b, "kv", keys, v_in_k ? NO_REG : values, tested_attn);
    if (reads_other) { // the last cache is of an attention that nothing reads
        int other = emit_kvput(b, "other", emit_view(b, "k", v, 0, n * tested_attn.head_dim),
                               v_in_k ? NO_REG : values, tested_attn);
        emit_attn(b, "unread", q, other, tested_attn);
    }
    AttnParams attn = tested_attn;
    if (attn.sinks) attn.sinks = builder_vector(b, "vector", N_VECTOR);
    result = emit_attn(b, "attn", q, cache, attn);
}
/* Positions before the first row have keys and values of zeros. */
static void attended(const Trial *t, int row, double *out) {
    const AttnParams *a = &tested_attn;
    int position = FIRST_POSITION + row, n = a->head_dim, v_dim = a->v_dim ? a->v_dim : n, first = 0;
    if (a->window && position - a->window + 1 > first) first = position - a->window + 1;
    if (a->chunk && position / a->chunk * a->chunk > first) first = position / a->chunk * a->chunk;
    double scale = (double)a->scale;
    if (a->temperature != 0)
        scale *= 1 + (double)a->temperature *
                         log(1 + floor((position + a->temperature_first) / (double)a->temperature_length));
    for (int h = 0; h < a->n_head; h++) {
        int kv = h / (a->n_head / a->n_kv_head);
        double sum = a->sinks ? exp((double)t->data[VECTOR][h]) : 0, value[WIDTH] = {0};
        for (int p = first; p <= position; p++) {
            int from = p - FIRST_POSITION;
            double score = 0;
            for (int d = 0; from >= 0 && d < n; d++)
                score += (double)t->data[A][row * WIDTH + h * n + d] *
                         (double)t->data[C][from * WIDTH + kv * n + d];
            double weight = exp(score * scale);
            sum += weight;
            for (int d = 0; from >= 0 && d < v_dim; d++)
                value[d] += weight * (double)(v_in_k ? t->data[C][from * WIDTH + kv * n + d]
                                                     : t->data[B][from * WIDTH + kv * v_dim + d]);
        }
        for (int d = 0; d < v_dim; d++) out[h * v_dim + d] = value[d] / sum;
    }
}
TEST(op_attn_of_parts_of_the_context) {
    static const struct {
        int v_dim, window, chunk, n_head, n_kv_head;
        float temperature;
        bool v_in_k, reads_other, sinks;
    } cases[] = {
        {.v_dim = 0},
        {.v_dim = 6},
        {.v_dim = 10, .v_in_k = true},
        {.window = 3},
        {.chunk = 2},
        {.window = 3, .chunk = 4},
        {.chunk = 8},
        {.temperature = 1},
        {.v_dim = 6, .reads_other = true},
        {.n_head = 30, .n_kv_head = 1, .sinks = true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tested_attn = (AttnParams){.n_head = cases[i].n_head ? cases[i].n_head : 4,
                                   .n_kv_head = cases[i].n_head ? cases[i].n_kv_head : 2,
                                   .head_dim = cases[i].n_head ? WIDTH / cases[i].n_head : HEAD,
                                   .sinks = cases[i].sinks ? &some : NULL,
                                   .v_dim = cases[i].v_dim,
                                   .scale = 0.125f,
                                   .window = cases[i].window,
                                   .chunk = cases[i].chunk,
                                   .temperature = cases[i].temperature,
                                   .temperature_first = 1,
                                   .temperature_length = 3};
        v_in_k = cases[i].v_in_k;
        reads_other = cases[i].reads_other;
        check(emit_tested_attn, attended);
    }
}

/* ---- ROUTE --------------------------------------------------------------------------------------------- */

enum { N_USED = 3 };
static MoeParams routing;
static void emit_routing(PlanBuilder *b) {
    int weights;
    take_all(b);
    MoeParams moe = routing;
    if (moe.bias) moe.bias = builder_vector(b, "vector", N_VECTOR);
    emit_route(b, "route", emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1}), moe,
               &weights);
    result = weights;
}
/* Leaves the experts of the n_group_used best groups of 8, by their two best scores. */
static void drop_groups(double *choice) {
    double best[8];
    for (int g = 0; g < 8; g++) {
        best[g] = -INFINITY;
        for (int i = 0; i < 8; i++)
            for (int k = 0; k < i; k++) best[g] = fmax(best[g], choice[8 * g + i] + choice[8 * g + k]);
    }
    for (int g = 0; g < 8; g++) {
        int better = 0;
        for (int other = 0; other < 8; other++) better += best[other] > best[g];
        for (int i = 0; better >= routing.n_group_used && i < 8; i++) choice[8 * g + i] = -INFINITY;
    }
}
static void routed(const Trial *t, int row, double *out) {
    double score[WIDTH], choice[WIDTH], sum = 0, all = 0;
    for (int i = 0; i < WIDTH; i++) {
        double x = t->data[A][row * WIDTH + i];
        score[i] = routing.kind == ROUTE_SIGMOID ? 1 / (1 + exp(-x)) : exp(x);
        all += score[i];
    }
    for (int i = 0; routing.kind == ROUTE_SOFTMAX && i < WIDTH; i++) score[i] /= all;
    for (int i = 0; i < WIDTH; i++) choice[i] = score[i] + (routing.bias ? (double)t->data[VECTOR][i] : 0);
    if (routing.n_group > 1) drop_groups(choice);
    for (int k = 0; k < N_USED; k++) {
        int best = 0;
        for (int i = 0; i < WIDTH; i++)
            if (choice[i] > choice[best]) best = i;
        choice[best] = -INFINITY;
        out[k] = score[best];
        sum += out[k];
    }
    for (int k = 0; k < N_USED; k++) out[k] *= (double)routing.scale / (routing.normalise ? sum : 1);
}
TEST(op_route_kinds) {
    for (int i = 0; i < 16; i++) {
        routing = (MoeParams){.n_expert = WIDTH,
                              .n_used = N_USED,
                              .kind = i & 1 ? ROUTE_SIGMOID : ROUTE_SOFTMAX,
                              .bias = i & 2 ? &some : NULL,
                              .n_group = i & 8 ? 8 : 0,
                              .n_group_used = 2,
                              .normalise = i & 4,
                              .scale = 1.5f};
        check(emit_routing, routed);
    }
}

/* ---- 8-bit products of any columns ---------------------------------------------------------------------- */

/* A matrix [ROWS_8, 32] of Q8_0, times columns that the 8-bit form cannot begin at, and times the first 32 of
 * a register of 36, which has no 8-bit form. */
enum { ROWS_8 = 5, ODD_COLUMN = 5 };
static BlockQ8_0 blocks[ROWS_8];
static const Weight matrix_8 = {.name = "q8",
                                .type = QUANT_Q8_0,
                                .n_in = 32,
                                .n_out = ROWS_8,
                                .n_expert = 1,
                                .data = (const uint8_t *)blocks,
                                .row_bytes = sizeof *blocks};
static bool of_36;

static void emit_product_8(PlanBuilder *b) {
    take_all(b);
    for (int r = 0; r < ROWS_8; r++) {
        blocks[r].d[1] = 0x38; // 0.5
        for (int i = 0; i < 32; i++) blocks[r].qs[i] = (int8_t)((r * 37 + i * 11) % 255 - 127);
    }
    int x = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1});
    if (of_36) x = emit_slice(b, "slice", x, (SliceParams){.period = WIDTH, .first = ODD_COLUMN, .n = 36});
    int in = emit_view(b, "in", x, of_36 ? 0 : ODD_COLUMN, 32);
    result = emit_add(b, "sum", emit_matmul(b, "product", in, &matrix_8, NULL),
                      emit_view(b, "five", x, 1, ROWS_8));
}
static void product_8(const Trial *t, int row, double *out) {
    const float *x = t->data[A] + row * WIDTH + ODD_COLUMN;
    double amax = 0;
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > amax) amax = fabsf(x[i]);
    for (int r = 0; r < ROWS_8; r++) {
        out[r] = of_36 ? x[1 + r] : t->data[A][row * WIDTH + 1 + r];
        for (int i = 0; i < 32; i++)
            out[r] += 0.5 * blocks[r].qs[i] * rint((double)x[i] * 127 / amax) * amax / 127;
    }
}
TEST(op_products_8_bit_of_any_columns) {
    for (int i = 0; i < 2; i++) {
        of_36 = i;
        check(emit_product_8, product_8);
    }
}

/* ---- EXPERT without ids -------------------------------------------------------------------------------- */

/* The matrix as four of 16 rows; slot s of the input and of the output has the s-th. */
static void emit_fixed_experts(PlanBuilder *b) {
    static Weight four;
    take_all(b);
    four = *input_matrix(b, MATRIX);
    four.n_in = 16;
    four.n_out = 64;
    four.n_expert = 4;
    four.row_bytes = 16 * sizeof(float);
    MoeParams moe = {.n_expert = 4, .n_used = 4};
    int x = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1});
    int y = emit_expert(b, "product", x, NO_REG, &four, NULL, moe);
    result = emit_slice(b, "part", y, (SliceParams){.period = 64, .first = 0, .n = 64});
}
static void fixed_experts(const Trial *t, int row, double *out) {
    for (int s = 0; s < 4; s++)
        for (int i = 0; i < 64; i++) {
            out[s * 64 + i] = 0;
            for (int k = 0; k < 16; k++)
                out[s * 64 + i] += (double)t->data[MATRIX][(s * 64 + i) * 16 + k] *
                                   (double)t->data[A][row * WIDTH + s * 16 + k];
        }
}
TEST(op_expert_of_each_slot) {
    check(emit_fixed_experts, fixed_experts);
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

/* ---- factors of products ------------------------------------------------------------------------------- */

static void emit_scaled_product(PlanBuilder *b) {
    take_all(b);
    int x = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1}),
        y = emit_embed(b, "embd", input_matrix(b, B), (EmbedParams){.scale = 1});
    int p = emit_matmul(b, "product", x, input_matrix(b, MATRIX), builder_vector(b, "matrix.bias", N_VECTOR));
    result = emit_add_scaled(b, "sum", p, y, (AddParams){.a_scale = 0.22f, .scale = 1});
}
static void scaled_product(const Trial *t, int row, double *out) {
    for (int i = 0; i < WIDTH; i++) {
        double sum = (double)t->data[BIAS][i];
        for (int k = 0; k < WIDTH; k++)
            sum += (double)t->data[MATRIX][i * WIDTH + k] * (double)t->data[A][row * WIDTH + k];
        out[i] = (double)0.22f * sum + (double)t->data[B][row * WIDTH + i];
    }
}
static void emit_softcap(PlanBuilder *b) {
    take_all(b);
    int x = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1});
    result = emit_logits(b, "logits", x, input_matrix(b, MATRIX), NULL, 0.5f, 7);
}
static void softcapped(const Trial *t, int row, double *out) {
    for (int i = 0; i < WIDTH; i++) {
        double sum = 0;
        for (int k = 0; k < WIDTH; k++)
            sum += (double)t->data[MATRIX][i * WIDTH + k] * (double)t->data[A][row * WIDTH + k];
        out[i] = 7 * tanh(0.5 * sum / 7);
    }
}
TEST(op_products_with_factors) {
    check(emit_scaled_product, scaled_product);
    check(emit_softcap, softcapped);
}
