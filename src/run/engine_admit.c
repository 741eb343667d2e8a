/* engine_admit: which request begins, in which slot, and what of its prompt is in the cache already.
 *
 * A task begins when a slot is free and the pages of its prompt and of its first answers are, too, beside
 * those that the running tasks will need that soon.  The queue is served in its order.
 *
 * Its prompt is compared with the tokens of all slots, running and free: what some slot holds of its beginning
 * is not computed again.  A free slot is taken over where the task needs nearly all that it holds; otherwise
 * the task shares the pages of the beginning and writes pages of its own behind them.  A beginning that a
 * running prompt is about to compute is waited for, so that requests which come together compute it once.
 * Layers with a window or a state do not go back to a beginning from far behind it.  So a prompt is cut there
 * when it shows, by the next of the queue or by what a slot holds, that others begin alike; and a free slot keeps
 * the beginning and nothing else.
 *
 * What is reused are the bytes that the task would have computed: a prompt may be cut at multiples of
 * ExecOps.prompt_multiple without changing a byte, and where that is not 1, tokens that a decode step has
 * computed are no part of it. */
#include "engine_impl.h"

#include <assert.h>
#include <string.h>

/* Tokens that two prompts begin with, page by page at first: hundreds of slots are compared. */
static int common(const int32_t *a, const int32_t *b, int n) {
    int i = 0;
    while (i + CACHE_PAGE <= n && memcmp(a + i, b + i, CACHE_PAGE * sizeof *a) == 0) i += CACHE_PAGE;
    while (i < n && a[i] == b[i]) i++;
    return i;
}

static int least(int a, int b) {
    return a < b ? a : b;
}

Slot *engine_find_slot(Engine *g, const int32_t *ids, int n, int *n_common) {
    Slot *best = NULL;
    *n_common = 0;
    for (int i = 0; i < g->n_slots; i++) {
        Slot *s = &g->slots[i];
        if (s->task) continue;
        int here = common(s->held, ids, least(n, s->n_held));
        if (best && (here < *n_common || (here == *n_common && s->used >= best->used))) continue;
        best = s;
        *n_common = here;
    }
    return best;
}

void engine_go_back(Engine *g, Slot *s, int n) {
    Cache *cache = g->exec_ops->cache(g->exec);
    if (!cache_truncate(cache, engine_seq(g, s), n)) {
        n = 0;
        cache_truncate(cache, engine_seq(g, s), n);
    }
    s->n_held = n;
    s->n_prompt_rows = least(s->n_prompt_rows, n);
}

/* The free slot, another one than `but`, that was used longest ago, or NULL. */
static Slot *longest_unused(Engine *g, const Slot *but) {
    Slot *oldest = NULL;
    for (int i = 0; i < g->n_slots; i++) {
        Slot *s = &g->slots[i];
        if (!s->task && s != but && (!oldest || s->used < oldest->used)) oldest = s;
    }
    return oldest;
}

/* ---- the beginning of a prompt ------------------------------------------------------------------------- */

typedef struct Beginning {
    Slot *slot; // that holds it, or NULL
    int n;      // tokens
} Beginning;

/* What is reused of a request's prompt is a multiple of this. */
static int multiple_of(const Engine *g, const Request *r) {
    return r->reuse == REUSE_ANY ? 1 : g->exec_ops->prompt_multiple;
}

static int cut(const Engine *g, const Request *r, int n) {
    return n / multiple_of(g, r) * multiple_of(g, r);
}

/* Tokens of a task's prompt that a slot holds, and that can be continued there; at least one token of a prompt
 * is left to be computed, for its logits. */
static int n_reusable(const Engine *g, const Task *t, const Slot *s) {
    bool same = t->request.reuse == REUSE_SAME && g->exec_ops->prompt_multiple > 1;
    int held = same ? s->n_prompt_rows : s->n_held;
    int n = cut(g, &t->request, common(s->held, t->seq.ids, least(held, t->seq.n_prompt - 1)));
    return cache_holds(g->exec_ops->cache(g->exec), engine_seq(g, s), n) ? n : 0;
}

/* Whether a prompt may begin with the first n tokens of a sequence: looking at the last of them spares most
 * comparisons. */
static bool may_begin(const Task *t, const int32_t *ids, int n_ids, int n) {
    return n <= n_ids && n < t->seq.n_prompt && ids[n - 1] == t->seq.ids[n - 1];
}

/* The longest beginning that a slot holds; of equal ones a free slot's. */
static Beginning find_beginning(const Engine *g, const Task *t) {
    Beginning best = {0};
    for (int i = 0; t->request.reuse && i < g->n_slots; i++) {
        Slot *s = &g->slots[i];
        bool is_preferred = best.slot && best.slot->task && !s->task;
        int wanted = best.n + (is_preferred ? 0 : multiple_of(g, &t->request));
        if (!may_begin(t, s->held, s->n_held, wanted)) continue;
        int n = n_reusable(g, t, s);
        if (n > best.n || (n > 0 && n == best.n && is_preferred)) best = (Beginning){s, n};
    }
    return best;
}

/* Tokens with which a task begins and which the prompt that a slot is computing has or will have; 0: the slot
 * computes no prompt. */
static int n_alike(const Engine *g, const Task *t, const Slot *s) {
    if (!s->task || s->n_held >= s->task->seq.n_prompt) return 0;
    int most = least(s->task->seq.n_prompt, t->seq.n_prompt - 1);
    return cut(g, &t->request, common(s->task->seq.ids, t->seq.ids, most));
}

/* Whether a prompt that is being computed will begin with more of the task's than the n tokens that are there,
 * by a page at least. */
