/* engine: the loop from requests to text, with the demo model and, where much is computed, a tiny one.
 *
 * The demo model's answers to simple questions have wide margins: their text is compared as a whole.
 * Everything else is compared with the output of the same request alone: beside others, on more threads, with
 * a stop string, a sequence may end earlier but gives the same tokens.  Every run checks that final text is
 * never taken back. */
#include "check.h"
#include "gguf_writer.h"
#include "slots.h"
#include "../../src/base/mem.h"
#include "../../src/run/engine_impl.h"

#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#define QUESTION "<|user|>What is the capital of Norway?<|end|><|assistant|>"
#define ANSWER " The capital of Norway is Oslo."
#define STORY "Once upon a time"
#define TINY "test/data/models/llama-s-Q4_0.gguf"

enum { MAX_SEQ = 40 };

typedef struct Bench {
    Model model;
    Engine *engine;
    int n_seq;
    Buf printed[MAX_SEQ]; // what a caller would have printed of each sequence
} Bench;

static const SampleParams greedy = {.top_p = 1, .repeat_penalty = 1};

/* path NULL: the demo model. */
static bool open_config(Bench *b, const char *path, EngineConfig c) {
    Err e;
    *b = (Bench){.n_seq = c.n_seq ? c.n_seq : 1};
    c.n_seq = b->n_seq;
    c.device = DEVICE_CPU;
    c.isa = "auto";
    c.n_ctx = c.n_ctx ? c.n_ctx : 256;
    c.n_threads = c.n_threads ? c.n_threads : 1;
    bool ok = model_open(path, &b->model, &e) && model_need_tok(&b->model, &e) &&
              engine_open(&b->model, &c, &b->engine, &e);
    if (!ok) test_fail(__FILE__, __LINE__, "%s", e.text);
    return ok;
}

static bool open_bench(Bench *b, int n_ctx, int n_seq) {
    return open_config(b, NULL, (EngineConfig){.n_ctx = n_ctx, .n_seq = n_seq});
}

static void close_bench(Bench *b) {
    engine_close(b->engine);
    model_close(&b->model);
    for (int i = 0; i < MAX_SEQ; i++) buf_free(&b->printed[i]);
}

static TokIds ids_of(const Bench *b, const char *text) {
    TokIds ids = {0};
    tok_encode(b->model.tok, text, strlen(text), TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, &ids);
    return ids;
}

/* Prints what is new, as a caller does, and checks that it only ever grows. */
static void print_new(Bench *b, int s) {
    const Sequence *q = engine_sequence(b->engine, s);
    Buf *printed = &b->printed[s];
    bool grows = q->n_final >= printed->n && q->n_final <= q->text.n;
    CHECK(grows, "sequence %d: %zu final bytes of %zu, %zu printed", s, q->n_final, q->text.n, printed->n);
    if (!grows || q->n_final == 0) return;
    CHECK(printed->n == 0 || memcmp(printed->data, q->text.data, printed->n) == 0,
          "sequence %d changed its text", s);
    buf_add(printed, q->text.data + printed->n, q->n_final - printed->n);
    if (q->finish != FINISH_NONE) CHECK(q->n_final == q->text.n, "a finished text is final");
}

static bool step(Bench *b) {
    Err e = {0};
    bool more = engine_step(b->engine, &e);
    CHECK(e.code == 0, "%s", e.text);
    for (int s = 0; s < b->n_seq; s++) print_new(b, s);
    return more;
}

static void run(Bench *b) {
    while (step(b)) {
    }
}

static int add(Bench *b, const Request *r) {
    Err e = {0};
    int s = engine_add(b->engine, r, &e);
    CHECK(s >= 0 && s < b->n_seq, "%s", e.text);
    if (s >= 0) buf_clear(&b->printed[s]);
    return s;
}

static bool text_of_is(const Sequence *q, const char *text, size_t n) {
    return q->text.n == n && (n == 0 || memcmp(q->text.data, text, n) == 0);
}

/* Runs one request alone and returns its sequence, valid until the next. */
static const Sequence *ask(Bench *b, const char *prompt, Request r, TokIds *ids) {
    *ids = ids_of(b, prompt);
    r.ids = ids->data;
    r.n_ids = (int)ids->n;
    int s = add(b, &r);
    run(b);
    return engine_sequence(b->engine, s < 0 ? 0 : s);
}

/* ---- Ends ---- */

TEST(engine_answers_and_stops) {
    Bench b;
    TokIds ids;
    if (!open_bench(&b, 256, 1)) return;
    const Sequence *q = ask(&b, QUESTION, (Request){.n_predict = -1, .params = greedy}, &ids);
    CHECK(q->finish == FINISH_STOP && text_of_is(q, ANSWER, strlen(ANSWER)), "the text is '%s'",
          q->text.data);
    CHECK(q->n_prompt == (int)ids.n && q->n_generated == 7 &&
          memcmp(q->ids, ids.data, ids.n * sizeof *q->ids) == 0);
    CHECK(q->prompt.n == q->n_prompt &&
          q->decode.n == q->n_generated); // the token that ends the text was computed too
    CHECK(q->prompt.seconds > 0 && q->decode.bytes > 5e6 * q->n_generated);
    CHECK(strcmp(engine_executor(b.engine), "cpu") == 0 && strcmp(finish_name(q->finish), "stop") == 0);
    ExecMemory m = engine_memory(b.engine);
    CHECK(m.kv == m.kv_position * (256 + CACHE_PAGE)); // of 4 pages, and of the scrap page
    tok_ids_free(&ids);
    close_bench(&b);
}

TEST(engine_ends_at_n_predict) {
    static const int counts[] = {0, 1, 2, 7};
    Bench b;
    TokIds ids;
    if (!open_bench(&b, 256, 1)) return;
    for (int i = 0; i < 4; i++) {
        int n = counts[i];
        const Sequence *q = ask(&b, QUESTION, (Request){.n_predict = n, .params = greedy}, &ids);
        CHECK(q->finish == FINISH_LENGTH && q->n_generated == n && (n > 0) == (q->text.n > 0), "%d of %d",
              q->n_generated, n);
        CHECK(q->text.n == 0 || memcmp(q->text.data, ANSWER, q->text.n) == 0);
        tok_ids_free(&ids);
    }
    close_bench(&b);
}

TEST(engine_ignores_eos) {
    Bench b;
    TokIds ids;
    if (!open_bench(&b, 256, 1)) return;
    const Sequence *q =
        ask(&b, QUESTION, (Request){.n_predict = 40, .params = greedy, .ignore_eos = true}, &ids);
    CHECK(q->finish == FINISH_LENGTH && q->n_generated == 40);
    for (int i = 0; i < q->n_generated; i++) CHECK(!tok_is_eog(b.model.tok, q->ids[q->n_prompt + i]));
    CHECK(q->text.n > strlen(ANSWER) && memcmp(q->text.data, ANSWER, strlen(ANSWER)) == 0);
    tok_ids_free(&ids);
    close_bench(&b);
}

