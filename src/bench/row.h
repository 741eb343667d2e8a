/* bench_row: one result of zgen bench as cells for people and as an object for programs.
 *
 * Columns and keys are llama-bench's, in its order and with its formulas: tokens per second of each
 * repetition, their mean and sample standard deviation.  For what zgen has no setting for the value is
 * llama-bench's default, so that rows of the same thing have the same keys.  What zgen says besides stands
 * behind:
 *
 *     GB/s         bytes that a decoded token needs at least (weights once, keys and values of its past) per
 * second % read       the same of the rate at which the machine reads memory, measured in the same run
 *     TFLOP/s      operations that the prompt needs at least, per second
 *     ttft         time to first token: the prompt, with the choice of the token behind it
 *     itl          inter-token latency: from token to token as the caller gets them; median, 90 %, 99 % */
#ifndef ZGEN_BENCH_ROW_H
#define ZGEN_BENCH_ROW_H

#include "table.h"
#include "../cli/options.h"
#include "../run/bench.h"

typedef struct BenchRow {
    const Options *options; // with one value of each list
    const EngineConfig *config;
    int n_batch; // as asked for; 0: not
    const Model *model;
    const char *filename, *gpu; // the GPU's name, or ""
    bool beside_gpu;            // the table has rows of a GPU
    Engine *engine;
    const BenchTest *test;
    int n_seq; // 0: llama-bench's kind of test, else a batch
    const BenchSettings *settings;
    const BenchResult *result;
    double load_seconds, read_bandwidth, host_bytes, gpu_bytes; // 0: not known
    json_t *verdict;                                            // see verdict.h; NULL: --verify is not given
} BenchRow;

/* The columns for these options, into out[BENCH_COLUMNS]; how many. */
int bench_row_columns(const Options *o, bool beside_gpu, BenchColumn *out);
int bench_batch_columns(BenchColumn *out);

/* As many cells as there are columns, appended to empty buffers.  */
void bench_row_cells(const BenchRow *r, Buf *cells);
void bench_batch_cells(const BenchRow *r, Buf *cells);

json_t *bench_row_object(const BenchRow *r);
json_t *bench_batch_object(const BenchRow *r);

#endif
