/* kernels_simd: the fast kernels, written once.
 *
 * The file of an instruction set includes its vector functions (vec_avx512.h or vec_avx2.h) and then this
 * file, and defines a table of kernels by its name and by when it is supported.  Products are in
 * matmul_simd.h; here are the kernels over single rows, and attention.
 *
 * The one trick: a vector cut short (tail, store_tail) is padded with zeros, which change no sum and no
 * maximum of magnitudes, so that each kernel is one loop without a second, scalar one. */
#ifndef ZGEN_CPU_KERNELS_SIMD_H
#define ZGEN_CPU_KERNELS_SIMD_H

#include "../base/float.h"
#include "matmul_simd.h"

#include <math.h>

enum { LANES = 16, SCORE_SUMS = 8 };

/* The first n (at least 1) of 16 floats, the others 0. */
INLINE F tail(const float *p, int n) {
    if (n >= LANES) return f_load(p);
    float padded[LANES] = {0};
    memcpy(padded, p, (size_t)n * sizeof *p);
    return f_load(padded);
}

INLINE void store_tail(float *p, int n, F a) {
    if (n >= LANES) {
        f_store(p, a);
        return;
    }
    float padded[LANES];
    f_store(padded, a);
    memcpy(p, padded, (size_t)n * sizeof *p);
}

static void quantize(const float *x, int n, Act8 out) {
    for (int i = 0; i < n; i += ACT8_GROUP) {
        F a = f_load(x + i), b = f_load(x + i + LANES);
        V magnitudes = v_set(0x7FFFFFFF), none = v_set(0);
        uint32_t bits = v_max_lane(v_max(v_and(f_bits(a), magnitudes), v_and(f_bits(b), magnitudes)));
        float amax = f32_from_bits(bits);
        bool finite = bits < 0x7F800000, fits = finite && amax >= ACT8_TINY;
        F inverse = f_set(fits ? 127 / amax : 0);
        V qa = fits ? f_to_int(f_mul(a, inverse)) : none, qb = fits ? f_to_int(f_mul(b, inverse)) : none;
        v_store_i8(out.q + i, qa);
        v_store_i8(out.q + i + LANES, qb);
        out.sum[i / ACT8_SUM] = (int16_t)v_sum(qa);
        out.sum[i / ACT8_SUM + 1] = (int16_t)v_sum(qb);
        out.d[i / ACT8_GROUP] = fits ? amax / 127 : finite ? 0 : NAN;
    }
}

/* out = x - mean(x). */
static void subtract_mean(const float *x, int n, float *out) {
    F sums = f_set(0);
    for (int i = 0; i < n; i += LANES) sums = f_add(sums, tail(x + i, n - i));
    F mean = f_set(f_sum(sums) / (float)n);
    for (int i = 0; i < n; i += LANES) store_tail(out + i, n - i, f_sub(tail(x + i, n - i), mean));
}

static void norm(const NormParams *p, const float *x, int n, float *out) {
    if (p->centred) {
        subtract_mean(x, n, out);
        x = out;
    }
    F sums = f_set(0);
    for (int i = 0; i < n; i += LANES) {
        F a = tail(x + i, n - i);
        sums = f_fma(a, a, sums);
    }
    F scale = f_set((float)(1 / sqrt((double)f_sum(sums) / n + (double)p->eps)));
    for (int i = 0; i < n; i += LANES) {
        F y = f_mul(tail(x + i, n - i), scale);
        if (p->weight) y = f_mul(y, tail(p->weight + i, n - i));
        if (p->bias) y = f_add(y, tail(p->bias + i, n - i));
        store_tail(out + i, n - i, y);
    }
}

/* exp(x) for x <= 0, within 2e-7; below the normal range 0.  x = m ln 2 + r, the series of exp(r) to the
 * seventh power, and 2^m by the exponent's bits.  ln 2 is taken in two parts, so that m times the first is
 * exact.  NaN stays NaN. */
INLINE F exp_negative(F x) {
    F lowest = f_set(-87.336544f), at = f_max(lowest, x); // -126 ln 2
    F m = f_round(f_mul(at, f_set(1.44269504f)));
    F r = f_fnma(m, f_set(-2.12194440e-4f), f_fnma(m, f_set(0.693359375f), at));
    static const float coefficients[] = {1 / 720.f, 1 / 120.f, 1 / 24.f, 1 / 6.f, 1 / 2.f, 1, 1};
    F power = f_set(1 / 5040.f);
#pragma GCC unroll 7
    for (int i = 0; i < 7; i++) power = f_fma(power, r, f_set(coefficients[i]));
    V exponent = v_shl(f_to_int(m), 23);
    return f_zero_below(f_of_bits(v_add(f_bits(power), exponent)), x, lowest);
}