TEST(engine_fills_the_context) {
    enum { N_CTX = 24 };
    Bench b;
    if (!open_bench(&b, N_CTX, 1)) return;
    int32_t ids[N_CTX + 1];
    TokIds story = ids_of(&b, STORY);
    for (int i = 0; i <= N_CTX; i++) ids[i] = story.data[i % (int)story.n];
    for (int n = 1; n < N_CTX; n += 11) { // 1, 12, 23
        Request r = {
            .ids = ids, .n_ids = n, .n_predict = n == 12 ? 1000 : -1, .params = greedy, .ignore_eos = true};
        const Sequence *q = engine_sequence(b.engine, add(&b, &r));
        run(&b);
        CHECK(q->finish == FINISH_LENGTH && q->n_prompt + q->n_generated == N_CTX, "%d + %d", q->n_prompt,
              q->n_generated);
    }
    for (int n = N_CTX; n <= N_CTX + 1; n++) {
        Err e = {0};
        char number[16];
        snprintf(number, sizeof number, " %d ", n);
        CHECK(engine_add(b.engine, &(Request){.ids = ids, .n_ids = n, .params = greedy}, &e) == -1);
        CHECK(e.code == ERR_RUN && strstr(e.text, number) && strstr(e.text, " 24 "), "%s", e.text);
    }
    tok_ids_free(&story);
    close_bench(&b);
}

TEST(engine_interrupt_keeps_the_text) {
    Bench b;
    TokIds ids;
    if (!open_bench(&b, 256, 2)) return;
    const Sequence *q = ask(&b, STORY, (Request){.n_predict = 30, .params = greedy}, &ids);
    Buf whole = {0};
    buf_add(&whole, q->text.data, q->text.n);
    char held[64]; // what is generated may all be its beginning: nothing is final before the interruption
    snprintf(held, sizeof held, "%.60s#", whole.data);
    const char *const stop[] = {held};
    Request r = {
        .ids = ids.data, .n_ids = (int)ids.n, .n_predict = 30, .params = greedy, .stop = stop, .n_stop = 1};
    int first = add(&b, &r), second = add(&b, &r);
    for (int i = 0; i < 6; i++) CHECK(step(&b));
    engine_interrupt(b.engine);
    for (int s = 0; s < 2; s++) {
        q = engine_sequence(b.engine, s);
        CHECK(q->finish == FINISH_INTERRUPTED && q->n_generated == 6 && q->n_final == q->text.n &&
              q->text.n > 6);
        CHECK(q->text.n < whole.n && memcmp(q->text.data, whole.data, q->text.n) == 0);
    }
    CHECK(first != second && !step(&b));
    tok_ids_free(&ids);
    q = ask(&b, QUESTION, (Request){.n_predict = -1, .params = greedy}, &ids); // and the engine still answers
    CHECK(text_of_is(q, ANSWER, strlen(ANSWER)));
    buf_free(&whole);
    tok_ids_free(&ids);
    close_bench(&b);
}

/* ---- Stop strings ---- */

/* Where text must be cut: the first offset at which one of two strings of equal length begins. */
static size_t cut_of(const char *text, const char *const stop[2]) {
    const char *a = strstr(text, stop[0]), *b = strstr(text, stop[1]);
    if (!a || (b && b < a)) a = b;
    return a ? (size_t)(a - text) : strlen(text);
}

/* Two strings of n bytes to stop the story at: one that comes, and one that is expected for a while and does
 * not; or two that overlap, in either order. */
static void stops_of(int i, const char *at, int n, char strings[2][32]) {
    for (int k = 0; k < 2; k++) snprintf(strings[k], 32, "%.*s", n, at + (i % 2 && (i / 2 + k) % 2));
    if (i % 2 == 0) strings[1][n - 1] = '#'; // not in the story
}

/* Many sequences generate the same text, each with its own stop strings, cut out of it at places that do not
 * care where tokens begin. */
TEST(engine_cuts_at_stop_strings) {
    enum { N = 24, TOKENS = 70, N_BANNED = 1000 };
    static const int lengths[] = {1, 2, 3, 7, 12, 25};
    static char strings[N][2][32];
    static const char *stops[N][2];
    static int32_t banned[N_BANNED];
    SampleParams params = {.temp = 1, .top_p = 1, .repeat_penalty = 1, .seed = 4, .banned = banned};
    Bench b;
    TokIds ids;
    if (!open_config(&b, TINY, (EngineConfig){.n_ctx = 96, .n_seq = N})) return;
    for (int id = 0; id < tok_n_vocab(b.model.tok) && id < N_BANNED; id++) // no control tokens, no bytes
        if (tok_type(b.model.tok, id) != TOK_NORMAL) banned[params.n_banned++] = id;
    const Sequence *q = ask(&b, STORY, (Request){.n_predict = TOKENS, .params = params}, &ids);
    char *whole = mem_string(q->text.data);
    size_t n_whole = strlen(whole);
    CHECK(n_whole > 100, "only '%s'", whole);
    for (size_t length = 0; n_whole > 100 && length < sizeof lengths / sizeof *lengths; length++) {
        for (int i = 0; i < N; i++) {
            size_t at = (size_t)i * (n_whole - 40) / N; // 0: at the very start
            stops_of(i, whole + at, lengths[length], strings[i]);
            for (int k = 0; k < 2; k++) stops[i][k] = strings[i][k];
            Request r = {.ids = ids.data, .n_ids = (int)ids.n, .n_predict = TOKENS, .params = params};
            r.stop = stops[i];
            r.n_stop = 2;
            CHECK(add(&b, &r) == i);
        }
        run(&b);
        for (int i = 0; i < N; i++) {
            q = engine_sequence(b.engine, i);
            size_t cut = cut_of(whole, stops[i]);
            bool stopped = cut < n_whole && q->finish == FINISH_STOP;
            CHECK(stopped && text_of_is(q, whole, cut), "'%s', '%s': '%s', not %zu bytes", stops[i][0],
                  stops[i][1], q->text.data, cut);
            CHECK(b.printed[i].n == cut, "'%s': %zu bytes were printed", stops[i][0], b.printed[i].n);
        }
    }
    free(whole);
    tok_ids_free(&ids);
    close_bench(&b);
}

