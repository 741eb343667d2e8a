// tile: a tile of weights (layout.h) times rows of activations (input.cuh), by one warp.
//
// The one trick: the integer sums of the chunks of 32 weights must stay apart, because each chunk has its own
// scale, but a matrix instruction accumulates over all of its inputs.  Its B operand has eight columns: chunk
// c of a tile is multiplied by an operand that holds the activations in column c and zeros in the others, so
// that after eight instructions the 16 x 8 accumulators are the exact sums of 16 rows and 8 chunks, each in
// the lane that has its scale. The multiplications by zero cost nothing, as the instruction takes its time in
// any case.  Even and odd chunks have accumulators of their own, so that a pair of them can have its
// activations in both columns: of either, the other chunk's column is unused.  Several input rows are the
// columns themselves, and each chunk is an instruction of its own.
//
// The order of all additions of floats depends on the matrix's shape alone; so a row of activations gives the
// same bytes alone and among others.
#pragma once
#include "input.cuh"
#include "quant.cuh"

// sums += a b: 16 rows of bytes a (rows g, 8 + g; first and second 16 of the columns), 8 columns of b, which
// are signed.
template <bool SIGNED>
__device__ __forceinline__ void multiply_32(int sums[4], const uint32_t first[2], const uint32_t second[2],
                                            uint2 b) {
    if constexpr (SIGNED)
        asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
            "{%0,%1,%2,%3};"
            : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
            : "r"(first[0]), "r"(first[1]), "r"(second[0]), "r"(second[1]), "r"(b.x), "r"(b.y));
    else
        asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
            "{%0,%1,%2,%3};"
            : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
            : "r"(first[0]), "r"(first[1]), "r"(second[0]), "r"(second[1]), "r"(b.x), "r"(b.y));
}
__device__ __forceinline__ void multiply_16(int sums[4], uint32_t a0, uint32_t a1, uint32_t b) {
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(a0), "r"(a1), "r"(b));
}

// sum + the exact sums of one chunk and row (its halves apart where the type's groups are of 16), scaled.
// The type's ZERO is subtracted as ZERO times the sums of the activations: d.y, halves.
template <QuantType F>
__device__ __forceinline__ float add_chunk(float sum, int chunk, int dot0, int dot1, const float scale[2],
                                           const float min[2], float2 d, float2 halves) {
    float zero = Format<F>::zero_of(chunk);
    if constexpr (Format<F>::GROUP == 32) {
        float y = (float)dot0 * d.x;
        if constexpr (Format<F>::ZERO != 0) y = fmaf(-zero, d.y, y);
        sum = fmaf(scale[0], y, sum);
        if constexpr (Format<F>::HAS_MIN) sum = fmaf(-min[0], d.y, sum);
    } else {
        float y0 = (float)dot0 * d.x, y1 = (float)dot1 * d.x;
        if constexpr (Format<F>::ZERO != 0) {
            y0 = fmaf(-zero, halves.x, y0);
            y1 = fmaf(-zero, halves.y, y1);
        }
        sum = fmaf(scale[0], y0, sum);
        if constexpr (Format<F>::HAS_MIN) sum = fmaf(-min[0], halves.x, sum);
        sum = fmaf(scale[1], y1, sum);
        if constexpr (Format<F>::HAS_MIN) sum = fmaf(-min[1], halves.y, sum);
    }
    return sum;
}

// Several input rows are columns, eight at a time, in an order without bank conflicts, neither among the
// words of four neighbouring columns nor among the scales of every second one: rows begin INPUT_PADDING bytes
// beyond a multiple of 128 apart.
__device__ __forceinline__ int row_of_column(int n) {
    return n < 4 ? n : 4 + (n + 1) % 4;
}

// Partial sums are [T][PARTIAL_STRIDE] floats, of which 16 are used: the rows of weights.  With several input
// rows the columns of an instruction lie in different banks.
template <int T> constexpr int PARTIAL_STRIDE = T == 1 ? TILE_ROWS : TILE_ROWS + 4;

