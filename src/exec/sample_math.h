/* sample_math: the arithmetic of the sampler, one text for the CPU and the GPU.
 *
 * Every float operation here is rounded once to nearest-even and never contracted: in C by the option
 * -ffp-contract=off, on the device by the intrinsics, whose names include the rounding.  What belongs to a
 * token is binary32 or an integer; the few numbers of a whole row (deviation, entropy, temperature, mu) are
 * binary64, names that end with 64. */
#ifndef ZGEN_EXEC_SAMPLE_MATH_H
#define ZGEN_EXEC_SAMPLE_MATH_H

#include "sample_params.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define SAMPLE_FN __device__ static inline
#define SAMPLE_RULE __host__ __device__ static inline // compares parameters only
SAMPLE_FN float times(float a, float b) {
    return __fmul_rn(a, b);
}
SAMPLE_FN float plus(float a, float b) {
    return __fadd_rn(a, b);
}
SAMPLE_FN float minus(float a, float b) {
    return __fsub_rn(a, b);
}
SAMPLE_FN float over(float a, float b) {
    return __fdiv_rn(a, b);
}
SAMPLE_FN uint64_t multiply_high(uint64_t a, uint64_t b) {
    return __umul64hi(a, b);
} // floor(a * b / 2^64)
SAMPLE_FN float float_of(uint64_t n) {
    return __ull2float_rn(n);
}
SAMPLE_FN double times64(double a, double b) {
    return __dmul_rn(a, b);
}
SAMPLE_FN double plus64(double a, double b) {
    return __dadd_rn(a, b);
}
SAMPLE_FN double minus64(double a, double b) {
    return __dsub_rn(a, b);
}
SAMPLE_FN double over64(double a, double b) {
    return __ddiv_rn(a, b);
}
SAMPLE_FN double root64(double a) {
    return __dsqrt_rn(a);
}
SAMPLE_FN double double_of(uint64_t n) {
    return __ull2double_rn(n);
}
SAMPLE_FN int32_t read_token(const int32_t *token) { // kernels before this one have written it
    return __ldcg(token);
}
SAMPLE_FN uint32_t read_bits(const uint32_t *word) {
    return __ldcg(word);
}
SAMPLE_FN float read_float(const float *value) {
    return __ldcg(value);
}
#else
#define SAMPLE_FN static inline
#define SAMPLE_RULE static inline
SAMPLE_FN float times(float a, float b) {
    return a * b;
}
SAMPLE_FN float plus(float a, float b) {
    return a + b;
}
SAMPLE_FN float minus(float a, float b) {
    return a - b;
}
SAMPLE_FN float over(float a, float b) {
    return a / b;
}
SAMPLE_FN uint64_t multiply_high(uint64_t a, uint64_t b) {
    return (uint64_t)((unsigned __int128)a * b >> 64);
}
SAMPLE_FN float float_of(uint64_t n) {
    return (float)n;
}
SAMPLE_FN double times64(double a, double b) {
    return a * b;
}
SAMPLE_FN double plus64(double a, double b) {
    return a + b;
}
SAMPLE_FN double minus64(double a, double b) {
    return a - b;
}
SAMPLE_FN double over64(double a, double b) {
    return a / b;
}
SAMPLE_FN double root64(double a) {
    return sqrt(a);
}
SAMPLE_FN double double_of(uint64_t n) {
    return (double)n;
}
SAMPLE_FN int32_t read_token(const int32_t *token) {
    return *token;
}
SAMPLE_FN uint32_t read_bits(const uint32_t *word) {
    return *word;
}
SAMPLE_FN float read_float(const float *value) {
    return *value;
}
#endif

enum { WEIGHT_BITS = 42 };
#define RANK_HIGHEST 0x00800000u // FLT_MAX; +Inf and NaN lie before it
#define RANK_LOWEST 0xff800000u  // -Inf; negative NaN lies after it

/* An unsigned number that is smaller where the logit is higher. */
SAMPLE_FN uint32_t rank_of(float logit) {
    logit = plus(logit, 0.0f); // -0 becomes +0: equal logits, equal ranks
    uint32_t bits;
    memcpy(&bits, &logit, sizeof bits);
    return bits ^ (((bits >> 31) - 1) & 0x7fffffff);
}

SAMPLE_FN float logit_of(uint32_t rank) {
    uint32_t bits = rank ^ (((rank >> 31) - 1) & 0x7fffffff);
    float logit;
    memcpy(&logit, &bits, sizeof logit);
    return logit;
}

