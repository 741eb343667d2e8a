/* engine_step: one step of the engine.
 *
 * First the decode loop gives a token to each sequence that is in it; then one batch computes a chunk of the
 * prompts that are being read.  So a prompt of many chunks delays the other sequences by a chunk per token,
 * and keeps their loop running.  A sequence joins the loop behind its first token.  Sequences with
 * log-probabilities are computed outside of the loop: their tokens come from batches, whose logits can be
 * read.
 *
 * Chunks of prompts end at absolute multiples of the chunk size, so that a prompt is computed in the same
 * chunks whatever is beside it. */
#include "engine_impl.h"
#include "../base/clock.h"

#include <assert.h>
#include <string.h>

int engine_chunk_end(const Engine *g, int from, int n) {
    int end = (from / g->chunk + 1) * g->chunk;
    return end < n ? end : n;
}

Batch engine_batch(const Engine *g) {
    return (Batch){.token = g->token,
                   .seq = g->seq,
                   .position = g->position,
                   .out_row = g->out_row,
                   .sampling = g->sampling,
                   .sampled = g->sampled};
}

void engine_add_rows(Engine *g, const Slot *s, const int32_t *ids, int from, int end, Batch *b) {
    for (int i = from; i < end; i++, b->T++) {
        g->token[b->T] = ids[i];
        g->seq[b->T] = (int32_t)(s - g->slots);
        g->position[b->T] = i;
    }
}

/* ---- after tokens were computed ------------------------------------------------------------------------ */

/* n more tokens of the task are in the cache.  The seconds are counted at the end of the step. */
static void count_rows(const Engine *g, Slot *s, int n) {
    Task *t = s->task;
    Cost c = plan_cost_total(g->plan, kv_element_bytes(g->config.kv_type), s->n_held, n);
    s->timing = t->seq.n_generated == 0 ? &t->seq.prompt : &t->seq.decode;
    s->timing->n += n;
    s->timing->bytes += c.bytes_fixed + c.bytes_rows;
    memcpy(s->held + s->n_held, t->seq.ids + s->n_held, (size_t)n * sizeof *s->held);
    s->n_held += n;
}

static void count_seconds(Engine *g, double seconds) {
    for (int i = 0; i < g->config.n_seq; i++) {
        if (g->slots[i].timing) g->slots[i].timing->seconds += seconds;
        g->slots[i].timing = NULL;
    }
}

/* ---- the decode loop ----------------------------------------------------------------------------------- */

/* The latest token is all that is left to be computed, and no logits are wanted. */
static bool is_ready(const Slot *s) {
    const Task *t = s->task;
    return t && !s->in_loop && t->seq.n_generated > 0 && !t->seq.logprobs && s->n_held + 1 == n_tokens(t);
}

static bool join(Engine *g, Slot *s, Err *e) {
    const Task *t = s->task;
    DecodeStart start = {.token = t->seq.ids[s->n_held],
                         .position = s->n_held,
                         .n_steps = t->n_limit - n_tokens(t),
                         .params = t->request.params};
    return s->in_loop = g->exec_ops->decode_join(g->exec, (int)(s - g->slots), &start, e);
}

static bool step_loop(Engine *g, Err *e) {
    bool any = false;
    for (int i = 0; i < g->config.n_seq; i++) {
        if (is_ready(&g->slots[i]) && !join(g, &g->slots[i], e)) return false;
        any |= g->slots[i].in_loop;
    }
    if (any && !g->exec_ops->decode_next(g->exec, g->loop_tokens, e)) {
        for (int i = 0; i < g->config.n_seq; i++) g->slots[i].in_loop = false; // as the executor has it
        return false;
    }
    for (int i = 0; i < g->config.n_seq; i++) {
        Slot *s = &g->slots[i];
        if (!s->in_loop || g->loop_tokens[i] < 0) continue;
        count_rows(g, s, 1);
        if (!engine_add_token(g, s->task, -1, g->loop_tokens[i], e)) return false;
    }
    return true;
}

/* ---- the batch ----------------------------------------------------------------------------------------- */

/* Appends the next chunk of a slot's sequence, if it fits; the last chunk has a wanted row. */
static void add_chunk(Engine *g, Slot *s, Batch *b) {
    const Task *t = s->task;
    int end = engine_chunk_end(g, s->n_held, n_tokens(t));
    if (b->T + end - s->n_held > g->exec_config.T_max) return; // in a later step
    engine_add_rows(g, s, t->seq.ids, s->n_held, end, b);
    s->n_rows = end - s->n_held;
    if (end < n_tokens(t)) return;
    s->r = b->R;
    g->out_row[b->R] = b->T - 1;
    g->sampling[b->R++] = t->request.params;
}

/* The slot outside of the loop whose task came first of those after `arrival`; those that have begun to
 * answer come before those that are being read. */
static Slot *next_slot(Engine *g, bool has_begun, uint64_t arrival) {
    Slot *next = NULL;
    for (int i = 0; i < g->config.n_seq; i++) {
        Slot *s = &g->slots[i];
        if (!s->task || s->in_loop || (s->task->seq.n_generated > 0) != has_begun) continue;
        if (s->task->arrival >= arrival && (!next || s->task->arrival < next->task->arrival)) next = s;
    }
    return next;
}

static Batch build_batch(Engine *g) {
    Batch b = engine_batch(g);
    for (int i = 0; i < g->config.n_seq; i++) {
        g->slots[i].n_rows = 0;
        g->slots[i].r = -1;
    }
    for (int has_begun = 1; has_begun >= 0; has_begun--) {
        uint64_t arrival = 0;
        for (Slot *s; (s = next_slot(g, has_begun, arrival)); arrival = s->task->arrival + 1)
            add_chunk(g, s, &b);
    }
    return b;
}

static bool step_batch(Engine *g, Err *e) {
    Batch b = build_batch(g);
    if (b.T == 0) return true;
    if (!g->exec_ops->run(g->exec, &b, 0, g->plan->n_ops, e)) return false;
    for (int i = 0; i < g->config.n_seq; i++) {
        Slot *s = &g->slots[i];
        if (s->n_rows == 0) continue;
        count_rows(g, s, s->n_rows);
        if (s->r < 0 || engine_add_token(g, s->task, s->r, g->sampled[s->r], e)) continue;
        s->n_held -= s->n_rows; // their token is lost: they are computed again
        return false;
    }
    return true;
}

/* After an error: the cache has no tokens of the failed step, so that the step can be tried again. */
static void undo_step(Engine *g) {
    for (int i = 0; i < g->config.n_seq; i++) {
        Slot *s = &g->slots[i];
        if (s->task && !s->in_loop) engine_go_back(g, s, s->n_held);
    }
}

bool engine_step(Engine *g, Err *e) {
    e->code = 0;
    engine_admit(g);
    if (!engine_is_busy(g)) return false;
    double start = clock_now();
    bool ok = step_loop(g, e) && step_batch(g, e);
    count_seconds(g, clock_now() - start);
    if (!ok) undo_step(g);
    return ok && engine_is_busy(g);
}