TEST(engine_gives_back_what_it_held) {
    static const char *const stop[] = {"Oslo.!", "is Oslo, ", "Norwegian", "Oslo.?"};
    Bench b;
    TokIds ids;
    if (!open_bench(&b, 256, 1)) return;
    Request r = {.n_predict = -1, .params = greedy, .stop = stop, .n_stop = 4};
    const Sequence *q = ask(&b, QUESTION, r, &ids); // held until the answer ended
    CHECK(q->finish == FINISH_STOP && text_of_is(q, ANSWER, strlen(ANSWER)), "the text is '%s'",
          q->text.data);
    CHECK(q->n_final == q->text.n);
    tok_ids_free(&ids);
    close_bench(&b);
}

/* ---- Beside others ---- */

typedef struct Case {
    const char *prompt;
    SampleParams params;
    int n_predict, n_logprobs;
    int at_step; // when it is added
} Case;

/* The choice of a token depends on those before it. */
#define MIROSTAT                                                                                             \
    {                                                                                                        \
        .temp = 1.5f, .top_p = 1, .repeat_penalty = 1, .order = {FILTER_TEMPERATURE, FILTER_MIROSTAT},       \
        .mirostat_tau = 3, .mirostat_eta = 0.5f, .seed = 9                                                   \
    }

static const Case cases[] = {
    {STORY, {.top_p = 1, .repeat_penalty = 1}, 40, 0, 0},
    {QUESTION, {.top_p = 1, .repeat_penalty = 1}, -1, 2, 0},
    {"One day, a little fox named Ruby",
     {.temp = 0.8f,
      .top_p = 0.95f,
      .min_p = 0.05f,
      .repeat_penalty = 1,
      .top_k = 40,
      .repeat_last_n = 64,
      .seed = 7},
     40,
     0,
     2},
    {STORY, {.temp = 1.5f, .top_p = 1, .repeat_penalty = 1.1f, .repeat_last_n = -1, .seed = 1}, 30, 0, 3},
    {"<|user|>Count from 7 to 15.<|end|><|assistant|>", {.top_p = 1, .repeat_penalty = 1}, -1, 0, 3},
    {STORY, {.temp = 1.5f, .top_p = 1, .repeat_penalty = 1.1f, .repeat_last_n = -1, .seed = 2}, 30, 3, 11},
    {"x",
     {.temp = 1, .top_p = 1, .repeat_penalty = 1, .presence_penalty = 1, .repeat_last_n = 8, .seed = 3},
     50,
     0,
     36},
    {STORY, MIROSTAT, 40, 0, 37},
    {STORY, MIROSTAT, 40, 2, 38}, // outside of the loop
};
enum { N_CASES = sizeof cases / sizeof *cases };

typedef struct Outcome { // a copy of what a sequence generated
    int n;
    int32_t ids[64];
    double logprob[64];
    Finish finish;
} Outcome;

static Outcome outcome_of(const Sequence *q) {
    Outcome t = {.n = q->n_generated, .finish = q->finish};
    for (int i = 0; i < t.n && i < 64; i++) {
        t.ids[i] = q->ids[q->n_prompt + i];
        t.logprob[i] = q->logprobs ? q->logprobs[i].logprob : 0;
    }
    return t;
}

static Request request_of(const Case *w, const TokIds *ids) {
    return (Request){.ids = ids->data,
                     .n_ids = (int)ids->n,
                     .n_predict = w->n_predict,
                     .params = w->params,
                     .n_logprobs = w->n_logprobs};
}

/* Each case alone, of n_max tokens at most. */
static void run_alone(EngineConfig c, int n_max, Outcome outcome[N_CASES]) {
    Bench b;
    if (!open_config(&b, NULL, c)) return;
    for (int i = 0; i < N_CASES; i++) {
        TokIds ids = ids_of(&b, cases[i].prompt);
        Request r = request_of(&cases[i], &ids);
        if (r.n_predict < 0 || r.n_predict > n_max) r.n_predict = n_max;
        int s = add(&b, &r);
        run(&b);
        outcome[i] = outcome_of(engine_sequence(b.engine, s));
        tok_ids_free(&ids);
    }
    close_bench(&b);
}

static void check_outcome(const char *how, int i, const Outcome *a, const Outcome *b) {
    bool same = a->n == b->n && a->finish == b->finish && memcmp(a->ids, b->ids, sizeof a->ids) == 0 &&
                memcmp(a->logprob, b->logprob, sizeof a->logprob) == 0;
    CHECK(same, "%s: case %d", how, i);
}

TEST(engine_sequences_are_computed_as_if_alone) {
    static Outcome alone[N_CASES];
    Bench b;
    run_alone((EngineConfig){0}, 64, alone);
    if (!open_bench(&b, 256, 5)) return; // fewer slots than cases
    TokIds ids[N_CASES];
    int place[N_CASES], n_added = 0;
    for (int i = 0; i < N_CASES; i++) ids[i] = ids_of(&b, cases[i].prompt);
    bool seen[N_CASES] = {false};
    for (int at = 0, n_seen = 0; n_seen < N_CASES && at < 500; at++) {
        while (n_added < N_CASES && cases[n_added].at_step <= at) {
            Request r = request_of(&cases[n_added], &ids[n_added]);
            place[n_added] = add(&b, &r);
            n_added++;
        }
        step(&b);
        for (int i = 0; i < n_added; i++) {
            const Sequence *q = engine_sequence(b.engine, place[i]);
            if (seen[i] || q->finish == FINISH_NONE) continue;
            Outcome outcome = outcome_of(q);
            check_outcome("beside others", i, &outcome, &alone[i]);
            seen[i] = true;
            n_seen++;
        }
    }
    for (int i = 0; i < N_CASES; i++) {
        CHECK(seen[i], "case %d has not ended", i);
        tok_ids_free(&ids[i]);
    }
    CHECK(memcmp(alone[3].ids, alone[5].ids, sizeof alone[3].ids) != 0, "another seed gives another text");
    CHECK(memcmp(alone[7].ids, alone[8].ids, sizeof alone[7].ids) == 0, "mu does not depend on the loop");
    close_bench(&b);
}

/* mirostat begins anew behind tokens that were put in: what follows is the answer to the prompt with all of
 * them. */
TEST(engine_mirostat_goes_on_behind_inserted_tokens) {
    static const int32_t more[] = {300, 301, 302};
    Bench b;
    TokIds ids;
    Err e = {0};
    int32_t all[128];
    if (!open_bench(&b, 256, 1)) return;
    ids = ids_of(&b, STORY);
    Request r = {
        .ids = ids.data, .n_ids = (int)ids.n, .n_predict = 40, .params = MIROSTAT, .ignore_eos = true};
    const Sequence *q = engine_sequence(b.engine, add(&b, &r));
    while (q->n_generated < 9) REQUIRE(engine_step(b.engine, &e), "%s", e.text);
    REQUIRE(engine_insert(b.engine, 0, more, 3, &e), "%s", e.text);
    int n = q->n_prompt + q->n_generated;
    run(&b);
    REQUIRE(q->n_generated == 40 && n + 28 < 128);
    memcpy(all, q->ids, (size_t)(q->n_prompt + 40) * sizeof *all);
    r.ids = all;
    r.n_ids = n;
    r.n_predict = 28;
    q = engine_sequence(b.engine, add(&b, &r));
    run(&b);
    CHECK(q->n_generated == 28 && memcmp(q->ids, all, (size_t)(n + 28) * sizeof *all) == 0);
    tok_ids_free(&ids);
    close_bench(&b);
}

