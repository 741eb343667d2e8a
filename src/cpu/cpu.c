/* cpu: the CPU executor: opening and closing, runs, the decode loop, and the error of logits that are not
 * finite.
 *
 * Everything is allocated at open; a run allocates nothing.  See machine.h for its state and ops.h for the
 * ops. */
#include "cpu.h"
#include "machine.h"
#include "../base/clock.h"
#include "../base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { AHEAD = 1 }; // positions that can always be taken back: the latest row of a sequence can be repeated

const char *cpu_isa(const char *isa) {
    const Kernels *k = kernels_find(isa);
    return k ? k->name : NULL;
}

/* ---- open ---------------------------------------------------------------------------------------------- */

static bool same_angles(const RopeParams *a, const RopeParams *b) {
    return a->n_rot == b->n_rot && a->base == b->base && a->scale == b->scale && a->factors == b->factors &&
           a->magnitude == b->magnitude && a->long_factors == b->long_factors &&
           a->yarn_context == b->yarn_context;
}

static Rotation rotation_of(const RopeParams *rope, const ExecConfig *c) {
    size_t n_pairs = (size_t)rope->n_rot / 2;
    Rotation r = {.rope = *rope,
                  .frequency = mem_new(n_pairs, sizeof *r.frequency),
                  .cos = mem_new(n_pairs * (size_t)c->T_max, sizeof *r.cos),
                  .sin = mem_new(n_pairs * (size_t)c->T_max, sizeof *r.sin)};
    exec_rope_frequencies(rope, c->n_ctx, r.frequency);
    return r;
}

static void find_rotations(Exec *x) {
    const Plan *p = x->plan;
    x->rotation_of = mem_new((size_t)p->n_ops, sizeof *x->rotation_of);
    for (int i = 0; i < p->n_ops; i++) {
        if (p->ops[i].code != OP_ROPE) continue;
        int r = 0;
        while (r < x->n_rotations && !same_angles(&x->rotations[r].rope, &p->ops[i].rope)) r++;
        if (r == x->n_rotations) {
            x->rotations = mem_resize(x->rotations, (size_t)(r + 1) * sizeof *x->rotations);
            x->rotations[x->n_rotations++] = rotation_of(&p->ops[i].rope, &x->config);
        }
        x->rotation_of[i] = r;
    }
}

/* Counts an array of a thread's scratch, and allocates it if make. */
static void *scratch_array(size_t *bytes, bool make, size_t n, size_t size) {
    *bytes += n * size;
    return make ? mem_new(n, size) : NULL;
}

/* The memory in which a thread computes, and its size; make false: the size only. */
static Scratch scratch_of(const Plan *p, const ExecConfig *c, bool make, size_t *bytes) {
    size_t widest = 0, slots = 1, heads = 0, n_expert = 0, state = 0;
    for (int i = 0; i < p->n_regs; i++)
        widest = (size_t)p->regs[i].width > widest ? (size_t)p->regs[i].width : widest;
    for (int i = 0; i < p->n_ops; i++) {
        const Op *op = &p->ops[i];
        const MoeParams *moe = op->code == OP_ROUTE    ? &op->moe
                               : op->code == OP_EXPERT ? &op->product.moe
                                                       : NULL;
        if (moe && (size_t)moe->n_used > slots) slots = (size_t)moe->n_used;
        if (moe && (size_t)moe->n_expert > n_expert) n_expert = (size_t)moe->n_expert;
        if (op->code == OP_ATTN) heads = ATTN_HEADS;
        if (machine_state_floats(op) > state) state = machine_state_floats(op);
    }
    // a product has a row of the batch once at most: its experts are different ones
    size_t rows = (size_t)(c->T_max > c->R_max ? c->T_max : c->R_max);
    Scratch s;
    *bytes = 0;
    s.row = scratch_array(bytes, make, widest, sizeof *s.row);
    s.y = scratch_array(bytes, make, rows * PANEL_ROWS, sizeof *s.y);
    s.q8 = scratch_array(bytes, make, rows, sizeof *s.q8);
    s.f32 = scratch_array(bytes, make, rows, sizeof *s.f32);
    s.out = scratch_array(bytes, make, rows, sizeof *s.out);
    s.residual = scratch_array(bytes, make, rows, sizeof *s.residual);
    s.pair = scratch_array(bytes, make, rows * slots, sizeof *s.pair);
    s.start = scratch_array(bytes, make, n_expert + 2, sizeof *s.start);
    s.score = scratch_array(bytes, make, 3 * n_expert, sizeof *s.score);
    s.scores = scratch_array(bytes, make, heads * (size_t)c->n_ctx, sizeof *s.scores);
    s.state = scratch_array(bytes, make, state, sizeof *s.state);
    s.sample = scratch_array(bytes, make, 1, sample_scratch_bytes(p->hparams.n_vocab));
    return s;
}

