// rope: queries are rotated in place, keys are rotated on their way into the cache, values are copied there.
//
// A thread owns one pair of dimensions and rotates it in several heads, so that the angle is computed once.
//
// Rows of padding (sequence -1) and positions that the cache does not have write nothing.
#include "../launch.h"
#include "../device/rope.cuh"
#include <cassert>

namespace {

constexpr int THREADS = 256, HEADS_PER_THREAD = 4;

struct Rope {
    RegRows q;
    NewKv new_kv;
    CacheView cache;
    const int32_t *seq, *position;
    int n_head, n_kv_head, head_dim, n_ctx;
};

// Heads are counted through: those of q, then of k, then of v.
__device__ float *head_input(const Rope &r, int t, int head) {
    if (head < r.n_head) return row_of(r.q, t) + head * r.head_dim;
    head -= r.n_head;
    return head < r.n_kv_head ? row_of(r.new_kv.k, t) + head * r.head_dim
                              : row_of(r.new_kv.v, t) + (head - r.n_kv_head) * r.head_dim;
}

// grid (T, heads / heads of a block), block (head_dim / 2, heads at a time)
template <KvType KV> __global__ void __launch_bounds__(THREADS) k_rope_kvput(const __grid_constant__ Rope r) {
    pdl_wait();
    pdl_launch(); // not before: blocks of the next kernel would take the SMs that this one needs
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
    int32_t page = __ldcg(cache_pages(&r.cache, seq) + position / CACHE_PAGE);
    bool rotates = 2 * pair < r.new_kv.n_rot;
    float2 rotation = rotates ? rotation_of(position, r.new_kv.frequency[pair]) : make_float2(1, 0);
#pragma unroll
    for (int i = 0; i < HEADS_PER_THREAD; i++) {
        int head = first + i * blockDim.y;
        if (head >= n_heads) break;
        bool is_v = head >= r.n_head + r.n_kv_head;
        if (rotates && !is_v) x[i] = rotate(x[i], rotation);
        if (head >= r.n_head) {
            int kv_head = head - r.n_head - (is_v ? r.n_kv_head : 0);
            KvRows rows = cache_rows(&r.cache, page, is_v ? CACHE_V : CACHE_K, kv_head);
            put_pair<KV>(rows, r.head_dim, position, 2 * pair, x[i]);
        } else if (rotates) {
            *(float2 *)(head_input(r, t, head) + 2 * pair) = x[i];
        }
    }
}

} // namespace

extern "C" cudaError_t launch_rope_kvput(const Launch *l, RegRows q, int n_head, const NewKv *new_kv,
                                         const CacheView *cache, const int32_t *seq, const int32_t *position,
                                         int T) {
    const CacheLayer *layer = &cache->layer;
    int head_dim = layer->width[CACHE_K], n_kv_head = layer->n_head;
    assert(new_kv->n_rot % 2 == 0 && new_kv->n_rot <= head_dim && T > 0);
    if (!has_one_width(layer) || head_dim < 2 || head_dim > 2 * THREADS || head_dim % 2 ||
        head_dim % kv_type_multiple(layer->type))
        return cudaErrorInvalidValue;
    Rope r = {.q = q,
              .new_kv = *new_kv,
              .cache = *cache,
              .seq = seq,
              .position = position,
              .n_head = n_head,
              .n_kv_head = n_kv_head,
              .head_dim = head_dim,
              .n_ctx = layer->table_pages * CACHE_PAGE};
    unsigned pairs = (unsigned)head_dim / 2, at_a_time = THREADS / pairs,
             per_block = at_a_time * HEADS_PER_THREAD;
    dim3 grid((unsigned)T, ((unsigned)(n_head + 2 * n_kv_head) + per_block - 1) / per_block),
        block(pairs, at_a_time);
    switch (layer->type) {
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
