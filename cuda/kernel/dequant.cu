// dequant: a weight matrix as a plain matrix of f16, for products on the tensor cores.
//
// The writes dominate: 4 bits are read and 16 written per weight.  A warp decodes a tile; the four lanes that
// share a row store 32 contiguous bytes at a time, a whole sector of memory.
#include "../device/device.cuh"
#include "../device/half.cuh"
#include "../device/launch.cuh"
#include "../device/quant.cuh"

namespace {

constexpr int WARPS = 8, THREADS = WARPS * 32;

// Writes the first n of N values to `to`, which is aligned to N halves where n >= N.
template <int N> __device__ void put(const float *v, int n, __half *to) {
    uint32_t word[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++) word[i] = limited_pair(v[2 * i], v[2 * i + 1], 65504);
    if (n >= N && (uintptr_t)to % 8 == 0) {
#pragma unroll
        for (int i = 0; i < N / 4; i++) ((uint2 *)to)[i] = make_uint2(word[2 * i], word[2 * i + 1]);
    } else {
#pragma unroll
        for (int j = 0; j < N; j++)
            if (j < n) to[j] = __ushort_as_half((unsigned short)(word[j / 2] >> j % 2 * 16));
    }
}

// Writes the first n weights of row 8h + g of a tile to `to`; n <= 0 for a row beyond n_out.
template <QuantType T> __device__ void tile_half(const uint8_t *tile, int lane, int h, int n, __half *to) {
    int i = lane % 4;
    if constexpr (Format<T>::FLOAT) {
        for (int k = 0; k < 4; k++) {
            float w[VECTOR_FLOATS<T>];
            tile_floats<T>(tile, lane, h, k, w);
            int first = (4 * k + i) * VECTOR_FLOATS<T>;
            put<VECTOR_FLOATS<T>>(w, n - first, to + first);
        }
    } else {
        for (int k = 0; k < 2; k++) {
            float v[4][8];
            tile_values<T>(tile, lane, h, k, v);
#pragma unroll
            for (int c = 0; c < 4; c++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    int first = (4 * k + c) * CHUNK_WEIGHTS + 16 * half + 4 * i;
                    put<4>(v[c] + 4 * half, n - first, to + first);
                }
        }
    }
}

template <QuantType T>
__global__ void __launch_bounds__(THREADS) k_dequant(DeviceWeight w, int expert, __half *out) {
    pdl_wait(); // the kernel before may still read out
    pdl_launch();
    const Layout &at = w.layout;
    int index = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32; // tile in the row of tiles
    if (index >= at.n_tiles) return;
    size_t tile_row = (size_t)expert * at.n_tile_rows + blockIdx.y;
    const uint8_t *tile = w.data + (tile_row * at.n_tiles + index) * at.tile_bytes;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = blockIdx.y * TILE_ROWS + 8 * h + lane / 4, column = index * at.tile_weights;
        tile_half<T>(tile, lane, h, row < w.n_out ? w.n_in - column : 0, out + (size_t)row * w.n_in + column);
    }
}

} // namespace

extern "C" cudaError_t launch_dequant(const Launch *l, const DeviceWeight *w, int expert, void *out) {
    if (expert < 0 || expert >= w->n_expert || (uintptr_t)out % 16) return cudaErrorInvalidValue;
    dim3 blocks((unsigned)(w->layout.n_tiles + WARPS - 1) / WARPS, (unsigned)w->layout.n_tile_rows);
    if (blocks.y > 65535) return cudaErrorInvalidValue;
    return for_type(w->type, [&](auto type) {
        return launch_kernel(l, k_dequant<type>, blocks, THREADS, 0, *w, expert, (__half *)out);
    });
}
