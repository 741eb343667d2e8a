/* stat: summary statistics of n measurements, one definition for all commands.
 *
 * The values are not changed.  Standard errors assume independent values. */
#ifndef ZGEN_BASE_STAT_H
#define ZGEN_BASE_STAT_H

/* The mean; the sample standard deviation (over n - 1; 0 for one value); the standard error of the mean (the
 * deviation over the root of n).  All are 0 for n = 0. */
double stat_mean(const double *x, int n);
double stat_deviation(const double *x, int n);
double stat_error(const double *x, int n);

/* The quantile q, in 0..1, interpolated between the two nearest values; 0 for n = 0. */
double stat_quantile(const double *x, int n, double q);

/* The standard error of a quantile, without assumptions about the distribution: half the distance between the
 * quantiles one standard error of a rank, sqrt(q (1 - q) / n), below and above q. */
double stat_quantile_error(const double *x, int n, double q);

#endif
