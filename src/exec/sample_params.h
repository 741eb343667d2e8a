/* sample_params: what a request says about the choice of its tokens; sample.h says what it means.  A field of
 * 0 is off or neutral, but for those that say otherwise. */
#ifndef ZGEN_EXEC_SAMPLE_PARAMS_H
#define ZGEN_EXEC_SAMPLE_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

/* The filters, in the usual order, which ends with the temperature. */
typedef enum SampleFilter {
    FILTER_END, // behind the last of a list
    FILTER_PENALTIES,
    FILTER_DRY,
    FILTER_TOP_N_SIGMA,
    FILTER_TOP_K,
    FILTER_TYPICAL,
    FILTER_TOP_P,
    FILTER_MIN_P,
    FILTER_XTC,
    FILTER_TEMPERATURE,
    FILTER_MIROSTAT, // the last one where it is named
    N_FILTERS
} SampleFilter;

typedef struct SampleBias {
    int32_t id;
    float bias; // not NaN, not +Inf
} SampleBias;

typedef struct SampleParams {
    bool random_tokens;      // a random token, or the next one not banned, from seed and position only
    float temp;              // >= 0; 0 takes the best token
    float top_p;             // 0..1; 1 is off
    float min_p;             // 0..1; 0 is off
    float repeat_penalty;    // > 0; 1 is off
    float presence_penalty;  // 0 is off
    float frequency_penalty; // 0 is off
    int top_k;               // 0 is off
    int repeat_last_n;       // length of the penalties' window: 0 is off, -1 the whole history
    int n_banned, n_bias;
    uint64_t seed;
    const int32_t *banned;    // [n_banned] ids never chosen
    const SampleBias *bias;   // [n_bias], each id once
    uint8_t order[N_FILTERS]; // SampleFilter, each once at most; {0} is the usual order
    float top_n_sigma;        // 0 is off
    float typical_p;          // 0..1; 0 and 1 are off
    float xtc_probability;    // 0..1; 0 is off
    float xtc_threshold;      // 0..1; above 0.5 it is off
    float temp_range;         // >= 0; 0 is off: the temperature is temp
    float temp_exponent;      // >= 0
    float dry_multiplier;     // >= 0; 0 is off
    float dry_base;           // >= 1
    int dry_allowed_length;   // >= 0
    int dry_last_n;           // as repeat_last_n
    float mirostat_tau;       // bits
    float mirostat_eta;       // learning rate
    int first;                // position of the first token that is chosen: there mu is 2 tau
    const uint32_t *breaks;   // a bit per id: tokens that are sequence breakers of DRY; NULL: none
    const int32_t *phrases;   // [n_phrases] those of more tokens: n, id, ..., id, n, ...
    int n_phrases;
} SampleParams;

static const SampleParams sample_defaults = {
    .temp = 0.8f, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1, .top_k = 40, .repeat_last_n = 64};

#endif
