/* slots: the properties of the decode loop of any executor, for sequences that begin and end at any time.
 *
 * The functions here check through exec.h and engine.h alone, so that the tests of the CPU and of the GPU
 * share them: a slot gives the tokens that its sequence gives alone, at whatever step it is joined and
 * whatever slots are left meanwhile; and a sequence that begins or ends costs the others no step, no drain
 * and no byte. */
#ifndef ZGEN_TEST_SLOTS_H
#define ZGEN_TEST_SLOTS_H

#include "rig.h"
#include "../../src/run/engine.h"

enum { SLOTS = 6, SLOTS_PROMPT = 9, SLOTS_STEPS = 40 };

static const SampleParams slots_params = {
    .temp = 1, .top_p = 0.95f, .repeat_penalty = 1.1f, .repeat_last_n = -1, .seed = 11};

/* Rows of several kinds beside each other: the usual chain, one with a state, and one with tables. */
static inline SampleParams slots_params_of(int slot, int first) {
    static const SampleBias bias[] = {{5, -1}, {40, 2}};
    static const uint32_t breaks[1 << 15] = {1u << 3};
    SampleParams p = slots_params;
    if (slot % 3 == 1) {
        p.order[0] = FILTER_TEMPERATURE;
        p.order[1] = FILTER_MIROSTAT;
        p.mirostat_tau = 4;
        p.mirostat_eta = 0.3f;
    }
    if (slot % 3 == 2) {
        p.typical_p = 0.9f;
        p.dry_multiplier = p.dry_base = 1.5f;
        p.dry_last_n = -1;
        p.breaks = breaks;
        p.bias = bias;
        p.n_bias = 2;
    }
    p.seed += (uint64_t)slot;
    p.first = first;
    return p;
}

/* The prompt of a slot: all but its last token are computed. */
static inline DecodeStart slots_prompt(Rig *rig, int slot, int n_steps) {
    int32_t ids[SLOTS_PROMPT];
    int n = SLOTS_PROMPT - slot;
    rig_ids(rig, 100u + (unsigned)slot, ids, n);
    Row rows[SLOTS_PROMPT];
    for (int i = 0; i < n - 1; i++) rows[i] = (Row){ids[i], slot, i, false};
    if (n > 1) rig_run(rig, rows, n - 1, NULL);
    return (DecodeStart){ids[n - 1], n - 1, n_steps, slots_params_of(slot, n)};
}

static inline bool slots_join(Rig *rig, int slot, int n_steps) {
    Err e;
    DecodeStart start = slots_prompt(rig, slot, n_steps);
    bool ok = rig->ops->decode_join(rig->exec, slot, &start, &e);
    CHECK(ok, "%s", e.text);
    return ok;
}

/* Tokens of each slot alone: alone[slot][SLOTS_STEPS]. */
static inline bool slots_alone(Rig *rig, int32_t alone[SLOTS][SLOTS_STEPS]) {
    Err e = {0};
    int32_t tokens[SLOTS];
    bool ok = true;
    for (int slot = 0; ok && slot < SLOTS; slot++) {
        ok = slots_join(rig, slot, SLOTS_STEPS);
        for (int i = 0; ok && i < SLOTS_STEPS; i++) {
            ok = rig->ops->decode_next(rig->exec, tokens, &e);
            alone[slot][i] = tokens[slot];
            for (int other = 0; other < SLOTS; other++)
                CHECK(other == slot || tokens[other] == -1, "slot %d has a token though it is free", other);
        }
        rig->ops->decode_leave(rig->exec, slot);
    }
    CHECK(ok, "%s", e.text);
    return ok;
}

typedef struct SlotState {
    int n_steps, n_taken; // tokens that it was joined for, 0: free; of them fetched
} SlotState;

/* One step: the tokens of occupied slots are their own, in order, none beyond their limit.  Returns how many
 * slots have tokens left, -1 on failure. */
