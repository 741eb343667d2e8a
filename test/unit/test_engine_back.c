/* engine_back: going back in a sequence is exact, whatever the layers keep.
 *
 * A conversation goes on, is undone, is asked again and is cut at a stop string, over many more tokens than a
 * window sees and than an executor computes ahead.  Each answer must be, token for token and to the bit of its
 * log-probabilities, that of an engine that has never seen anything else.  Which beginnings are found in the
 * cache and which are computed again follows from what the layers keep, and is checked too. */
#include "check.h"
#include "../../src/base/mem.h"
#include "../../src/run/engine.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_CTX = 512, N_BEGIN = 300, N_ANSWER = 40 };

typedef enum Keeps { KEEPS_ALL, KEEPS_WINDOW, KEEPS_STATE } Keeps; // the most forgetful layer of a model

typedef struct Answer {
    int n, n_reused;
    int32_t ids[N_CTX];
    double logprob[N_CTX]; // where they were wanted
    char text[4096];
} Answer;

typedef struct Back {
    Model model;
    EngineConfig config;
    Engine *engine; // the one that goes back
    Keeps keeps;
    int n_vocab, n_logprobs;
    Request other; // answered beside each request, where n_ids > 0
} Back;

static Engine *open_engine(const Back *b) {
    Err e;
    Engine *g = NULL;
    if (!engine_open(&b->model, &b->config, &g, &e)) test_fail(__FILE__, __LINE__, "%s", e.text);
    return g;
}

/* The model that test/data has of the family, or its smallest golden one.  false: there is none. */
static bool find_model(const char *family, char path[256]) {
    static const char *const patterns[] = {"test/data/models/%s-*.gguf",
                                           "../shared/golden/models/%s-Q4_0.gguf"};
    for (int i = 0; i < 2; i++) {
        char pattern[128];
        glob_t files;
        snprintf(pattern, sizeof pattern, patterns[i], family);
        if (glob(pattern, 0, NULL, &files) != 0) continue;
        snprintf(path, 256, "%s", files.gl_pathv[0]);
        globfree(&files);
        return true;
    }
    return false;
}

static bool open_back(Back *b, const char *path) {
    Err e;
    b->config.device = DEVICE_CPU;
    b->config.isa = "auto";
    b->config.n_ctx = N_CTX;
    b->config.n_threads = 1;
    b->config.chunk = 48; // prompts are several runs, whose ends are no ends of pages
    if (!model_open(path, &b->model, &e) || !model_need_tok(&b->model, &e)) {
        test_fail(__FILE__, __LINE__, "%s", e.text);
        return false;
    }
    if (!(b->engine = open_engine(b))) return false;
    const Plan *p = engine_plan(b->engine);
    b->n_vocab = p->hparams.n_vocab;
    for (int i = 0; i < p->n_kv; i++) {
        Keeps keeps = p->kv[i].kind == KV_STATE ? KEEPS_STATE : p->kv[i].window ? KEEPS_WINDOW : KEEPS_ALL;
        if (keeps > b->keeps) b->keeps = keeps;
    }
    return true;
}

static void close_back(Back *b) {
    engine_close(b->engine);
    model_close(&b->model);
}

/* Any tokens, the same for the same seed. */
static void make_ids(const Back *b, uint32_t seed, int32_t *ids, int n) {
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        ids[i] = (int32_t)((seed >> 8) % (uint32_t)b->n_vocab);
    }
}

static Request request_of(const Back *b, const int32_t *ids, int n) {
    return (Request){.ids = ids,
                     .n_ids = n,
                     .n_predict = N_ANSWER,
                     .params = {.top_p = 1, .repeat_penalty = 1},
                     .ignore_eos = true,
                     .n_logprobs = b->n_logprobs,
                     .reuse = true};
}

static void answer(const Back *b, Engine *g, const Request *r, Answer *out) {
    Err e = {0};
    if (b->other.n_ids) CHECK(engine_add(g, &b->other, &e) >= 0, "%s", e.text);
    int number = engine_add(g, r, &e);
    REQUIRE(number >= 0, "%s", e.text);
    while (engine_step(g, &e)) {
    }
    CHECK(e.code == 0, "%s", e.text);
    const Sequence *q = engine_sequence(g, number);
    out->n = q->n_generated;
    out->n_reused = q->n_reused;
    memcpy(out->ids, q->ids + q->n_prompt, (size_t)q->n_generated * sizeof *out->ids);
    for (int i = 0; q->logprobs && i < q->n_generated; i++) out->logprob[i] = q->logprobs[i].logprob;
    snprintf(out->text, sizeof out->text, "%.*s", (int)q->text.n, q->text.n ? q->text.data : "");
}

/* Asks the engine that goes back and a new one.  n_reused: what the former must find in its cache; -1: not
 * checked. */
static void check_answer(Back *b, const char *what, const Request *r, int n_reused, Answer *out) {
    Answer expected;
    Engine *fresh = open_engine(b);
    if (!fresh) return;
    answer(b, b->engine, r, out);
    answer(b, fresh, r, &expected);
    engine_close(fresh);
    const char *model = gguf_label(b->model.gguf);
    CHECK(n_reused < 0 || out->n_reused == n_reused, "%s, %s: %d tokens of %d", model, what, out->n_reused,
          n_reused);
    CHECK(out->n == expected.n && strcmp(out->text, expected.text) == 0, "%s, %s: '%s', not '%s'", model,
          what, out->text, expected.text);
    for (int i = 0; i < expected.n && i < out->n; i++)
        if (out->ids[i] != expected.ids[i] || (b->n_logprobs && out->logprob[i] != expected.logprob[i])) {
            test_fail(__FILE__, __LINE__, "%s, %s (%d tokens reused): token %d is %d (%.9g), not %d (%.9g)",
                      model, what, out->n_reused, i, out->ids[i], out->logprob[i], expected.ids[i],
                      expected.logprob[i]);
            return;
        }
}

