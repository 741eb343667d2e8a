// dequant: a weight matrix as a plain matrix of f16, for products on the matrix units.
//
// Four bits in, sixteen out: the writes are what costs.  A lane decodes a whole chunk, 64 bytes of output, so
// that a warp's stores would lie 64 bytes apart; it passes them through a tile in shared memory instead, and
// stores 512 bytes in a row.  The one trick: 16-byte pieces of a chunk stand in the tile exclusive-ored by
// the chunk's number, so that neither side meets a bank twice.
#include "device.cuh"
#include "launch.cuh"
#include "quant.cuh"

namespace {

constexpr int WARPS = 8, THREADS = WARPS * 32;
constexpr int PIECES = CHUNK_WEIGHTS / 8; // 16-byte pieces of a chunk in f16

__device__ uint32_t saturated(float a,
                              float b) { // two halves; beyond the largest it stays the largest, NaN stays NaN
    const __half2 most = __float2half2_rn(65504.0f), least = __float2half2_rn(-65504.0f);
    __half2 v = __hmin2_nan(__hmax2_nan(__floats2half2_rn(a, b), least), most);
    return *(uint32_t *)&v;
}

__device__ uint4 piece_of(const float *v) {
    return make_uint4(saturated(v[0], v[1]), saturated(v[2], v[3]), saturated(v[4], v[5]),
                      saturated(v[6], v[7]));
}

__device__ int place_of(int chunk, int piece) {
    return chunk * PIECES + (piece ^ (chunk / 2 & 3));
}

// A warp decodes a segment into out[n_chunks * 32].
template <QuantType T>
__device__ void block_segment(const uint8_t *segment, int n_chunks, uint4 *tile, uint4 *out) {
    int lane = threadIdx.x % 32;
    for (int base = 0; base < n_chunks; base += 32) {
        int n = min(32, n_chunks - base);
        if (lane < n) {
            float v[CHUNK_WEIGHTS];
            chunk_values<T>(segment, n_chunks, base + lane, v);
#pragma unroll
            for (int i = 0; i < PIECES; i++) tile[place_of(lane, i)] = piece_of(v + 8 * i);
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            int k = i * 32 + lane;
            if (k < n * PIECES) out[base * PIECES + k] = tile[place_of(k / PIECES, k % PIECES)];
        }
        __syncwarp();
    }
}

// The same for a segment of `length` floats.
template <QuantType T> __device__ void float_segment(const uint8_t *segment, int length, __half *out) {
    for (int k = threadIdx.x % 32 * 8; k < length; k += 256) {
        float v[8];
        load_floats<T>(segment, k, length, v);
        uint4 piece = piece_of(v);
        if (length % 8 == 0) { // then so is the row's, and out is aligned
            *(uint4 *)(out + k) = piece;
        } else {
#pragma unroll
            for (int j = 0; j < 8; j++)
                if (k + j < length) out[k + j] = __ushort_as_half((&piece.x)[j / 2] >> j % 2 * 16 & 0xffff);
        }
    }
}

template <QuantType T>
__global__ void __launch_bounds__(THREADS) k_dequant(DeviceWeight w, int expert, __half *out) {
    __shared__ uint4 tiles[WARPS][32 * PIECES];
    pdl_launch();
    pdl_wait(); // the kernel before may still read what out held
    int warp = threadIdx.x / 32;
    size_t index = (size_t)blockIdx.x * WARPS + warp; // of the segment in this expert's matrix
    if (index >= (size_t)w.n_out * w.layout.n_segments) return;
    int length = w.n_in / w.layout.n_segments;
    const uint8_t *segment =
        w.data + ((size_t)expert * w.n_out * w.layout.n_segments + index) * w.layout.segment_bytes;
    __half *to = out + index * length;
    if constexpr (Format<T>::FLOAT)
        float_segment<T>(segment, length, to);
    else
        block_segment<T>(segment, w.layout.segment_chunks, tiles[warp], (uint4 *)to);
}

} // namespace

extern "C" cudaError_t launch_dequant(const Launch *l, const DeviceWeight *w, int expert, void *out) {
    if (expert < 0 || expert >= w->n_expert || (uintptr_t)out % 16) return cudaErrorInvalidValue;
    size_t n_segments = (size_t)w->n_out * w->layout.n_segments;
    unsigned blocks = (unsigned)((n_segments + WARPS - 1) / WARPS);
    return for_type(w->type, [&](auto type) {
        return launch_kernel(l, k_dequant<type>, blocks, THREADS, 0, *w, expert, (__half *)out);
    });
}
