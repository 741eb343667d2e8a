/* engine_step: one step of the engine.
 *
 * First tasks are admitted.  Then the decode loop gives a token to each sequence that is in it; then one batch computes a chunk of the
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
                   .prompt = g->prompt,
                   .out_row = g->out_row,
                   .sampling = g->sampling,
                   .sampled = g->sampled};
}

void engine_add_rows(Engine *g, const Slot *s, const int32_t *ids, int from, int end, int n_prompt,
                     Batch *b) {
    for (int i = from; i < end; i++, b->T++) {
        g->token[b->T] = ids[i];
        g->seq[b->T] = (int32_t)engine_seq(g, s);
        g->position[b->T] = i;
        g->prompt[b->T] = i < n_prompt;
    }
}

/* ---- after tokens were computed ------------------------------------------------------------------------ */

static double bytes_of(const Engine *g, int position, int n) {
    Cost c = plan_cost_total(g->plan, kv_element_bytes(g->config.kv_type), position, n);
    return c.bytes_fixed + c.bytes_rows;
}

/* Of a single row, in a step of many slots: the tape is added up twice per page, not for each row. */
static double row_bytes(const Engine *g, Slot *s) {
    int page = s->n_held / CACHE_PAGE, last = CACHE_PAGE - 1;
    if (s->bytes.page != page + 1)
        s->bytes =
            (RowBytes){page + 1, bytes_of(g, page * CACHE_PAGE, 1), bytes_of(g, page * CACHE_PAGE + last, 1)};
    return s->bytes.first + (s->bytes.last - s->bytes.first) * (s->n_held % CACHE_PAGE) / last;
}

/* n more tokens of the task are in the cache.  The seconds are counted at the end of the step. */
static void count_rows(const Engine *g, Slot *s, int n) {
    Task *t = s->task;
    s->timing = t->seq.n_generated == 0 ? &t->seq.prompt : &t->seq.decode;
    s->timing->n += n;
    s->timing->bytes += n == 1 ? row_bytes(g, s) : bytes_of(g, s->n_held, n);
    memcpy(s->held + s->n_held, t->seq.ids + s->n_held, (size_t)n * sizeof *s->held);
    if (s->n_prompt_rows == s->n_held)
        s->n_prompt_rows = s->n_held + n < t->seq.n_prompt ? s->n_held + n : t->seq.n_prompt;
    s->n_held += n;
}

static void count_seconds(Engine *g, double seconds) {
    for (int i = 0; i < g->n_slots; i++) {
        if (g->slots[i].timing) g->slots[i].timing->seconds += seconds;
        g->slots[i].timing = NULL;
    }
}

/* ---- the decode loop ----------------------------------------------------------------------------------- */

/* The latest token is all that is left to be computed, and no logits are wanted. */
static bool is_ready(const Slot *s) {
    const Task *t = s->task;
    return t && !s->in_loop && t->n_chosen > 0 && !t->seq.logprobs && s->n_held + 1 == n_tokens(t);
}

static bool join(Engine *g, Slot *s, Err *e) {
    const Task *t = s->task;
    DecodeStart start = {.token = t->seq.ids[s->n_held],
                         .position = s->n_held,
                         .n_steps = t->n_limit - n_tokens(t),
                         .params = t->request.params};
    return s->in_loop = g->exec_ops->decode_join(g->exec, engine_seq(g, s), &start, e);
}

/* The positions that the executor computes until the next token is fetched have their pages.  The latest token
 * of a full sequence is not computed. */
static void reserve_ahead(Engine *g, Slot *s) {
    int ahead = cache_n_ahead(g->exec_ops->cache(g->exec)), end = s->n_held + (ahead > 1 ? ahead : 1);
    engine_reserve(g, s, end < s->task->n_limit ? end : s->task->n_limit - 1);
}

