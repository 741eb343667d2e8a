/* bench: zgen bench, in three forms: it measures a model, measures the machine, or compares two results. */
#ifndef ZGEN_BENCH_BENCH_H
#define ZGEN_BENCH_BENCH_H

#include "../cli/options.h"

/* The command; chooses the form.  false: an Err of the form, or a signal's code. */
bool cmd_bench(const Options *o, Err *e);

/* --ceilings: the limits of the machine, without a model.  false: ERR_MEMORY, ERR_RUN. */
bool bench_ceilings(const Options *o, Err *e);

/* --compare A B: the speeds in two files of results, row by row.  false: ERR_USAGE; ERR_RUN for a file that
 * cannot be read or holds no results, or when no row of A has a partner in B. */
bool bench_compare(const Options *o, Err *e);

#endif
