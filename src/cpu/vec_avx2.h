/* vec_avx2: sixteen lanes in two registers.
 *
 * The vector functions of kernels_simd.h for AVX2, FMA and F16C; vec_avx512.h has the same functions with one
 * register.  Lanes 0 .. 7 are in a, 8 .. 15 in b.
 *
 * The one trick: maddubs adds two products in 16 bits and saturates beyond 32767, but unsigned weights up to
 * 128 times signed activations up to 127 stay below; wider weights are taken in two parts, the top bit
 * apart. */
#ifndef ZGEN_CPU_VEC_AVX2_H
#define ZGEN_CPU_VEC_AVX2_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef struct V {
    __m256i a, b;
} V;

typedef struct F {
    __m256 a, b;
} F;

/* How many activations share the weights in registers, heads a vector of K, and vectors of V a head. */
enum { VEC_T = 2, VEC_HEADS = 2, VEC_DIMS = 2 };

INLINE V v_set(uint32_t lane) {
    return (V){_mm256_set1_epi32((int)lane), _mm256_set1_epi32((int)lane)};
}
INLINE V v_bytes(const int8_t *table) {
    __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)table));
    return (V){t, t};
}
INLINE V v_splat(const int32_t *p) {
    return v_set((uint32_t)*p);
}
INLINE void v_store(void *p, V x) {
    __m256i *q = p;
    _mm256_storeu_si256(q, x.a);
    _mm256_storeu_si256(q + 1, x.b);
}
INLINE V v_and(V x, V y) {
    return (V){_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)};
}
INLINE V v_or(V x, V y) {
    return (V){_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)};
}
INLINE V v_xor(V x, V y) {
    return (V){_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)};
}
INLINE V v_add(V x, V y) {
    return (V){_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)};
}
INLINE V v_sub(V x, V y) {
    return (V){_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)};
}
INLINE V v_mul(V x, V y) {
    return (V){_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)};
}
INLINE V v_max(V x, V y) {
    return (V){_mm256_max_epu32(x.a, y.a), _mm256_max_epu32(x.b, y.b)};
}
INLINE V v_shl(V x, int n) {
    return (V){_mm256_slli_epi32(x.a, n), _mm256_slli_epi32(x.b, n)};
}
INLINE V v_shr(V x, int n) {
    return (V){_mm256_srli_epi32(x.a, n), _mm256_srli_epi32(x.b, n)};
}
INLINE V v_sar(V x, int n) {
    return (V){_mm256_srai_epi32(x.a, n), _mm256_srai_epi32(x.b, n)};
}
INLINE V v_add_bytes(V x, V y) {
    return (V){_mm256_add_epi8(x.a, y.a), _mm256_add_epi8(x.b, y.b)};
}

/* Where key == x the lane of yes, elsewhere of no. */
INLINE V v_if_equal(V x, V key, V yes, V no) {
    return (V){_mm256_blendv_epi8(no.a, yes.a, _mm256_cmpeq_epi32(x.a, key.a)),
               _mm256_blendv_epi8(no.b, yes.b, _mm256_cmpeq_epi32(x.b, key.b))};
}

/* Each byte of index, 0..15, becomes the byte of table (16 bytes, four times over) that it names. */
INLINE V v_lookup(V table, V index) {
    return (V){_mm256_shuffle_epi8(table.a, index.a), _mm256_shuffle_epi8(table.b, index.b)};
}

/* Lane r becomes the 32 bits at table[index of lane r]. */
INLINE V v_gather(const uint32_t *table, V index) {
    return (V){_mm256_i32gather_epi32((const int *)table, index.a, 4),
               _mm256_i32gather_epi32((const int *)table, index.b, 4)};
}

/* Bytes of x, plus those of y where the unsigned byte of key is bound or more. */
INLINE V v_add_from(V x, V key, V bound, V y) {
    __m256i a = _mm256_cmpeq_epi8(_mm256_max_epu8(key.a, bound.a), key.a);
    __m256i b = _mm256_cmpeq_epi8(_mm256_max_epu8(key.b, bound.b), key.b);
    return v_add_bytes(x, v_and((V){a, b}, y));
}

