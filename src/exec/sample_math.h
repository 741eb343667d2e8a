/* sample_math: the arithmetic of the sampler, one text for the CPU and the GPU.
 *
 * Every float operation here is rounded once to nearest-even binary32 and never contracted: in C by the
 * option -ffp-contract=off, on the device by the intrinsics, whose names include the rounding. */
#ifndef ZGEN_EXEC_SAMPLE_MATH_H
#define ZGEN_EXEC_SAMPLE_MATH_H

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define SAMPLE_FN __device__ static inline
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
#else
#define SAMPLE_FN static inline
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

/* The logit of a token that occurs count times in the window of the penalties. */
SAMPLE_FN float penalised(float logit, int32_t count, float repeat, float presence, float frequency) {
    logit = logit <= 0 ? times(logit, repeat) : over(logit, repeat);
    return minus(logit, plus(times((float)count, frequency), presence));
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

/* The 64 random bits of one draw. */
SAMPLE_FN uint64_t random_bits(uint64_t seed, uint64_t position) {
    uint32_t counter[4] = {(uint32_t)position, (uint32_t)(position >> 32), 0, 0};
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

#endif
