/* noise: random numbers of the sampler's tests, apart from the sampler's own: xorshift64*.  A test sets the state. */
#ifndef ZGEN_TEST_NOISE_H
#define ZGEN_TEST_NOISE_H

#include <math.h>
#include <stdint.h>

static uint64_t noise_state; // not 0

static inline uint32_t noise(void) {
    noise_state ^= noise_state >> 12;
    noise_state ^= noise_state << 25;
    noise_state ^= noise_state >> 27;
    return (uint32_t)(noise_state * 0x2545F4914F6CDD1D >> 32);
}

/* Above 0 and below 1. */
static inline double noise_unit(void) {
    return (noise() + 0.5) * 0x1p-32;
}

static inline double noise_normal(void) {
    return sqrt(-2 * log(noise_unit())) * cos(6.283185307179586 * noise_unit());
}

#endif
