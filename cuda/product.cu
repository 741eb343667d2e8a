// product: weights times few activations, the kernel that decoding lives in.
//
// One block of 16 warps per SM.  First every warp starts its ring of weights (ring.cuh), before it waits for
// the kernel before; then the block quantises the input rows into shared memory, normalising them first if
// asked; then each warp walks its rows of the weights: base, base + stride, ...  A lane takes every 32nd
// chunk of 32 weights, forms the exact integer sum of each group, and adds it up in f32 in an order that
// depends on nothing but the row's length; so a row of activations gives the same bytes alone and among
// others.
//
// Matrices of several types may be in one op (Q, K, V): a warp chooses its loop once per matrix.
#include "launch.cuh"
#include "norm.cuh"
#include "quant.cuh"
#include "ring.cuh"

namespace {

constexpr int WARPS = 16, THREADS = WARPS * 32, STAGES = 2,
              PAIR = 2; // rows of weights that a warp multiplies side by side
constexpr int VECTORS = 4,
              TILE = THREADS * VECTORS * 4; // of an input row: float4 per thread, elements per block at once
constexpr size_t SLOT_BYTES = PAIR * SEGMENT_MAX_BYTES;
constexpr size_t RING_BYTES =
    WARPS * (STAGES * (SLOT_BYTES + sizeof(uint64_t)) + 64); // slots, barriers, walks
template <int T> constexpr int UNROLL = T == 1 ? 2 : 1;      // chunks of a lane under way at once

struct Forms { // what the weights of this product want to multiply with
    bool q8, f32;
};

// The input rows in shared memory.  8-bit: words 0..3 and 4..7 of each chunk apart, so that a warp's 16-byte
// reads do not collide.
struct Input {
    uint8_t *low, *high; // [T][n_in / 2]
    float4 *scale;       // [T][n_in / 32]: d; d times the sums of the first 16, of the others, of all 32
    float *f32;          // [T][n_in]
    int n_in;
};

__host__ __device__ size_t input_bytes(int T, int n_in, Forms forms) {
    return (size_t)T * ((forms.q8 ? (size_t)n_in + n_in / 32 * sizeof(float4) : 0) +
                        (forms.f32 ? (size_t)n_in * sizeof(float) : 0));
}

__device__ Input carve(uint8_t *shared, int T, int n_in, Forms forms) {
    Input x = {.n_in = n_in};
    if (forms.f32) x.f32 = (float *)shared, shared += (size_t)T * n_in * sizeof(float);
    if (forms.q8) {
        x.low = shared, x.high = shared + (size_t)T * n_in / 2;
        x.scale = (float4 *)(shared + (size_t)T * n_in);
    }
    return x;
}

// Eight neighbouring threads hold a group of 32, whole warps call: quantises it as exec/act.h says.
__device__ void quantize_group(const Input &x, int t, int element, float4 v) {
    uint32_t bits = max(max(__float_as_uint(v.x) & 0x7fffffffu, __float_as_uint(v.y) & 0x7fffffffu),
                        max(__float_as_uint(v.z) & 0x7fffffffu, __float_as_uint(v.w) & 0x7fffffffu));
#pragma unroll
    for (int offset = 4; offset; offset >>= 1) bits = max(bits, __shfl_xor_sync(0xffffffffu, bits, offset));
    float amax = __uint_as_float(bits), d = __fdiv_rn(amax, 127.0f), inverse = __fdiv_rn(127.0f, amax);
    bool damaged = bits >= 0x7f800000u; // an Inf or a NaN among them
    if (damaged) d = __uint_as_float(0x7fc00000u);
    if (amax < 0x1p-100f) d = 0;
    bool zero = damaged || amax < 0x1p-100f;
    int q[4];
#pragma unroll
    for (int k = 0; k < 4; k++) q[k] = zero ? 0 : __float2int_rn(__fmul_rn((&v.x)[k], inverse));
    int sum = q[0] + q[1] + q[2] + q[3];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2); // of 16: four threads
    int other = __shfl_xor_sync(0xffffffffu, sum, 4);
    if (element >= x.n_in) return;
    int chunk = element / 32, word = element % 32 / 4;
    uint32_t packed = (q[0] & 255) | (q[1] & 255) << 8 | (q[2] & 255) << 16 | (uint32_t)(q[3] & 255) << 24;
    uint8_t *plane = (word < 4 ? x.low : x.high) + (size_t)t * x.n_in / 2;
    *(uint32_t *)(plane + chunk * 16 + word % 4 * 4) = packed;
    if (word == 0)
        x.scale[(size_t)t * (x.n_in / 32) + chunk] = make_float4(d, d * sum, d * other, d * (sum + other));
}

