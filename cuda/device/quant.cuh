// quant: the block formats on the device: from the file's blocks to the tiles of layout.h, and from there to
// numbers.
//
// A kernel sees every block format as a lane's share of a tile: words of four bytes, in the order of a matrix
// instruction's operand, and the scales of the results that the lane will have.  A block format is defined
// here by a NumbersOf (bits, zero, table) and a HeadOf (its scales, unpacked from a tile and packed into
// one), or in fields.h by functions for words, scales and packing; the rest follows from the list in block.h,
// and the compiler names what a new type lacks.  All functions are inline and the type is fixed at compile
// time, so that no choice is left in a kernel.
//
// The one trick: to look up four nibbles in a table of 16 bytes, two byte permutes look up their low three
// bits in the table's halves, and a third selects by the fourth bit.
#pragma once
#include "../layout.h"
#include "fields.h"
#include "../../src/gguf/unpack.h"
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#include <type_traits>

enum Table { TABLE_NONE, TABLE_IQ4, TABLE_E2M1 };

template <int bits, int zero, Table table = TABLE_NONE> struct Numbers {
    static_assert(bits == 1 || bits == 2 || bits == 3 || bits == 4 || bits == 5 || bits == 6 || bits == 8,
                  "layout.h has planes for these");
    static constexpr int BITS = bits, ZERO = zero; // ZERO: to subtract from the unsigned number
    static constexpr Table TABLE = table;
    static constexpr bool SIGNED = bits == 8 || table != TABLE_NONE;
    // Numbers of four bits are masked but not shifted in odd chunks, and so are 16 times as large there; the
    // scales of odd chunks are 16 times smaller instead, which changes no result.
    static constexpr int ODD_TIMES = bits == 4 && !SIGNED ? 16 : 1;
    static __host__ __device__ constexpr int zero_of(int chunk) {
        return chunk % 2 ? ZERO * ODD_TIMES : ZERO;
    }
};

// Types of fields.h; BITS 0: not in planes.
template <int zero> struct FieldNumbers {
    static constexpr int BITS = 0, ZERO = zero, ODD_TIMES = 1;
    static constexpr Table TABLE = TABLE_NONE;
    static constexpr bool SIGNED = zero == 0;
    static __host__ __device__ constexpr int zero_of(int) { return ZERO; }
};

template <QuantType T> struct NumbersOf;
template <> struct NumbersOf<QUANT_Q4_0> : Numbers<4, 8> {};
template <> struct NumbersOf<QUANT_Q4_1> : Numbers<4, 0> {};
template <> struct NumbersOf<QUANT_Q5_0> : Numbers<5, 16> {};
template <> struct NumbersOf<QUANT_Q5_1> : Numbers<5, 0> {};
template <> struct NumbersOf<QUANT_Q8_0> : Numbers<8, 0> {};
template <> struct NumbersOf<QUANT_Q2_K> : Numbers<2, 0> {};
template <> struct NumbersOf<QUANT_Q3_K> : Numbers<3, 4> {};
template <> struct NumbersOf<QUANT_Q4_K> : Numbers<4, 0> {};
template <> struct NumbersOf<QUANT_Q5_K> : Numbers<5, 0> {};
template <> struct NumbersOf<QUANT_Q6_K> : Numbers<6, 32> {};
template <> struct NumbersOf<QUANT_IQ4_NL> : Numbers<4, 0, TABLE_IQ4> {};
template <> struct NumbersOf<QUANT_IQ4_XS> : Numbers<4, 0, TABLE_IQ4> {};
template <> struct NumbersOf<QUANT_MXFP4> : Numbers<4, 0, TABLE_E2M1> {};
template <> struct NumbersOf<QUANT_NVFP4> : Numbers<4, 0, TABLE_E2M1> {};
template <> struct NumbersOf<QUANT_Q1_0> : Numbers<1, 1> {};
template <> struct NumbersOf<QUANT_Q2_0> : Numbers<2, 1> {};
template <> struct NumbersOf<QUANT_TQ2_0> : Numbers<2, 1> {};

