/* shape: the sizes of well-known models, as their family lists them.
 *
 * A Shape is enough to make a model of random weights: its metadata keys are listed here, its tensors are the
 * ones that the family requests when it writes its tape over these keys.  A ModelSize is the label of a size
 * in a table of measurements.  Both lists are in the family's file and end with a row without a name. */
#ifndef ZGEN_PLAN_SHAPE_H
#define ZGEN_PLAN_SHAPE_H

typedef struct ShapeKey { // one of the family's own metadata keys, without "<arch>."
    const char *name;
    int value;
} ShapeKey;

typedef struct Shape {
    const char *name;
    int n_layer, n_embd, n_head, n_kv_head, head_dim, n_ff, n_vocab;
    float rope_base;
    const char *optional[4]; // the optional tensors that it has, without "blk.N."; up to the first NULL
    ShapeKey keys[4];        // up to the first without a name
} Shape;

/* A label as llama.cpp gives it: that of the first row that fits; 0 fits every model. */
typedef struct ModelSize {
    const char *name;
    int n_layer, n_expert, n_embd;
    int vocab_below; // n_vocab is less than this
} ModelSize;

#endif
