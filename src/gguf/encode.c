/* encode: see encode.h.
 *
 * A block is solved in two steps.  First each group alone, in real numbers: the line scale * q - min of least
 * squared error.  Then the block as it is stored, with f16 factors and packed integers: each group in order
 * tries the packed neighbours of its line, then the factors are fitted to all groups by least squares, and
 * both repeat while the error falls.  A type with one scale per block is the case of one group whose packed
 * scale is 1.  A type whose scale is a power of two tries the powers near the largest value.
 *
 * Integers are every one of a range, or the values of a short table.
 *
 * The one trick: LANES candidates are tried on a group at once, weights in the outer loop and candidates in
 * the inner. So every error is summed in one fixed order, and the compiler can vectorise over the
 * candidates. */
#include "encode.h"
#include "../base/float.h"

#include <assert.h>
#include <math.h>

enum {
    LANES = 16, // candidates tried at once
    ROUNDS = 4, // of a block's fit, at most
    HALVES = 512,
};

/* The numbers that a type can store. */
typedef struct Grid {
    int q_min, q_max;        // a weight's integer
    int s_min, s_max, m_max; // a group's packed scale and minimum; 1, 1 and 0 or 1: the block has no groups
    bool is_power;           // the scale of the block is a power of two
    bool favours_large;      // squared errors weigh by the squares of values
    const int8_t *table;     // [16] the integer of each code; NULL: all of q_min..q_max
    float rounded[HALVES];   // the integer of the table that is nearest to q_min + i / 2 up to the next half
    float step;              // between the outermost integers and their neighbours
    int n_groups, group;     // groups in a block, weights in a group
} Grid;

typedef struct Parts { // a block as integers and two factors that f16 can hold
    float d, dmin;
    int s[QUANT_MAX_GROUPS], m[QUANT_MAX_GROUPS]; // a group is d * s * q - dmin * m
    int8_t q[QUANT_MAX_WEIGHTS];
} Parts;

typedef struct Line { // scale * q - min
    float scale, min;
} Line;

typedef struct Weighed { // values, and the weight of the squared error of each
    const float *x, *w;
} Weighed;

/* ---- one group ----------------------------------------------------------------------------------------- */

static bool is_flat(const Grid *g) {
    return g->s_max == 1;
}

/* Half to even; |x| < 2^22. */
static inline float nearest(float x) {
    return (x + 0x1.8p23f) - 0x1.8p23f;
}

static inline float clamp(float x, float low, float high) {
    x = x > low ? x : low; // a NaN becomes low
    return x < high ? x : high;
}

static float inverse(float scale) {
    return fabsf(scale) > 0x1p-100f ? 1 / scale : 0;
}

/* Large values weigh more in some types, as in llama.cpp's quantiser: with a minimum the fit has two parameters,
 * and small values outnumber large ones; in three bits the KL divergence of the demo model is lower by 40 %.
 * Others are fitted by plain least squares.  The importance of a value, where it is known, multiplies that. */
static void weigh(const Grid *g, const float *x, const float *importance, float *w) {
    float sum = 0;
    for (int i = 0; i < g->group; i++) sum += x[i] * x[i];
    float square = sum / (float)g->group, rms = sqrtf(square);
    float rest = g->favours_large ? 0.25f : g->m_max && importance ? 1.0f : 0; // 0: not by squares
    for (int i = 0; i < g->group; i++) {
        w[i] = 1;
        if (rest > 0 && square > 0x1p-100f)
            w[i] = rest + x[i] * x[i] / square;
        else if (g->m_max && rms > 0)
            w[i] = 0.35f + fabsf(x[i]) / rms;
        if (importance) w[i] *= importance[i];
    }
}

/* The integers nearest to LANES numbers. */
static inline void round_lanes(const Grid *g, const float *x, float *q) {
    float low = (float)g->q_min, high = (float)g->q_max;
    if (g->table)
        for (int k = 0; k < LANES; k++) q[k] = g->rounded[(int)(2 * (clamp(x[k], low, high) - low))];
    else
        for (int k = 0; k < LANES; k++) q[k] = nearest(clamp(x[k], low, high));
}