// The functions of a type of fields.h.
template <QuantType T> struct FieldsOf;
#define FIELDS(type, zero)                                                                                   \
    template <> struct NumbersOf<QUANT_##type> : FieldNumbers<zero> {};                                      \
    template <> struct FieldsOf<QUANT_##type> {                                                              \
        static __device__ __forceinline__ void words(const uint8_t *tile, int lane, int h, int k,            \
                                                     uint32_t first[4], uint32_t second[4]) {                \
            words_##type(tile, lane, h, k, first, second);                                                   \
        }                                                                                                    \
        static __device__ __forceinline__ void scales(const uint8_t *tile, int lane, float scale[2][2][2]) { \
            scales_##type(tile, lane, scale);                                                                \
        }                                                                                                    \
        static __device__ void pack(const Block##type *b, uint8_t *tile, int g, int h) {                     \
            pack_##type(b, tile, g, h);                                                                      \
        }                                                                                                    \
    };
FIELD_TYPES(FIELDS)
#undef FIELDS

// Format<T>, for types of either kind: FLOAT, and for blocks BITS, ZERO, TABLE; GROUP, HAS_MIN; the file's
// Block of BLOCK_CHUNKS chunks and its HEAD bytes of scales, unpacked by unpack; for floats the type of an
// Element.
template <QuantType T> struct Format;
#define NOTHING(...)
#define FLOAT_FORMAT(type, id, c_type)                                                                       \
    template <> struct Format<QUANT_##type> {                                                                \
        using Element = c_type;                                                                              \
        static constexpr bool FLOAT = true;                                                                  \
    };
#define BLOCK_FORMAT(type, id, block, n_weights, group, has_min)                                             \
    template <> struct Format<QUANT_##type> : NumbersOf<QUANT_##type> {                                      \
        using Block = block;                                                                                 \
        static constexpr bool FLOAT = false, HAS_MIN = has_min;                                              \
        static constexpr int GROUP = group, WEIGHTS = n_weights, BLOCK_CHUNKS = n_weights / CHUNK_WEIGHTS;   \
        static constexpr int HEAD = (int)sizeof(block) - n_weights * BITS / 8;                               \
        __device__ static void unpack(const Block *b, int8_t *q, float *scale, float *min) {                 \
            unpack_##type(b, q, scale, min);                                                                 \
        }                                                                                                    \
    };
QUANT_TYPES(FLOAT_FORMAT, BLOCK_FORMAT, NOTHING)
#undef FLOAT_FORMAT
#undef BLOCK_FORMAT

// Calls f(std::integral_constant<QuantType, T>) for a type known at run time; an error for types without a
// format.
template <class F> cudaError_t for_type(QuantType type, F f) {
    switch (type) {
#define FORMAT(type, ...)                                                                                    \
    case QUANT_##type:                                                                                       \
        return f(std::integral_constant<QuantType, QUANT_##type>{});
        QUANT_TYPES(FORMAT, FORMAT, NOTHING)
#undef FORMAT
#undef NOTHING
    default:
        return cudaErrorInvalidValue;
    }
}

// ---- heads: the scales of a tile ------------------------------------------------------------------------

template <class V> __device__ __forceinline__ V load(const uint8_t *p) {
    return *(const V *)p;
}

// Two f16 as floats.
__device__ __forceinline__ float2 halves_of(uint32_t word) {
    return __half22float2(*(const __half2 *)&word);
}

// Byte k of x as a float.
__device__ __forceinline__ float byte_of(uint32_t x, int k) {
    return (float)(int)__byte_perm(x, 0, 0x4440 | k);
}
__device__ __forceinline__ float signed_byte_of(uint32_t x, int k) {
    int byte; // selectors with bit 3 set repeat the sign
    asm("prmt.b32 %0, %1, 0, %2;" : "=r"(byte) : "r"(x), "r"(0x8880 | 0x1110 * k | k));
    return (float)byte;
}

// Nibble 2h + j of x as byte 2j + h.
__device__ __forceinline__ uint32_t spread_nibbles(uint32_t x) {
    return (x & 0x0f0f) | (x << 12 & 0x0f0f0000);
}

// The pairs of a lane (layout.h): their first numbers as the bytes 2j + h of a, their second ones of b.
__device__ __forceinline__ void load_pairs(const uint8_t *pairs, int lane, uint32_t *a, uint32_t *b) {
    uint32_t word = load<uint32_t>(pairs + 4 * lane);
    *a = word & 0x3f3f3f3f;
    *b = (word >> 2 & 0x30303030) | spread_nibbles(load<uint16_t>(pairs + 128 + 2 * lane));
}

__device__ inline void copy_bytes(uint8_t *to, const void *from, int n) {
    for (int i = 0; i < n; i++) to[i] = ((const uint8_t *)from)[i];
}

// In the order of j, because two values of j share a byte.
__device__ inline void put_pair(uint8_t *pairs, int lane, int h, int j, int a, int b) {
    pairs[4 * lane + 2 * j + h] = (uint8_t)(a | b >> 4 << 6);
    uint8_t *low = pairs + 128 + 2 * lane + h;
    *low = (uint8_t)(j ? *low | (b & 15) << 4 : b & 15);
}

// HeadOf<T>::unpack: what a lane needs of a tile's head: the scales, and the minima where the type has them,
// of rows 8h + g and chunks 2i + j as scale[h][j][half], with one half where the type's groups are of 32.
// HeadOf<T>::pack: the scales of a block, whose first chunk is number c of row 8h + g, into a head.
template <QuantType T> struct HeadOf;

// d of each chunk.
struct HeadOfScales {
    static __device__ __forceinline__ void unpack(const uint8_t *head, int lane, float scale[2][2][2],
                                                  float[2][2][2]) {
        uint2 d = load<uint2>(head + 8 * lane);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float2 v = halves_of(h ? d.y : d.x);
            scale[h][0][0] = v.x;
            scale[h][1][0] = v.y;
        }
    }
    template <class Block> static __device__ void pack(const Block *b, uint8_t *head, int g, int h, int c) {
        copy_bytes(head + 8 * (4 * g + c / 2) + 4 * h + 2 * (c % 2), b->d, 2);
    }
};
template <> struct HeadOf<QUANT_Q4_0> : HeadOfScales {};
template <> struct HeadOf<QUANT_Q5_0> : HeadOfScales {};
template <> struct HeadOf<QUANT_Q8_0> : HeadOfScales {};
template <> struct HeadOf<QUANT_IQ4_NL> : HeadOfScales {};

