/* quantize: a model file into one of other types.
 *
 * It owns the plan of the new file (which tensor gets which type, where it lies) and the work: rows are read
 * from the mapping, decoded, encoded, decoded once more to measure the error, and written where they belong,
 * by all threads at once.  Metadata is the source's, but for what the types change.
 *
 * What it refuses: values that are not finite, values that the new type cannot hold, and, unless it is asked
 * to, weights that have been quantised before.
 *
 * The one trick: every place in the new file is known before the first row is read, so that no thread waits
 * for another, and the bytes do not depend on how many there are. */
#ifndef ZGEN_RUN_QUANTIZE_H
#define ZGEN_RUN_QUANTIZE_H

#include "mix.h"

typedef struct Quantized { // a tensor of the new file
    const GgufTensor *source;
    QuantType from, to; // FP8_E4M3 for what GGUF calls I8
    uint64_t n_bytes;   // with the scales of FP8
    double rmse, rms;   // of its error; of the source's values.  NAN where there are no numbers to compare
} Quantized;

typedef struct Quantize Quantize;

/* Plans the new file; g outlives it.  false: ERR_USAGE, g is quantised and requantize is false; ERR_MODEL. */
bool quantize_open(const Gguf *g, const Mix *mix, bool requantize, Quantize **out, Err *e);
void quantize_close(Quantize *q); // NULL is fine

uint64_t quantize_bytes(const Quantize *q); // of the new file

/* Writes the file to fd, which can seek; name is for messages.  go_on(arg, share done) is called now and then
 * by the calling thread.  false: ERR_OUTPUT; ERR_MODEL, a tensor's values; or go_on said so, and *e is
 * untouched. */
bool quantize_run(Quantize *q, int fd, const char *name, int n_threads,
                  bool (*go_on)(void *arg, double share), void *arg, Err *e);

/* Its tensors; errors are known after the run. */
int64_t quantize_n_tensors(const Quantize *q);
const Quantized *quantize_tensor(const Quantize *q, int64_t i);

#endif
