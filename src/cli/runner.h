/* runner: what a command holds open while it computes: a model, an engine, and with --verify the engine that
 * checks the first one.
 *
 * A Runner is opened in steps, because the context depends on the prompt and the tokens of the prompt on the
 * model:
 *
 *     runner_choose   options -> config, except n_ctx, n_seq, R_max and chunk
 *     runner_open     a path  -> model
 *     (the command)   prompt and model -> the rest of config
 *     runner_start    config  -> engine
 *
 * runner_close releases what is open after any of them. */
#ifndef ZGEN_CLI_RUNNER_H
#define ZGEN_CLI_RUNNER_H

#include "options.h"
#include "sampling.h"
#include "../run/engine.h"
#include "../run/verify.h"

#include <jansson.h>

typedef struct Runner {     // all zero: nothing is open
    const Options *options; // the caller's
    EngineConfig config;
    Model model;
    Engine *engine;        // NULL until runner_prepare
    Sampling sampling;     // of commands that generate
    Verify *verify;        // see verdict.h; NULL without --verify
    double opened;         // when runner_open began; seconds of clock_now
    double device_seconds; // of runner_choose: initialising a GPU
    double load_seconds;   // from the beginning of runner_open to the end of runner_start
} Runner;

/* r->options is set by the caller.  false: see setup_config. */
bool runner_choose(Runner *r, Err *e);

/* Opens the model at path, NULL for the demo model, with the pre-tokenizer of --pre.  false: ERR_MODEL. */
bool runner_open(Runner *r, const char *path, Err *e);

/* Builds the engine's plan, which allocates nothing large.  false: ERR_USAGE for -ngl, and see
 * engine_prepare. */
bool runner_prepare(Runner *r, Err *e);

/* runner_prepare, a notice of the memory that is needed, engine_load.  Warns when the weights do not fit into
 * memory with the rest.  false: see both. */
bool runner_start(Runner *r, Err *e);

/* Warns where n tokens are more than the model was trained with.  what: "a context", "a window"; advice: what to do
 * with the -c that follows, "use ". */
void runner_warn_untrained(const Runner *r, const char *what, int n, const char *advice);

/* A notice if the model is the demo model. */
void runner_report_model(const Runner *r);

void runner_close(Runner *r);

/* The engine's memory as JSON: {"executor", "weights", "kv", "registers", "scratch", "free"}, in bytes. */
json_t *runner_memory(const Runner *r);

#endif