// One d for n chunks, 2, 4 or 8.
template <int n> struct HeadOfFewScales {
    static __device__ __forceinline__ int at(int g, int c) { return 4 * (g * (TILE_CHUNKS / n) + c / n); }
    static __device__ __forceinline__ void unpack(const uint8_t *head, int lane, float scale[2][2][2],
                                                  float[2][2][2]) {
        float2 d = __half22float2(load<__half2>(head + at(lane / 4, 2 * (lane % 4))));
        scale[0][0][0] = scale[0][1][0] = d.x;
        scale[1][0][0] = scale[1][1][0] = d.y;
    }
    template <class Block> static __device__ void pack(const Block *b, uint8_t *head, int g, int h, int c) {
        copy_bytes(head + at(g, c) + 2 * h, b->d, 2);
    }
};
template <> struct HeadOf<QUANT_Q1_0> : HeadOfFewScales<4> {};
template <> struct HeadOf<QUANT_Q2_0> : HeadOfFewScales<2> {};
template <> struct HeadOf<QUANT_TQ2_0> : HeadOfFewScales<8> {};

// d and m of each chunk, of which m is added.
struct HeadOfScalesAndMinima {
    static __device__ __forceinline__ void unpack(const uint8_t *head, int lane, float scale[2][2][2],
                                                  float min[2][2][2]) {
        uint4 dm = load<uint4>(head + 16 * lane);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float2 v = halves_of(*(&dm.x + k));
            scale[k / 2][k % 2][0] = v.x;
            min[k / 2][k % 2][0] = -v.y;
        }
    }
    template <class Block> static __device__ void pack(const Block *b, uint8_t *head, int g, int h, int c) {
        uint8_t *to = head + 16 * (4 * g + c / 2) + 8 * h + 4 * (c % 2);
        copy_bytes(to, b->d, 2);
        copy_bytes(to + 2, b->m, 2);
    }
};
template <> struct HeadOf<QUANT_Q4_1> : HeadOfScalesAndMinima {};
template <> struct HeadOf<QUANT_Q5_1> : HeadOfScalesAndMinima {};

template <> struct HeadOf<QUANT_MXFP4> {
    static __device__ __forceinline__ void unpack(const uint8_t *head, int lane, float scale[2][2][2],
                                                  float[2][2][2]) {
        uint32_t e = load<uint32_t>(head + 4 * lane);
#pragma unroll
        for (int k = 0; k < 4; k++) scale[k / 2][k % 2][0] = e8m0_half_to_f32((uint8_t)(e >> 8 * k));
    }
    static __device__ void pack(const BlockMXFP4 *b, uint8_t *head, int g, int h, int c) {
        head[4 * (4 * g + c / 2) + 2 * h + c % 2] = b->e;
    }
};

