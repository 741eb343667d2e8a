/* sampling: the options of the sampler become its parameters.
 *
 * Numbers are copied.  What needs the vocabulary is made here and lives as long as the Sampling: biases,
 * whose key is an id or a text, all tokens of which have the bias; and DRY's sequence breakers, texts that
 * may begin inside of a token.  Names and letters of filters are llama.cpp's. */
#ifndef ZGEN_CLI_SAMPLING_H
#define ZGEN_CLI_SAMPLING_H

#include "options.h"
#include "../exec/sample.h"
#include "../text/tok.h"

typedef struct Sampling { // all zero: nothing is held
    SampleParams params;  // points to what follows; the seed is not set
    SampleBias *bias;
    uint32_t *breaks;
    TokIds phrases;
} Sampling;

/* The numbers among the options, and this seed. */
SampleParams sampling_numbers(const Options *o, uint64_t seed);

/* false: ERR_USAGE, for a filter that is unknown or named twice, a token that is not in the vocabulary, ...;
 * what is held is to be closed then, too. */
bool sampling_open(const Options *o, const Tok *tok, Sampling *out, Err *e);
void sampling_close(Sampling *s);

/* The name of a filter, as --samplers takes it. */
const char *sampling_name(int filter);

#endif
