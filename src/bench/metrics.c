/* metrics: see metrics.h. */
#include "metrics.h"
#include "../base/mem.h"
#include "../base/stat.h"

#include <math.h>
#include <stdlib.h>

static Spread spread(const double *x, int n) {
    return (Spread){stat_mean(x, n), stat_deviation(x, n)};
}

Spread bench_rate_spread(double n, const double *seconds, int n_seconds) {
    double *x = mem_new((size_t)n_seconds, sizeof *x);
    for (int i = 0; i < n_seconds; i++) x[i] = n / seconds[i];
    Spread s = spread(x, n_seconds);
    free(x);
    return s;
}

static void add_decoding(BenchMetrics *m, const Plan *p, KvType kv, const BenchTest *t, int n_seq,
                         const BenchResult *r, double read_bandwidth) {
    int n_past = t->n_depth + (t->n_prompt ? t->n_prompt : 1);
    double bytes = bench_decode_bytes(p, kv, n_seq, n_past, t->n_gen);
    double bandwidth = read_bandwidth > 0 ? read_bandwidth : NAN;
    m->bytes_per_second = bytes / (stat_mean(r->gaps, r->n_gaps) * t->n_gen);
    if (m->bytes_per_second > bandwidth) bandwidth = NAN; // another program slowed its measurement
    m->read_percent = 100 * m->bytes_per_second / bandwidth;
    m->limit = (double)t->n_gen * n_seq * bandwidth / bytes;
}

static void add_gaps(BenchMetrics *m, const BenchResult *r) {
    static const double quantiles[] = {0.5, 0.9, 0.99};
    for (int i = 0; i < 3; i++) m->gaps[i] = stat_quantile(r->gaps, r->n_gaps, quantiles[i]);
}

BenchMetrics bench_metrics(const Plan *p, KvType kv, const BenchTest *t, int n_seq, const BenchResult *r,
                           double read_bandwidth) {
    BenchMetrics m = {.seconds = spread(r->seconds, r->n),
                      .rate = bench_rate_spread(t->n_prompt + t->n_gen, r->seconds, r->n),
                      .bytes_per_second = NAN,
                      .read_percent = NAN,
                      .limit = NAN,
                      .flops = NAN,
                      .first_seconds = NAN,
                      .gaps = {NAN, NAN, NAN}};
    if (t->n_gen) add_decoding(&m, p, kv, t, n_seq, r, read_bandwidth);
    if (r->n_gaps) add_gaps(&m, r);
    if (t->n_prompt) {
        m.first_seconds = stat_mean(r->prompt_seconds, r->n);
        m.flops = bench_prompt_operations(p, t->n_depth, t->n_prompt) * n_seq / m.first_seconds;
    }
    return m;
}