static void open_scratch(Exec *x) {
    size_t bytes;
    x->scratch = mem_new((size_t)pool_n(x->pool), sizeof *x->scratch);
    for (int i = 0; i < pool_n(x->pool); i++) x->scratch[i] = scratch_of(x->plan, &x->config, true, &bytes);
}

/* A sequence has a token more than positions: the one behind the last. */
static size_t history_length(const ExecConfig *c) {
    return (size_t)c->n_seq * ((size_t)c->n_ctx + 1);
}

static bool cpu_memory(const Plan *p, const ExecConfig *c, ExecMemory *out, Err *e) {
    (void)e;
    *out = exec_memory(p, c, AHEAD);
    out->weights = weights_bytes(p->weights);
    out->is_mapped = weights_converted_bytes(p->weights) == 0;
    scratch_of(p, c, false, &out->scratch);
    out->scratch *= (size_t)c->n_threads;
    out->scratch += history_length(c) * (sizeof(int32_t) + sizeof(float));
    out->free = mem_available();
    return true;
}

/* Keys and values are written before they are read: the system may give memory as it is touched. */
static bool open_memory(Exec *x, Err *e) {
    const Plan *p = x->plan;
    const ExecConfig *c = &x->config;
    ExecMemory need = exec_memory(p, c, AHEAD);
    CacheConfig cache = exec_cache_config(c, AHEAD);
    x->kv_bytes = need.kv;
    x->regs_bytes[0] = p->row_bytes_T * (size_t)c->T_max;
    x->regs_bytes[1] = p->row_bytes_R * (size_t)c->R_max;
    x->kv = mem_try(x->kv_bytes);
    x->regs[0] = mem_try(x->regs_bytes[0]);
    x->regs[1] = mem_try(x->regs_bytes[1]);
    if (!x->kv || !x->regs[0] || !x->regs[1])
        return err_set(e, ERR_MEMORY,
                       "the system refuses %.2f GB for keys, values and registers; use a smaller -c",
                       (double)(need.kv + need.registers) / 1e9);
    x->cache = cache_open(p->kv, p->n_kv, &cache);
    return true;
}

static void cpu_close(Exec *x) {
    if (!x) return;
    for (int i = 0; x->scratch && i < pool_n(x->pool); i++) {
        Scratch *s = &x->scratch[i];
        void *const all[] = {s->row,  s->y,     s->q8,    s->f32,    s->out,   s->residual,
                             s->pair, s->start, s->score, s->scores, s->state, s->sample};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) free(all[k]);
    }
    free(x->scratch);
    for (int i = 0; i < x->n_rotations; i++) {
        free(x->rotations[i].frequency);
        free(x->rotations[i].cos);
        free(x->rotations[i].sin);
    }
    free(x->rotations);
    free(x->rotation_of);
    free(x->loop.token);
    free(x->loop.seq);
    free(x->loop.position);
    free(x->loop.out_row);
    free(x->loop.sampled);
    free(x->loop.n_left);
    free(x->loop.sampling);
    free(x->chains.first);
    free(x->chains.last);
    free(x->chains.next);
    free(x->chains.number);
    free(x->history);
    free(x->mu);
    free(x->next);
    free(x->next_row);
    free(x->stages);
    free(x->first_stage);
    cache_close(x->cache);
    mem_release(x->kv, x->kv_bytes);
    mem_release(x->regs[0], x->regs_bytes[0]);
    mem_release(x->regs[1], x->regs_bytes[1]);
    pool_close(x->pool);
    free(x);
}

