/* fields: tiles of the block types whose numbers are not planes of bits: points of grids, and digits of base
 * 3.
 *
 * A tile of such a type (layout.h) has the fields of the blocks of its 16 rows, one field of all rows after
 * another.  A field of n bytes per chunk of 32 weights is cut into vectors of 16 bytes, or of four chunks
 * where these are less: vector v of row 8h + g is number (2v + h) * 8 + g.  A field of n bytes per row is not
 * cut: that of row 8h + g is number 8h + g.  Lanes 4g .. 4g + 3 of a warp read the same row, and so the warp
 * 128 bytes that follow each other, or fewer.
 *
 *     type      fields: n bytes per chunk, or per row where noted
 *     IQ1_S     points 4, high bits 2, d row
 *     IQ1_M     points 4, high bits 2, scales 8 row
 *     IQ2_XXS   points and signs 8, d row
 *     IQ2_XS    points and signs 8, scales 8 row, d row
 *     IQ2_S     points 4, signs 4, high bits 1, scales 8 row, d row
 *     IQ3_XXS   points 8, signs 4, d row
 *     IQ3_S     points 8, signs 4, high bits 1, scales 4 row, d row
 *     TQ1_0     digits 16 row, three times, then 4 row, d row
 *
 * Three functions per type, as quant.cuh has them for the others: pack_TYPE moves a block into row 8h + g of
 * a tile; words_TYPE gives what tile_words does, and scales_TYPE what tile_scales does.  Plain C, so that a
 * test runs these very functions on the host. */
#ifndef ZGEN_CUDA_FIELDS_H
#define ZGEN_CUDA_FIELDS_H

#include "../../src/gguf/unpack.h"

/* X(type, zero): the bytes of words are signed where zero is 0, elsewhere unsigned, and zero too large. */
#define FIELD_TYPES(X)                                                                                       \
    X(IQ1_S, 9) X(IQ1_M, 9) X(IQ2_XXS, 0) X(IQ2_XS, 0) X(IQ2_S, 0) X(IQ3_XXS, 0) X(IQ3_S, 0) X(TQ1_0, 1)

#ifdef __CUDA_ARCH__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL
#endif

typedef struct __attribute__((aligned(8))) Words2 {
    uint32_t w[2];
} Words2;
typedef struct __attribute__((aligned(16))) Words4 {
    uint32_t w[4];
} Words4;

/* Where the n bytes of chunk c, or the bytes of row 8h + g, are, of a field that begins at `at`. */
QUANT_FN int chunk_at(int at, int n, int c, int h, int g) {
    int vector = n < 4 ? 4 * n : 16, chunks = vector / n;
    return at + ((c / chunks * 2 + h) * 8 + g) * vector + c % chunks * n;
}
QUANT_FN int row_at(int at, int n, int h, int g) {
    return at + (8 * h + g) * n;
}

QUANT_FN void put_bytes(uint8_t *to, const uint8_t *from, int n) {
    for (int i = 0; i < n; i++) to[i] = from[i];
}
QUANT_FN void put_chunks(uint8_t *tile, int at, int n, const uint8_t *from, int g, int h) {
    for (int c = 0; c < 8; c++) put_bytes(tile + chunk_at(at, n, c, h, g), from + n * c, n);
}
QUANT_FN void put_row(uint8_t *tile, int at, int n, const uint8_t *from, int g, int h) {
    put_bytes(tile + row_at(at, n, h, g), from, n);
}

QUANT_FN uint32_t word_at(const uint8_t *p) {
    return *(const uint32_t *)p;
}
QUANT_FN uint32_t half_word_at(const uint8_t *p) {
    return *(const uint16_t *)p;
}
QUANT_FN Words2 words2_at(const uint8_t *p) {
    return *(const Words2 *)p;
}
QUANT_FN Words4 words4_at(const uint8_t *p) {
    return *(const Words4 *)p;
}

/* The f16 of a row as a float. */
QUANT_FN float half_value(uint32_t bits) {
#ifdef __CUDA_ARCH__
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"((uint16_t)bits));
    return x;
#else
    return f16_to_f32((uint16_t)bits);
#endif
}
QUANT_FN float d_at(const uint8_t *tile, int at, int h, int g) {
    return half_value(half_word_at(tile + row_at(at, 2, h, g)));
}