/* A prompt that is `kept` tokens of ids and n others; returns its length. */
static int branch(const Back *b, const int32_t *ids, int kept, int n, int32_t *out) {
    memcpy(out, ids, (size_t)kept * sizeof *out);
    make_ids(b, 1000u + (unsigned)kept, out + kept, n);
    return kept + n;
}

/* What the cache gives back of `common` tokens behind a far longer sequence. */
static int far_back(const Back *b, int common) {
    return b->keeps == KEEPS_ALL ? common : 0;
}

static void check_going_back(Back *b) {
    static int32_t ids[N_CTX], other[N_CTX];
    static Answer first, a;
    bool alone = b->other.n_ids == 0; // otherwise a slot is chosen among several
    int n = N_BEGIN;
    make_ids(b, 1, ids, n);
    Request r = request_of(b, ids, n);
    check_answer(b, "a prompt", &r, 0, &first);
    memcpy(ids + n, first.ids, (size_t)first.n * sizeof *ids);
    int held = n + first.n - 1; // the latest token was not computed
    // the next turn, and the one after
    r = request_of(b, other, branch(b, ids, n + first.n, 20, other));
    check_answer(b, "the next turn", &r, alone ? held : -1, &a);
    r = request_of(b, ids, n);
    check_answer(b, "asked again", &r, alone && b->keeps != KEEPS_WINDOW ? far_back(b, n - 1) : -1, &a);
    CHECK(memcmp(a.ids, first.ids, (size_t)first.n * sizeof *ids) == 0, "%s", gguf_label(b->model.gguf));
    static const int kept[] = {N_BEGIN + 3, N_BEGIN - 1, N_BEGIN / 2, 10};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        Request again = request_of(b, ids, n + first.n);
        check_answer(b, "a turn to be undone", &again, -1, &a);
        r = request_of(b, other, branch(b, ids, kept[i], 5, other));
        bool is_far = kept[i] <= N_BEGIN / 2;
        check_answer(b, "another turn behind fewer tokens", &r, alone && is_far ? far_back(b, kept[i]) : -1,
                     &a);
    }
}

/* A text that ends early, and goes on behind what is left of it. */
static void check_stop_strings(Back *b) {
    static int32_t ids[N_CTX];
    static Answer whole, a;
    make_ids(b, 7, ids, N_BEGIN);
    Request r = request_of(b, ids, N_BEGIN);
    check_answer(b, "a text", &r, -1, &whole);
    size_t n = strlen(whole.text), at = n / 2;
    while (at < n && (whole.text[at] & 0xC0) == 0x80) at++; // at the beginning of a character
    if (n - at < 4) return;                                 // a vocabulary of bytes that are no text
    char stop[5] = {0};
    memcpy(stop, whole.text + at, 4);
    const char *const strings[] = {stop};
    r.stop = strings;
    r.n_stop = 1;
    check_answer(b, "cut at a string", &r, -1, &a);
    CHECK(strlen(a.text) <= at && a.n < whole.n, "%s: '%s'", gguf_label(b->model.gguf), a.text);
    memcpy(ids + N_BEGIN, a.ids, (size_t)a.n * sizeof *ids);
    make_ids(b, 8, ids + N_BEGIN + a.n, 9);
    r = request_of(b, ids, N_BEGIN + a.n + 9);
    check_answer(b, "behind the cut", &r, -1, &a);
    r = request_of(b, ids, N_BEGIN + 2);
    check_answer(b, "behind a part of it", &r, -1, &a);
}

/* Each model: in the loop and alone; with log-probabilities, so outside of the loop, and beside another sequence. */
static void on_models(const char *const *families, void (*check)(Back *b)) {
    int n_found = 0;
    for (; *families; families++) {
        char path[256];
        if (!find_model(*families, path)) continue;
        n_found++;
        for (int beside = 0; beside < 2; beside++) {
            static int32_t ids[9];
            Back b = {.n_logprobs = beside, .config.n_seq = 1 + beside};
            if (open_back(&b, path)) {
                make_ids(&b, 99, ids, 9);
                if (beside) b.other = request_of(&b, ids, 9);
                check(&b);
            }
            close_back(&b);
        }
    }
    if (n_found == 0) SKIP("no model of these families in test/data/models and ../shared/golden/models");
}

static const char *const all[] = {"llama-s", NULL}, *const windows[] = {"gemma3", "gpt-oss", NULL},
                         *const states[] = {"qwen35", "lfm2", "mamba2", NULL};

TEST(engine_goes_back_in_all_positions) {
    on_models(all, check_going_back);
    on_models(all, check_stop_strings);
}

TEST(engine_goes_back_in_windows) {
    on_models(windows, check_going_back);
    on_models(windows, check_stop_strings);
}

TEST(engine_goes_back_in_states) {
    on_models(states, check_going_back);
    on_models(states, check_stop_strings);
}