template <> struct HeadOf<QUANT_NVFP4> {
    static __device__ __forceinline__ void unpack(const uint8_t *head, int lane, float scale[2][2][2],
                                                  float[2][2][2]) {
        uint2 s = load<uint2>(head + 8 * lane);
#pragma unroll
        for (int k = 0; k < 8; k++)
            scale[k / 4][k / 2 % 2][k % 2] =
                ue4m3_to_f32((uint8_t)((k < 4 ? s.x : s.y) >> 8 * (k % 4))) * 0.5f;
    }
    static __device__ void pack(const BlockNVFP4 *b, uint8_t *head, int g, int h, int c) {
        copy_bytes(head + 8 * (4 * g + c / 2) + 4 * h, b->scales, 4);
    }
};

template <> struct HeadOf<QUANT_Q2_K> {
    static __device__ __forceinline__ void unpack(const uint8_t *head, int lane, float scale[2][2][2],
                                                  float min[2][2][2]) {
        uint2 dms = load<uint2>(head + 8 * (lane / 4)), s = load<uint2>(head + 64 + 8 * lane);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float2 dm = halves_of(h ? dms.y : dms.x);
            uint32_t word = h ? s.y : s.x, low = word & 0x0f0f0f0f, high = word >> 4 & 0x0f0f0f0f;
#pragma unroll
            for (int k = 0; k < 4; k++) {
                scale[h][k / 2][k % 2] = dm.x * byte_of(low, k);
                min[h][k / 2][k % 2] = dm.y * byte_of(high, k);
            }
        }
    }
    static __device__ void pack(const BlockQ2_K *b, uint8_t *head, int g, int h, int) {
        copy_bytes(head + 8 * g + 4 * h, b->d, 2);
        copy_bytes(head + 8 * g + 4 * h + 2, b->dmin, 2);
        for (int i = 0; i < 4; i++) copy_bytes(head + 64 + 8 * (4 * g + i) + 4 * h, b->scales + 4 * i, 4);
    }
};

template <> struct HeadOf<QUANT_Q6_K> {
    static __device__ __forceinline__ void unpack(const uint8_t *head, int lane, float scale[2][2][2],
                                                  float[2][2][2]) {
        int g = lane / 4;
        float2 d = __half22float2(load<__half2>(head + 4 * g));
        uint2 s = load<uint2>(head + 32 + 8 * lane);
#pragma unroll
        for (int k = 0; k < 8; k++)
            scale[k / 4][k / 2 % 2][k % 2] = (k < 4 ? d.x : d.y) * signed_byte_of(k < 4 ? s.x : s.y, k % 4);
    }
    static __device__ void pack(const BlockQ6_K *b, uint8_t *head, int g, int h, int) {
        copy_bytes(head + 4 * g + 2 * h, b->d, 2);
        for (int i = 0; i < 4; i++) copy_bytes(head + 32 + 8 * (4 * g + i) + 4 * h, b->scales + 4 * i, 4);
    }
};

template <> struct HeadOf<QUANT_Q3_K> {
    static __device__ __forceinline__ void unpack(const uint8_t *head, int lane, float scale[2][2][2],
                                                  float[2][2][2]) {
        int g = lane / 4;
        float2 d = __half22float2(load<__half2>(head + 4 * g));
        uint32_t a, b;
        load_pairs(head + 32, lane, &a, &b);
#pragma unroll
        for (int k = 0; k < 4; k++) { // byte 2j + h
            float dh = k % 2 ? d.y : d.x;
            scale[k % 2][k / 2][0] = dh * (byte_of(a, k) - 32);
            scale[k % 2][k / 2][1] = dh * (byte_of(b, k) - 32);
        }
    }
    static __device__ void pack(const BlockQ3_K *b, uint8_t *head, int g, int h, int) {
        copy_bytes(head + 4 * g + 2 * h, b->d, 2);
        for (int k = 0; k < 8; k++)
            put_pair(head + 32, 4 * g + k / 2, h, k % 2, q3_k_scale(b, 2 * k), q3_k_scale(b, 2 * k + 1));
    }
};