static void open_loop(Exec *x) {
    size_t n = (size_t)x->config.n_seq;
    x->loop.token = mem_new(n, sizeof *x->loop.token);
    x->loop.seq = mem_new(n, sizeof *x->loop.seq);
    x->loop.position = mem_new(n, sizeof *x->loop.position);
    x->loop.out_row = mem_new(n, sizeof *x->loop.out_row);
    x->loop.sampled = mem_new(n, sizeof *x->loop.sampled);
    x->loop.n_left = mem_new(n, sizeof *x->loop.n_left);
    x->loop.sampling = mem_new(n, sizeof *x->loop.sampling);
    for (int r = 0; r < x->config.n_seq; r++) x->loop.out_row[r] = r;
}

static void open_chains(Exec *x) {
    size_t T_max = (size_t)x->config.T_max, n_seq = (size_t)x->config.n_seq;
    x->chains.first = mem_new(n_seq, sizeof *x->chains.first);
    x->chains.last = mem_new(n_seq, sizeof *x->chains.last);
    x->chains.next = mem_new(T_max, sizeof *x->chains.next);
    x->chains.number = mem_new(n_seq, sizeof *x->chains.number);
}

static void open_stages(Exec *x) {
    const Plan *p = x->plan;
    size_t n_ops = (size_t)p->n_ops;
    int n = 0;
    x->next = mem_new(n_ops, sizeof *x->next);
    x->next_row = mem_new(n_ops, sizeof *x->next_row);
    x->stages = mem_new(2 * n_ops, sizeof *x->stages);
    x->first_stage = mem_new(n_ops + 1, sizeof *x->first_stage);
    for (int i = 0; i < p->n_ops; i++) {
        x->first_stage[i] = n;
        x->stages[n++] = (Stage){i, false};
        if (machine_has_end(p, i)) x->stages[n++] = (Stage){i, true};
    }
    x->first_stage[p->n_ops] = n;
    Cost cost = plan_cost_total(p, kv_element_bytes(x->config.kv_type), 0, 1);
    x->stage_bytes = (cost.bytes_fixed + cost.bytes_rows) / n;
}

static bool cpu_open(const Plan *p, const ExecConfig *config, Exec **out, Err *e) {
    const Kernels *kernels = kernels_find(config->isa);
    if (!kernels)
        return err_set(e, ERR_USAGE, "--isa %s: this machine cannot run these kernels; try --isa auto",
                       config->isa);
    if (p->config.act_f32 && !kernels->any_act)
        return err_set(e, ERR_USAGE, "--act f32 needs --isa scalar; the %s kernels take 8-bit activations",
                       kernels->name);
    Exec *x = mem_new(1, sizeof *x);
    x->plan = p;
    x->config = *config;
    x->kernels = kernels;
    x->pool = pool_open(config->n_threads);
    if (!open_memory(x, e)) {
        cpu_close(x);
        return false;
    }
    open_stages(x);
    x->history = mem_new(history_length(config), sizeof *x->history);
    x->mu = mem_new(history_length(config), sizeof *x->mu);
    find_rotations(x);
    open_scratch(x);
    open_loop(x);
    open_chains(x);
    *out = x;
    return true;
}

/* ---- run ----------------------------------------------------------------------------------------------- */

typedef struct Step { // stages of the tape over a batch
    Exec *exec;
    const Batch *batch;
    const Stage *stages;
} Step;

static void rotate(void *arg, int stage, int thread) {
    const Step *s = arg;
    (void)stage;
    (void)thread;
    machine_rotate(s->exec, s->batch);
}

static void run_stage(void *arg, int stage, int thread) {
    const Step *s = arg;
    const Stage *now = &s->stages[stage];
    if (atomic_load_explicit(&s->exec->stopped, memory_order_relaxed) > now->op)
        machine_stage(s->exec, s->batch, now, thread);
}