// A row of the input into row t of x, normalised first where p.norm says so (then n_in fits one tile, of
// which w holds the norm's weights), in the forms wanted.
__device__ void load_row(const Product &p, const Input &x, Forms forms, int t, const float *in,
                         const float4 w[VECTORS]) {
    for (int base = 0; base < x.n_in; base += TILE) {
        float4 v[VECTORS];
#pragma unroll
        for (int i = 0; i < VECTORS; i++)
            v[i] = load4(in, base + (i * THREADS + (int)threadIdx.x) * 4, x.n_in);
        if (p.norm) {
            float scale = block_rms_scale<WARPS, VECTORS>(v, x.n_in, p.norm_eps);
#pragma unroll
            for (int i = 0; i < VECTORS; i++)
                v[i] = make_float4(v[i].x * scale * w[i].x, v[i].y * scale * w[i].y, v[i].z * scale * w[i].z,
                                   v[i].w * scale * w[i].w);
        }
#pragma unroll
        for (int i = 0; i < VECTORS; i++) {
            if (base + i * THREADS * 4 >= x.n_in) break; // the same for the whole block
            int element = base + (i * THREADS + (int)threadIdx.x) * 4;
            for (int k = 0; forms.f32 && k < 4; k++)
                if (element + k < x.n_in) x.f32[(size_t)t * x.n_in + element + k] = (&v[i].x)[k];
            if (forms.q8) quantize_group(x, t, element, v[i]);
        }
    }
}

// ---- one segment of a weight row ------------------------------------------------------------------------

// The exact integer sums of a chunk's halves meet the scales here; what a type subtracts from its numbers is
// added up in the input's own sums.
template <QuantType F>
__device__ __forceinline__ float add_chunk(float acc, const uint32_t w[8], const float scale[2],
                                           const float min[2], uint4 low, uint4 high, float4 d) {
    int dot0 = 0, dot1 = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        dot0 = dot4(w[k], (&low.x)[k], dot0);
        dot1 = dot4(w[k + 4], (&high.x)[k], dot1);
    }
    constexpr float zero = Format<F>::ZERO;
    if constexpr (Format<F>::GROUP == 32) {
        float sum = (float)(dot0 + dot1) * d.x;
        if constexpr (Format<F>::ZERO != 0) sum = fmaf(-zero, d.w, sum);
        acc = fmaf(scale[0], sum, acc);
        if constexpr (Format<F>::HAS_MIN) acc = fmaf(-min[0], d.w, acc);
    } else {
        float sum0 = (float)dot0 * d.x, sum1 = (float)dot1 * d.x;
        if constexpr (Format<F>::ZERO != 0) sum0 = fmaf(-zero, d.y, sum0), sum1 = fmaf(-zero, d.z, sum1);
        acc = fmaf(scale[0], sum0, acc);
        if constexpr (Format<F>::HAS_MIN) acc = fmaf(-min[0], d.y, acc);
        acc = fmaf(scale[1], sum1, acc);
        if constexpr (Format<F>::HAS_MIN) acc = fmaf(-min[1], d.z, acc);
    }
    return acc;
}

// A segment of each row of the pair, SEGMENT_MAX_BYTES apart, times the T inputs: sums[r][t] += ...
template <QuantType F, int T>
__device__ __forceinline__ void dot_q8(const uint8_t *segment, int n_chunks, int chunk0, const Input &x,
                                       int lane, float sums[PAIR][T]) {
    int row = x.n_in / 32; // chunks from one row of the input to the next
    const uint4 *low = (const uint4 *)x.low + chunk0, *high = (const uint4 *)x.high + chunk0;
    const float4 *scales = x.scale + chunk0;
#pragma unroll UNROLL < T>
    for (int c = lane; c < n_chunks; c += 32) {
        uint32_t w[PAIR][8];
        float scale[PAIR][2], min[PAIR][2];
#pragma unroll
        for (int r = 0; r < PAIR; r++) {
            chunk_words<F>(segment + r * SEGMENT_MAX_BYTES, n_chunks, c, w[r]);
            chunk_scales<F>(segment + r * SEGMENT_MAX_BYTES, n_chunks, c, scale[r], min[r]);
        }
#pragma unroll
        for (int t = 0; t < T; t++) {
            uint4 x0 = low[t * row + c], x1 = high[t * row + c];
            float4 d = scales[t * row + c];
#pragma unroll
            for (int r = 0; r < PAIR; r++)
                sums[r][t] = add_chunk<F>(sums[r][t], w[r], scale[r], min[r], x0, x1, d);
        }
    }
}

