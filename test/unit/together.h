/* together: a request gives the same tokens alone and beside others, on any executor.
 *
 * The same requests run alone, each computed whole, and then 1 to 64 at once, in other orders and slots, with all
 * pages and with so few that sequences are preempted, with and without the beginnings that others have
 * computed: tokens, texts and log-probabilities are the same to the bit. */
#ifndef ZGEN_TEST_TOGETHER_H
#define ZGEN_TEST_TOGETHER_H

#include "check.h"
#include "../../src/base/mem.h"
#include "../../src/run/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TOGETHER = 64,
    TOGETHER_CTX = 320,
    TOGETHER_SHARED = 150,
    TOGETHER_NEW = 40,
    TOGETHER_FEW = 30,
    TOGETHER_MOST = 130
};

typedef struct Asked { // a request and what it gave alone
    Request request;
    int32_t ids[TOGETHER_SHARED + TOGETHER_NEW], answer[TOGETHER_MOST];
    double logprob[TOGETHER_MOST];
    int n;
    Buf text;
} Asked;

typedef struct Comparison {
    Model model;
    EngineConfig config;
    Asked asked[TOGETHER];
    int n_finished;            // of a run
    int n_preempted, n_reused; // of all runs
} Comparison;

static const SampleParams together_kinds[] = {
    {.top_p = 1, .repeat_penalty = 1},
    {.temp = 1.2f, .top_p = 0.95f, .min_p = 0.02f, .repeat_penalty = 1.1f, .repeat_last_n = -1},
    {.temp = 1, .top_p = 1, .repeat_penalty = 1, .presence_penalty = 1, .repeat_last_n = 20},
    {.temp = 1,
     .top_p = 1,
     .repeat_penalty = 1,
     .order = {FILTER_TEMPERATURE, FILTER_MIROSTAT},
     .mirostat_tau = 3,
     .mirostat_eta = 0.5f},
    {.temp = 1,
     .top_p = 1,
     .repeat_penalty = 1,
     .dry_multiplier = 1,
     .dry_base = 1.75f,
     .dry_allowed_length = 1,
     .dry_last_n = -1},
};
enum { TOGETHER_KINDS = sizeof together_kinds / sizeof *together_kinds };

static inline int together_draw(uint32_t *random, int n) {
    *random = *random * 1664525u + 1013904223u;
    return (int)((*random >> 8) % (uint32_t)n);
}

/* Half of the prompts have one of two beginnings; one in five requests wants log-probabilities. */
static inline void together_make_requests(Comparison *c, int n_vocab) {
    uint32_t random = 3;
    int32_t shared[2][TOGETHER_SHARED];
    for (int i = 0; i < 2 * TOGETHER_SHARED; i++)
        shared[i / TOGETHER_SHARED][i % TOGETHER_SHARED] = 3 + together_draw(&random, n_vocab - 3);
    for (int i = 0; i < TOGETHER; i++) {
        Asked *a = &c->asked[i];
        int n = together_draw(&random, 2) ? TOGETHER_SHARED : 0;
        memcpy(a->ids, shared[together_draw(&random, 2)], (size_t)n * sizeof *a->ids);
        for (int end = n + 1 + together_draw(&random, TOGETHER_NEW); n < end; n++)
            a->ids[n] = 3 + together_draw(&random, n_vocab - 3);
        a->request = (Request){
            .ids = a->ids,
            .n_ids = n,
            .n_predict = 1 + together_draw(&random, together_draw(&random, 2) ? TOGETHER_FEW : TOGETHER_MOST),
            .params = together_kinds[together_draw(&random, TOGETHER_KINDS)],
            .ignore_eos = true,
            .n_logprobs = together_draw(&random, 5) ? 0 : 2};
        a->request.params.seed = (uint64_t)i;
    }
}

static inline void together_keep(Asked *a, const Sequence *q) {
    a->n = q->n_generated;
    memcpy(a->answer, q->ids + q->n_prompt, (size_t)a->n * sizeof *a->answer);
    for (int i = 0; i < a->n; i++) a->logprob[i] = q->logprobs ? q->logprobs[i].logprob : 0;
    buf_clear(&a->text);
    buf_add(&a->text, q->text.data, q->text.n);
}

/* One after the other, in an engine for n_seq of them. */
static inline void together_run_alone(Comparison *c, int n_seq) {
    EngineConfig config = c->config;
    Engine *g;
    Err e = {0};
    config.n_seq = n_seq;
    REQUIRE(engine_open(&c->model, &config, &g, &e), "%s", e.text);
    for (int i = 0; i < TOGETHER; i++) {
        int number = engine_add(g, &c->asked[i].request, &e);
        REQUIRE(number >= 0, "%s", e.text);
        while (engine_step(g, &e)) {
        }
        together_keep(&c->asked[i], engine_sequence(g, number));
    }
    engine_close(g);
}