/* How many threads a batch pays for. */
static int n_threads(const Exec *x, const Batch *b) {
    if (!x->config.thread_bytes) return pool_n(x->pool);
    double n = x->stage_bytes * b->T / x->config.thread_bytes;
    return n < 1 ? 1 : n < pool_n(x->pool) ? (int)n : pool_n(x->pool);
}

static bool check_finite(const Exec *x, const Batch *b, Err *e) {
    for (int r = 0; r < b->R; r++)
        if (b->sampled[r] < 0) return exec_not_finite(x->plan, b->position[b->out_row[r]], e);
    return true;
}

/* The tokens of the batch go to the histories of their sequences. */
static void keep_tokens(Exec *x, const Batch *b) {
    for (int t = 0; t < b->T; t++) machine_history(x, b->seq[t])[b->position[t]] = b->token[t];
}

static void extend_cache(Exec *x, const Batch *b) {
    cache_step(x->cache, b->seq, b->position, b->T);
    for (CacheCopy copy; cache_next_copy(x->cache, &copy);)
        memcpy(x->kv + copy.to, x->kv + copy.from, copy.bytes);
}

static void begin_step(Exec *x, const Batch *b) {
    keep_tokens(x, b);
    machine_chain_rows(x, b);
    for (int i = 0; i < x->plan->n_ops; i++) {
        atomic_store_explicit(&x->next[i], 0, memory_order_relaxed);
        atomic_store_explicit(&x->next_row[i], 0, memory_order_relaxed);
    }
    atomic_store_explicit(&x->next_rotation, 0, memory_order_relaxed);
    atomic_store_explicit(&x->stopped, x->plan->n_ops, memory_order_relaxed);
    Step s = {x, b, NULL};
    pool_stages(x->pool, n_threads(x, b), 1, rotate, &s);
}

/* Computes ops first_op..last_op-1. */
static void run_ops(Exec *x, const Batch *b, int first_op, int last_op) {
    int first = x->first_stage[first_op], n = x->first_stage[last_op] - first;
    Step s = {x, b, x->stages + first};
    pool_stages(x->pool, n_threads(x, b), n, run_stage, &s);
}

static bool end_step(const Exec *x, const Batch *b, int last_op, Err *e) {
    if (atomic_load(&x->stopped) < x->plan->n_ops) {
        e->code = 0;
        return false;
    }
    bool sampled = last_op > 0 && x->plan->ops[last_op - 1].code == OP_SAMPLE;
    return !sampled || check_finite(x, b, e);
}

/* Computes a step whose rows have their pages. */
static bool run_step(Exec *x, const Batch *b, int first_op, int last_op, Err *e) {
    begin_step(x, b);
    run_ops(x, b, first_op, last_op);
    return end_step(x, b, first_op < last_op ? last_op : 0, e);
}

static bool cpu_run(Exec *x, const Batch *batch, int first_op, int last_op, Err *e) {
    x->counters.runs++;
    if (first_op == 0) extend_cache(x, batch);
    return run_step(x, batch, first_op, last_op, e);
}

/* ---- the decode loop ----------------------------------------------------------------------------------- */

static Batch loop_batch(const Exec *x) {
    return (Batch){.T = x->loop.n,
                   .R = x->loop.n,
                   .token = x->loop.token,
                   .seq = x->loop.seq,
                   .position = x->loop.position,
                   .out_row = x->loop.out_row,
                   .sampling = x->loop.sampling,
                   .sampled = x->loop.sampled};
}

/* The row of a slot in a step; loop.n where it is free. */
static int row_of(const Exec *x, int slot) {
    int r = 0;
    while (r < x->loop.n && x->loop.seq[r] != slot) r++;
    return r;
}

static bool cpu_decode_join(Exec *x, int slot, const DecodeStart *start, Err *e) {
    (void)e;
    assert(row_of(x, slot) == x->loop.n && start->n_steps > 0);
    assert(start->position + start->n_steps <= x->config.n_ctx);
    int r = x->loop.n++;
    x->loop.seq[r] = slot;
    x->loop.token[r] = start->token;
    x->loop.position[r] = start->position;
    x->loop.n_left[r] = start->n_steps;
    x->loop.sampling[r] = start->params;
    x->counters.joins++;
    return true;
}

