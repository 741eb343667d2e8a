/* gpu: what the tests of the GPU executor share. */
#ifndef ZGEN_TEST_GPU_H
#define ZGEN_TEST_GPU_H

#include "../unit/golden.h"
#include "../../cuda/cuda.h"

/* Why there is no GPU to test on, for SKIP; NULL: there is one. */
const char *gpu_missing(void);

/* A row of the decode loop: the latest token of a sequence, its position, and how the next ones are
 * chosen. */
typedef struct DecodeRow {
    int32_t token;
    int seq, position;
    SampleParams params;
} DecodeRow;

/* Decodes n_steps tokens of n rows in the decode loop: out[n_steps][n].  false: *e, and the steps before are
 * in out. */
bool gpu_decode(Rig *rig, const DecodeRow *rows, int n, int n_steps, int32_t *out, Err *e);

double gpu_nmse(const float *a, const float *b, size_t n);

#endif
