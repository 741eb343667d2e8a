/* loop: the decode loop of a GPU, which runs ahead of the host.
 *
 * Steps are enqueued before the tokens of the steps before them are fetched.  The tests check that this never
 * shows: a text ends at its limit, its stop string or its interruption, and tokens computed beyond are in no
 * text and no cache; the same request gives the same bytes every time, whatever begins and ends beside it;
 * and what begins or ends costs the others no drain, no capture and no byte. */
#include "gpu.h"
#include "../unit/slots.h"
#include "../../src/run/bench.h"
#include "../../src/run/verify.h"

#define QUESTION "<|user|>What is the capital of Norway?<|end|><|assistant|>"
#define ANSWER " The capital of Norway is Oslo."
#define STORY "Once upon a time"

static const SampleParams greedy = {.top_p = 1, .repeat_penalty = 1};
static const SampleParams lively = {
    .temp = 1.2f, .top_p = 0.98f, .repeat_penalty = 1.05f, .repeat_last_n = 64, .seed = 5};

static const SampleParams stateful = { // the choice of a token depends on those before it
    .temp = 1.2f,
    .top_p = 1,
    .repeat_penalty = 1,
    .order = {FILTER_TEMPERATURE, FILTER_MIROSTAT},
    .mirostat_tau = 3,
    .mirostat_eta = 0.4f,
    .seed = 6};

typedef struct Talk {
    Model model;
    Engine *engine;
    TokIds ids; // of the latest prompt
} Talk;

static bool talk_open_cache(Talk *t, int n_ctx, int n_seq, KvType kv_type) {
    Err e;
    *t = (Talk){0};
    EngineConfig c = {.device = DEVICE_CUDA,
                      .n_ctx = n_ctx,
                      .n_seq = n_seq,
                      .n_threads = 1,
                      .R_max = 64,
                      .kv_type = kv_type};
    bool ok = model_open(NULL, &t->model, &e) && engine_open(&t->model, &c, &t->engine, &e);
    if (!ok) test_fail(__FILE__, __LINE__, "%s", e.text);
    return ok;
}

static bool talk_open(Talk *t, int n_ctx, int n_seq) {
    return talk_open_cache(t, n_ctx, n_seq, KV_F16);
}

static void talk_close(Talk *t) {
    tok_ids_free(&t->ids);
    engine_close(t->engine);
    model_close(&t->model);
}

static int talk_add(Talk *t, const char *prompt, Request r) {
    Err e = {0};
    t->ids.n = 0;
    tok_encode(t->model.tok, prompt, strlen(prompt), TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, &t->ids);
    r.ids = t->ids.data;
    r.n_ids = (int)t->ids.n;
    int seq = engine_add(t->engine, &r, &e);
    CHECK(seq >= 0, "%s", e.text);
    return seq < 0 ? 0 : seq;
}

static void talk_run(Talk *t) {
    Err e = {0};
    while (engine_step(t->engine, &e)) {
    }
    CHECK(e.code == 0, "%s", e.text);
}

/* One request alone; its sequence is good until the next. */
static const Sequence *talk_ask(Talk *t, const char *prompt, Request r) {
    int seq = talk_add(t, prompt, r);
    talk_run(t);
    return engine_sequence(t->engine, seq);
}

static bool text_is(const Sequence *q, const char *text, size_t n) {
    return q->text.n == n && (n == 0 || memcmp(q->text.data, text, n) == 0);
}

/* The steps that ran ahead changed nothing: the engine still gives its answer. */
static void check_sane(Talk *t) {
    const Sequence *q = talk_ask(t, QUESTION, (Request){.n_predict = -1, .params = greedy});
    CHECK(q->finish == FINISH_STOP && text_is(q, ANSWER, strlen(ANSWER)), "the text is '%s'",
          q->text.data ? q->text.data : "");
}

