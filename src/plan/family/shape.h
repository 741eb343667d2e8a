/* shape: the sizes of well-known models, as their family lists them.
 *
 * A Shape is enough to make a model of random weights: its metadata keys are listed here, its tensors are the
 * ones that the family requests when it writes its tape over these keys.  A ModelSize is the label of a size
 * in a table of measurements.  Both lists are in the family's file and end with a row without a name. */
#ifndef ZGEN_PLAN_SHAPE_H
#define ZGEN_PLAN_SHAPE_H

#include <stdbool.h>

typedef struct Shape {
    const char *name;
    int n_layer, n_embd, n_head, n_kv_head, head_dim, n_ff, n_vocab;
    float rope_base;
    const char *optional[16]; // the optional tensors that it has, without "blk.N."; up to the first NULL
    /* The family's own metadata, without "<arch>.", as words KEY=VALUE; a key of the fields above is replaced; one
     * that begins with a point has no "<arch>" in the file.
     * Values are integers, floats (with a point), true, false, other text, or lists of integers or booleans
     * (with commas), which are repeated up to a value for each layer.  NULL: none. */
    const char *keys;
} Shape;

/* The next word of a shape's metadata: *text goes behind it.  false: there is none. */
enum { SHAPE_WORD = 256 };
bool shape_next_key(const char **text, char key[SHAPE_WORD], char value[SHAPE_WORD]);

/* The value of a key, an integer, or `missing`. */
int shape_key(const Shape *s, const char *key, int missing);

/* A label as llama.cpp gives it: that of the first row that fits; 0 fits every model. */
typedef struct ModelSize {
    const char *name;
    int n_layer, n_expert, n_embd;
    int vocab_below; // n_vocab is less than this
} ModelSize;

#endif