static inline int slots_step(Rig *rig, int32_t alone[SLOTS][SLOTS_STEPS], SlotState state[SLOTS]) {
    int32_t tokens[SLOTS];
    Err e;
    int n_left = 0;
    bool ok = rig->ops->decode_next(rig->exec, tokens, &e);
    CHECK(ok, "%s", e.text);
    for (int slot = 0; ok && slot < SLOTS; slot++) {
        SlotState *s = &state[slot];
        if (tokens[slot] != -1) {
            ok = s->n_taken < s->n_steps && tokens[slot] == alone[slot][s->n_taken];
            CHECK(ok, "slot %d, token %d of %d", slot, s->n_taken, s->n_steps);
            s->n_taken++;
        }
        n_left += s->n_taken < s->n_steps;
    }
    return ok ? n_left : -1;
}

/* By chance a free slot is joined, an occupied one left before its end.  Returns how many slots have tokens
 * left. */
static inline int slots_change(Rig *rig, SlotState state[SLOTS], unsigned *seed) {
    int n_left = 0;
    for (int slot = 0; slot < SLOTS; slot++) {
        SlotState *s = &state[slot];
        *seed = *seed * 1664525u + 1013904223u;
        int chance = (int)(*seed >> 24);
        if (s->n_steps && (s->n_taken == s->n_steps || chance < 8)) {
            rig->ops->decode_leave(rig->exec, slot);
            *s = (SlotState){0};
        } else if (!s->n_steps && chance < 80) {
            *s = (SlotState){.n_steps = 1 + chance % SLOTS_STEPS};
            slots_join(rig, slot, s->n_steps);
        }
        n_left += s->n_taken < s->n_steps;
    }
    return n_left;
}

/* Slots are joined and left by chance, some at their limit, some before, some again; each gives its own
 * tokens from the first on, none after it was left, and all that it was joined for. */
static inline void slots_check_tokens(Rig *rig, int n_turns) {
    static int32_t alone[SLOTS][SLOTS_STEPS];
    SlotState state[SLOTS] = {{0}};
    unsigned seed = 5;
    int n_left = 0;
    if (!slots_alone(rig, alone)) return;
    for (int turn = 0; turn < n_turns && n_left >= 0; turn++) {
        n_left = slots_change(rig, state, &seed);
        if (n_left) n_left = slots_step(rig, alone, state);
    }
    while (n_left > 0) n_left = slots_step(rig, alone, state);
    for (int slot = 0; slot < SLOTS; slot++) rig->ops->decode_leave(rig->exec, slot);
}

/* ---- a shared beginning ---- */

/* Two sequences go on alike behind what they share, in a page that one of them copies: their logits are the
 * same, and penalties find the shared tokens.  The rig has two sequences. */
static inline void slots_check_sharing(Rig *rig) {
    enum { SHARED = 200 };
    static const SampleParams penalty = {
        .top_p = 1, .repeat_penalty = 1, .presence_penalty = 1000, .repeat_last_n = -1};
    int32_t ids[SHARED + 1], token[2], seq[2] = {0, 1}, position[2] = {SHARED, SHARED}, out_row[2] = {0, 1};
    int32_t sampled[2];
    SampleParams sampling[2] = {penalty, penalty};
    Row rows[SHARED];
    Err e;
    for (int i = 0; i <= SHARED; i++) ids[i] = 3 + i;
    for (int i = 0; i < SHARED; i++) rows[i] = (Row){ids[i], 0, i, false};
    token[0] = token[1] = ids[SHARED];
    Batch both = {.T = 2,
                  .R = 2,
                  .token = token,
                  .seq = seq,
                  .position = position,
                  .out_row = out_row,
                  .sampling = sampling,
                  .sampled = sampled};
    if (!rig_run(rig, rows, SHARED / 2, NULL) || !rig_run(rig, rows + SHARED / 2, SHARED / 2, NULL)) return;
    CHECK(rig->ops->share(rig->exec, 0, 1, SHARED));
    bool ok = rig->ops->run(rig->exec, &both, 0, rig->plan->n_ops, &e);
    CHECK(ok && sampled[0] == sampled[1], "%s", ok ? "the tokens differ" : e.text);
    size_t stride;
    const float *logits = ok ? rig->ops->read(rig->exec, rig->logits, 0, 2, &stride, &e) : NULL;
    CHECK(logits && memcmp(logits, logits + stride, (size_t)rig->n_vocab * sizeof *logits) == 0,
          "the logits differ");
    for (int i = 0; ok && i <= SHARED; i++) CHECK(sampled[1] != ids[i], "token %d was there", ids[i]);
}

