/* batch: what one run of the tape works on.
 *
 * T rows, each one token of one sequence at one position; R of them are rows whose logits are wanted.  Rows
 * of one sequence stand in ascending positions, and each row sees the keys and values of its own sequence up
 * to and including its own.  A run appends those of all T rows to the cache: to truncate a sequence is to
 * send a smaller position next. */
#ifndef ZGEN_EXEC_BATCH_H
#define ZGEN_EXEC_BATCH_H

#include <stdint.h>
#include "sample.h"

typedef struct SampleRow {
    SampleParams params;
    const int32_t *history; // tokens of the sequence so far, for the penalties [n_history]
    int n_history;
    uint64_t position; // of the token to be chosen: what the random number depends on
} SampleRow;

typedef struct Batch {
    int T, R;
    const int32_t *token, *seq, *position; // [T]
    const int32_t *out_row;                // [R], ascending indices into the T rows
    const SampleRow *sampling;             // [R], or NULL: logits only
    int32_t *sampled;                      // [R] tokens chosen; -1 where the logits are not finite
} Batch;

#endif