/* ---- the chain ---- */

/* The i-th filter, FILTER_END behind the last. */
SAMPLE_RULE int filter_at(const SampleParams *p, int i) {
    if (p->order[0]) return i < N_FILTERS ? p->order[i] : FILTER_END;
    return i < FILTER_TEMPERATURE ? i + 1 : FILTER_END;
}

/* Whether a filter of the chain does anything. */
SAMPLE_RULE bool filter_is_on(const SampleParams *p, int filter) {
    switch (filter) {
    case FILTER_PENALTIES:
        return p->repeat_last_n != 0 &&
               (p->repeat_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0);
    case FILTER_DRY:
        return p->dry_last_n != 0 && p->dry_multiplier > 0;
    case FILTER_TOP_N_SIGMA:
        return p->top_n_sigma > 0;
    case FILTER_TOP_K:
        return p->top_k > 0;
    case FILTER_TYPICAL:
        return p->typical_p > 0 && p->typical_p < 1;
    case FILTER_TOP_P:
        return p->top_p < 1;
    case FILTER_MIN_P:
        return p->min_p > 0;
    case FILTER_XTC:
        return p->xtc_probability > 0 && p->xtc_threshold <= 0.5f;
    case FILTER_TEMPERATURE:
        return p->temp != 1 || p->temp_range > 0;
    default:
        return filter == FILTER_MIROSTAT;
    }
}

SAMPLE_RULE bool uses_mirostat(const SampleParams *p) {
    for (int i = 0, filter; (filter = filter_at(p, i)) != FILTER_END; i++)
        if (filter == FILTER_MIROSTAT) return true;
    return false;
}

SAMPLE_RULE bool filter_changes_logits(int filter) {
    return filter == FILTER_PENALTIES || filter == FILTER_DRY;
}

/* Whether the chain is penalties, top-k, top-p, min-p and a fixed temperature, in this order.  At temperature
 * 0 it takes the best token behind the penalties. */
SAMPLE_RULE bool is_usual(const SampleParams *p) {
    return p->order[0] == 0 && !filter_is_on(p, FILTER_DRY) && !filter_is_on(p, FILTER_TOP_N_SIGMA) &&
           !filter_is_on(p, FILTER_TYPICAL) && !filter_is_on(p, FILTER_XTC) && !(p->temp_range > 0);
}

SAMPLE_RULE bool has_own_chain(const SampleParams *p) {
    return !p->random_tokens && !is_usual(p);
}

/* ---- logits ---- */

/* The logit of a token that occurs count times in the window of the penalties.  They are meant for logits
 * that are divided by the temperature. */
SAMPLE_FN float penalised(float logit, int32_t count, const SampleParams *p, float temp) {
    logit = logit <= 0 ? times(logit, p->repeat_penalty) : over(logit, p->repeat_penalty);
    float sum = plus(times((float)count, p->frequency_penalty), p->presence_penalty);
    return minus(logit, times(sum, temp));
}

/* The tokens of a window of last_n (-1: all) at the end of n. */
SAMPLE_FN int window_of(int last_n, int n) {
    return last_n < 0 || last_n > n ? n : last_n;
}

SAMPLE_FN bool has_bit(const uint32_t *bits, int32_t id) {
    return bits && (read_bits(bits + id / 32) >> id % 32 & 1);
}

/* The tokens behind the first one of the longest sequence breaker that begins i tokens before the last; -1:
 * none does.  end: behind the last token. */
SAMPLE_FN int breaker_at(const SampleParams *p, const int32_t *end, int i) {
    int longest = has_bit(p->breaks, read_token(end - 1 - i)) ? 0 : -1;
    for (int at = 0; at < p->n_phrases;) {
        int n = read_token(p->phrases + at++), same = 0;
        while (same < n && same <= i && read_token(p->phrases + at + same) == read_token(end - 1 - i + same))
            same++;
        if (same == n && n - 1 > longest) longest = n - 1;
        at += n;
    }
    return longest;
}

/* How many tokens up to the end are the same as those up to k before it, `most` at most. */
SAMPLE_FN int repeat_length(const int32_t *end, int k, int most) {
    int n = 0;
    while (n < most && read_token(end - 1 - n) == read_token(end - 1 - n - k)) n++;
    return n;
}

