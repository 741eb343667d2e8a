// embed: the rows of the embedding matrix for the batch's tokens, or of another one for its positions, as
// floats.
//
// A block per row of the batch and a warp per tile, of whose 16 rows one is decoded, by four lanes: a few
// dozen kilobytes are read, and the launch costs more than the work.
#include "../device/device.cuh"
#include "../device/launch.cuh"
#include "../device/quant.cuh"

namespace {

constexpr int THREADS = 256;

// Row 8h + g of a tile, as a lane sees it: lanes 4g..4g + 3 have its weights.
struct TileLane {
    int lane, g, h;
    __device__ bool has_row() const { return lane / 4 == g; }
};

// Writes the tile's part of the row, times factor, to to[0..n - 1].
template <QuantType T>
__device__ void write_part(const uint8_t *tile, const TileLane &at, int n, float factor, float *to) {
    int i = at.lane % 4;
    if constexpr (Format<T>::FLOAT) {
        for (int k = 0; k < 4; k++) {
            float w[VECTOR_FLOATS<T>];
            tile_floats<T>(tile, at.lane, at.h, k, w);
            int first = (4 * k + i) * VECTOR_FLOATS<T>;
#pragma unroll
            for (int j = 0; j < VECTOR_FLOATS<T>; j++)
                if (at.has_row() && first + j < n) to[first + j] = w[j] * factor;
        }
    } else {
        for (int k = 0; k < 2; k++) {
            float v[4][8];
            tile_values<T>(tile, at.lane, at.h, k, v);
#pragma unroll
            for (int c = 0; c < 4; c++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    int first = (4 * k + c) * CHUNK_WEIGHTS + 16 * half + 4 * i;
                    const float *x = v[c] + 4 * half;
                    if (at.has_row() && first < n)
                        *(float4 *)(to + first) =
                            make_float4(x[0] * factor, x[1] * factor, x[2] * factor, x[3] * factor);
                }
        }
    }
}

template <QuantType T>
__global__ void __launch_bounds__(THREADS)
    k_embed(DeviceWeight w, const int32_t *index, float factor, RegRows out) {
    pdl_wait();
    pdl_launch(); // not before: the next kernel's blocks would take the SMs that this kernel needs
    // SAMPLE writes token -1 for a row whose logits are not finite.  The host then stops the run, a few steps
    // later; until then the row must not be read outside of the matrix.
    int row = min(max(__ldcg(index + blockIdx.x), 0), w.n_out - 1);
    const Layout &at = w.layout;
    const uint8_t *tiles = w.data + (size_t)(row / TILE_ROWS) * at.n_tiles * at.tile_bytes;
    if (w.scale) factor *= w.scale[row];
    float *to = row_of(out, blockIdx.x);
    TileLane lane = {(int)threadIdx.x % 32, row % 8, row / 8 % 2};
    for (int i = threadIdx.x / 32; i < at.n_tiles; i += THREADS / 32)
        write_part<T>(tiles + (size_t)i * at.tile_bytes, lane, w.n_in - i * at.tile_weights, factor,
                      to + i * at.tile_weights);
}

} // namespace

extern "C" cudaError_t launch_embed(const Launch *l, const DeviceWeight *w, const int32_t *row, float factor,
                                    int T, RegRows out) {
    bool aligned = (uintptr_t)out.data % 16 == 0 && out.stride % 4 == 0;
    if (T <= 0 || w->n_expert != 1 || !aligned) return cudaErrorInvalidValue;
    return for_type(w->type, [&](auto type) {
        return launch_kernel(l, k_embed<type>, T, THREADS, 0, *w, row, factor, out);
    });
}