// A lane's accumulators of a K-slice.  For one input row, or weights that are floats: a quarter of the sum of
// input row t and weights' row 8h + g, at share(t, h); the lanes 4g..4g + 3 have the four quarters.  For
// several input rows and blocks: of column 8n + 2i + j and row 8h + g, the sum over chunks 2k and 2k + 1, at
// column(n, k, 2h + j); the four values of k are the same four quarters, in one lane.
template <QuantType F, int T> struct Accumulators {
    static constexpr bool COLUMNS = T > 1 && !Format<F>::FLOAT;
    float value[COLUMNS ? (T + 7) / 8 * 16 : T * 2] = {};

    __device__ float &share(int t, int h) { return value[t * 2 + h]; }
    __device__ float &column(int n, int k, int r) { return value[(n * 4 + k) * 4 + r]; }

    // Adds up the four quarters of each sum, in an order that does not depend on T, and stores the partial
    // sums.
    __device__ void store(float *partial, int lane) {
        if constexpr (COLUMNS) {
#pragma unroll
            for (int n = 0; n < (T + 7) / 8; n++)
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    int t = 8 * n + row_of_column(lane % 4 * 2 + r % 2);
                    float sum = (column(n, 0, r) + column(n, 1, r)) + (column(n, 2, r) + column(n, 3, r));
                    if (t < T) partial[t * PARTIAL_STRIDE<T> + r / 2 * 8 + lane / 4] = sum;
                }
        } else {
#pragma unroll
            for (int t = 0; t < T; t++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    float sum = share(t, h);
                    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
                    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
                    if (lane % 4 == 0) partial[t * PARTIAL_STRIDE<T> + 8 * h + lane / 4] = sum;
                }
        }
    }
};

// dots += the exact sums of a chunk, for 16 rows (by first and second words) and 8 columns b; dots[0] and
// dots[1] are of the halves where the type's groups are of 16.
template <QuantType F, int GROUPS>
__device__ __forceinline__ void multiply_chunk(int dots[GROUPS][4], const uint32_t first[2],
                                               const uint32_t second[2], uint2 b) {
    if constexpr (GROUPS == 1) {
        multiply_32<Format<F>::SIGNED>(dots[0], first, second, b);
    } else {
        multiply_16(dots[0], first[0], first[1], b.x);
        multiply_16(dots[1], second[0], second[1], b.y);
    }
}

// TileInput.scales or .halves of two neighbouring chunks.
__device__ __forceinline__ void load_pair(const float2 *from, float2 to[2]) {
    float4 v = *(const float4 *)from;
    to[0] = make_float2(v.x, v.y);
    to[1] = make_float2(v.z, v.w);
}

// sums += tile number `index` of a tile row, of blocks, times row input_row of x: the trick above.
template <QuantType F>
__device__ __forceinline__ void multiply_blocks(const uint8_t *tile, int index, const Input &x, int input_row,
                                                int lane, Accumulators<F, 1> &sums) {
    constexpr int GROUPS = Format<F>::GROUP == 16 ? 2 : 1,
                  SHARE = 2 / GROUPS; // chunks with a B operand in common
    float scale[2][2][2], min[2][2][2];
    tile_scales<F>(tile, lane, scale, min);
    int dots[SHARE][GROUPS][4] = {};
    const TileInput *input = x.tiles(input_row) + index;
    uint2 in = input->words[lane];
#pragma unroll
    for (int k = 0; k < 2; k++) {
        uint32_t first[2][4], second[2][4];
#pragma unroll
        for (int h = 0; h < 2; h++) tile_words<F>(tile, lane, h, k, first[h], second[h]);
#pragma unroll
        for (int c = 0; c < 4; c++) {
            bool mine = lane / 4 / SHARE == (4 * k + c) / SHARE; // this lane's column is not zero
            const uint32_t a[2] = {first[0][c], first[1][c]}, b[2] = {second[0][c], second[1][c]};
            multiply_chunk<F, GROUPS>(dots[c % SHARE], a, b, make_uint2(mine ? in.x : 0, mine ? in.y : 0));
        }
    }
    float2 d[2], halves[2] = {};
    load_pair(input->scales + 2 * (lane % 4), d);
    if constexpr (GROUPS == 2) load_pair(input->halves + 2 * (lane % 4), halves);
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            sums.share(0, h) =
                add_chunk<F>(sums.share(0, h), j, dots[j % SHARE][0][2 * h + j],
                             dots[j % SHARE][GROUPS - 1][2 * h + j], scale[h][j], min[h][j], d[j], halves[j]);
}