/* Numbers are given from the lowest on, whatever waits; a sequence that waits for a slot has no token and no
 * text, and all come to their end as if alone. */
TEST(engine_full_is_a_queue) {
    static Outcome alone[N_CASES];
    Bench b;
    run_alone((EngineConfig){0}, 64, alone);
    if (!open_bench(&b, 256, 2)) return;
    TokIds ids[N_CASES];
    Err e = {0};
    for (int i = 0; i < N_CASES; i++) {
        ids[i] = ids_of(&b, cases[i].prompt);
        Request r = request_of(&cases[i], &ids[i]);
        CHECK(engine_add(b.engine, &r, &e) == i);
    }
    CHECK(engine_step(b.engine, &e) && engine_n_running(b.engine) == 2);
    for (int i = 0; i < N_CASES; i++)
        CHECK(engine_sequence(b.engine, i)->n_generated == (i < 2), "sequence %d", i);
    while (engine_step(b.engine, &e)) {
    }
    CHECK(e.code == 0, "%s", e.text);
    for (int i = 0; i < N_CASES; i++) {
        Outcome outcome = outcome_of(engine_sequence(b.engine, i));
        check_outcome("behind others", i, &outcome, &alone[i]);
        tok_ids_free(&ids[i]);
    }
    close_bench(&b);
}

TEST(engine_interrupts_those_that_wait) {
    Bench b;
    if (!open_bench(&b, 64, 1)) return;
    TokIds ids = ids_of(&b, STORY);
    Err e = {0};
    Request r = {.ids = ids.data, .n_ids = (int)ids.n, .n_predict = 20, .params = greedy};
    for (int i = 0; i < 3; i++) CHECK(engine_add(b.engine, &r, &e) == i);
    for (int i = 0; i < 4; i++) CHECK(engine_step(b.engine, &e));
    engine_interrupt(b.engine);
    for (int i = 0; i < 3; i++) {
        const Sequence *q = engine_sequence(b.engine, i);
        CHECK(q->finish == FINISH_INTERRUPTED && q->n_generated == (i == 0 ? 4 : 0), "sequence %d", i);
    }
    CHECK(!engine_step(b.engine, &e) && e.code == 0);
    CHECK(engine_add(b.engine, &r, &e) == 0); // and the engine goes on
    while (engine_step(b.engine, &e)) {
    }
    CHECK(engine_sequence(b.engine, 0)->n_generated == 20);
    tok_ids_free(&ids);
    close_bench(&b);
}

/* While a prompt of many chunks is read, a sequence that has begun to answer gets a token in each step. */
TEST(engine_decodes_while_it_reads) {
    enum { CHUNK = 16, LONG = 10 * CHUNK };
    Bench b;
    if (!open_config(&b, TINY, (EngineConfig){.n_ctx = 256, .n_seq = 2, .chunk = CHUNK})) return;
    int32_t ids[LONG];
    for (int i = 0; i < LONG; i++) ids[i] = 3 + i * 37 % 320;
    Request r = {.ids = ids, .n_ids = 5, .n_predict = 60, .params = greedy, .ignore_eos = true};
    int first = add(&b, &r);
    for (int i = 0; i < 3; i++) step(&b);
    r.n_ids = LONG;
    int second = add(&b, &r);
    const Sequence *q = engine_sequence(b.engine, first), *reader = engine_sequence(b.engine, second);
    for (int i = 1; i <= LONG / CHUNK; i++) {
        step(&b);
        CHECK(q->n_generated == 3 + i && reader->prompt.n == i * CHUNK, "step %d", i);
        CHECK(reader->n_generated == (i == LONG / CHUNK));
    }
    step(&b);
    CHECK(reader->n_generated == 2);
    run(&b);
    close_bench(&b);
}

/* Of the free slots a request gets the one whose cache begins like its prompt, not the first. */
TEST(engine_takes_the_cache_that_begins_alike) {
    enum { N = 4, LENGTH = 20, MORE = 6 };
    Bench b;
    if (!open_config(&b, TINY, (EngineConfig){.n_ctx = 64, .n_seq = N})) return;
    int32_t ids[N][LENGTH + MORE];
    Request r = {.n_ids = LENGTH, .n_predict = MORE, .params = greedy, .ignore_eos = true, .reuse = true};
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < LENGTH + MORE; k++) ids[i][k] = k < 2 ? 1 : 3 + (i * 91 + k * 37) % 320;
        r.ids = ids[i];
        add(&b, &r);
    }
    run(&b);
    for (int i = N - 1; i >= 0; i--) { // in another order: alone, and with others
        memcpy(ids[i], engine_sequence(b.engine, i)->ids, sizeof ids[i]);
        if (i == N / 2) continue;
        r.ids = ids[i];
        r.n_ids = LENGTH + MORE;
        int s = add(&b, &r);
        if (i == N - 1) run(&b);
        step(&b);
        CHECK(engine_sequence(b.engine, s)->n_reused == LENGTH + MORE - 1, "sequence %d: %d", i,
              engine_sequence(b.engine, s)->n_reused);
        run(&b);
    }
    close_bench(&b);
}

TEST(engine_slots_come_and_go) {
    Rig rig;
    if (!rig_open(&rig, TINY, (RigConfig){.isa = "auto", .n_seq = SLOTS, .n_ctx = 64})) return;
    slots_check_tokens(&rig, 300);
    rig_close(&rig);
}

TEST(engine_finished_sequences_cost_nothing) {
    Bench b;
    if (!open_config(&b, TINY, (EngineConfig){.n_ctx = 80, .n_seq = COST_SEQ})) return;
    slots_check_costs(b.engine);
    ExecCounters c = engine_counters(b.engine);
    CHECK(c.bytes_sent == 0 && c.captures == 0); // there is no device
    close_bench(&b);
}

/* Several rows of one sequence sample in one run, each by its own parameters and the tokens up to its own
 * position. */
