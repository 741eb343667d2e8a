/* verify: right runs on every table of kernels and type of cache, and runs with each error that it must
 * find. */
#include "check.h"
#include "gguf_writer.h"
#include "../../src/base/mem.h"
#include "../../src/cpu/cpu.h"
#include "../../src/run/verify.h"

#include <math.h>
#include <string.h>

#define QUESTION "<|user|>What is the capital of Norway?<|end|><|assistant|>"
#define STORY "Once upon a time"
#define TINY "test/data/models/llama-s-Q8_0.gguf"
#define EXPERTS "test/data/models/llama-moe-Q8_0.gguf"

static const SampleParams greedy = {.top_p = 1, .repeat_penalty = 1};
static const SampleParams lively = {
    .temp = 1.2f, .top_p = 0.98f, .repeat_penalty = 1.05f, .repeat_last_n = 64, .seed = 5};

typedef struct Talk { // a run, and an oracle for its first steps
    Model model;
    Engine *engine;
    Verify *verify;
    TokIds ids;
} Talk;

/* path NULL: the demo model; oracle NULL: of the same model. */
static bool talk_open(Talk *t, const char *path, const Model *oracle, int n_steps, EngineConfig c) {
    Err e;
    *t = (Talk){0};
    c.n_ctx = 200;
    c.n_seq = 1;
    c.n_threads = 1;
    if (!c.isa) c.isa = "auto";
    bool ok = model_open(path, &t->model, &e) && engine_open(&t->model, &c, &t->engine, &e) &&
              verify_open(oracle ? oracle : &t->model, &c, n_steps, &t->verify, &e);
    if (!ok) test_fail(__FILE__, __LINE__, "%s", e.text);
    return ok;
}

static void talk_close(Talk *t) {
    verify_close(t->verify);
    engine_close(t->engine);
    tok_ids_free(&t->ids);
    model_close(&t->model);
}

/* Runs the request; the answer is valid until the next one. */
static Sequence *talk_ask(Talk *t, const char *prompt, Request r) {
    Err e = {0};
    t->ids.n = 0;
    tok_encode(t->model.tok, prompt, strlen(prompt), TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, &t->ids);
    r.ids = t->ids.data;
    r.n_ids = (int)t->ids.n;
    int seq = engine_add(t->engine, &r, &e);
    while (seq == 0 && engine_step(t->engine, &e)) {
    }
    CHECK(seq == 0 && e.code == 0, "%s", e.text);
    return (Sequence *)engine_sequence(t->engine, 0); // tests change it
}

static bool never(void) {
    return false;
}

static Verdict verdict_of(Talk *t) {
    Err e = {0};
    CHECK(verify_sequence(t->verify, t->engine, never, &e), "%s", e.text);
    return verify_verdict(t->verify);
}

static void check_passes(const Verdict *d, int n_steps, const char *name) {
    Err e = {0};
    CHECK(verify_passes(d, &e) && e.code == 0, "%s: %s", name, e.text);
    CHECK(d->n_steps == n_steps && d->n_agree <= n_steps, "%s: %d steps", name, d->n_steps);
    CHECK(d->run.kl <= d->run.max_kl && d->run.max_step >= 1 && d->run.max_step <= n_steps, "%s", name);
    CHECK((d->margin > 0) == (d->n_agree < n_steps), "%s", name);
}

static void check_fails(const Verdict *d, const char *why) {
    Err e = {0};
    CHECK(!verify_passes(d, &e) && e.code == ERR_RUN && strstr(e.text, why), "not '%s' but: %s", why, e.text);
}

/* Limits of a run that is rounded to 8 bits. */
static void check_rounded(const Verdict *d) {
    CHECK(d->rounding.nmse > 0 && d->rounding.kl > 0 && d->limits.margin == 0.5);
    CHECK(d->limits.nmse == 4 * fmax(1e-4, d->rounding.nmse) &&
          d->limits.kl == 4 * fmax(5e-4, d->rounding.kl));
    CHECK(d->rounding.nmse < 3e-3, "%g", d->rounding.nmse);
}

/* ---- Right runs ---- */

TEST(verify_passes_every_table_and_cache) {
    static const char *const tables[] = {"scalar", "avx2", "avx512"}, *const models[] = {NULL, TINY, EXPERTS};
    for (int i = 0; i < 3; i++)
        for (int kv = 0; kv < KV_N_TYPES && cpu_isa(tables[i]); kv++) {
            Talk t;
            int m = kv % 3;
            EngineConfig c = {.isa = tables[i], .kv_type = (KvType)kv};
            if (!talk_open(&t, models[m], NULL, 10, c)) continue;
            talk_ask(&t, STORY,
                     (Request){.n_predict = 12, .params = kv % 2 ? lively : greedy, .ignore_eos = true});
            Verdict d = verdict_of(&t);
            check_passes(&d, 10, tables[i]);
            check_rounded(&d);
            CHECK(d.by_median == (m == 2));
            if (i == 0)
                CHECK(d.run.max_kl == 0 && d.run.nmse == 0 && d.n_agree == 10,
                      "the same executor gives the same bits");
            if (i > 0) CHECK(d.run.nmse > 0, "%s is another executor", tables[i]);
            talk_close(&t);
        }
}

