/* matmul_simd: the products of a panel of weights, written once.
 *
 * Equal to the scalar oracle to the bit; the order of operations that makes this possible is in exec/act.h.
 *
 * A product goes through a panel in chunks of up to 256 weights along the rows.  For many activations a chunk
 * is taken apart once into a tile that stays in the first-level cache: integers as [K / 4][16 rows][4 bytes],
 * so that one vector holds four weights of every row, and a vector of scales per group.  Then every
 * activation passes over the tile, VEC_T at a time.  For one activation the same integers are used as they
 * come, without a tile.
 *
 * The trick of the sums: the dot instruction needs unsigned weights, so each format adds a constant `zero`,
 * and a sum does not start at 0 but at -zero times the sum of its activations, which Act8 has ready. */
#ifndef ZGEN_CPU_MATMUL_SIMD_H
#define ZGEN_CPU_MATMUL_SIMD_H

#include "formats_simd.h"
#include "kernels.h"

#include <assert.h>

enum { CHUNK = 256, CHUNK_BYTES = CHUNK / 32 * sizeof(BlockQ8_0), FLOAT_CHUNK = 64, LINE = 64 };

typedef struct Format {
    int n_weights, n_bytes; // of a block
    int unit, group, zero;
    bool has_min, wide; // wide: the unsigned integers may exceed 128
    void (*scales)(const uint8_t *block, size_t stride, F *scale, F *min);
    void (*quants)(const uint8_t *block, size_t stride, int unit, V *q);
} Format;

typedef struct Tile {
    V q[CHUNK / 4];
    F scale[CHUNK / 16], min[CHUNK / 16]; // per group
} Tile;

/* The sums and scales of one activation in a chunk, beside its integers, side by side for a short address. */
typedef struct ChunkSums {
    int32_t start[CHUNK / 16]; // per group of weights: -zero * sum of q
    float sum[CHUNK / 16];     // and the sum itself
    float d[CHUNK / ACT8_GROUP];
} ChunkSums;

/* A chunk of packed rows: 16 rows, stride apart. */
typedef struct Rows {
    const uint8_t *p;
    size_t stride;
} Rows;

/* Bytes offset .. offset + n of the panel's rows: where they are, or, if the panel or the chunk is not full,
 * copied to room, with copies of the last row in place of missing ones. */
INLINE Rows rows_at(const Panel *w, bool full, size_t offset, size_t n, uint8_t *room, size_t stride) {
    if (full && w->n_rows == PANEL_ROWS) return (Rows){w->rows + offset, w->row_bytes};
    for (int r = 0; r < PANEL_ROWS; r++) {
        size_t row = (size_t)(r < w->n_rows ? r : w->n_rows - 1);
        memcpy(room + (size_t)r * stride, w->rows + row * w->row_bytes + offset, n);
    }
    return (Rows){room, stride};
}

/* Where the panel that follows in memory is to be fetched while the bytes at offset of each row are worked
 * on.  Prefetches are fastest in the order of addresses and a few at a time. */
INLINE uintptr_t next_panel(const Panel *w, size_t offset) {
    return (uintptr_t)w->rows + PANEL_ROWS * (w->row_bytes + offset);
}

INLINE void prefetch(uintptr_t p, int n) {
#pragma GCC unroll 9
    for (int line = 0; line < n; line += LINE) v_prefetch(p + (uintptr_t)line);
}

/* Of the chunk at k.  Reads a whole chunk's worth even at a row's end: the arrays of Act8 are padded to 64
 * bytes. */
INLINE void sums_of(Format f, const Act8 *x, int k, ChunkSums *out) {
    V sum = f.group == 16 ? v_load_i16(x->sum + k / 16) : v_load_i16_pairs(x->sum + k / 16);
    v_store(out->start, v_mul(sum, v_set((uint32_t)-f.zero)));
    if (f.has_min) f_store(out->sum, f_of_int(sum));
    memcpy(out->d, x->d + k / ACT8_GROUP, sizeof out->d);
}

