/* setup: from options to a running engine, for the commands that compute.
 *
 * It owns the choices that need both the command line and the model: device and kernels, the length of the
 * context, and whether all of it fits into the memory that is free.  Nothing that was asked for is dropped in
 * silence: what cannot be had is refused, or a warning says what is done instead. */
#ifndef ZGEN_CLI_SETUP_H
#define ZGEN_CLI_SETUP_H

#include "options.h"
#include "../run/engine.h"

#include <jansson.h>

/* What can be told without a model: devices and kernels that are not there, options that contradict each
 * other. Fills config but for n_ctx, n_seq, R_max; its device is CPU or CUDA afterwards, and a GPU that is
 * taken is awake.  Warns where the CPU does what a GPU was asked for.  false: ERR_USAGE; ERR_RUN for --device
 * cuda. */
bool setup_config(const Options *o, EngineConfig *config, Err *e);

/* -ngl against the number of layers.  false: ERR_USAGE. */
bool setup_layers(const Options *o, const Gguf *g, Err *e);

/* The context for n_ids tokens of prompt and n_new to come (0 or less: open): -c, or the smaller of 4096 and
 * the trained length, or as much as n_ids + n_new need up to that length. */
int setup_context(const Options *o, const Gguf *g, int64_t n_ids, int64_t n_new);

/* Positions that the model was trained for; 4096 where its file does not say. */
int setup_trained(const Gguf *g);

/* Prepares and loads, and tells between the two what memory it takes.  Warns when the weights do not fit
 * beside the rest.  false: see engine_prepare and engine_load; engine_close is due in both cases. */
bool setup_engine(const Options *o, const Model *m, const EngineConfig *config, Engine **out, Err *e);

/* The same as JSON: {"executor", "weights", "kv", "registers", "scratch", "free"}, in bytes. */
json_t *setup_memory(const Engine *g);

/* How tokens are chosen. */
SampleParams setup_sampling(const Options *o, uint64_t seed);

/* What a request takes from the options: all but ids.  Draws a seed if none was given.  false: ERR_RUN. */
bool setup_request(const Options *o, Request *out, Err *e);

/* One line on stderr, "zgen: ...", if it is a terminal or --verbose is given, and never with --quiet. */
void setup_notice(const Options *o, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