/* Ops are kept apart there, so that they take no less than a step. */
TEST(gpu_loop_can_be_profiled) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    Talk t;
    Err e = {0};
    if (!talk_open(&t, 256, 1)) return;
    talk_ask(&t, STORY, (Request){.n_predict = 20, .params = lively});
    Profile p = {0};
    REQUIRE(engine_profile(t.engine, 20, &p, &e), "%s", e.text);
    double sum = 0;
    for (int i = 0; i < engine_plan(t.engine)->n_ops; i++) {
        CHECK(p.seconds[i] > 0, "op %d", i);
        sum += p.seconds[i];
    }
    CHECK(p.n_past == 20 && p.repeats >= 3 && p.step > 0 && sum > 0.8 * p.step, "%g s, a step %g s", sum,
          p.step);
    free(p.seconds);
    check_sane(&t);
    talk_close(&t);
}

TEST(gpu_loop_repeats_twenty_times) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    Talk t;
    if (!talk_open(&t, 256, 1)) return;
    Buf first = {0};
    for (int i = 0; i < 20; i++) {
        const Sequence *q = talk_ask(&t, STORY, (Request){.n_predict = 120, .params = lively});
        if (i == 0) buf_add(&first, q->text.data, q->text.n);
        CHECK(q->n_generated == 120 || q->finish == FINISH_STOP);
        CHECK(text_is(q, first.data, first.n), "time %d: '%s'", i, q->text.data);
    }
    CHECK(first.n > 40);
    buf_free(&first);
    talk_close(&t);
}

/* The context is no whole number of tiles, and is used to its last position. */
TEST(gpu_loop_repeats_with_every_cache) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int type = 0; type < KV_N_TYPES; type++) {
        Talk t;
        if (!talk_open_cache(&t, 201, 2, (KvType)type)) continue;
        Buf first = {0};
        for (int i = 0; i < 3; i++) {
            const Sequence *q =
                talk_ask(&t, STORY, (Request){.n_predict = -1, .params = lively, .ignore_eos = true});
            if (i == 0) buf_add(&first, q->text.data, q->text.n);
            CHECK(q->finish == FINISH_LENGTH && q->n_prompt + q->n_generated == 201, "%s: %d tokens",
                  kv_type_name((KvType)type), q->n_generated);
            CHECK(text_is(q, first.data, first.n), "%s, time %d: '%s'", kv_type_name((KvType)type), i,
                  q->text.data);
            check_sane(&t);
        }
        buf_free(&first);
        talk_close(&t);
    }
}

typedef struct Kept { // the logits of the first time, and how far the comparison is
    float *logits;
    bool first;
    int n_vocab, n_different;
} Kept;

static bool keep_rows(void *arg, const LogitRows *rows) {
    Kept *k = arg;
    size_t bytes = (size_t)k->n_vocab * sizeof *k->logits;
    for (int i = 0; i < rows->n; i++) {
        float *mine = k->logits + (size_t)(rows->position + i) * (size_t)k->n_vocab;
        const float *logits = rows->data + (size_t)i * rows->stride;
        if (k->first)
            memcpy(mine, logits, bytes);
        else
            k->n_different += memcmp(mine, logits, bytes) != 0;
    }
    return true;
}

TEST(gpu_loop_logits_are_the_same_twenty_times) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    enum { N = 150 };
    Talk t;
    if (!talk_open(&t, 256, 1)) return;
    Kept k = {.first = true, .n_vocab = engine_plan(t.engine)->hparams.n_vocab};
    k.logits = mem_new((size_t)N * (size_t)k.n_vocab, sizeof *k.logits);
    int32_t ids[N];
    for (int i = 0; i < N; i++) ids[i] = 260 + i * 7 % 500;
    for (int i = 0; i < 20; i++, k.first = false) {
        Err e;
        CHECK(engine_logits(t.engine, ids, 0, N, keep_rows, &k, &e), "%s", e.text);
    }
    CHECK(k.n_different == 0, "%d rows", k.n_different);
    free(k.logits);
    talk_close(&t);
}