/* The squared error of a group under each line. */
static void try_lines(const Grid *g, Weighed v, const Line *lines, float *out) {
    float scale[LANES], min[LANES], inv[LANES], error[LANES], at[LANES], q[LANES];
    for (int k = 0; k < LANES; k++) {
        scale[k] = lines[k].scale;
        min[k] = lines[k].min;
        inv[k] = inverse(scale[k]);
        error[k] = 0;
    }
    for (int i = 0; i < g->group; i++) {
        for (int k = 0; k < LANES; k++) at[k] = (v.x[i] + min[k]) * inv[k];
        round_lanes(g, at, q);
        for (int k = 0; k < LANES; k++) {
            float e = scale[k] * q[k] - min[k] - v.x[i];
            error[k] += v.w[i] * (e * e);
        }
    }
    for (int k = 0; k < LANES; k++) out[k] = error[k];
}

/* The index of the line with the least error, the first of equals; *error is that error. */
static int best_line(const Grid *g, Weighed v, const Line *lines, float *error) {
    float errors[LANES];
    int best = 0;
    try_lines(g, v, lines, errors);
    for (int k = 1; k < LANES; k++)
        if (errors[k] < errors[best]) best = k;
    *error = errors[best];
    return best;
}

static void round_to_line(const Grid *g, const float *x, Line line, int8_t *q) {
    float inv = inverse(line.scale);
    for (int i = 0; i < g->group; i += LANES) {
        float at[LANES], out[LANES];
        for (int k = 0; k < LANES; k++) at[k] = (x[i + k] + line.min) * inv;
        round_lanes(g, at, out);
        for (int k = 0; k < LANES; k++) q[i + k] = (int8_t)out[k];
    }
}

/* The line through the integers that `line` gives, by least squares. */
static Line refit_line(const Grid *g, Weighed v, Line line) {
    int8_t q[QUANT_MAX_WEIGHTS];
    round_to_line(g, v.x, line, q);
    double n = 0, sq = 0, sqq = 0, sx = 0, sxq = 0;
    for (int i = 0; i < g->group; i++) {
        double w = v.w[i], x = v.x[i];
        n += w;
        sq += w * q[i];
        sqq += w * q[i] * q[i];
        sx += w * x;
        sxq += w * x * q[i];
    }
    double det = n * sqq - sq * sq;
    if (g->m_max && det > 0) {
        Line fit = {(float)((n * sxq - sq * sx) / det), (float)((sq * sxq - sqq * sx) / det)};
        if (fit.min >= 0 || is_flat(g)) return fit;
    }
    if (g->m_max && det <= 0) return line; // all integers are equal: no slope to fit
    return sqq > 0 ? (Line){(float)(sxq / sqq), 0} : line;
}

/* Lines for a group without a minimum: its largest value becomes an integer near either end of their
 * range. */
static void first_scales(const Grid *g, const float *x, Line *lines) {
    float peak = 0;
    for (int i = 0; i < g->group; i++)
        if (fabsf(x[i]) > fabsf(peak)) peak = x[i];
    for (int k = 0; k < LANES; k++) {
        float beyond = g->step * (0.35f * (float)(k / 2) - 1.05f); // of the end
        float end = k % 2 ? (float)g->q_max + beyond : (float)g->q_min - beyond;
        lines[k] = (Line){peak / end, 0};
    }
}

