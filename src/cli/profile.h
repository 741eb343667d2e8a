/* profile: what each op of a decode step takes, beside the bytes it must move and the limit of the memory.
 *
 * A profile is taken at the end of a run, of more steps behind the tokens that are there.  Whole steps that
 * nothing disturbs are measured too; what the sum of the ops is more than such a step is the profile's own
 * overhead, and is told.
 *
 * JSON: {"n_past", "repeats", "seconds" (that it took), "limit_gb_s", "sum_us", "step_us", "step_gb_s",
 * "overhead_us" (per op), "rows": [{"op", "calls", "us", "bytes", "gb_s", "share"}]}, with "layer" and "name"
 * in the rows of --profile=ops; share is of the limit, 1 for all of it. */
#ifndef ZGEN_CLI_PROFILE_H
#define ZGEN_CLI_PROFILE_H

#include "options.h"
#include "../run/engine.h"

#include <jansson.h>

/* With --profile: measures, writes the table to stderr and, where json is not NULL, makes *json.  The
 * engine's sequences are spoilt by it.  Without --profile nothing happens. */
bool profile_tell(const Options *o, Engine *g, int n_past, json_t **json, Err *e);

#endif