/* acc plus the group's products: act8_dot's two lines. */
INLINE F add_group(Format f, F acc, V isum, F scale, F min, float d, float sum) {
    acc = f_fma(f_of_int(isum), f_mul(scale, f_set(d)), acc);
    return f.has_min ? f_fnma(f_set(sum), f_mul(min, f_set(d)), acc) : acc;
}

INLINE void chunk_scales(Format f, Rows rows, int n, Tile *tile) {
    const int per_block = f.n_weights / f.group;
    for (int b = 0; b < n / f.n_weights; b++)
        f.scales(rows.p + b * f.n_bytes, rows.stride, tile->scale + b * per_block, tile->min + b * per_block);
}

INLINE void chunk_quants(Format f, Rows rows, int n, Tile *tile) {
    for (int k = 0; k < n; k += f.unit) {
        const uint8_t *block = rows.p + k / f.n_weights * f.n_bytes;
        f.quants(block, rows.stride, k % f.n_weights / f.unit, tile->q + k / 4);
    }
}

/* y += n weights of the tile times x, from position k on, for n_x (a constant) activations. */
INLINE void multiply(Format f, const Tile *tile, int n, const Act8 *x, const int n_x, int k, float *y) {
    ChunkSums sums[VEC_T];
    F acc[VEC_T];
    const int8_t *q[VEC_T];
#pragma GCC unroll 8
    for (int t = 0; t < n_x; t++) {
        sums_of(f, &x[t], k, &sums[t]);
        acc[t] = f_load(y + t * PANEL_ROWS);
        q[t] = x[t].q + k;
    }
    const V *w = tile->q;
    size_t n_groups = (size_t)(n / f.group), first = 0; // first: weight of the group
    for (size_t g = 0; g < n_groups; g++, w += f.group / 4, first += (size_t)f.group) {
        V isum[VEC_T];
#pragma GCC unroll 8
        for (int t = 0; t < n_x; t++) isum[t] = v_splat(&sums[t].start[g]);
#pragma GCC unroll 8
        for (int i = 0; i < f.group / 4; i++) {
#pragma GCC unroll 8
            for (int t = 0; t < n_x; t++) isum[t] = v_dot4(isum[t], w[i], q[t] + first + 4 * i, f.wide);
        }
#pragma GCC unroll 8
        for (int t = 0; t < n_x; t++)
            acc[t] = add_group(f, acc[t], isum[t], tile->scale[g], tile->min[g],
                               sums[t].d[g * (size_t)f.group / ACT8_GROUP], sums[t].sum[g]);
    }
#pragma GCC unroll 8
    for (int t = 0; t < n_x; t++) f_store(y + t * PANEL_ROWS, acc[t]);
}

/* The same for any T: one function per kind of type, as a tile no longer depends on the rest. */
#define MULTIPLY(kind, ...)                                                                                  \
    static void multiply_##kind(int zero, const Tile *tile, int n, const Act8 *x, int T, int k, float *y) {  \
        const Format f = {.zero = zero, __VA_ARGS__};                                                        \
        int t = 0;                                                                                           \
        for (; T - t >= 8 && VEC_T >= 8; t += 8) multiply(f, tile, n, x + t, 8, k, y + t * PANEL_ROWS);      \
        for (; T - t >= 4 && VEC_T >= 4; t += 4) multiply(f, tile, n, x + t, 4, k, y + t * PANEL_ROWS);      \
        for (; T - t >= 2; t += 2) multiply(f, tile, n, x + t, 2, k, y + t * PANEL_ROWS);                    \
        if (t < T) multiply(f, tile, n, x + t, 1, k, y + t * PANEL_ROWS);                                    \
    }
MULTIPLY(16, .group = 16)
MULTIPLY(16_min, .group = 16, .has_min = true)
MULTIPLY(32, .group = 32)
MULTIPLY(32_min, .group = 32, .has_min = true)
MULTIPLY(32_wide, .group = 32, .wide = true)