/* What DRY subtracts where a token would repeat `length` tokens, at least the allowed length. */
SAMPLE_FN float dry_penalty(const SampleParams *p, int length, float temp) {
    float power = 1, square = p->dry_base;
    for (int e = length - p->dry_allowed_length; e > 0; e >>= 1) {
        if (e & 1) power = times(power, square);
        square = times(square, square);
    }
    float penalty = times(times(p->dry_multiplier, power), temp);
    return penalty < FLT_MAX ? penalty : FLT_MAX;
}

/* e^-a for a = |x|: a = n ln 2 - r, |r| < 0.3467, with ln 2 in two parts of which the first has 15 bits, so
 * that n * LN2_HIGH - a is exact.  e^r = 1 + r + r^2 q(r), q of degree 4 fitted to a relative error
 * of 3.2e-9; the rest of the error is the rounding of r and of the last addition.  Returns e^r * 2^24, an
 * integer as e^r >= 0.7 is a multiple of 2^-24; *halvings = n, 0..43.  Every line is one rounding or two, in
 * this order. */
SAMPLE_FN int32_t exponential(float x, int32_t *halvings) {
    const float LOG2E = 0x1.715476p+0f, LN2_HIGH = 0x1.62e4p-1f, LN2_LOW = 0x1.7f7d1cp-20f;
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= 0x7fffffff;
    bits = bits < 0x41f00000 ? bits : 0x41f00000; // at most 30.0, compared as integers, which has no branch
    float a;
    memcpy(&a, &bits, sizeof a);
    int32_t n = (int32_t)plus(times(a, LOG2E), 0.5f); // toward zero
    float whole = (float)n;
    float r = minus(times(whole, LN2_HIGH), a);
    r = plus(r, times(whole, LN2_LOW));
    float e = times(0x1.6a4d6ep-10f, r);
    e = times(plus(e, 0x1.12398ap-7f), r);
    e = times(plus(e, 0x1.5558b0p-5f), r);
    e = times(plus(e, 0x1.555492p-3f), r);
    e = times(plus(e, 0x1.fffffcp-2f), r);
    e = times(plus(e, 1.0f), r);
    e = plus(e, 1.0f);
    *halvings = n;
    return (int32_t)times(e, 0x1p24f);
}

/* exp(x) * 2^42 for x <= 0: see sample_weight in sample.h. */
SAMPLE_FN uint64_t weight_of(float x) {
    int32_t halvings, mantissa = exponential(x, &halvings);
    return (uint64_t)mantissa << (WEIGHT_BITS - 24) >> halvings;
}

/* (max - logit) / temp. */
SAMPLE_FN float distance_of(float logit, float max, float temp) {
    return over(minus(max, logit), temp);
}

/* How far the surprise of a token at x is from the entropy, as bits that sort like it. */
SAMPLE_FN uint32_t untypical(float x, float mean) {
    float difference = minus(x, mean);
    uint32_t bits;
    memcpy(&bits, &difference, sizeof bits);
    return bits & 0x7fffffff;
}

/* ---- numbers of a row ---- */

/* ln v for a normal v > 0: v = m 2^n, m in 0.7..1.42; ln m = 2 atanh((m - 1) / (m + 1)), whose series is used
 * up to the power 19: relative error below 1e-15. */
SAMPLE_FN double logarithm64(double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    int n = (int)(bits >> 52) - 1022;
    bits = (bits & 0x000fffffffffffffull) | 0x3fe0000000000000ull;
    double m;
    memcpy(&m, &bits, sizeof m); // 0.5..1
    if (m < 0.70710678118654752) {
        m = times64(m, 2);
        n--;
    }
    double s = over64(minus64(m, 1), plus64(m, 1)), square = times64(s, s), sum = 0;
    for (int k = 19; k > 0; k -= 2) sum = plus64(times64(sum, square), over64(1, k));
    return plus64(times64(n, 0.69314718055994531), times64(times64(s, sum), 2));
}

/* ln of a sum of weights, as a multiple of that of the best token. */
SAMPLE_FN double logarithm_of(uint64_t total) {
    return minus64(logarithm64(double_of(total)), times64(WEIGHT_BITS, 0.69314718055994531));
}

/* The longest repetition that DRY tells from longer ones, with base^88.73/ln(base) above FLT_MAX. */
SAMPLE_FN int dry_longest(const SampleParams *p) {
    if (p->dry_base <= 1) return p->dry_allowed_length;
    double n = plus64(over64(88.73, logarithm64(p->dry_base)), p->dry_allowed_length + 1);
    return n < 1e9 ? (int)n : 1000000000;
}

