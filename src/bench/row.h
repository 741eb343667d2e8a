/* row: one result of zgen bench, and the two tables that can show it.
 *
 * Columns and keys are those of llama-bench, or with -npl of llama-batched-bench, in their order and with
 * their formulas.  A setting that zgen does not have has llama-bench's default, so that rows of the same
 * test have the same keys.  The columns that zgen adds follow them:
 *
 *     GB/s      bytes that decoding must read at least, per second
 *     % read    the same as a share of the read bandwidth, measured in the same run; none where the model fits
 *               into the last cache
 *     TFLOP/s   operations that a prompt needs at least, per second
 *     ttft      time to first token: of the prompt, with the sampling of the token after it
 *     itl       inter-token latency: from token to token as the caller receives them; median, 90 %, 99 % */
#ifndef ZGEN_BENCH_ROW_H
#define ZGEN_BENCH_ROW_H

#include "metrics.h"
#include "table.h"
#include "../cli/runner.h"

typedef struct BenchRow {
    const Runner *run;          // its options have one value of each list
    int n_batch;                // -b, 0: not given
    const char *filename, *gpu; // gpu: its name, or ""
    const BenchTest *test;
    int n_seq; // at once, 1 or more
    const BenchSettings *settings;
    const BenchResult *result;
    BenchMetrics metrics;
    double load_seconds, read_bandwidth, host_bytes, gpu_bytes; // peaks of memory; 0: not known
    json_t *verdict;                                            // see verdict.h; NULL without --verify
} BenchRow;

typedef struct BenchLayout {
    bool is_batched; // see BenchTable

    /* The columns for these options, into out[BENCH_COLUMNS]; returns their number.  has_gpu: the table has
     * rows of a GPU. */
    int (*columns)(const BenchOptions *o, bool has_gpu, BenchColumn *out);

    /* Appends a cell for each column to empty buffers. */
    void (*cells)(const BenchRow *r, bool has_gpu, Buf *cells);

    json_t *(*object)(const BenchRow *r);
} BenchLayout;

extern const BenchLayout bench_single_layout;  // llama-bench
extern const BenchLayout bench_batched_layout; // llama-batched-bench

/* ---- for the two layouts ---- */

bool bench_on_gpu(const BenchRow *r);
int bench_n_gpu_layers(const BenchRow *r);

/* llama-bench's logical batch: -b, or its default; zgen only has the rows of a run. */
int bench_n_batch(const BenchRow *r);

/* A number for a cell, "-" for NAN. */
void bench_add_number(Buf *out, const char *format, double x);

/* Sets keys of a row's object: texts, whole numbers. */
void bench_set_text(json_t *object, const char *key, const char *text);
void bench_set_int(json_t *object, const char *key, double value);

/* The keys of the program, the machine and the model; those that llama-bench does not have. */
void bench_set_build(json_t *object);
void bench_set_machine(json_t *object, const BenchRow *r);
void bench_set_model(json_t *object, const BenchRow *r);
void bench_set_more(json_t *object, const BenchRow *r);

#endif
