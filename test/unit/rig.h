/* rig: a model file, its plan and an executor, for tests of whole models.
 *
 * Nearly every test runs rows of some sequences and reads the logits of some of them.  A rig does that
 * through the interface of exec.h alone, for any executor. */
#ifndef ZGEN_TEST_RIG_H
#define ZGEN_TEST_RIG_H

#include "check.h"
#include "../../src/base/mem.h"
#include "../../src/cpu/cpu.h"
#include "../../src/cpu/kernels.h"

#include <stdlib.h>
#include <string.h>

enum { RIG_CONTEXT = 512, RIG_ROWS = 128, RIG_MAX_ROWS = 520 }; // positions per sequence, rows per run

typedef struct RigConfig {   // {0}: scalar kernels, 8-bit activations, f16 cache, one thread, one sequence
    const ExecOps *executor; // NULL: the CPU's
    const char *isa;
    int n_ctx, n_seq, n_threads;
    int n_rows; // per run, at most RIG_MAX_ROWS; 0: RIG_ROWS
    KvType kv_type;
    bool act_f32, no_segments, no_residual, managed, weights_fp8, wide;
    void (*change)(Plan *p); // of the plan before the executor sees it, or NULL
} RigConfig;

typedef struct Rig {
    const ExecOps *ops;
    Gguf *gguf;
    Plan *plan;
    Exec *exec;
    int n_vocab, logits; // the register
    int n_rows;
    bool generated; // the rows that are run are of generated tokens, not of prompts
} Rig;

typedef struct Row {
    int32_t token;
    int seq, position;
    bool wanted;
} Row;

static inline void rig_close(Rig *rig) {
    if (rig->exec) rig->ops->close(rig->exec);
    plan_free(rig->plan);
    gguf_close(rig->gguf);
    *rig = (Rig){0};
}

/* Builds plan and executor for an opened file, which the rig then owns.  false: *e, and all is closed. */
static inline bool rig_build(Rig *rig, Gguf *gguf, RigConfig c, Err *e) {
    *rig = (Rig){
        .ops = c.executor ? c.executor : &cpu_exec, .gguf = gguf, .n_rows = c.n_rows ? c.n_rows : RIG_ROWS};
    PlanConfig plan = {.can = *rig->ops->can, .act_f32 = c.act_f32, .weights_fp8 = c.weights_fp8};
    if (c.no_segments) plan.can.features &= ~FEATURE_BIT(SEGMENTS);
    if (c.no_residual) plan.can.features &= ~FEATURE_BIT(FUSED_RESIDUAL);
    ExecConfig exec = {.n_ctx = c.n_ctx ? c.n_ctx : RIG_CONTEXT,
                       .n_seq = c.n_seq ? c.n_seq : 1,
                       .T_max = rig->n_rows,
                       .R_max = rig->n_rows,
                       .kv_type = c.kv_type,
                       .n_threads = c.n_threads ? c.n_threads : 1,
                       .isa = c.isa ? c.isa : "scalar",
                       .managed = c.managed,
                       .wide = c.wide};
    rig->plan = plan_build(gguf, &plan, e);
    if (rig->plan && c.change) c.change(rig->plan);
    if (!rig->plan || !weights_load(rig->plan->weights, exec.n_threads, NULL, e) ||
        !rig->ops->open(rig->plan, &exec, &rig->exec, e)) {
        rig_close(rig);
        return false;
    }
    rig->n_vocab = rig->plan->hparams.n_vocab;
    rig->logits = op_in(&rig->plan->ops[rig->plan->n_ops - 1], 0); // what SAMPLE reads
    return true;
}

static inline bool rig_open(Rig *rig, const char *path, RigConfig c) {
    Gguf *gguf;
    Err e;
    bool ok = gguf_open(path, &gguf, &e) && rig_build(rig, gguf, c, &e);
    if (!ok) test_fail(__FILE__, __LINE__, "%s: %s", path, e.text);
    return ok;
}

/* Removes the positions of a sequence from one on. */
static inline void rig_go_back(Rig *rig, int seq, int position) {
    Cache *cache = rig->ops->cache(rig->exec);
    if (seq >= 0 && position < cache_length(cache, seq)) CHECK(cache_truncate(cache, seq, position));
}

/* Runs ops first..last-1 over the rows; writes the logits of the wanted rows to logits (unless it is NULL)
 * and their greedy choices to sampled. */
static inline bool rig_run_ops(Rig *rig, const Row *rows, int T, int first, int last, float *logits,
                               int32_t *sampled, Err *e) {
    int32_t token[RIG_MAX_ROWS], seq[RIG_MAX_ROWS], position[RIG_MAX_ROWS], out_row[RIG_MAX_ROWS];
    int32_t chosen[RIG_MAX_ROWS];
    SampleParams sampling[RIG_MAX_ROWS];
    static const bool none[RIG_MAX_ROWS];
    Batch b = {.T = T,
               .token = token,
               .seq = seq,
               .position = position,
               .prompt = rig->generated ? none : NULL,
               .out_row = out_row,
               .sampled = chosen};
    for (int t = 0; t < T; t++) {
        token[t] = rows[t].token;
        seq[t] = rows[t].seq;
        position[t] = rows[t].position;
        if (!rows[t].wanted) continue;
        sampling[b.R] = (SampleParams){.top_p = 1, .repeat_penalty = 1};
        out_row[b.R++] = t;
    }
    if (sampled) b.sampling = sampling;
    for (int t = 0; t < T; t++) rig_go_back(rig, seq[t], position[t]);
    if (!rig->ops->run(rig->exec, &b, first, last, e)) return false;
    size_t stride, n = (size_t)rig->n_vocab;
    const float *from = logits ? rig->ops->read(rig->exec, rig->logits, 0, b.R, &stride, e) : NULL;
    if (logits && !from) return false;
    for (int r = 0; logits && r < b.R; r++)
        memcpy(logits + (size_t)r * n, from + (size_t)r * stride, n * sizeof *from);
    if (sampled) memcpy(sampled, chosen, (size_t)b.R * sizeof *sampled);
    return true;
}

static inline bool rig_run(Rig *rig, const Row *rows, int T, float *logits) {
    Err e;
    bool ok = rig_run_ops(rig, rows, T, 0, rig->plan->n_ops, logits, NULL, &e);
    if (!ok) test_fail(__FILE__, __LINE__, "%s: %s", gguf_label(rig->gguf), e.text);
    return ok;
}

/* Positions from..to-1 of ids as rows of one sequence, all wanted, as many at a time as a run takes:
 * logits[to - from]. */
static inline bool rig_feed(Rig *rig, int seq, const int32_t *ids, int from, int to, float *logits) {
    for (Row rows[RIG_MAX_ROWS]; from < to;) {
        int T = to - from < rig->n_rows ? to - from : rig->n_rows;
        for (int t = 0; t < T; t++) rows[t] = (Row){ids[from + t], seq, from + t, true};
        if (!rig_run(rig, rows, T, logits)) return false;
        from += T;
        logits += (size_t)T * (size_t)rig->n_vocab;
    }
    return true;
}

/* Memory for the logits of n rows. */
static inline float *rig_rows(const Rig *rig, int n) {
    return mem_new((size_t)n * (size_t)rig->n_vocab, sizeof(float));
}

/* n ids, the same every time, none of them special. */
static inline void rig_ids(const Rig *rig, unsigned seed, int32_t *ids, int n) {
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        ids[i] = 3 + (int32_t)((seed >> 8) % (unsigned)(rig->n_vocab - 3));
    }
}

#endif