/* ---- what it costs ---- */

enum { COST_SEQ = 8 };

/* COST_SEQ sequences at once, sequence i of 4 + 3 * i * factor tokens; what the executor did for them. */
static inline ExecCounters slots_costs(Engine *engine, int factor, int *n_tokens, int *longest) {
    int32_t ids[COST_SEQ][3];
    Err e = {0};
    ExecCounters before = engine_counters(engine);
    *n_tokens = *longest = 0;
    for (int i = 0; i < COST_SEQ; i++) {
        for (int k = 0; k < 3; k++) ids[i][k] = 300 + 3 * i + k;
        Request r = {.ids = ids[i], .n_ids = 3, .n_predict = 4 + 3 * i * factor, .params = slots_params};
        r.ignore_eos = true;
        CHECK(engine_add(engine, &r, &e) >= 0, "%s", e.text);
        *n_tokens += r.n_predict;
        if (r.n_predict > *longest) *longest = r.n_predict;
    }
    while (engine_step(engine, &e)) {
    }
    CHECK(e.code == 0, "%s", e.text);
    ExecCounters c = engine_counters(engine);
    return (ExecCounters){.runs = c.runs - before.runs,
                          .steps = c.steps - before.steps,
                          .row_steps = c.row_steps - before.row_steps,
                          .joins = c.joins - before.joins,
                          .leaves = c.leaves - before.leaves,
                          .captures = c.captures - before.captures,
                          .drains = c.drains - before.drains,
                          .bytes_sent = c.bytes_sent - before.bytes_sent,
                          .bytes_read = c.bytes_read - before.bytes_read};
}

/* A sequence that ends costs the others nothing: no step is computed twice, none is waited for but by its
 * tokens, and what is sent grows with what is generated by the ids of pages only.  The engine has COST_SEQ
 * slots and 80 positions. */
static inline void slots_check_costs(Engine *engine) {
    int n, longest;
    ExecCounters first = slots_costs(engine, 1, &n, &longest);
    CHECK(first.runs == 1 && first.joins == COST_SEQ && first.leaves == COST_SEQ);
    CHECK((int)first.steps == longest - 1, "%d steps for %d tokens", (int)first.steps, longest);
    CHECK((int)first.row_steps == n - COST_SEQ, "%d rows for %d tokens", (int)first.row_steps, n);
    CHECK(first.drains == 0 && first.bytes_read == 0 && first.captures <= 4);
    ExecCounters longer = slots_costs(engine, 3, &n, &longest);
    CHECK(longer.runs == 1 && longer.joins == COST_SEQ && longer.leaves == COST_SEQ);
    CHECK((int)longer.steps == longest - 1 && (int)longer.row_steps == n - COST_SEQ);
    CHECK(longer.drains == 0 && longer.bytes_read == 0 && longer.captures == 0);
    uint64_t page_id =
        first.bytes_sent ? sizeof(int32_t) : 0; // the longest sequence goes on in a second page
    CHECK(longer.bytes_sent == first.bytes_sent + page_id, "%d bytes, then %d", (int)first.bytes_sent,
          (int)longer.bytes_sent);
}

#endif
