/* engine_pages: the pages of the next step, and where they are taken from.
 *
 * The cache may have fewer pages than all sequences need at their full length, so that more of them run at
 * once: a step first reserves the pages that it, and the steps that an executor computes ahead, will write.
 * Where there are none, free slots give up the caches that they keep, the longest unused one first; then the
 * task that came last is preempted: its slot is free, and it waits in the queue as if it had not begun.  The
 * task that came first is never preempted and finds its pages when it is alone, so that there is no deadlock.
 *
 * The one trick: a preempted task is computed again from its prompt, and its tokens are chosen again.  Each is
 * a function of the numbers before it, of seed and position, and these numbers come from the same arithmetic
 * as the first time, so that they are the same tokens: they are not delivered twice.  Tokens up to the last
 * that engine_insert put in are a part of the prompt then. */
#include "engine_impl.h"

#include <assert.h>

static Cache *cache_of(const Engine *g) {
    return g->exec_ops->cache(g->exec);
}

/* What is reserved ahead of the sequence is given back. */
void engine_free_slot(Engine *g, Slot *s) {
    Cache *cache = cache_of(g);
    int seq = engine_seq(g, s);
    if (s->in_loop) g->exec_ops->decode_leave(g->exec, seq);
    s->in_loop = false;
    s->task->slot = NULL;
    s->task = NULL;
    s->used = ++g->n_used;
    cache_truncate(cache, seq, cache_length(cache, seq));
}

static Slot *longest_kept(const Engine *g, const Slot *a, const Slot *b) {
    Slot *oldest = NULL;
    for (int i = 0; i < g->n_slots; i++) {
        Slot *s = &g->slots[i];
        bool has_cache = !s->task && s != a && s != b && cache_length(cache_of(g), i) > 0;
        if (has_cache && (!oldest || s->used < oldest->used)) oldest = s;
    }
    return oldest;
}

static bool evict_one(Engine *g, const Slot *a, const Slot *b) {
    Slot *s = longest_kept(g, a, b);
    if (s) engine_go_back(g, s, 0);
    return s != NULL;
}

bool engine_evict(Engine *g, int n, const Slot *a, const Slot *b) {
    while (cache_n_free(cache_of(g)) < n)
        if (!evict_one(g, a, b)) return false;
    return true;
}

static Slot *youngest(const Engine *g) {
    Slot *last = NULL;
    for (int i = 0; i < g->n_slots; i++) {
        Slot *s = &g->slots[i];
        if (s->task && (!last || s->task->arrival > last->task->arrival)) last = s;
    }
    return last;
}

/* Its slot keeps a cache until that is evicted. */
static void preempt(Engine *g, Slot *s) {
    Task *t = s->task;
    engine_free_slot(g, s);
    t->n_chosen = t->request.params.first - t->seq.n_prompt;
    t->seq.n_preempted++;
    engine_wait(g, t);
}

bool engine_reserve(Engine *g, Slot *s, int end) {
    while (!cache_reserve(cache_of(g), engine_seq(g, s), end)) {
        if (evict_one(g, s, NULL)) continue;
        Slot *last = youngest(g);
        assert(last && "a slot that is alone finds its pages");
        preempt(g, last);
        if (last == s) return false;
    }
    return true;
}

void engine_take_pages(Engine *g, const Slot *s) {
    while (g->exec_config.n_positions && evict_one(g, s, NULL)) {
    }
}
