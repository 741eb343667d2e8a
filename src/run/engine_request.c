/* engine_request: requests, the queue, and which slot a request gets.
 *
 * A request is refused immediately or becomes a task of the queue, which is first come, first served.  A slot
 * keeps the cache of the task that had it last: a request is given the free slot whose cache begins like its
 * prompt, and computes only the tokens that this cache lacks. */
#include "engine_impl.h"
#include "../base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static bool is_unfinished(const Task *t) {
    return t->in_use && t->seq.finish == FINISH_NONE;
}

void engine_free_task(Task *t) {
    for (int i = 0; t->seq.logprobs && i < t->seq.n_generated; i++) {
        free(t->seq.logprobs[i].ids);
        free(t->seq.logprobs[i].logprobs);
    }
    free(t->seq.logprobs);
    free(t->seq.ids);
    buf_free(&t->seq.text);
    buf_free(&t->stream.piece);
    *t = (Task){0};
}

/* The lowest number without an unfinished task. */
static int free_number(Engine *g) {
    int i = 0;
    while (i < g->n_tasks && is_unfinished(g->tasks[i])) i++;
    if (i < g->n_tasks) return i;
    g->tasks = mem_resize(g->tasks, (size_t)(i + 1) * sizeof *g->tasks);
    g->tasks[g->n_tasks++] = mem_new(1, sizeof **g->tasks);
    return i;
}

static void begin(Engine *g, Task *t, const Request *r) {
    int n_ctx = g->config.n_ctx;
    engine_free_task(t);
    t->in_use = true;
    t->request = *r;
    t->request.params.first = r->n_ids;
    if (r->ignore_eos) {
        t->request.params.banned = g->eog;
        t->request.params.n_banned = g->n_eog;
    }
    t->n_limit = r->n_predict >= 0 && r->n_predict < n_ctx - r->n_ids ? r->n_ids + r->n_predict : n_ctx;
    t->arrival = g->n_arrived++;
    t->stream = (TokStream){.tok = g->model->tok, .special = r->special, .tags = r->tags};
    t->seq.ids = mem_new((size_t)t->n_limit + 1, sizeof *t->seq.ids);
    memcpy(t->seq.ids, r->ids, (size_t)r->n_ids * sizeof *r->ids);
    t->seq.n_prompt = r->n_ids;
    t->seq.end = -1;
    if (r->n_logprobs)
        t->seq.logprobs = mem_new((size_t)(t->n_limit - r->n_ids) + 1, sizeof *t->seq.logprobs);
}

static void append(Engine *g, Task *t) {
    if (g->last)
        g->last->next = t;
    else
        g->first = t;
    g->last = t;
}

static Task *take_first(Engine *g) {
    Task *t = g->first;
    g->first = t->next;
    if (!g->first) g->last = NULL;
    t->next = NULL;
    return t;
}

int engine_add(Engine *g, const Request *r, Err *e) {
    assert(g->model->tok && r->n_ids > 0);
    if (r->n_ids >= g->config.n_ctx) {
        err_set(e, ERR_RUN,
                "the prompt has %d tokens, but the context holds %d and must leave room for an answer; "
                "shorten the prompt or use a larger -c",
                r->n_ids, g->config.n_ctx);
        return -1;
    }
    int number = free_number(g);
    Task *t = g->tasks[number];
    begin(g, t, r);
    if (t->n_limit == r->n_ids)
        engine_finish(g, t, FINISH_LENGTH);
    else
        append(g, t);
    return number;
}

const Sequence *engine_sequence(const Engine *g, int seq) {
    return &g->tasks[seq]->seq;
}

const SampleParams *engine_sampling(const Engine *g, int seq) {
    return &g->tasks[seq]->request.params;
}

/* ---- slots --------------------------------------------------------------------------------------------- */

static int common(const Slot *s, const int32_t *ids, int n) {
    int i = 0;
    while (i < n && i < s->n_held && s->held[i] == ids[i]) i++;
    return i;
}

Slot *engine_find_slot(Engine *g, const int32_t *ids, int n, int *n_common) {
    Slot *best = NULL;
    *n_common = 0;
    for (int i = 0; i < g->config.n_seq; i++) {
        Slot *s = &g->slots[i];
        if (s->task) continue;
        int here = common(s, ids, n);
        if (best && (here < *n_common || (here == *n_common && s->n_held >= best->n_held))) continue;
        best = s;
        *n_common = here;
    }
    return best;
}

void engine_go_back(Engine *g, Slot *s, int n) {
    Cache *cache = g->exec_ops->cache(g->exec);
    int seq = (int)(s - g->slots);
    if (!cache_truncate(cache, seq, n)) {
        n = 0;
        cache_truncate(cache, seq, n);
    }
    s->n_held = n;
}

/* At least one token of a prompt is left to be computed, for its logits. */
void engine_admit(Engine *g) {
    while (g->first) {
        Task *t = g->first;
        int n_wanted = t->request.reuse ? t->seq.n_prompt - 1 : 0, n_common;
        Slot *s = engine_find_slot(g, t->seq.ids, n_wanted, &n_common);
        if (!s) return;
        take_first(g);
        s->task = t;
        t->slot = s;
        engine_go_back(g, s, n_common);
        t->seq.n_reused = s->n_held;
    }
}

bool engine_is_busy(const Engine *g) {
    bool busy = g->first != NULL;
    for (int i = 0; i < g->config.n_seq; i++) busy |= g->slots[i].task != NULL;
    return busy;
}

/* ---- the end ------------------------------------------------------------------------------------------- */

void engine_finish(Engine *g, Task *t, Finish why) {
    Slot *s = t->slot;
    t->seq.finish = why;
    t->seq.n_final = t->seq.text.n;
    if (!s) return;
    if (s->in_loop) g->exec_ops->decode_leave(g->exec, (int)(s - g->slots));
    s->in_loop = false;
    s->task = NULL;
    t->slot = NULL;
}

/* The slot leaves the decode loop, which may be ahead of the sequence; the next batch computes the new
 * tokens. */
bool engine_insert(Engine *g, int seq, const int32_t *ids, int n, Err *e) {
    Task *t = g->tasks[seq];
    Slot *s = t->slot;
    assert(s && t->seq.n_generated > 0 && !t->seq.logprobs);
    if (s->in_loop) g->exec_ops->decode_leave(g->exec, (int)(s - g->slots));
    s->in_loop = false;
    engine_go_back(g, s, s->n_held);
    for (int i = 0; i < n && t->seq.finish == FINISH_NONE; i++)
        if (!engine_add_token(g, t, -1, ids[i], e)) return false;
    t->request.params.first = n_tokens(t); // the inserted tokens were not chosen
    return true;
}

void engine_interrupt(Engine *g) {
    while (g->first) engine_finish(g, take_first(g), FINISH_INTERRUPTED);
    for (int i = 0; i < g->config.n_seq; i++) {
        Task *t = g->slots[i].task;
        if (!t) continue;
        tok_stream_end(&t->stream, &t->seq.text);
        engine_finish(g, t, FINISH_INTERRUPTED);
    }
}
