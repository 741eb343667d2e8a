/* tiny: random weights of every type, and whole models of them in memory, for tests of shapes and types that
 * no file in test/data has.
 *
 * The integers of a block are random bytes, its scales are set, so that a weight's standard deviation is
 * about TINY_STD for all types and no value is an Inf or a NaN.  The same seed gives the same bytes
 * everywhere. */
#ifndef ZGEN_TEST_TINY_H
#define ZGEN_TEST_TINY_H

#include "../../src/base/buf.h"
#include "../../src/gguf/quant.h"
#include "../../src/plan/op.h"

#define TINY_STD 0.05f

/* The types of weights in products: blocks and floats. */
extern const QuantType tiny_types[];
extern const int tiny_n_types;

uint64_t tiny_random(uint64_t *state);
float tiny_float(uint64_t *state); // uniform in -1..1

/* The formulas of Activation in double: act(gate) * up; of an activation alone, act(x). */
double tiny_gated(const GluParams *p, double gate, double up);
double tiny_activation(const GluParams *p, double x);

/* n_blocks blocks of the type. */
void tiny_blocks(QuantType type, void *out, size_t n_blocks, uint64_t *state);

typedef struct Tiny { // a model of the llama family, without a tokenizer
    QuantType type;   // of all matrices but the router
    int n_layer, n_embd, n_head, n_kv_head, head_dim, n_ff, n_vocab;
    int n_expert, n_used; // 0: dense
    uint64_t seed;
} Tiny;

/* The file.  *output, if not NULL, is where the bytes of output.weight begin. */
Buf tiny_model(const Tiny *t, size_t *output);

#endif