// A six-bit scale and minimum of each chunk, times d and dmin.
struct HeadOfPairs {
    static __device__ __forceinline__ void unpack(const uint8_t *head, int lane, float scale[2][2][2],
                                                  float min[2][2][2]) {
        uint2 dms = load<uint2>(head + 8 * (lane / 4));
        float2 dm[2] = {halves_of(dms.x), halves_of(dms.y)};
        uint32_t a, b;
        load_pairs(head + 64, lane, &a, &b);
#pragma unroll
        for (int k = 0; k < 4; k++) { // byte 2j + h
            scale[k % 2][k / 2][0] = dm[k % 2].x * byte_of(a, k);
            min[k % 2][k / 2][0] = dm[k % 2].y * byte_of(b, k);
        }
    }
    template <class Block> static __device__ void pack(const Block *b, uint8_t *head, int g, int h, int) {
        copy_bytes(head + 8 * g + 4 * h, b->d, 2);
        copy_bytes(head + 8 * g + 4 * h + 2, b->dmin, 2);
        for (int k = 0; k < 8; k++)
            put_pair(head + 64, 4 * g + k / 2, h, k % 2, k_scale(b->scales, k), k_min(b->scales, k));
    }
};
template <> struct HeadOf<QUANT_Q4_K> : HeadOfPairs {};
template <> struct HeadOf<QUANT_Q5_K> : HeadOfPairs {};

template <> struct HeadOf<QUANT_IQ4_XS> {
    static __device__ __forceinline__ void unpack(const uint8_t *head, int lane, float scale[2][2][2],
                                                  float[2][2][2]) {
        int g = lane / 4;
        float2 d = __half22float2(load<__half2>(head + 4 * g));
        uint32_t low = spread_nibbles(load<uint16_t>(head + 32 + 2 * lane));
        uint32_t rows = load<uint32_t>(head + 96 + 4 * g) >> 4 * (lane % 4); // both rows' bits of this lane
        uint32_t high =
            (rows & 3) << 4 | (rows & 12) << 18 | (rows >> 16 & 3) << 12 | (rows >> 16 & 12) << 26;
#pragma unroll
        for (int k = 0; k < 4; k++)
            scale[k % 2][k / 2][0] = (k % 2 ? d.y : d.x) * (byte_of(low | high, k) - 32);
    }
    static __device__ void pack(const BlockIQ4_XS *b, uint8_t *head, int g, int h, int) {
        copy_bytes(head + 4 * g + 2 * h, b->d, 2);
        uint16_t high = 0;
        for (int k = 0; k < 8; k++) high |= (uint16_t)((iq4_xs_scale(b, k) >> 4) << 2 * k);
        for (int i = 0; i < 4; i++)
            head[32 + 2 * (4 * g + i) + h] =
                (uint8_t)((iq4_xs_scale(b, 2 * i) & 15) | (iq4_xs_scale(b, 2 * i + 1) & 15) << 4);
        *(uint16_t *)(head + 96 + 4 * g + 2 * h) = high;
    }
};

// ---- from planes to numbers -----------------------------------------------------------------------------

// Four values of the table as one word, from value `first` on.
template <Table TABLE> __device__ __forceinline__ constexpr uint32_t table_word(int first) {
    constexpr int8_t iq4[16] = {QUANT_IQ4}, e2m1[16] = {QUANT_E2M1};
    uint32_t word = 0;
    for (int i = 0; i < 4; i++)
        word |= (uint32_t)(uint8_t)(TABLE == TABLE_IQ4 ? iq4[first + i] : e2m1[first + i]) << 8 * i;
    return word;
}

// Eight nibbles into eight signed bytes.
template <Table TABLE>
__device__ __forceinline__ void look_up_nibbles(uint32_t nibbles, uint32_t *first, uint32_t *second) {
    constexpr uint32_t t0 = table_word<TABLE>(0), t1 = table_word<TABLE>(4), t2 = table_word<TABLE>(8),
                       t3 = table_word<TABLE>(12);
    uint32_t index = nibbles & 0x77777777, half = (nibbles >> 1 & 0x44444444) | 0x32103210;
    *first = __byte_perm(__byte_perm(t0, t1, index), __byte_perm(t2, t3, index), half);
    index >>= 16;
    half >>= 16;
    *second = __byte_perm(__byte_perm(t0, t1, index), __byte_perm(t2, t3, index), half);
}