TEST(gpu_loop_ends_at_n_predict) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int counts[] = {0, 1, 2, 7, 8, 9, 63, 64, 65, 66};
    Talk t;
    if (!talk_open(&t, 256, 1)) return;
    const Sequence *q =
        talk_ask(&t, STORY, (Request){.n_predict = 100, .params = lively, .ignore_eos = true});
    int32_t whole[100];
    memcpy(whole, q->ids + q->n_prompt, sizeof whole);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        q = talk_ask(&t, STORY, (Request){.n_predict = counts[i], .params = lively, .ignore_eos = true});
        CHECK(q->finish == FINISH_LENGTH && q->n_generated == counts[i], "%d of %d", q->n_generated,
              counts[i]);
        CHECK(memcmp(q->ids + q->n_prompt, whole, (size_t)counts[i] * sizeof *whole) == 0, "%d tokens",
              counts[i]);
        check_sane(&t);
    }
    talk_close(&t);
}

TEST(gpu_loop_fills_the_context) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int sizes[] = {20, 24, 33, 100, 257};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        Talk t;
        if (!talk_open(&t, sizes[i], 2)) continue;
        for (int again = 0; again < 2; again++) {
            const Sequence *q =
                talk_ask(&t, STORY, (Request){.n_predict = -1, .params = lively, .ignore_eos = true});
            CHECK(q->finish == FINISH_LENGTH && q->n_prompt + q->n_generated == sizes[i], "%d + %d of %d",
                  q->n_prompt, q->n_generated, sizes[i]);
        }
        if (sizes[i] > 60) check_sane(&t);
        talk_close(&t);
    }
}

TEST(gpu_loop_cuts_at_stop_strings) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    Talk t;
    if (!talk_open(&t, 256, 1)) return;
    const Sequence *q = talk_ask(&t, STORY, (Request){.n_predict = 100, .params = greedy});
    char *whole = mem_string(q->text.data);
    CHECK(strlen(whole) > 120, "only '%s'", whole);
    for (size_t at = 0; at + 20 < strlen(whole); at += 13) {
        char stop[8] = "";
        memcpy(stop, whole + at, 3 + at % 5);
        const char *const stops[] = {stop, "no such text"};
        size_t cut = (size_t)(strstr(whole, stop) - whole);
        q = talk_ask(&t, STORY, (Request){.n_predict = 100, .params = greedy, .stop = stops, .n_stop = 2});
        CHECK(q->finish == FINISH_STOP && text_is(q, whole, cut), "'%s': '%s'", stop, q->text.data);
    }
    check_sane(&t);
    free(whole);
    talk_close(&t);
}

TEST(gpu_loop_can_be_interrupted) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    Talk t;
    if (!talk_open(&t, 256, 2)) return;
    const Sequence *q = talk_ask(&t, STORY, (Request){.n_predict = 40, .params = lively});
    Buf whole = {0};
    buf_add(&whole, q->text.data, q->text.n);
    for (int n_steps = 1; n_steps < 20; n_steps += 6) {
        int seq = talk_add(&t, STORY, (Request){.n_predict = 40, .params = lively});
        Err e = {0};
        for (int i = 0; i < n_steps; i++) engine_step(t.engine, &e);
        engine_interrupt(t.engine);
        q = engine_sequence(t.engine, seq);
        CHECK(q->finish == FINISH_INTERRUPTED && q->n_generated == n_steps && q->text.n < whole.n);
        CHECK(memcmp(q->text.data, whole.data, q->text.n) == 0, "'%s'", q->text.data);
        check_sane(&t);
    }
    buf_free(&whole);
    talk_close(&t);
}

/* The tokens of a request with log-probabilities come from a run each, not from the loop: they are the
 * same. */