/* Word number index of a grid.  An offset of 32 bits takes one register, and a computed address two. */
QUANT_FN uint32_t grid_word(const uint32_t *grid, uint32_t index) {
    return word_at((const uint8_t *)grid + 4 * index);
}

/* Lane 4g + i has the weights 4i .. and 16 + 4i .. of a chunk: of points of eight weights the points i / 2
 * and 2 + i / 2, and of each the half i % 2.  That half, with the signs of the point's eight weights. */
QUANT_FN uint32_t point_word(const uint32_t *grid, uint32_t point, uint32_t eight, int i) {
    return signed_word(grid_word(grid, 2 * point + (uint32_t)(i % 2)), eight >> i % 2 * 4);
}

/* The four scales of 16 weights in 16 bits, each d * (2 s + 1): of chunks 2i + j the halves. */
QUANT_FN void odd_scales(float d, uint32_t nibbles, float scale[2][2]) {
    UNROLL for (int k = 0; k < 4; k++) scale[k / 2][k % 2] = d * (float)(2 * (nibbles >> 4 * k & 15) + 1);
}

/* ---- IQ2_XXS ------------------------------------------------------------------------------------------- */

QUANT_FN void pack_IQ2_XXS(const BlockIQ2_XXS *b, uint8_t *tile, int g, int h) {
    put_chunks(tile, 0, 8, b->qs, g, h);
    put_row(tile, 1024, 2, b->d, g, h);
}
QUANT_FN void words_IQ2_XXS(const uint8_t *tile, int lane, int h, int k, uint32_t first[4],
                            uint32_t second[4]) {
    const uint32_t *grid = quant_grids()->iq2_xxs;
    int i = lane % 4, e = i / 2;
    UNROLL for (int c = 0; c < 4; c++) {
        Words2 chunk = words2_at(tile + chunk_at(0, 8, 4 * k + c, h, lane / 4));
        uint32_t points = chunk.w[0] >> 8 * e, signs = chunk.w[1] >> 7 * e;
        first[c] = point_word(grid, points & 255, eight_signs(signs & 127), i);
        second[c] = point_word(grid, points >> 16 & 255, eight_signs(signs >> 14 & 127), i);
    }
}
QUANT_FN void scales_IQ2_XXS(const uint8_t *tile, int lane, float scale[2][2][2]) {
    UNROLL for (int h = 0; h < 2; h++) {
        float d = d_at(tile, 1024, h, lane / 4) * 0.125f;
        Words4 two = words4_at(tile + chunk_at(0, 8, 2 * (lane % 4), h, lane / 4));
        UNROLL for (int j = 0; j < 2; j++) scale[h][j][0] = d * (float)(2 * (two.w[2 * j + 1] >> 28) + 1);
    }
}

/* ---- IQ2_XS -------------------------------------------------------------------------------------------- */

QUANT_FN void pack_IQ2_XS(const BlockIQ2_XS *b, uint8_t *tile, int g, int h) {
    put_chunks(tile, 0, 8, b->qs, g, h);
    put_row(tile, 1024, 8, b->scales, g, h);
    put_row(tile, 1152, 2, b->d, g, h);
}
QUANT_FN void words_IQ2_XS(const uint8_t *tile, int lane, int h, int k, uint32_t first[4],
                           uint32_t second[4]) {
    const uint32_t *grid = quant_grids()->iq2_xs;
    int i = lane % 4, e = i / 2;
    UNROLL for (int c = 0; c < 4; c++) {
        Words2 chunk = words2_at(tile + chunk_at(0, 8, 4 * k + c, h, lane / 4));
        uint32_t a = chunk.w[0] >> 16 * e, b = chunk.w[1] >> 16 * e;
        first[c] = point_word(grid, a & 511, eight_signs(a >> 9 & 127), i);
        second[c] = point_word(grid, b & 511, eight_signs(b >> 9 & 127), i);
    }
}
QUANT_FN void scales_IQ2_XS(const uint8_t *tile, int lane, float scale[2][2][2]) {
    UNROLL for (int h = 0; h < 2; h++) {
        const uint8_t *scales = tile + row_at(1024, 8, h, lane / 4);
        odd_scales(d_at(tile, 1152, h, lane / 4) * 0.125f, half_word_at(scales + 2 * (lane % 4)), scale[h]);
    }
}

