/* bench: how long an engine takes, measured as llama-bench measures llama.cpp.
 *
 * A test is a prompt, a number of tokens to generate, or both in a row, at a depth: that many tokens are in
 * the context before, and their time does not count.  A repetition begins with nothing else in the cache.
 * One run that is not timed comes first, the warm-up: the whole prompt, and one token.
 *
 * The loop itself is timed, with all that a user of it waits for.  With random tokens
 * (SampleParams.random_tokens) it does what llama-bench does: logits are computed and not read.  Runs that
 * are not timed sample by the logits in any case, so that logits which are not finite are found and --verify
 * has tokens to check.  With a real text and sampling parameters a test takes what a user's own prompt would.
 *
 * A test without a prompt has one token in the context before the clock starts, and n_gen more are timed.
 * In a test with a prompt the clock starts before it, and the first token belongs to the prompt.  The ids
 * of every repetition are the same, and so must be the tokens generated; BenchResult.differs is set if
 * they are not. */
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
    bool
        sampled_check; // after random tokens a last run, not timed, that samples; sequence 0 keeps its tokens
    int bos;           // the token before random ones, or -1
    const int32_t *text; // real tokens instead [n_text], repeated as needed, or NULL
    int n_text;
    SampleParams params;   // the seed is that of random tokens, too; sequence i has seed + i
    bool (*stopped)(void); // called between steps: true ends the test
} BenchSettings;

typedef struct BenchResult {
    int n;                  // repetitions
    double *seconds;        // [n] of the whole test
    double *prompt_seconds; // [n] until the first token; 0 in tests without a prompt
    double *gaps;           // [n_gaps] seconds from token to token, of all repetitions
    int n_gaps;             // n * n_gen
    int32_t *ids;           // [n_ids] that one repetition generated
    int n_ids;
    bool differs; // another repetition generated other tokens; random ones cannot differ
} BenchResult;

/* Positions per sequence that a test needs. */
int bench_context(const BenchTest *t);

/* The engine has at least one sequence of bench_context positions, whose cache is overwritten.  false: *e, or
 * code 0 when stopped.  bench_free releases *out in both cases. */
bool bench_run(Engine *g, const BenchSettings *s, const BenchTest *t, BenchResult *out, Err *e);

/* The same for n_seq sequences at once, each with a random prompt of its own, which must not be empty, and
 * no depth.  prompt_seconds: until all sequences have their first token; seconds: that, and the time for
 * n_gen more of each.  Gaps are of steps; ids those of all sequences in turn.  The engine has n_seq
 * sequences of one position more than bench_context. */
bool bench_run_batch(Engine *g, const BenchSettings *s, const BenchTest *t, int n_seq, BenchResult *out,
                     Err *e);
void bench_free(BenchResult *r);

/* Least bytes that a test reads and writes for n tokens of each of n_seq sequences behind `position`
 * others, and least operations (two per multiply-add) of a prompt of n tokens behind `position` others,
 * with the logits of the last. */
double bench_decode_bytes(const Plan *p, KvType kv, int n_seq, int position, int n);
double bench_prompt_operations(const Plan *p, int position, int n);

#endif
