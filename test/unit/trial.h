/* trial: a tape written by hand, run once on an executor, for the tests of single ops.
 *
 * The tape is written with the builder, over a file in memory.  EMBED brings the inputs: row t of a register
 * is row t of a matrix of random floats.  The register `result` is read back. */
#ifndef ZGEN_TEST_TRIAL_H
#define ZGEN_TEST_TRIAL_H

#include "check.h"
#include "gguf_writer.h"
#include "../../src/base/mem.h"
#include "../../src/exec/exec.h"
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

static inline Buf make_file(void) {
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
    const ExecOps *ops;
    Buf file;
    Gguf *gguf;
    Plan *plan;
    Exec *exec;
    const float *data[N_TENSORS];
} Trial;

static int result; // register of the output, set by what writes the tape

static inline void close_trial(Trial *t) {
    t->ops->close(t->exec);
    plan_free(t->plan);
    gguf_close(t->gguf);
    buf_free(&t->file);
}

/* false: the test has failed, and nothing is left open. */
static inline bool run_trial(Trial *t, const ExecOps *ops, void (*emit)(PlanBuilder *b)) {
    static const int32_t row[N_ROWS] = {0, 1, 2, 3, 4}, seq[N_ROWS] = {0};
    int32_t position[N_ROWS];
    Err e = {0};
    *t = (Trial){.ops = ops, .file = make_file()};
    bool ok = gguf_open_bytes(t->file.data, t->file.n, "trial", &t->gguf, &e);
    for (int i = 0; ok && i < N_TENSORS; i++)
        t->data[i] = (const float *)(const void *)gguf_find_tensor(t->gguf, tensors[i].name)->data;
    Plan *p = t->plan = mem_new(1, sizeof *p);
    p->hparams = (Hparams){.arch = "llama", .n_layer = 1, .n_embd = WIDTH, .n_vocab = N_ROWS};
    p->config.can = *ops->can;
    p->weights = weights_open(t->gguf);
    ok = ok && builder_emit(p, t->gguf, emit, &e);
    if (ok) {
        p->regs[plan_base(p, result)].has[FORM_F32] = true; // read below
        plan_fuse(p);
        plan_copy_views(p);
        plan_forms(p);
        plan_allocate(p);
    }
    ExecConfig config = {.n_ctx = 64,
                         .n_seq = 1,
                         .T_max = N_ROWS,
                         .R_max = 1,
                         .kv_type = KV_F32,
                         .n_threads = 2,
                         .isa = "scalar"};
    for (int i = 0; i < N_ROWS; i++) position[i] = FIRST_POSITION + i;
    static const bool prompt[N_ROWS]; // 8-bit products on all executors
    Batch batch = {.T = N_ROWS, .token = row, .seq = seq, .position = position, .prompt = prompt};
    const Capability *others[] = {ops->can};
    ok = ok && plan_supported(p, others, 1, &e) && ops->open(p, &config, &t->exec, &e) &&
         ops->run(t->exec, &batch, 0, p->n_ops, &e);
    if (!ok) test_fail(__FILE__, __LINE__, "%s", e.text);
    if (!ok) close_trial(t);
    return ok;
}

/* Checks row by row what run_trial left in the register `result`; expected(row, out) is the formula,
 * tolerance the error allowed of 1 + |value|.  Closes the trial. */
static inline void check_rows(Trial *t, double tolerance,
                              void (*expected)(const Trial *t, int row, double *out)) {
    size_t stride;
    Err e;
    int width = t->plan->regs[result].width;
    const float *got = t->ops->read(t->exec, result, 0, N_ROWS, &stride, &e);
    REQUIRE(got);
    for (int row = 0; row < N_ROWS; row++) {
        double want[4 * WIDTH];
        expected(t, row, want);
        for (int i = 0; i < width; i++)
            CHECK(fabs(got[(size_t)row * stride + (size_t)i] - want[i]) <= tolerance * (1 + fabs(want[i])),
                  "row %d, column %d: %g instead of %g", row, i,
                  (double)got[(size_t)row * stride + (size_t)i], want[i]);
    }
    close_trial(t);
}

static inline const Weight *input_matrix(PlanBuilder *b, int tensor) {
    return builder_matrix(b, tensors[tensor].name, WIDTH, (int)tensors[tensor].n_out);
}

/* Marks every tensor as taken, so that each trial may use any of them. */
static inline void take_all(PlanBuilder *b) {
    for (int i = 0; i < VECTOR; i++) input_matrix(b, i);
    builder_vector(b, "vector", N_VECTOR);
    builder_vector(b, "matrix.bias", N_VECTOR);
}

#endif
