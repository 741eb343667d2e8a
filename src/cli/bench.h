/* bench: the two kinds of zgen bench that run no model. */
#ifndef ZGEN_CLI_BENCH_H
#define ZGEN_CLI_BENCH_H

#include "options.h"

/* --ceilings: what the machine reaches.  false: ERR_MEMORY, ERR_RUN. */
bool bench_ceilings(const Options *o, Err *e);

/* --compare A B: rows of two jsonl files side by side.  false: ERR_USAGE; ERR_RUN for a file that cannot be
 * read or holds no results, or when no row of one has a partner in the other. */
bool bench_compare(const Options *o, Err *e);

#endif
