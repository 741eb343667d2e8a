// quant: the block formats on the device: from the file's blocks to the planes of layout.h, and from there to
// numbers.
//
// The kernels see every block format as chunks of 32 weights: eight words of bytes and the scales of two
// halves.  What a format needs for that is one line of numbers here, the rest follows from the list in
// quant.h; only the heads differ by type.  All functions inline, and with the type fixed at compile time
// nothing of the choice remains.
//
// The one trick: four bits through a table of 16 bytes are two byte permutes over the table's halves and a
// third that chooses by the fourth bit, four weights at once; a permute is a table look-up whose selector is
// the data.
#pragma once
#include "layout.h"
#include "../src/gguf/unpack.h"
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#include <type_traits>

enum Table { TABLE_NONE, TABLE_IQ4, TABLE_E2M1 };

template <int bits, int zero, Table table = TABLE_NONE> struct Numbers {
    static constexpr int BITS = bits, ZERO = zero; // ZERO: what to subtract from the unsigned number
    static constexpr Table TABLE = table;
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

// ---- from planes to numbers -----------------------------------------------------------------------------

template <class V> __device__ __forceinline__ V load(const uint8_t *p) {
    return *(const V *)p;
}

__device__ __forceinline__ float half_at(const uint8_t *p) {
    return __half2float(load<__half>(p));
}

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
    index >>= 16, half >>= 16;
    *second = __byte_perm(__byte_perm(t0, t1, index), __byte_perm(t2, t3, index), half);
}

// The bits of x that `mask` (before the move) selects, moved up by `by` places, or down where it is negative.
__device__ __forceinline__ uint32_t moved(uint32_t x, uint32_t mask, int by) {
    return by >= 0 ? x << by & mask << by : x >> -by & mask >> -by;
}

// Weights 4i..4i+3 of chunk c as the bytes of q[i], unsigned numbers or signed values of the table.  The
// segment, in shared or global memory, is aligned to 16 bytes.
template <QuantType T>
__device__ __forceinline__ void chunk_words(const uint8_t *segment, int n_chunks, int c, uint32_t q[8]) {
    constexpr int BITS = Format<T>::BITS;
    if constexpr (BITS == 8) {
        uint4 even = load<uint4>(segment + c * 16), odd = load<uint4>(segment + (n_chunks + c) * 16);
        q[0] = even.x, q[1] = even.y, q[2] = even.z, q[3] = even.w;
        q[4] = odd.x, q[5] = odd.y, q[6] = odd.z, q[7] = odd.w;
        return;
    }
    if constexpr (BITS >= 4) {
        uint4 low = load<uint4>(segment + c * 16);
        const uint32_t word[4] = {low.x, low.y, low.z, low.w};
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if constexpr (Format<T>::TABLE != TABLE_NONE)
                look_up_nibbles<Format<T>::TABLE>(word[k], &q[2 * k], &q[2 * k + 1]);
            else
                q[k] = word[k] & 0x0f0f0f0f, q[k + 4] = word[k] >> 4 & 0x0f0f0f0f;
        }
        segment += n_chunks * 16;
    }
    if constexpr (BITS == 2 || BITS == 3 || BITS == 6) {
        constexpr int place = BITS & 4;
        uint2 two = load<uint2>(segment + c * 8);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t first = moved(two.x, 0x03030303u << 2 * i, place - 2 * i);
            uint32_t second = moved(two.y, 0x03030303u << 2 * i, place - 2 * i);
            q[i] = place ? q[i] | first : first, q[i + 4] = place ? q[i + 4] | second : second;
        }
        segment += n_chunks * 8;
    }
    if constexpr (BITS == 3 || BITS == 5) {
        uint32_t one = load<uint32_t>(segment + c * 4);
#pragma unroll
        for (int i = 0; i < 8; i++) q[i] |= moved(one, 0x01010101u << i, BITS - 1 - i);
    }
}

// The 12 bits of a pair: the low ones, and the nibble number `nibble` of high.
__device__ __forceinline__ uint32_t pair_of(uint32_t low, uint32_t high, unsigned nibble) {
    return low | (__funnelshift_r(high, high, 4 * nibble + 24) & 0xf00);
}

