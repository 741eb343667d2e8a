// embed: the rows of the embedding matrix that the batch's tokens name, as floats.
//
// A block per row of the batch, a warp per tile, of which one row is wanted and four lanes have something to
// write: a few dozen kilobytes are read, and the launch costs more than the work.
#include "../device/device.cuh"
#include "../device/launch.cuh"
#include "../device/quant.cuh"

namespace {

constexpr int THREADS = 256;

struct Place { // of a row in its tiles
    int lane, g, h;
    __device__ bool mine() const { return lane / 4 == g; }
};

// What a tile says of the row, from to[0] on, of which n elements exist.
template <QuantType T>
__device__ void tile_row(const uint8_t *tile, const Place &at, int n, float factor, float *to) {
    int i = at.lane % 4;
    if constexpr (Format<T>::FLOAT) {
        for (int k = 0; k < 4; k++) {
            float w[VECTOR_FLOATS<T>];
            tile_floats<T>(tile, at.lane, at.h, k, w);
            int first = (4 * k + i) * VECTOR_FLOATS<T>;
#pragma unroll
            for (int j = 0; j < VECTOR_FLOATS<T>; j++)
                if (at.mine() && first + j < n) to[first + j] = w[j] * factor;
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
                    if (at.mine() && first < n)
                        *(float4 *)(to + first) =
                            make_float4(x[0] * factor, x[1] * factor, x[2] * factor, x[3] * factor);
                }
        }
    }
}

template <QuantType T>
__global__ void __launch_bounds__(THREADS) k_embed(DeviceWeight w, const int32_t *token, RegRows out) {
    pdl_wait();
    pdl_launch(); // not before: what comes next would take the room that this kernel needs
    // A row without logits leaves token -1 behind; the run stops soon, but must not touch foreign memory
    // until then.
    int row = min(max(__ldcg(token + blockIdx.x), 0), w.n_out - 1);
    const Layout &at = w.layout;
    const uint8_t *tiles = w.data + (size_t)(row / TILE_ROWS) * at.n_tiles * at.tile_bytes;
    float factor = w.scale ? w.scale[row] : 1.0f;
    float *to = row_of(out, blockIdx.x);
    Place place = {(int)threadIdx.x % 32, row % 8, row / 8 % 2};
    for (int i = threadIdx.x / 32; i < at.n_tiles; i += THREADS / 32)
        tile_row<T>(tiles + (size_t)i * at.tile_bytes, place, w.n_in - i * at.tile_weights, factor,
                    to + i * at.tile_weights);
}

} // namespace

extern "C" cudaError_t launch_embed(const Launch *l, const DeviceWeight *w, const int32_t *token, int T,
                                    RegRows out) {
    bool aligned = (uintptr_t)out.data % 16 == 0 && out.stride % 4 == 0;
    if (T <= 0 || w->n_expert != 1 || !aligned) return cudaErrorInvalidValue;
    return for_type(
        w->type, [&](auto type) { return launch_kernel(l, k_embed<type>, T, THREADS, 0, *w, token, out); });
}
