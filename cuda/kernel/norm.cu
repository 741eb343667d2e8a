// norm: NORM as an op of its own, for any number of rows.
//
// A block computes a row, which it reads twice; or a warp computes a head.  Where a norm is the first step of
// a product or of attention it is no kernel at all.
#include "../device/activation.cuh"
#include "../device/launch.cuh"
#include "../device/norm.cuh"

namespace {

constexpr int WARPS = 16, THREADS = WARPS * 32;
constexpr int HEADS = 8; // of a block

struct Moments {
    float mean, scale;
};

// Writes elements first, first + step, ... < n of a row's part that begins at column `from`.
__device__ void write_normalised(const Norm &p, int t, int from, int first, int step, int n, Moments m) {
    const float *in = row_of(p.in, t) + from,
                *residual = p.residual.data ? row_of(p.residual, t) + from : nullptr;
    int weights = p.head_dim && !p.per_head ? 0 : from; // heads share theirs
    float *out = row_of(p.out, t) + from;
    for (int i = first; i < n; i += step) {
        float x =
            normalised(without_flag(__ldcg(in + i)) - m.mean, m.scale, p.weight ? p.weight[weights + i] : 1);
        if (p.bias) x += p.bias[weights + i];
        if (p.gate.data) x *= activate(p.gate_act, __ldcg(row_of(p.gate, t) + from + i));
        if (residual) x = __fadd_rn(x, __ldcg(residual + i)); // not contracted: as in a fusion
        out[i] = x * p.sum_scale;
    }
}

__global__ void __launch_bounds__(THREADS) k_norm(const __grid_constant__ Norm p) {
    pdl_wait();
    pdl_launch();
    const float *row = row_of(p.in, blockIdx.x);
    Moments m = {0, 0};
    if (p.centred) {
        float sum = 0, squares = 0;
        for (int i = threadIdx.x; i < p.width; i += THREADS) sum += without_flag(__ldcg(row + i));
        m.mean = block_sum<WARPS>(sum) / p.width;
        __syncthreads();
        for (int i = threadIdx.x; i < p.width; i += THREADS) {
            float x = without_flag(__ldcg(row + i)) - m.mean;
            squares = fmaf(x, x, squares);
        }
        m.scale = rms_scale<WARPS>(squares, p.width, p.eps);
    } else {
        m.scale = row_rms_scale<WARPS>(row, p.width, p.eps);
    }
    write_normalised(p, blockIdx.x, 0, threadIdx.x, THREADS, p.width, m);
}

// grid (rows, heads / HEADS)
__global__ void __launch_bounds__(HEADS * 32) k_norm_heads(const __grid_constant__ Norm p) {
    pdl_wait();
    pdl_launch();
    int lane = threadIdx.x % 32, from = (blockIdx.y * HEADS + threadIdx.x / 32) * p.head_dim, n = p.head_dim;
    if (from >= p.width) return;
    const float *head = row_of(p.in, blockIdx.x) + from;
    float sum = 0, squares = 0;
    if (p.centred)
        for (int i = lane; i < n; i += 32) sum += without_flag(__ldcg(head + i));
    Moments m = {warp_sum(sum) / n, 0};
    for (int i = lane; i < n; i += 32) {
        float x = without_flag(__ldcg(head + i)) - m.mean;
        squares = fmaf(x, x, squares);
    }
    m.scale = rsqrtf(warp_sum(squares) / n + p.eps);
    write_normalised(p, blockIdx.x, from, lane, 32, n, m);
}

} // namespace

extern "C" cudaError_t launch_norm(const Launch *l, const Norm *norm, int n) {
    if (!norm->head_dim) return launch_kernel(l, k_norm, n, THREADS, 0, *norm);
    if (norm->width % norm->head_dim) return cudaErrorInvalidValue;
    int n_heads = norm->width / norm->head_dim;
    return launch_kernel(l, k_norm_heads, dim3(n, (n_heads + HEADS - 1) / HEADS), HEADS * 32, 0, *norm);
}
