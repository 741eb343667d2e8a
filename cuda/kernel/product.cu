// product: weights times few activations.
//
//                a tile row (layout.h): 16 outputs, n_in long, cut into K-slices
//               +---------------+---------------+---------------+
//     tile row  |  K-slice 0    |  K-slice 1    |  K-slice 2    |
//        0      |  [] [] [] []  |  [] [] [] []  |  [] [] []     |  warps 0, 1, 2: group 0  \  a tile batch
//        1      |  [] [] [] []  |  [] [] [] []  |  [] [] []     |  warps 3, 4, 5: group 1  /
//        2      |  [] [] [] []  |  [] [] [] []  |  [] [] []     |  group 0                    the next one
//               +-------|-------+-------|-------+-------|-------+
//     a warp:    its ring of prefetched tiles  x  the input in shared memory
//                       |               |               |
//     partial sums   16 x T          16 x T          16 x T        in shared memory
//                       +---------------+---------------+
//     reduction:             in the order of the K-slices          after each tile batch
//                                       |
//     epilogue:     * scale, + bias, act(gate) * up, + residual  ->   out [T][n_out]
//
// One block per SM, of 16 warps or 8.  Block b of n computes the tile rows b, b + n, b + 2n, ... of all
// matrices. Every warp first starts to prefetch its weights (ring.cuh), before it waits for the kernel
// before; then the block brings the input into shared memory (input.cuh); then each warp multiplies the tiles
// of its K-slices as they arrive (tile.cuh).  How the work is split is decided by work_split.cu.
//
// One input row goes through several products in one kernel (fusion.cu).  Several rows are normalised
// and quantised by a kernel of their own first.  Where so many of them do not fit into the shared memory of
// one block, the blocks of a cluster share a tile row: each has some of its K-slices and that range of the
// inputs, and each reduces some of the outputs, reading the partial sums of all.
//
// Experts: a single row goes through the matrices of all its experts, slot after slot; several rows are
// grouped by expert (experts.cuh); all groups' tile rows are divided evenly among the blocks, and a block
// that gets tile rows of several groups loads one group's input rows after the other, while its rings run on.
#include <algorithm>

#include "../device/epilogue.cuh"
#include "../device/multiply.cuh"

namespace {

// Normalises and quantises one of n input rows per block, so that the blocks of the product need not do it
// each; where each slot has an input of its own, slot after slot.  One block more sorts the rows by expert.
__global__ void __launch_bounds__(THREADS) k_inputs(const __grid_constant__ Product p, Input x, uint8_t *to,
                                                    int n, const __grid_constant__ PairSort sort) {
    float4 norm[VECTORS];
    load_norm(p.norm, p.segment[0].w.n_in, norm);
    pdl_wait();
    pdl_launch();
    int t = blockIdx.x, n_in = p.segment[0].w.n_in, n_slots = p.per_slot ? p.n_used : 1, row = t / n_slots;
    if (t == n) return sort_pairs(sort, threadIdx.x, THREADS);
    load_row<false>(p, x, {row_of(p.in, row) + (t - row * n_slots) * n_in, n_in, 1, InputRow::REGISTER, 0},
                    norm);
    __syncthreads();
    to += (size_t)t * x.stride;
    for (int i = threadIdx.x * 16; i < x.stride; i += THREADS * 16)
        *(uint4 *)(to + i) = *(const uint4 *)(shared_memory() + x.at + i);
}

// ---- reduction and epilogue -----------------------------------------------------------------------------

// The sums of four neighbouring outputs over all K-slices, from the first on, in the shared memory of all
// blocks of the cluster.
template <int T>
__device__ __forceinline__ void reduce(const WorkSplit &split, const float *partial, float sum[4]) {
    constexpr int STEP = T * PARTIAL_STRIDE<T>, N = 8; // loads under way at once
    for (int i = 0; i < 4; i++) sum[i] = 0;
    for (int rank = 0, left = split.n_slices; left > 0; rank++, left -= split.block_slices) {
        PeerShared from(partial, rank);
        int n = min(left, split.block_slices);
        for (int base = 0; base < n; base += N) {
            float4 x[N];
#pragma unroll
            for (int i = 0; i < N; i++)
                x[i] = base + i < n ? from.load4((base + i) * STEP) : make_float4(0, 0, 0, 0);
#pragma unroll
            for (int i = 0; i < N; i++) {
                sum[0] += x[i].x;
                sum[1] += x[i].y;
                sum[2] += x[i].z;
                sum[3] += x[i].w;
            }
        }
    }
}

// Of several input rows: the outputs of a tile batch, four at a time, by all threads of the cluster; the
// warps of its blocks alternate.  out_of(s, t): row t of the output of segment s.
template <int T, bool EXPERTS, class OutOf>
__device__ __forceinline__ void store_batch(const WarpWork<T, EXPERTS> &work, int batch, int n_rows,
                                            OutOf out_of) {
    const Product &p = work.p;
    BlockIndex<T> block;
    int warp = threadIdx.x / 32 * block.size + block.rank;
    for (int i = warp * 32 + threadIdx.x % 32; i < work.split.batch * T * TILE_ROWS / 4;
         i += block.size * threads_for(T)) {
        int tile_row = i / (T * TILE_ROWS / 4), t = i / (TILE_ROWS / 4) % T, first = i % (TILE_ROWS / 4) * 4;
        if (batch + tile_row >= work.n_tile_rows || t >= n_rows) continue;
        TileRowCursor<T, EXPERTS> cursor = cursor_at<T, EXPERTS>(work, batch + tile_row);
        const ProductSegment &s = p.segment[cursor.segment(p)];
        int row = cursor.row * TILE_ROWS + first, n = min(s.w.n_out - row, 4);
        size_t w_row = expert_of(work, cursor, 0) * s.w.n_out + row;
        const float *partial = work.partials() +
                               work.partial_index(tile_row) * (is_pair(p) ? 2 : 1) * work.matrix_step() +
                               t * PARTIAL_STRIDE<T> + first;
        bool adds = !EXPERTS && p.residual.data && cursor.matrix == 0;
        float4 residual = make_float4(0, 0, 0, 0);
        if (adds && n > 0) residual = __ldcg((const float4 *)(row_of(p.residual, t) + row));
        float sum[4], up[4] = {};
        reduce<T>(work.split, partial, sum);
        if (is_pair(p)) reduce<T>(work.split, partial + work.matrix_step(), up);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if (k >= n) break;
            float factor = EXPERTS ? 1 : gate_factor(p.gate, t, row + k);
            out_of(s, t)[row + k] = epilogue(p, s, w_row + k, sum[k], up[k], factor, (&residual.x)[k]);
        }
    }
}