/* Lines for a group with a minimum: its range is a little wider or narrower than that of the integers. */
static void first_ranges(const Grid *g, const float *x, Line *lines) {
    float low = x[0], high = x[0];
    for (int i = 1; i < g->group; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    if (low > 0 && !is_flat(g)) low = 0;
    for (int k = 0; k < LANES; k++) {
        float scale = (high - low) / ((float)g->q_max + 0.4f * (float)(k % 8) - 1.0f);
        lines[k] = (Line){scale, -low - (k < 8 ? 0.0f : 0.5f) * scale};
        if (lines[k].min < 0 && !is_flat(g)) lines[k].min = 0;
    }
}

/* Lines near a given one: the value of its largest integer and its minimum each move by up to a step. */
static void nearby_lines(const Grid *g, Line line, Line *lines) {
    for (int k = 0; k < LANES; k++) {
        float x = g->m_max ? (float)(k % 4) / 2 - 0.75f : (float)k / 8 - 0.9375f,
              y = g->m_max ? (float)(k / 4) / 2 - 0.75f : 0; // symmetric
        lines[k].scale = line.scale * (1 + g->step * 0.4f * x / (float)g->q_max);
        lines[k].min = line.min + 0.4f * y * line.scale;
        if (!g->m_max || (lines[k].min < 0 && !is_flat(g))) lines[k].min = 0;
    }
}

static Line fit_group(const Grid *g, Weighed v) {
    Line lines[LANES];
    float least;
    if (g->m_max)
        first_ranges(g, v.x, lines);
    else
        first_scales(g, v.x, lines);
    Line best = refit_line(g, v, lines[best_line(g, v, lines, &least)]);
    nearby_lines(g, best, lines);
    lines[0] = best;
    return refit_line(g, v, lines[best_line(g, v, lines, &least)]);
}

/* ---- one block ----------------------------------------------------------------------------------------- */

static float as_f16(float x) {
    return f16_to_f32(f32_to_f16(x));
}

static int between(int x, int low, int high) {
    return x < low ? low : x > high ? high : x;
}

static int packed(float x, float unit, int low, int high) {
    return unit > 0 ? (int)nearest(clamp(x / unit, (float)low, (float)high)) : 0;
}

/* The factors with which the largest line can be stored, and all lines packed in units of them. */
static void pack_lines(const Grid *g, const Line *lines, Parts *p) {
    float scale = 0, min = 0;
    for (int i = 0; i < g->n_groups; i++) {
        scale = fmaxf(scale, fabsf(lines[i].scale));
        min = fmaxf(min, fabsf(lines[i].min));
    }
    p->d = is_flat(g) ? lines[0].scale : scale / (float)g->s_max;
    p->dmin = is_flat(g) ? lines[0].min : g->m_max ? min / (float)g->m_max : 0;
    for (int i = 0; i < g->n_groups; i++) {
        p->s[i] = is_flat(g) ? 1 : packed(lines[i].scale, p->d, g->s_min, g->s_max);
        p->m[i] = is_flat(g) ? g->m_max : packed(lines[i].min, p->dmin, 0, g->m_max);
    }
}

/* Gives group i the best of the packed scales and minima next to its own, for the present factors, and the
 * integers that follow.  Returns the squared error. */
static float settle_group(const Grid *g, Weighed v, int i, Parts *p) {
    Line lines[LANES];
    int s[LANES], m[LANES];
    for (int k = 0; k < LANES; k++) {
        s[k] = between(p->s[i] + (g->m_max ? k % 3 - 1 : k - LANES / 2), g->s_min, g->s_max);
        m[k] = is_flat(g) ? p->m[i] : between(p->m[i] + k / 3 - 2, 0, g->m_max);
        lines[k] = (Line){p->d * (float)s[k], p->dmin * (float)m[k]};
    }
    float error;
    int k = best_line(g, v, lines, &error);
    p->s[i] = s[k];
    p->m[i] = m[k];
    round_to_line(g, v.x, lines[k], p->q + i * g->group);
    return error;
}

/* The factors by least squares, for the present packed integers. */
static void refit_factors(const Grid *g, Weighed v, Parts *p) {
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0; // x is about d * a - dmin * b
    for (int i = 0; i < g->n_groups * g->group; i++) {
        double a = p->s[i / g->group] * p->q[i], b = p->m[i / g->group], w = v.w[i], x = v.x[i];
        aa += w * a * a;
        ab += w * a * b;
        bb += w * b * b;
        ax += w * a * x;
        bx += w * b * x;
    }
    double det = aa * bb - ab * ab;
    if (det > 0) {
        p->d = (float)((bb * ax - ab * bx) / det);
        p->dmin = (float)((ab * ax - aa * bx) / det);
    } else if (aa > 0) {
        p->d = (float)(ax / aa);
    } else if (bb > 0) {
        p->dmin = (float)(-bx / bb);
    }
}

/* The power of two of least error: the integers reach the largest value, or a part of it.  Values are scaled to
 * 1..2 before their errors are squared, so that none overflows. */
static void fit_power(const Grid *g, Weighed v, Parts *out) {
    Line lines[LANES];
    float x[QUANT_MAX_WEIGHTS], peak = 0, error;
    for (int i = 0; i < g->group; i++) peak = fmaxf(peak, fabsf(v.x[i]));
    int exponent = peak > 0 ? ilogbf(peak) : 0;
    for (int i = 0; i < g->group; i++) x[i] = ldexpf(v.x[i], -exponent);
    for (int k = 0; k < LANES; k++)
        lines[k] = (Line){ldexpf(1, between(exponent + k - 10, -128, 126) - exponent), 0};
    Line best = lines[best_line(g, (Weighed){x, v.w}, lines, &error)];
    out->d = ldexpf(best.scale, exponent);
    round_to_line(g, x, best, out->q);
}

static void fit_block(const Grid *g, const float *x, const float *importance, Parts *out) {
    Line lines[QUANT_MAX_GROUPS];
    Weighed groups[QUANT_MAX_GROUPS];
    float w[QUANT_MAX_WEIGHTS];
    Parts p = {0};
    for (int i = 0, at = 0; i < g->n_groups; i++, at += g->group) {
        groups[i] = (Weighed){x + at, w + at};
        weigh(g, x + at, importance ? importance + at : NULL, w + at);
        if (!g->is_power) lines[i] = fit_group(g, groups[i]);
    }
    if (g->is_power) {
        fit_power(g, groups[0], out);
        return;
    }
    pack_lines(g, lines, &p);
    float least = INFINITY;
    for (int round = 0; round < ROUNDS; round++) {
        float error = 0;
        p.d = as_f16(p.d);
        p.dmin = as_f16(p.dmin);
        for (int i = 0; i < g->n_groups; i++) error += settle_group(g, groups[i], i, &p);
        if (round > 0 && !(error < least)) break;
        least = error;
        *out = p;
        refit_factors(g, groups[0], &p);
    }
}

/* ---- packing: the inverse of unpack.h ------------------------------------------------------------------ */

static void store_f16(uint8_t *at, float x) {
    store_u16(at, f32_to_f16(x));
}

/* The low four bits of 2 * n integers plus zero: the first n in the low halves of qs, the others in the high
 * ones. */
static void pack_nibbles(const int8_t *q, int zero, int n, uint8_t *qs) {
    for (int i = 0; i < n; i++) qs[i] = (uint8_t)(((q[i] + zero) & 15) | ((q[i + n] + zero) & 15) << 4);
}

/* The fifth bits of 32 integers plus zero. */
static void pack_fifth_bits(const int8_t *q, int zero, uint8_t *qh) {
    for (int i = 0; i < 4; i++) qh[i] = 0;
    for (int i = 0; i < 32; i++) qh[i / 8] |= (uint8_t)(((q[i] + zero) >> 4 & 1) << i % 8);
}

static void pack_Q4_0(const Parts *p, void *block) {
    BlockQ4_0 *b = block;
    store_f16(b->d, p->d);
    pack_nibbles(p->q, 8, 16, b->qs);
}

static void pack_Q4_1(const Parts *p, void *block) {
    BlockQ4_1 *b = block;
    store_f16(b->d, p->d);
    store_f16(b->m, -p->dmin);
    pack_nibbles(p->q, 0, 16, b->qs);
}

static void pack_Q5_0(const Parts *p, void *block) {
    BlockQ5_0 *b = block;
    store_f16(b->d, p->d);
    pack_nibbles(p->q, 16, 16, b->qs);
    pack_fifth_bits(p->q, 16, b->qh);
}

static void pack_Q5_1(const Parts *p, void *block) {
    BlockQ5_1 *b = block;
    store_f16(b->d, p->d);
    store_f16(b->m, -p->dmin);
    pack_nibbles(p->q, 0, 16, b->qs);
    pack_fifth_bits(p->q, 0, b->qh);
}

static void pack_Q8_0(const Parts *p, void *block) {
    BlockQ8_0 *b = block;
    store_f16(b->d, p->d);
    memcpy(b->qs, p->q, sizeof b->qs);
}

/* The low two bits of 256 integers plus zero: of each 128 the four quarters share 32 bytes. */
static void pack_pairs(const int8_t *q, int zero, uint8_t *qs) {
    memset(qs, 0, 64);
    for (int i = 0; i < 256; i++)
        qs[i / 128 * 32 + i % 32] |= (uint8_t)(((q[i] + zero) & 3) << i % 128 / 32 * 2);
}

static void pack_Q2_K(const Parts *p, void *block) {
    BlockQ2_K *b = block;
    store_f16(b->d, p->d);
    store_f16(b->dmin, p->dmin);
    for (int g = 0; g < 16; g++) b->scales[g] = (uint8_t)(p->s[g] | p->m[g] << 4);
    pack_pairs(p->q, 0, b->qs);
}

static void pack_Q3_K(const Parts *p, void *block) {
    BlockQ3_K *b = block;
    store_f16(b->d, p->d);
    pack_pairs(p->q, 4, b->qs);
    memset(b->hmask, 0, sizeof b->hmask);
    for (int i = 0; i < 256; i++) b->hmask[i % 32] |= (uint8_t)((p->q[i] + 4) >> 2 << i / 32);
    for (int g = 0; g < 8; g++) b->scales[g] = (uint8_t)((p->s[g] & 15) | (p->s[g + 8] & 15) << 4);
    for (int g = 0; g < 4; g++) {
        b->scales[8 + g] = 0;
        for (int k = 0; k < 4; k++) b->scales[8 + g] |= (uint8_t)((p->s[g + 4 * k] + 32) >> 4 << 2 * k);
    }
}

static void pack_k_scales(const Parts *p, uint8_t *out) {
    for (int g = 0; g < 4; g++) {
        out[g] = (uint8_t)(p->s[g] | p->s[g + 4] >> 4 << 6);
        out[g + 4] = (uint8_t)(p->m[g] | p->m[g + 4] >> 4 << 6);
        out[g + 8] = (uint8_t)((p->s[g + 4] & 15) | (p->m[g + 4] & 15) << 4);
    }
}

static void pack_Q4_K(const Parts *p, void *block) {
    BlockQ4_K *b = block;
    store_f16(b->d, p->d);
    store_f16(b->dmin, p->dmin);
    pack_k_scales(p, b->scales);
    for (int i = 0; i < 256; i += 64) pack_nibbles(p->q + i, 0, 32, b->qs + i / 2);
}

static void pack_Q5_K(const Parts *p, void *block) {
    BlockQ5_K *b = block;
    store_f16(b->d, p->d);
    store_f16(b->dmin, p->dmin);
    pack_k_scales(p, b->scales);
    for (int i = 0; i < 256; i += 64) pack_nibbles(p->q + i, 0, 32, b->qs + i / 2);
    memset(b->qh, 0, sizeof b->qh);
    for (int i = 0; i < 256; i++) b->qh[i % 32] |= (uint8_t)((p->q[i] >> 4 & 1) << i / 32);
}

static void pack_Q6_K(const Parts *p, void *block) {
    BlockQ6_K *b = block;
    store_f16(b->d, p->d);
    for (int g = 0; g < 16; g++) b->scales[g] = (int8_t)p->s[g];
    for (int i = 0; i < 256; i += 128) pack_nibbles(p->q + i, 32, 64, b->ql + i / 2);
    memset(b->qh, 0, sizeof b->qh);
    for (int i = 0; i < 256; i++)
        b->qh[i / 128 * 32 + i % 32] |= (uint8_t)((p->q[i] + 32) >> 4 << i % 128 / 32 * 2);
}

/* The codes of 32 integers of a table, as pack_nibbles has them. */
static void pack_codes(const int8_t *q, const int8_t *table, uint8_t *qs) {
    int8_t code[32] = {0};
    for (int i = 0; i < 32; i++)
        while (table[code[i]] != q[i]) code[i]++;
    pack_nibbles(code, 0, 16, qs);
}

static void pack_IQ4_NL(const Parts *p, void *block) {
    BlockIQ4_NL *b = block;
    store_f16(b->d, p->d);
    pack_codes(p->q, quant_iq4, b->qs);
}

static void pack_IQ4_XS(const Parts *p, void *block) {
    BlockIQ4_XS *b = block;
    store_f16(b->d, p->d);
    memset(b->scales_h, 0, sizeof b->scales_h);
    memset(b->scales_l, 0, sizeof b->scales_l);
    for (int g = 0; g < 8; g++) {
        b->scales_l[g / 2] |= (uint8_t)(((p->s[g] + 32) & 15) << g % 2 * 4);
        b->scales_h[g / 4] |= (uint8_t)((p->s[g] + 32) >> 4 << g % 4 * 2);
        pack_codes(p->q + 32 * g, quant_iq4, b->qs + 16 * g);
    }
}

static void pack_MXFP4(const Parts *p, void *block) {
    BlockMXFP4 *b = block;
    b->e = (uint8_t)(ilogbf(p->d) + 128); // d is of the doubled integers
    pack_codes(p->q, quant_e2m1, b->qs);
}

/* n bytes of `digits` integers each, which lie n apart. */
static void pack_ternary(const int8_t *q, int n, int digits, uint8_t *out) {
    for (int i = 0; i < n; i++) {
        int fraction = 0;
        for (int k = 0; k < 5; k++) fraction = 3 * fraction + (k < digits ? q[i + k * n] + 1 : 0);
        out[i] = (uint8_t)((256 * fraction + 242) / 243);
    }
}

static void pack_TQ1_0(const Parts *p, void *block) {
    BlockTQ1_0 *b = block;
    store_f16(b->d, p->d);
    pack_ternary(p->q, 32, 5, b->qs);
    pack_ternary(p->q + 160, 16, 5, b->qs + 32);
    pack_ternary(p->q + 240, 4, 4, b->qh);
}

static void pack_TQ2_0(const Parts *p, void *block) {
    BlockTQ2_0 *b = block;
    store_f16(b->d, p->d);
    pack_pairs(p->q, 1, b->qs);
}

/* ---- all types ----------------------------------------------------------------------------------------- */

static const struct Coder {
    QuantType type;
    Grid grid; // without what make_grid adds
    void (*pack)(const Parts *, void *block);
} coders[] = {
    {QUANT_Q4_0, {.q_min = -8, .q_max = 7, .s_min = 1, .s_max = 1}, pack_Q4_0},
    {QUANT_Q4_1, {.q_max = 15, .s_min = 1, .s_max = 1, .m_max = 1}, pack_Q4_1},
    {QUANT_Q5_0, {.q_min = -16, .q_max = 15, .s_min = 1, .s_max = 1}, pack_Q5_0},
    {QUANT_Q5_1, {.q_max = 31, .s_min = 1, .s_max = 1, .m_max = 1}, pack_Q5_1},
    {QUANT_Q8_0, {.q_min = -127, .q_max = 127, .s_min = 1, .s_max = 1}, pack_Q8_0},
    {QUANT_Q2_K, {.q_max = 3, .s_max = 15, .m_max = 15}, pack_Q2_K},
    {QUANT_Q3_K, {.q_min = -4, .q_max = 3, .s_min = -32, .s_max = 31, .favours_large = true}, pack_Q3_K},
    {QUANT_Q4_K, {.q_max = 15, .s_max = 63, .m_max = 63}, pack_Q4_K},
    {QUANT_Q5_K, {.q_max = 31, .s_max = 63, .m_max = 63}, pack_Q5_K},
    {QUANT_Q6_K, {.q_min = -32, .q_max = 31, .s_min = -128, .s_max = 127}, pack_Q6_K},
    {QUANT_IQ4_NL, {.s_min = 1, .s_max = 1, .table = quant_iq4}, pack_IQ4_NL},
    {QUANT_IQ4_XS, {.s_min = -32, .s_max = 31, .table = quant_iq4}, pack_IQ4_XS},
    {QUANT_MXFP4, {.s_min = 1, .s_max = 1, .is_power = true, .table = quant_e2m1}, pack_MXFP4},
    {QUANT_TQ1_0, {.q_min = -1, .q_max = 1, .s_min = 1, .s_max = 1}, pack_TQ1_0},
    {QUANT_TQ2_0, {.q_min = -1, .q_max = 1, .s_min = 1, .s_max = 1}, pack_TQ2_0},
};

static const struct Coder *find_coder(QuantType type) {
    for (size_t i = 0; i < sizeof coders / sizeof *coders; i++)
        if (coders[i].type == type) return &coders[i];
    return NULL;
}

bool quant_can_encode(QuantType type) {
    return quant_traits(type)->act == QUANT_ACT_F32 || find_coder(type);
}

/* The number of the table that is nearest to x. */
static float nearest_of(const int8_t *table, float x) {
    int best = 0;
    for (int i = 1; i < 16; i++)
        if (fabsf((float)table[i] - x) < fabsf((float)table[best] - x)) best = i;
    return table[best];
}

/* What follows from the table.  The mean of two neighbours is a multiple of 1/2, so that looking up halves is
 * exact. */
static void add_table(Grid *g) {
    for (int i = 0; i < 16; i++) {
        if (g->table[i] < g->q_min) g->q_min = g->table[i];
        if (g->table[i] > g->q_max) g->q_max = g->table[i];
    }
    assert(2 * (g->q_max - g->q_min) < HALVES);
    for (int i = 0; i < HALVES; i++)
        g->rounded[i] = nearest_of(g->table, (float)g->q_min + (float)i / 2 + 0.25f);
    g->step = (float)(g->q_max - g->q_min);
    for (int i = 0; i < 16; i++)
        if (g->table[i] > g->q_min) g->step = fminf(g->step, (float)(g->table[i] - g->q_min));
}

/* A block without packed scales is one group. */
static Grid make_grid(const struct Coder *coder) {
    const QuantTraits *t = quant_traits(coder->type);
    Grid grid = coder->grid;
    grid.group = is_flat(&grid) ? t->n_weights : t->group;
    grid.n_groups = t->n_weights / grid.group;
    grid.step = 1;
    if (grid.table) add_table(&grid);
    return grid;
}

static void encode_blocks(const struct Coder *coder, const float *x, const float *importance, size_t n_blocks,
                          uint8_t *out) {
    const QuantTraits *t = quant_traits(coder->type);
    Grid grid = make_grid(coder);
    for (size_t b = 0, at = 0; b < n_blocks; b++, at += (size_t)t->n_weights) {
        Parts parts;
        fit_block(&grid, x + at, importance ? importance + at : NULL, &parts);
        coder->pack(&parts, out + b * t->n_bytes);
    }
}

void quant_encode(QuantType type, const float *x, const float *importance, size_t n_blocks, void *blocks) {
    uint8_t *out = blocks;
    switch (type) {
    case QUANT_F32:
        memcpy(out, x, n_blocks * sizeof *x);
        break;
    case QUANT_F16:
        for (size_t i = 0; i < n_blocks; i++) store_f16(out + 2 * i, x[i]);
        break;
    case QUANT_BF16:
        for (size_t i = 0; i < n_blocks; i++) store_u16(out + 2 * i, f32_to_bf16(x[i]));
        break;
    case QUANT_FP8_E4M3:
        for (size_t i = 0; i < n_blocks; i++) out[i] = f32_to_e4m3(x[i]);
        break;
    default:
        encode_blocks(find_coder(type), x, importance, n_blocks, out);
    }
}

float quant_fp8_row(const float *x, size_t n, uint8_t *out) {
    float peak = 0;
    for (size_t i = 0; i < n; i++) peak = fmaxf(peak, fabsf(x[i]));
    float scale = peak >= 0x1p-100f ? peak / 448 : 0; // the inverse of a smaller one could be Inf
    float inverse = scale > 0 ? 1 / scale : 0;
    for (size_t i = 0; i < n; i++) out[i] = f32_to_e4m3(x[i] * inverse);
    return scale;
}
