// embed: the rows of the embedding matrix that the batch's tokens name, as floats.
//
// A block per row of the batch, a thread per chunk: a few kilobytes are read, and the launch costs more than
// the work.
#include "device.cuh"
#include "launch.cuh"
#include "quant.cuh"

namespace {

constexpr int THREADS = 256;

template <QuantType T>
__device__ void block_row(const Layout &at, const uint8_t *row, float factor, float *out) {
    int n = at.n_segments * at.segment_chunks;
    for (int i = threadIdx.x; i < n; i += THREADS) {
        float v[CHUNK_WEIGHTS];
        const uint8_t *segment = row + i / at.segment_chunks * at.segment_bytes;
        chunk_values<T>(segment, at.segment_chunks, i % at.segment_chunks, v);
        float4 *to = (float4 *)(out + (size_t)i * CHUNK_WEIGHTS);
#pragma unroll
        for (int k = 0; k < CHUNK_WEIGHTS / 4; k++)
            to[k] = make_float4(v[4 * k] * factor, v[4 * k + 1] * factor, v[4 * k + 2] * factor,
                                v[4 * k + 3] * factor);
    }
}

template <QuantType T>
__device__ void float_row(const Layout &at, const uint8_t *row, int n_in, float factor, float *out) {
    int length = n_in / at.n_segments, eights = (length + 7) / 8; // per segment
    for (int i = threadIdx.x; i < at.n_segments * eights; i += THREADS) {
        int s = i / eights, k = i % eights * 8;
        float v[8];
        load_floats<T>(row + s * at.segment_bytes, k, length, v);
#pragma unroll
        for (int j = 0; j < 8; j++)
            if (k + j < length) out[(size_t)s * length + k + j] = v[j] * factor;
    }
}

template <QuantType T>
__global__ void __launch_bounds__(THREADS) k_embed(DeviceWeight w, const int32_t *token, float *out) {
    pdl_wait();
    pdl_launch(); // not before: what comes next would take the room that this kernel needs
    // A row without logits leaves token -1 behind; the run stops soon, but must not touch foreign memory
    // until then.
    int row = min(max(__ldcg(token + blockIdx.x), 0), w.n_out - 1);
    const uint8_t *data = w.data + (size_t)row * w.layout.n_segments * w.layout.segment_bytes;
    float factor = w.scale ? w.scale[row] : 1.0f;
    float *to = out + (size_t)blockIdx.x * ((w.n_in + 15) / 16 * 16);
    if constexpr (Format<T>::FLOAT)
        float_row<T>(w.layout, data, w.n_in, factor, to);
    else
        block_row<T>(w.layout, data, factor, to);
}

} // namespace

extern "C" cudaError_t launch_embed(const Launch *l, const DeviceWeight *w, const int32_t *token, int T,
                                    float *out) {
    if (T <= 0 || w->n_expert != 1) return cudaErrorInvalidValue;
    return for_type(
        w->type, [&](auto type) { return launch_kernel(l, k_embed<type>, T, THREADS, 0, *w, token, out); });
}