/* Frees row r and moves the last row there. */
static void drop_row(Exec *x, int r) {
    int last = --x->loop.n;
    x->loop.seq[r] = x->loop.seq[last];
    x->loop.token[r] = x->loop.token[last];
    x->loop.position[r] = x->loop.position[last];
    x->loop.n_left[r] = x->loop.n_left[last];
    x->loop.sampling[r] = x->loop.sampling[last];
}

static void cpu_decode_leave(Exec *x, int slot) {
    int r = row_of(x, slot);
    if (r < x->loop.n) drop_row(x, r);
    x->counters.leaves++;
}

/* The step is computed when its tokens are fetched: a CPU gains nothing from steps ahead. */
static bool cpu_decode_next(Exec *x, int32_t *tokens, Err *e) {
    Batch b = loop_batch(x);
    assert(b.R > 0);
    x->counters.steps++;
    x->counters.row_steps += (uint64_t)b.R;
    extend_cache(x, &b);
    if (!run_step(x, &b, 0, x->plan->n_ops, e)) {
        x->loop.n = 0;
        return false;
    }
    for (int slot = 0; slot < x->config.n_seq; slot++) tokens[slot] = -1;
    for (int r = b.R - 1; r >= 0; r--) {
        tokens[x->loop.seq[r]] = x->loop.sampled[r];
        x->loop.token[r] = x->loop.sampled[r];
        x->loop.position[r]++;
        if (--x->loop.n_left[r] == 0) drop_row(x, r);
    }
    return true;
}

/* An op begins when all before it have ended in any case: running each by itself changes nothing. */
static bool cpu_profile(Exec *x, int repeats, double *seconds, Err *e) {
    int n_ops = x->plan->n_ops;
    Batch b = loop_batch(x);
    extend_cache(x, &b);
    bool ok = run_step(x, &b, 0, n_ops, e); // for warming up
    memset(seconds, 0, (size_t)n_ops * sizeof *seconds);
    for (int i = 0; ok && i < repeats; i++) {
        begin_step(x, &b);
        double start = clock_now();
        for (int op = 0; op < n_ops; op++) {
            run_ops(x, &b, op, op + 1);
            double end = clock_now();
            seconds[op] += (end - start) / repeats;
            start = end;
        }
        ok = end_step(x, &b, n_ops, e);
    }
    return ok;
}

static const float *cpu_read(Exec *x, int reg, int first, int n, size_t *stride, Err *e) {
    (void)n;
    if (!x->plan->regs[reg].has[FORM_F32]) {
        err_set(e, ERR_RUN, "register %d keeps no floats", reg);
        return NULL;
    }
    *stride = (size_t)(machine_f32(x, reg, 1) - machine_f32(x, reg, 0));
    return machine_f32(x, reg, first);
}

static ExecCounters cpu_counters(const Exec *x) {
    return x->counters;
}

static Cache *cpu_cache(Exec *x) {
    return x->cache;
}

static bool cpu_share(Exec *x, int from, int to, int n) {
    if (!cache_share(x->cache, from, to, n)) return false;
    memcpy(machine_history(x, to), machine_history(x, from), (size_t)n * sizeof(int32_t));
    return true;
}

static double cpu_bandwidth(Exec *x) {
    return cpu_read_bandwidth(x->pool);
}

