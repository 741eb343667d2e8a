/* quantize: converts a model file to other weight types.
 *
 * Owns the plan of the new file (the type and the offset of each tensor) and the work: rows are read
 * from the mapping, decoded, encoded, decoded again to measure the error, and written at their offset, by
 * all threads at once.  Metadata is the source's, except for keys that depend on the types.
 *
 * Refused are values that are not finite, values that the new type cannot hold, and weights that have
 * been quantised before, unless requantize is set.
 *
 * The one trick: every offset in the new file is known before the first row is read, so that no thread
 * waits for another, and the bytes do not depend on the number of threads. */
#ifndef ZGEN_RUN_QUANTIZE_H
#define ZGEN_RUN_QUANTIZE_H

#include "mix.h"

typedef struct Quantized { // a tensor of the new file
    const GgufTensor *source;
    QuantType from, to; // FP8_E4M3 for I8 tensors of an FP8 file
    uint64_t n_bytes;   // with the scales of FP8
    double rmse, rms;   // root mean squares: of the error, of the source's values; NAN for a copied tensor
} Quantized;

typedef struct Quantize Quantize;

/* Plans the new file; g outlives it.  false: ERR_USAGE, g is quantised and requantize is false; ERR_MODEL. */
bool quantize_open(const Gguf *g, const Mix *mix, bool requantize, Quantize **out, Err *e);
void quantize_close(Quantize *q); // NULL is fine

uint64_t quantize_bytes(const Quantize *q); // of the new file

/* Writes the file to fd, which can seek; name is for messages.  The calling thread calls go_on(arg, share
 * done) between slices.  false: ERR_OUTPUT; ERR_MODEL, values of a tensor; or go_on returned false, and *e
 * is unchanged. */
bool quantize_run(Quantize *q, int fd, const char *name, int n_threads,
                  bool (*go_on)(void *arg, double share), void *arg, Err *e);

/* Its tensors; errors are known after the run. */
int64_t quantize_n_tensors(const Quantize *q);
const Quantized *quantize_tensor(const Quantize *q, int64_t i);

#endif
