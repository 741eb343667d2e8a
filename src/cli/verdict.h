/* verdict: what --verify has to tell: a line on stderr, an object in JSON, the exit code.
 *
 * JSON: {"asked", "steps", "medians" (else means), "kl", "kl_max", "kl_max_step", "nmse", "agree",
 * "rounding":
 * {"kl", "nmse"}, "margin", "margin_step", "limits": {"kl", "nmse", "margin"}, "passes"}, see Verdict in
 * run/verify.h.  margin is null where every step ranks the same token first, as is a limit that is not. */
#ifndef ZGEN_CLI_VERDICT_H
#define ZGEN_CLI_VERDICT_H

#include "options.h"
#include "../run/verify.h"

#include <jansson.h>

/* Without --verify *out is NULL, and nothing happens here or below. */
bool verdict_open(const Options *o, const Model *m, const EngineConfig *run, Verify **out, Err *e);

/* Verifies what sequence 0 said last, unless the user stopped it, and tells. */
bool verdict_take(const Options *o, Verify *v, Engine *g, json_t **json, Err *e);

/* The same for what a run made of ids[n]: its own engine computes the first of them again. */
bool verdict_take_ids(const Options *o, Verify *v, Engine *g, const int32_t *ids, int n, json_t **json,
                      Err *e);

/* Writes the line, but for --quiet, and where json is not NULL makes *json. */
bool verdict_tell(const Options *o, const Verify *v, json_t **json, Err *e);

/* To be asked when all else is printed, but for the speed of a test.  false: see verify_passes. */
bool verdict_passes(const Verify *v, Err *e);

#endif
