/* engine_together: a request gives the same tokens alone and in company.
 *
 * The same requests run alone, without a cache, and then 1 to 64 at once, in other orders and slots, with all
 * pages and with so few that sequences are preempted, with and without the beginnings that others have
 * computed: tokens, texts and log-probabilities are the same to the bit. */
#include "check.h"
#include "../../src/base/mem.h"
#include "../../src/run/engine.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 64, N_CTX = 320, N_SHARED = 150, MOST_NEW = 40, FEW_TOKENS = 30, MOST_TOKENS = 130 };

typedef struct Asked { // a request and what it gave alone
    Request request;
    int32_t ids[N_SHARED + MOST_NEW], answer[MOST_TOKENS];
    double logprob[MOST_TOKENS];
    int n;
    Buf text;
} Asked;

typedef struct Company {
    Model model;
    EngineConfig config;
    Asked asked[N];
    int n_finished;            // of a run
    int n_preempted, n_reused; // of all runs
} Company;

static const SampleParams kinds[] = {
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
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static int draw(uint32_t *random, int n) {
    *random = *random * 1664525u + 1013904223u;
    return (int)((*random >> 8) % (uint32_t)n);
}

/* Half of the prompts have one of two beginnings; one in five requests wants log-probabilities. */
static void make_requests(Company *c, int n_vocab) {
    uint32_t random = 3;
    int32_t shared[2][N_SHARED];
    for (int i = 0; i < 2 * N_SHARED; i++)
        shared[i / N_SHARED][i % N_SHARED] = 3 + draw(&random, n_vocab - 3);
    for (int i = 0; i < N; i++) {
        Asked *a = &c->asked[i];
        int n = draw(&random, 2) ? N_SHARED : 0;
        memcpy(a->ids, shared[draw(&random, 2)], (size_t)n * sizeof *a->ids);
        for (int end = n + 1 + draw(&random, MOST_NEW); n < end; n++)
            a->ids[n] = 3 + draw(&random, n_vocab - 3);
        a->request = (Request){.ids = a->ids,
                               .n_ids = n,
                               .n_predict = 1 + draw(&random, draw(&random, 2) ? FEW_TOKENS : MOST_TOKENS),
                               .params = kinds[draw(&random, N_KINDS)],
                               .ignore_eos = true,
                               .n_logprobs = draw(&random, 5) ? 0 : 2};
        a->request.params.seed = (uint64_t)i;
    }
}

static void keep(Asked *a, const Sequence *q) {
    a->n = q->n_generated;
    memcpy(a->answer, q->ids + q->n_prompt, (size_t)a->n * sizeof *a->answer);
    for (int i = 0; i < a->n; i++) a->logprob[i] = q->logprobs ? q->logprobs[i].logprob : 0;
    buf_clear(&a->text);
    buf_add(&a->text, q->text.data, q->text.n);
}

static void run_alone(Company *c) {
    EngineConfig config = c->config;
    Engine *g;
    Err e = {0};
    config.n_seq = 1;
    REQUIRE(engine_open(&c->model, &config, &g, &e), "%s", e.text);
    for (int i = 0; i < N; i++) {
        int number = engine_add(g, &c->asked[i].request, &e);
        REQUIRE(number >= 0, "%s", e.text);
        while (engine_step(g, &e)) {
        }
        keep(&c->asked[i], engine_sequence(g, number));
    }
    engine_close(g);
}

static void compare(const Asked *a, int i, const Sequence *q, const char *how) {
    bool same = q->n_generated == a->n && q->text.n == a->text.n &&
                memcmp(q->ids + q->n_prompt, a->answer, (size_t)a->n * sizeof *a->answer) == 0 &&
                (a->text.n == 0 || memcmp(q->text.data, a->text.data, a->text.n) == 0);
    for (int k = 0; same && q->logprobs && k < a->n; k++) same = q->logprobs[k].logprob == a->logprob[k];
    CHECK(same, "%s: request %d (%d of %d tokens, %d reused, preempted %d times)", how, i, q->n_generated,
          a->n, q->n_reused, q->n_preempted);
}

/* Compares those that are finished, whose numbers may be given again. */
static void take_finished(Engine *g, Company *c, int number[N], const char *how) {
    for (int i = 0; i < N; i++) {
        const Sequence *q = number[i] < 0 ? NULL : engine_sequence(g, number[i]);
        if (!q || q->finish == FINISH_NONE) continue;
        compare(&c->asked[i], i, q, how);
        c->n_preempted += q->n_preempted;
        c->n_reused += q->n_reused;
        c->n_finished++;
        number[i] = -1;
    }
}

/* Adds all requests, beginning with number `first`, three in each step, and runs them. */
static void run_all(Engine *g, Company *c, int first, Reuse reuse, const char *how) {
    Err e = {0};
    int number[N];
    for (int i = 0; i < N; i++) number[i] = -1;
    c->n_finished = 0;
    for (int i = 0; c->n_finished < N && e.code == 0; i++) {
        if (i < N) {
            Request r = c->asked[(first + i) % N].request;
            r.reuse = reuse;
            number[(first + i) % N] = engine_add(g, &r, &e);
        }
        if (i >= N || i % 3 == 2) engine_step(g, &e);
        take_finished(g, c, number, how);
    }
    CHECK(e.code == 0, "%s: %s", how, e.text);
}

static void run_together(Company *c, int n_seq, bool few_pages, Reuse reuse) {
    EngineConfig config = c->config;
    Engine *g;
    Err e = {0};
    char how[128];
    config.n_seq = n_seq;
    config.n_kept = reuse ? 2 : 0;
    config.n_positions = few_pages ? N_CTX + 8 * n_seq : 0;
    snprintf(how, sizeof how, "%s, %d at once, %s pages, reuse %d", gguf_label(c->model.gguf), n_seq,
             few_pages ? "few" : "all", reuse);
    REQUIRE(engine_open(&c->model, &config, &g, &e), "%s", e.text);
    run_all(g, c, n_seq * 5, reuse, how);
    engine_close(g);
}

static void check_company(const char *path) {
    static const int at_once[] = {1, 2, 3, 5, 8, 16, 33, 64};
    Err e = {0};
    Company *c = mem_new(1, sizeof *c);
    c->config =
        (EngineConfig){.device = DEVICE_CPU, .isa = "auto", .n_ctx = N_CTX, .n_threads = 1, .chunk = 48};
    bool ok = model_open(path, &c->model, &e) && model_need_tok(&c->model, &e);
    if (!ok) test_fail(__FILE__, __LINE__, "%s", e.text);
    if (ok) {
        make_requests(c, tok_n_vocab(c->model.tok));
        run_alone(c);
    }
    for (size_t i = 0; ok && i < sizeof at_once / sizeof *at_once; i++) {
        run_together(c, at_once[i], i % 2, REUSE_NONE);
        run_together(c, at_once[i], true, REUSE_SAME);
    }
    if (ok) run_together(c, 16, false, REUSE_SAME);
    CHECK(!ok || c->n_preempted > 3, "%s: preempted %d times", path, c->n_preempted);
    CHECK(!ok || c->n_reused > 5000, "%s: %d tokens reused", path, c->n_reused);
    model_close(&c->model);
    for (int i = 0; i < N; i++) buf_free(&c->asked[i].text);
    free(c);
}

TEST(engine_company_changes_no_token) {
    check_company("test/data/models/llama-s-Q4_0.gguf");
}

/* Windows, states, experts: the smallest golden model of a family. */
TEST(engine_company_changes_no_token_of_families) {
    static const char *const families[] = {"gemma3", "qwen35", "lfm2", "gpt-oss"};
    int n_found = 0;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char pattern[128];
        glob_t files;
        snprintf(pattern, sizeof pattern, "../shared/golden/models/%s-Q4_0.gguf", families[i]);
        if (glob(pattern, 0, NULL, &files) != 0) continue;
        n_found++;
        check_company(files.gl_pathv[0]);
        globfree(&files);
    }
    if (n_found == 0) SKIP("no model of these families in ../shared/golden/models");
}
