/* vec_avx512: sixteen lanes in one register.
 *
 * The vector functions of kernels_simd.h for AVX-512 F, BW, VL, DQ and VNNI: V holds 16 lanes of 32 bits (or
 * 64 bytes), F 16 floats; lane r belongs to row r of a panel.  vec_avx2.h has the same functions with two
 * registers each.
 *
 * The one trick: v_rows16 loads 16 bytes of each of 16 rows so that rows 4j .. 4j + 3 share 128-bit lane j;
 * then the in-lane unpack instructions alone move rows into lanes. */
#ifndef ZGEN_CPU_VEC_AVX512_H
#define ZGEN_CPU_VEC_AVX512_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef __m512i V;
typedef __m512 F;

/* How many activations share the weights in registers, heads a vector of K, and vectors of V a head: sums and
 * accumulators then fill half the register file. */
enum { VEC_T = 8, VEC_HEADS = 4, VEC_DIMS = 4 };

INLINE V v_set(uint32_t lane) {
    return _mm512_set1_epi32((int)lane);
}
INLINE V v_bytes(const int8_t *table) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)table));
}
INLINE V v_splat(const int32_t *p) {
    return _mm512_set1_epi32(*p);
}
INLINE void v_store(void *p, V a) {
    _mm512_storeu_si512(p, a);
}
INLINE V v_and(V a, V b) {
    return _mm512_and_si512(a, b);
}
INLINE V v_or(V a, V b) {
    return _mm512_or_si512(a, b);
}
INLINE V v_xor(V a, V b) {
    return _mm512_xor_si512(a, b);
}
INLINE V v_add(V a, V b) {
    return _mm512_add_epi32(a, b);
}
INLINE V v_sub(V a, V b) {
    return _mm512_sub_epi32(a, b);
}
INLINE V v_mul(V a, V b) {
    return _mm512_mullo_epi32(a, b);
}
INLINE V v_max(V a, V b) {
    return _mm512_max_epu32(a, b);
}
INLINE V v_shl(V a, int n) {
    return _mm512_slli_epi32(a, (unsigned)n);
}
INLINE V v_shr(V a, int n) {
    return _mm512_srli_epi32(a, (unsigned)n);
}
INLINE V v_sar(V a, int n) {
    return _mm512_srai_epi32(a, (unsigned)n);
}
INLINE V v_add_bytes(V a, V b) {
    return _mm512_add_epi8(a, b);
}

/* Where key == a the lane of yes, elsewhere of no. */
INLINE V v_if_equal(V a, V key, V yes, V no) {
    return _mm512_mask_blend_epi32(_mm512_cmpeq_epi32_mask(a, key), no, yes);
}

/* Each byte of index, 0..15, becomes the byte of table (16 bytes, four times over) that it names. */
INLINE V v_lookup(V table, V index) {
    return _mm512_shuffle_epi8(table, index);
}

/* Lane r becomes the 32 bits at table[index of lane r]. */
INLINE V v_gather(const uint32_t *table, V index) {
    return _mm512_i32gather_epi32(index, table, 4);
}

/* Bytes of a, plus those of b where the unsigned byte of key is bound or more. */
INLINE V v_add_from(V a, V key, V bound, V b) {
    return _mm512_mask_add_epi8(a, _mm512_cmpge_epu8_mask(key, bound), a, b);
}

/* Bytes of a, plus those of b where bits has one of the bits of mask. */
INLINE V v_add_where(V a, V bits, V mask, V b) {
    return _mm512_mask_add_epi8(a, _mm512_test_epi8_mask(bits, mask), a, b);
}

/* Lane r, byte by byte: sum + w[0] x[0] + .. + w[3] x[3], w unsigned, x signed.  wide: w may exceed 128. */
INLINE V v_dot4(V sum, V w, const int8_t *x, bool wide) {
    (void)wide;
    int32_t quad;
    memcpy(&quad, x, sizeof quad);
    return _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(quad));
}

INLINE V v_row4(const uint8_t *p, size_t stride) {
    V a = _mm512_castsi128_si512(_mm_loadu_si128((const void *)p));
    a = _mm512_mask_broadcast_i32x4(a, 0x00F0, _mm_loadu_si128((const void *)(p + 4 * stride)));
    a = _mm512_mask_broadcast_i32x4(a, 0x0F00, _mm_loadu_si128((const void *)(p + 8 * stride)));
    return _mm512_mask_broadcast_i32x4(a, 0xF000, _mm_loadu_si128((const void *)(p + 12 * stride)));
}

/* out[i] lane r = bytes 4i .. 4i + 3 at p + r * stride, for 16 rows. */
INLINE void v_rows16(const uint8_t *p, size_t stride, V *out) {
    V a = v_row4(p, stride), b = v_row4(p + stride, stride);
    V c = v_row4(p + 2 * stride, stride), d = v_row4(p + 3 * stride, stride);
    V ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
    out[0] = _mm512_unpacklo_epi64(ab, cd);
    out[1] = _mm512_unpackhi_epi64(ab, cd);
    ab = _mm512_unpackhi_epi32(a, b);
    cd = _mm512_unpackhi_epi32(c, d);
    out[2] = _mm512_unpacklo_epi64(ab, cd);
    out[3] = _mm512_unpackhi_epi64(ab, cd);
}

