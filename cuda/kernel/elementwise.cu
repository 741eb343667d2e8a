// elementwise: the ops whose work costs less than their launch: norm, add, glu, slice, join, route and
// moe_sum, for any number of rows.
//
// A block computes one row (norm, a warp for route) or COLUMNS elements of one.  A register may begin at any
// column: rows of four floats are read and written at once where their addresses allow that.
#include "../device/activation.cuh"
#include "../device/device.cuh"
#include "../device/launch.cuh"
#include "../device/norm.cuh"

namespace {

constexpr int WARPS = 16, THREADS = WARPS * 32;

// A block per row, which is read twice.
__global__ void __launch_bounds__(THREADS)
    k_norm(RegRows in, const float *weight, int width, float eps, RegRows out) {
    pdl_wait();
    pdl_launch();
    const float *row = row_of(in, blockIdx.x);
    float *to = row_of(out, blockIdx.x), scale = row_rms_scale<WARPS>(row, width, eps);
    for (int i = threadIdx.x; i < width; i += THREADS) to[i] = normalised(__ldcg(row + i), scale, weight[i]);
}

// The element of its row that a thread of these kernels has; the row is blockIdx.y.
__device__ int column() {
    return (int)(blockIdx.x * blockDim.x + threadIdx.x);
}

__global__ void k_add(RegRows a, RegRows b, AddParams add, int width, RegRows out) {
    pdl_wait();
    pdl_launch();
    int i = 4 * column(), t = blockIdx.y;
    float4 x = load4(row_of(a, t), i, width), y = load4(row_of(b, t), i, width);
#pragma unroll
    for (int k = 0; k < 4; k++) (&x.x)[k] = add.scale * fmaf(add.a_scale, (&x.x)[k], (&y.x)[k]);
    store4(row_of(out, t), i, width, x);
}

// Gates of elements i..i + 3.
__device__ float4 load_gates(const Glu &g, const float *row, int i) {
    if (g.columns_per_gate == 1) return load4(row, i, g.width);
    float4 v = make_float4(0, 0, 0, 0);
    for (int k = 0; k < 4; k++)
        if (i + k < g.width) (&v.x)[k] = __ldcg(row + (i + k) / g.columns_per_gate);
    return v;
}

__global__ void k_glu(const __grid_constant__ Glu g) {
    pdl_wait();
    pdl_launch();
    int i = 4 * column(), t = blockIdx.y;
    if (i >= g.width) return;
    float4 v = load_gates(g, row_of(g.gate, t), i);
    if (g.up.data) {
        float4 up = load4(row_of(g.up, t), i, g.width);
#pragma unroll
        for (int k = 0; k < 4; k++) (&v.x)[k] = gated(g.params, (&v.x)[k], (&up.x)[k]);
    } else {
#pragma unroll
        for (int k = 0; k < 4; k++) (&v.x)[k] = activate(g.params, (&v.x)[k]);
    }
    store4(row_of(g.out, t), i, g.width, v);
}

__global__ void k_slice(RegRows in, SliceParams s, int width, RegRows out) {
    pdl_wait();
    pdl_launch();
    int i = column(), t = blockIdx.y;
    if (i < width) row_of(out, t)[i] = __ldcg(row_of(in, t) + i / s.n * s.period + s.first + i % s.n);
}

__global__ void k_join(const __grid_constant__ Join j) {
    pdl_wait();
    pdl_launch();
    int i = column(), t = blockIdx.y, dim = j.a_dim + j.b_dim, head = i / dim, k = i % dim;
    if (head >= j.n_head) return;
    const float *from =
        k < j.a_dim ? row_of(j.a, t) + head * j.a_dim + k : row_of(j.b, t) + head * j.b_dim + k - j.a_dim;
    row_of(j.out, t)[i] = __ldcg(from);
}

// A warp per row.  n_used times: the largest logit that is not chosen yet, the lower id where two are equal;
// then the softmax of the chosen ones.
__global__ void k_route(const __grid_constant__ Route r) {
    pdl_wait();
    pdl_launch();
    int lane = threadIdx.x, n_expert = r.n_expert, n_used = r.n_used;
    const float *row = row_of(r.logits, blockIdx.x);
    int32_t *chosen = (int32_t *)row_of(r.ids, blockIdx.x);
    float *weight = row_of(r.weights, blockIdx.x);
    float last = INFINITY, first = 0, sum = 0;
    int last_id = -1; // the last choice: experts up to it, in the order of choice, are chosen
    for (int s = 0; s < n_used; s++) {
        float best = -INFINITY;
        int best_id = n_expert;
        for (int e = lane; e < n_expert; e += 32) {
            float v = __ldcg(row + e);
            bool left = v < last || (v == last && e > last_id);
            if (left && (v > best || best_id == n_expert)) {
                best = v;
                best_id = e;
            }
        }
#pragma unroll
        for (int offset = 16; offset; offset >>= 1) {
            float v = __shfl_xor_sync(0xffffffffu, best, offset);
            int id = __shfl_xor_sync(0xffffffffu, best_id, offset);
            bool better = id < n_expert && (best_id == n_expert || v > best || (v == best && id < best_id));
            if (better) {
                best = v;
                best_id = id;
            }
        }
        if (best_id == n_expert) { // only NaNs are left: any expert, because the NaNs reach the logits
            best_id = s;
            best = row[s];
        }
        if (s == 0) first = best;
        float share = expf(best - first);
        sum += share;
        if (lane == 0) {
            chosen[s] = best_id;
            weight[s] = share;
        }
        last = best;
        last_id = best_id;
    }
    __syncwarp();
    for (int s = lane; s < n_used; s += 32) weight[s] *= r.scale / sum;
}

__global__ void k_moe_sum(const __grid_constant__ MoeSum m) {
    pdl_wait();
    pdl_launch();
    int i = column(), t = blockIdx.y;
    if (i >= m.width) return;
    const float *in = row_of(m.in, t) + i, *weight = row_of(m.weights, t);
    float sum = 0;
    for (int s = 0; s < m.n_used; s++) sum = fmaf(__ldcg(weight + s), __ldcg(in + (size_t)s * m.width), sum);
    row_of(m.out, t)[i] = m.residual.data ? __ldcg(row_of(m.residual, t) + i) + sum : sum;
}

constexpr int COLUMNS = 256; // of a block; of kernels that have four elements per thread, THREADS_OF_FOUR
constexpr int THREADS_OF_FOUR = COLUMNS / 4;

// Blocks for n rows of `width` elements.
dim3 grid_of(int width, int n) {
    return dim3((width + COLUMNS - 1) / COLUMNS, n);
}

} // namespace