/* Bytes of x, plus those of y where bits has the one bit of mask. */
INLINE V v_add_where(V x, V bits, V mask, V y) {
    __m256i a = _mm256_cmpeq_epi8(_mm256_and_si256(bits.a, mask.a), mask.a);
    __m256i b = _mm256_cmpeq_epi8(_mm256_and_si256(bits.b, mask.b), mask.b);
    return v_add_bytes(x, v_and((V){a, b}, y));
}

INLINE __m256i dot4_half(__m256i sum, __m256i w, __m256i x) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}

/* Lane r, byte by byte: sum + w[0] x[0] + .. + w[3] x[3], w unsigned, x signed.  wide: w may exceed 128. */
INLINE V v_dot4(V sum, V w, const int8_t *x, bool wide) {
    int32_t quad;
    memcpy(&quad, x, sizeof quad);
    __m256i xs = _mm256_set1_epi32(quad);
    if (wide) {
        V top = v_and(w, v_set(0x80808080));
        w = v_xor(w, top);
        sum = (V){dot4_half(sum.a, top.a, xs), dot4_half(sum.b, top.b, xs)};
    }
    return (V){dot4_half(sum.a, w.a, xs), dot4_half(sum.b, w.b, xs)};
}

INLINE __m256i v_row2(const uint8_t *p, size_t stride) {
    __m128i low = _mm_loadu_si128((const void *)p), high = _mm_loadu_si128((const void *)(p + 4 * stride));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

INLINE void v_rows8(const uint8_t *p, size_t stride, __m256i *out) {
    __m256i a = v_row2(p, stride), b = v_row2(p + stride, stride);
    __m256i c = v_row2(p + 2 * stride, stride), d = v_row2(p + 3 * stride, stride);
    __m256i ab = _mm256_unpacklo_epi32(a, b), cd = _mm256_unpacklo_epi32(c, d);
    out[0] = _mm256_unpacklo_epi64(ab, cd);
    out[1] = _mm256_unpackhi_epi64(ab, cd);
    ab = _mm256_unpackhi_epi32(a, b);
    cd = _mm256_unpackhi_epi32(c, d);
    out[2] = _mm256_unpacklo_epi64(ab, cd);
    out[3] = _mm256_unpackhi_epi64(ab, cd);
}

/* out[i] lane r = bytes 4i .. 4i + 3 at p + r * stride, for 16 rows. */
INLINE void v_rows16(const uint8_t *p, size_t stride, V *out) {
    __m256i a[4], b[4];
    v_rows8(p, stride, a);
    v_rows8(p + 8 * stride, stride, b);
    out[0] = (V){a[0], b[0]};
    out[1] = (V){a[1], b[1]};
    out[2] = (V){a[2], b[2]};
    out[3] = (V){a[3], b[3]};
}

/* The same for 32 bytes of each row and 8 vectors. */
INLINE void v_rows32(const uint8_t *p, size_t stride, V *out) {
    v_rows16(p, stride, out);
    v_rows16(p + 16, stride, out + 4);
}

/* Sixteen int8 as lanes. */
INLINE V v_load_i8(const int8_t *p) {
    return (V){_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)),
               _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(p + 8)))};
}

/* Sixteen int16 as lanes; or, in the first eight lanes, the sums of adjacent ones. */
INLINE V v_load_i16(const int16_t *p) {
    return (V){_mm256_cvtepi16_epi32(_mm_loadu_si128((const void *)p)),
               _mm256_cvtepi16_epi32(_mm_loadu_si128((const void *)(p + 8)))};
}
INLINE V v_load_i16_pairs(const int16_t *p) {
    __m256i sums = _mm256_madd_epi16(_mm256_loadu_si256((const void *)p), _mm256_set1_epi16(1));
    return (V){sums, sums};
}

