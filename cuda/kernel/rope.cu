// rope: what comes before attention where it is no part of the attention kernel: queries are normalised and
// rotated in place, keys on their way into the cache, values go there as they are; and ROPE as an op of its
// own.
//
// A warp has a few heads of one row, so that many loads are under way.  A block computes the angles of its
// row once.
//
// Rows of padding (sequence -1) and positions that the cache does not have write nothing.
#include "../device/rope.cuh"
#include <cassert>
#include <climits>

namespace {

constexpr int WARPS = 8, THREADS = WARPS * 32;

struct Counts { // heads of the rows that are given; they are counted through in this order
    int q, k, v;
};

// grid (T, heads / heads of a block)
template <KvType KV, int HD>
__global__ void __launch_bounds__(THREADS)
    k_rope_kvput(const __grid_constant__ Attention a, const __grid_constant__ Counts n) {
    constexpr int PAIRS = HeadRow<HD>::PAIRS, HEADS = PAIRS <= 2 ? 4 : PAIRS <= 4 ? 2 : 1; // of a warp
    __shared__ __align__(16) HeadTables<HD> tables;
    pdl_wait();
    pdl_launch(); // not before: blocks of the next kernel would take the SMs that this one needs
    int t = blockIdx.x, first = (blockIdx.y * WARPS + threadIdx.x / 32) * HEADS, n_heads = n.q + n.k + n.v;
    int seq = __ldcg(a.seq + t), position = __ldcg(a.position + t);
    HeadRow<HD> row[HEADS];
#pragma unroll
    for (int i = 0; i < HEADS; i++) {
        int head = first + i;
        if (head < n.q)
            row[i].load(head_of(a.q, t, head, a.k_dim), a.k_dim);
        else if (head < n.q + n.k)
            row[i].load(head_of(a.k, t, head - n.q, a.k_dim), a.k_dim);
        else if (head < n_heads)
            row[i].load(head_of(a.v, t, head - n.q - n.k, a.v_dim), a.v_dim);
    }
    tables.fill(a, position);
    __syncthreads();
    if (seq < 0 || position < 0 || position >= a.n_ctx) return;
    int32_t page = n.k ? __ldcg(cache_pages(&a.cache, seq) + position / CACHE_PAGE) : 0;
#pragma unroll
    for (int i = 0; i < HEADS; i++) {
        int head = first + i;
        if (head >= n_heads) break;
        bool is_q = head < n.q, is_v = head >= n.q + n.k;
        if (is_v) {
            row[i].normalise(a.v_norm, a.v_norm.weight, a.v_dim);
        } else {
            row[i].normalise(is_q ? a.q_norm : a.k_norm, is_q ? tables.q_weight : tables.k_weight, a.k_dim);
            row[i].rotate_pairs(a.rotation, tables.rotation);
        }
        int dim = is_v ? a.v_dim : a.k_dim, kv_head = head - n.q - (is_v ? n.k : 0);
        KvRows rows = {};
        if (!is_q) rows = cache_rows(&a.cache, page, is_v ? CACHE_V : CACHE_K, kv_head);
#pragma unroll
        for (int k = 0; k < PAIRS; k++) {
            int column = row[i].column_of(k);
            if (column >= dim) break;
            if (is_q)
                *(float2 *)(head_of(a.q, t, head, dim) + column) = row[i].x[k];
            else
                put_pair<KV>(rows, dim, position, column, row[i].x[k]);
        }
    }
}

template <KvType KV, int HD> cudaError_t launch_padded(const Launch *l, const Attention &a, Counts n) {
    constexpr int PAIRS = HeadRow<HD>::PAIRS, HEADS = WARPS * (PAIRS <= 2 ? 4 : PAIRS <= 4 ? 2 : 1);
    dim3 grid((unsigned)a.T, (unsigned)(n.q + n.k + n.v + HEADS - 1) / HEADS);
    return launch_kernel(l, k_rope_kvput<KV, HD>, grid, dim3(THREADS), 0, a, n);
}

template <KvType KV> cudaError_t launch_type(const Launch *l, const Attention &a, Counts n) {
    int dim = a.k_dim > a.v_dim ? a.k_dim : a.v_dim;
    if (dim <= 64) return launch_padded<KV, 64>(l, a, n);
    if (dim <= 128) return launch_padded<KV, 128>(l, a, n);
    if (dim <= 256) return launch_padded<KV, 256>(l, a, n);
    return launch_padded<KV, 576>(l, a, n);
}

// ---- ROPE -----------------------------------------------------------------------------------------------

// A thread rotates one pair of dimensions of one head; the row is blockIdx.x.
__global__ void __launch_bounds__(THREADS)
    k_rope(RegRows x, int n_head, int head_dim, const __grid_constant__ Rotation r, const int32_t *position) {
    pdl_wait();
    pdl_launch();
    int t = blockIdx.x, half = r.n_rot / 2, i = blockIdx.y * THREADS + threadIdx.x;
    if (i >= n_head * half) return;
    int pair = i % half, step = r.pairing == ROPE_HALVES ? half : 1;
    float *a = head_of(x, t, i / half, head_dim) + r.first + (r.pairing == ROPE_HALVES ? pair : 2 * pair);
    float2 both =
        rotate(make_float2(__ldcg(a), __ldcg(a + step)), rotation_of(r, __ldcg(position + t), pair));
    a[0] = both.x;
    a[step] = both.y;
}

} // namespace

extern "C" cudaError_t launch_rope_kvput(const Launch *l, const Attn *attn) {
    Attention a = attention_of(attn);
    const Rotation &r = a.rotation;
    bool changes_q = a.q.data && (a.q_norm.weight || r.n_rot > 0);
    Counts n = {changes_q ? a.n_head : 0, a.k.data ? a.n_kv_head : 0, a.v.data ? a.n_kv_head : 0};
    assert(r.first % 2 == 0 && r.n_rot % 2 == 0 && r.first + r.n_rot <= a.k_dim && a.T > 0);
    assert(r.pairing == ROPE_ADJACENT || r.n_rot % 4 == 0);
    if (!heads_fit(a)) return cudaErrorInvalidValue;
    if (n.q + n.k + n.v == 0) return cudaSuccess;
    switch (a.cache.layer.type) {
    case KV_F16:
        return launch_type<KV_F16>(l, a, n);
    case KV_Q8_0:
        return launch_type<KV_Q8_0>(l, a, n);
    case KV_FP8:
        return launch_type<KV_FP8>(l, a, n);
    default:
        return launch_type<KV_F32>(l, a, n);
    }
}

extern "C" cudaError_t launch_rope(const Launch *l, RegRows x, int n_head, int head_dim,
                                   const Rotation *rotation, const int32_t *position, int T) {
    int n = n_head * (rotation->n_rot / 2);
    if (n <= 0 || rotation->first + rotation->n_rot > head_dim) return cudaErrorInvalidValue;
    return launch_kernel(l, k_rope, dim3((unsigned)T, (unsigned)(n + THREADS - 1) / THREADS), dim3(THREADS),
                         0, x, n_head, head_dim, *rotation, position);
}
