/* sample: from a row of logits to one token, the same token on every machine.
 *
 * This is the contract of the last op of the tape and, in sample.c, its reference.  An executor with a
 * sampler of its own (a GPU kernel) must return the same token for the same arguments, to the bit.  Three
 * rules allow it:
 *
 *   - floats are only added, multiplied, divided, compared and converted, each operation rounded once to
 *     nearest-even IEEE binary32, never contracted into a fused multiply-add, subnormals kept; no choice
 *     depends on libm;
 *   - probabilities are 64-bit integers (sample_weight), so that sums are exact and their order is free;
 *   - random numbers are Philox4x32-10 of (seed, position), never of a step, a slot or a thread.
 *
 * The chain, in the order users know: penalties, bans, top-k, top-p, min-p, temperature, draw.  BETTER means
 * higher logit, then lower id: a total order.  Each filter is defined so that no sort is needed:
 *
 *   penalties  each distinct token of the window changes its own logit: an element, no order.
 *   top-k      a token stays if fewer than k tokens are better: descend by digits of the rank, a histogram of
 *              counts per digit, then ids among equal logits.
 *   top-p      weights at temperature 1 of the tokens that are left; a token stays if the weights of its
 *              betters sum to less than ceil(top_p * total), and the best stays always: the same descent, a
 *              histogram of weights.
 *   min-p      a token stays if its weight is at least ceil(min_p * 2^42): an element.
 *   draw       weights at the temperature; target = floor(r * total / 2^64) with r the 64 random bits; the
 *              first token in ascending id whose running sum exceeds target: a prefix sum of integers.
 *
 * No token is chosen from a row that holds NaN or +Inf, or nothing but -Inf. */
#ifndef ZGEN_EXEC_SAMPLE_H
#define ZGEN_EXEC_SAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct SampleParams {
    bool random_tokens;      // a random token, or the next one not banned, from seed and position only
    float temp;              // >= 0; 0 takes the best token
    float top_p;             // 0..1; 1 is off
    float min_p;             // 0..1; 0 is off
    float repeat_penalty;    // > 0; 1 is off
    float presence_penalty;  // 0 is off
    float frequency_penalty; // 0 is off
    int top_k;               // 0 is off
    int repeat_last_n;       // length of the penalties' window: 0 is off, -1 the whole history
    uint64_t seed;
    const int32_t *banned; // [n_banned] ids never chosen
    int n_banned;
} SampleParams;

static const SampleParams sample_defaults = {
    .temp = 0.8f, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1, .top_k = 40, .repeat_last_n = 64};

/* Chooses the next token of one sequence.  logits: [n_vocab], untouched, n_vocab in 1..2^20.  history:
 * [n_history] all tokens so far, prompt included, each below n_vocab.  position: the chosen token's
 * in the sequence.  scratch: sample_scratch_bytes(n_vocab) bytes aligned to 8, contents irrelevant
 * before and after.  With random_tokens logits, history and scratch are not read and may be NULL.  Returns -1
 * if a logit is NaN or +Inf, or if no token is left with a logit above -Inf; with random_tokens only if all
 * tokens are banned. */
int sample_token(const float *logits, int n_vocab, const SampleParams *p, const int32_t *history,
                 int n_history, uint64_t position, void *scratch);
size_t sample_scratch_bytes(int n_vocab);

/* The report beside a choice, of raw logits from which sample_token can choose: the n_best (<= n_vocab) best
 * tokens, best first, into ids and logprobs ([n_best] each), natural logarithms.  Returns the log-probability
 * of `id`; that of a token at -Inf is -Inf.  The sum under the logarithm is the integer total, so that a
 * single logarithm is libm's; error below 1e-6. */
double sample_logprobs(const float *logits, int n_vocab, int n_best, int32_t *ids, double *logprobs,
                       int32_t id);

/* floor(e(x) * 2^42) for x <= 0 (-Inf included), with e the exponential in binary32, relative error below
 * 2^-22; 0 below x = -29.12.  Weights of 2^20 tokens sum to less than 2^63. */
uint64_t sample_weight(float x);

/* Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).  The 64 bits of a draw
 * are out[1]:out[0] for key = seed and counter = (position, 0), low words first. */
void sample_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
