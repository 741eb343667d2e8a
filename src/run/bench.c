/* bench: see bench.h.
 *
 * The one trick: a depth is reached by requesting its tokens again.  The engine has all but the last in its
 * cache, so that a repetition behind 32768 tokens costs one of them, and every repetition computes the same
 * numbers. */
#include "bench.h"
#include "../base/clock.h"
#include "../base/mem.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef struct Test {
    Engine *engine;
    const BenchSettings *settings;
    const BenchTest *test;
    int n_seq;
    int length;          // tokens before the first generated one
    SampleParams params; // the settings'
    int32_t *ids;        // [n_seq][length + 1]: the prompts, and room for that token
    double *arrived;     // [n_gen + 1] times of the running repetition's tokens
} Test;

static int prompt_length(const BenchTest *t) {
    return t->n_depth + (t->n_prompt ? t->n_prompt : 1);
}

int bench_context(const BenchTest *t) {
    return prompt_length(t) + t->n_gen + 1;
}

static int32_t *ids_of(const Test *r, int seq) {
    return r->ids + (size_t)seq * ((size_t)r->length + 1);
}

/* Each sequence draws other random numbers. */
static uint64_t seed_of(const Test *r, int seq) {
    return r->settings->params.seed + (uint64_t)seq;
}

/* The tokens of a sequence: random ones behind the BOS of a model that has one, or the text. */
static void fill_ids(const Test *r, int seq) {
    const BenchSettings *s = r->settings;
    int n_vocab = engine_plan(r->engine)->hparams.n_vocab;
    SampleParams random = {.random_tokens = true, .seed = seed_of(r, seq)};
    int32_t *ids = ids_of(r, seq);
    for (int i = 0; i < r->length; i++)
        ids[i] = s->text ? s->text[i % s->n_text]
                         : sample_token(NULL, n_vocab, &random, NULL, 0, (uint64_t)i, NULL, NULL);
    if (!s->text && s->bos >= 0) ids[0] = s->bos;
}

/* Requests n_predict tokens behind the first n_ids of sequence seq; the engine takes free slots in order. */
static int add(const Test *r, int seq, int n_ids, int n_predict, bool reuse, Err *e) {
    Request request = {.ids = ids_of(r, seq),
                       .n_ids = n_ids,
                       .n_predict = n_predict,
                       .params = r->params,
                       .ignore_eos = true,
                       .reuse = reuse ? REUSE_ANY : REUSE_NONE};
    request.params.seed = seed_of(r, seq);
    return engine_add(r->engine, &request, e);
}

/* The same run with tokens chosen by their logits, so that logits which are not finite are found. */
static Test sampled(const Test *r) {
    Test sampled = *r;
    sampled.params.random_tokens = false;
    return sampled;
}

static bool needs_sampled_check(const Test *r) {
    return r->settings->sampled_check && r->params.random_tokens;
}

/* Tokens that every sequence has generated at least. */
static int n_generated(const Test *r) {
    int least = INT_MAX;
    for (int i = 0; i < r->n_seq; i++) {
        int n = engine_sequence(r->engine, i)->n_generated;
        if (n < least) least = n;
    }
    return least;
}

/* Runs steps until all sequences have n tokens.  false: *e, or code 0 when stopped. */
static bool advance(const Test *r, int n, Err *e) {
    for (int has = n_generated(r); has < n; has = n_generated(r)) {
        bool more = engine_step(r->engine, e);
        if (e->code) return false;
        if (r->settings->stopped()) {
            engine_interrupt(r->engine);
            return false;
        }
        int now = n_generated(r);
        assert(more || now >= n);
        (void)more;
        if (now > has) r->arrived[now - 1] = clock_now();
    }
    return true;
}

/* Keeps the tokens that the first repetition generated, and compares those of the others with them. */
static void take_ids(const Test *r, BenchResult *out) {
    int n = r->test->n_gen + 1;
    bool is_first = !out->ids;
    if (is_first) {
        out->n_ids = n * r->n_seq;
        out->ids = mem_new((size_t)out->n_ids, sizeof *out->ids);
    }
    for (int i = 0; i < r->n_seq; i++) {
        const Sequence *s = engine_sequence(r->engine, i);
        int32_t *kept = out->ids + (size_t)i * (size_t)n;
        if (is_first) memcpy(kept, s->ids + s->n_prompt, (size_t)n * sizeof *kept);
        out->differs |= memcmp(kept, s->ids + s->n_prompt, (size_t)n * sizeof *kept) != 0;
    }
}

/* `start` is when the decoding began. */
static void take_gaps(const Test *r, double start, BenchResult *out) {
    for (int i = 1; i <= r->test->n_gen; i++) {
        out->gaps[out->n_gaps++] = r->arrived[i] - start;
        start = r->arrived[i];
    }
}

/* ---- one sequence -------------------------------------------------------------------------------------- */

/* Leaves the cache with the first n tokens and no others. */
static bool reach(const Test *r, int n, bool reuse, Err *e) {
    return add(r, 0, n, 1, reuse, e) >= 0 && advance(r, 1, e);
}

/* One repetition with n_gen tokens; *start is when its clock began. */
static bool repeat(const Test *r, int n_gen, double *start, Err *e) {
    const BenchTest *t = r->test;
    if (t->n_prompt && t->n_depth && !reach(r, t->n_depth, true, e)) return false;
    *start = clock_now();
    if (add(r, 0, r->length, 1 + n_gen, t->n_depth > 0, e) < 0 || !advance(r, 1, e)) return false;
    if (!t->n_prompt) *start = clock_now();
    return advance(r, 1 + n_gen, e);
}

