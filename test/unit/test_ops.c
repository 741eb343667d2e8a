/* ops: single ops with each of their parameters, on the CPU, against their formulas in double precision.
 *
 * A tape is written by hand with the builder, over a file in memory.  EMBED brings the inputs: row t of a register
 * is row t of a matrix of random floats.  The last op's output is read back. */
#include "check.h"
#include "gguf_writer.h"
#include "../../src/base/mem.h"
#include "../../src/cpu/cpu.h"
#include "../../src/plan/builder.h"
#include "../../src/plan/passes.h"

#include <math.h>
#include <stdlib.h>

enum { WIDTH = 64, N_ROWS = 5, FIRST_POSITION = 3, N_VECTOR = WIDTH };

/* Tensors of the file: three inputs, a matrix and two vectors. */
static const struct {
    const char *name;
    uint64_t n_in, n_out;
} tensors[] = {
    {"token_embd.weight", WIDTH, N_ROWS}, {"b.weight", WIDTH, N_ROWS}, {"c.weight", WIDTH, N_ROWS},
    {"matrix.weight", WIDTH, WIDTH},      {"vector", N_VECTOR, 1},     {"matrix.bias", N_VECTOR, 1},
};
enum { A, B, C, MATRIX, VECTOR, BIAS, N_TENSORS };

static Buf make_file(void) {
    Buf f = {0};
    uint64_t offset = 0;
    put_header(&f, 3, N_TENSORS, 1);
    put_key_string(&f, "general.architecture", "llama");
    for (int i = 0; i < N_TENSORS; i++) {
        uint64_t dims[2] = {tensors[i].n_in, tensors[i].n_out};
        put_tensor(&f, tensors[i].name, dims[1] > 1 ? 2 : 1, dims, QUANT_F32, offset);
        offset += dims[0] * dims[1] * sizeof(float);
    }
    pad(&f, 32, 0);
    uint32_t state = 12345;
    for (uint64_t i = 0; i < offset / sizeof(float); i++) {
        state = state * 1664525u + 1013904223u;
        float x = (float)(int32_t)state * 0x1p-30f; // -2..2
        put(&f, &x, sizeof x);
    }
    return f;
}

/* One tape, run once; what the formulas need of it. */
typedef struct Trial {
    Buf file;
    Gguf *gguf;
    Plan *plan;
    Exec *exec;
    const float *data[N_TENSORS];
} Trial;

static int result; // register of the output, set by what writes the tape

static void close_trial(Trial *t) {
    cpu_exec.close(t->exec);
    plan_free(t->plan);
    gguf_close(t->gguf);
    buf_free(&t->file);
}

static bool run_trial(Trial *t, void (*emit)(PlanBuilder *b)) {
    static const int32_t row[N_ROWS] = {0, 1, 2, 3, 4}, seq[N_ROWS] = {0};
    int32_t position[N_ROWS];
    Err e = {0};
    *t = (Trial){.file = make_file()};
    bool ok = gguf_open_bytes(t->file.data, t->file.n, "trial", &t->gguf, &e);
    for (int i = 0; ok && i < N_TENSORS; i++)
        t->data[i] = (const float *)(const void *)gguf_find_tensor(t->gguf, tensors[i].name)->data;
    Plan *p = t->plan = mem_new(1, sizeof *p);
    p->hparams = (Hparams){.arch = "llama", .n_layer = 1, .n_embd = WIDTH, .n_vocab = N_ROWS};
    p->config.can = *cpu_exec.can;
    p->weights = weights_open(t->gguf);
    ok = ok && builder_emit(p, t->gguf, emit, &e);
    if (ok) {
        p->regs[plan_base(p, result)].has[FORM_F32] = true; // read below
        plan_fuse(p);
        plan_place(p);
        plan_allocate(p);
    }
    ExecConfig config = {
        .n_ctx = 64, .n_seq = 1, .T_max = N_ROWS, .R_max = 1, .n_threads = 2, .isa = "scalar"};
    for (int i = 0; i < N_ROWS; i++) position[i] = FIRST_POSITION + i;
    Batch batch = {.T = N_ROWS, .token = row, .seq = seq, .position = position};
    const Capability *others[] = {cpu_exec.can};
    ok = ok && plan_supported(p, others, 1, &e) && cpu_exec.open(p, &config, &t->exec, &e) &&
         cpu_exec.run(t->exec, &batch, 0, p->n_ops, &e);
    if (!ok) test_fail(__FILE__, __LINE__, "%s", e.text);
    if (!ok) close_trial(t);
    return ok;
}

/* Checks row by row what run_trial left in the register `result`; expected(row, out) is the formula. */
static void check_rows(Trial *t, void (*expected)(const Trial *t, int row, double *out)) {
    size_t stride;
    Err e;
    int width = t->plan->regs[result].width;
    const float *got = cpu_exec.read(t->exec, result, 0, N_ROWS, &stride, &e);
    REQUIRE(got);
    for (int row = 0; row < N_ROWS; row++) {
        double want[4 * WIDTH];
        expected(t, row, want);
        for (int i = 0; i < width; i++)
            CHECK(fabs(got[(size_t)row * stride + (size_t)i] - want[i]) <= 2e-6 * (1 + fabs(want[i])),
                  "row %d, column %d: %g instead of %g", row, i,
                  (double)got[(size_t)row * stride + (size_t)i], want[i]);
    }
    close_trial(t);
}

