/* state_trial: one op with a state on a tape written by hand, over sequences that are cut into runs in several
 * ways, for any executor.
 *
 * The inputs are embeddings: the token of a position says which row of each input matrix is read.  Whatever the
 * runs, the results must be those of a formula in double over the whole sequence; on the CPU they must also be
 * equal to the bit. */
#ifndef ZGEN_TEST_STATE_TRIAL_H
#define ZGEN_TEST_STATE_TRIAL_H

#include "check.h"
#include "gguf_writer.h"
#include "../../src/base/mem.h"
#include "../../src/exec/exec.h"
#include "../../src/plan/builder.h"
#include "../../src/plan/passes.h"

#include <math.h>
#include <stdlib.h>

enum { STATE_TOKENS = 32, STATE_LENGTH = 11, STATE_SEQS = 3, STATE_TENSORS = 8 };

/* A tensor of the file: an input [n][STATE_TOKENS], or a vector of n values from low to high. */
typedef struct StateTensor {
    const char *name;
    int n;
    bool is_vector;
    float low, high;
} StateTensor;

typedef struct StateCase {
    StateTensor tensors[STATE_TENSORS];           // up to the first without a name
    int (*emit)(PlanBuilder *b);                  // the tape; returns the register of the result
    int width;                                    // of the result
    void (*expected)(const float *const *data,    // of the tensors
                     const int32_t *token, int n, // of a whole sequence
                     double *out);                // [n][width]
} StateCase;

/* n positions from first on of a sequence, which run `run` computes; rows of the pieces of a run alternate. */
typedef struct StatePiece {
    int run, seq, first, n;
} StatePiece;

typedef struct StateTrial {
    const ExecOps *ops;
    const StateCase *c;
    Buf file;
    Gguf *gguf;
    Plan *plan;
    Exec *exec;
    int result;
    const float *data[STATE_TENSORS];
} StateTrial;

static inline int32_t state_token(int seq, int position) {
    return (int32_t)((seq * 11 + position * 5 + 1) % STATE_TOKENS);
}

static inline Buf state_file(const StateCase *c) {
    Buf f = {0};
    uint64_t offset = 0;
    int n_tensors = 0;
    while (n_tensors < STATE_TENSORS && c->tensors[n_tensors].name) n_tensors++;
    put_header(&f, 3, (uint64_t)n_tensors, 1);
    put_key_string(&f, "general.architecture", "llama");
    for (int i = 0; i < n_tensors; i++) {
        const StateTensor *t = &c->tensors[i];
        uint64_t dims[2] = {(uint64_t)t->n, t->is_vector ? 1 : STATE_TOKENS};
        put_tensor(&f, t->name, t->is_vector ? 1 : 2, dims, QUANT_F32, offset);
        offset += (dims[0] * dims[1] * sizeof(float) + 31) / 32 * 32;
    }
    pad(&f, 32, 0);
    uint32_t state = 12345;
    for (int i = 0; i < n_tensors; i++) {
        const StateTensor *t = &c->tensors[i];
        for (int k = 0; k < t->n * (t->is_vector ? 1 : STATE_TOKENS); k++) {
            state = state * 1664525u + 1013904223u;
            float x = t->low + (t->high - t->low) * (float)(state >> 8) * 0x1p-24f;
            put(&f, &x, sizeof x);
        }
        pad(&f, 32, 0);
    }
    return f;
}

static inline void state_close(StateTrial *t) {
    t->ops->close(t->exec);
    plan_free(t->plan);
    gguf_close(t->gguf);
    buf_free(&t->file);
}

static const StateCase *state_case; // of the tape that is written
static int state_result;

static inline void state_emit(PlanBuilder *b) {
    state_result = state_case->emit(b);
}

/* false: the test has failed, and nothing is left open. */
static inline bool state_open(StateTrial *t, const ExecOps *ops, const char *isa, const StateCase *c) {
    Err e = {0};
    *t = (StateTrial){.ops = ops, .c = c, .file = state_file(c)};
    bool ok = gguf_open_bytes(t->file.data, t->file.n, "trial", &t->gguf, &e);
    for (int i = 0; ok && i < STATE_TENSORS && c->tensors[i].name; i++)
        t->data[i] = (const float *)(const void *)gguf_find_tensor(t->gguf, c->tensors[i].name)->data;
    Plan *p = t->plan = mem_new(1, sizeof *p);
    p->hparams = (Hparams){.arch = "llama", .n_layer = 1, .n_embd = 1, .n_vocab = STATE_TOKENS};
    p->config.can = *ops->can;
    p->weights = weights_open(t->gguf);
    state_case = c;
    ok = ok && builder_emit(p, t->gguf, state_emit, &e);
    t->result = state_result;
    if (ok) {
        p->regs[plan_base(p, t->result)].has[FORM_F32] = true; // read below
        plan_fuse(p);
        plan_forms(p);
        plan_allocate(p);
    }
    ExecConfig config = {.n_ctx = 64,
                         .n_seq = STATE_SEQS,
                         .T_max = STATE_LENGTH * STATE_SEQS,
                         .R_max = 1,
                         .n_threads = 2,
                         .isa = isa};
    const Capability *others[] = {ops->can};
    ok = ok && plan_supported(p, others, 1, &e) && ops->open(p, &config, &t->exec, &e);
    if (!ok) test_fail(__FILE__, __LINE__, "%s", e.text);
    if (!ok) state_close(t);
    return ok;
}