// The bits of x under `mask`, moved up by `by` bits, or down where it is negative.
__device__ __forceinline__ uint32_t moved(uint32_t x, uint32_t mask, int by) {
    return by >= 0 ? x << by & mask << by : x >> -by & mask >> -by;
}

// ---- a lane's share of a tile ---------------------------------------------------------------------------

// Byte offsets in a tile of blocks: the planes, and the head behind them.
template <QuantType T> struct Planes {
    static constexpr int BITS = Format<T>::BITS, LOW = 0, TWO = BITS >= 4 ? 2048 : 0,
                         ONE = TWO + (BITS == 3 ? 1024 : 0), HEAD = BITS * 512;
    static constexpr bool HAS_ONE = BITS == 1 || BITS == 3 || BITS == 5;
    static constexpr int ONE_BIT = BITS == 1 ? 1 : BITS - 1; // of a number, kept in the plane "one"
};

// Of rows 8h + g, chunks 4k..4k+3: the weights 4i..4i+3 of each as the bytes of first[], 16+4i.. of second[],
// unsigned numbers (in odd chunks ODD_TIMES times as large) or signed values.  The tile, in shared or global
// memory, is aligned to 16 bytes.
template <QuantType T>
__device__ __forceinline__ void tile_words(const uint8_t *tile, int lane, int h, int k, uint32_t first[4],
                                           uint32_t second[4]) {
    using P = Planes<T>;
    constexpr int BITS = P::BITS;
    if constexpr (BITS == 0) {
        FieldsOf<T>::words(tile, lane, h, k, first, second);
        return;
    }
    if constexpr (BITS == 8) {
#pragma unroll
        for (int c = 0; c < 4; c++) {
            uint4 v = load<uint4>(tile + ((4 * k + c) * 32 + lane) * 16);
            first[c] = h ? v.y : v.x;
            second[c] = h ? v.w : v.z;
        }
        return;
    }
    if constexpr (BITS >= 4) {
        uint4 low = load<uint4>(tile + P::LOW + ((2 * h + k) * 32 + lane) * 16);
        const uint32_t word[4] = {low.x, low.y, low.z, low.w};
#pragma unroll
        for (int c = 0; c < 4; c++) {
            if constexpr (Format<T>::TABLE != TABLE_NONE) {
                look_up_nibbles<Format<T>::TABLE>(word[c], &first[c], &second[c]);
            } else {
                int down = c % 2 && Format<T>::ODD_TIMES == 1 ? 4 : 0;
                uint32_t mask = c % 2 && Format<T>::ODD_TIMES == 16 ? 0xf0f0f0f0 : 0x0f0f0f0f;
                first[c] = word[c & 2] >> down & mask;
                second[c] = word[c | 1] >> down & mask;
            }
        }
    }
    if constexpr (BITS == 2 || BITS == 3 || BITS == 6) {
        constexpr int shift = BITS & 4; // of the two bits in a number
        uint2 two = load<uint2>(tile + P::TWO + (h * 32 + lane) * 16 + 8 * k);
#pragma unroll
        for (int c = 0; c < 4; c++) {
            uint32_t word = c < 2 ? two.x : two.y;
            int at = c % 2 * 4;
            uint32_t a = moved(word, 0x03030303u << at, shift - at),
                     b = moved(word, 0x03030303u << (at + 2), shift - at - 2);
            first[c] = shift ? first[c] | a : a;
            second[c] = shift ? second[c] | b : b;
        }
    }
    if constexpr (P::HAS_ONE) {
        uint2 one = load<uint2>(tile + P::ONE + lane * 16 + 8 * h);
        one.x >>= 4 * k;
        one.y >>= 4 * k;
#pragma unroll
        for (int c = 0; c < 4; c++) {
            uint32_t a = moved(one.x, 0x01010101u << c, P::ONE_BIT - c),
                     b = moved(one.y, 0x01010101u << c, P::ONE_BIT - c);
            first[c] = BITS == 1 ? a : first[c] | a;
            second[c] = BITS == 1 ? b : second[c] | b;
        }
    }
}