// sums += the tile times T rows, which are the columns: two chunks at a time, whose scales are shuffled from
// the lanes that have them.
template <QuantType F, int T>
__device__ __forceinline__ void multiply_blocks(const uint8_t *tile, int index, const Input &x, int lane,
                                                Accumulators<F, T> &sums) {
    constexpr int GROUPS = Format<F>::GROUP == 16 ? 2 : 1;
    float scale[2][2][2], min[2][2][2];
    tile_scales<F>(tile, lane, scale, min);
    auto column = [&](int c) { return x.tiles(::min(row_of_column(c), x.last)) + index; };
    const TileInput *operand = column(lane / 4),                       // the B operand's column of this lane
        *result[2] = {column(lane % 4 * 2), column(lane % 4 * 2 + 1)}; // and those of its accumulators
#pragma unroll
    for (int pair = 0; pair < TILE_CHUNKS / 2; pair++) {
        uint32_t first[2][4], second[2][4];
        float of_rows[2][2][2] = {}, below[2][2][2] = {}; // [chunk][h][group]
        int owner = lane / 4 * 4 + pair;
#pragma unroll
        for (int h = 0; h < 2; h++) tile_words<F>(tile, lane, h, pair / 2, first[h], second[h]);
#pragma unroll
        for (int i = 0; i < 4 * GROUPS; i++) {
            int c = i % 2, h = i / 2 % 2, group = i / 4;
            of_rows[c][h][group] = __shfl_sync(0xffffffffu, scale[h][c][group], owner);
            if constexpr (Format<F>::HAS_MIN)
                below[c][h][group] = __shfl_sync(0xffffffffu, min[h][c][group], owner);
        }
#pragma unroll
        for (int n = 0; n < (T + 7) / 8; n++) {
            auto row_8n = [&](const TileInput *p) { // 8n input rows further
                return (const TileInput *)((const uint8_t *)p + n * 8 * x.stride);
            };
            float2 d[2][2], halves[2][2] = {}; // [j][chunk]
#pragma unroll
            for (int j = 0; j < 2; j++) {
                load_pair(row_8n(result[j])->scales + 2 * pair, d[j]);
                if constexpr (GROUPS == 2) load_pair(row_8n(result[j])->halves + 2 * pair, halves[j]);
            }
            const uint2 *words = row_8n(operand)->words + 8 * pair + lane % 4;
#pragma unroll
            for (int c = 0; c < 2; c++) {
                int at = pair % 2 * 2 + c, dots[GROUPS][4] = {};
                const uint32_t a[2] = {first[0][at], first[1][at]}, b[2] = {second[0][at], second[1][at]};
                multiply_chunk<F, GROUPS>(dots, a, b, words[4 * c]);
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    float &sum = sums.column(n, pair, r);
                    sum = add_chunk<F>(sum, c, dots[0][r], dots[GROUPS - 1][r], of_rows[c][r / 2],
                                       below[c][r / 2], d[r % 2][c], halves[r % 2][c]);
                }
            }
        }
    }
}

// sums += a tile of floats times T rows from input_row on.
template <QuantType F, int T>
__device__ __forceinline__ void multiply_floats(const uint8_t *tile, int index, const Input &x, int input_row,
                                                int lane, Accumulators<F, T> &sums) {
    constexpr int N = VECTOR_FLOATS<F>;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        float w[2][N];
        tile_floats<F>(tile, lane, 0, k, w[0]);
        tile_floats<F>(tile, lane, 1, k, w[1]);
        const float *in = x.floats(input_row) + index * TILE_FLOATS<F> + (4 * k + lane % 4) * N;
#pragma unroll
        for (int t = 0; t < T; t++, in += x.stride / 4)
#pragma unroll
            for (int i = 0; i < N; i += 4) {
                float4 v = *(const float4 *)(in + i);
#pragma unroll
                for (int h = 0; h < 2; h++)
#pragma unroll
                    for (int j = 0; j < 4; j++)
                        sums.share(t, h) = fmaf(w[h][i + j], (&v.x)[j], sums.share(t, h));
            }
    }
}