static inline int state_embed(PlanBuilder *b, const char *name, int n) {
    return emit_embed(b, name, builder_matrix(b, name, n, STATE_TOKENS), (EmbedParams){.scale = 1});
}

/* Computes the pieces, up to one without rows; out: [STATE_SEQS][STATE_LENGTH][width].  Sequences that a piece
 * begins again at a position go back to it. */
static inline bool state_run(StateTrial *t, const StatePiece *piece, float *out) {
    Err e = {0};
    for (int end; piece->n; piece += end) {
        int32_t token[STATE_LENGTH * STATE_SEQS], seq[STATE_LENGTH * STATE_SEQS],
            position[STATE_LENGTH * STATE_SEQS];
        Batch b = {.token = token, .seq = seq, .position = position};
        for (end = 0; piece[end].n && piece[end].run == piece->run; end++)
            if (!cache_truncate(t->ops->cache(t->exec), piece[end].seq, piece[end].first)) {
                test_fail(__FILE__, __LINE__, "sequence %d does not go back to %d", piece[end].seq,
                          piece[end].first);
                return false;
            }
        for (int row = 0; row < STATE_LENGTH; row++)
            for (int i = 0; i < end; i++) {
                if (row >= piece[i].n) continue;
                seq[b.T] = piece[i].seq;
                position[b.T] = piece[i].first + row;
                token[b.T] = state_token(seq[b.T], position[b.T]);
                b.T++;
            }
        size_t stride, width = (size_t)t->c->width;
        const float *got = t->ops->run(t->exec, &b, 0, t->plan->n_ops, &e)
                               ? t->ops->read(t->exec, t->result, 0, b.T, &stride, &e)
                               : NULL;
        if (!got) {
            test_fail(__FILE__, __LINE__, "%s", e.text);
            return false;
        }
        for (int i = 0; i < b.T; i++)
            memcpy(out + ((size_t)seq[i] * STATE_LENGTH + (size_t)position[i]) * width,
                   got + (size_t)i * stride, width * sizeof *out);
    }
    return true;
}

/* Whole sequences, one by one; in parts, of which some end where the page of the state is the one read; row by
 * row; alternating with rows of others; and going back by one position. */
static const StatePiece state_ways[][16] = {
    {{0, 0, 0, 11}, {1, 1, 0, 7}, {2, 2, 0, 1}},
    {{0, 0, 0, 5}, {1, 0, 5, 6}, {2, 1, 0, 1}, {3, 1, 1, 6}, {4, 2, 0, 1}},
    {{0, 0, 0, 1},
     {1, 0, 1, 1},
     {2, 0, 2, 1},
     {3, 0, 3, 2},
     {4, 0, 5, 1},
     {5, 0, 6, 1},
     {6, 0, 7, 1},
     {7, 0, 8, 3},
     {8, 1, 0, 7},
     {9, 2, 0, 1}},
    {{0, 1, 0, 4}, {0, 0, 0, 7}, {1, 2, 0, 1}, {1, 0, 7, 4}, {1, 1, 4, 3}},
    {{0, 0, 0, 9},
     {0, 1, 0, 6},
     {1, 0, 9, 1},
     {1, 2, 0, 1},
     {2, 0, 9, 1},
     {3, 0, 10, 1},
     {4, 0, 10, 1},
     {5, 1, 6, 1}},
};
enum { STATE_WAYS = sizeof state_ways / sizeof *state_ways };
static const int state_lengths[STATE_SEQS] = {11, 7, 1};

/* Compares results with the formula; tolerance: the error allowed of 1 + |value|. */
static inline void state_compare(const StateTrial *t, const char *what, double tolerance, const float *got) {
    int width = t->c->width;
    double *want = mem_new((size_t)STATE_LENGTH * (size_t)width, sizeof *want);
    for (int seq = 0; seq < STATE_SEQS; seq++) {
        int32_t token[STATE_LENGTH];
        for (int i = 0; i < state_lengths[seq]; i++) token[i] = state_token(seq, i);
        t->c->expected(t->data, token, state_lengths[seq], want);
        for (int i = 0; i < state_lengths[seq] * width; i++) {
            double x = (double)got[seq * STATE_LENGTH * width + i];
            CHECK(fabs(x - want[i]) <= tolerance * (1 + fabs(want[i])),
                  "%s, sequence %d, position %d, column %d: %g instead of %g", what, seq, i / width,
                  i % width, x, want[i]);
        }
    }
    free(want);
}

/* All ways on one executor.  same_bits: the ways must not differ in a bit. */
static inline void state_check(const ExecOps *ops, const char *isa, const StateCase *c, double tolerance,
                               bool same_bits) {
    StateTrial t;
    if (!state_open(&t, ops, isa, c)) return;
    size_t n = (size_t)STATE_SEQS * STATE_LENGTH * (size_t)c->width;
    float *first = mem_new(n, sizeof *first), *other = mem_new(n, sizeof *other);
    for (int way = 0; way < STATE_WAYS; way++) {
        char what[32];
        snprintf(what, sizeof what, "way %d", way);
        if (!state_run(&t, state_ways[way], way ? other : first)) break;
        state_compare(&t, what, tolerance, way ? other : first);
        CHECK(!way || !same_bits || memcmp(first, other, n * sizeof *first) == 0, "in way %d", way);
    }
    free(first);
    free(other);
    state_close(&t);
}

#endif
