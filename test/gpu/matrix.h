/* matrix: weights on both sides, and products with them in double. */
#ifndef ZGEN_TEST_MATRIX_H
#define ZGEN_TEST_MATRIX_H

#include "../../cuda/exec/upload.h"

/* Floats from row to row of `width`, and n random ones. */
int stride_of(int width);
float *floats_new(size_t n, uint64_t *state);

typedef struct Matrix {
    Weight w;
    DeviceWeight device;
    Upload *upload;
    float *decoded; // [n_expert * n_out][n_in], without the rows' scales
} Matrix;

/* Random blocks; FP8 has scales of rows. */
Matrix matrix_new(QuantType type, int n_in, int n_out, int n_expert, uint64_t *state);

/* Sends it through the uploader.  From then on the matrix must stay where it is. */
void matrix_upload(Matrix *m);
void matrix_free(Matrix *m);

/* y[n_out] = the expert's matrix times x, in the activations of the type's form or exact, times the rows'
 * scales. */
void matrix_multiply(const Matrix *m, int expert, const float *x, bool exact, double *y);

#endif