TEST(engine_samples_many_rows_of_a_sequence) {
    enum { N = 24 };
    static const SampleParams kinds[] = {
        {.top_p = 1, .repeat_penalty = 1},
        {.temp = 1.5f, .top_p = 0.9f, .repeat_penalty = 1.3f, .repeat_last_n = -1, .seed = 3},
        {.temp = 1, .top_p = 1, .repeat_penalty = 1, .presence_penalty = 2, .repeat_last_n = 4, .seed = 4},
        {.random_tokens = true, .seed = 5}};
    Rig rig;
    Err e;
    if (!rig_open(&rig, TINY, (RigConfig){.isa = "auto", .n_ctx = 64})) return;
    int32_t ids[N], seq[N] = {0}, position[N], out_row[N], sampled[N];
    SampleParams sampling[N];
    rig_ids(&rig, 9, ids, N);
    for (int i = 0; i < N; i++) {
        ids[i] = i % 3 ? ids[i] : ids[0]; // something to be penalised
        position[i] = out_row[i] = i;
        sampling[i] = kinds[i % 4];
    }
    Batch all = {N, N, ids, seq, position, NULL, out_row, sampling, sampled};
    bool ok = rig.ops->run(rig.exec, &all, 0, rig.plan->n_ops, &e);
    size_t stride;
    const float *logits = ok ? rig.ops->read(rig.exec, rig.logits, 0, N, &stride, &e) : NULL;
    void *scratch = mem_new(sample_scratch_bytes(rig.n_vocab), 1);
    CHECK(logits, "%s", e.text);
    for (int i = 0; logits && i < N; i++) {
        int token = sample_token(logits + (size_t)i * stride, rig.n_vocab, &sampling[i], ids, i + 1,
                                 (uint64_t)i + 1, NULL, scratch);
        CHECK(sampled[i] == token, "row %d: %d, not %d", i, sampled[i], token);
    }
    free(scratch);
    rig_close(&rig);
}

TEST(engine_threads_change_no_token) {
    static Outcome one[N_CASES], many[N_CASES];
    enum { N = 10 }; // few: on a busy machine more threads than processors wait for each other
    run_alone((EngineConfig){.n_threads = 1}, N, one);
    for (int n = 2; n <= 3; n++) {
        run_alone((EngineConfig){.n_threads = n}, N, many);
        for (int i = 0; i < N_CASES; i++)
            check_outcome(n == 2 ? "two threads" : "three threads", i, &many[i], &one[i]);
    }
}

/* ---- Long prompts and logits ---- */

typedef struct Rows { // what engine_logits handed over
    int first, n, n_vocab, stop_at;
    int most; // rows at once
    float *logits;
} Rows;

static bool keep_rows(void *arg, const LogitRows *piece) {
    Rows *rows = arg;
    size_t n_vocab = (size_t)rows->n_vocab;
    CHECK(piece->position == rows->first + rows->n && piece->n > 0, "rows come in order");
    if (piece->n > rows->most) rows->most = piece->n;
    for (int i = 0; i < piece->n; i++)
        memcpy(rows->logits + (size_t)rows->n++ * n_vocab, piece->data + (size_t)i * piece->stride,
               n_vocab * sizeof *rows->logits);
    return !rows->stop_at || rows->n < rows->stop_at;
}

/* Of the positions from `first` on. */
static Rows logits_of(Bench *b, const int32_t *ids, int first, int n) {
    Rows rows = {.first = first, .n_vocab = engine_plan(b->engine)->hparams.n_vocab};
    Err e = {0};
    rows.logits = mem_new((size_t)(n - first) * (size_t)rows.n_vocab, sizeof *rows.logits);
    CHECK(engine_logits(b->engine, ids, first, n, keep_rows, &rows, &e) && rows.n == n - first, "%s", e.text);
    return rows;
}

