/* divergence: see divergence.h. */
#include "divergence.h"

#include <math.h>

int top_token(const float *logits, int n) {
    int top = 0;
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[top]) top = i;
    return top;
}

double log_sum_exp(const float *logits, int n) {
    double max = logits[top_token(logits, n)], sum = 0;
    for (int i = 0; i < n; i++) sum += exp(logits[i] - max);
    return max + log(sum);
}

double kl_divergence(const float *p, const float *q, int n) {
    double p_sum = log_sum_exp(p, n), q_sum = log_sum_exp(q, n), kl = 0;
    for (int i = 0; i < n; i++) {
        double log_p = p[i] - p_sum, weight = exp(log_p);
        if (weight > 0) kl += weight * (log_p - (q[i] - q_sum));
    }
    return kl < 0 ? 0 : kl; // below 0 by rounding; NaN is passed on
}