/* ---- IQ2_S --------------------------------------------------------------------------------------------- */

QUANT_FN void pack_IQ2_S(const BlockIQ2_S *b, uint8_t *tile, int g, int h) {
    put_chunks(tile, 0, 4, b->qs, g, h);
    put_chunks(tile, 512, 4, b->signs, g, h);
    put_chunks(tile, 1024, 1, b->qh, g, h);
    put_row(tile, 1152, 8, b->scales, g, h);
    put_row(tile, 1280, 2, b->d, g, h);
}
QUANT_FN void words_IQ2_S(const uint8_t *tile, int lane, int h, int k, uint32_t first[4],
                          uint32_t second[4]) {
    const uint32_t *grid = quant_grids()->iq2_s;
    int g = lane / 4, i = lane % 4, e = i / 2;
    Words4 points = words4_at(tile + chunk_at(0, 4, 4 * k, h, g)),
           signs = words4_at(tile + chunk_at(512, 4, 4 * k, h, g));
    uint32_t high = word_at(tile + chunk_at(1024, 1, 4 * k, h, g)) >> 2 * e;
    UNROLL for (int c = 0; c < 4; c++) {
        uint32_t low = points.w[c] >> 8 * e, eights = signs.w[c] >> 8 * e;
        first[c] = point_word(grid, (low & 255) | (high >> 8 * c & 3) << 8, eights, i);
        second[c] = point_word(grid, (low >> 16 & 255) | (high >> (8 * c + 4) & 3) << 8, eights >> 16, i);
    }
}
QUANT_FN void scales_IQ2_S(const uint8_t *tile, int lane, float scale[2][2][2]) {
    UNROLL for (int h = 0; h < 2; h++) {
        const uint8_t *scales = tile + row_at(1152, 8, h, lane / 4);
        odd_scales(d_at(tile, 1280, h, lane / 4) * 0.125f, half_word_at(scales + 2 * (lane % 4)), scale[h]);
    }
}

/* ---- IQ3_XXS ------------------------------------------------------------------------------------------- */

QUANT_FN void pack_IQ3_XXS(const BlockIQ3_XXS *b, uint8_t *tile, int g, int h) {
    put_chunks(tile, 0, 8, b->qs, g, h);
    put_chunks(tile, 1024, 4, b->signs, g, h);
    put_row(tile, 1536, 2, b->d, g, h);
}
QUANT_FN void words_IQ3_XXS(const uint8_t *tile, int lane, int h, int k, uint32_t first[4],
                            uint32_t second[4]) {
    const uint32_t *grid = quant_grids()->iq3_xxs;
    int g = lane / 4, i = lane % 4, e = i / 2;
    Words4 signs = words4_at(tile + chunk_at(1024, 4, 4 * k, h, g));
    UNROLL for (int c = 0; c < 4; c++) {
        const uint8_t *points = tile + chunk_at(0, 8, 4 * k + c, h, g) + i;
        uint32_t sevens = signs.w[c] >> 7 * e;
        first[c] = signed_word(grid_word(grid, points[0]), eight_signs(sevens & 127) >> i % 2 * 4);
        second[c] = signed_word(grid_word(grid, points[4]), eight_signs(sevens >> 14 & 127) >> i % 2 * 4);
    }
}
QUANT_FN void scales_IQ3_XXS(const uint8_t *tile, int lane, float scale[2][2][2]) {
    UNROLL for (int h = 0; h < 2; h++) {
        float d = d_at(tile, 1536, h, lane / 4) * 0.25f;
        Words2 two = words2_at(tile + chunk_at(1024, 4, 2 * (lane % 4), h, lane / 4));
        UNROLL for (int j = 0; j < 2; j++) scale[h][j][0] = d * (float)(2 * (two.w[j] >> 28) + 1);
    }
}

/* ---- IQ3_S --------------------------------------------------------------------------------------------- */