static int best_of(const float *logits, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* A prompt of several chunks, beside a short one and another long one. */
TEST(engine_reads_long_prompts_in_chunks) {
    enum { LONG = 600, MORE = 6 };
    Bench b;
    if (!open_config(&b, TINY, (EngineConfig){.n_ctx = 700, .n_seq = 3, .R_max = 256})) return;
    int32_t ids[2][LONG];
    TokIds story = ids_of(&b, "One day, a little fox named Ruby met a bear, and they sang all day long. ");
    for (int i = 0; i < LONG; i++) {
        ids[0][i] = story.data[i % (int)story.n];
        ids[1][i] = story.data[(i * 7 + 3) % (int)story.n];
    }
    for (int i = 0; i < 3; i++) {
        bool is_long = i != 1;
        Request r = {.ids = is_long ? ids[i / 2] : story.data,
                     .n_ids = is_long ? LONG - 90 * (i / 2) : (int)story.n,
                     .n_predict = MORE,
                     .params = greedy,
                     .ignore_eos = true,
                     .n_logprobs = i == 2 ? 1 : 0};
        CHECK(add(&b, &r) == i);
    }
    run(&b);
    int32_t generated[3][LONG + MORE];
    int n[3];
    for (int i = 0; i < 3; i++) {
        const Sequence *q = engine_sequence(b.engine, i);
        n[i] = q->n_prompt + q->n_generated;
        CHECK(q->n_generated == MORE && q->finish == FINISH_LENGTH && q->prompt.n == q->n_prompt);
        memcpy(generated[i], q->ids, (size_t)n[i] * sizeof *q->ids);
    }
    for (int i = 0; i < 3; i++) {
        Rows rows = logits_of(&b, generated[i], 0, n[i]);
        for (int k = n[i] - MORE; k < n[i]; k++) {
            const float *logits = rows.logits + (size_t)(k - 1) * (size_t)rows.n_vocab;
            int best = best_of(logits, rows.n_vocab);
            CHECK(generated[i][k] == best || tok_is_eog(b.model.tok, best), "sequence %d at %d", i, k);
        }
        free(rows.logits);
    }
    tok_ids_free(&story);
    close_bench(&b);
}

TEST(engine_logits_do_not_depend_on_the_pieces) {
    enum { N = 300, LAST = 190 };
    int32_t ids[N];
    float *first = NULL;
    for (int i = 0; i < N; i++) ids[i] = 3 + i * 37 % 320;
    static const int pieces[] = {256, 7, 1};
    for (int i = 0; i < 3; i++) {
        Bench b;
        if (!open_config(&b, TINY, (EngineConfig){.n_ctx = N, .R_max = pieces[i]})) continue;
        Rows rows = logits_of(&b, ids, 0, N);
        size_t bytes = (size_t)N * (size_t)rows.n_vocab * sizeof *first;
        CHECK(!first || memcmp(first, rows.logits, bytes) == 0, "in pieces of %d", pieces[i]);
        CHECK(rows.most == pieces[i], "%d", rows.most);
        Rows some = {.n_vocab = rows.n_vocab, .stop_at = 5, .logits = rows.logits};
        Err e = {0};
        int whole = (5 + pieces[i] - 1) / pieces[i] * pieces[i]; // pieces are handed over whole
        CHECK(!engine_logits(b.engine, ids, 0, N, keep_rows, &some, &e) && e.code == 0 && some.n == whole);
        Rows last = logits_of(&b, ids, LAST, N);
        size_t skipped = LAST * (size_t)rows.n_vocab, bytes_of_last = bytes - skipped * sizeof *first;
        CHECK(memcmp(rows.logits + skipped, last.logits, bytes_of_last) == 0, "the last in pieces of %d",
              pieces[i]);
        free(last.logits);
        CHECK(!engine_logits(b.engine, ids, 0, N + 1, keep_rows, &some, &e) && e.code == ERR_RUN &&
                  strstr(e.text, "301") && strstr(e.text, "300"),
              "%s", e.text);
        if (first)
            free(rows.logits);
        else
            first = rows.logits;
        close_bench(&b);
    }
    free(first);
}

TEST(engine_logprobs_are_the_logits) {
    enum { BEST = 4 };
    Bench b;
    TokIds ids;
    if (!open_config(&b, NULL, (EngineConfig){.R_max = 64})) return;
    const SampleParams hot = {
        .temp = 1.2f, .top_p = 1, .repeat_penalty = 1.3f, .repeat_last_n = 64, .seed = 5};
    for (int i = 0; i < 2; i++) {
        Request r = {.n_predict = 20, .params = i ? hot : greedy, .n_logprobs = BEST, .ignore_eos = true};
        const Sequence *q = ask(&b, STORY, r, &ids);
        REQUIRE(q->n_generated == 20 && q->logprobs);
        Rows rows = logits_of(&b, q->ids, 0, q->n_prompt + q->n_generated);
        for (int k = 0; k < q->n_generated; k++) {
            const float *logits = rows.logits + (size_t)(q->n_prompt + k - 1) * (size_t)rows.n_vocab;
            const TokenLogprobs *p = &q->logprobs[k];
            double sum = 0;
            for (int v = 0; v < rows.n_vocab; v++) sum += exp((double)logits[v]);
            CHECK(fabs(p->logprob - (logits[q->ids[q->n_prompt + k]] - log(sum))) < 2e-6, "token %d", k);
            CHECK(p->ids[0] == best_of(logits, rows.n_vocab));
            for (int v = 0; v < BEST; v++) {
                CHECK(fabs(p->logprobs[v] - (logits[p->ids[v]] - log(sum))) < 2e-6, "token %d, best %d", k,
                      v);
                CHECK(v == 0 || p->logprobs[v] <= p->logprobs[v - 1]);
            }
        }
        free(rows.logits);
        tok_ids_free(&ids);
    }
    close_bench(&b);
}

/* ---- Failures ---- */

TEST(engine_stops_at_a_damaged_weight) {
    Buf file = {0};
    Model model = {0};
    Engine *engine = NULL;
    Err e = {0};
    REQUIRE(read_file("test/data/models/llama-s-Q8_0.gguf", &file));
    REQUIRE(gguf_open_bytes(file.data, file.n, "x.gguf", &model.gguf, &e) &&
                tok_open(model.gguf, &model.tok, &e),
            "%s", e.text);
    EngineConfig c = {.device = DEVICE_CPU, .n_ctx = 64, .n_seq = 1, .n_threads = 1, .isa = "auto"};
    REQUIRE(engine_open(&model, &c, &engine, &e), "%s", e.text);
    const GgufTensor *t = gguf_find_tensor(model.gguf, "blk.1.ffn_up.weight");
    int32_t ids[] = {1, 20, 30, 40};
    for (int damaged = 0; damaged < 2; damaged++) {
        if (damaged)
            memcpy(file.data + (t->data - (const uint8_t *)file.data), "\0\x7E", 2); // a scale of NaN
        CHECK(engine_add(engine, &(Request){.ids = ids, .n_ids = 4, .n_predict = 2, .params = greedy}, &e) ==
              0);
        for (int again = 0; again < 2; again++) { // a step that failed can be tried again
            while (engine_step(engine, &e)) {
            }
            if (!damaged)
                CHECK(e.code == 0, "%s", e.text);
            else
                CHECK(e.code == ERR_RUN && strstr(e.text, "position 3 ") && strstr(e.text, t->name), "%s",
                      e.text);
        }
    }
    engine_close(engine);
    model_close(&model);
    buf_free(&file);
}

/* Pieces of a prompt end at multiples of the chunk, wherever the prompt begins to be computed. */
TEST(engine_cuts_prompts_at_multiples_of_the_chunk) {
    enum { CHUNK = 16, HELD = 5, N = 40 };
    static const int ends[] = {CHUNK, 2 * CHUNK, N};
    Bench b;
    if (!open_config(&b, TINY, (EngineConfig){.n_ctx = 64, .n_seq = 1, .chunk = CHUNK})) return;
    int32_t ids[N];
    for (int i = 0; i < N; i++) ids[i] = 3 + i * 37 % 320;
    Request r = {.ids = ids, .n_ids = HELD, .n_predict = 1, .params = greedy, .reuse = true};
    add(&b, &r);
    run(&b);
    r.n_ids = N;
    const Sequence *q = engine_sequence(b.engine, add(&b, &r));
    for (int i = 0; i < 3; i++) {
        step(&b);
        CHECK(q->n_reused == HELD && q->prompt.n == ends[i] - HELD, "step %d: %d tokens", i, q->prompt.n);
    }
    close_bench(&b);
}

/* A sequence outside of the loop, too, gets a token in each step, and costs the prompts beside it no row. */
TEST(engine_gives_logprobs_while_it_reads) {
    enum { CHUNK = 4, LONG = 10 * CHUNK, SHORT = 3 };
    Bench b;
    if (!open_config(&b, TINY, (EngineConfig){.n_ctx = 64, .n_seq = 3, .chunk = CHUNK})) return;
    int32_t ids[LONG];
    for (int i = 0; i < LONG; i++) ids[i] = 3 + i * 37 % 320;
    Request r = {
        .ids = ids, .n_ids = 1, .n_predict = 30, .params = greedy, .ignore_eos = true, .n_logprobs = 1};
    const Sequence *q = engine_sequence(b.engine, add(&b, &r));
    step(&b);
    r.n_logprobs = 0;
    r.n_ids = LONG;
    const Sequence *reader = engine_sequence(b.engine, add(&b, &r));
    r.n_ids = SHORT;
    add(&b, &r); // with a chunk of the long prompt it would fill the batch
    for (int i = 1; i <= LONG / CHUNK; i++) {
        step(&b);
        CHECK(q->n_generated == 1 + i && reader->prompt.n == i * CHUNK, "step %d: %d, %d tokens", i,
              q->n_generated, reader->prompt.n);
    }
    run(&b);
    close_bench(&b);
}

/* A request that no cache begins like takes the slot that was used longest ago. */
TEST(engine_overwrites_the_oldest_cache) {
    enum { N = 3, LENGTH = 20 };
    static const int order[] = {1, 2, 0}, kept[] = {2, 0};
    Bench b;
    if (!open_config(&b, TINY, (EngineConfig){.n_ctx = 64, .n_seq = N})) return;
    int32_t ids[N][LENGTH], other[] = {300, 301, 302, 303};
    Request r = {.n_ids = LENGTH, .n_predict = 1, .params = greedy, .ignore_eos = true, .reuse = REUSE_SAME};
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < LENGTH; k++) ids[i][k] = 3 + (i * 91 + k * 37) % 320;
        r.ids = ids[i];
        add(&b, &r);
    }
    run(&b);
    for (int i = 0; i < N; i++) { // once more, in another order
        r.ids = ids[order[i]];
        add(&b, &r);
        run(&b);
    }
    add(&b, &(Request){.ids = other, .n_ids = 4, .n_predict = 1, .params = greedy, .reuse = REUSE_SAME});
    run(&b);
    for (int i = 0; i < N - 1; i++) {
        r.ids = ids[kept[i]];
        const Sequence *q = engine_sequence(b.engine, add(&b, &r));
        run(&b);
        CHECK(q->n_reused == LENGTH - 1, "sequence %d: %d", kept[i], q->n_reused);
    }
    close_bench(&b);
}