/* Tokens put into an answer while the loop is ahead of it: those that would have followed change nothing. */
TEST(gpu_loop_takes_inserted_tokens) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    Talk t;
    Err e = {0};
    if (!talk_open(&t, 256, 2)) return;
    Request r = {.n_predict = -1, .params = greedy};
    const Sequence *q = talk_ask(&t, QUESTION, r);
    int32_t ids[64];
    int n_prompt = q->n_prompt, n = n_prompt + q->n_generated;
    REQUIRE(n <= 64 && q->n_generated > 5 && text_is(q, ANSWER, strlen(ANSWER)));
    memcpy(ids, q->ids, (size_t)n * sizeof *ids);
    int other = talk_add(&t, STORY, (Request){.n_predict = 40, .params = lively}),
        seq = talk_add(&t, QUESTION, r);
    q = engine_sequence(t.engine, seq);
    while (q->n_generated < 2) REQUIRE(engine_step(t.engine, &e), "%s", e.text);
    REQUIRE(engine_insert(t.engine, seq, ids + n_prompt + q->n_generated, 2, &e), "%s", e.text);
    CHECK(q->n_generated == 4);
    talk_run(&t);
    CHECK(q->finish == FINISH_STOP && text_is(q, ANSWER, strlen(ANSWER)), "the text is '%s'", q->text.data);
    CHECK(engine_sequence(t.engine, other)->n_generated == 40);
    check_sane(&t);
    talk_close(&t);
}

TEST(gpu_loop_gives_the_tokens_of_runs) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    Talk t;
    if (!talk_open(&t, 256, 1)) return;
    for (uint64_t seed = 0; seed < 6; seed++) {
        Request r = {.n_predict = 100, .params = seed % 2 ? stateful : lively};
        r.params.seed = seed;
        const Sequence *q = talk_ask(&t, STORY, r);
        int n = q->n_generated;
        int32_t steps[100];
        memcpy(steps, q->ids + q->n_prompt, (size_t)n * sizeof *steps);
        r.n_logprobs = 1;
        q = talk_ask(&t, STORY, r);
        CHECK(q->n_generated == n && memcmp(q->ids + q->n_prompt, steps, (size_t)n * sizeof *steps) == 0,
              "seed %d", (int)seed);
    }
    talk_close(&t);
}

static bool never(void) {
    return false;
}

/* Runs give the bits of the steps that the GPU drives, so that the sampler gives the same tokens; and both
 * are near the scalar executor.  A second prompt begins with what the cache has of the first. */
TEST(gpu_loop_is_verified) {
    enum { STEPS = 16 };
    if (gpu_missing()) SKIP(gpu_missing());
    const SampleParams kinds[] = {lively, stateful};
    for (int type = 0; type < KV_N_TYPES; type++) {
        Talk t;
        Verify *verify = NULL;
        Err e = {0};
        EngineConfig c = {.n_ctx = 256, .n_seq = 1, .n_threads = 2, .kv_type = (KvType)type};
        if (!talk_open_cache(&t, 256, 1, (KvType)type)) continue;
        REQUIRE(verify_open(&t.model, &c, STEPS, &verify, &e), "%s", e.text);
        static const char *const prompts[] = {
            STORY, STORY
            " there was a little fox named Ruby who lived in the woods with her mother and her father, "
            "and every day she went out to look for berries, and for someone to play with. One day"};
        for (int i = 0; i < 4; i++) {
            Request r = {.n_predict = 40,
                         .params = i % 2 ? kinds[type % 2] : greedy,
                         .ignore_eos = true,
                         .reuse = true};
            talk_ask(&t, prompts[i / 2], r);
            CHECK(verify_sequence(verify, t.engine, never, &e), "%s", e.text);
            Verdict d = verify_verdict(verify);
            CHECK(d.n_steps == STEPS && d.wrong_step == 0, "%s: step %d", kv_type_name((KvType)type),
                  d.wrong_step);
            CHECK(verify_passes(&d, &e), "%s: %s", kv_type_name((KvType)type), e.text);
        }
        verify_close(verify);
        check_sane(&t);
        talk_close(&t);
    }
}