static const Capability can = {
    .name = "cpu",
    .features = FEATURE_BIT(OP_EMBED) | FEATURE_BIT(OP_NORM) | FEATURE_BIT(OP_MATMUL) | FEATURE_BIT(OP_ROPE) |
                FEATURE_BIT(OP_KVPUT) | FEATURE_BIT(OP_ATTN) | FEATURE_BIT(OP_GLU) | FEATURE_BIT(OP_ADD) |
                FEATURE_BIT(OP_SLICE) | FEATURE_BIT(OP_JOIN) | FEATURE_BIT(OP_ROUTE) |
                FEATURE_BIT(OP_EXPERT) | FEATURE_BIT(OP_MOE_SUM) | FEATURE_BIT(OP_LOGITS) |
                FEATURE_BIT(OP_SAMPLE) | FEATURE_BIT(OP_CONV) | FEATURE_BIT(OP_SCAN) | FEATURE_BIT(OP_DELTA) |
                FEATURE_BIT(VIEW) | FEATURE_BIT(EMBED_SCALE) | FEATURE_BIT(EMBED_POSITION) |
                FEATURE_BIT(NORM_HEADS) | FEATURE_BIT(NORM_PER_HEAD) | FEATURE_BIT(NORM_CENTRED) |
                FEATURE_BIT(NORM_BIAS) | FEATURE_BIT(NORM_PLAIN) | FEATURE_BIT(NORM_LIKE) |
                FEATURE_BIT(NORM_CUT) | FEATURE_BIT(NORM_RESIDUAL) | FEATURE_BIT(SEGMENTS) |
                FEATURE_BIT(FUSED_RESIDUAL) | FEATURE_BIT(BIAS) | FEATURE_BIT(EXPERT_BIAS) |
                FEATURE_BIT(EXPERT_FIXED) | FEATURE_BIT(PRODUCT_SCALE) | FEATURE_BIT(LOGITS_SOFTCAP) |
                FEATURE_BIT(ADD_SCALE) | FEATURE_BIT(ACT_SILU) | FEATURE_BIT(ACT_GELU) |
                FEATURE_BIT(ACT_RELU2) | FEATURE_BIT(ACT_SIGMOID) | FEATURE_BIT(ACT_SWIGLU_OAI) |
                FEATURE_BIT(ACT_CLAMPED) | FEATURE_BIT(ACT_XIELU) | FEATURE_BIT(ACT_PRODUCT) |
                FEATURE_BIT(ACT_ALONE) | FEATURE_BIT(GATE_NARROW) | FEATURE_BIT(ROPE_HALVES) |
                FEATURE_BIT(ROPE_FIRST) | FEATURE_BIT(ROPE_MAGNITUDE) | FEATURE_BIT(ATTN_WINDOW) |
                FEATURE_BIT(ATTN_CHUNK) | FEATURE_BIT(ATTN_SOFTCAP) | FEATURE_BIT(ATTN_SINKS) |
                FEATURE_BIT(ATTN_TEMPERATURE) | FEATURE_BIT(ATTN_VALUE_DIM) | FEATURE_BIT(ROUTE_SIGMOID) |
                FEATURE_BIT(ROUTE_BIAS) | FEATURE_BIT(ROUTE_GROUPS) | FEATURE_BIT(ROUTE_RAW),
    .head_dim_min = 2,
    .head_dim_max = 1024,
    .v_dim_max = 1024,
    .head_dim_multiple = 2,
    .n_head_max = INT32_MAX,
    .n_vocab_max = MAX_VOCAB,
    .n_expert_max = INT32_MAX,
    .state_rows_max = INT32_MAX,
    .view_multiple = 1,
    .q8_bytes = act8_bytes,
    .q8_multiple = ACT8_GROUP,
};

const ExecOps cpu_exec = {
    .name = "cpu",
    .can = &can,
    .prompt_chunk = 256, // enough to amortise reading the weights
    .n_seq_best = 32,    // 2 threads, Llama 3.2 1B Q4_K_M: 27, 57, 90, 137, 161 tokens/s for 1, 4, 8, 16, 32
    .prompt_multiple = 1,
    .memory = cpu_memory,
    .open = cpu_open,
    .run = cpu_run,
    .decode_join = cpu_decode_join,
    .decode_next = cpu_decode_next,
    .decode_leave = cpu_decode_leave,
    .profile = cpu_profile,
    .read_bandwidth = cpu_bandwidth,
    .read = cpu_read,
    .counters = cpu_counters,
    .cache = cpu_cache,
    .share = cpu_share,
    .close = cpu_close,
};
