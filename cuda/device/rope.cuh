// rope: what is done to heads before attention: a norm and a rotation of queries and new keys, and how a new
// row of K or V is stored; the same bits wherever it is done.
//
// A warp holds a head (HeadRow), a query or a new key alike.
#pragma once
#include "attn.cuh"
#include "device.cuh"

// Cosine and sine of position * frequency, times the magnitude.  Positions go into the hundreds of thousands,
// so that the angle is computed and reduced to half a circle either way in f64, and only then rounded to f32:
// the error that is left is that of f32.
__device__ inline float2 rotation_of(const Rotation &r, int position, int pair) {
    constexpr double CIRCLE = 6.283185307179586;
    double angle = position * r.frequency[pair] * (1 / CIRCLE);
    float2 rotation;
    sincospif((float)(2 * (angle - rint(angle))), &rotation.y, &rotation.x);
    return make_float2(rotation.x * r.magnitude, rotation.y * r.magnitude);
}

__device__ inline float2 rotate(float2 x, float2 rotation) {
    return make_float2(__fmaf_rn(x.x, rotation.x, -__fmul_rn(x.y, rotation.y)),
                       __fmaf_rn(x.x, rotation.y, __fmul_rn(x.y, rotation.x)));
}

// Whether dimensions are rotated with others far from them.
__device__ inline bool rotates_halves(const Rotation &r) {
    return r.n_rot > 0 && r.pairing == ROPE_HALVES;
}

// Of two neighbouring dimensions from an even `column` on: the first of the two with which they are rotated
// by halves, or `column` where they are not rotated.
__device__ inline int partner_of(const Rotation &r, int column) {
    int i = column - r.first, half = r.n_rot / 2;
    if ((unsigned)i >= (unsigned)r.n_rot) return column;
    return i < half ? column + half : column - half;
}

// The dimensions `column` and `column` + 1, x, rotated; by halves with their partners.
__device__ inline float2 rotated(const Rotation &r, const float2 *rotation, int column, float2 x,
                                 float2 partner) {
    int i = column - r.first, half = r.n_rot / 2;
    if ((unsigned)i >= (unsigned)r.n_rot) return x;
    if (r.pairing == ROPE_ADJACENT) return rotate(x, rotation[i / 2]);
    if (i < half)
        return make_float2(rotate(make_float2(x.x, partner.x), rotation[i]).x,
                           rotate(make_float2(x.y, partner.y), rotation[i + 1]).x);
    return make_float2(rotate(make_float2(partner.x, x.x), rotation[i - half]).y,
                       rotate(make_float2(partner.y, x.y), rotation[i - half + 1]).y);
}

// sum + the squares of two dimensions.
__device__ inline float add_square(float sum, float2 x) {
    return __fmaf_rn(x.x, x.x, __fmaf_rn(x.y, x.y, sum));
}

__device__ inline float head_norm_scale(float sum, int head_dim, float eps) {
    return rsqrtf(sum / head_dim + eps);
}

__device__ inline float2 normalised_pair(float2 x, float scale, const float *weight) {
    return make_float2(x.x * scale * weight[0], x.y * scale * weight[1]);
}

// What a block needs of one position, in shared memory: rotations of pairs, and weights of norms with zeros
// behind the head's dimensions.
template <int HD> struct HeadTables {
    float2 rotation[HD / 2];
    float q_weight[HD], k_weight[HD];

    // Whole block; a barrier must follow.
    __device__ void fill(const Attention &a, int position) {
        for (int i = threadIdx.x; i < a.rotation.n_rot / 2; i += blockDim.x)
            rotation[i] = rotation_of(a.rotation, position, i);
        fill_weight(q_weight, a.q_norm.weight, a.k_dim);
        fill_weight(k_weight, a.k_norm.weight, a.k_dim);
    }

  private:
    static __device__ void fill_weight(float *to, const float *weight, int n) {
        for (int i = threadIdx.x; weight && i < HD; i += blockDim.x) to[i] = i < n ? weight[i] : 0;
    }
};

