/* model_type: the name of a model in tables, as llama.cpp writes it, so that rows of both programs for one
 * model can be compared. */
#ifndef ZGEN_BENCH_MODEL_TYPE_H
#define ZGEN_BENCH_MODEL_TYPE_H

#include "../base/buf.h"
#include "../gguf/gguf.h"
#include "../plan/plan.h"

/* Appends "llama 8B Q4_K - Medium": family, size, file type.  Where llama.cpp has no name for the size and
 * prints "?B", or a false one, the size is the parameter count.  A file type taken from the tensors is "(guessed)". */
void bench_model_type(const Gguf *g, const Plan *p, Buf *out);

/* Appends a count of parameters in two digits or more, like general.size_label: "260K", "5.2M", "70B". */
void bench_size_label(double n_params, Buf *out);

/* Appends the label of a size, as llama.cpp gives it by the number of layers; or the count of parameters where the label
 * is NULL, "?B", or off by more than a factor of 1.5. */
void bench_true_size(const char *label, double n_params, Buf *out);

/* Over all tensors. */
double bench_model_bytes(const Gguf *g);
double bench_model_params(const Gguf *g);

#endif