/* An interrupted text ends like one at its limit, within a character too. */
TEST(engine_interrupts_within_a_character) {
    enum { N = 40 };
    Bench b;
    if (!open_config(&b, TINY, (EngineConfig){.n_ctx = 64, .n_seq = 2})) return;
    int32_t ids[] = {5, 6, 7};
    Request r = {
        .ids = ids, .n_ids = 3, .ignore_eos = true, .params = {.temp = 3, .top_p = 1, .repeat_penalty = 1}};
    Buf before = {0};
    int n_within = 0;
    for (int n = 1; n <= N; n++) {
        r.n_predict = n;
        const Sequence *limited = engine_sequence(b.engine, add(&b, &r));
        r.n_predict = N + 1;
        const Sequence *q = engine_sequence(b.engine, add(&b, &r));
        for (int i = 0; i < n; i++) step(&b);
        engine_interrupt(b.engine);
        CHECK(limited->finish == FINISH_LENGTH && q->finish == FINISH_INTERRUPTED && q->n_generated == n);
        CHECK(text_of_is(q, limited->text.data, limited->text.n), "%d tokens: '%s', '%s'", n, q->text.data,
              limited->text.data);
        n_within += limited->text.n < before.n ||
                    (before.n && memcmp(limited->text.data, before.data, before.n) != 0);
        buf_clear(&before);
        buf_add(&before, limited->text.data, limited->text.n);
    }
    CHECK(n_within > 0, "no text ends within a character");
    buf_free(&before);
    close_bench(&b);
}

static int n_good_steps; // of the decode loop, until one fails

/* A step whose tokens are lost: it was computed, and all slots are free. */
static bool failing_next(Exec *x, int32_t *tokens, Err *e) {
    if (!cpu_exec.decode_next(x, tokens, e)) return false;
    if (n_good_steps-- > 0) return true;
    for (int slot = 0; slot < 3; slot++) cpu_exec.decode_leave(x, slot);
    return err_set(e, ERR_RUN, "this step fails");
}

/* After a step of the loop that failed, all sequences go on with the tokens that they have alone. */
TEST(engine_tries_a_failed_step_of_the_loop_again) {
    enum { N = 20, N_SEQ = 3 };
    Bench b;
    ExecOps fails = cpu_exec;
    int32_t alone[N_SEQ][N];
    if (!open_config(&b, TINY, (EngineConfig){.n_ctx = 64, .n_seq = N_SEQ})) return;
    fails.decode_next = failing_next;
    int32_t ids[] = {5, 6, 7};
    Request r = {
        .ids = ids, .n_ids = 3, .ignore_eos = true, .params = {.temp = 1, .top_p = 1, .repeat_penalty = 1}};
    for (int i = 0; i < N_SEQ; i++) {
        r.params.seed = (uint64_t)i;
        r.n_predict = N - i;
        const Sequence *q = engine_sequence(b.engine, add(&b, &r));
        run(&b);
        memcpy(alone[i], q->ids + q->n_prompt, (size_t)r.n_predict * sizeof *alone[i]);
    }
    for (int i = 0; i < N_SEQ; i++) {
        r.params.seed = (uint64_t)i;
        r.n_predict = N - i;
        add(&b, &r);
    }
    b.engine->exec_ops = &fails;
    int n_failed = 0;
    for (Err e = {0}; n_failed < N && (engine_step(b.engine, &e) || e.code);) {
        if (!e.code) continue;
        n_failed++;
        n_good_steps = 3;
    }
    for (int i = 0; i < N_SEQ; i++) {
        const Sequence *q = engine_sequence(b.engine, i);
        CHECK(q->n_generated == N - i, "sequence %d: %d tokens", i, q->n_generated);
        CHECK(memcmp(alone[i], q->ids + q->n_prompt, (size_t)(N - i) * sizeof *alone[i]) == 0, "sequence %d",
              i);
    }
    CHECK(n_failed >= 4, "%d failures", n_failed);
    b.engine->exec_ops = &cpu_exec;
    close_bench(&b);
}

static const float *no_read(Exec *x, int reg, int first, int n, size_t *stride, Err *e) {
    (void)x;
    (void)reg;
    (void)first;
    (void)n;
    (void)stride;
    err_set(e, ERR_RUN, "this register cannot be read");
    return NULL;
}

/* Where the logits of a token cannot be read, the token is not lost: a later step gives it. */
TEST(engine_tries_a_failed_read_again) {
    enum { N = 8 };
    Bench b;
    ExecOps fails = cpu_exec;
    int32_t alone[N];
    if (!open_bench(&b, 256, 1)) return;
    fails.read = no_read;
    TokIds ids = ids_of(&b, STORY);
    Request r = {.ids = ids.data, .n_ids = (int)ids.n, .n_predict = N, .params = greedy, .n_logprobs = 2};
    const Sequence *q = engine_sequence(b.engine, add(&b, &r));
    run(&b);
    memcpy(alone, q->ids + q->n_prompt, sizeof alone);
    add(&b, &r);
    for (int i = 0; i < N; i++) {
        Err e = {0};
        b.engine->exec_ops = &fails;
        CHECK(!engine_step(b.engine, &e) && e.code == ERR_RUN && q->n_generated == i, "token %d", i);
        b.engine->exec_ops = &cpu_exec;
        CHECK(engine_step(b.engine, &e) == (i + 1 < N) && e.code == 0 && q->n_generated == i + 1, "token %d",
              i);
    }
    CHECK(q->finish == FINISH_LENGTH && memcmp(alone, q->ids + q->n_prompt, sizeof alone) == 0);
    tok_ids_free(&ids);
    close_bench(&b);
}

