/* bench: how long an engine takes, measured as llama-bench measures llama.cpp.
 *
 * A test is a prompt, a number of tokens to generate, or the one behind the other, at a depth: so many tokens
 * are in the context before, and their time does not count.  A repetition begins with nothing else in the
 * cache.  One run that is not timed comes first: the whole prompt, and one token.
 *
 * What is timed is the loop itself, with all that a user of it waits for.  Blind sampling makes it do what
 * llama-bench does: random tokens, logits that nobody looks at; but for the runs that are not timed, which
 * find logits that are not finite, and say what can be verified.  With a real text and sampling parameters it
 * is what a user's own prompt costs.
 *
 * Where a test has no prompt, one token is there before the clock starts, and n_gen more are timed; where it
 * has one, the clock starts before it, and the first token belongs to it.  The ids of every repetition are
 * the same, and so must be what is generated: a result that differs says so. */
#ifndef ZGEN_RUN_BENCH_H
#define ZGEN_RUN_BENCH_H

#include "engine.h"

typedef struct BenchTest {
    int n_prompt, n_gen; // not both 0
    int n_depth;
} BenchTest;

typedef struct BenchSettings {
    int n_repetitions;
    bool warm_up;
    bool shows;          // of blind sampling: a last run, not timed, that samples; sequence 0 has it then
    int bos;             // the token before random ones, or -1
    const int32_t *text; // real tokens instead, taken round and round [n_text], or NULL
    int n_text;
    SampleParams params;   // the seed is that of random tokens, too; sequence i has seed + i
    bool (*stopped)(void); // asked between steps: the user has had enough
} BenchSettings;

typedef struct BenchResult {
    int n;                  // repetitions
    double *seconds;        // [n] of the whole test
    double *prompt_seconds; // [n] until the first token; 0 in tests without a prompt
    double *gaps;           // [n_gaps] seconds from token to token, of all repetitions
    int n_gaps;             // n * n_gen
    int32_t *ids;           // [n_ids] that one repetition generated
    int n_ids;
    bool differs; // another one generated others; blind, none can
} BenchResult;

/* Positions per sequence that a test needs. */
int bench_context(const BenchTest *t);

/* The engine has one sequence at least, of bench_context positions; what is in its cache is lost.  false: *e,
 * or code 0 when it was stopped.  bench_free releases *out in both cases. */
bool bench_run(Engine *g, const BenchSettings *s, const BenchTest *t, BenchResult *out, Err *e);

/* The same for n_seq sequences at once, each with a random prompt of its own, which must not be empty, and no
 * depth: prompt_seconds until all have said their first word; seconds that and the time for n_gen more of
 * each. Gaps are steps, ids those of all sequences, one behind the other.  The engine has n_seq sequences, of
 * one position more than bench_context. */
bool bench_run_batch(Engine *g, const BenchSettings *s, const BenchTest *t, int n_seq, BenchResult *out,
                     Err *e);
void bench_free(BenchResult *r);

/* What a test must move and compute at least: bytes for n tokens of each of n_seq sequences behind `position`
 * others; operations (two per multiply-add) for a prompt of n tokens behind `position` others, with the
 * logits of the last. */
double bench_decode_bytes(const Plan *p, KvType kv, int n_seq, int position, int n);
double bench_prompt_operations(const Plan *p, int position, int n);

#endif