INLINE void multiply_tile(Format f, const Tile *tile, int n, const Act8 *x, int T, int k, float *y) {
    if (f.wide)
        multiply_32_wide(f.zero, tile, n, x, T, k, y);
    else if (f.group == 32 && f.has_min)
        multiply_32_min(f.zero, tile, n, x, T, k, y);
    else if (f.group == 32)
        multiply_32(f.zero, tile, n, x, T, k, y);
    else if (f.has_min)
        multiply_16_min(f.zero, tile, n, x, T, k, y);
    else
        multiply_16(f.zero, tile, n, x, T, k, y);
}

/* acc plus the products of one block of each row and one activation, whose part for the block begins at q
 * and, in the sums of the chunk, at group g.  ahead: what to fetch meanwhile. */
INLINE F multiply_block(Format f, Rows rows, const int8_t *q, const ChunkSums *sums, int g, uintptr_t ahead,
                        F acc) {
    const int share = PANEL_ROWS * f.n_bytes * f.group / f.n_weights; // bytes of a group in all rows
    F scale[QUANT_MAX_GROUPS], min[QUANT_MAX_GROUPS];
    f.scales(rows.p, rows.stride, scale, min);
    for (int u = 0; u < f.n_weights; u += f.unit) {
        V w[QUANT_MAX_WEIGHTS / 4];
        f.quants(rows.p, rows.stride, u / f.unit, w);
#pragma GCC unroll 8
        for (int j = 0; j < f.unit; j += f.group) {
            int i = (u + j) / f.group;
            V isum = v_splat(&sums->start[g + i]);
#pragma GCC unroll 8
            for (int k = 0; k < f.group; k += 4) isum = v_dot4(isum, w[(j + k) / 4], q + u + j + k, f.wide);
            acc = add_group(f, acc, isum, scale[i], min[i], sums->d[(g + i) * f.group / ACT8_GROUP],
                            sums->sum[g + i]);
            prefetch(ahead + (uintptr_t)(i * share), share);
        }
    }
    return acc;
}

/* The products of one activation, without a tile. */
INLINE void matmul_one(Format f, const Panel *w, const Act8 *x, float *y) {
    F acc = f_set(0);
    uint8_t room[PANEL_ROWS * CHUNK_BYTES];
    for (int k = 0; k < w->n_in; k += CHUNK) {
        const int n = w->n_in - k < CHUNK ? w->n_in - k : CHUNK;
        size_t offset = (size_t)(k / f.n_weights * f.n_bytes), bytes = (size_t)(n / f.n_weights * f.n_bytes);
        Rows rows = rows_at(w, true, offset, bytes, room, CHUNK_BYTES);
        uintptr_t ahead = next_panel(w, offset);
        ChunkSums sums;
        sums_of(f, x, k, &sums);
        int i = 0;
        do {
            acc = multiply_block(f, rows, x->q + k + i, &sums, i / f.group, ahead, acc);
            rows.p += f.n_bytes;
            ahead += (uintptr_t)(PANEL_ROWS * f.n_bytes);
            i += f.n_weights;
        } while (i < n);
    }
    f_store(y, acc);
}

INLINE void matmul_many(Format f, const Panel *w, const Act8 *x, int T, float *y) {
    uint8_t room[PANEL_ROWS * CHUNK_BYTES];
    memset(y, 0, (size_t)T * PANEL_ROWS * sizeof *y);
    for (int k = 0; k < w->n_in; k += CHUNK) {
        const int n = w->n_in - k < CHUNK ? w->n_in - k : CHUNK;
        size_t offset = (size_t)(k / f.n_weights * f.n_bytes), bytes = (size_t)(n / f.n_weights * f.n_bytes);
        Rows rows = rows_at(w, true, offset, bytes, room, CHUNK_BYTES);
        prefetch(next_panel(w, offset), PANEL_ROWS * (int)bytes);
        Tile tile;
        chunk_scales(f, rows, n, &tile);
        chunk_quants(f, rows, n, &tile);
        multiply_tile(f, &tile, n, x, T, k, y);
    }
}

