/* weight: a tensor of the file, checked and ready to be multiplied with.
 *
 * Matrices stay in the file mapping, in their own type, unless a conversion to FP8 is configured.  Vectors
 * (norms, biases, rotary factors) are few and small: they are decoded to aligned floats once, so that ops
 * need no code for other types of vectors.
 *
 * FP8 has no tensor type in GGUF: under the key zgen.fp8.format = "e4m3" a tensor of type I8 is read as E4M3
 * bytes with one f32 scale per row beside it (".scale" for ".weight").  A conversion makes the same in
 * memory. */
#ifndef ZGEN_PLAN_WEIGHT_H
#define ZGEN_PLAN_WEIGHT_H

#include "../gguf/gguf.h"

typedef struct Weight {
    const char *name; // of the tensor
    QuantType type;
    int n_in, n_out;     // product: y[n_out] = W x[n_in]
    int n_expert;        // 1 for a plain matrix
    const uint8_t *data; // rows of row_bytes; NULL before a conversion
    size_t row_bytes;
    const uint8_t *const *experts; // [n_expert] the rows of each; NULL: expert after expert in data
    const float *scale;            // [n_expert * n_out] factors of the rows' results, or NULL
} Weight;

/* The n_out rows of an expert. */
static inline const uint8_t *weight_rows(const Weight *w, int expert) {
    return w->experts ? w->experts[expert] : w->data + (size_t)expert * (size_t)w->n_out * w->row_bytes;
}

/* What is requested of a tensor [n_in, n_rows, n_expert]: of each expert n_out rows from `first` on.  Tensors
 * that hold several matrices (Q, K and V; gate and up) are requested part by part. */
typedef struct MatrixShape {
    int n_in, n_out, n_expert;
    int first, n_rows;
} MatrixShape;

static inline MatrixShape matrix_whole(int n_in, int n_out, int n_expert) {
    return (MatrixShape){n_in, n_out, n_expert, 0, n_out};
}

typedef struct Weights Weights; // all weights of one model, and which tensors they came from

Weights *weights_open(const Gguf *g);
void weights_close(Weights *w);

/* Weights of a model that is still to be made: nothing is read from g, which has no tensors; each request is
 * recorded instead, and gets a matrix without data or a vector of zeros.  optional: the names that
 * weights_has answers with true, without "blk.N.", up to the first NULL. */
Weights *weights_record(const Gguf *g, const char *const *optional);

/* The tensors recorded so far, in the order of the requests, of type F32; the caller frees them and their
 * names. */
GgufTensor *weights_take_recorded(Weights *w, int *n);

/* The matrix of that name and shape.  Experts of an old file are a tensor each: NAME.0.weight, NAME.1.weight
 * and so on in place of NAME_exps.weight.  NULL: ERR_MODEL; it is missing, misshapen or of a type without a
 * decoder. */
const Weight *weights_matrix(Weights *w, const char *name, MatrixShape shape, Err *e);

/* The tensor of that name, [n, n_rows], as floats; finite, or NULL with *e. */
const float *weights_vector(Weights *w, const char *name, int n, int n_rows, Err *e);

bool weights_has(const Weights *w, const char *name);

/* Tensors that the file may have and that no op reads: one by name, and those of layers first to end - 1. */
void weights_leave(Weights *w, const char *name);
void weights_leave_layers(Weights *w, int first, int end);

/* To be called when a family has requested all its tensors.  false: ERR_MODEL naming a tensor of the file
 * that was not requested, because leaving out a part of the model would give wrong text. */
bool weights_all_used(const Weights *w, Err *e);

/* The name of the first matrix with a value that is not finite, scaled or not, or NULL.  Reads everything:
 * for explaining non-finite logits, not for every start. */
const char *weights_find_nonfinite(const Weights *w);

/* The name of the scales of NAME.weight: NAME.scale, written to out, which is returned. */
enum { WEIGHT_NAME = 80 }; // bytes that are enough
const char *weight_scale_name(const char *name, char out[WEIGHT_NAME]);

/* From now on m is a matrix of FP8 with a scale per row, which weights_load makes from the file's matrix;
 * false: it takes no more than a byte per weight and stays as it is. */
bool weights_convert(Weights *w, const Weight *m);

/* Makes all matrices that are to be converted, on n_threads threads.  false: ERR_MEMORY; or code 0 where
 * stop, which the threads ask for each row and may be NULL, ended it. */
bool weights_load(Weights *w, int n_threads, bool (*stop)(void), Err *e);

uint64_t weights_bytes(const Weights *w);           // of the matrices
uint64_t weights_converted_bytes(const Weights *w); // of those that are not in the file

#endif