/* The oracle has the run's conversion of weights, and float activations have limits of their own. */
TEST(verify_oracle_has_the_runs_rules) {
    Talk t;
    if (talk_open(&t, NULL, NULL, 8, (EngineConfig){.weights_fp8 = true})) {
        talk_ask(&t, STORY, (Request){.n_predict = 8, .params = lively});
        Verdict d = verdict_of(&t);
        check_passes(&d, 8, "fp8");
        CHECK(d.limits.nmse == 3e-5 && isinf(d.limits.kl) && d.limits.margin == 0.05 && d.run.nmse < 1e-8,
              "NMSE %g", d.run.nmse);
    }
    talk_close(&t);
    if (talk_open(&t, NULL, NULL, 8, (EngineConfig){.isa = "scalar", .act_f32 = true, .kv_type = KV_FP8})) {
        talk_ask(&t, STORY, (Request){.n_predict = 8, .params = lively});
        Verdict d = verdict_of(&t);
        check_passes(&d, 8, "f32");
        check_rounded(&d);
        CHECK(d.run.nmse == 0, "a cache of 8 bits rounds, too");
    }
    talk_close(&t);
}

/* The end token is a step; the number of steps is that of the tokens, if fewer than wanted. */
TEST(verify_counts_steps) {
    Talk t;
    if (!talk_open(&t, NULL, NULL, 1000, (EngineConfig){0})) return;
    const Sequence *q = talk_ask(&t, QUESTION, (Request){.n_predict = -1, .params = greedy});
    CHECK(q->n_generated == 7 && q->end >= 0 && tok_is_eog(t.model.tok, q->end));
    Verdict d = verdict_of(&t);
    check_passes(&d, 8, "an answer and its end");
    static const char *const stop[] = {" is"};
    q = talk_ask(&t, QUESTION, (Request){.n_predict = -1, .params = greedy, .stop = stop, .n_stop = 1});
    CHECK(q->end == -1);
    d = verdict_of(&t);
    check_passes(&d, q->n_generated, "an answer cut short");
    talk_ask(&t, QUESTION, (Request){.n_predict = 12, .params = greedy, .ignore_eos = true});
    d = verdict_of(&t);
    check_passes(&d, 12, "beyond the end, which is banned");
    Err e = {0};
    talk_ask(&t, QUESTION, (Request){.n_predict = 0, .params = greedy});
    d = verdict_of(&t);
    CHECK(d.n_steps == 0 && verify_passes(&d, &e), "%s", e.text);
    talk_close(&t);
}

/* A turn of a chat behind the cached ones; verifying it changes no later token. */
TEST(verify_leaves_the_cache_as_it_was) {
    static const char *const turns[] = {QUESTION,
                                        QUESTION
                                        " The capital of Norway is Oslo.<|end|><|user|>Who are you?"
                                        "<|end|><|assistant|>",
                                        STORY};
    Talk t, plain;
    if (!talk_open(&t, NULL, NULL, 5, (EngineConfig){0})) return;
    if (!talk_open(&plain, NULL, NULL, 5, (EngineConfig){0})) return talk_close(&t);
    for (int i = 0; i < 3; i++) {
        Request r = {.n_predict = 20, .params = lively, .reuse = true};
        const Sequence *q = talk_ask(&t, turns[i], r), *other = talk_ask(&plain, turns[i], r);
        CHECK(q->n_reused == other->n_reused && (i != 1 || q->n_reused > 10), "turn %d: %d reused", i,
              q->n_reused);
        CHECK(q->n_generated == other->n_generated &&
                  memcmp(q->ids, other->ids, (size_t)(q->n_prompt + q->n_generated) * sizeof *q->ids) == 0,
              "turn %d: '%s'", i, q->text.data);
        for (int again = 0; again < 2; again++) {
            Verdict d = verdict_of(&t);
            check_passes(&d, 5, turns[i]);
        }
    }
    talk_close(&t);
    talk_close(&plain);
}

static int n_asked;
static bool at_the_fourth(void) {
    return ++n_asked >= 4;
}

TEST(verify_can_be_stopped) {
    Talk t;
    Err e = {0};
    if (!talk_open(&t, NULL, NULL, 5, (EngineConfig){0})) return;
    talk_ask(&t, STORY, (Request){.n_predict = 5, .params = greedy});
    n_asked = 0;
    CHECK(verify_sequence(t.verify, t.engine, at_the_fourth, &e) && e.code == 0, "%s", e.text);
    Verdict d = verify_verdict(t.verify);
    CHECK(d.n_steps == 1, "%d", d.n_steps);
    talk_close(&t);
}

typedef struct Fed {
    Verify *verify;
    const int32_t *ids;
} Fed;