// ---- kernels --------------------------------------------------------------------------------------------

// Copies rows of `bytes` from device memory into shared memory, for which the block waits.
class RowLoader {
    int phase = 0;
#if __CUDA_ARCH__ >= 900
    uint32_t barrier;

  public:
    __device__ RowLoader() {
        __shared__ uint64_t arrived;
        barrier = shared_address(&arrived);
        if (threadIdx.x == 0) arrival_init(barrier);
    }
    template <class RowAt>
    __device__ __forceinline__ void load(const Input &x, int bytes, int n_rows, RowAt row_at) {
        uint32_t to = shared_address(shared_memory() + x.at);
        if (threadIdx.x == 0) {
            arrival_expect(barrier, bytes * n_rows);
            for (int t = 0; t < n_rows; t++)
                bulk_copy(to + t * x.stride, row_at(t), bytes, barrier, READ_OFTEN);
        }
        __syncthreads();
        arrival_wait(barrier, phase);
        phase ^= 1;
    }
#else

  public:
    template <class RowAt>
    __device__ __forceinline__ void load(const Input &x, int bytes, int n_rows, RowAt row_at) {
        for (int t = threadIdx.x / 32; t < n_rows; t += blockDim.x / 32)
#pragma unroll 4
            for (int i = threadIdx.x % 32 * 16; i < bytes; i += 32 * 16)
                *(uint4 *)(shared_memory() + x.at + t * x.stride + i) =
                    __ldcg((const uint4 *)(row_at(t) + i));
        __syncthreads();
    }
#endif
};

