/* test_fields: the tiles of the types of grids, packed and read by the functions that the GPU's kernels call,
 * against the decoders. */
#include "check.h"
#include "../../cuda/device/fields.h"
#include "../../src/gguf/quant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct FieldType {
    QuantType type;
    int zero;
    void (*pack)(const void *block, uint8_t *tile, int g, int h);
    void (*words)(const uint8_t *tile, int lane, int h, int k, uint32_t first[4], uint32_t second[4]);
    void (*scales)(const uint8_t *tile, int lane, float scale[2][2][2]);
} FieldType;

#define PACK(type, zero)                                                                                     \
    static void pack_any_##type(const void *block, uint8_t *tile, int g, int h) {                            \
        pack_##type(block, tile, g, h);                                                                      \
    }
FIELD_TYPES(PACK)
#define FIELD_TYPE(type, zero) {QUANT_##type, zero, pack_any_##type, words_##type, scales_##type},
static const FieldType types[] = {FIELD_TYPES(FIELD_TYPE)};
enum { N_TYPES = sizeof types / sizeof *types, ROWS = 16, MAX_BYTES = 112 };

/* The blocks of the 16 rows of a tile, packed; the caller frees. */
static uint8_t *packed(const FieldType *f, const uint8_t *blocks, int fill) {
    size_t n = quant_traits(f->type)->n_bytes;
    uint8_t *tile = aligned_alloc(16, ROWS * n);
    memset(tile, fill, ROWS * n);
    for (int r = 0; r < ROWS; r++) f->pack(blocks + (size_t)r * n, tile, r % 8, r / 8);
    return tile;
}

/* The 256 numbers of row 8h + g and their scales, one per 16, as the four lanes of the row have them. */
static void read_row(const FieldType *f, const uint8_t *tile, int g, int h, int8_t q[256], float scale[16]) {
    for (int i = 0; i < 4; i++) {
        uint32_t first[4], second[4];
        float lane_scale[2][2][2];
        f->scales(tile, 4 * g + i, lane_scale);
        for (int n = 0; n < 4; n++)
            scale[4 * i + n] = lane_scale[h][n / 2][quant_traits(f->type)->group == 16 ? n % 2 : 0];
        for (int k = 0; k < 2; k++) {
            f->words(tile, 4 * g + i, h, k, first, second);
            for (int c = 0; c < 4; c++)
                for (int b = 0; b < 4; b++) {
                    int8_t *to = q + 32 * (4 * k + c) + 4 * i + b;
                    to[0] = (int8_t)((int)(first[c] >> 8 * b & 255) - f->zero);
                    to[16] = (int8_t)((int)(second[c] >> 8 * b & 255) - f->zero);
                }
        }
    }
}

static void check_tile(const FieldType *f, const uint8_t *blocks) {
    const QuantTraits *t = quant_traits(f->type);
    uint8_t *tile = packed(f, blocks, 0x00), *other = packed(f, blocks, 0xFF);
    CHECK(memcmp(tile, other, ROWS * t->n_bytes) == 0, "%s: a byte of the tile is not written", t->name);
    for (int r = 0; r < ROWS; r++) {
        int8_t q[256], wanted[256];
        float scale[16], wanted_scale[QUANT_MAX_GROUPS], min[QUANT_MAX_GROUPS];
        t->unpack(blocks + (size_t)r * t->n_bytes, wanted, wanted_scale, min);
        read_row(f, tile, r % 8, r / 8, q, scale);
        for (int i = 0; i < 256; i++)
            CHECK(q[i] == wanted[i], "%s row %d: weight %d is %d, not %d", t->name, r, i, q[i], wanted[i]);
        for (int i = 0; i < 16; i++) {
            float w = wanted_scale[16 * i / t->group];
            CHECK(scale[i] == w || (scale[i] != scale[i] && w != w), "%s row %d: scale %d is %g, not %g",
                  t->name, r, i, scale[i], w);
        }
    }
    free(tile);
    free(other);
}

TEST(fields_of_tiles_are_the_blocks) {
    uint32_t state = 5;
    for (int i = 0; i < N_TYPES; i++) {
        const QuantTraits *t = quant_traits(types[i].type);
        uint8_t blocks[ROWS * MAX_BYTES];
        REQUIRE(t->n_weights == 256 && t->n_bytes <= MAX_BYTES, "%s", t->name);
        char path[100];
        snprintf(path, sizeof path, "test/data/dequant/%s.blocks", t->name);
        FILE *file = fopen(path, "rb");
        REQUIRE(file && fread(blocks, t->n_bytes, ROWS, file) == ROWS, "%s", path);
        fclose(file);
        check_tile(&types[i], blocks);
        for (int round = 0; round < 50; round++) {
            for (size_t k = 0; k < ROWS * t->n_bytes; k++)
                blocks[k] = (uint8_t)((state = state * 1664525 + 1013904223) >> 24);
            check_tile(&types[i], blocks);
        }
    }
}