// Eight weights a lane; the segment is padded to 16 bytes, so that reading a whole vector is always allowed.
template <QuantType F, int T>
__device__ __forceinline__ void dot_f32(const uint8_t *segment, int n_weights, int weight0, const Input &x,
                                        int lane, float sums[PAIR][T]) {
    for (int k = lane * 8; k < n_weights; k += 256) {
#pragma unroll
        for (int r = 0; r < PAIR; r++) {
            float w[8];
            load_floats<F>(segment + r * SEGMENT_MAX_BYTES, k, n_weights, w);
#pragma unroll
            for (int t = 0; t < T; t++)
#pragma unroll
                for (int j = 0; j < 8; j++)
                    if (k + j < n_weights)
                        sums[r][t] = fmaf(w[j], x.f32[(size_t)t * x.n_in + weight0 + k + j], sums[r][t]);
        }
    }
}

// Segment number `index` of the pair.
template <QuantType F, int T>
__device__ __forceinline__ void dot(const DeviceWeight &w, const uint8_t *segment, int index, const Input &x,
                                    int lane, float sums[PAIR][T]) {
    if constexpr (Format<F>::FLOAT) {
        int n = w.n_in / w.layout.n_segments;
        dot_f32<F, T>(segment, n, index * n, x, lane, sums);
    } else {
        int n = w.layout.segment_chunks;
        dot_q8<F, T>(segment, n, index * n, x, lane, sums);
    }
}

// ---- a warp's walk over the rows ------------------------------------------------------------------------

// A unit is one output element: a row of the concatenated matrices, of one slot's expert, or a row of gate
// and of up.  A warp has every stride-th unit, and takes two rows at a time: gate and up, or its next two
// units if they are in one matrix.
struct Place {
    int segment, row; // of which matrix, which of its rows
    int slot;         // of the experts
};

__device__ int n_units(const Product &p) {
    int n = p.segment[0].w.n_out;
    for (int i = 1; i < p.n_segments && !p.glu; i++) n += p.segment[i].w.n_out;
    return p.ids ? n * p.n_used : n;
}

__device__ Place place_of(const Product &p, int unit) { // matrix after matrix, in it slot after slot
    Place at = {0, unit, 0};
    int slots = p.ids ? p.n_used : 1;
    if (!p.glu)
        for (; at.row >= slots * p.segment[at.segment].w.n_out; at.segment++)
            at.row -= slots * p.segment[at.segment].w.n_out;
    if (p.ids) at.slot = at.row / p.segment[at.segment].w.n_out, at.row %= p.segment[at.segment].w.n_out;
    return at;
}

__device__ size_t matrix_row(const Product &p, const Place &at) { // experts' rows stand one after another
    size_t expert = p.ids ? (size_t)__ldcg(p.ids + at.slot) : 0;
    return expert * p.segment[at.segment].w.n_out + at.row;
}

// Units from `unit` on that a warp has in the same matrix: in the rest of it, or one where each row has its
// own expert.
__device__ int units_left(const Product &p, int unit, const Place &at) {
    int stride = gridDim.x * WARPS, rows = p.segment[at.segment].w.n_out - at.row;
    return p.ids ? 1 : (rows + stride - 1) / stride;
}

// Ahead of the arithmetic: what the ring fetches next.  It lies in shared memory and is moved by one lane,
// because registers are what the kernel is short of.
struct Walk {
    const uint8_t *at, *other; // next segments of the pair; other is NULL where it is one row
    int unit, left;            // this unit, and how many the warp has from it on in this matrix
    int n_segments, segments;  // of a row, and still to come of this one
    uint32_t bytes;            // of a segment, 0 at the end

    __device__ void pair_up(const Product &p) { // at is at the pair's first row
        size_t row = (size_t)n_segments * bytes;
        if (p.glu)
            other = at + (p.segment[1].w.data - p.segment[0].w.data);
        else
            other = left > 1 ? at + gridDim.x * WARPS * row : nullptr;
        segments = n_segments;
    }
    __device__ void enter(const Product &p, int units) {
        if (unit >= units) {
            bytes = 0, other = nullptr, segments = 0x7fffffff;
            return;
        }
        Place place = place_of(p, unit);
        const DeviceWeight &w = p.segment[place.segment].w;
        left = units_left(p, unit, place);
        bytes = (uint32_t)w.layout.segment_bytes, n_segments = w.layout.n_segments;
        at = w.data + matrix_row(p, place) * n_segments * bytes;
        pair_up(p);
    }
    __device__ void next(const Product &p, int units) {
        at += bytes;
        if (other) other += bytes;
        if (--segments) return;
        int step = other && !p.glu ? 2 : 1, stride = gridDim.x * WARPS;
        unit += step * stride, left -= step;
        if (left <= 0) return enter(p, units);
        at += (size_t)(step * stride - 1) * n_segments * bytes;
        pair_up(p);
    }
};

