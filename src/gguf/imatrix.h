/* imatrix: the importance matrix: for each matrix of a model the mean square of each of its inputs.
 *
 * The error of a product grows with the square of an input, so a quantiser weighs the error of column i of the
 * weights with value i.  Experts have a row of values each.  Two forms are read: a GGUF file (general.type
 * "imatrix", NAME.in_sum2 [n_in, n_mat] with sums of squares and NAME.counts [1, n_mat] with their numbers),
 * and the binary one from before it; the GGUF form is written.  Both are those of llama-imatrix.
 *
 * Refused are values that are negative or not finite, sizes beyond the file, and names that occur twice.  The
 * one trick: sums are divided by their counts when they are read, so that both forms are the same from then
 * on; a matrix that no input has reached gets ones. */
#ifndef ZGEN_GGUF_IMATRIX_H
#define ZGEN_GGUF_IMATRIX_H

#include "../base/buf.h"
#include "gguf.h"

typedef struct ImatrixEntry {
    char *name;  // of the model's tensor
    float *mean; // [n_mat][n_in]; their number is known, in the old form not each
    size_t n;    // n_mat * n_in
} ImatrixEntry;

typedef struct Imatrix {
    ImatrixEntry *entries; // [n], sorted by name
    size_t n;
    char *dataset; // the text that it was made from, ""
    int n_chunks;  // of that text
} Imatrix;

/* false: ERR_MODEL, the file is no importance matrix or a damaged one. */
bool imatrix_open(const char *path, Imatrix *out, Err *e);

/* The same for n bytes in memory; label takes the place of the path in messages. */
bool imatrix_open_bytes(const void *bytes, size_t n, const char *label, Imatrix *out, Err *e);
void imatrix_close(Imatrix *m);

const ImatrixEntry *imatrix_find(const Imatrix *m, const char *name); // NULL if there is none

typedef struct ImatrixSums { // of one tensor, to be written
    const char *name;
    double *squares; // [n_mat][n_in]
    int64_t *counts; // [n_mat]
    int n_in, n_mat;
} ImatrixSums;

/* Appends the GGUF form of n sums; chunk: tokens of a chunk. */
void imatrix_write(const ImatrixSums *sums, size_t n, const char *dataset, int n_chunks, int chunk, Buf *out);

#endif