static inline void together_compare(const Asked *a, int i, const Sequence *q, const char *how) {
    bool same = q->n_generated == a->n && q->text.n == a->text.n &&
                memcmp(q->ids + q->n_prompt, a->answer, (size_t)a->n * sizeof *a->answer) == 0 &&
                (a->text.n == 0 || memcmp(q->text.data, a->text.data, a->text.n) == 0);
    for (int k = 0; same && q->logprobs && k < a->n; k++) same = q->logprobs[k].logprob == a->logprob[k];
    CHECK(same, "%s: request %d (%d of %d tokens, %d reused, preempted %d times)", how, i, q->n_generated,
          a->n, q->n_reused, q->n_preempted);
}

/* Compares those that are finished, whose numbers may be given again. */
static inline void together_take_finished(Engine *g, Comparison *c, int number[TOGETHER], const char *how) {
    for (int i = 0; i < TOGETHER; i++) {
        const Sequence *q = number[i] < 0 ? NULL : engine_sequence(g, number[i]);
        if (!q || q->finish == FINISH_NONE) continue;
        together_compare(&c->asked[i], i, q, how);
        c->n_preempted += q->n_preempted;
        c->n_reused += q->n_reused;
        c->n_finished++;
        number[i] = -1;
    }
}

/* Adds all requests, beginning with number `first`, three in each step, and runs them. */
static inline void together_run_all(Engine *g, Comparison *c, int first, Reuse reuse, const char *how) {
    Err e = {0};
    int number[TOGETHER];
    for (int i = 0; i < TOGETHER; i++) number[i] = -1;
    c->n_finished = 0;
    for (int i = 0; c->n_finished < TOGETHER && e.code == 0; i++) {
        if (i < TOGETHER) {
            Request r = c->asked[(first + i) % TOGETHER].request;
            r.reuse = reuse;
            number[(first + i) % TOGETHER] = engine_add(g, &r, &e);
        }
        if (i >= TOGETHER || i % 3 == 2) engine_step(g, &e);
        together_take_finished(g, c, number, how);
    }
    CHECK(e.code == 0, "%s: %s", how, e.text);
}

static inline void together_run_at_once(Comparison *c, int n_seq, bool few_pages, Reuse reuse) {
    EngineConfig config = c->config;
    Engine *g;
    Err e = {0};
    char how[128];
    config.n_seq = n_seq;
    config.n_kept = reuse ? 2 : 0;
    config.n_positions = few_pages ? TOGETHER_CTX + 8 * n_seq : 0;
    snprintf(how, sizeof how, "%s, %d at once, %s pages, reuse %d", gguf_label(c->model.gguf), n_seq,
             few_pages ? "few" : "all", reuse);
    REQUIRE(engine_open(&c->model, &config, &g, &e), "%s", e.text);
    together_run_all(g, c, n_seq * 5, reuse, how);
    engine_close(g);
}

/* chunk: rows of a prompt in a run. */
static inline void together_check(const char *path, EngineDevice device, int chunk) {
    static const int at_once[] = {1, 2, 3, 5, 8, 16, 33, 64};
    Err e = {0};
    Comparison *c = mem_new(1, sizeof *c);
    c->config = (EngineConfig){
        .device = device, .isa = "auto", .n_ctx = TOGETHER_CTX, .n_threads = 1, .chunk = chunk};
    bool ok = model_open(path, &c->model, &e) && model_need_tok(&c->model, &e);
    if (!ok) test_fail(__FILE__, __LINE__, "%s", e.text);
    if (ok) {
        together_make_requests(c, tok_n_vocab(c->model.tok));
        together_run_alone(c, 1);
    }
    for (size_t i = 0; ok && i < sizeof at_once / sizeof *at_once; i++) {
        if (device == DEVICE_CUDA) together_run_alone(c, at_once[i]); // which chooses the products
        together_run_at_once(c, at_once[i], i % 2, REUSE_NONE);
        together_run_at_once(c, at_once[i], true, REUSE_SAME);
        if (at_once[i] == 16) together_run_at_once(c, 16, false, REUSE_SAME);
    }
    CHECK(!ok || c->n_preempted > 3, "%s: preempted %d times", path, c->n_preempted);
    CHECK(!ok || c->n_reused > 5000, "%s: %d tokens reused", path, c->n_reused);
    model_close(&c->model);
    for (int i = 0; i < TOGETHER; i++) buf_free(&c->asked[i].text);
    free(c);
}

#endif