// The scales of weights 0..15 and 16..31 of chunk c, and their minima (0 where the type has none): the
// numbers of QuantTraits.unpack to the bit.
template <QuantType T>
__device__ __forceinline__ void chunk_scales(const uint8_t *segment, int n_chunks, int c, float scale[2],
                                             float min[2]) {
    using F = Format<T>;
    unsigned block = (unsigned)c / F::BLOCK_CHUNKS, k = (unsigned)c % F::BLOCK_CHUNKS;
    const uint8_t *head = segment + n_chunks * (F::BITS * 4) + block * F::HEAD;
    min[0] = min[1] = 0;
    if constexpr (T == QUANT_Q4_1 || T == QUANT_Q5_1) {
        float2 dm = __half22float2(load<__half2>(head));
        scale[0] = scale[1] = dm.x, min[0] = min[1] = -dm.y;
    } else if constexpr (T == QUANT_MXFP4) {
        scale[0] = scale[1] = e8m0_half_to_f32(*head);
    } else if constexpr (T == QUANT_NVFP4) {
        uint32_t s = load<uint16_t>(head + 2 * k);
        scale[0] = ue4m3_to_f32((uint8_t)s) * 0.5f, scale[1] = ue4m3_to_f32((uint8_t)(s >> 8)) * 0.5f;
    } else if constexpr (T == QUANT_Q2_K) {
        float2 dm = __half22float2(load<__half2>(head));
        uint32_t s = load<uint16_t>(head + 4 + 2 * k);
        scale[0] = dm.x * (float)(s & 15), min[0] = dm.y * (float)(s >> 4 & 15);
        scale[1] = dm.x * (float)(s >> 8 & 15), min[1] = dm.y * (float)(s >> 12);
    } else if constexpr (T == QUANT_Q3_K) {
        float d = half_at(head);
        uint32_t pair = pair_of(head[6 + k], load<uint16_t>(head + 2 + k / 4 * 2), k % 4);
        scale[0] = d * (float)((int)(pair & 63) - 32), scale[1] = d * (float)((int)(pair >> 6) - 32);
    } else if constexpr (T == QUANT_Q4_K || T == QUANT_Q5_K) {
        uint2 words = load<uint2>(head);
        float2 dm = __half22float2(*(const __half2 *)&words.x);
        uint32_t pair = pair_of(head[8 + k], words.y, k);
        scale[0] = scale[1] = dm.x * (float)(pair & 63), min[0] = min[1] = dm.y * (float)(pair >> 6);
    } else if constexpr (T == QUANT_Q6_K) {
        float d = half_at(head);
        uint32_t s = load<uint16_t>(head + 2 + 2 * k);
        scale[0] = d * (float)(int8_t)s, scale[1] = d * (float)(int8_t)(s >> 8);
    } else if constexpr (T == QUANT_IQ4_XS) {
        uint64_t bits = load<uint64_t>(head);
        float d = __half2float(__ushort_as_half((unsigned short)bits));
        scale[0] = scale[1] = d * (float)((int)(bits >> (16 + 6 * k) & 63) - 32);
    } else {
        static_assert(F::HEAD == 2 && F::BLOCK_CHUNKS == 1, "a head of its own");
        scale[0] = scale[1] = half_at(head);
    }
}

// The weights of chunk c as floats, to the bit those of QuantTraits.decode: the product is exact.
template <QuantType T>
__device__ __forceinline__ void chunk_values(const uint8_t *segment, int n_chunks, int c,
                                             float v[CHUNK_WEIGHTS]) {
    constexpr bool is_signed = Format<T>::TABLE != TABLE_NONE || Format<T>::BITS == 8;
    uint32_t q[8];
    float scale[2], min[2];
    chunk_words<T>(segment, n_chunks, c, q);
    chunk_scales<T>(segment, n_chunks, c, scale, min);
#pragma unroll
    for (int i = 0; i < CHUNK_WEIGHTS; i++) {
        uint32_t byte = q[i / 4] >> i % 4 * 8 & 255;
        int number = is_signed ? (int8_t)byte : (int)byte - Format<T>::ZERO;
        v[i] = fmaf(scale[i / 16], (float)number, -min[i / 16]);
    }
}

// Weights k..k+7 (k a multiple of 8) of a segment of n_weights floats; those from n_weights on are undefined.
template <QuantType T>
__device__ __forceinline__ void load_floats(const uint8_t *segment, int k, int n_weights, float w[8]) {
    if constexpr (T == QUANT_F32) {
        float4 a = load<float4>(segment + k * 4), b = a;
        if (k + 4 < n_weights) b = load<float4>(segment + k * 4 + 16);
        w[0] = a.x, w[1] = a.y, w[2] = a.z, w[3] = a.w, w[4] = b.x, w[5] = b.y, w[6] = b.z, w[7] = b.w;
    } else if constexpr (T == QUANT_FP8_E4M3) {
        uint2 bytes = load<uint2>(segment + k);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t two = (i < 2 ? bytes.x : bytes.y) >> i % 2 * 16;
            float2 pair = __half22float2(__nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t)two, __NV_E4M3));
            w[2 * i] = pair.x, w[2 * i + 1] = pair.y;
        }
    } else {
        uint4 halves = load<uint4>(segment + k * 2);
        const uint32_t word[4] = {halves.x, halves.y, halves.z, halves.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if constexpr (T == QUANT_F16) {
                float2 pair = __half22float2(*(const __half2 *)&word[i]);
                w[2 * i] = pair.x, w[2 * i + 1] = pair.y;
            } else {
                static_assert(T == QUANT_BF16, "a float type of its own");
                w[2 * i] = __uint_as_float(word[i] << 16),
                      w[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000);
            }
        }
    }
}