// Starts the next fetch of the warp's walk, into the ring's slot i.
__device__ __forceinline__ void fetch_next(Ring<STAGES> &ring, int i, Walk *walk, const Product &p,
                                           int units) {
#if __CUDA_ARCH__ >= 900
    if (ring.lane == 0) {
        ring.expect(i, walk->other ? 2 * walk->bytes : walk->bytes);
        ring.copy(i, 0, walk->at, walk->bytes);
        if (walk->other) ring.copy(i, SEGMENT_MAX_BYTES, walk->other, walk->bytes);
        walk->next(p, units);
    }
#else
    ring.copy(i, 0, walk->at, walk->bytes);
    if (walk->other) ring.copy(i, SEGMENT_MAX_BYTES, walk->other, walk->bytes);
    ring.commit();
    __syncwarp();
    if (ring.lane == 0) walk->next(p, units);
    __syncwarp();
#endif
}

// Lane t ends with row t's sum.
template <int T> __device__ float reduce(float *acc, int lane) {
    float mine = 0;
#pragma unroll
    for (int t = 0; t < T; t++) {
        float sum = warp_sum(acc[t]);
        if (lane == t) mine = sum;
    }
    return mine;
}

__device__ __forceinline__ float finish(const ProductSegment &s, size_t row, float y) {
    if (s.w.scale) y *= s.w.scale[row];
    return s.bias ? y + s.bias[row] : y;
}

__device__ __forceinline__ float silu(float x) {
    return __fdividef(x, 1.0f + __expf(-x));
}

struct Team { // what a warp needs besides the matrix
    const Product &p;
    Input x;
    Ring<STAGES> ring;
    Walk *walk;
    int units, n_rows, lane;
};

// `left` units of a matrix from the row at.row on, two rows at a time.
template <QuantType F, int T> __device__ void multiply_matrix(Team &team, const Place &at, int left) {
    const Product &p = team.p;
    const ProductSegment &s = p.segment[at.segment];
    int lane = team.lane, stride = gridDim.x * WARPS, n_segments = s.w.layout.n_segments;
    bool mine = lane < team.n_rows, add = p.residual && at.segment == 0 && mine;
    Input x = team.x;
    if (p.per_slot) {
        x.f32 += (size_t)at.slot * x.n_in, x.low += at.slot * (x.n_in / 2), x.high += at.slot * (x.n_in / 2);
        x.scale += at.slot * (x.n_in / 32);
    }
    const float *residual = p.residual + (size_t)lane * p.residual_stride + at.row;
    float *out = s.out + (size_t)lane * s.out_stride + (size_t)at.slot * s.w.n_out + at.row;
    size_t row = matrix_row(p, at);
    while (left > 0) {
        int n = p.glu || left == 1 ? 1 : 2; // outputs of this pair
        float before[PAIR] = {};
        if (add) {
            before[0] = __ldcg(residual);
            if (n > 1) before[1] = __ldcg(residual + stride);
        }
        float sums[PAIR][T] = {};
        for (int i = 0; i < n_segments; i++) {
            const uint8_t *segment = team.ring.wait();
            dot<F, T>(s.w, segment, i, x, lane, sums);
            __syncwarp(); // all have read the slot
            fetch_next(team.ring, team.ring.stage, team.walk, p, team.units);
            team.ring.advance();
        }
        float y0 = finish(s, row, reduce<T>(sums[0], lane)), y1 = reduce<T>(sums[1], lane);
        if (p.glu) y0 = silu(y0) * finish(p.segment[1], row, y1);
        if (mine) out[0] = before[0] + y0;
        if (n > 1) {
            y1 = finish(s, row + stride, y1);
            if (mine) out[stride] = before[1] + y1;
        }
        left -= n, row += n * stride, out += n * stride, residual += n * stride;
    }
}

template <int T> __device__ void multiply(Team &team) {
    for (int unit = blockIdx.x * WARPS + threadIdx.x / 32; unit < team.units;) {
        Place at = place_of(team.p, unit);
        int left = units_left(team.p, unit, at);
        switch (team.p.segment[at.segment].w.type) {
#define MULTIPLY(type, ...)                                                                                  \
    case QUANT_##type:                                                                                       \
        multiply_matrix<QUANT_##type, T>(team, at, left);                                                    \
        break;
#define KNOWN(...)
            QUANT_TYPES(MULTIPLY, MULTIPLY, KNOWN)
#undef MULTIPLY
#undef KNOWN
        default:
            break;
        }
        unit += left * gridDim.x * WARPS;
    }
}