/* Many sequences at once, of different lengths, more than there are slots: each gives the tokens that it
 * gives alone. */
TEST(gpu_loop_of_many_is_that_of_each) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    enum { N = 40 };
    static int32_t alone[N][64];
    static TokIds ids[N];
    Talk t;
    if (!talk_open(&t, 128, 24)) return;
    Request r[N];
    for (int i = 0; i < N; i++) { // a prompt of one token is computed alike alone and beside others
        r[i] =
            (Request){.n_predict = 8 + i * 11 % 50, .params = i % 3 ? lively : stateful, .ignore_eos = true};
        r[i].params.seed = (uint64_t)i;
        tok_ids_add(&ids[i], 300 + i);
        r[i].ids = ids[i].data;
        r[i].n_ids = 1;
    }
    for (int many = 0; many < 2; many++)
        for (int i = 0, end; i < N; i = end) {
            Err e = {0};
            int seq[N];
            for (end = i; end < (many ? N : i + 1); end++) seq[end] = engine_add(t.engine, &r[end], &e);
            talk_run(&t);
            for (int k = i; k < end; k++) {
                const Sequence *q = engine_sequence(t.engine, seq[k]);
                size_t bytes = (size_t)r[k].n_predict * sizeof(int32_t);
                CHECK(q->n_generated == r[k].n_predict, "row %d", k);
                if (!many)
                    memcpy(alone[k], q->ids + 1, bytes);
                else
                    CHECK(memcmp(alone[k], q->ids + 1, bytes) == 0, "row %d of many", k);
            }
        }
    for (int i = 0; i < N; i++) tok_ids_free(&ids[i]);
    talk_close(&t);
}

/* Slots are joined and left by chance, with runs between the steps: each gives the tokens that it gives
 * alone. */
TEST(gpu_loop_slots_come_and_go) {
    if (gpu_missing()) SKIP(gpu_missing());
    static const char *const paths[] = {"test/data/models/llama-s-Q4_0.gguf",
                                        "test/data/models/llama-s-F16.gguf"};
    for (int i = 0; i < 2; i++) {
        Rig rig;
        if (!rig_open(&rig, paths[i], (RigConfig){.executor = &cuda_exec, .n_seq = SLOTS, .n_ctx = 64}))
            continue;
        slots_check_tokens(&rig, 2000);
        rig_close(&rig);
    }
}

TEST(gpu_loop_sequences_share_a_beginning) {
    if (gpu_missing()) SKIP(gpu_missing());
    Rig rig;
    RigConfig c = {.executor = &cuda_exec, .n_seq = 2};
    if (!rig_open(&rig, "test/data/models/llama-s-Q4_0.gguf", c)) return;
    slots_check_sharing(&rig);
    rig_close(&rig);
}

/* Captures, drains, bytes and steps of sequences that end one after the other. */
TEST(gpu_loop_finished_sequences_cost_nothing) {
    if (gpu_missing()) SKIP(gpu_missing());
    Talk t;
    if (!talk_open(&t, 80, COST_SEQ)) return;
    slots_check_costs(t.engine);
    CHECK(engine_counters(t.engine).bytes_sent > 0);
    talk_close(&t);
}

/* Prompts are read while another sequence decodes: it gets a token in each step, the same ones as alone, and
 * the loop is never drained. */