static const Weight *input_matrix(PlanBuilder *b, int tensor) {
    return builder_matrix(b, tensors[tensor].name, WIDTH, (int)tensors[tensor].n_out);
}

/* Marks every tensor as taken, so that each trial may use what it likes. */
static void take_all(PlanBuilder *b) {
    for (int i = 0; i < VECTOR; i++) input_matrix(b, i);
    builder_vector(b, "vector", N_VECTOR);
    builder_vector(b, "matrix.bias", N_VECTOR);
}

/* ---- EMBED --------------------------------------------------------------------------------------------- */

static void emit_scaled(PlanBuilder *b) {
    take_all(b);
    result = emit_embed(b, input_matrix(b, A), 2.5f);
}
static void scaled(const Trial *t, int row, double *out) {
    for (int i = 0; i < WIDTH; i++) out[i] = 2.5 * (double)t->data[A][row * WIDTH + i];
}
TEST(op_embed_scale) {
    Trial t;
    if (run_trial(&t, emit_scaled)) check_rows(&t, scaled);
}

/* ---- NORM ---------------------------------------------------------------------------------------------- */

enum { HEAD = 16 };

static void emit_head_norm(PlanBuilder *b) {
    take_all(b);
    NormParams norm = {.weight = builder_vector(b, "vector", N_VECTOR), .eps = 0.1f, .head_dim = HEAD};
    result = emit_norm(b, "norm", emit_embed(b, input_matrix(b, A), 1), norm);
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
    Trial t;
    if (run_trial(&t, emit_head_norm)) check_rows(&t, head_norm);
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
    int q = emit_embed(b, input_matrix(b, A), 1), k = emit_embed(b, input_matrix(b, B), 1);
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
    Trial t;
    if (run_trial(&t, emit_halves)) check_rows(&t, rotated_halves);
    if (run_trial(&t, emit_adjacent)) check_rows(&t, rotated_adjacent);
}

/* ---- GLU and views ------------------------------------------------------------------------------------- */

/* Gate and up are columns of one register. */
static void emit_gelu_of_views(PlanBuilder *b) {
    take_all(b);
    int x = emit_embed(b, input_matrix(b, A), 1);
    int gate = emit_view(b, "gate", x, 0, WIDTH / 2), up = emit_view(b, "up", x, WIDTH / 2, WIDTH / 2);
    result = emit_glu(b, "act", gate, up, ACT_GELU);
}
static void gelu_of_views(const Trial *t, int row, double *out) {
    const float *x = t->data[A] + row * WIDTH;
    for (int i = 0; i < WIDTH / 2; i++) {
        double u = sqrt(2 / M_PI) * (x[i] + 0.044715 * x[i] * x[i] * x[i]);
        out[i] = x[i] / 2.0 * (1 + tanh(u)) * x[WIDTH / 2 + i];
    }
}
TEST(op_glu_of_views) {
    Trial t;
    if (run_trial(&t, emit_gelu_of_views)) check_rows(&t, gelu_of_views);
}

/* A view is written, the other columns of its base stay; then the base is read. */
static void emit_written_view(PlanBuilder *b) {
    take_all(b);
    int x = emit_embed(b, input_matrix(b, A), 1), y = emit_embed(b, input_matrix(b, B), 1);
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
    Trial t;
    if (run_trial(&t, emit_written_view)) check_rows(&t, written_view);
}

/* ---- ROUTE --------------------------------------------------------------------------------------------- */

enum { N_USED = 3 };
static MoeParams routing;

static void emit_routing(PlanBuilder *b) {
    int weights;
    take_all(b);
    if (routing.bias) routing.bias = builder_vector(b, "vector", N_VECTOR);
    emit_route(b, "route", emit_embed(b, input_matrix(b, A), 1), routing, &weights);
    result = weights;
}
static void routed(const Trial *t, int row, double *out) {
    double score[WIDTH], sum = 0;
    bool taken[WIDTH] = {false};
    for (int i = 0; i < WIDTH; i++) {
        double x = t->data[A][row * WIDTH + i];
        score[i] = routing.kind == ROUTE_SIGMOID ? 1 / (1 + exp(-x)) : x;
    }
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
        out[k] = routing.kind == ROUTE_SIGMOID ? score[best] : exp(score[best]);
        sum += out[k];
    }
    for (int k = 0; k < N_USED; k++) out[k] *= (double)routing.scale / sum;
}
TEST(op_route_kinds) {
    static const float some = 0; // stands for the bias, which emit_routing finds
    for (int i = 0; i < 4; i++) {
        Trial t;
        routing = (MoeParams){.n_expert = WIDTH,
                              .n_used = N_USED,
                              .kind = i & 1 ? ROUTE_SIGMOID : ROUTE_SOFTMAX,
                              .bias = i & 2 ? &some : NULL,
                              .scale = 1.5f};
        if (run_trial(&t, emit_routing)) check_rows(&t, routed);
    }
}

/* ---- products of views --------------------------------------------------------------------------------- */

/* The product writes a register of which a view is added to a view of the input. */
static void emit_product(PlanBuilder *b) {
    take_all(b);
    int x = emit_embed(b, input_matrix(b, A), 1);
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
    Trial t;
    if (run_trial(&t, emit_product)) check_rows(&t, product);
}
