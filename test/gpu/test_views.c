/* views: registers that are columns of others, read and written by the GPU's kernels. */
#include "gpu.h"
#include "../unit/trial.h"

static void check(void (*emit)(PlanBuilder *b), void (*expected)(const Trial *t, int row, double *out)) {
    Trial t;
    if (run_trial(&t, &cuda_exec, emit)) check_rows(&t, 2e-5, expected);
}

static double silu(double x) {
    return x / (1 + exp(-x));
}

/* Gate and up are columns of the embedding. */
static void emit_glu_of_views(PlanBuilder *b) {
    take_all(b);
    int x = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1});
    int gate = emit_view(b, "gate", x, 0, 24), up = emit_view(b, "up", x, 40, 24);
    result = emit_glu(b, "act", gate, up, (GluParams){.act = ACT_SILU});
}
static void glu_of_views(const Trial *t, int row, double *out) {
    const float *x = t->data[A] + row * WIDTH;
    for (int i = 0; i < 24; i++) out[i] = silu(x[i]) * x[40 + i];
}

/* A product writes a register of which columns are added to columns of its input. */
static void emit_product(PlanBuilder *b) {
    take_all(b);
    int x = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1});
    int y = emit_matmul(b, "product", x, input_matrix(b, MATRIX), builder_vector(b, "matrix.bias", N_VECTOR));
    result = emit_add(b, "sum", emit_view(b, "left", y, 4, 32), emit_view(b, "right", x, 32, 32));
}
static void product(const Trial *t, int row, double *out) {
    const float *x = t->data[A] + row * WIDTH;
    for (int i = 0; i < 32; i++) {
        out[i] = (double)t->data[BIAS][4 + i] + x[32 + i];
        for (int k = 0; k < WIDTH; k++) out[i] += (double)t->data[MATRIX][(4 + i) * WIDTH + k] * x[k];
    }
}

/* A norm of columns, and a product behind it with a residual that is columns too. */
static void emit_norm_of_view(PlanBuilder *b) {
    take_all(b);
    int x = emit_embed(b, "embd", input_matrix(b, A), (EmbedParams){.scale = 1}),
        y = emit_embed(b, "embd", input_matrix(b, B), (EmbedParams){.scale = 1});
    NormParams norm = {.weight = builder_vector(b, "vector", N_VECTOR), .eps = 0.1f};
    int sum = emit_add(b, "sum", emit_view(b, "head", x, 16, 32), emit_view(b, "tail", y, 20, 32));
    result = emit_glu(b, "act", emit_view(b, "a", emit_norm(b, "norm", y, norm), 32, 32), sum,
                      (GluParams){.act = ACT_SILU});
}
static void norm_of_view(const Trial *t, int row, double *out) {
    const float *x = t->data[A] + row * WIDTH, *y = t->data[B] + row * WIDTH;
    double sum = 0;
    for (int i = 0; i < WIDTH; i++) sum += (double)y[i] * y[i];
    double scale = 1 / sqrt(sum / WIDTH + (double)0.1f);
    for (int i = 0; i < 32; i++)
        out[i] = silu(y[32 + i] * scale * t->data[VECTOR][32 + i]) * ((double)x[16 + i] + y[20 + i]);
}

TEST(gpu_reads_and_writes_views) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    check(emit_glu_of_views, glu_of_views);
    check(emit_product, product);
    check(emit_norm_of_view, norm_of_view);
}
