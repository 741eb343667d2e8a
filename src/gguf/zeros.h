/* zeros: a warning about files whose data never arrived.
 *
 * A download that allocates its file first, or one that was cut and padded, has the right size and zeros where data is
 * missing: every check of the container holds, and the model writes nonsense.  No trained matrix is all zero. */
#ifndef ZGEN_GGUF_ZEROS_H
#define ZGEN_GGUF_ZEROS_H

#include "gguf.h"

/* Warns where the samples of a matrix are all zero: the number of such matrices, and the name of the first.  Of other
 * matrices one sample is read, so that a file on a disk costs a page per matrix. */
void zeros_warn(const Gguf *g);

#endif
