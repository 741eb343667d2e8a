/* stat: see stat.h. */
#include "stat.h"
#include "mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double stat_mean(const double *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    return n ? sum / n : 0;
}

double stat_deviation(const double *x, int n) {
    double mean = stat_mean(x, n), sum = 0;
    for (int i = 0; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
    return n > 1 ? sqrt(sum / (n - 1)) : 0;
}

double stat_error(const double *x, int n) {
    return n ? stat_deviation(x, n) / sqrt(n) : 0;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double stat_quantile(const double *x, int n, double q) {
    if (n == 0) return 0;
    double *sorted = mem_new((size_t)n, sizeof *sorted), rank = q * (n - 1);
    memcpy(sorted, x, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, compare);
    int below = (int)rank, above = below + 1 < n ? below + 1 : below;
    double value = sorted[below] + (rank - below) * (sorted[above] - sorted[below]);
    free(sorted);
    return value;
}

double stat_quantile_error(const double *x, int n, double q) {
    double rank = n ? sqrt(q * (1 - q) / n) : 0;
    return (stat_quantile(x, n, fmin(q + rank, 1)) - stat_quantile(x, n, fmax(q - rank, 0))) / 2;
}
