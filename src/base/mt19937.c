/* mt19937: see mt19937.h. */
#include "mt19937.h"

enum { N = 624, M = 397 };

void mt19937_seed(Mt19937 *m, uint32_t seed) {
    m->state[0] = seed;
    for (uint32_t i = 1; i < N; i++)
        m->state[i] = 1812433253u * (m->state[i - 1] ^ (m->state[i - 1] >> 30)) + i;
    m->at = N;
}

static void refill(Mt19937 *m) {
    uint32_t *x = m->state;
    for (int i = 0; i < N; i++) {
        uint32_t y = (x[i] & 0x80000000u) | (x[(i + 1) % N] & 0x7fffffffu);
        x[i] = x[(i + M) % N] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    m->at = 0;
}

uint32_t mt19937_next(Mt19937 *m) {
    if (m->at == N) refill(m);
    uint32_t y = m->state[m->at++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

uint32_t mt19937_below(Mt19937 *m, uint32_t n) {
    uint64_t product = (uint64_t)mt19937_next(m) * n;
    uint32_t least = -n % n;
    while ((uint32_t)product < n && (uint32_t)product < least) product = (uint64_t)mt19937_next(m) * n;
    return (uint32_t)(product >> 32);
}