// A head of a new row, in the registers of a warp.
template <int HD> struct HeadRow {
    static constexpr int PAIRS = (HD + 63) / 64;
    float2 x[PAIRS]; // dimensions column_of(i) and the next

    static __device__ int column_of(int i) { return (i * 32 + (int)threadIdx.x % 32) * 2; }

    __device__ void load(const float *from, int dim) {
#pragma unroll
        for (int i = 0; i < PAIRS; i++)
            if (column_of(i) < dim) x[i] = __ldcg((const float2 *)(from + column_of(i)));
    }

    __device__ void normalise(const HeadNorm &norm, const float *weight, int dim) {
        if (!norm.weight) return;
        float sum = 0;
#pragma unroll
        for (int i = 0; i < PAIRS; i++)
            if (column_of(i) < dim) sum = add_square(sum, x[i]);
        float scale = head_norm_scale(warp_sum(sum), dim, norm.eps);
#pragma unroll
        for (int i = 0; i < PAIRS; i++)
            if (column_of(i) < dim) x[i] = normalised_pair(x[i], scale, weight + column_of(i));
    }

    __device__ void rotate_pairs(const Rotation &r, const float2 *rotation) {
        float2 y[PAIRS]; // partners
#pragma unroll
        for (int i = 0; i < PAIRS; i++)
            y[i] = rotates_halves(r) ? pair_at(partner_of(r, column_of(i))) : x[i];
#pragma unroll
        for (int i = 0; i < PAIRS; i++) x[i] = rotated(r, rotation, column_of(i), x[i], y[i]);
    }

  private:
    // The pair of a column, of whichever lane has it.
    __device__ float2 pair_at(int column) const {
        float2 pair;
#pragma unroll
        for (int i = 0; i < PAIRS; i++) {
            float a = __shfl_sync(0xffffffffu, x[i].x, column / 2 % 32),
                  b = __shfl_sync(0xffffffffu, x[i].y, column / 2 % 32);
            if (column / 64 == i) pair = make_float2(a, b);
        }
        return pair;
    }
};

// Stores the elements `at` and `at` + 1 of the head's row that begins at `row`, its scales at `scales`, as
// kv_put does.  The elements that share a scale are those of an aligned group of 16 neighbouring lanes,
// which call this together.
template <KvType KV> __device__ void put_pair(uint8_t *row, uint16_t *scales, int at, float2 x) {
    if constexpr (KV == KV_F32) {
        *(float2 *)((float *)row + at) = x;
    } else if constexpr (KV == KV_F16) {
        *(__half2 *)((__half *)row + at) = __floats2half2_rn(x.x, x.y);
    } else if constexpr (KV == KV_FP8) {
        *(uchar2 *)(row + at) = make_uchar2(f32_to_e4m3(x.x), f32_to_e4m3(x.y));
    } else {
        int lane = threadIdx.x % 32;
        uint32_t neighbours = 0xFFFFu << lane / 16 * 16;
        uint32_t amax = max(f32_to_bits(x.x) & 0x7FFFFFFF, f32_to_bits(x.y) & 0x7FFFFFFF);
#pragma unroll
        for (int offset = 8; offset; offset >>= 1)
            amax = max(amax, __shfl_xor_sync(neighbours, amax, offset));
        uint16_t scale = kv_scale(amax);
        float inverse = kv_inverse(scale);
        *(char2 *)(row + at) = make_char2(kv_quantize(x.x, inverse), kv_quantize(x.y, inverse));
        if (lane % 16 == 0) scales[at / KV_SCALED] = scale;
    }
}

// The same in the row that a position has in its page.
template <KvType KV> __device__ void put_pair(const KvRows &page, int width, int position, int at, float2 x) {
    int row = position % CACHE_PAGE;
    put_pair<KV>(page.cells + row * width * ELEMENT_BYTES<KV>, page.scales + row * (width / KV_SCALED), at,
                 x);
}