QUANT_FN void pack_IQ3_S(const BlockIQ3_S *b, uint8_t *tile, int g, int h) {
    put_chunks(tile, 0, 8, b->qs, g, h);
    put_chunks(tile, 1024, 4, b->signs, g, h);
    put_chunks(tile, 1536, 1, b->qh, g, h);
    put_row(tile, 1664, 4, b->scales, g, h);
    put_row(tile, 1728, 2, b->d, g, h);
}
QUANT_FN void words_IQ3_S(const uint8_t *tile, int lane, int h, int k, uint32_t first[4],
                          uint32_t second[4]) {
    const uint32_t *grid = quant_grids()->iq3_s;
    int g = lane / 4, i = lane % 4;
    Words4 signs = words4_at(tile + chunk_at(1024, 4, 4 * k, h, g));
    uint32_t high = word_at(tile + chunk_at(1536, 1, 4 * k, h, g)) >> i;
    UNROLL for (int c = 0; c < 4; c++) {
        const uint8_t *points = tile + chunk_at(0, 8, 4 * k + c, h, g) + i;
        uint32_t fours = signs.w[c] >> 4 * i;
        first[c] = signed_word(grid_word(grid, points[0] | (high >> 8 * c & 1) << 8), fours);
        second[c] = signed_word(grid_word(grid, points[4] | (high >> (8 * c + 4) & 1) << 8), fours >> 16);
    }
}
QUANT_FN void scales_IQ3_S(const uint8_t *tile, int lane, float scale[2][2][2]) {
    UNROLL for (int h = 0; h < 2; h++) {
        float d = d_at(tile, 1728, h, lane / 4);
        uint32_t two = tile[row_at(1664, 4, h, lane / 4) + lane % 4];
        UNROLL for (int j = 0; j < 2; j++) scale[h][j][0] = d * (float)(2 * (two >> 4 * j & 15) + 1);
    }
}

/* ---- IQ1_S, IQ1_M ------------------------------------------------------------------------------------- */

QUANT_FN uint32_t iq1_word(uint32_t point, bool minus, int i) {
    return grid_word(quant_grids()->iq1, 2 * point + (uint32_t)(i % 2)) | (minus ? 0 : 0x02020202);
}

QUANT_FN void pack_IQ1_S(const BlockIQ1_S *b, uint8_t *tile, int g, int h) {
    put_chunks(tile, 0, 4, b->qs, g, h);
    put_chunks(tile, 512, 2, b->qh, g, h);
    put_row(tile, 768, 2, b->d, g, h);
}
QUANT_FN void words_IQ1_S(const uint8_t *tile, int lane, int h, int k, uint32_t first[4],
                          uint32_t second[4]) {
    int g = lane / 4, i = lane % 4, e = i / 2;
    Words4 points = words4_at(tile + chunk_at(0, 4, 4 * k, h, g));
    Words2 high = words2_at(tile + chunk_at(512, 2, 4 * k, h, g));
    UNROLL for (int c = 0; c < 4; c++) {
        uint32_t low = points.w[c] >> 8 * e, bits = high.w[c / 2] >> c % 2 * 16, threes = bits >> 3 * e;
        bool minus = bits >> 15 & 1;
        first[c] = iq1_word((low & 255) | (threes & 7) << 8, minus, i);
        second[c] = iq1_word((low >> 16 & 255) | (threes >> 6 & 7) << 8, minus, i);
    }
}
QUANT_FN void scales_IQ1_S(const uint8_t *tile, int lane, float scale[2][2][2]) {
    UNROLL for (int h = 0; h < 2; h++) {
        float d = d_at(tile, 768, h, lane / 4) * 0.125f;
        uint32_t two = word_at(tile + chunk_at(512, 2, 2 * (lane % 4), h, lane / 4)) >> 12;
        UNROLL for (int j = 0; j < 2; j++) scale[h][j][0] = d * (float)(2 * (two >> 16 * j & 7) + 1);
    }
}

