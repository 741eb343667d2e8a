/* slots: what the decode loop of any executor owes to sequences that come and go.
 *
 * The functions here ask through exec.h and engine.h alone, so that the tests of the CPU and of the GPU share them: a
 * slot gives the tokens that its sequence gives alone, whenever it is joined and whatever leaves beside it; and a
 * sequence that begins or ends costs the others no step, no drain and no byte. */
#ifndef ZGEN_TEST_SLOTS_H
#define ZGEN_TEST_SLOTS_H

#include "rig.h"
#include "../../src/run/engine.h"

enum { SLOTS = 6, SLOTS_PROMPT = 9, SLOTS_STEPS = 40 };

static const SampleParams slots_params = {
    .temp = 1, .top_p = 0.95f, .repeat_penalty = 1.1f, .repeat_last_n = -1, .seed = 11};

/* The prompt of a slot: all but its last token are computed. */
static inline DecodeStart slots_prompt(Rig *rig, int slot, int n_steps) {
    int32_t ids[SLOTS_PROMPT];
    int n = SLOTS_PROMPT - slot;
    rig_ids(rig, 100u + (unsigned)slot, ids, n);
    Row rows[SLOTS_PROMPT];
    for (int i = 0; i < n - 1; i++) rows[i] = (Row){ids[i], slot, i, false};
    if (n > 1) rig_run(rig, rows, n - 1, NULL);
    DecodeStart start = {ids[n - 1], n - 1, n_steps, slots_params};
    start.params.seed += (uint64_t)slot;
    return start;
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

/* Slots are joined and left by chance, some at their limit, some before, some again; each gives its own tokens from the
 * first on, none after it was left, and all that it was joined for. */
static inline void slots_check_tokens(Rig *rig, int n_turns) {
    static int32_t alone[SLOTS][SLOTS_STEPS];
    int n_taken[SLOTS] = {0}, n_steps[SLOTS] = {0}; // n_steps 0: free
    int32_t tokens[SLOTS];
    unsigned seed = 5;
    Err e = {0};
    if (!slots_alone(rig, alone)) return;
    for (int turn = 0; turn < n_turns; turn++) {
        bool any = false;
        for (int slot = 0; slot < SLOTS; slot++) {
            unsigned chance = (seed = seed * 1664525u + 1013904223u) >> 24;
            if (n_steps[slot] && (n_taken[slot] == n_steps[slot] || chance < 8)) {
                rig->ops->decode_leave(rig->exec, slot);
                n_steps[slot] = 0;
            } else if (!n_steps[slot] && chance < 80) {
                n_steps[slot] = 1 + (int)chance % SLOTS_STEPS;
                n_taken[slot] = 0;
                if (!slots_join(rig, slot, n_steps[slot])) return;
            }
            any |= n_steps[slot] > 0;
        }
        if (!any) continue;
        bool ok = rig->ops->decode_next(rig->exec, tokens, &e);
        CHECK(ok, "turn %d: %s", turn, e.text);
        if (!ok) return;
        for (int slot = 0; slot < SLOTS; slot++) {
            if (tokens[slot] == -1) continue;
            CHECK(n_taken[slot] < n_steps[slot] && tokens[slot] == alone[slot][n_taken[slot]],
                  "turn %d, slot %d, token %d", turn, slot, n_taken[slot]);
            n_taken[slot]++;
        }
    }
    for (int left = 1; left;) { // every slot gives all that it was joined for
        left = 0;
        for (int slot = 0; slot < SLOTS; slot++) left += n_steps[slot] - (n_steps[slot] ? n_taken[slot] : 0);
        if (!left) break;
        bool ok = rig->ops->decode_next(rig->exec, tokens, &e);
        CHECK(ok, "%s", e.text);
        if (!ok) return;
        for (int slot = 0; slot < SLOTS; slot++)
            if (tokens[slot] >= 0) CHECK(tokens[slot] == alone[slot][n_taken[slot]++], "slot %d", slot);
    }
    for (int slot = 0; slot < SLOTS; slot++) rig->ops->decode_leave(rig->exec, slot);
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

/* A sequence that ends costs the others nothing: no step is computed twice, none is waited for but by its tokens, and
 * what is sent does not grow with what is generated.  The engine has COST_SEQ slots and 80 positions. */
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
    CHECK(longer.bytes_sent == first.bytes_sent, "%d bytes, then %d", (int)first.bytes_sent,
          (int)longer.bytes_sent);
}

#endif
