// product: weights times few activations, the kernel that decoding lives in.
//
// One block of 16 warps per SM.  First every warp starts its ring of weights (ring.cuh), before it waits for the kernel before;
// then the block quantises the input rows into shared memory, normalising them first if asked; then each warp walks its rows of the
// weights: base, base + stride, ...  A lane takes every 32nd chunk of 32 weights, forms the exact integer sum of each group, and adds it up
// in f32 in an order that depends on nothing but the row's length; so a row of activations gives the same bytes alone and among others.
//
// Matrices of several types may be in one op (Q, K, V): the type is a uniform branch per segment of a row.
#include "launch.cuh"
#include "norm.cuh"
#include "quant.cuh"
#include "ring.cuh"

namespace {

constexpr int WARPS = 16, THREADS = WARPS * 32, STAGES = 2;
constexpr int TILE = THREADS * 8 * 4; // elements of a row that the block holds in registers at once
constexpr size_t RING_BYTES = (size_t)WARPS * STAGES * SEGMENT_MAX_BYTES + WARPS * STAGES * sizeof(uint64_t);

struct Forms { // what the weights of this product want to multiply with
    bool q8, f32;
};

// The input rows in shared memory.  8-bit: words 0..3 and 4..7 of each chunk apart, so that a warp's 16-byte reads do not collide.
struct Input {
    uint8_t *low, *high; // [T][n_in / 2]
    float2 *scale;       // [T][n_in / 32]: d, and the two sums of 16 as int16 pair
    float *f32;          // [T][n_in]
    int n_in;
};

__host__ __device__ size_t input_bytes(int T, int n_in, Forms forms) {
    return (size_t)T * ((forms.q8 ? (size_t)n_in + n_in / 32 * sizeof(float2) : 0) + (forms.f32 ? (size_t)n_in * sizeof(float) : 0));
}

__device__ Input carve(uint8_t *shared, int T, int n_in, Forms forms) {
    Input x = {.n_in = n_in};
    if (forms.f32) x.f32 = (float *)shared, shared += (size_t)T * n_in * sizeof(float);
    if (forms.q8) {
        x.low = shared, x.high = shared + (size_t)T * n_in / 2;
        x.scale = (float2 *)(shared + (size_t)T * n_in);
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
    if (word == 0) x.scale[(size_t)t * (x.n_in / 32) + chunk] = make_float2(d, __int_as_float((sum & 0xffff) | other << 16));
}

// A row of the input into row t of x, normalised first where p.norm says so (then n_in fits one tile), in the forms wanted.
__device__ void load_row(const Product &p, const Input &x, Forms forms, int t, const float *in) {
    for (int base = 0; base < x.n_in; base += TILE) {
        float4 v[8];
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = load4(in, base + (i * THREADS + (int)threadIdx.x) * 4, x.n_in);
        float scale = p.norm ? block_rms_scale<WARPS>(v, x.n_in, p.norm_eps) : 1.0f;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (base + i * THREADS * 4 >= x.n_in) break; // the same for the whole block
            int element = base + (i * THREADS + (int)threadIdx.x) * 4;
            for (int k = 0; k < 4; k++) {
                if (element + k >= x.n_in) continue;
                if (p.norm) (&v[i].x)[k] = (&v[i].x)[k] * scale * p.norm[element + k];
                if (forms.f32) x.f32[(size_t)t * x.n_in + element + k] = (&v[i].x)[k];
            }
            if (forms.q8) quantize_group(x, t, element, v[i]);
        }
    }
}

// ---- one segment of a weight row -------------------------------------------------------------------------------

template <QuantType F, int T>
__device__ void dot_q8(const uint8_t *segment, int n_chunks, int chunk0, const Input &x, int lane, float *acc) {
    int n_in = x.n_in;
    for (int c = lane; c < n_chunks; c += 32) {
        uint32_t w[8];
        float scale[2], min[2];
        chunk_words<F>(segment, n_chunks, c, w);
        chunk_scales<F>(segment, n_chunks, c, scale, min);
#pragma unroll
        for (int t = 0; t < T; t++) {
            uint4 low = *(const uint4 *)(x.low + (size_t)t * n_in / 2 + (chunk0 + c) * 16);
            uint4 high = *(const uint4 *)(x.high + (size_t)t * n_in / 2 + (chunk0 + c) * 16);
            float2 d = x.scale[(size_t)t * (n_in / 32) + chunk0 + c];
            int sum0 = (int16_t)__float_as_int(d.y), sum1 = __float_as_int(d.y) >> 16;
            int dot0 = -Format<F>::ZERO * sum0, dot1 = -Format<F>::ZERO * sum1;
#pragma unroll
            for (int k = 0; k < 4; k++) {
                dot0 = dot4(w[k], (&low.x)[k], dot0);
                dot1 = dot4(w[k + 4], (&high.x)[k], dot1);
            }
            if (Format<F>::GROUP == 32) {
                acc[t] = fmaf((float)(dot0 + dot1), scale[0] * d.x, acc[t]);
                if (Format<F>::HAS_MIN) acc[t] = fmaf((float)(sum0 + sum1), -min[0] * d.x, acc[t]);
            } else {
                acc[t] = fmaf((float)dot0, scale[0] * d.x, acc[t]);
                if (Format<F>::HAS_MIN) acc[t] = fmaf((float)sum0, -min[0] * d.x, acc[t]);
                acc[t] = fmaf((float)dot1, scale[1] * d.x, acc[t]);
                if (Format<F>::HAS_MIN) acc[t] = fmaf((float)sum1, -min[1] * d.x, acc[t]);
            }
        }
    }
}

// Eight weights a lane; the segment is padded to 16 bytes, so that reading a whole vector is always allowed.
template <QuantType F, int T>
__device__ void dot_f32(const uint8_t *segment, int n_weights, int weight0, const Input &x, int lane, float *acc) {
    for (int k = lane * 8; k < n_weights; k += 256) {
        float w[8];
        load_floats<F>(segment, k, n_weights, w);
#pragma unroll
        for (int t = 0; t < T; t++)
#pragma unroll
            for (int j = 0; j < 8; j++)
                if (k + j < n_weights) acc[t] = fmaf(w[j], x.f32[(size_t)t * x.n_in + weight0 + k + j], acc[t]);
    }
}

template <int T>
__device__ void dot_segment(const DeviceWeight &w, const uint8_t *segment, int index, const Input &x, int lane, float *acc) {
    int n_chunks = w.layout.segment_chunks, n_weights = w.n_in / w.layout.n_segments;
    switch (w.type) {
#define BLOCK(type, ...)                                                                                     \
    case QUANT_##type: dot_q8<QUANT_##type, T>(segment, n_chunks, index * n_chunks, x, lane, acc); break;
#define FLOAT(type, ...)                                                                                     \
    case QUANT_##type: dot_f32<QUANT_##type, T>(segment, n_weights, index * n_weights, x, lane, acc); break;
#define KNOWN(...)
        QUANT_TYPES(FLOAT, BLOCK, KNOWN)
#undef BLOCK
#undef FLOAT
#undef KNOWN
    default: break;
    }
}

// ---- a warp's walk over the rows -------------------------------------------------------------------------------

// A unit is one output element: a row of the concatenated matrices, of one slot's expert, or a pair of rows (gate and up).
struct Place {
    int segment, row; // of which matrix, which of its rows
    int slot;         // of the experts
};

__device__ int n_units(const Product &p) {
    int n = p.segment[0].w.n_out;
    for (int i = 1; i < p.n_segments && !p.glu; i++) n += p.segment[i].w.n_out;
    return p.ids ? n * p.n_used : n;
}

__device__ Place place_of(const Product &p, int unit, int part) { // matrix after matrix, in it slot after slot
    Place at = {part, unit, 0};
    int slots = p.ids ? p.n_used : 1;
    if (!p.glu)
        for (; at.row >= slots * p.segment[at.segment].w.n_out; at.segment++) at.row -= slots * p.segment[at.segment].w.n_out;
    if (p.ids) at.slot = at.row / p.segment[at.segment].w.n_out, at.row %= p.segment[at.segment].w.n_out;
    return at;
}

__device__ size_t matrix_row(const Product &p, const Place &at) { // experts' rows stand one after another
    size_t expert = p.ids ? (size_t)__ldcg(p.ids + at.slot) : 0;
    return expert * p.segment[at.segment].w.n_out + at.row;
}

struct Walk { // ahead of the arithmetic: what the ring fetches next
    int unit, part, left; // segments left of this row
    const uint8_t *at;
    uint32_t bytes;