/* The low byte of each lane; each lane fits int8. */
INLINE void v_store_i8(int8_t *p, V x) {
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xD8);
    _mm_storeu_si128((void *)p,
                     _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
INLINE int v_sum(V x) {
    __m256i a = _mm256_add_epi32(x.a, x.b);
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
}
INLINE uint32_t v_max_lane(V x) {
    __m256i a = _mm256_max_epu32(x.a, x.b);
    __m128i s = _mm_max_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_max_epu32(s, _mm_shuffle_epi32(s, 0x4E));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epu32(s, _mm_shuffle_epi32(s, 0xB1)));
}

INLINE F f_set(float x) {
    return (F){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
INLINE F f_load(const float *p) {
    return (F){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
INLINE void f_store(float *p, F x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
INLINE F f_add(F x, F y) {
    return (F){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
INLINE F f_sub(F x, F y) {
    return (F){_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
INLINE F f_mul(F x, F y) {
    return (F){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
INLINE F f_div(F x, F y) {
    return (F){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
INLINE F f_max(F x, F y) { // y where either is NaN
    return (F){_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}
INLINE F f_min(F x, F y) { // y where either is NaN
    return (F){_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
}
INLINE F f_fma(F x, F y, F z) { // x * y + z, rounded once
    return (F){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
INLINE F f_fnma(F x, F y, F z) { // z - x * y, rounded once
    return (F){_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
}
INLINE F f_of_bits(V x) {
    return (F){_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)};
}
INLINE V f_bits(F x) {
    return (V){_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)};
}
INLINE F f_abs(F x) {
    return f_of_bits(v_and(f_bits(x), v_set(0x7FFFFFFF)));
}
INLINE F f_round(F x) { // half to even
    return (F){_mm256_round_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
               _mm256_round_ps(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
INLINE F f_of_int(V x) {
    return (F){_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)};
}
INLINE V f_to_int(F x) {
    return (V){_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)};
} // half to even
INLINE float f_sum(F x) {
    __m256 a = _mm256_add_ps(x.a, x.b);
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* out[i] = the sum of the lanes of x[i], for four of them. */
INLINE void f_sums4(const F *x, float *out) {
    __m256 a = _mm256_add_ps(x[0].a, x[0].b), b = _mm256_add_ps(x[1].a, x[1].b);
    __m256 c = _mm256_add_ps(x[2].a, x[2].b), d = _mm256_add_ps(x[3].a, x[3].b);
    __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    __m256 all = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xEE));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}
INLINE float f_max_lane(F x) {
    __m256 a = _mm256_max_ps(x.a, x.b);
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/* 0 where x < bound, else (also where x is NaN) y. */
INLINE F f_zero_below(F y, F x, F bound) {
    return (F){_mm256_and_ps(y.a, _mm256_cmp_ps(x.a, bound.a, _CMP_NLT_UQ)),
               _mm256_and_ps(y.b, _mm256_cmp_ps(x.b, bound.b, _CMP_NLT_UQ))};
}

/* yes where the sign of x is set, elsewhere no. */
INLINE F f_if_negative(F x, F yes, F no) {
    return (F){_mm256_blendv_ps(no.a, yes.a, x.a), _mm256_blendv_ps(no.b, yes.b, x.b)};
}

/* The f16 in the low half of each lane. */
INLINE F f_half(V x) {
    V low = v_and(x, v_set(0xFFFF));
    __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(low.a, low.b), 0xD8);
    return (F){_mm256_cvtph_ps(_mm256_castsi256_si128(words)),
               _mm256_cvtph_ps(_mm256_extracti128_si256(words, 1))};
}
INLINE F f_load_half(const uint16_t *p) {
    return (F){_mm256_cvtph_ps(_mm_loadu_si128((const void *)p)),
               _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 8)))};
}
INLINE void f_store_half(uint16_t *p, F x) {
    _mm_storeu_si128((void *)p, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128((void *)(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

/* Asks for the cache line at p; an address without memory behind it is harmless. */
INLINE void v_prefetch(uintptr_t p) {
    _mm_prefetch((const char *)p, _MM_HINT_T0);
}

#endif
