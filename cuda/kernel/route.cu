// route: the choice of experts, and the sum of what they give.
//
// ROUTE: a warp per row.  A lane has every 32nd expert; scores are kept in shared memory.  The one trick: a
// float's bits, with the sign turned round, are ordered like the float, so that the largest score of a warp is
// one instruction, and the lowest of its experts another.  Where scores are damaged, a NaN is the largest: the
// ids stay valid, and the NaN reaches the logits through the weights.
#include "../device/device.cuh"
#include "../device/launch.cuh"

namespace {

constexpr unsigned ALL = 0xffffffffu;

// Ordered like v, and above 0.
__device__ uint32_t order_of(float v) {
    uint32_t bits = __float_as_uint(v + 0.0f); // -0 becomes 0
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The number with the largest key in the warp; the lowest of several.
__device__ int best_of(uint32_t key, int number) {
    uint32_t most = __reduce_max_sync(ALL, key);
    return (int)__reduce_min_sync(ALL, key == most ? (unsigned)number : 0x7fffffffu);
}

struct Scores {         // in shared memory
    float *score;       // [n_expert]
    float *choice;      // [n_expert] with the bias
    uint32_t taken = 0; // bit i: expert 32 i + lane cannot be chosen
};

// softmax or sigmoid of the logits.
__device__ void make_scores(const MoeParams &moe, const float *logits, Scores *s) {
    int lane = threadIdx.x;
    float most = -INFINITY, sum = 0;
    constexpr int N = 8; // loads under way at once
    for (int base = lane; base < moe.n_expert; base += 32 * N) {
        float v[N];
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = base + 32 * i < moe.n_expert ? __ldcg(logits + base + 32 * i) : 0;
#pragma unroll
        for (int i = 0; i < N; i++)
            if (base + 32 * i < moe.n_expert) {
                s->score[base + 32 * i] = v[i];
                most = fmaxf(most, v[i]);
            }
    }
    most = warp_max(most);
    for (int e = lane; e < moe.n_expert; e += 32) {
        float v = s->score[e];
        v = moe.kind == ROUTE_SIGMOID ? 1 / (1 + expf(-v)) : expf(v - most);
        s->score[e] = v;
        sum += v;
    }
    sum = warp_sum(sum);
    for (int e = lane; e < moe.n_expert; e += 32) {
        if (moe.kind == ROUTE_SOFTMAX) s->score[e] /= sum;
        s->choice[e] = moe.bias ? s->score[e] + moe.bias[e] : s->score[e];
    }
    __syncwarp();
}

// Excludes the experts of all but the n_group_used best groups, a group in each lane: its score is the sum of
// its two best choices.
__device__ void exclude_groups(const MoeParams &moe, Scores *s) {
    int lane = threadIdx.x, size = moe.n_expert / moe.n_group;
    float best = -INFINITY, second = -INFINITY;
    for (int i = 0; lane < moe.n_group && i < size; i++) {
        float v = s->choice[lane * size + i];
        second = fmaxf(second, fminf(best, v));
        best = fmaxf(best, v);
    }
    uint32_t key = lane < moe.n_group ? order_of(size > 1 ? best + second : best) : 0, used = 0;
    for (int i = 0; i < moe.n_group_used; i++) {
        int group = best_of(key, lane);
        used |= 1u << group;
        if (lane == group) key = 0;
    }
    for (int i = 0; 32 * i + lane < moe.n_expert; i++)
        if (!(used >> (32 * i + lane) / size & 1)) s->taken |= 1u << i;
}

// The expert with the largest choice among those not taken, which it then is.
__device__ int take_best(const MoeParams &moe, Scores *s) {
    int lane = threadIdx.x, mine = lane;
    uint32_t key = 0;
    for (int i = 0; 32 * i + lane < moe.n_expert; i++) {
        uint32_t k = s->taken >> i & 1 ? 0 : order_of(s->choice[32 * i + lane]);
        if (k > key) {
            key = k;
            mine = 32 * i + lane;
        }
    }
    int best = best_of(key, mine);
    if (best % 32 == lane) s->taken |= 1u << best / 32;
    return best;
}

__global__ void k_route(const __grid_constant__ Route r) {
    extern __shared__ float shared[];
    const MoeParams &moe = r.moe;
    Scores s = {shared, shared + moe.n_expert};
    float *weight = s.choice + moe.n_expert, sum = 0; // [n_used]
    int lane = threadIdx.x;
    pdl_wait();
    pdl_launch();
    int32_t *ids = (int32_t *)row_of(r.ids, blockIdx.x);
    float *weights = row_of(r.weights, blockIdx.x);
    make_scores(moe, row_of(r.logits, blockIdx.x), &s);
    if (moe.n_group > 1) exclude_groups(moe, &s);
    for (int slot = 0; slot < moe.n_used; slot++) {
        int best = take_best(moe, &s);
        sum += s.score[best];
        if (lane == 0) {
            ids[slot] = best;
            weight[slot] = s.score[best];
        }
    }
    __syncwarp();
    float scale = moe.normalise ? moe.scale / sum : moe.scale;
    for (int slot = lane; slot < moe.n_used; slot += 32) weights[slot] = weight[slot] * scale;
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
    row_of(m.out, t)[i] = residual + sum;
}

} // namespace

extern "C" cudaError_t launch_route(const Launch *l, const Route *r, int n) {
    const MoeParams *moe = &r->moe;
    if (moe->n_expert > MAX_EXPERTS || moe->n_used > moe->n_expert || moe->n_group > 32 ||
        (moe->n_group > 1 && (moe->n_expert % moe->n_group || moe->n_group_used > moe->n_group)))
        return cudaErrorInvalidValue;
    return launch_kernel(l, k_route, n, 32, (2 * moe->n_expert + moe->n_used) * sizeof(float), *r);
}

extern "C" cudaError_t launch_moe_sum(const Launch *l, const MoeSum *m, int n) {
    dim3 blocks((unsigned)(m->width + COLUMNS - 1) / COLUMNS, n);
    return launch_kernel(l, k_moe_sum, blocks, COLUMNS, 0, *m);
}
