/* setup: from options to the configuration, the context and the requests of an engine.
 *
 * Owns the choice of device, CPU kernels, threads, cache type and context length.  An option that cannot
 * be honoured is refused, or a warning names its replacement. */
#ifndef ZGEN_CLI_SETUP_H
#define ZGEN_CLI_SETUP_H

#include "options.h"
#include "sampling.h"
#include "../run/engine.h"

/* Fills config except n_ctx, n_seq, R_max and chunk, without a model.  The device is decided: a GPU that is
 * chosen is initialised; there is a warning where the CPU replaces the GPU of an option.  false: ERR_USAGE
 * for options that contradict each other or kernels that this machine lacks; ERR_RUN for --device cuda
 * without a GPU, except with --plan. */
bool setup_config(const Options *o, EngineConfig *config, Err *e);

/* Checks -ngl (a number, or GPU_LAYERS_...) against the model's number of layers.  false: ERR_USAGE. */
bool setup_layers(int gpu_layers, const Gguf *g, Err *e);

/* The context in tokens for a prompt of n_prompt tokens and n_new more (0 or less: not known): n_ctx of the
 * options if it is given; else the smaller of 4096 and the trained length; else what n_prompt + n_new need,
 * up to the trained length. */
int setup_context(int n_ctx, const Gguf *g, int64_t n_prompt, int64_t n_new);

/* The context in tokens that the model was trained with; 4096 if the file does not name it. */
int setup_trained(const Gguf *g);

/* A request from the options, without its ids; the sampling must outlive it.  Draws a seed if none was given.  false: ERR_RUN; ERR_USAGE
 * for options that contradict each other. */
bool setup_request(const Options *o, const Sampling *sampling, Request *out, Err *e);

#endif
