/* engine_request: requests, their queue, and their end.
 *
 * A request is refused immediately or becomes a task of the queue, which is first come, first served; one that
 * is preempted is served before all that came later. */
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

void engine_wait(Engine *g, Task *t) {
    Task **at = g->last && g->last->arrival < t->arrival ? &g->last->next : &g->first;
    while (*at && (*at)->arrival < t->arrival) at = &(*at)->next;
    t->next = *at;
    *at = t;
    if (!t->next) g->last = t;
}

Task *engine_take_first(Engine *g) {
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
        engine_wait(g, t);
    return number;
}

const Sequence *engine_sequence(const Engine *g, int seq) {
    return &g->tasks[seq]->seq;
}

const SampleParams *engine_sampling(const Engine *g, int seq) {
    return &g->tasks[seq]->request.params;
}

bool engine_is_busy(const Engine *g) {
    bool busy = g->first != NULL;
    for (int i = 0; i < g->n_slots; i++) busy |= g->slots[i].task != NULL;
    return busy;
}

/* ---- the end ------------------------------------------------------------------------------------------- */

void engine_finish(Engine *g, Task *t, Finish why) {
    Slot *s = t->slot;
    t->seq.finish = why;
    t->seq.n_final = t->seq.text.n;
    if (s) engine_free_slot(g, s);
}

/* The slot leaves the decode loop, which may be ahead of the sequence; the next batch computes the new
 * tokens, and those that it would have chosen again. */
bool engine_insert(Engine *g, int seq, const int32_t *ids, int n, Err *e) {
    Task *t = g->tasks[seq];
    Slot *s = t->slot;
    assert(t->seq.n_generated > 0 && t->seq.finish == FINISH_NONE && !t->seq.logprobs);
    if (s && s->in_loop) g->exec_ops->decode_leave(g->exec, engine_seq(g, s));
    if (s) {
        s->in_loop = false;
        engine_go_back(g, s, s->n_held);
    }
    t->n_chosen = t->seq.n_generated;
    for (int i = 0; i < n && t->seq.finish == FINISH_NONE; i++)
        if (!engine_add_token(g, t, -1, ids[i], e)) return false;
    t->request.params.first = n_tokens(t); // the inserted tokens were not chosen
    return true;
}

static void interrupt(Engine *g, Task *t) {
    tok_stream_end(&t->stream, &t->seq.text);
    engine_finish(g, t, FINISH_INTERRUPTED);
}

void engine_interrupt(Engine *g) {
    for (int i = 0; i < g->n_slots; i++)
        if (g->slots[i].task) interrupt(g, g->slots[i].task);
    while (g->first) interrupt(g, engine_take_first(g));
}