/* x / (1 + exp(-z)), without a power that could overflow. */
INLINE F times_sigmoid(F x, F z) {
    F e = exp_negative(f_sub(f_set(0), f_abs(z)));
    return f_div(f_if_negative(z, f_mul(x, e), x), f_add(f_set(1), e));
}

INLINE F gelu(F x) {
    F cube = f_mul(f_mul(x, x), x);
    return times_sigmoid(x, f_mul(f_set(1.5957691f), f_fma(f_set(0.044715f), cube, x)));
}

INLINE F at_most(F x, float limit) {
    return f_min(f_set(limit), x);
}
INLINE F clip(F x, float limit) {
    return f_max(f_set(-limit), at_most(x, limit));
}

INLINE F activate(const GluParams *p, F x) {
    F positive = f_max(f_set(0), x);
    switch (p->act) {
    case ACT_SILU:
        return times_sigmoid(x, x);
    case ACT_GELU:
        return gelu(x);
    case ACT_RELU2:
        return f_mul(positive, positive);
    case ACT_SIGMOID:
        return times_sigmoid(f_set(1), x);
    case ACT_SWIGLU_OAI:
        return times_sigmoid(at_most(x, 7), f_mul(f_set(1.702f), at_most(x, 7)));
    case ACT_CLAMPED:
        return at_most(times_sigmoid(x, x), p->limit);
    default:
        return x;
    }
}

/* What the activated gate is multiplied with. */
INLINE F factor(const GluParams *p, F up) {
    if (p->act == ACT_SWIGLU_OAI) return f_add(clip(up, 7), f_set(1));
    return p->act == ACT_CLAMPED ? clip(up, p->limit) : up;
}

static void glu(const GluParams *p, const float *gate, const float *up, int n, float *out) {
    if (p->act == ACT_XIELU) { // one rare family: its loop with expm1f
        kernels_scalar.glu(p, gate, up, n, out);
        return;
    }
    for (int i = 0; i < n; i += LANES) {
        F value = activate(p, tail(gate + i, n - i));
        store_tail(out + i, n - i, up ? f_mul(value, factor(p, tail(up + i, n - i))) : value);
    }
}

/* tanh(x) = (1 - e) / (1 + e) with e = exp(-2x), for x >= 0. */
static void softcap(float cap, const float *x, int n, float *out) {
    for (int i = 0; i < n; i += LANES) {
        F a = tail(x + i, n - i), zero = f_set(0), one = f_set(1);
        F e = exp_negative(f_sub(zero, f_abs(f_mul(a, f_set(2 / cap)))));
        F t = f_mul(f_set(cap), f_div(f_sub(one, e), f_add(one, e)));
        store_tail(out + i, n - i, f_if_negative(a, f_sub(zero, t), t));
    }
}

static void to_f16(const float *x, int n, uint16_t *out) {
    int i = 0;
    for (; i + LANES <= n; i += LANES) f_store_half(out + i, f_load(x + i));
    if (i == n) return;
    uint16_t padded[LANES];
    f_store_half(padded, tail(x + i, n - i));
    memcpy(out + i, padded, (size_t)(n - i) * sizeof *out);
}

/* Up to 16 elements of the cache from number i on, n at most; those of 8 bits always come in sixteens. */
INLINE F kv_load(const KvType type, KvRows rows, size_t i, int n) {
    const void *cells = rows.cells;
    if (type == KV_F32) return tail((const float *)cells + i, n);
    if (type == KV_FP8) return e4m3(v_load_i8((const int8_t *)cells + i), 0);
    if (type == KV_Q8_0) {
        F q = f_of_int(v_load_i8((const int8_t *)cells + i));
        return f_mul(q, f_half(v_set(rows.scales[i / KV_SCALED])));
    }
    const uint16_t *from = (const uint16_t *)cells + i;
    if (n >= LANES) return f_load_half(from);
    uint16_t padded[LANES] = {0};
    memcpy(padded, from, (size_t)n * sizeof *from);
    return f_load_half(padded);
}

/* The rows of K or V in the page of the i-th position seen; *at: the element where that position begins; *n:
 * positions seen from there on in the same page. */
INLINE KvRows kv_page(const AttnJob *job, CachePart part, int i, size_t *at, int *n) {
    int position = job->first + i, left = job->n_pos - i, in_page = position % CACHE_PAGE;
    *at = (size_t)in_page * (size_t)job->cache->layer.pitch[part];
    *n = left < CACHE_PAGE - in_page ? left : CACHE_PAGE - in_page;
    return cache_rows(job->cache, job->pages[position / CACHE_PAGE], part, job->head);
}