/* A difference of logits in 2^-12, for the deviation. */
SAMPLE_FN uint64_t difference_of(float logit, float max) {
    float d = minus(max, logit);
    return (uint64_t)plus(times(d < 1024 ? d : 1024, 4096), 0.5f);
}

/* The standard deviation of n logits, from the sums of their differences and of the squares of these. */
SAMPLE_FN float deviation_of(uint64_t n, uint64_t sum, uint64_t squares) {
    double s = double_of(sum), count = double_of(n);
    double variance = over64(minus64(double_of(squares), over64(times64(s, s), count)), count);
    return variance > 0 ? (float)times64(root64(variance), 0x1p-12) : 0;
}

/* weight * x in 2^-42, at most 0.37 * 2^42: the sum over a row stays below 2^62. */
SAMPLE_FN uint64_t weighed_distance(uint64_t weight, float x) {
    return weight ? weight * (uint64_t)times(x, 0x1p20f) >> 20 : 0;
}

/* The temperature of n tokens, by the sums of their weights and of their weighed distances. */
SAMPLE_FN float temperature_of(const SampleParams *p, uint64_t n, uint64_t total, uint64_t distances) {
    if (!(p->temp_range > 0) || n < 2) return p->temp;
    float least = minus(p->temp, p->temp_range), most = plus(p->temp, p->temp_range);
    if (least < 0) least = 0;
    double entropy = plus64(over64(double_of(distances), double_of(total)), logarithm_of(total));
    double part = over64(entropy, logarithm64(double_of(n)));
    float power = p->temp_exponent > 0 ? 0 : 1;
    if (p->temp_exponent > 0 && part > 0)
        power = times(float_of(weight_of(part < 1 ? (float)times64(logarithm64(part), p->temp_exponent) : 0)),
                      0x1p-42f);
    return plus(least, times(minus(most, least), power));
}

/* The largest x that mirostat leaves; below 0: that of the best token only. */
SAMPLE_FN float mirostat_limit(float mu, uint64_t total) {
    return (float)minus64(times64(mu, 0.69314718055994531), logarithm_of(total));
}

/* mu behind the choice of a token, out of tokens whose weights sum to total. */
SAMPLE_FN float mirostat_next(const SampleParams *p, float mu, float x, uint64_t total) {
    double surprise = over64(plus64(x, logarithm_of(total)), 0.69314718055994531);
    return (float)minus64(mu, times64(p->mirostat_eta, minus64(surprise, p->mirostat_tau)));
}

/* mu for the choice of the token at a position. */
SAMPLE_FN float mirostat_mu(const SampleParams *p, uint64_t position, const float *mu) {
    return position == (uint64_t)p->first ? times(2, p->mirostat_tau) : read_float(mu - 1);
}

/* ---- chance ---- */

SAMPLE_FN void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53 * c0, b = (uint64_t)0xCD9E8D57 * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The 64 random bits of one draw; `stream` 0 is that of tokens, 1 that of xtc. */
SAMPLE_FN uint64_t random_bits(uint64_t seed, uint64_t position, uint32_t stream) {
    uint32_t counter[4] = {(uint32_t)position, (uint32_t)(position >> 32), stream, 0};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)}, out[4];
    philox(counter, key, out);
    return (uint64_t)out[1] << 32 | out[0];
}

/* The token that random bits select, each with the same probability. */
SAMPLE_FN int32_t any_token(uint64_t random, int32_t n_vocab) {
    return (int32_t)multiply_high(random, (uint64_t)n_vocab);
}

/* ceil(f * total) for f in 0..1, f cut to 64 bits after the point (which changes none above 2^-41). */
SAMPLE_FN uint64_t share(float f, uint64_t total) {
    if (f >= 1) return total;
    uint64_t fraction = (uint64_t)(times(f, 0x1p64f));
    return multiply_high(fraction, total) + (fraction * total != 0);
}

/* floor(f * total) + 1, for f below 1. */
SAMPLE_FN uint64_t more_than_share(float f, uint64_t total) {
    return multiply_high((uint64_t)(times(f, 0x1p64f)), total) + 1;
}

SAMPLE_FN bool xtc_happens(const SampleParams *p, uint64_t position) {
    return p->xtc_probability >= 1 ||
           random_bits(p->seed, position, 1) < (uint64_t)times(p->xtc_probability, 0x1p64f);
}

#endif
