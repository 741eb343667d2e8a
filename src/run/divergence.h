/* divergence: how far one row of logits is from another, as distributions.
 *
 * A row is what the model says of the next token: [n] logits, p = softmax of them.  All sums are in double,
 * in order, so that equal rows are at no distance at all.  The logits must be finite or -Inf, one at least
 * finite. */
#ifndef ZGEN_RUN_DIVERGENCE_H
#define ZGEN_RUN_DIVERGENCE_H

/* ln of the sum of exp(logits): logits[i] less that is the natural logarithm of the probability of i. */
double log_sum_exp(const float *logits, int n);

/* The Kullback-Leibler divergence of q from p in nats, sum p ln(p / q), each given by its logits; infinite
 * where q rules out what p does not. */
double kl_divergence(const float *p, const float *q, int n);

/* The best token, as the sampler has it: the lowest id among equals. */
int top_token(const float *logits, int n);

#endif