/* A profile adds up to about a step, and what it leaves in the cache is in no later answer. */
/* A stop that is wanted from ask number `stop_at` on. */
static atomic_int n_asks;
static int stop_at;

static bool stop_wanted_now(void) {
    return atomic_fetch_add(&n_asks, 1) >= stop_at;
}

/* The sequence of a request of which a computation is stopped at that ask, and computed again. */
static const Sequence *ask_stopped(Bench *b, const Request *r, int at) {
    Err e;
    atomic_store(&n_asks, 0);
    stop_at = at;
    int s = add(b, r);
    while (engine_step(b->engine, &e)) {
    }
    CHECK(e.code == 0, "%s", e.text);
    stop_at = INT_MAX;
    run(b);
    return engine_sequence(b->engine, s);
}

/* Weights of all kinds of layers: attention, experts, states of which a stop may leave a part changed. */
TEST(engine_stops_within_a_step_and_computes_it_again) {
    static const char *const MODELS[] = {"llama-s-Q4_0", "llama-moe-Q4_0", "mamba2-Q4_0", "qwen35moe-Q4_0",
                                         "kimi-linear-Q4_0"};
    static const char TEXT[] =
        "a text of some tokens that are computed in a batch, and then some more of them";
    for (size_t m = 0; m < sizeof MODELS / sizeof *MODELS; m++) {
        char path[100];
        Bench b;
        snprintf(path, sizeof path, "test/data/models/%s.gguf", MODELS[m]);
        REQUIRE(open_config(&b, path, (EngineConfig){.n_threads = 3, .chunk = 16, .stop = stop_wanted_now}),
                "%s", path);
        stop_at = INT_MAX;
        TokIds ids, kept = {0};
        Request r = {.n_predict = 5, .params = greedy, .ignore_eos = true};
        atomic_store(&n_asks, 0);
        const Sequence *q = ask(&b, TEXT, r, &ids);
        int n_all = atomic_load(&n_asks);
        for (int i = 0; i < q->n_prompt + q->n_generated; i++) tok_ids_add(&kept, q->ids[i]);
        r.ids = ids.data;
        r.n_ids = (int)ids.n;
        for (int part = 0; part < 9; part++) {
            q = ask_stopped(&b, &r, (int)((int64_t)n_all * part / 9));
            bool same = q->finish == FINISH_LENGTH && (size_t)(q->n_prompt + q->n_generated) == kept.n &&
                        memcmp(q->ids, kept.data, kept.n * sizeof *q->ids) == 0;
            CHECK(same, "%s, stopped after %d/9 of %d asks: other tokens", MODELS[m], part, n_all);
        }
        tok_ids_free(&ids);
        tok_ids_free(&kept);
        close_bench(&b);
    }
}

TEST(engine_profiles_and_goes_on) {
    Bench b;
    TokIds ids;
    Err e = {0};
    if (!open_bench(&b, 256, 1)) return;
    Request r = {.n_predict = -1, .params = greedy, .reuse = true};
    for (int n_past = 0; n_past <= 1000; n_past += 500) { // the others are too deep
        Profile p = {0};
        const Sequence *q = ask(&b, QUESTION, r, &ids);
        CHECK(text_of_is(q, ANSWER, strlen(ANSWER)), "the text is '%s'", q->text.data);
        tok_ids_free(&ids);
        REQUIRE(engine_profile(b.engine, n_past, &p, &e), "%s", e.text);
        double sum = 0;
        for (int i = 0; i < engine_plan(b.engine)->n_ops; i++) sum += p.seconds[i];
        CHECK(p.repeats >= 3 && p.step > 0 && sum > 0 && p.n_past == (n_past ? 251 : 0), "behind %d",
              p.n_past);
        free(p.seconds);
    }
    close_bench(&b);
}

/* The longest context that fits is found to the position, before anything is loaded. */
TEST(engine_knows_its_memory_before_loading) {
    Model model;
    Err e = {0};
    REQUIRE(model_open(NULL, &model, &e), "%s", e.text);
    EngineConfig c = {.n_ctx = 1 << 30, .n_seq = 2, .n_threads = 1, .isa = "auto"};
    Engine *large, *small;
    REQUIRE(engine_prepare(&model, &c, &large, &e), "%s", e.text);
    ExecMemory m = engine_memory(large);
    CHECK(m.is_mapped && m.weights == weights_bytes(engine_plan(large)->weights) && m.registers > 0 &&
          m.scratch > 0 && m.free > 0);
    CHECK(exec_needed(&m) == m.kv + m.registers + m.scratch);
    CHECK(m.kv == m.kv_position * (((size_t)2 << 30) + CACHE_PAGE) && !exec_fits(&m));
    CHECK(m.kv_position == 3072 && m.kv_window == 0 && m.kv_state == 0);
    c.n_ctx = engine_context_that_fits(large);
    for (int more = 0; more < 2; more++, c.n_ctx++) {
        REQUIRE(engine_prepare(&model, &c, &small, &e), "%s", e.text);
        ExecMemory near = engine_memory(small);
        near.free = m.free; // which changes as we look
        CHECK(exec_keeps_weights(&near) == !more, "%d positions: %zu of %zu bytes", c.n_ctx,
              exec_needed(&near), m.free);
        engine_close(small);
    }
    CHECK(!engine_load(large, &e) && e.code == ERR_MEMORY && strstr(e.text, " would fit"), "%s", e.text);
    engine_close(large);
    model_close(&model);
}

TEST(engine_refuses_what_cannot_be_opened) {
    Model model;
    Engine *engine = NULL;
    Err e = {0};
    REQUIRE(model_open(NULL, &model, &e), "%s", e.text);
    EngineConfig c = {.device = DEVICE_CPU, .n_ctx = 64, .n_seq = 1, .n_threads = 1, .isa = "abacus"};
    CHECK(!engine_open(&model, &c, &engine, &e) && e.code == ERR_USAGE && strstr(e.text, "abacus"), "%s",
          e.text);
    c.isa = "auto";
    c.n_ctx = 1 << 30;
    c.n_seq = 1 << 14;
    CHECK(!engine_open(&model, &c, &engine, &e) && e.code == ERR_MEMORY && strstr(e.text, "-c"), "%s",
          e.text);
    model_close(&model);
    REQUIRE(model_open("test/data/models/gpt2-Q4_0.gguf", &model, &e), "%s", e.text);
    c.n_ctx = 257;
    c.n_seq = 1;
    CHECK(!engine_open(&model, &c, &engine, &e) && e.code == ERR_USAGE && strstr(e.text, "-c 256"), "%s",
          e.text);
    c.n_ctx = 256;
    CHECK(engine_open(&model, &c, &engine, &e), "%s", e.text);
    engine_close(engine);
    model_close(&model);
}