    __device__ void enter(const Product &p, int units) {
        if (unit >= units) {
            bytes = 0, left = 1 << 30;
            return;
        }
        Place place = place_of(p, unit, part);
        const DeviceWeight &w = p.segment[place.segment].w;
        bytes = (uint32_t)w.layout.segment_bytes, left = w.layout.n_segments;
        at = w.data + matrix_row(p, place) * w.layout.n_segments * w.layout.segment_bytes;
    }
    __device__ void next(const Product &p, int units, int stride) {
        at += bytes;
        if (--left) return;
        if (p.glu && part == 0) part = 1;
        else part = 0, unit += stride;
        enter(p, units);
    }
};

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

template <int T>
__device__ void multiply_rows(const Product &p, const Input &x, Ring<STAGES> &ring, Walk &ahead, int n_rows) {
    int lane = threadIdx.x % 32, stride = gridDim.x * WARPS, units = n_units(p);
    for (int unit = blockIdx.x * WARPS + threadIdx.x / 32; unit < units; unit += stride) {
        float first = 0; // silu(gate), in a pair of rows
        for (int part = 0; part <= (int)p.glu; part++) {
            Place at = place_of(p, unit, part);
            const ProductSegment &s = p.segment[at.segment];
            size_t row = matrix_row(p, at);
            float residual = 0;
            if (p.residual && at.segment == 0 && lane < n_rows)
                residual = __ldcg(p.residual + (size_t)lane * p.residual_stride + at.row);
            float acc[T] = {};
            Input slot = x;
            if (p.per_slot) slot.f32 += (size_t)at.slot * x.n_in, slot.low += at.slot * (x.n_in / 2), slot.high += at.slot * (x.n_in / 2), slot.scale += at.slot * (x.n_in / 32);
            for (int i = 0; i < s.w.layout.n_segments; i++) {
                const uint8_t *segment = ring.wait();
                dot_segment<T>(s.w, segment, i, slot, lane, acc);
                ring.next(ahead.at, ahead.bytes);
                ahead.next(p, units, stride);
            }
            float y = reduce<T>(acc, lane);
            if (s.w.scale) y *= s.w.scale[row];
            if (s.bias) y += s.bias[row];
            if (p.glu) {
                if (part == 0) {
                    first = y / (1.0f + expf(-y));
                    continue;
                }
                y *= first;
            }
            float *out = p.segment[p.glu ? 0 : at.segment].out + (size_t)at.slot * s.w.n_out;
            int out_stride = p.segment[p.glu ? 0 : at.segment].out_stride;
            if (lane < n_rows) out[(size_t)lane * out_stride + at.row] = p.residual && at.segment == 0 ? residual + y : y;
        }
    }
}

template <int T> __global__ void __launch_bounds__(THREADS, T == 1 ? 2 : 1) k_product(const __grid_constant__ Product p, int n_rows, Forms forms) {
    extern __shared__ __align__(128) uint8_t shared[];
    uint8_t *slots = shared, *inputs = shared + RING_BYTES;
    uint64_t *barriers = (uint64_t *)(shared + (size_t)WARPS * STAGES * SEGMENT_MAX_BYTES);
    int warp = threadIdx.x / 32, units = n_units(p), stride = gridDim.x * WARPS;
    pdl_launch();
    Ring<STAGES> ring(slots + warp * STAGES * SEGMENT_MAX_BYTES, barriers + warp * STAGES, SEGMENT_MAX_BYTES);
    Walk ahead = {.unit = (int)blockIdx.x * WARPS + warp};
    if (p.ids) pdl_wait(); // which weights to fetch is what the kernel before decides
    ahead.enter(p, units);
    for (int i = 0; i < STAGES; i++) {
        ring.fetch(i, ahead.at, ahead.bytes);
        ahead.next(p, units, stride);
    }
    if (!p.ids) pdl_wait();
    int n_slots = p.per_slot ? p.n_used : 1;
    Input x = carve(inputs, T * n_slots, p.segment[0].w.n_in, forms);
    for (int t = 0; t < n_rows; t++) {
        const float *in = p.in + (size_t)(p.rows ? __ldcg(p.rows + t) : t) * p.in_stride;
        for (int s = 0; s < n_slots; s++) load_row(p, x, forms, t * n_slots + s, in + (size_t)s * x.n_in);
    }
    __syncthreads();
    multiply_rows<T>(p, x, ring, ahead, n_rows);
}

// ---- launcher --------------------------------------------------------------------------------------------------

Forms forms_of(const Product *p) {
    Forms forms = {false, false};
    for (int i = 0; i < p->n_segments; i++)
        if (quant_traits(p->segment[i].w.type)->act == QUANT_ACT_Q8) forms.q8 = true;
        else forms.f32 = true;
    return forms;
}

template <int T> cudaError_t launch_tile(const Launch *l, const Product &p, int n_rows, Forms forms, size_t shared) {
    cudaError_t error = cudaFuncSetAttribute(k_product<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (error != cudaSuccess) return error;
    return launch_kernel(l, k_product<T>, l->n_sm, THREADS, shared, p, n_rows, forms);
}

} // namespace

extern "C" cudaError_t launch_product(const Launch *l, const Product *product, int T) {
    constexpr size_t SHARED_MAX = 227 * 1024;
    Forms forms = forms_of(product);
    int n_in = product->segment[0].w.n_in, n_slots = product->per_slot ? product->n_used : 1;
    if (product->norm && n_in > TILE) return cudaErrorInvalidValue; // the plan normalises such rows apart
    int tile = product->ids ? 1 : 8; // rows with experts of their own go one by one
    while (tile > 1 && (tile >= 2 * T || RING_BYTES + input_bytes(tile * n_slots, n_in, forms) > SHARED_MAX)) tile /= 2;
    size_t shared = RING_BYTES + input_bytes(tile * n_slots, n_in, forms);
    if (shared > SHARED_MAX) return cudaErrorInvalidValue;
    for (int done = 0; done < T; done += tile) {
        Product p = *product;
        int n_rows = T - done < tile ? T - done : tile;
        if (p.rows) p.rows += done;
        else p.in += (size_t)done * p.in_stride;
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
