/* engine_logits: logits of given tokens, by batches that sample nothing. */
#include "engine_impl.h"

#include <assert.h>
#include <string.h>

/* Appends positions from `at` on to the batch: up to n, a chunk of them, and as many wanted ones as fit. */
static void add_positions(Engine *g, Slot *s, const int32_t *ids, int at, int first, int n, Batch *b) {
    for (; at < n && b->T < g->chunk; at++) {
        bool wanted = at >= first;
        if (wanted && b->R == g->exec_config.R_max) return;
        engine_add_rows(g, s, ids, at, at + 1, n, b);
        if (wanted) g->out_row[b->R++] = b->T - 1;
    }
}

bool engine_logits(Engine *g, const int32_t *ids, int first, int n, bool (*take)(void *, const LogitRows *),
                   void *arg, Err *e) {
    Slot *s = &g->slots[0];
    assert(!engine_is_busy(g));
    engine_go_back(g, s, 0); // these chunks are not those of a prompt
    engine_take_pages(g, s);
    e->code = 0;
    if (n > g->config.n_ctx)
        return err_set(e, ERR_RUN, "%d tokens do not fit into a context of %d; use a larger -c", n,
                       g->config.n_ctx);
    for (int done = 0; done < n;) {
        Batch b = engine_batch(g);
        b.sampling = NULL;
        add_positions(g, s, ids, done, first, n, &b);
        if (!g->exec_ops->run(g->exec, &b, 0, g->plan->n_ops, e)) return false;
        done += b.T;
        if (b.R == 0) continue;
        LogitRows rows = {.position = done - b.R, .n = b.R};
        rows.data = g->exec_ops->read(g->exec, g->logits, 0, b.R, &rows.stride, e);
        if (!rows.data || !take(arg, &rows)) return false;
    }
    return true;
}

const float *engine_feed(Engine *g, const int32_t *ids, int n_prompt, int *at, int end, Err *e) {
    int n_common;
    assert(!engine_is_busy(g));
    Slot *s = engine_find_slot(g, ids, *at, &n_common);
    engine_go_back(g, s, n_common);
    engine_take_pages(g, s);
    int from = s->n_held, next = engine_chunk_end(g, from, end);
    Batch b = engine_batch(g);
    size_t stride;
    b.sampling = NULL;
    engine_add_rows(g, s, ids, from, next, n_prompt, &b);
    g->out_row[b.R++] = b.T - 1;
    if (!g->exec_ops->run(g->exec, &b, 0, g->plan->n_ops, e)) return NULL;
    memcpy(s->held + from, ids + from, (size_t)(next - from) * sizeof *ids);
    s->n_held = *at = next;
    s->used = ++g->n_used;
    return g->exec_ops->read(g->exec, g->logits, 0, 1, &stride, e);
}
