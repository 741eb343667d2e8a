/* synth: models of random weights in the real shapes and mixes of well-known ones.
 *
 * The weights are random; the tensors, their types and sizes are those of the real file, so that speed and
 * memory can be measured before anything is downloaded.  Shapes are listed in the files of their families. */
#ifndef ZGEN_RUN_SYNTH_H
#define ZGEN_RUN_SYNTH_H

#include <stddef.h>
#include <stdint.h>
#include "../base/buf.h"
#include "../base/err.h"

typedef struct SynthImage { // a whole GGUF file in memory
    uint8_t *data;
    size_t n;
    struct SynthPlan *plan; // synth.c's
} SynthImage;

/* Makes the model of that shape ("llama-3.1-8b") and mix ("q4_k_m"), with n_layers layers (0: all of them):
 * everything but the blocks of quantised weights, which are zeros that take no memory yet.  An engine can be
 * prepared with it, so that a model which nothing can run is refused before it is generated.  false:
 * ERR_USAGE for an unknown name, listing the known ones; ERR_MEMORY. */
bool synth_open(const char *shape, const char *mix, int n_layers, uint64_t seed, SynthImage *out, Err *e);

/* Fills in the blocks, on n_threads threads. */
void synth_fill(SynthImage *image, int n_threads);

bool synth_make(const char *shape, const char *mix, int n_layers, uint64_t seed, int n_threads,
                SynthImage *out, Err *e); // both
void synth_free(SynthImage *image);

void synth_list(Buf *out);  // the names of shapes and mixes, in a line for messages
void synth_print(Buf *out); // the same as a table with sizes

#endif