template <int T>
__global__ void __launch_bounds__(THREADS, 1)
    k_product(const __grid_constant__ Product p, int n_rows, Forms forms) {
    extern __shared__ __align__(128) uint8_t shared[];
    uint64_t *barriers = (uint64_t *)(shared + WARPS * STAGES * SLOT_BYTES);
    Walk *walk = (Walk *)(barriers + WARPS * STAGES) + threadIdx.x / 32;
    int warp = threadIdx.x / 32, units = n_units(p), n_in = p.segment[0].w.n_in;
    pdl_launch();
    Ring<STAGES> ring(shared + warp * STAGES * SLOT_BYTES, barriers + warp * STAGES, SLOT_BYTES);
    if (p.ids) pdl_wait(); // which weights to fetch is what the kernel before decides
    if (ring.lane == 0) {
        walk->unit = blockIdx.x * WARPS + warp;
        walk->enter(p, units);
    }
    __syncwarp();
    for (int i = 0; i < STAGES; i++) fetch_next(ring, i, walk, p, units);
    float4 norm[VECTORS];
#pragma unroll
    for (int i = 0; i < VECTORS; i++)
        norm[i] =
            p.norm ? load4(p.norm, (i * THREADS + (int)threadIdx.x) * 4, n_in) : make_float4(0, 0, 0, 0);
    if (!p.ids) pdl_wait();
    int n_slots = p.per_slot ? p.n_used : 1;
    Input x = carve(shared + RING_BYTES, T * n_slots, n_in, forms);
    for (int t = 0; t < n_rows; t++) {
        const float *in = p.in + (size_t)(p.rows ? __ldcg(p.rows + t) : t) * p.in_stride;
        for (int i = 0; i < n_slots; i++) load_row(p, x, forms, t * n_slots + i, in + (size_t)i * n_in, norm);
    }
    __syncthreads();
    Team team = {p, x, ring, walk, units, n_rows, ring.lane};
    multiply<T>(team);
}

static_assert(sizeof(Walk) <= 64, "RING_BYTES");

// ---- launcher -------------------------------------------------------------------------------------------

Forms forms_of(const Product *p) {
    Forms forms = {false, false};
    for (int i = 0; i < p->n_segments; i++)
        if (quant_traits(p->segment[i].w.type)->act == QUANT_ACT_Q8)
            forms.q8 = true;
        else
            forms.f32 = true;
    return forms;
}

template <int T>
cudaError_t launch_tile(const Launch *l, const Product &p, int n_rows, Forms forms, size_t shared) {
    return launch_kernel(l, k_product<T>, l->n_sm, THREADS, shared, p, n_rows, forms);
}

} // namespace

extern "C" cudaError_t launch_product(const Launch *l, const Product *product, int T) {
    constexpr size_t SHARED_MAX = 227 * 1024;
    Forms forms = forms_of(product);
    int n_in = product->segment[0].w.n_in, n_slots = product->per_slot ? product->n_used : 1;
    if (product->norm && n_in > TILE) return cudaErrorInvalidValue; // the plan normalises such rows apart
    int tile = product->ids ? 1 : 8; // rows with experts of their own go one by one
    while (tile > 1 && (tile >= 2 * T || RING_BYTES + input_bytes(tile * n_slots, n_in, forms) > SHARED_MAX))
        tile /= 2;
    size_t shared = RING_BYTES + input_bytes(tile * n_slots, n_in, forms);
    if (shared > SHARED_MAX) return cudaErrorInvalidValue;
    for (int done = 0; done < T; done += tile) {
        Product p = *product;
        int n_rows = T - done < tile ? T - done : tile;
        if (p.rows)
            p.rows += done;
        else
            p.in += (size_t)done * p.in_stride;
        if (p.ids) p.ids += (size_t)done * p.ids_stride;
        if (p.residual) p.residual += (size_t)done * p.residual_stride;
        for (int i = 0; i < p.n_segments; i++) p.segment[i].out += (size_t)done * p.segment[i].out_stride;
        cudaError_t error = tile == 1   ? launch_tile<1>(l, p, n_rows, forms, shared)
                            : tile == 2 ? launch_tile<2>(l, p, n_rows, forms, shared)
                            : tile == 4 ? launch_tile<4>(l, p, n_rows, forms, shared)
                                        : launch_tile<8>(l, p, n_rows, forms, shared);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