// Several input rows, as k_inputs wrote them, through one product.
template <int T, class Included>
__global__ void __launch_bounds__(threads_for(T), 1)
    k_product_of_rows(const __grid_constant__ Fused<1> fused) {
    Ring ring(threadIdx.x / 32, fused.slot_bytes, fused.n_stages);
    PrefetchList<T, false> list = {};
    list.fill(fused, 0, 1, nullptr);
    for (int i = 0; i < fused.n_stages; i++) list.fetch(ring, i);
    const Product &p = fused.p[0];
    WarpWork<T, false> work(p, fused.split[0]);
    work.partials_at = fused.partials;
    work.x = input_at(fused.input, work.split.n_floats, work.split.n_tiles, T);
    TileRowCursor<T, false> cursor = cursor_at<T, false>(work, work.group);
    RowLoader loader;
    pdl_wait();
    pdl_launch();
    int from = work.input_begin_bytes();
    loader.load(work.x, min(work.x.stride, fused.input_stride - from), fused.n_rows,
                [&](int t) { return fused.inputs + (size_t)t * fused.input_stride + from; });
    auto out_of = [](const ProductSegment &s, int t) { return s.out + (size_t)t * s.out_stride; };
    for (int batch = 0; batch < work.n_tile_rows; batch += work.split.batch) {
        if (fused.long_list) list.fill(fused, 0, 1, nullptr);
        multiply_batch<T, Included, false>(work, ring, list, cursor, batch);
        Cluster::barrier(fused.cluster_size, SHARED_WRITES_VISIBLE); // the partial sums are complete
        store_batch<T, false>(work, batch, fused.n_rows, out_of);
        Cluster::barrier(fused.cluster_size, SHARED_READS_DONE); // and have been reduced
    }
}

// Several input rows through the matrices of their experts, group after group.
template <int T, class Included>
__global__ void __launch_bounds__(threads_for(T), 1)
    k_product_of_groups(const __grid_constant__ Fused<1> fused) {
    __shared__ int in_at[T], out_at[T]; // rows of fused.inputs; floats from the output's beginning
    RowLoader loader;
    Ring ring(threadIdx.x / 32, fused.slot_bytes, fused.n_stages);
    pdl_wait(); // k_inputs decides which weights to fetch
    pdl_launch();
    GroupShare share(fused);
    PrefetchList<T, true> list = {};
    list.fill(share);
    for (int i = 0; i < fused.n_stages; i++) list.fetch(ring, i);
    const Product &p = fused.p[0];
    auto out_of = [&](const ProductSegment &s, int t) { return s.out + out_at[t]; };
    for (int piece = 0, n_pieces = share.n_pieces(); piece < n_pieces; piece++) {
        ExpertGroup group = share.group(piece);
        WarpWork<T, true> work(p, fused.split[0], share.tile_rows(piece, group));
        work.partials_at = fused.partials;
        work.x = input_at(fused.input, work.split.n_floats, work.split.n_tiles, fused.group_rows);
        if ((int)threadIdx.x < group.n) {
            int pair = __ldcg(fused.groups.pair + group.first + threadIdx.x), row = pair / p.n_used;
            in_at[threadIdx.x] = p.per_slot ? pair : row;
            out_at[threadIdx.x] =
                row * p.segment[0].out_stride + (pair - row * p.n_used) * p.segment[0].w.n_out;
        }
        __syncthreads();
        loader.load(work.x, fused.input_stride, group.n,
                    [&](int t) { return fused.inputs + (size_t)in_at[t] * fused.input_stride; });
        TileRowCursor<T, true> cursor = cursor_at<T, true>(work, work.group);
        for (int batch = 0; batch < work.n_tile_rows; batch += work.split.batch) {
            if (piece || batch) list.fill(share);
            multiply_batch<T, Included, true>(work, ring, list, cursor, batch);
            __syncthreads(); // the partial sums are complete
            store_batch<T, true>(work, batch, group.n, out_of);
            __syncthreads(); // and have been reduced
        }
    }
}

// ---- launchers ------------------------------------------------------------------------------------------

// Launches the first of the kernels that includes the products' types.
template <int T, class Included, class... Others>
cudaError_t launch_types(const Launch *l, const FusedProducts &fused, const LaunchPlan &plan) {
    if constexpr (sizeof...(Others) > 0)
        if (!includes<Included>(fused)) return launch_types<T, Others...>(l, fused, plan);
    if constexpr (T == MAX_GROUP_ROWS)
        if (fused.group_rows)
            return launch_kernel(l, k_product_of_groups<T, Included>, plan.n_clusters, threads_for(T),
                                 plan.shared_bytes, first_products<Fused<1>>(fused));
    return launch_clusters(l, k_product_of_rows<T, Included>, fused.cluster_size,
                           plan.n_clusters * fused.cluster_size, threads_for(T), plan.shared_bytes,
                           first_products<Fused<1>>(fused));
}

// The combinations of types that most model files have.
template <int T>
cudaError_t launch_rows(const Launch *l, const FusedProducts &fused, const LaunchPlan &plan) {
    return launch_types<T, Types<QUANT_Q4_K, QUANT_Q6_K>, Types<QUANT_Q5_K, QUANT_Q6_K>, Types<QUANT_Q4_0>,
                        Types<QUANT_Q8_0>, Types<QUANT_MXFP4>,
                        Types<QUANT_F32, QUANT_F16, QUANT_BF16, QUANT_FP8_E4M3>, AllTypes>(l, fused, plan);
}

