/* quantize: converts a model file to other weight types, splits it, joins its shards.
 *
 * Owns the plan of the new file or files (the type and the offset of each tensor) and the work: rows are read
 * from the mapping, decoded, encoded, decoded again to measure the error, and written at their offset, by
 * all threads at once.  Metadata is the source's, except for keys that depend on the types; of several files
 * the first has it.  Splitting and joining are the mix COPY with another number of files.
 *
 * Refused are values that are not finite, values that the new type cannot hold, weights that have been
 * quantised before, unless requantize is set, and an importance matrix of another model.
 *
 * The one trick: every offset in the new file is known before the first row is read, so that no thread
 * waits for another, and the bytes do not depend on the number of threads. */
#ifndef ZGEN_RUN_QUANTIZE_H
#define ZGEN_RUN_QUANTIZE_H

#include "mix.h"
#include "../gguf/imatrix.h"

typedef struct Quantized { // a tensor of the new file
    const GgufTensor *source;
    QuantType from, to; // FP8_E4M3 for I8 tensors of an FP8 file
    QuantType wanted;   // other than `to` where rows are no multiple of its block
    bool is_weighed;    // by the importance matrix
    uint64_t n_bytes;   // with the scales of FP8
    double rmse, rms;   // root mean squares: of the error, of the source's values; NAN for a copied tensor
} Quantized;

typedef struct Quantize Quantize;

typedef struct QuantizeSplit { // when another file is begun; all 0: never
    bool as_source;            // with the first tensor of each file of the source
    uint64_t max_bytes;        // before its tensors have more; a larger one has a file of its own
    int max_tensors;           // before it has more of them
    bool first_is_empty;       // the first file has the metadata only
} QuantizeSplit;

typedef struct QuantizeTask {
    const Mix *mix;
    MixWishes wishes;
    bool requantize;
    const Imatrix *importance;   // NULL: none
    const char *importance_path; // for the metadata
    QuantizeSplit split;
} QuantizeTask;

enum { QUANTIZE_MAX_FILES = 999 }; // as many as gguf.h reads

/* Plans the new files; g and what the task points to outlive it.  false: ERR_USAGE, g is quantised and
 * requantize is false, or an option does not fit the model; ERR_MODEL. */
bool quantize_open(const Gguf *g, const QuantizeTask *task, Quantize **out, Err *e);
void quantize_close(Quantize *q); // NULL is fine

uint64_t quantize_bytes(const Quantize *q); // of the new files
int quantize_n_files(const Quantize *q);

/* Writes file i to fds[i], which can seek; names are for messages.  The calling thread calls go_on(arg, share
 * done) between slices.  false: ERR_OUTPUT; ERR_MODEL, values of a tensor; or go_on returned false, and *e
 * is unchanged. */
bool quantize_run(Quantize *q, const int *fds, char *const *names, int n_threads,
                  bool (*go_on)(void *arg, double share), void *arg, Err *e);

/* Its tensors; errors are known after the run. */
int64_t quantize_n_tensors(const Quantize *q);
const Quantized *quantize_tensor(const Quantize *q, int64_t i);

#endif