INLINE V v_row2(const uint8_t *p, size_t stride) {
    V a = _mm512_castsi256_si512(_mm256_loadu_si256((const void *)p));
    return _mm512_inserti64x4(a, _mm256_loadu_si256((const void *)(p + 4 * stride)), 1);
}

/* The dwords of rows 0 .. 7: out[i] lane j = dword i + 4 * (j % 2) of rows 4 * (j / 2) .. + 3, in lanes of
 * 128 bits. */
INLINE void v_half_rows32(const uint8_t *p, size_t stride, V *out) {
    V a = v_row2(p, stride), b = v_row2(p + stride, stride);
    V c = v_row2(p + 2 * stride, stride), d = v_row2(p + 3 * stride, stride);
    V ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
    out[0] = _mm512_unpacklo_epi64(ab, cd);
    out[1] = _mm512_unpackhi_epi64(ab, cd);
    ab = _mm512_unpackhi_epi32(a, b);
    cd = _mm512_unpackhi_epi32(c, d);
    out[2] = _mm512_unpacklo_epi64(ab, cd);
    out[3] = _mm512_unpackhi_epi64(ab, cd);
}

/* The same for 32 bytes of each row and 8 vectors. */
INLINE void v_rows32(const uint8_t *p, size_t stride, V *out) {
    V a[4], b[4];
    v_half_rows32(p, stride, a);
    v_half_rows32(p + 8 * stride, stride, b);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        out[i] = _mm512_shuffle_i32x4(a[i], b[i], 0x88);
        out[i + 4] = _mm512_shuffle_i32x4(a[i], b[i], 0xDD);
    }
}

/* Sixteen int8 as lanes. */
INLINE V v_load_i8(const int8_t *p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p));
}

/* Sixteen int16 as lanes; or, in the first eight lanes, the sums of adjacent ones. */
INLINE V v_load_i16(const int16_t *p) {
    return _mm512_cvtepi16_epi32(_mm256_loadu_si256((const void *)p));
}
INLINE V v_load_i16_pairs(const int16_t *p) {
    __m256i ones = _mm256_set1_epi16(1);
    return _mm512_castsi256_si512(_mm256_madd_epi16(_mm256_loadu_si256((const void *)p), ones));
}

/* The low byte of each lane. */
INLINE void v_store_i8(int8_t *p, V a) {
    _mm_storeu_si128((void *)p, _mm512_cvtepi32_epi8(a));
}
INLINE int v_sum(V a) {
    return _mm512_reduce_add_epi32(a);
}
INLINE uint32_t v_max_lane(V a) {
    return _mm512_reduce_max_epu32(a);
}

INLINE F f_set(float x) {
    return _mm512_set1_ps(x);
}
INLINE F f_load(const float *p) {
    return _mm512_loadu_ps(p);
}
INLINE void f_store(float *p, F a) {
    _mm512_storeu_ps(p, a);
}
INLINE F f_add(F a, F b) {
    return _mm512_add_ps(a, b);
}
INLINE F f_sub(F a, F b) {
    return _mm512_sub_ps(a, b);
}
INLINE F f_mul(F a, F b) {
    return _mm512_mul_ps(a, b);
}
INLINE F f_div(F a, F b) {
    return _mm512_div_ps(a, b);
}
INLINE F f_max(F a, F b) { // b where either is NaN
    return _mm512_max_ps(a, b);
}
INLINE F f_min(F a, F b) { // b where either is NaN
    return _mm512_min_ps(a, b);
}
INLINE F f_fma(F a, F b, F c) {
    return _mm512_fmadd_ps(a, b, c);
} // a * b + c, rounded once
INLINE F f_fnma(F a, F b, F c) {
    return _mm512_fnmadd_ps(a, b, c);
} // c - a * b, rounded once
INLINE F f_abs(F a) {
    return _mm512_abs_ps(a);
}
INLINE F f_round(F a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE F f_of_int(V a) {
    return _mm512_cvtepi32_ps(a);
}
INLINE V f_to_int(F a) {
    return _mm512_cvtps_epi32(a);
} // half to even
INLINE F f_of_bits(V a) {
    return _mm512_castsi512_ps(a);
}
INLINE V f_bits(F a) {
    return _mm512_castps_si512(a);
}
INLINE float f_sum(F a) {
    return _mm512_reduce_add_ps(a);
}

/* out[i] = the sum of the lanes of x[i], for four of them. */
INLINE void f_sums4(const F *x, float *out) {
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
    __m512 all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}
INLINE float f_max_lane(F a) {
    return _mm512_reduce_max_ps(a);
}

/* 0 where x < bound, else (also where x is NaN) a. */
INLINE F f_zero_below(F a, F x, F bound) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_NLT_UQ), a);
}

/* yes where the sign of a is set, elsewhere no. */
INLINE F f_if_negative(F a, F yes, F no) {
    return _mm512_mask_blend_ps(_mm512_movepi32_mask(f_bits(a)), no, yes);
}

/* The f16 in the low half of each lane. */
INLINE F f_half(V a) {
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a));
}
INLINE F f_load_half(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}
INLINE void f_store_half(uint16_t *p, F a) {
    _mm256_storeu_si256((void *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

/* Asks for the cache line at p; an address without memory behind it is harmless. */
INLINE void v_prefetch(uintptr_t p) {
    _mm_prefetch((const char *)p, _MM_HINT_T0);
}

#endif