/* One pair of functions per block type, from the list of block.h. */
#define NOTHING(...)
#define MATMUL(type, id, block, n_weights, group, has_min)                                                   \
    static void matmul_##type(const Panel *w, const Act8 *x, int T, float *y) {                              \
        const Format f = {n_weights, sizeof(block),      UNIT_##type,   group,        ZERO_##type,           \
                          has_min,   ZERO_##type >= 128, scales_##type, quants_##type};                      \
        if (T == 1)                                                                                          \
            matmul_one(f, w, x, y);                                                                          \
        else                                                                                                 \
            matmul_many(f, w, x, T, y);                                                                      \
    }
QUANT_TYPES(NOTHING, MATMUL, NOTHING)

static void matmul_q8(const Panel *w, const Act8 *x, int T, float *y) {
#define CASE(type, ...)                                                                                      \
    case QUANT_##type:                                                                                       \
        matmul_##type(w, x, T, y);                                                                           \
        return;
    switch (w->type) {
        QUANT_TYPES(NOTHING, CASE, NOTHING)
    default:
        assert(!"a type of QUANT_ACT_Q8");
    }
}

/* 16 bytes of each of 16 rows, as a vector of floats per weight. */
INLINE void floats_F32(const uint8_t *p, size_t stride, F *out) {
    V w[4];
    v_rows16(p, stride, w);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) out[i] = f_of_bits(w[i]);
}

INLINE void floats_F16(const uint8_t *p, size_t stride, F *out) {
    V w[4];
    v_rows16(p, stride, w);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) half_pair(w[i], &out[2 * i], &out[2 * i + 1]);
}

INLINE void floats_BF16(const uint8_t *p, size_t stride, F *out) {
    V w[4];
    v_rows16(p, stride, w);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        out[2 * i] = f_of_bits(v_shl(w[i], 16));
        out[2 * i + 1] = f_of_bits(v_and(w[i], v_set(0xFFFF0000)));
    }
}

/* e4m3_to_f32 of base/float.h for byte i of each lane. */
INLINE F e4m3(V a, int i) {
    V byte = v_shl(a, 24 - 8 * i), sign = v_and(byte, v_set(0x80000000));
    V magnitude = v_and(v_shr(byte, 4), v_set(0x07F00000));
    V bits = f_bits(f_mul(f_of_bits(magnitude), f_set(0x1p120f)));
    return f_of_bits(v_or(sign, v_if_equal(magnitude, v_set(0x07F00000), v_set(0x7FC00000), bits)));
}

INLINE void floats_FP8_E4M3(const uint8_t *p, size_t stride, F *out) {
    V w[4];
    v_rows16(p, stride, w);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) out[i] = e4m3(w[i / 4], i % 4);
}

/* y += n weights of the tile times x, from position k on, for n_x (a constant) activations. */
INLINE void multiply_f32(const F *tile, int n, const float *const *x, const int n_x, int k, float *y) {
    F acc[VEC_T];
    const float *p[VEC_T];
#pragma GCC unroll 8
    for (int t = 0; t < n_x; t++) {
        acc[t] = f_load(y + t * PANEL_ROWS);
        p[t] = x[t] + k;
    }
    for (size_t i = 0; i < (size_t)n; i++) {
#pragma GCC unroll 8
        for (int t = 0; t < n_x; t++) acc[t] = f_fma(tile[i], f_set(p[t][i]), acc[t]);
    }
#pragma GCC unroll 8
    for (int t = 0; t < n_x; t++) f_store(y + t * PANEL_ROWS, acc[t]);
}

