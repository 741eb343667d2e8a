/* metrics: the speeds that follow from the times of one test.
 *
 * Tokens per second are llama-bench's: n tokens divided by the time of each repetition; their mean and sample
 * standard deviation.  The others are zgen's own, from means over the repetitions.  NAN is a number
 * that does not exist: of decoding in a test without generated tokens, of a prompt in a test without one, a
 * share of a bandwidth that is not known, or that is exceeded and so was measured too low. */
#ifndef ZGEN_BENCH_METRICS_H
#define ZGEN_BENCH_METRICS_H

#include "../run/bench.h"

typedef struct Spread {
    double mean, deviation; // of a sample
} Spread;

typedef struct BenchMetrics {
    Spread seconds;          // of a repetition
    Spread rate;             // tokens per second
    double bytes_per_second; // that decoding must read at least: weights once a step, keys and values
    double read_percent;     // bytes_per_second as a percentage of the read bandwidth
    double limit;            // tokens per second of decoding at the read bandwidth
    double flops;            // operations per second that a prompt needs at least
    double first_seconds;    // time to first token
    double gaps[3];          // inter-token latency in seconds: median, 90 %, 99 %
} BenchMetrics;

/* Of n_seq sequences (1 or more) in a test; read_bandwidth in bytes per second, 0: not known or no limit. */
BenchMetrics bench_metrics(const Plan *p, KvType kv, const BenchTest *t, int n_seq, const BenchResult *r,
                           double read_bandwidth);

/* Of n tokens in each of the times. */
Spread bench_rate_spread(double n, const double *seconds, int n_seconds);

#endif
