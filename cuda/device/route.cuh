// route: the choice of experts by a block.
//
// Each thread has some experts.  It counts how many are better than its own: that is the slot in which an
// expert is, without a loop over slots, and by code that is short, because it runs once and is fetched each
// time.  The one trick: a float's bits, with the sign turned round, are ordered like the float.  Where
// scores are damaged, a NaN is the largest: the ids stay valid, and the NaN reaches the logits through the
// weights.
#pragma once
#include "device.cuh"
#include "launch.cuh"

// Ordered like v, and above 0.
__device__ inline uint32_t order_of(float v) {
    uint32_t bits = __float_as_uint(v + 0.0f); // -0 becomes 0
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// How many of n keys, before which there may be equal ones, are better than key number i: larger, or equal
// and before.
__device__ inline int n_better(const uint32_t *key, int n, int i) {
    uint32_t mine = key[i];
    int count = 0;
#pragma unroll 4
    for (int k = 0; k < n; k++) count += key[k] > mine || (key[k] == mine && k < i);
    return count;
}

// Floats of shared memory for the scores.
__host__ __device__ inline int score_floats(const MoeParams &moe) {
    return 2 * moe.n_expert + moe.n_group;
}

// The keys of all experts but those of the n_group_used best groups become 0: a group's score is the sum of
// its two best choices.
template <int THREADS>
__device__ __noinline__ void exclude_groups(const MoeParams &moe, const float *choice, uint32_t *key,
                                            uint32_t *of_group) {
    int size = moe.n_expert / moe.n_group, g = threadIdx.x;
    if (g < moe.n_group) {
        float best = -INFINITY, second = -INFINITY;
        for (int i = 0; i < size; i++) {
            float v = choice[g * size + i];
            second = fmaxf(second, fminf(best, v));
            best = fmaxf(best, v);
        }
        of_group[g] = order_of(size > 1 ? best + second : best);
    }
    __syncthreads();
    for (int e = threadIdx.x; e < moe.n_expert; e += THREADS)
        key[e] = n_better(of_group, moe.n_group, e / size) < moe.n_group_used ? order_of(choice[e]) : 0;
    __syncthreads();
}

// Chooses n_used experts by their scores, softmax or sigmoid of logit(e), the lower id first where two are
// equal: their ids and weights [n_used], in shared memory.  By all threads; scratch: score_floats of shared
// memory.
template <int THREADS, class Logit>
__device__ inline void choose_experts(const MoeParams &moe, Logit logit, float *scratch, int *id,
                                      float *weight) {
    float *score = scratch;
    uint32_t *key = (uint32_t *)(scratch + moe.n_expert);
    int lane = threadIdx.x % 32;
    for (int e = threadIdx.x; e < moe.n_expert; e += THREADS) score[e] = logit(e);
    __syncthreads();
    float most = 0, inverse = 1;
    if (moe.kind == ROUTE_SOFTMAX) { // every warp for itself
        float sum = 0;
        most = -INFINITY;
        for (int e = lane; e < moe.n_expert; e += 32) most = fmaxf(most, score[e]);
        most = warp_max(most);
        for (int e = lane; e < moe.n_expert; e += 32) sum += expf(score[e] - most);
        inverse = 1 / warp_sum(sum);
    }
    __syncthreads();
    float *choice = (float *)key; // first
    for (int e = threadIdx.x; e < moe.n_expert; e += THREADS) {
        float v = score[e];
        v = moe.kind == ROUTE_SIGMOID ? 1 / (1 + expf(-v)) : expf(v - most) * inverse;
        score[e] = v;
        if (moe.bias) v += moe.bias[e];
        if (moe.n_group > 1)
            choice[e] = v;
        else
            key[e] = order_of(v);
    }
    __syncthreads();
    if (moe.n_group > 1) exclude_groups<THREADS>(moe, choice, key, key + moe.n_expert);
    for (int e = threadIdx.x; e < moe.n_expert; e += THREADS) {
        int slot = n_better(key, moe.n_expert, e);
        if (slot >= moe.n_used) continue;
        id[slot] = e;
        weight[slot] = score[e];
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        float sum = 0;
        for (int slot = lane; slot < moe.n_used; slot += 32) sum += weight[slot];
        sum = warp_sum(sum);
        float scale = moe.normalise ? moe.scale / sum : moe.scale;
        for (int slot = lane; slot < moe.n_used; slot += 32) weight[slot] *= scale;
    }
    __syncthreads();
}