static void multiply_floats(const F *tile, int n, const float *const *x, int T, int k, float *y) {
    int t = 0;
    for (; T - t >= VEC_T; t += VEC_T) multiply_f32(tile, n, x + t, VEC_T, k, y + t * PANEL_ROWS);
    for (; T - t >= 2; t += 2) multiply_f32(tile, n, x + t, 2, k, y + t * PANEL_ROWS);
    if (t < T) multiply_f32(tile, n, x + t, 1, k, y + t * PANEL_ROWS);
}

typedef void Floats(const uint8_t *p, size_t stride, F *out);

/* The chunk at k, n weights.  A short one is copied, as fields of 16 bytes would reach behind its end. */
INLINE Rows float_rows(const Panel *w, size_t size, int k, int n, uint8_t *room) {
    return rows_at(w, n == FLOAT_CHUNK, (size_t)k * size, (size_t)n * size, room, FLOAT_CHUNK * size);
}

/* One activation: a step of 16 bytes at a time, as the long chain of sums leaves time to take the next one
 * apart. */
INLINE void matmul_floats_one(const Panel *w, size_t size, Floats *floats, const float *x, float *y) {
    uint8_t room[PANEL_ROWS * FLOAT_CHUNK * sizeof(float)] = {0};
    const int step = 16 / (int)size;
    F acc = f_set(0);
    for (int k = 0; k < w->n_in; k += FLOAT_CHUNK) {
        const int n = w->n_in - k < FLOAT_CHUNK ? w->n_in - k : FLOAT_CHUNK;
        Rows rows = float_rows(w, size, k, n, room);
        for (int i = 0; i < n; i += step, rows.p += 16) {
            F values[16];
            prefetch(next_panel(w, (size_t)(k + i) * size), PANEL_ROWS * 16);
            floats(rows.p, rows.stride, values);
            if (n - i >= step) {
#pragma GCC unroll 16
                for (int j = 0; j < step; j++) acc = f_fma(values[j], f_set(x[k + i + j]), acc);
            } else {
                for (int j = 0; j < n - i; j++) acc = f_fma(values[j], f_set(x[k + i + j]), acc);
            }
        }
    }
    f_store(y, acc);
}

INLINE void matmul_floats_many(const Panel *w, size_t size, Floats *floats, const float *const *x, int T,
                               float *y) {
    uint8_t room[PANEL_ROWS * FLOAT_CHUNK * sizeof(float)] = {0};
    const int step = 16 / (int)size;
    memset(y, 0, (size_t)T * PANEL_ROWS * sizeof *y);
    for (int k = 0; k < w->n_in; k += FLOAT_CHUNK) {
        const int n = w->n_in - k < FLOAT_CHUNK ? w->n_in - k : FLOAT_CHUNK;
        Rows rows = float_rows(w, size, k, n, room);
        prefetch(next_panel(w, (size_t)k * size), PANEL_ROWS * n * (int)size);
        F tile[FLOAT_CHUNK];
        for (int i = 0; i < n; i += step, rows.p += 16) floats(rows.p, rows.stride, tile + i);
        multiply_floats(tile, n, x, T, k, y);
    }
}

#define MATMUL_FLOATS(type, id, c_type)                                                                      \
    static void matmul_##type(const Panel *w, const float *const *x, int T, float *y) {                      \
        if (T == 1)                                                                                          \
            matmul_floats_one(w, sizeof(c_type), floats_##type, x[0], y);                                    \
        else                                                                                                 \
            matmul_floats_many(w, sizeof(c_type), floats_##type, x, T, y);                                   \
    }
QUANT_TYPES(MATMUL_FLOATS, NOTHING, NOTHING)

static void matmul_f32(const Panel *w, const float *const *x, int T, float *y) {
    switch (w->type) {
        QUANT_TYPES(CASE, NOTHING, NOTHING)
    default:
        assert(!"a type of QUANT_ACT_F32");
    }
}
#undef CASE
#undef NOTHING

#endif
