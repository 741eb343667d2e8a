/* verdict: what --verify reports: a line on stderr, an object in JSON, the exit code.
 *
 * JSON: {"asked" (steps), "steps" (compared), "medians" (else means), "kl", "kl_max", "kl_max_step", "nmse",
 * "agree" (steps), "rounding": {"kl", "nmse"}, "margin", "margin_step", "limits": {"kl", "nmse", "margin"},
 * "passes"}; see Verdict in run/verify.h.  margin is null if every step ranks the same token first; a limit
 * that does not apply is null.
 *
 * Without --verify every function here does nothing and returns true. */
#ifndef ZGEN_CLI_VERDICT_H
#define ZGEN_CLI_VERDICT_H

#include "runner.h"

/* Opens the scalar engine into r->verify.  false: see verify_open. */
bool verdict_open(Runner *r, Err *e);

/* Compares the first steps of what sequence 0 generated last, unless a signal came, and prints the verdict.
 * false: *e of an engine, ERR_OUTPUT; and so below. */
bool verdict_of_sequence(const Runner *r, json_t **json, Err *e);

/* The same for a run over ids[n]: r->engine computes the first of them again. */
bool verdict_of_ids(const Runner *r, const int32_t *ids, int n, json_t **json, Err *e);

/* Prints the line, unless --quiet is given; makes *json if json is not NULL. */
bool verdict_print(const Runner *r, json_t **json, Err *e);

/* To be called after all other output.  false: see verify_passes. */
bool verdict_passes(const Runner *r, Err *e);

#endif
