// elementwise: the ops whose work is less than their launch: norm, add, glu, route and mix, for any number of rows.
//
// A block works on a row, or on a stretch of one; rows of a register lie round_up(width, 16) floats apart.
#include "../device/device.cuh"
#include "../device/launch.cuh"
#include "../device/norm.cuh"

namespace {

constexpr int WARPS = 16, THREADS = WARPS * 32;

// Rows longer than a block's registers are read twice.
__global__ void __launch_bounds__(THREADS)
    k_norm(const float *in, const int *rows, const float *weight, int width, float eps, float *out) {
    pdl_wait();
    pdl_launch();
    const float *row = in + (size_t)(rows ? __ldcg(rows + blockIdx.x) : (int)blockIdx.x) * row_stride(width);
    float scale;
    if (width <= THREADS * 32) {
        float4 v[8];
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = load4(row, (i * THREADS + (int)threadIdx.x) * 4, width);
        scale = block_rms_scale<WARPS, 8>(v, width, eps);
    } else {
        float sum = 0;
        for (int i = threadIdx.x; i < width; i += THREADS) sum = fmaf(__ldcg(row + i), __ldcg(row + i), sum);
        scale = rsqrtf(block_sum<WARPS>(sum) / width + eps);
    }
    float *to = out + (size_t)blockIdx.x * row_stride(width);
    for (int i = threadIdx.x; i < width; i += THREADS) to[i] = __ldcg(row + i) * scale * weight[i];
}

__global__ void k_add(const float *a, const float *b, size_t n, float *out) {
    pdl_wait();
    pdl_launch();
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = __ldcg(a + i) + __ldcg(b + i);
}

__global__ void k_glu(const float *gate, const float *up, size_t n, float *out) {
    pdl_wait();
    pdl_launch();
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float g = __ldcg(gate + i);
    out[i] = g / (1.0f + expf(-g)) * __ldcg(up + i);
}

// A warp per row: n_used times the best of what is left, the lower id where two are equal, then the softmax
// of the chosen.
__global__ void k_route(const float *logits, int logits_stride, int n_expert, int n_used, float factor,
                        int32_t *ids, float *weights, int stride) {
    pdl_wait();
    pdl_launch();
    int lane = threadIdx.x;
    const float *row = logits + (size_t)blockIdx.x * logits_stride;
    int32_t *chosen = ids + (size_t)blockIdx.x * stride;
    float *weight = weights + (size_t)blockIdx.x * stride;
    float last = INFINITY, first = 0, sum = 0;
    int last_id = -1; // what was chosen before: everything not after it in the order is taken
    for (int s = 0; s < n_used; s++) {
        float best = -INFINITY;
        int best_id = n_expert;
        for (int e = lane; e < n_expert; e += 32) {
            float v = __ldcg(row + e);
            bool left = v < last || (v == last && e > last_id);
            if (left && (v > best || best_id == n_expert)) best = v, best_id = e;
        }
#pragma unroll
        for (int offset = 16; offset; offset >>= 1) {
            float v = __shfl_xor_sync(0xffffffffu, best, offset);
            int id = __shfl_xor_sync(0xffffffffu, best_id, offset);
            bool better = id < n_expert && (best_id == n_expert || v > best || (v == best && id < best_id));
            if (better) best = v, best_id = id;
        }
        if (best_id == n_expert)
            best_id = s, best = row[s]; // not numbers: any expert will do, the logits will tell
        if (s == 0) first = best;
        float share = expf(best - first);
        sum += share;
        if (lane == 0) chosen[s] = best_id, weight[s] = share;
        last = best, last_id = best_id;
    }
    __syncwarp();
    for (int s = lane; s < n_used; s += 32) weight[s] *= factor / sum;
}

__global__ void k_mix(const float *in, int in_stride, const float *weights, int weights_stride, int n_used,
                      int width, const float *residual, float *out, int out_stride) {
    pdl_wait();
    pdl_launch();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    size_t t = blockIdx.y;
    if (i >= width) return;
    float sum = 0;
    for (int s = 0; s < n_used; s++)
        sum = fmaf(__ldcg(weights + t * weights_stride + s),
                   __ldcg(in + t * in_stride + (size_t)s * width + i), sum);
    out[t * out_stride + i] = residual ? __ldcg(residual + t * out_stride + i) + sum : sum;
}

unsigned blocks_for(size_t n, int threads) {
    return (unsigned)((n + threads - 1) / threads);
}

} // namespace

extern "C" cudaError_t launch_norm(const Launch *l, const float *in, const int *rows, const float *weight,
                                   int width, float eps, int n, float *out) {
    return launch_kernel(l, k_norm, n, THREADS, 0, in, rows, weight, width, eps, out);
}

extern "C" cudaError_t launch_add(const Launch *l, const float *a, const float *b, int width, int n,
                                  float *out) {
    size_t elements = (size_t)n * row_stride(width);
    return launch_kernel(l, k_add, blocks_for(elements, 256), 256, 0, a, b, elements, out);
}

extern "C" cudaError_t launch_glu(const Launch *l, const float *gate, const float *up, size_t n_elements,
                                  float *out) {
    return launch_kernel(l, k_glu, blocks_for(n_elements, 256), 256, 0, gate, up, n_elements, out);
}

extern "C" cudaError_t launch_route(const Launch *l, const float *logits, int logits_stride, int n_expert,
                                    int n_used, float scale, int n, int32_t *ids, float *weights,
                                    int stride) {
    return launch_kernel(l, k_route, n, 32, 0, logits, logits_stride, n_expert, n_used, scale, ids, weights,
                         stride);
}

extern "C" cudaError_t launch_mix(const Launch *l, const float *in, int in_stride, const float *weights,
                                  int weights_stride, int n_used, int width, const float *residual,
                                  int out_stride, int n, float *out) {
    return launch_kernel(l, k_mix, dim3(blocks_for(width, 256), n), 256, 0, in, in_stride, weights,
                         weights_stride, n_used, width, residual, out, out_stride);
}