static bool run(const Test *r, BenchResult *out, Err *e) {
    const BenchTest *t = r->test;
    Test untimed = sampled(r);
    double start;
    if (t->n_depth && !reach(&untimed, t->n_prompt ? t->n_depth : r->length, false, e)) return false;
    if (r->settings->warm_up && !repeat(&untimed, t->n_gen > 0, &start, e)) return false;
    for (; out->n < r->settings->n_repetitions; out->n++) {
        if (!repeat(r, t->n_gen, &start, e)) return false;
        out->prompt_seconds[out->n] = t->n_prompt ? r->arrived[0] - start : 0;
        out->seconds[out->n] = r->arrived[t->n_gen] - start;
        take_gaps(r, t->n_prompt ? r->arrived[0] : start, out);
        take_ids(r, out);
    }
    return !needs_sampled_check(r) || repeat(&untimed, t->n_gen, &start, e);
}

/* ---- many sequences ------------------------------------------------------------------------------------ */

static bool add_all(const Test *r, int n_ids, int n_predict, bool reuse, Err *e) {
    for (int i = 0; i < r->n_seq; i++)
        if (add(r, i, n_ids, n_predict, reuse, e) < 0) return false;
    return true;
}

/* All prompts, then all answers: a sequence with its first token waits until all have theirs. */
static bool repeat_batch(const Test *r, int n_gen, double *prompt_seconds, double *start, Err *e) {
    *start = clock_now();
    if (!add_all(r, r->length, 1, false, e) || !advance(r, 1, e)) return false;
    *prompt_seconds = clock_now() - *start;
    for (int i = 0; i < r->n_seq; i++)
        ids_of(r, i)[r->length] = engine_sequence(r->engine, i)->ids[r->length];
    if (!add_all(r, r->length + 1, 1 + n_gen, true, e) || !advance(r, 1, e)) return false;
    *start = clock_now();
    return advance(r, 1 + n_gen, e);
}

static bool run_batch(const Test *r, BenchResult *out, Err *e) {
    int n_gen = r->test->n_gen;
    Test untimed = sampled(r);
    double start, seconds;
    if (r->settings->warm_up && !repeat_batch(&untimed, n_gen > 0, &seconds, &start, e)) return false;
    for (; out->n < r->settings->n_repetitions; out->n++) {
        if (!repeat_batch(r, n_gen, &seconds, &start, e)) return false;
        out->prompt_seconds[out->n] = seconds;
        out->seconds[out->n] = seconds + (n_gen ? r->arrived[n_gen] - start : 0);
        take_gaps(r, start, out);
        take_ids(r, out);
    }
    return !needs_sampled_check(r) || repeat_batch(&untimed, n_gen, &seconds, &start, e);
}

/* ---- both ---------------------------------------------------------------------------------------------- */

static void open_run(Test *r, BenchResult *out) {
    size_t n = (size_t)r->settings->n_repetitions, n_gen = (size_t)r->test->n_gen;
    r->length = prompt_length(r->test);
    r->params = r->settings->params;
    r->arrived = mem_new(n_gen + 1, sizeof *r->arrived);
    r->ids = mem_new((size_t)r->n_seq * ((size_t)r->length + 1), sizeof *r->ids);
    for (int i = 0; i < r->n_seq; i++) fill_ids(r, i);
    *out = (BenchResult){.seconds = mem_new(n, sizeof *out->seconds),
                         .prompt_seconds = mem_new(n, sizeof *out->prompt_seconds),
                         .gaps = mem_new(n * n_gen, sizeof *out->gaps)};
}

static void close_run(Test *r) {
    free(r->ids);
    free(r->arrived);
}

bool bench_run(Engine *g, const BenchSettings *s, const BenchTest *t, BenchResult *out, Err *e) {
    Test r = {.engine = g, .settings = s, .test = t, .n_seq = 1};
    e->code = 0;
    open_run(&r, out);
    bool ok = run(&r, out, e);
    close_run(&r);
    return ok;
}

bool bench_run_batch(Engine *g, const BenchSettings *s, const BenchTest *t, int n_seq, BenchResult *out,
                     Err *e) {
    assert(t->n_prompt > 0 && t->n_depth == 0);
    Test r = {.engine = g, .settings = s, .test = t, .n_seq = n_seq};
    e->code = 0;
    open_run(&r, out);
    bool ok = run_batch(&r, out, e);
    close_run(&r);
    return ok;
}

void bench_free(BenchResult *r) {
    free(r->seconds);
    free(r->prompt_seconds);
    free(r->gaps);
    free(r->ids);
    *r = (BenchResult){0};
}

/* ---- least cost ---------------------------------------------------------------------------------------- */

double bench_decode_bytes(const Plan *p, KvType kv, int n_seq, int position, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        Cost c = plan_cost_total(p, kv_element_bytes(kv), position + i, 1);
        sum += c.bytes_fixed + n_seq * c.bytes_rows;
    }
    return sum;
}

double bench_prompt_operations(const Plan *p, int position, int n) {
    double macs = 0;
    for (int i = 0; i < p->n_ops; i++)
        macs += plan_cost(p, &p->ops[i], 1, position, p->ops[i].on_R ? 1 : n).macs;
    return 2 * macs;
}
