/* sha256: see sha256.h.  The 72 constants are computed from their definition: the leading 32 bits of the
 * fractional parts of the square and cube roots of the first primes. */
#include "sha256.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { BLOCK = 64, ROUNDS = 64 };

typedef struct Constants {
    uint32_t start[8], round[ROUNDS];
} Constants;

/* floor(2^32 * p^(1/power)) modulo 2^32, bit by bit; p < 2^9, so that a cube of 2^38 at most fits. */
static uint32_t root_fraction(uint32_t p, int power) {
    uint64_t root = 0;
    for (uint64_t bit = (uint64_t)1 << 37; bit; bit >>= 1) {
        unsigned __int128 r = root + bit, powered = power == 2 ? r * r : r * r * r;
        if (powered <= (unsigned __int128)p << 32 * power) root += bit;
    }
    return (uint32_t)root;
}

static uint32_t next_prime(uint32_t p) {
    for (uint32_t d = 0; d != p;)
        for (p++, d = 2; p % d; d++) continue;
    return p;
}

static Constants constants(void) {
    Constants c;
    uint32_t p = 1;
    for (int i = 0; i < ROUNDS; i++) {
        p = next_prime(p);
        if (i < 8) c.start[i] = root_fraction(p, 2);
        c.round[i] = root_fraction(p, 3);
    }
    return c;
}

static uint32_t rotate(uint32_t x, int n) {
    return x >> n | x << (32 - n);
}

static void add_block(uint32_t h[8], const Constants *c, const uint8_t block[BLOCK]) {
    uint32_t w[ROUNDS], v[8]; // v: a to h of the standard
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < ROUNDS; i++) {
        uint32_t x = w[i - 15], y = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (rotate(x, 7) ^ rotate(x, 18) ^ x >> 3) +
               (rotate(y, 17) ^ rotate(y, 19) ^ y >> 10);
    }
    memcpy(v, h, sizeof v);
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t choice = (v[4] & v[5]) ^ (~v[4] & v[6]),
                 majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        uint32_t t =
            v[7] + (rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25)) + choice + c->round[i] + w[i];
        uint32_t s = (rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)) + majority;
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += t;
        v[0] = t + s;
    }
    for (int i = 0; i < 8; i++) h[i] += v[i];
}

void sha256_hex(const void *bytes, size_t n, char out[65]) {
    Constants c = constants();
    uint32_t h[8];
    memcpy(h, c.start, sizeof h);
    const uint8_t *p = bytes;
    size_t left = n;
    for (; left >= BLOCK; p += BLOCK, left -= BLOCK) add_block(h, &c, p);

    uint8_t tail[2 * BLOCK] = {0}; // the rest, a one, zeros, and the length in bits
    size_t size = left < BLOCK - 8 ? BLOCK : 2 * BLOCK;
    if (left) memcpy(tail, p, left);
    tail[left] = 0x80;
    for (int i = 0; i < 8; i++) tail[size - 1 - (size_t)i] = (uint8_t)((uint64_t)n * 8 >> 8 * i);
    for (size_t at = 0; at < size; at += BLOCK) add_block(h, &c, tail + at);
    for (int i = 0; i < 8; i++) snprintf(out + 8 * i, 9, "%08x", h[i]);
}