extern "C" cudaError_t launch_norm(const Launch *l, RegRows in, const float *weight, int width, float eps,
                                   int n, RegRows out) {
    return launch_kernel(l, k_norm, n, THREADS, 0, in, weight, width, eps, out);
}

extern "C" cudaError_t launch_add(const Launch *l, RegRows a, RegRows b, const AddParams *add, int width,
                                  int n, RegRows out) {
    return launch_kernel(l, k_add, grid_of(width, n), THREADS_OF_FOUR, 0, a, b, *add, width, out);
}

extern "C" cudaError_t launch_glu(const Launch *l, const Glu *g, int n) {
    if (g->columns_per_gate <= 0 || g->width % g->columns_per_gate) return cudaErrorInvalidValue;
    return launch_kernel(l, k_glu, grid_of(g->width, n), THREADS_OF_FOUR, 0, *g);
}

extern "C" cudaError_t launch_slice(const Launch *l, RegRows in, const SliceParams *slice, int width, int n,
                                    RegRows out) {
    if (slice->n <= 0 || width % slice->n) return cudaErrorInvalidValue;
    return launch_kernel(l, k_slice, grid_of(width, n), COLUMNS, 0, in, *slice, width, out);
}

extern "C" cudaError_t launch_join(const Launch *l, const Join *j, int n) {
    int width = j->n_head * (j->a_dim + j->b_dim);
    return launch_kernel(l, k_join, grid_of(width, n), COLUMNS, 0, *j);
}

extern "C" cudaError_t launch_route(const Launch *l, const Route *r, int n) {
    return launch_kernel(l, k_route, n, 32, 0, *r);
}

extern "C" cudaError_t launch_moe_sum(const Launch *l, const MoeSum *m, int n) {
    return launch_kernel(l, k_moe_sum, grid_of(m->width, n), COLUMNS, 0, *m);
}
