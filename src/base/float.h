/* float: the small floating-point formats as bits, and the little-endian loads and stores that move them from
 * and to a file.
 *
 * Every conversion is exact or rounds half to even, subnormals included, and gives the bits of the hardware's
 * own instruction (F16C, NEON; CUDA but for the payload of a NaN), so that a kernel may use either.  Loads go
 * byte by byte: block data may start at any address.
 *
 *                   sign exponent mantissa  bias
 *     f16              1        5       10    15   NaN and Inf as in f32; signalling NaNs come out quiet
 *     bf16             1        8        7   127   the upper half of an f32
 *     e4m3 (e4m3fn)    1        4        3     7   no Inf; 0x7F and 0xFF are NaN; largest 448
 *     ue4m3            -        4        3     7   scales of NVFP4: bit 7 is ignored, 0x7F reads as zero
 *     e8m0             -        8        0   127   scales of MXFP4: a power of two
 *
 * The one trick: shifted into an f32's magnitude, a small format's exponent is too small by a constant; one
 * exact multiplication by a power of two corrects the exponent and normalises subnormals. */
#ifndef ZGEN_BASE_FLOAT_H
#define ZGEN_BASE_FLOAT_H

#include <stdint.h>
#include <string.h>

/* Marks functions that CUDA kernels call as well. */
#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif

HOST_DEVICE static inline float f32_from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

HOST_DEVICE static inline uint32_t f32_to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

HOST_DEVICE static inline float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = (uint32_t)(h & 0x7FFF) << 13;
    if (magnitude >= 0x0F800000) { // Inf, NaN
        uint32_t quiet = magnitude > 0x0F800000 ? 0x00400000 : 0;
        return f32_from_bits(sign | 0x7F800000 | quiet | magnitude);
    }
    return f32_from_bits(sign | f32_to_bits(f32_from_bits(magnitude) * 0x1p112f));
}

/* Rounds half to even; Inf from 65520 on, half a step beyond the largest f16. */
HOST_DEVICE static inline uint16_t f32_to_f16(float x) {
    uint32_t bits = f32_to_bits(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) return (uint16_t)(sign | 0x7E00 | (magnitude >> 13 & 0x03FF));
    if (magnitude >= f32_to_bits(65520.0f)) return (uint16_t)(sign | 0x7C00);
    if (magnitude < f32_to_bits(0x1p-14f)) // the last bit of 0.5f weighs 2^-24, as that of a subnormal f16
        return (uint16_t)(sign | (f32_to_bits(f32_from_bits(magnitude) + 0.5f) - f32_to_bits(0.5f)));
    uint32_t even = magnitude >> 13 & 1;
    return (uint16_t)(sign | (((magnitude + 0x0FFF + even) >> 13) - ((127 - 15) << 10)));
}

HOST_DEVICE static inline float bf16_to_f32(uint16_t h) {
    return f32_from_bits((uint32_t)h << 16);
}

HOST_DEVICE static inline uint16_t f32_to_bf16(float x) {
    uint32_t bits = f32_to_bits(x);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(bits >> 16 | 0x0040);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

HOST_DEVICE static inline float e4m3_to_f32(uint8_t b) {
    uint32_t sign = (uint32_t)(b & 0x80) << 24, magnitude = (uint32_t)(b & 0x7F) << 20;
    if (magnitude == 0x07F00000) return f32_from_bits(sign | 0x7FC00000);
    return f32_from_bits(sign | f32_to_bits(f32_from_bits(magnitude) * 0x1p120f));
}

/* Magnitudes beyond 448, Inf included, become 448. */
HOST_DEVICE static inline uint8_t f32_to_e4m3(float x) {
    uint32_t bits = f32_to_bits(x), sign = bits >> 24 & 0x80, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) return (uint8_t)(sign | 0x7F);
    if (magnitude >= f32_to_bits(448.0f)) return (uint8_t)(sign | 0x7E);
    if (magnitude < f32_to_bits(0x1p-6f)) // the last bit of 0x1p14f weighs 2^-9, as that of a subnormal e4m3
        return (uint8_t)(sign | (f32_to_bits(f32_from_bits(magnitude) + 0x1p14f) - f32_to_bits(0x1p14f)));
    uint32_t even = magnitude >> 20 & 1;
    return (uint8_t)(sign | (((magnitude + 0x0007FFFF + even) >> 20) - ((127 - 7) << 3)));
}

HOST_DEVICE static inline float ue4m3_to_f32(uint8_t b) {
    uint32_t magnitude = (uint32_t)(b & 0x7F) << 20;
    return magnitude == 0x07F00000 ? 0.0f : f32_from_bits(magnitude) * 0x1p120f;
}

/* Half of the scale, 2^(b - 128): the whole scale is beyond the range of f32 at b = 255. */
HOST_DEVICE static inline float e8m0_half_to_f32(uint8_t b) {
    return f32_from_bits(b < 2 ? 0x00200000u << b : (uint32_t)(b - 1) << 23);
}

HOST_DEVICE static inline uint16_t load_u16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

HOST_DEVICE static inline uint32_t load_u32(const uint8_t *p) {
    return load_u16(p) | (uint32_t)load_u16(p + 2) << 16;
}

HOST_DEVICE static inline void store_u16(uint8_t *at, uint16_t x) {
    at[0] = (uint8_t)x;
    at[1] = (uint8_t)(x >> 8);
}

HOST_DEVICE static inline void store_u32(uint8_t *at, uint32_t x) {
    store_u16(at, (uint16_t)x);
    store_u16(at + 2, (uint16_t)(x >> 16));
}

HOST_DEVICE static inline float load_f16(const uint8_t *p) {
    return f16_to_f32(load_u16(p));
}

#endif
