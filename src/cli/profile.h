/* profile: the time of each op of a decode step, the bytes that it must move, and the read bandwidth.
 *
 * A profile is measured at the end of a run, on further decode steps after its tokens.  Timing each op costs
 * time itself: whole steps are measured too, and the difference to the sum of the ops is reported as
 * overhead.
 *
 * JSON: {"n_past" (tokens in the cache), "repeats", "seconds" (of measuring), "limit_gb_s" (read bandwidth),
 * "sum_us", "step_us", "step_gb_s", "overhead_us" (per op), "rows": [{"op", "calls", "us", "bytes", "gb_s",
 * "share"}]}; with --profile=ops the rows have "layer" and "name".  share is gb_s as a part of the limit, at
 * most about 1. */
#ifndef ZGEN_CLI_PROFILE_H
#define ZGEN_CLI_PROFILE_H

#include "runner.h"

/* With --profile: measures steps after n_past tokens, prints the table to stderr, and makes *json if json is
 * not NULL.  The engine's caches are overwritten.  Without --profile does nothing.  false: see
 * engine_profile; ERR_OUTPUT. */
bool profile_print(const Runner *r, int n_past, json_t **json, Err *e);

#endif