cudaError_t launch_planned(const Launch *l, const FusedProducts &fused, const LaunchPlan &plan) {
    switch (plan.n_rows) {
    case 4:
        return launch_rows<4>(l, fused, plan);
    case 8:
        return launch_rows<8>(l, fused, plan);
    case 16:
        return launch_rows<16>(l, fused, plan);
    default:
        return launch_rows<32>(l, fused, plan);
    }
}

// The input rows that k_inputs writes for one row of a product.
int input_slots(const Product *p) {
    return p->per_slot ? p->n_used : 1;
}

// PREPARED_ROWS rows of a product of experts at a time.
cudaError_t launch_groups(const Launch *l, const FusedProducts &fused, const LaunchPlan &plan, int T,
                          uint8_t *scratch) {
    const Product *p = &fused.p[0];
    size_t input_bytes = (size_t)PREPARED_ROWS * input_slots(p) * fused.input_stride;
    cudaError_t error = cudaSuccess;
    for (int done = 0; done < T && error == cudaSuccess; done += PREPARED_ROWS) {
        FusedProducts rows = fused;
        rows.p[0] = product_rows(*p, done);
        int n = std::min(T - done, PREPARED_ROWS), n_inputs = n * input_slots(p);
        PairSort sort = pair_sort(rows.p[0], n, fused.group_rows, scratch + input_bytes);
        rows.inputs = scratch;
        rows.groups = sort.out;
        error = launch_kernel(l, k_inputs, n_inputs + 1, THREADS, fused.input_stride, rows.p[0], plan.row,
                              scratch, n_inputs, sort);
        if (error == cudaSuccess) error = launch_planned(l, rows, plan);
    }
    return error;
}

} // namespace

extern "C" Product product_rows(Product p, int first) {
    p.in = rows_from(p.in, first);
    if (p.gate.rows.data) p.gate.rows = rows_from(p.gate.rows, first);
    if (p.residual.data) p.residual = rows_from(p.residual, first);
    if (p.ids) p.ids += (size_t)first * p.ids_stride;
    for (int i = 0; i < p.n_segments; i++) p.segment[i].out += (size_t)first * p.segment[i].out_stride;
    return p;
}

extern "C" cudaError_t product_check(const Product *p) {
    if (p->norm && p->segment[0].w.n_in > LOADED) // the plan has an op of its own to normalise such rows
        return cudaErrorInvalidValue;
    if (p->n_used && ((p->residual.data && !p->summed) || (p->norm && p->per_slot) ||
                      (p->n_segments > 1 && !is_pair(*p)) || p->segment[0].w.n_expert > MAX_EXPERTS))
        return cudaErrorInvalidValue;
    if (p->gate.rows.data && (p->n_segments > 1 || p->n_used)) return cudaErrorInvalidValue;
    return cudaSuccess;
}

extern "C" cudaError_t launch_products(const Launch *l, const Product *p, int T, void *scratch) {
    FusedProducts fused = {};
    fused.p[0] = *p;
    fused.n = fused.first_expert = 1;
    fused.router = -1;
    LaunchPlan plan;
    cudaError_t error = product_check(p);
    if (error != cudaSuccess) return error;
    if (!plan_launch(l, &fused, T, &plan)) return cudaErrorInvalidValue;
    int stride = fused.input_stride = plan.row.stride;
    if (fused.group_rows) return launch_groups(l, fused, plan, T, (uint8_t *)scratch);
    for (int done = 0; done < T && error == cudaSuccess; done += plan.n_rows) {
        FusedProducts rows = fused;
        rows.p[0] = product_rows(*p, done);
        if (plan.n_rows == 1) {
            Fusion alone = fusion_of(&rows.p[0]);
            error = launch_fusion(l, &alone);
            continue;
        }
        rows.n_rows = std::min(T - done, plan.n_rows);
        int prepared = done % PREPARED_ROWS; // where these rows are among those that k_inputs wrote last
        if (prepared == 0) {
            int n_inputs = std::min(T - done, PREPARED_ROWS);
            error = launch_kernel(l, k_inputs, n_inputs, THREADS, stride, rows.p[0], plan.row,
                                  (uint8_t *)scratch, n_inputs, PairSort{});
        }
        rows.inputs = (const uint8_t *)scratch + (size_t)prepared * stride;
        if (error == cudaSuccess) error = launch_planned(l, rows, plan);
    }
    return error;
}
