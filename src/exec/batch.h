/* batch: the rows of one run of the tape.
 *
 * T rows, each one token of one sequence at one position; R of them are rows whose logits are wanted.  Rows
 * of one sequence are in ascending positions, and each row sees the keys and values of its own sequence up to
 * and including its own.  A run appends those of all T rows to the cache.  Before a run at a smaller position
 * than the sequence's length, cache_truncate must have succeeded.
 *
 * Rows of prompts may be computed by other products than those of tokens that were generated, more of them at
 * once: so a row's results depend on which of the two it is, and on nothing beside it.
 *
 * The executor keeps the tokens of each sequence beside its keys and values.  These tokens are the history
 * that penalties look at, so that no history is sent with a batch: a wanted row at position p sees tokens
 * 0..p of its sequence, and its random number is that of position p + 1.  Any number of wanted rows may
 * belong to one sequence, but a single one with mirostat, whose mu is kept beside the tokens, too: a row at
 * position p leaves it for that at p + 1. */
#ifndef ZGEN_EXEC_BATCH_H
#define ZGEN_EXEC_BATCH_H

#include <stdbool.h>
#include <stdint.h>
#include "sample.h"

typedef struct Batch {
    int T, R;
    const int32_t *token, *seq, *position; // [T]
    const bool *prompt;                    // [T] whether it is of a prompt; NULL: all are
    const int32_t *out_row;                // [R], ascending indices into the T rows
    const SampleParams *sampling;          // [R], or NULL: each row takes its best token
    int32_t *sampled;                      // [R] tokens chosen; -1 where the logits are not finite
} Batch;

#endif