/* Scores of n_q heads from head h on with the n_rows positions from number `pos` on, whose K begin at element
 * `at`; n_q and n_rows are constants.  A vector of K is loaded once for all heads, one of q for all rows, and the
 * lanes of four sums are added together. */
INLINE void score_rows(const AttnJob *job, const KvType type, int h, const int n_q, const int n_rows, int pos,
                       KvRows rows, size_t at) {
    const int width = job->cache->layer.width[CACHE_K], pitch = job->cache->layer.pitch[CACHE_K];
    const float *q = job->q + (size_t)h * (size_t)width;
    float *scores = job->scores + (size_t)h * (size_t)job->n_pos + (size_t)pos, totals[SCORE_SUMS];
    F sum[SCORE_SUMS], k[SCORE_SUMS];
#pragma GCC unroll 8
    for (int i = 0; i < SCORE_SUMS; i++) sum[i] = f_set(0);
    for (int d = 0; d < width; d += LANES) {
#pragma GCC unroll 8
        for (int r = 0; r < n_rows; r++) k[r] = kv_load(type, rows, at + (size_t)(r * pitch + d), width - d);
#pragma GCC unroll 8
        for (int i = 0; i < n_q; i++) {
            F of_head = tail(q + i * width + d, width - d);
#pragma GCC unroll 8
            for (int r = 0; r < n_rows; r++) sum[i * n_rows + r] = f_fma(k[r], of_head, sum[i * n_rows + r]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < n_q * n_rows; i += 4) f_sums4(sum + i, totals + i);
#pragma GCC unroll 8
    for (int i = 0; i < n_q * n_rows; i++)
        scores[(size_t)(i / n_rows) * (size_t)job->n_pos + (size_t)(i % n_rows)] = totals[i] * job->scale;
}

/* Scores of n_q (a constant) heads from head h on. */
INLINE void attn_scores(const AttnJob *job, const KvType type, int h, const int n_q) {
    const int n_rows = n_q == 1 ? 4 : 2; // at once
    size_t pitch = (size_t)job->cache->layer.pitch[CACHE_K];
    for (int pos = 0, end, n; pos < job->n_pos; pos = end) {
        size_t at;
        KvRows rows = kv_page(job, CACHE_K, pos, &at, &n);
        end = pos + n;
        int row = pos;
        for (; row + n_rows <= end; row += n_rows, at += (size_t)n_rows * pitch)
            score_rows(job, type, h, n_q, n_rows, row, rows, at);
        for (; row < end; row++, at += pitch) score_rows(job, type, h, n_q, 1, row, rows, at);
    }
}

/* scores become exp(score - max); returns one over their sum.  The sink, if not NULL, is a score of both that
 * has no value. */
static float attn_weights(float *scores, int n, const float *sink) {
    F maxima = f_set(sink ? *sink : scores[0]), sums = f_set(0);
    for (int i = 0; i + LANES <= n; i += LANES) maxima = f_max(maxima, f_load(scores + i));
    float max = f_max_lane(maxima);
    for (int i = n / LANES * LANES; i < n; i++) max = fmaxf(max, scores[i]);
    for (int i = 0; i < n; i += LANES) {
        store_tail(scores + i, n - i, exp_negative(f_sub(tail(scores + i, n - i), f_set(max))));
        sums = f_add(sums, tail(scores + i, n - i)); // loaded again: behind the end they are no zeros
    }
    return 1 / (sink ? f_sum(sums) + expf(*sink - max) : f_sum(sums));
}

/* out[h ..][d .. d + 16 * n_vec] of n_q heads; n_q and n_vec are constants. */
INLINE void attn_values(const AttnJob *job, const KvType type, int h, const int n_q, int d, const int n_vec,
                        const float *inverse) {
    const int width = job->cache->layer.width[CACHE_V], pitch = job->cache->layer.pitch[CACHE_V];
    const float *scores = job->scores + (size_t)h * (size_t)job->n_pos;
    F sum[VEC_HEADS][VEC_DIMS];
#pragma GCC unroll 4
    for (int i = 0; i < n_q; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < n_vec; j++) sum[i][j] = f_set(0);
    }
    for (int pos = 0, end, n; pos < job->n_pos; pos = end) {
        size_t at;
        KvRows rows = kv_page(job, CACHE_V, pos, &at, &n);
        end = pos + n;
        for (int row = pos; row < end; row++, at += (size_t)pitch) {
            F v[VEC_DIMS];
#pragma GCC unroll 4
            for (int j = 0; j < n_vec; j++)
                v[j] = kv_load(type, rows, at + (size_t)(d + j * LANES), width - d - j * LANES);
#pragma GCC unroll 4
            for (int i = 0; i < n_q; i++) {
                F weight = f_set(scores[(size_t)i * (size_t)job->n_pos + (size_t)row]);
#pragma GCC unroll 4
                for (int j = 0; j < n_vec; j++) sum[i][j] = f_fma(weight, v[j], sum[i][j]);
            }
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < n_q; i++) {
        float *out = job->out + (size_t)(h + i) * (size_t)width + d;
#pragma GCC unroll 4
        for (int j = 0; j < n_vec; j++)
            store_tail(out + j * LANES, width - d - j * LANES, f_mul(sum[i][j], f_set(inverse[i])));
    }
}

/* n_q heads from head h on, all the way. */
INLINE void attn_heads(const AttnJob *job, const KvType type, int h, const int n_q) {
    float inverse[VEC_HEADS];
    attn_scores(job, type, h, n_q);
    for (int i = 0; i < n_q; i++) {
        float *scores = job->scores + (size_t)(h + i) * (size_t)job->n_pos;
        if (job->softcap != 0) softcap(job->softcap, scores, job->n_pos, scores);
        inverse[i] = attn_weights(scores, job->n_pos, job->sinks ? &job->sinks[h + i] : NULL);
    }
    int d = 0, width = job->cache->layer.width[CACHE_V];
    for (; width - d >= VEC_DIMS * LANES; d += VEC_DIMS * LANES)
        attn_values(job, type, h, n_q, d, VEC_DIMS, inverse);
    for (; d < width; d += LANES) attn_values(job, type, h, n_q, d, 1, inverse);
}

INLINE void attn_all(const AttnJob *job, const KvType type) {
    int h = 0;
    for (; job->n_q - h >= VEC_HEADS; h += VEC_HEADS) attn_heads(job, type, h, VEC_HEADS);
    for (; job->n_q - h >= 2; h += 2) attn_heads(job, type, h, 2);
    for (; h < job->n_q; h++) attn_heads(job, type, h, 1);
}

static void attn(const AttnJob *job) {
    switch (job->cache->layer.type) { // constants, for each of which the loops are compiled
    case KV_F16:
        return attn_all(job, KV_F16);
    case KV_Q8_0:
        return attn_all(job, KV_Q8_0);
    case KV_FP8:
        return attn_all(job, KV_FP8);
    default:
        return attn_all(job, KV_F32);
    }
}

enum { STATE_VECS = 4 }; // vectors of columns whose sums are kept in registers

/* Columns c .. c + 16 * n_vec of a state; n_vec and update are constants. */
INLINE void state_columns(const StateJob *job, int c, const int n_vec, const bool update) {
    const float *weight = update ? job->query : job->key;
    F sum[STATE_VECS], value[STATE_VECS];
#pragma GCC unroll 4
    for (int j = 0; j < n_vec; j++) {
        int n = job->width - c - j * LANES;
        sum[j] = f_set(0);
        value[j] = update ? tail(job->value + c + j * LANES, n) : f_set(0);
    }
    for (int i = 0; i < job->n; i++) {
        size_t row = (size_t)i * (size_t)job->width + (size_t)c;
        F decay = f_set(job->decay[i]), key = f_set(job->key[i]), w = f_set(weight[i]);
#pragma GCC unroll 4
        for (int j = 0; j < n_vec; j++) {
            int n = job->width - c - j * LANES;
            F s = f_mul(decay, tail(job->from + row + j * LANES, n));
            if (update) {
                s = f_add(s, f_mul(key, value[j]));
                store_tail(job->to + row + j * LANES, n, s);
            }
            sum[j] = f_add(sum[j], f_mul(w, s));
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < n_vec; j++) store_tail(job->out + c + j * LANES, job->width - c - j * LANES, sum[j]);
}

INLINE void state_all(const StateJob *job, const bool update) {
    int c = 0;
    for (; job->width - c >= STATE_VECS * LANES; c += STATE_VECS * LANES)
        state_columns(job, c, STATE_VECS, update);
    for (; c < job->width; c += LANES) state_columns(job, c, 1, update);
}

static void state_recall(const StateJob *job) {
    state_all(job, false);
}

static void state_update(const StateJob *job) {
    state_all(job, true);
}

/* The rows of a table that are the same for all instruction sets. */
#define SIMD_KERNELS                                                                                         \
    .matmul_q8 = matmul_q8, .matmul_f32 = matmul_f32, .quantize = quantize, .norm = norm, .glu = glu,        \
    .softcap = softcap, .to_f16 = to_f16, .attn = attn, .state_recall = state_recall,                        \
    .state_update = state_update

#endif
