// rope: queries are rotated in place, keys are rotated on their way into the cache, values just go there.
//
// A thread owns one pair of dimensions and turns it in several heads, so that the angle is worked out once.
//
// Rows of padding (sequence -1) and positions that the cache does not have write nothing.
#include "../launch.h"
#include "../device/rope.cuh"
#include <cassert>

namespace {

constexpr int THREADS = 256, HEADS_PER_THREAD = 4;

struct Rope {
    float *q;
    NewKv fresh;
    uint8_t *cache_k, *cache_v;
    size_t history_bytes;
    const int32_t *seq, *position;
    int n_head, n_kv_head, head_dim, n_ctx;
};

// Heads are counted through: those of q, then of k, then of v.
__device__ const float *head_input(const Rope &r, int t, int head) {
    if (head < r.n_head) return r.q + (size_t)t * row_stride(r.n_head * r.head_dim) + head * r.head_dim;
    head -= r.n_head;
    size_t row = (size_t)t * row_stride(r.n_kv_head * r.head_dim);
    return head < r.n_kv_head ? r.fresh.k + row + head * r.head_dim
                              : r.fresh.v + row + (head - r.n_kv_head) * r.head_dim;
}

template <KvType KV>
__device__ void store_cache(const Rope &r, int seq, int position, int head, int pair, float2 x) {
    bool is_k = head < r.n_kv_head;
    size_t number = (size_t)seq * r.n_kv_head + (is_k ? head : head - r.n_kv_head);
    uint8_t *history = (is_k ? r.cache_k : r.cache_v) + number * r.history_bytes;
    store_pair<KV>(history, r.n_ctx, r.head_dim, position, 2 * pair, x);
}

// grid (T, heads / heads of a block), block (head_dim / 2, heads at a time)
template <KvType KV> __global__ void __launch_bounds__(THREADS) k_rope_kvput(const __grid_constant__ Rope r) {
    pdl_wait();
    pdl_launch(); // not before: what comes next would take the room that this kernel needs
    int t = blockIdx.x, pair = threadIdx.x, n_heads = r.n_head + 2 * r.n_kv_head;
    int first = blockIdx.y * HEADS_PER_THREAD * blockDim.y + threadIdx.y;
    int seq = __ldcg(r.seq + t), position = __ldcg(r.position + t);
    float2 x[HEADS_PER_THREAD];
#pragma unroll
    for (int i = 0; i < HEADS_PER_THREAD; i++) {
        int head = first + i * blockDim.y;
        if (head < n_heads) x[i] = __ldcg((const float2 *)head_input(r, t, head) + pair);
    }
    if (seq < 0 || position < 0 || position >= r.n_ctx) return;
    bool turns = 2 * pair < r.fresh.n_rot;
    float2 turn = turns ? turn_of(position, r.fresh.frequency[pair]) : make_float2(1, 0);
#pragma unroll
    for (int i = 0; i < HEADS_PER_THREAD; i++) {
        int head = first + i * blockDim.y;
        if (head >= n_heads) break;
        if (turns && head < r.n_head + r.n_kv_head) x[i] = rotate(x[i], turn);
        if (head >= r.n_head)
            store_cache<KV>(r, seq, position, head - r.n_head, pair, x[i]);
        else if (turns)
            *(float2 *)(head_input(r, t, head) + 2 * pair) = x[i];
    }
}

} // namespace

extern "C" cudaError_t launch_rope_kvput(const Launch *l, float *q, int n_head, const NewKv *fresh,
                                         const DeviceKv *kv, const int32_t *seq, const int32_t *position,
                                         int T) {
    assert(fresh->n_rot % 2 == 0 && fresh->n_rot <= kv->head_dim && T > 0);
    if (kv->head_dim < 2 || kv->head_dim > 2 * THREADS || kv->head_dim % 2 ||
        kv->head_dim % kv_type_unit(kv->type) || kv->n_ctx % KV_TILE)
        return cudaErrorInvalidValue;
    Rope r = {.q = q,
              .fresh = *fresh,
              .cache_k = (uint8_t *)kv->k,
              .cache_v = (uint8_t *)kv->v,
              .history_bytes = (size_t)kv->n_ctx * kv_row_bytes(kv->type, kv->head_dim),
              .seq = seq,
              .position = position,
              .n_head = n_head,
              .n_kv_head = kv->n_head,
              .head_dim = kv->head_dim,
              .n_ctx = kv->n_ctx};
    unsigned pairs = (unsigned)kv->head_dim / 2, at_a_time = THREADS / pairs,
             per_block = at_a_time * HEADS_PER_THREAD;
    dim3 grid((unsigned)T, ((unsigned)(n_head + 2 * kv->n_head) + per_block - 1) / per_block),
        block(pairs, at_a_time);
    switch (kv->type) {
    case KV_F16:
        return launch_kernel(l, k_rope_kvput<KV_F16>, grid, block, 0, r);
    case KV_Q8_0:
        return launch_kernel(l, k_rope_kvput<KV_Q8_0>, grid, block, 0, r);
    case KV_FP8:
        return launch_kernel(l, k_rope_kvput<KV_FP8>, grid, block, 0, r);
    default:
        return launch_kernel(l, k_rope_kvput<KV_F32>, grid, block, 0, r);
    }
}
