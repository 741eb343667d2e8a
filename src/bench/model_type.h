/* bench_model: what a model and a machine are called in tables, in llama.cpp's words, so that rows of both
 * programs are found to be of the same thing. */
#ifndef ZGEN_BENCH_MODEL_TYPE_H
#define ZGEN_BENCH_MODEL_TYPE_H

#include "../base/buf.h"
#include "../gguf/gguf.h"
#include "../plan/plan.h"

/* Appends "llama 8B Q4_K - Medium": family, size, file type.  Where llama.cpp has no name for the size and
 * prints "?B", the size is the parameter count.  A file type taken from the tensors is "(guessed)". */
void bench_model_type(const Gguf *g, const Plan *p, Buf *out);

/* Appends a count of parameters in two digits or more, like general.size_label: "260K", "5.2M", "70B". */
void bench_size_label(double n_params, Buf *out);

/* Of all tensors. */
double bench_model_bytes(const Gguf *g);
double bench_model_params(const Gguf *g);

/* The name of the processor; nothing where the system does not tell. */
void bench_cpu_name(Buf *out);

/* Bytes of memory that this process had at most, since it began or since that was forgotten; a system that
 * does not let it be forgotten keeps the old peak. */
double bench_peak_memory(void);
void bench_forget_peak_memory(void);

#endif