// The scales of rows 8h + g, chunks 2i + j, their halves apart where the type's groups are of 16, and their
// minima where the type has them: the numbers of QuantTraits.unpack to the bit, but for ODD_TIMES.
template <QuantType T>
__device__ __forceinline__ void tile_scales(const uint8_t *tile, int lane, float scale[2][2][2],
                                            float min[2][2][2]) {
    if constexpr (Format<T>::BITS == 0)
        FieldsOf<T>::scales(tile, lane, scale);
    else
        HeadOf<T>::unpack(tile + Planes<T>::HEAD, lane, scale, min);
    static_assert(Format<T>::ODD_TIMES == 1 || Format<T>::GROUP == 32, "a chunk has one scale");
    if constexpr (Format<T>::ODD_TIMES > 1) {
        scale[0][1][0] *= 1.0f / Format<T>::ODD_TIMES;
        scale[1][1][0] *= 1.0f / Format<T>::ODD_TIMES;
    }
}

// The weights of rows 8h + g as floats, to the bit those of QuantTraits.decode (the product is exact): of
// chunk 4k + c in v[c] the weights 4i..4i+3, then 16+4i..  The whole warp calls.
template <QuantType T>
__device__ __forceinline__ void tile_values(const uint8_t *tile, int lane, int h, int k, float v[4][8]) {
    using F = Format<T>;
    uint32_t first[4], second[4];
    float scale[2][2][2], min[2][2][2];
    tile_words<T>(tile, lane, h, k, first, second);
    tile_scales<T>(tile, lane, scale, min);
#pragma unroll
    for (int c = 0; c < 4; c++) {
        int owner = lane / 4 * 4 + 2 * k + c / 2; // the lane with this chunk's scales
#pragma unroll
        for (int half = 0; half < 2; half++) {
            constexpr int halves = F::GROUP == 16 ? 1 : 0;
            float mine = h ? scale[1][c % 2][half * halves] : scale[0][c % 2][half * halves], less = 0;
            float s = __shfl_sync(0xffffffffu, mine, owner);
            if constexpr (F::HAS_MIN) {
                mine = h ? min[1][c % 2][half * halves] : min[0][c % 2][half * halves];
                less = __shfl_sync(0xffffffffu, mine, owner);
            }
#pragma unroll
            for (int b = 0; b < 4; b++) {
                uint32_t byte = (half ? second[c] : first[c]) >> 8 * b & 255;
                int number = F::SIGNED ? (int8_t)byte : (int)byte - F::zero_of(c);
                v[c][4 * half + b] = fmaf(s, (float)number, -less);
            }
        }
    }
}

// Floats in a vector of 16 bytes, and of a row in a tile.
template <QuantType T> constexpr int VECTOR_FLOATS = (int)(16 / sizeof(typename Format<T>::Element));
template <QuantType T> constexpr int TILE_FLOATS = 16 * VECTOR_FLOATS<T>;

// Vector 4h + k of a lane: the weights from (4k + i) * VECTOR_FLOATS on.
template <QuantType T>
__device__ __forceinline__ void tile_floats(const uint8_t *tile, int lane, int h, int k,
                                            float w[VECTOR_FLOATS<T>]) {
    uint4 bits = load<uint4>(tile + ((4 * h + k) * 32 + lane) * 16);
    const uint32_t word[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if constexpr (T == QUANT_F32) {
            w[i] = __uint_as_float(word[i]);
        } else if constexpr (T == QUANT_FP8_E4M3) {
#pragma unroll
            for (int k2 = 0; k2 < 2; k2++) {
                float2 pair = __half22float2(
                    __nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t)(word[i] >> 16 * k2), __NV_E4M3));
                w[4 * i + 2 * k2] = pair.x;
                w[4 * i + 2 * k2 + 1] = pair.y;
            }
        } else if constexpr (T == QUANT_F16) {
            float2 pair = __half22float2(*(const __half2 *)&word[i]);
            w[2 * i] = pair.x;
            w[2 * i + 1] = pair.y;
        } else {
            static_assert(T == QUANT_BF16, "a float type of its own");
            w[2 * i] = __uint_as_float(word[i] << 16);
            w[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000);
        }
    }
}

// ---- from the file's blocks to tiles --------------------------------------------------------------------

// The numbers of a block as unsigned ones; those of 8 bits are signed.
template <QuantType T> __device__ void block_bits(const typename Format<T>::Block *b, int8_t *q) {
    using F = Format<T>;
    if constexpr (T == QUANT_IQ4_NL)
        codes_IQ4_NL(b, q);
    else if constexpr (T == QUANT_IQ4_XS)
        codes_IQ4_XS(b, q);
    else if constexpr (T == QUANT_MXFP4)
        codes_MXFP4(b, q);
    else if constexpr (T == QUANT_NVFP4)
        codes_NVFP4(b, q);
    else {
        static_assert(F::TABLE == TABLE_NONE, "a table type gives its codes");
        float scale[F::WEIGHTS / F::GROUP], min[F::WEIGHTS / F::GROUP];
        F::unpack(b, q, scale, min);
        for (int i = 0; i < F::WEIGHTS; i++) q[i] = (int8_t)(q[i] + F::ZERO);
    }
}