static bool feed(void *arg, const LogitRows *rows) {
    Fed *f = arg;
    Err e;
    bool ok = true;
    for (int i = 0; ok && i < rows->n; i++)
        ok = verify_row(f->verify, f->ids, rows->position + i, rows->data + (size_t)i * rows->stride, &e);
    CHECK(ok, "%s", e.text);
    return ok;
}

TEST(verify_takes_rows) {
    static const int32_t ids[] = {1, 300, 301, 302, 303, 304};
    Talk t;
    Err e;
    if (!talk_open(&t, NULL, NULL, 4, (EngineConfig){.R_max = 6})) return;
    for (int again = 0; again < 2; again++) {
        CHECK(engine_logits(t.engine, ids, 0, 6, feed, &(Fed){t.verify, ids}, &e), "%s", e.text);
        Verdict d = verify_verdict(t.verify);
        check_passes(&d, 4, "rows");
        CHECK(d.run.nmse < 1e-4, "%g", d.run.nmse);
    }
    talk_close(&t);
}

/* ---- Wrong ones ---- */

/* The loop reports another token than it chose, in the middle or at the end. */
TEST(verify_finds_a_token_that_was_not_chosen) {
    Talk t;
    if (!talk_open(&t, NULL, NULL, 20, (EngineConfig){0})) return;
    for (int hot = 0; hot < 2; hot++) {
        Sequence *q = talk_ask(&t, STORY, (Request){.n_predict = 6, .params = hot ? lively : greedy});
        q->ids[q->n_prompt + 3] ^= 1;
        Verdict d = verdict_of(&t);
        CHECK(d.wrong_step == 4 && d.generated == q->ids[q->n_prompt + 3] && d.chosen == (d.generated ^ 1));
        check_fails(&d, " at step 4, where ");
    }
    Sequence *q = talk_ask(&t, QUESTION, (Request){.n_predict = -1, .params = greedy});
    q->end = 0;
    Verdict d = verdict_of(&t);
    CHECK(d.wrong_step == 8);
    talk_close(&t);
}

/* A kernel that skips one block of eight in one tensor: here it is the oracle's, which gives the same
 * distance. */
TEST(verify_finds_wrong_products) {
    static const char *const tensors[] = {"blk.1.ffn_down.weight", "blk.0.attn_k.weight", "output.weight"};
    for (int i = 0; i < 3; i++) {
        Buf file = {0};
        Model wrong = {0};
        Talk t;
        Err e = {0};
        REQUIRE(read_file(TINY, &file));
        REQUIRE(model_open_bytes(file.data, file.n, "wrong", &wrong, &e), "%s", e.text);
        const GgufTensor *w = gguf_find_tensor(wrong.gguf, tensors[i]);
        REQUIRE(w && w->type == QUANT_Q8_0);
        for (uint64_t k = 0; k < w->n_bytes; k += 8 * sizeof(BlockQ8_0)) // a scale of 0
            memset(file.data + (w->data - (const uint8_t *)file.data) + k, 0, 2);
        if (talk_open(&t, TINY, &wrong, 6, (EngineConfig){0})) {
            talk_ask(&t, STORY, (Request){.n_predict = 6, .params = greedy, .ignore_eos = true});
            Verdict d = verdict_of(&t);
            CHECK(d.n_steps == 6 && d.wrong_step == 0, "the loop is right");
            check_fails(&d, " from the scalar executor is ");
        }
        talk_close(&t);
        model_close(&wrong);
        buf_free(&file);
    }
}

TEST(verify_rules) {
    const Verdict right = {.n_steps = 20, .n_agree = 20, .limits = {.nmse = 1e-3, .kl = 1e-2, .margin = 0.5}};
    Err e;
    Verdict d = right;
    CHECK(verify_passes(&d, &e));
    d.run = (LogitsDistance){.kl = 0.9e-2, .nmse = 0.9e-3, .max_kl = 1};
    d.n_outliers = 20;
    d.margin = 0.49;
    CHECK(verify_passes(&d, &e), "%s", e.text);
    d.margin = 0.5;
    d.margin_step = 7;
    check_fails(&d, "at step 7 the run ranks another token first");
    d = right;
    d.run.kl = 1.1e-2;
    d.run.max_step = 3;
    check_fails(&d, "the mean KL from the scalar executor is 0.011 and may be 0.01, the worst is step 3;");
    d = right;
    d.run.nmse = 1.1e-3;
    check_fails(&d, "the mean NMSE ");
    d.run.nmse = NAN;
    check_fails(&d, "NMSE");
    d = right;
    d.by_median = true;
    d.n_outliers = 2;
    CHECK(verify_passes(&d, &e), "of experts a tenth may be far: %s", e.text);
    d.n_outliers = 3;
    check_fails(&d, "3 of 20 steps are further");
    d.n_outliers = 0;
    d.run.nmse = 2e-3;
    check_fails(&d, "the median NMSE");
    d = right;
    d.wrong_step = 2;
    d.generated = 10;
    d.chosen = 11;
    check_fails(&d, "generated token 10 at step 2, where its logits and the sampler give 11");
}
