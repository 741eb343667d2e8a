/* stat: what is told of many measurements, so that every command means the same by it.
 *
 * Of n values, which stay as they are; nothing here asks whether they are independent. */
#ifndef ZGEN_BASE_STAT_H
#define ZGEN_BASE_STAT_H

/* The mean; the sample standard deviation (over n - 1; 0 for one value); the standard error of the mean, the
 * deviation over the root of n; all 0 for no values. */
double stat_mean(const double *x, int n);
double stat_deviation(const double *x, int n);
double stat_error(const double *x, int n);

/* The q-th quantile, q in 0..1, between the two nearest values in proportion (0 for none). */
double stat_quantile(const double *x, int n, double q);

/* Its standard error: half the distance between the quantiles that lie one standard error of a rank,
 * sqrt(q (1 - q) / n), below and above; whatever the values' distribution. */
double stat_quantile_error(const double *x, int n, double q);

#endif