QUANT_FN void pack_IQ1_M(const BlockIQ1_M *b, uint8_t *tile, int g, int h) {
    put_chunks(tile, 0, 4, b->qs, g, h);
    put_chunks(tile, 512, 2, b->qh, g, h);
    put_row(tile, 768, 8, b->scales, g, h);
}
QUANT_FN void words_IQ1_M(const uint8_t *tile, int lane, int h, int k, uint32_t first[4],
                          uint32_t second[4]) {
    int g = lane / 4, i = lane % 4, e = i / 2;
    Words4 points = words4_at(tile + chunk_at(0, 4, 4 * k, h, g));
    Words2 high = words2_at(tile + chunk_at(512, 2, 4 * k, h, g));
    UNROLL for (int c = 0; c < 4; c++) {
        uint32_t low = points.w[c] >> 8 * e, bits = high.w[c / 2] >> (c % 2 * 16 + 4 * e);
        first[c] = iq1_word((low & 255) | (bits & 7) << 8, bits >> 3 & 1, i);
        second[c] = iq1_word((low >> 16 & 255) | (bits >> 8 & 7) << 8, bits >> 11 & 1, i);
    }
}
QUANT_FN void scales_IQ1_M(const uint8_t *tile, int lane, float scale[2][2][2]) {
    UNROLL for (int h = 0; h < 2; h++) {
        const uint8_t *scales = tile + row_at(768, 8, h, lane / 4);
        Words2 all = words2_at(scales); // numbers of 16 bits, four scales and four bits of d in each
        uint32_t mine = half_word_at(scales + 2 * (lane % 4));
        uint32_t d =
            (all.w[0] >> 12 & 15) | all.w[0] >> 28 << 4 | (all.w[1] >> 12 & 15) << 8 | all.w[1] >> 28 << 12;
        UNROLL for (int n = 0; n < 4; n++) scale[h][n / 2][n % 2] =
            half_value(d) * 0.125f * (float)(2 * (mine >> 3 * n & 7) + 1);
    }
}

/* ---- TQ1_0 -------------------------------------------------------------------------------------------- */

QUANT_FN void pack_TQ1_0(const BlockTQ1_0 *b, uint8_t *tile, int g, int h) {
    for (int n = 0; n < 3; n++) put_row(tile, 256 * n, 16, b->qs + 16 * n, g, h);
    put_row(tile, 768, 4, b->qh, g, h);
    put_row(tile, 832, 2, b->d, g, h);
}

/* Of four bytes the digits that power, 3^i, moves to the front (`ternary` of unpack.h). */
QUANT_FN uint32_t ternary_word(uint32_t bytes, uint32_t power) {
    uint32_t even = (bytes & 0x00FF00FF) * power & 0x00FF00FF,
             odd = (bytes >> 8 & 0x00FF00FF) * power & 0x00FF00FF;
    return (even * 3 >> 8 & 0x00030003) | (odd * 3 & 0x03000300);
}

QUANT_FN void words_TQ1_0(const uint8_t *tile, int lane, int h, int k, uint32_t first[4],
                          uint32_t second[4]) {
    int g = lane / 4, i = lane % 4;
    uint32_t a = word_at(tile + row_at(0, 16, h, g) + 4 * i),
             b = word_at(tile + row_at(256, 16, h, g) + 4 * i);
    if (k == 0) { // chunks of five are digits of the same bytes
        UNROLL for (uint32_t c = 0, power = 1; c < 4; c++, power *= 3) {
            first[c] = ternary_word(a, power);
            second[c] = ternary_word(b, power);
        }
        return;
    }
    uint32_t halves = word_at(tile + row_at(512, 16, h, g) + 4 * i),
             last = word_at(tile + row_at(768, 4, h, g));
    first[0] = ternary_word(a, 81);
    second[0] = ternary_word(b, 81);
    first[1] = ternary_word(halves, 1);
    second[1] = ternary_word(halves, 3);
    first[2] = ternary_word(halves, 9);
    second[2] = ternary_word(halves, 27);
    first[3] = ternary_word(halves, 81);
    second[3] = ternary_word(last, 0x1B090301u >> 8 * i & 255); // weights 240 + 4i ..
}
QUANT_FN void scales_TQ1_0(const uint8_t *tile, int lane, float scale[2][2][2]) {
    UNROLL for (int h = 0; h < 2; h++) scale[h][0][0] = scale[h][1][0] = d_at(tile, 832, h, lane / 4);
}

#endif