TEST(gpu_loop_goes_on_beside_prompts) {
    enum { N = 60, LONG = 200 };
    if (gpu_missing()) SKIP(gpu_missing());
    Talk t;
    Err e = {0};
    if (!talk_open(&t, 256, 3)) return;
    int32_t alone[N], ids[LONG];
    for (int i = 0; i < LONG; i++) ids[i] = 260 + i * 7 % 500;
    Request r = {.n_predict = N, .params = lively, .ignore_eos = true};
    const Sequence *q = talk_ask(&t, STORY, r);
    memcpy(alone, q->ids + q->n_prompt, sizeof alone);
    q = engine_sequence(t.engine, talk_add(&t, STORY, r));
    for (int i = 0; i < N; i++) {
        Request other = {.ids = ids, .n_ids = LONG - i, .n_predict = 3, .params = greedy, .ignore_eos = true};
        if (i % 7 == 3) CHECK(engine_add(t.engine, &other, &e) >= 0, "%s", e.text);
        engine_step(t.engine, &e);
        CHECK(e.code == 0 && q->n_generated == i + 1, "step %d: %d tokens", i, q->n_generated);
    }
    talk_run(&t);
    CHECK(q->n_generated == N && memcmp(q->ids + q->n_prompt, alone, sizeof alone) == 0, "the tokens differ");
    CHECK(engine_counters(t.engine).drains == 0);
    check_sane(&t);
    talk_close(&t);
}

/* Any rows of any register can be read: here those of the embedding, which has the CPU's bits. */
TEST(gpu_loop_reads_any_register) {
    enum { N = 5 };
    if (gpu_missing()) SKIP(gpu_missing());
    Rig gpu, cpu;
    const char *path = "test/data/models/llama-s-F16.gguf";
    if (!rig_open(&gpu, path, (RigConfig){.executor = &cuda_exec})) return;
    if (!rig_open(&cpu, path, (RigConfig){.act_f32 = true})) return;
    Row rows[N];
    int32_t ids[N];
    Err e = {0};
    rig_ids(&gpu, 4, ids, N);
    for (int i = 0; i < N; i++) rows[i] = (Row){ids[i], 0, i, true};
    CHECK(rig_run(&gpu, rows, N, NULL) && rig_run(&cpu, rows, N, NULL));
    int embed = op_out(&gpu.plan->ops[0], 0), width = gpu.plan->regs[embed].width;
    CHECK(rig_run_ops(&gpu, rows, N, 0, 1, NULL, NULL, &e) &&
          rig_run_ops(&cpu, rows, N, 0, 1, NULL, NULL, &e));
    for (int first = 0; first < N; first += 2) {
        size_t stride, cpu_stride;
        int n = first + 2 < N ? 2 : N - first;
        const float *a = gpu.ops->read(gpu.exec, embed, first, n, &stride, &e);
        const float *b = cpu.ops->read(cpu.exec, op_out(&cpu.plan->ops[0], 0), first, n, &cpu_stride, &e);
        for (int i = 0; a && b && i < n; i++)
            CHECK(memcmp(a + (size_t)i * stride, b + (size_t)i * cpu_stride, (size_t)width * sizeof *a) == 0,
                  "row %d", first + i);
        CHECK(a && b, "%s", e.text);
    }
    rig_close(&gpu);
    rig_close(&cpu);
}

/* The work that zgen bench measures is the same each time, behind a depth, too, and in a batch. */
TEST(loop_bench_repeats) {
    if (gpu_missing()) SKIP(gpu_missing());
    static const BenchTest tests[] = {
        {.n_prompt = 70}, {.n_gen = 20}, {70, 20, 0}, {.n_gen = 20, .n_depth = 90}, {40, 9, 50}};
    BenchSettings s = {.n_repetitions = 3, .warm_up = true, .bos = -1, .params = greedy, .stopped = never};
    Talk t;
    Err e;
    BenchResult r;
    REQUIRE(talk_open(&t, 200, 16));
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        CHECK(bench_run(t.engine, &s, &tests[i], &r, &e), "%zu: %s", i, e.text);
        CHECK(r.n == 3 && r.n_ids == tests[i].n_gen + 1 && !r.differs, "%zu", i);
        bench_free(&r);
    }
    CHECK(bench_run_batch(t.engine, &s, &tests[2], 16, &r, &e), "%s", e.text);
    CHECK(r.n_ids == 16 * 21 && !r.differs);
    bench_free(&r);
    talk_close(&t);
}