static bool step_loop(Engine *g, Err *e) {
    bool any = false;
    for (int i = 0; i < g->n_slots; i++)
        if (g->slots[i].in_loop || is_ready(&g->slots[i])) reserve_ahead(g, &g->slots[i]);
    for (int i = 0; i < g->n_slots; i++) {
        if (is_ready(&g->slots[i]) && !join(g, &g->slots[i], e)) return false;
        any |= g->slots[i].in_loop;
    }
    if (any && !g->exec_ops->decode_next(g->exec, g->loop_tokens, e)) {
        for (int i = 0; i < g->n_slots; i++) g->slots[i].in_loop = false; // as the executor has it
        return false;
    }
    for (int i = 0; i < g->n_slots; i++) {
        Slot *s = &g->slots[i];
        if (!s->in_loop || g->loop_tokens[i] < 0) continue;
        count_rows(g, s, 1);
        if (!engine_add_token(g, s->task, -1, g->loop_tokens[i], e)) return false;
    }
    return true;
}

/* ---- the batch ----------------------------------------------------------------------------------------- */

static int chunk_end(const Engine *g, const Slot *s) {
    int end = engine_chunk_end(g, s->n_held, n_tokens(s->task));
    return s->stop > s->n_held && s->stop < end ? s->stop : end;
}

/* Appends the next chunk of a slot's sequence, if it fits; the last chunk has a wanted row. */
static void add_chunk(Engine *g, Slot *s, Batch *b) {
    const Task *t = s->task;
    int end = chunk_end(g, s);
    if (b->T + end - s->n_held > g->exec_config.T_max) return; // in a later step
    engine_add_rows(g, s, t->seq.ids, s->n_held, end, t->seq.n_prompt, b);
    s->n_rows = end - s->n_held;
    if (end < n_tokens(t)) return;
    s->r = b->R;
    g->out_row[b->R] = b->T - 1;
    g->sampling[b->R++] = t->request.params;
}

/* Tasks that have begun to answer come before those that are being read, and then the order is that of
 * arrival. */
static bool comes_before(const Task *a, const Task *b) {
    bool begun_a = a->n_chosen > 0, begun_b = b->n_chosen > 0;
    return begun_a != begun_b ? begun_a : a->arrival < b->arrival;
}

/* The slots outside of the loop, in the order of their turns; how many. */
static int order_slots(Engine *g) {
    int n = 0;
    for (int i = 0; i < g->n_slots; i++) {
        Slot *s = &g->slots[i];
        if (!s->task || s->in_loop) continue;
        int at = n++;
        for (; at > 0 && comes_before(s->task, g->order[at - 1]->task); at--) g->order[at] = g->order[at - 1];
        g->order[at] = s;
    }
    return n;
}

/* Reserves pages for chunks of the first slots, until the batch has no more rows; of how many slots.  Some may
 * lose their tasks for it. */
static int reserve_chunks(Engine *g, int n_slots) {
    int i = 0;
    for (int T = 0; i < n_slots && T < g->exec_config.T_max; i++) {
        Slot *s = g->order[i];
        int end = s->task ? chunk_end(g, s) : 0;
        if (s->task && engine_reserve(g, s, end)) T += end - s->n_held;
    }
    return i;
}

static Batch build_batch(Engine *g) {
    Batch b = engine_batch(g);
    int n = reserve_chunks(g, order_slots(g));
    for (int i = 0; i < g->n_slots; i++) {
        g->slots[i].n_rows = 0;
        g->slots[i].r = -1;
    }
    for (int i = 0; i < n; i++)
        if (g->order[i]->task) add_chunk(g, g->order[i], &b);
    return b;
}

static bool step_batch(Engine *g, Err *e) {
    Batch b = build_batch(g);
    if (b.T == 0) return true;
    if (!g->exec_ops->run(g->exec, &b, 0, g->plan->n_ops, e)) return false;
    for (int i = 0; i < g->n_slots; i++) {
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
    for (int i = 0; i < g->n_slots; i++) {
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
