// route: the choice of experts, and the sum of what they give, as ops of their own: for several rows, and
// where a single row's ops are not one kernel (fusion.cu).
#include "../device/route.cuh"

namespace {

constexpr int ROUTE_THREADS = 128; // of a block, which has a row

__global__ void __launch_bounds__(ROUTE_THREADS) k_route(const __grid_constant__ Route r) {
    extern __shared__ float shared[];
    float *weight = shared + score_floats(r.moe); // [n_used]
    int *id = (int *)(weight + r.moe.n_used);
    pdl_wait();
    pdl_launch();
    const float *logits = row_of(r.logits, blockIdx.x);
    choose_experts<ROUTE_THREADS>(
        r.moe, [&](int e) { return without_flag(__ldcg(logits + e)); }, shared, id, weight);
    int32_t *ids = (int32_t *)row_of(r.ids, blockIdx.x);
    float *weights = row_of(r.weights, blockIdx.x);
    for (int slot = threadIdx.x; slot < r.moe.n_used; slot += ROUTE_THREADS) {
        ids[slot] = id[slot];
        weights[slot] = weight[slot];
    }
}

constexpr int COLUMNS = 256; // of a block of MOE_SUM

__global__ void __launch_bounds__(COLUMNS) k_moe_sum(const __grid_constant__ MoeSum m) {
    pdl_wait();
    pdl_launch();
    int i = (int)(blockIdx.x * COLUMNS + threadIdx.x), t = blockIdx.y;
    if (i >= m.width) return;
    const float *in = row_of(m.in, t) + i, *weight = row_of(m.weights, t);
    float residual = m.residual.data ? __ldcg(row_of(m.residual, t) + i) : 0, sum = 0;
    constexpr int N = 8; // loads under way at once
    for (int base = 0; base < m.n_used; base += N) {
        float w[N], v[N];
#pragma unroll
        for (int s = 0; s < N; s++) {
            bool valid = base + s < m.n_used;
            w[s] = valid ? __ldcg(weight + base + s) : 0;
            v[s] = valid ? __ldcg(in + (size_t)(base + s) * m.width) : 0;
        }
#pragma unroll
        for (int s = 0; s < N; s++)
            if (base + s < m.n_used) sum = fmaf(w[s], v[s], sum);
    }
    row_of(m.out, t)[i] = fmaf(m.scale, sum, residual);
}

} // namespace

extern "C" cudaError_t launch_route(const Launch *l, const Route *r, int n) {
    const MoeParams *moe = &r->moe;
    if (moe->n_expert > MAX_EXPERTS || moe->n_used > moe->n_expert || moe->n_group > 32 ||
        (moe->n_group > 1 && (moe->n_expert % moe->n_group || moe->n_group_used > moe->n_group)))
        return cudaErrorInvalidValue;
    return launch_kernel(l, k_route, n, ROUTE_THREADS, (score_floats(*moe) + 2 * moe->n_used) * sizeof(float),
                         *r);
}

extern "C" cudaError_t launch_moe_sum(const Launch *l, const MoeSum *m, int n) {
    dim3 blocks((unsigned)(m->width + COLUMNS - 1) / COLUMNS, n);
    return launch_kernel(l, k_moe_sum, blocks, COLUMNS, 0, *m);
}
