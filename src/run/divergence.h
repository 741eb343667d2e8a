/* divergence: how far one row of logits is from another, as distributions.
 *
 * A row of logits [n] is the prediction of the next token: p = softmax(logits).  All sums are in double and
 * in order, so that equal rows have the distance 0.  Logits must be finite or -Inf, and one at least
 * finite. */
#ifndef ZGEN_RUN_DIVERGENCE_H
#define ZGEN_RUN_DIVERGENCE_H

/* ln(sum exp(logits[i])).  logits[i] minus it is ln of the probability of i. */
double log_sum_exp(const float *logits, int n);

/* The Kullback-Leibler divergence of q from p in nats, sum p ln(p / q), each given by its logits; infinite if
 * a token has probability 0 in q alone. */
double kl_divergence(const float *p, const float *q, int n);

/* The token of the largest logit, the lowest id among equals, as the sampler chooses. */
int top_token(const float *logits, int n);

#endif