// ---- from the file's blocks to planes -------------------------------------------------------------------

// The numbers of a block as unsigned bits (8-bit ones as they stand).
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

// The 32 numbers of chunk c into the planes of its segment.
template <QuantType T> __device__ void pack_chunk(const uint8_t *q, uint8_t *segment, int n_chunks, int c) {
    constexpr int BITS = Format<T>::BITS;
    if constexpr (BITS == 8) {
        for (int i = 0; i < 32; i++) segment[(i / 16 * n_chunks + c) * 16 + i % 16] = q[i];
        return;
    }
    if constexpr (BITS >= 4) {
        uint8_t *low = segment + c * 16;
        for (int i = 0; i < 16; i++)
            low[i] = Format<T>::TABLE != TABLE_NONE ? (uint8_t)(q[2 * i] | q[2 * i + 1] << 4)
                                                    : (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
        segment += n_chunks * 16;
    }
    if constexpr (BITS == 2 || BITS == 3 || BITS == 6) {
        uint8_t *two = segment + c * 8;
        for (int i = 0; i < 8; i++) {
            two[i] = 0;
            for (int k = 0; k < 4; k++) two[i] |= (q[i / 4 * 16 + k * 4 + i % 4] >> (BITS & 4) & 3) << 2 * k;
        }
        segment += n_chunks * 8;
    }
    if constexpr (BITS == 3 || BITS == 5) {
        uint8_t *one = segment + c * 4;
        for (int i = 0; i < 4; i++) {
            one[i] = 0;
            for (int k = 0; k < 8; k++) one[i] |= (q[k * 4 + i] >> (BITS - 1) & 1) << k;
        }
    }
}

__device__ inline void copy_bytes(uint8_t *to, const void *from, int n) {
    for (int i = 0; i < n; i++) to[i] = ((const uint8_t *)from)[i];
}

__device__ inline void put_pair(uint8_t *pairs, int k, int a, int b) { // in the order of k: two share a byte
    int pair = a | b << 6;
    pairs[k / 2] = (uint8_t)(k % 2 ? pairs[k / 2] | pair >> 8 << 4 : pair >> 8);
    pairs[4 + k] = (uint8_t)pair;
}

template <QuantType T> __device__ void pack_head(const typename Format<T>::Block *b, uint8_t *head) {
    if constexpr (T == QUANT_MXFP4)
        *head = b->e;
    else if constexpr (T == QUANT_NVFP4)
        copy_bytes(head, b->scales, 4);
    else
        copy_bytes(head, b->d, 2);

    if constexpr (T == QUANT_Q4_1 || T == QUANT_Q5_1) copy_bytes(head + 2, b->m, 2);
    if constexpr (T == QUANT_Q2_K || T == QUANT_Q4_K || T == QUANT_Q5_K) copy_bytes(head + 2, b->dmin, 2);
    if constexpr (T == QUANT_Q2_K) copy_bytes(head + 4, b->scales, 16);
    if constexpr (T == QUANT_Q6_K) copy_bytes(head + 2, b->scales, 16);
    if constexpr (T == QUANT_Q3_K)
        for (int k = 0; k < 8; k++) put_pair(head + 2, k, q3_k_scale(b, 2 * k), q3_k_scale(b, 2 * k + 1));
    if constexpr (T == QUANT_Q4_K || T == QUANT_Q5_K)
        for (int k = 0; k < 8; k++) put_pair(head + 4, k, k_scale(b->scales, k), k_min(b->scales, k));
    if constexpr (T == QUANT_IQ4_XS) {
        uint64_t bits = 0;
        for (int k = 0; k < 8; k++) bits |= (uint64_t)iq4_xs_scale(b, k) << 6 * k;
        copy_bytes(head + 2, &bits, 6); // little-endian, as every GPU is
    }
}

// File block number i of a segment to its places in there.
template <QuantType T>
__device__ void repack_block(const typename Format<T>::Block *b, uint8_t *segment, int n_chunks, int i) {
    using F = Format<T>;
    int8_t q[F::WEIGHTS];
    block_bits<T>(b, q);
    for (int k = 0; k < F::BLOCK_CHUNKS; k++)
        pack_chunk<T>((const uint8_t *)q + 32 * k, segment, n_chunks, i * F::BLOCK_CHUNKS + k);
    pack_head<T>(b, segment + n_chunks * (F::BITS * 4) + i * F::HEAD);
}