// Four numbers' bits from `from` on, `n` of them each, as the bits `at`.. of the bytes of a word.
__device__ inline uint32_t pack_word(const uint8_t *q, int from, int n, int at) {
    uint32_t word = 0;
    for (int b = 0; b < 4; b++) word |= (uint32_t)(q[b] >> from & ((1 << n) - 1)) << (8 * b + at);
    return word;
}

// Packs the 256 numbers of row 8h + g into the planes of a tile.
template <QuantType T> __device__ void pack_numbers(const uint8_t *q, uint8_t *tile, int g, int h) {
    using P = Planes<T>;
    constexpr int BITS = P::BITS;
    for (int i = 0; i < 4; i++) {
        int lane = 4 * g + i;
        const uint8_t *mine = q + 4 * i; // first weights of chunk c at 32 c, second 16 later
        if constexpr (BITS == 8)
            for (int c = 0; c < 8; c++) {
                uint32_t *words = (uint32_t *)(tile + (c * 32 + lane) * 16);
                words[h] = pack_word(mine + 32 * c, 0, 8, 0);
                words[2 + h] = pack_word(mine + 32 * c + 16, 0, 8, 0);
            }
        if constexpr (BITS >= 4 && BITS < 8)
            for (int c = 0; c < 8; c++) {
                const uint8_t *a = mine + 32 * (c & 6) + 16 * (c & 1), *b = a + 32;
                uint32_t word = pack_word(a, 0, 4, 0) | pack_word(b, 0, 4, 4);
                if (Format<T>::TABLE != TABLE_NONE) {
                    a = mine + 32 * c;
                    b = a + 16;
                    word = 0;
                    for (int k = 0; k < 4; k++)
                        word |= (uint32_t)(a[k] & 15) << 4 * k | (uint32_t)(b[k] & 15) << (16 + 4 * k);
                }
                *(uint32_t *)(tile + P::LOW + ((2 * h + c / 4) * 32 + lane) * 16 + c % 4 * 4) = word;
            }
        if constexpr (BITS == 2 || BITS == 3 || BITS == 6)
            for (int c = 0; c < 8; c += 2) {
                uint32_t word = 0;
                for (int f = 0; f < 4; f++) word |= pack_word(mine + 32 * c + 16 * f, BITS & 4, 2, 2 * f);
                *(uint32_t *)(tile + P::TWO + (h * 32 + lane) * 16 + c / 2 * 4) = word;
            }
        if constexpr (P::HAS_ONE)
            for (int second = 0; second < 2; second++) {
                uint32_t word = 0;
                for (int c = 0; c < 8; c++) word |= pack_word(mine + 32 * c + 16 * second, P::ONE_BIT, 1, c);
                *(uint32_t *)(tile + P::ONE + lane * 16 + 8 * h + 4 * second) = word;
            }
    }
}

// Packs n_chunks chunks of a row, at most a tile's, into row 8h + g of a tile, and zeros behind them.
template <QuantType T>
__device__ void repack_row(const typename Format<T>::Block *b, int n_chunks, uint8_t *tile, int g, int h) {
    using F = Format<T>;
    if constexpr (F::BITS == 0) {
        static_assert(F::BLOCK_CHUNKS == TILE_CHUNKS, "a block fills the row of a tile");
        FieldsOf<T>::pack(b, tile, g, h);
    } else {
        int8_t q[256];
        for (int c = n_chunks; c < TILE_CHUNKS; c++)
            for (int i = 0; i < CHUNK_WEIGHTS; i++) q[c * CHUNK_WEIGHTS + i] = 0;
        for (int c = 0; c < n_chunks; c += F::BLOCK_CHUNKS, b++) {
            block_bits<T>(b, q + c * CHUNK_WEIGHTS);
            HeadOf<T>::pack(b, tile + Planes<T>::HEAD, g, h, c);
        }
        pack_numbers<T>((const uint8_t *)q, tile, g, h);
    }
}
