/* mt19937: the Mersenne Twister of Matsumoto and Nishimura (1998), 32 bits a number.
 *
 * For one purpose: to choose the same questions of a file as programs that use it with the same seed. */
#ifndef ZGEN_BASE_MT19937_H
#define ZGEN_BASE_MT19937_H

#include <stdint.h>

typedef struct Mt19937 {
    uint32_t state[624];
    int at; // of the next number in state
} Mt19937;

void mt19937_seed(Mt19937 *m, uint32_t seed);
uint32_t mt19937_next(Mt19937 *m);

/* Uniform in 0..n-1 by Lemire's multiplication (2019), the form that libstdc++ has since GCC 11. */
uint32_t mt19937_below(Mt19937 *m, uint32_t n);

#endif