static bool will_be_there(const Engine *g, const Task *t, int n) {
    for (int i = 0; t->request.reuse && i < g->n_slots; i++) {
        const Slot *s = &g->slots[i];
        if (!s->task || !may_begin(t, s->task->seq.ids, s->task->seq.n_prompt, n + CACHE_PAGE)) continue;
        int later = n_alike(g, t, s);
        if (later > s->n_held && later >= n + CACHE_PAGE) return true;
    }
    return false;
}

/* Gives a free slot the first n tokens of another one. */
static void share(Engine *g, Slot *from, Slot *to, int n) {
    bool shared = g->exec_ops->share(g->exec, engine_seq(g, from), engine_seq(g, to), n);
    assert(shared && "cache_holds");
    (void)shared;
    memcpy(to->held, from->held, (size_t)n * sizeof *to->held);
    to->n_held = n;
    to->n_prompt_rows = least(from->n_prompt_rows, n);
    from->used = ++g->n_used;
}

/* ---- beginnings that are kept, where layers cannot go back to them -------------------------------------- */

/* The most tokens that a prompt and what some slot holds begin with, though the slot cannot go back there. */
static int n_seen(const Engine *g, const Task *t) {
    int most = 0;
    for (int i = 0; t->request.reuse && i < g->n_slots; i++) {
        const Slot *s = &g->slots[i];
        if (!may_begin(t, s->held, s->n_held, most + CACHE_PAGE)) continue;
        int n = cut(g, &t->request, common(s->held, t->seq.ids, least(s->n_held, t->seq.n_prompt - 1)));
        if (n > most) most = n;
    }
    return most;
}

/* Cuts the running prompts at the end of what a task has of them. */
static void cut_prompts(Engine *g, const Task *t) {
    for (int i = 0; t->request.reuse && i < g->n_slots; i++) {
        int n = n_alike(g, t, &g->slots[i]);
        if (n >= CACHE_PAGE && n >= g->slots[i].n_held) g->slots[i].stop = n;
    }
}

/* Whether a free slot can go on behind all that slot s holds. */
static bool is_kept(const Engine *g, const Slot *s) {
    for (int i = 0; i < g->n_slots; i++) {
        const Slot *free = &g->slots[i];
        if (!free->task && free->n_held >= s->n_held && common(free->held, s->held, s->n_held) == s->n_held &&
            cache_holds(g->exec_ops->cache(g->exec), i, s->n_held))
            return true;
    }
    return false;
}

/* Gives free slots the beginnings at which prompts were cut. */
static void keep_beginnings(Engine *g) {
    for (int i = 0; i < g->n_slots; i++) {
        Slot *s = &g->slots[i], *to;
        if (!s->task || s->stop == 0 || s->stop != s->n_held) continue;
        s->stop = 0;
        if (is_kept(g, s) || !(to = longest_unused(g, NULL))) continue;
        share(g, s, to, s->n_held);
        to->used = ++g->n_used;
    }
}

/* ---- admission ----------------------------------------------------------------------------------------- */

static int pages_of(int n_positions) {
    return (n_positions + CACHE_PAGE - 1) / CACHE_PAGE;
}

/* Pages of a task up to a page of new tokens. */
static int pages_soon(const Task *t) {
    return pages_of(least(t->seq.n_prompt + t->seq.n_generated + CACHE_PAGE, t->n_limit - 1));
}

/* Pages that the running tasks will take soon. */
static int n_promised(const Engine *g) {
    Cache *cache = g->exec_ops->cache(g->exec);
    int n = 0;
    for (int i = 0; i < g->n_slots; i++) {
        const Task *t = g->slots[i].task;
        int more = t ? pages_soon(t) - cache_n_pages(cache, i) : 0;
        if (more > 0) n += more;
    }
    return n;
}

int engine_n_running(const Engine *g) {
    int n = 0;
    for (int i = 0; i < g->n_slots; i++) n += g->slots[i].task != NULL;
    return n;
}

/* The slot in which a task goes on behind a beginning: the one that holds it where it loses little, and would be
 * found again in the task's, or where no other is free; or the longest unused one. */
static Slot *choose_slot(Engine *g, const Beginning *b) {
    bool is_taken = b->slot && !b->slot->task && b->slot->n_held - b->n < CACHE_PAGE && !g->forgets;
    Slot *other = longest_unused(g, b->slot);
    return is_taken || !other ? b->slot : other;
}

/* Frees the pages that a task needs soon in slot s.  A task that is alone needs no more than there are. */
static bool make_room(Engine *g, const Task *t, const Slot *s, const Beginning *b) {
    bool is_copied = s != b->slot && b->n % CACHE_PAGE; // the page in which the beginning ends
    int n = n_promised(g) + pages_soon(t) - pages_of(b->n) + is_copied;
    return engine_evict(g, n, s, b->slot) || engine_n_running(g) == 0;
}

static void begin(Engine *g, Task *t, Slot *s, const Beginning *b, int stop) {
    if (b->slot && b->slot != s) share(g, b->slot, s, b->n);
    s->stop = stop;
    s->task = t;
    t->slot = s;
    t->seq.n_reused = b->n;
}

static bool admit_first(Engine *g) {
    Task *t = g->first;
    if (engine_n_running(g) == g->config.n_seq) return false;
    Beginning b = find_beginning(g, t);
    if (will_be_there(g, t, b.n)) return false;
    int stop = g->forgets ? n_seen(g, t) : 0;
    Slot *s = choose_slot(g, &b);
    engine_go_back(g, s, s == b.slot ? b.n : 0);
    if (!make_room(g, t, s, &b)) return false;
    begin(g, engine_take_first(g), s, &b, stop);
    return true;
}

void engine_admit(Engine *g) {
    if (g->first && g->forgets) cut_prompts(g, g->first);
    keep_beginnings(g);
    while (g->first && admit_first(g)) {
    }
}
