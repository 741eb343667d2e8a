/* sample: from a row of logits to one token, the same token on every machine.
 *
 * This is the contract of the last op of the tape and, in sample.c, its reference.  An executor with a
 * sampler of its own (a GPU kernel) must return the same token for the same arguments, to the bit.  Three
 * rules allow it:
 *
 *   - floats are only added, multiplied, divided, compared and converted, each operation rounded once to
 *     nearest-even IEEE binary32 (binary64 for the few numbers of a whole row), never contracted into a fused
 *     multiply-add, subnormals kept; no choice depends on libm;
 *   - probabilities are 64-bit integers (sample_weight), so that sums are exact and their order is free;
 *   - random numbers are Philox4x32-10 of (seed, position), never of a step, a slot or a thread.
 *
 * A chain of FILTERS makes one token of a row of logits.  A filter changes logits, drops tokens, or sets the
 * temperature, and sees what the filters before it have left.  Their order is a parameter; the usual one is
 * that of SampleFilter.  Before them biases are added and banned tokens get -Inf; behind them a token is
 * drawn.  BETTER means higher logit, then lower id: a total order.  x of a token is (max - logit) /
 * temperature, where max is the best logit that is left and the temperature is 1 up to the filter of that
 * name; its weight is sample_weight(-x); total is the sum of the weights.  Each filter is defined so that no
 * sort is needed:
 *
 *   penalties    each distinct token of the window changes its own logit: an element, no order.
 *   dry          a token that would make a repetition longer, of L tokens up to the end of the text, loses
 *                multiplier * base^(L - allowed length): a maximum per token over the places where it stands.
 *                A repetition begins behind the last sequence breaker.
 *   top-n-sigma  a token stays if its logit is at least max - n * standard deviation of the logits: sums of
 *                differences from max, in 2^-12, up to 1024, and of their squares.
 *   top-k        a token stays if fewer than k tokens are better: descend by digits of the rank, a histogram
 *                of counts per digit, then ids among equal logits.
 *   typical      surprise less entropy is x less its mean.  Sorted by |x - mean|, then id, a token stays if
 *                the weights before it sum to at most floor(p * total): the same descent by that difference.
 *   top-p        a token stays if the weights of its betters sum to less than ceil(top_p * total), and the
 *                best stays always: the same descent, a histogram of weights.
 *   min-p        a token stays if its weight is at least ceil(min_p * 2^42): an element.
 *   xtc          by chance, a second random number of the position: of the tokens whose weight is at least
 *                ceil(threshold * total) only the worst stays.
 *   temperature  is set, 0 leaves the best token only; with a range it lies between temp - range, at least 0,
 *                and temp + range, by the entropy, as a share of that of equal probabilities, to a power.
 *   mirostat     in the end of a chain: a token stays if its surprise is at most mu bits, and the best does;
 *                behind the draw mu falls by eta times how much more surprise the token had than tau.
 *   draw         target = floor(r * total / 2^64) with r the 64 random bits; the first token in ascending id
 *                whose running sum exceeds target: a prefix sum of integers.
 *
 * mu is the only state.  It is kept by position beside the tokens of the sequence, so that going back to a
 * position goes back to its mu; all else is a function of the parameters, the history and the position.
 *
 * No token is chosen from a row that holds NaN or +Inf, or nothing but -Inf. */
#ifndef ZGEN_EXEC_SAMPLE_H
#define ZGEN_EXEC_SAMPLE_H

#include <stddef.h>
#include <stdint.h>
#include "sample_params.h"

/* Chooses the next token of one sequence.  logits: [n_vocab], untouched, n_vocab in 1..2^20.  history:
 * [n_history] all tokens so far, prompt included, each below n_vocab.  position: the chosen token's
 * in the sequence.  mu: NULL without mirostat, else what this choice leaves is written to mu[0], and mu[-1],
 * what the choice before has left, is read where position is not p->first.  scratch:
 * sample_scratch_bytes(n_vocab) bytes aligned to 8, contents irrelevant before and after.  With random_tokens
 * logits, history and scratch are not read and may be NULL.  Returns -1 if a logit is NaN or +Inf, or if no
 * token is left with a logit above -Inf; with random_tokens only if all tokens are banned. */
int sample_token(const float *logits, int n_vocab, const SampleParams *p, const int32_t *history,
                 int n_history, uint64_t position, float *mu, void *scratch);
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
 * are out[1]:out[0] for key = seed and counter = (position, 0), low words first; xtc's have 1 behind it. */
void sample_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
