// product: weights times few activations, the kernel in which decoding spends its time.
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
// One input row goes through up to MAX_PRODUCTS fused products in one kernel: their outputs become inputs
// through FlaggedOutputs (launch.h), and prefetching continues across products.  Several rows are normalised
// and quantised by a kernel of their own first.  Where so many of them do not fit into the shared memory of
// one block, the blocks of a cluster share a tile row: each has some of its K-slices and that range of the
// inputs, and each reduces some of the outputs, reading the partial sums of all.
//
// Experts: a single row goes through the matrices of all its experts, slot after slot.  Several rows are
// grouped by expert (experts.cuh); all groups' tile rows are divided evenly among the blocks, and a block
// that gets tile rows of several groups loads one group's input rows after the other, while its rings run on.
#include <algorithm>

#include "../device/cluster.cuh"
#include "../device/epilogue.cuh"
#include "../device/product.cuh"

namespace {

// Normalises and quantises one of n input rows per block, so that the blocks of the product need not do it
// each; where each slot has an input of its own, slot after slot.  One block more sorts the rows by expert.
__global__ void __launch_bounds__(THREADS) k_inputs(const __grid_constant__ Product p, Input x, uint8_t *to,
                                                    int n, const __grid_constant__ PairSort sort) {
    float4 norm[VECTORS];
    load_norm(p, norm);
    pdl_wait();
    pdl_launch();
    int t = blockIdx.x, n_in = p.segment[0].w.n_in, n_slots = p.per_slot ? p.n_used : 1, row = t / n_slots;
    if (t == n) return sort_pairs(sort, threadIdx.x, THREADS);
    load_row(p, x, 0, {row_of(p.in, row) + (t - row * n_slots) * n_in, n_in, false, 0}, norm);
    __syncthreads();
    to += (size_t)t * x.stride;
    for (int i = threadIdx.x * 16; i < x.stride; i += THREADS * 16)
        *(uint4 *)(to + i) = *(const uint4 *)(shared_memory() + x.at + i);
}

// ---- a warp's work --------------------------------------------------------------------------------------

// A block's cluster and its rank there.  For one input row each block is a cluster, known at compile time.
template <int T> struct BlockIndex : Cluster {};
template <> struct BlockIndex<1> {
    static constexpr int rank = 0;
    int index = blockIdx.x, count = gridDim.x;
};

// Where rows are grouped by expert, the tile rows that a block multiplies with one group.
struct GroupTileRows {
    int first, n, expert;
};

// A cluster's way through its tile rows, numbered k = 0, 1, ...: every count-th of the product, where tile
// rows count through matrix after matrix: the segments, or where ROUTED the matrices of the row's experts.
// Where several rows are ROUTED, consecutive tile rows of an expert.
template <int T, bool ROUTED> struct TileRowCursor {
    static constexpr bool GROUPED = T > 1 && ROUTED;
    int k, matrix, row; // matrix: where GROUPED the expert; row: tile row of the matrix

    __device__ int matrix_rows(const Product &p) const { // tile rows of the matrix
        return p.segment[ROUTED ? 0 : matrix].w.layout.n_tile_rows;
    }
    __device__ void advance(const Product &p, int n) {
        k += n;
        row += GROUPED ? n : n * BlockIndex<T>().count;
        if (!GROUPED && (!is_pair(p) || ROUTED))
            for (int n_rows;
                 row >= (n_rows = matrix_rows(p)) && matrix + 1 < (ROUTED ? p.n_used : p.n_segments);
                 matrix++)
                row -= n_rows;
    }
    __device__ int segment(const Product &p) const { // of a pair the first
        return ROUTED ? 0 : matrix;
    }
    __device__ size_t expert(const Product &p) const {
        return !ROUTED ? 0 : !GROUPED && p.ids ? (size_t)__ldcg(p.ids + matrix) : (size_t)matrix;
    }
};

// The work of a warp: K-slice `slice` of its block's, in every n_groups-th tile row of the cluster from
// number `group` on.  A warp without work has slice -1.
template <int T> struct WarpWork {
    const Product &p;
    const WorkSplit &split;
    Input x;
    int partials_at; // bytes: float [group][tile row][gate, up][K-slice][T][PARTIAL_STRIDE], in shared memory
    int n_tile_rows; // of the cluster
    int slice, group;
    GroupTileRows grouped;

    __device__ WarpWork(const Product &p_, const WorkSplit &split_, GroupTileRows grouped_ = {})
        : p(p_), split(split_), n_tile_rows(grouped_.n), grouped(grouped_) {
        int warp = threadIdx.x / 32;
        if (n_tile_rows == 0)
            n_tile_rows = split.cluster_tile_rows + (BlockIndex<T>().index < split.n_longer);
        group = warp * split.slice_inverse >> 16;
        slice = warp - group * split.block_slices;
        if (group >= split.n_groups || first_slice() + slice >= split.n_slices) {
            group = n_tile_rows;
            slice = -1;
        }
    }
    __device__ int first_slice() const { return BlockIndex<T>().rank * split.block_slices; } // of the block
    __device__ int list_length() const { // K-slices that the warp multiplies, of a pair both
        int n = (max(n_tile_rows - group, 0) + split.n_groups - 1) * split.group_inverse >> 16;
        return is_pair(p) ? 2 * n : n;
    }

    __device__ float *partials() const { return (float *)(shared_memory() + partials_at); }
    __device__ int partial_index(int tile_row) const { // of a tile row of the batch: a group's are contiguous
        int in_group = tile_row * split.group_inverse >> 16;
        return (tile_row - in_group * split.n_groups) * split.group_batch + in_group;
    }
    __device__ int matrix_step() const { // floats from the partial sums of one matrix to those of the next
        return split.block_slices * T * PARTIAL_STRIDE<T>;
    }
    __device__ int slice_begin(int segment, int number) const { // in tiles
        return number * split.slice_tiles[segment] + min(number, split.n_longer_slices[segment]);
    }
    __device__ int first_tile(int segment) const { return slice_begin(segment, first_slice() + slice); }
    __device__ int n_tiles(int segment) const {
        return split.slice_tiles[segment] + (first_slice() + slice < split.n_longer_slices[segment]);
    }
    // Where the block's range of the input begins: in tiles, which are as wide in all segments, and in bytes.
    __device__ int input_begin() const { return BlockIndex<T>().rank ? slice_begin(0, first_slice()) : 0; }
    __device__ int input_begin_bytes() const {
        return input_begin() *
               (split.n_tiles ? (int)sizeof(TileInput) : p.segment[0].w.layout.tile_weights * 4);
    }
};

template <int T, bool ROUTED> __device__ TileRowCursor<T, ROUTED> cursor_at(const WarpWork<T> &work, int k) {
    TileRowCursor<T, ROUTED> cursor = {0, 0, BlockIndex<T>().index};
    if (cursor.GROUPED) cursor = {0, work.grouped.expert, work.grouped.first};
    cursor.advance(work.p, k);
    return cursor;
}

// A block's share of all groups' tile rows: consecutive ones, cut into pieces of one group each.
struct GroupShare {
    const FusedProducts &fused;
    int matrix_rows, first_group, begin, n; // begin: of the first group's tile rows

    __device__ explicit GroupShare(const FusedProducts &fused_) : fused(fused_) {
        matrix_rows = fused.p[0].segment[0].w.layout.n_tile_rows;
        unsigned all = (unsigned)(__ldcg(fused.groups.n_groups) * matrix_rows), share = all / gridDim.x,
                 n_longer = all % gridDim.x, first = blockIdx.x * share + min(blockIdx.x, n_longer);
        n = (int)(share + (blockIdx.x < n_longer));
        first_group = (int)first / matrix_rows;
        begin = (int)first - first_group * matrix_rows;
    }
    __device__ int n_pieces() const { return n ? (begin + n - 1) / matrix_rows + 1 : 0; }
    __device__ ExpertGroup group(int piece) const { return fused.groups.at(first_group + piece); }
    __device__ GroupTileRows tile_rows(int piece, const ExpertGroup &of) const {
        int first = piece ? 0 : begin, end = min(begin + n - piece * matrix_rows, matrix_rows);
        return {first, end - first, of.expert};
    }
    template <int T> __device__ WarpWork<T> work(int piece) const {
        return WarpWork<T>(fused.p[0], fused.split[0], tile_rows(piece, group(piece)));
    }
};

// The fetches of a warp's ring, through all fused products.  The list has LIST_ENTRIES K-slices, one in each
// lane, which also starts the fetches of its tiles: addresses are computed ahead, because among the
// instructions of a tile they would cost time.  A longer list is filled again between tile batches.
template <int T, bool ROUTED> struct PrefetchList {
    const uint8_t *at; // the next tile of this lane's K-slice
    int bytes, tiles;  // of a tile, 0 beyond the last K-slice; of the K-slice
    unsigned slice;    // of the next fetch, counted through all products; the same in all lanes
    int tile;

    // From `slice` on, through the works number 0..n_works - 1 of this warp.
    template <class WorkAt> __device__ void fill(int n_works, WorkAt work_at) {
        unsigned ahead = (threadIdx.x - slice) % LIST_ENTRIES;
        if (ahead == 0 && tile) return; // part of this K-slice has been fetched
        int number = (int)(slice + ahead);
        bytes = 0;
        tiles = 0x7fffffff;
        for (int i = 0; i < n_works; i++) {
            WarpWork<T> work = work_at(i);
            int n = work.list_length();
            if (number < n) return enter(work, number);
            number -= n;
        }
    }
    __device__ void fill(const FusedProducts &fused) {
        fill(fused.n, [&](int i) { return WarpWork<T>(fused.p[i], fused.split[i]); });
    }
    __device__ void fill(const GroupShare &share) {
        fill(share.n_pieces(), [&](int i) { return share.work<T>(i); });
    }
    __device__ void enter(const WarpWork<T> &work, int number) {
        const Product &p = work.p;
        TileRowCursor<T, ROUTED> cursor =
            cursor_at<T, ROUTED>(work, work.group + (number >> is_pair(p)) * work.split.n_groups);
        int segment = cursor.segment(p) + (number & is_pair(p));
        const DeviceWeight &w = p.segment[segment].w;
        bytes = w.layout.tile_bytes;
        tiles = work.n_tiles(segment);
        size_t row = cursor.expert(p) * w.layout.n_tile_rows + cursor.row;
        at = w.data + (row * w.layout.n_tiles + work.first_tile(segment)) * bytes;
    }
    __device__ void fetch(Ring &ring, int stage) {
        bool last = ++tile == __shfl_sync(0xffffffffu, tiles, slice % LIST_ENTRIES);
        ring.fetch(stage, slice % LIST_ENTRIES, at, bytes);
        if (last) {
            tile = 0;
            slice++;
        }
    }
};

// n K-slices of the matrices from `segment` on, which are of one type: the partial sums of their 16 rows for
// each of the T input rows, from input_row on, to `partial`, one matrix_step behind the other.
template <QuantType F, int T, bool ROUTED>
__device__ __forceinline__ void multiply_slices(const WarpWork<T> &work, Ring &ring,
                                                PrefetchList<T, ROUTED> &list, int segment, int input_row,
                                                float *partial, int n) {
    int first = work.first_tile(segment) - work.input_begin(), end = first + work.n_tiles(segment);
    for (; n; n--, partial += work.matrix_step()) {
        Accumulators<F, T> sums;
        for (int i = first; i < end; i++) {
            const uint8_t *tile = ring.wait();
            if constexpr (Format<F>::FLOAT)
                multiply_floats<F, T>(tile, i, work.x, input_row, ring.lane, sums);
            else if constexpr (T == 1)
                multiply_blocks<F>(tile, i, work.x, input_row, ring.lane, sums);
            else
                multiply_blocks<F, T>(tile, i, work.x, ring.lane, sums);
            list.fetch(ring, ring.stage);
            ring.advance();
        }
        sums.store(partial, ring.lane);
    }
}

// The types of weights that a kernel is compiled for.  Code for other types would cost registers and
// instruction cache.
template <QuantType... INCLUDED> struct Types {
    static __host__ __device__ constexpr bool include(QuantType type) { return ((type == INCLUDED) || ...); }
};
struct AllTypes {
    static __host__ __device__ constexpr bool include(QuantType) { return true; }
};

// The warp's tile rows of the batch that begins at number `batch` of the cluster's, from the cursor on.
template <int T, class Included, bool ROUTED>
__device__ __forceinline__ void multiply_batch(const WarpWork<T> &work, Ring &ring,
                                               PrefetchList<T, ROUTED> &list,
                                               TileRowCursor<T, ROUTED> &cursor, int batch) {
    const Product &p = work.p;
    int end = min(batch + work.split.batch, work.n_tile_rows), matrices = is_pair(p) ? 2 : 1;
    bool same_type = !is_pair(p) || p.segment[0].w.type == p.segment[1].w.type;
    while (cursor.k < end) {
        TileRowCursor<T, ROUTED> from = cursor;
        int count = 0; // tile rows of one matrix
        do {
            cursor.advance(p, work.split.n_groups);
            count++;
        } while (cursor.k < end && cursor.matrix == from.matrix && same_type);
        for (int matrix = 0; matrix < matrices; matrix += same_type ? matrices : 1) {
            int segment = from.segment(p) + matrix,
                input_row = T == 1 && ROUTED && p.per_slot ? from.matrix : 0;
            float *partial = work.partials() +
                             (work.partial_index(from.k - batch) * matrices + matrix) * work.matrix_step() +
                             work.slice * T * PARTIAL_STRIDE<T>;
            int n = same_type ? count * matrices : count;
            switch (p.segment[segment].w.type) {
#define MULTIPLY(type, ...)                                                                                  \
    case QUANT_##type:                                                                                       \
        if constexpr (Included::include(QUANT_##type))                                                       \
            multiply_slices<QUANT_##type, T>(work, ring, list, segment, input_row, partial, n);              \
        break;
#define NOTHING(...)
                QUANT_TYPES(MULTIPLY, MULTIPLY, NOTHING)
#undef MULTIPLY
#undef NOTHING
            default:
                break;
            }
        }
    }
}

// ---- reduction and epilogue -----------------------------------------------------------------------------

// The sum of n K-slices' partial sums of one output, from the first on.
__device__ __forceinline__ float reduce(const float *partial, int n_slices) {
    constexpr int STEP = PARTIAL_STRIDE<1>;
    float x[MAX_SLICES], sum = 0;
#pragma unroll
    for (int i = 0; i < MAX_SLICES; i++) x[i] = i < n_slices ? partial[i * STEP] : 0; // loads overlap
#pragma unroll
    for (int i = 0; i < MAX_SLICES; i++) sum += x[i];
    return sum;
}

// Of one input row: a thread's output of a tile batch.
template <bool ROUTED> struct Epilogue {
    int matrix, row; // row of the matrix, or -1 for threads without an output
    float residual;

    __device__ Epilogue(const WarpWork<1> &work, int batch) : matrix(0), row(-1), residual(0) {
        const Product &p = work.p;
        int tile_row = threadIdx.x / TILE_ROWS;
        if (tile_row >= work.split.batch || batch + tile_row >= work.n_tile_rows) return;
        TileRowCursor<1, ROUTED> cursor = cursor_at<1, ROUTED>(work, batch + tile_row);
        int to = cursor.row * TILE_ROWS + threadIdx.x % TILE_ROWS;
        if (to >= p.segment[cursor.segment(p)].w.n_out) return;
        matrix = cursor.matrix;
        row = to;
    }
    // A residual that this kernel wrote was written by this block: in products of as many outputs a row
    // belongs to the same block.
    __device__ void load_residual(const WarpWork<1> &work) {
        const RegRows &from = work.p.residual;
        if (!ROUTED && row >= 0 && from.data && matrix == 0) residual = __ldcg(row_of(from, 0) + row);
    }
    // flagged: whether another product follows in this kernel; its flags are then those of the epoch.
    __device__ void store(const WarpWork<1> &work, bool flagged, uint32_t epoch) const {
        if (row < 0) return;
        const Product &p = work.p;
        const ProductSegment &s = p.segment[ROUTED ? 0 : matrix];
        const float *partial =
            work.partials() +
            work.partial_index(threadIdx.x / TILE_ROWS) * (is_pair(p) ? 2 : 1) * work.matrix_step() +
            threadIdx.x % TILE_ROWS;
        size_t w_row = TileRowCursor<1, ROUTED>{0, matrix, 0}.expert(p) * s.w.n_out + row;
        float sum = reduce(partial, work.split.block_slices),
              up = is_pair(p) ? reduce(partial + work.matrix_step(), work.split.block_slices) : 0,
              y = epilogue(p, s, w_row, sum, up, residual);
        if (flagged && matrix == 0) // the first output is the next product's input
            asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(p.flagged->row + row),
                         "r"((__float_as_uint(y) & ~1u) | epoch)
                         : "memory");
        s.out[(ROUTED ? (size_t)matrix * s.w.n_out : 0) + row] = y;
    }
};

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
template <int T, bool ROUTED, class OutOf>
__device__ __forceinline__ void store_batch(const WarpWork<T> &work, int batch, int n_rows, OutOf out_of) {
    const Product &p = work.p;
    BlockIndex<T> block;
    int warp = threadIdx.x / 32 * block.size + block.rank;
    for (int i = warp * 32 + threadIdx.x % 32; i < work.split.batch * T * TILE_ROWS / 4;
         i += block.size * threads_for(T)) {
        int tile_row = i / (T * TILE_ROWS / 4), t = i / (TILE_ROWS / 4) % T, first = i % (TILE_ROWS / 4) * 4;
        if (batch + tile_row >= work.n_tile_rows || t >= n_rows) continue;
        TileRowCursor<T, ROUTED> cursor = cursor_at<T, ROUTED>(work, batch + tile_row);
        const ProductSegment &s = p.segment[cursor.segment(p)];
        int row = cursor.row * TILE_ROWS + first, n = min(s.w.n_out - row, 4);
        size_t w_row = cursor.expert(p) * s.w.n_out + row;
        const float *partial = work.partials() +
                               work.partial_index(tile_row) * (is_pair(p) ? 2 : 1) * work.matrix_step() +
                               t * PARTIAL_STRIDE<T> + first;
        bool adds = !ROUTED && p.residual.data && cursor.matrix == 0;
        float4 residual = make_float4(0, 0, 0, 0);
        if (adds && n > 0) residual = __ldcg((const float4 *)(row_of(p.residual, t) + row));
        float sum[4], up[4] = {};
        reduce<T>(work.split, partial, sum);
        if (is_pair(p)) reduce<T>(work.split, partial + work.matrix_step(), up);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if (k >= n) break;
            out_of(s, t)[row + k] = epilogue(p, s, w_row + k, sum[k], up[k], (&residual.x)[k]);
        }
    }
}

// ---- kernels --------------------------------------------------------------------------------------------

// Byte offsets in shared memory: the warps' rings, the copies of the partial sums, the input.
template <int T> struct SharedLayout {
    int ring_bytes, partials, input;

    __device__ SharedLayout(const FusedProducts &fused)
        : ring_bytes(Ring::bytes(fused.slot_bytes, fused.n_stages)), partials(warps_for(T) * ring_bytes),
          input(partials + partial_copies(T) * fused.partial_bytes) {}
};

// One input row.
template <class Included, bool ROUTED>
__global__ void __launch_bounds__(threads_for(1) + ATTN_THREADS, 1)
    k_products(const __grid_constant__ FusedProducts fused) {
    SharedLayout<1> shared(fused);
    int partials = shared.partials;
    if (ROUTED) { // the kernel before decides which weights to fetch
        pdl_wait();
        pdl_launch();
    }
    Ring ring(threadIdx.x / 32 * shared.ring_bytes, fused.slot_bytes, fused.n_stages);
    PrefetchList<1, ROUTED> list = {};
    list.fill(fused);
    for (int i = 0; i < fused.n_stages; i++) list.fetch(ring, i);
    __shared__ uint32_t epochs[MAX_PRODUCTS];
    if ((int)threadIdx.x < fused.n - 1) {
        uint32_t *epoch = fused.p[threadIdx.x].flagged->epoch + blockIdx.x;
        epochs[threadIdx.x] = *epoch = __ldcg(epoch) + 1;
    }
    for (int number = 0; number < fused.n; number++) {
        const Product &p = fused.p[number];
        WarpWork<1> work(p, fused.split[number]);
        work.partials_at = partials;
        work.x = input_at(shared.input, work.split.n_floats, work.split.n_tiles, 1);
        TileRowCursor<1, ROUTED> cursor = cursor_at<1, ROUTED>(work, work.group);
        Epilogue<ROUTED> out(work, 0);
        float4 norm[VECTORS];
        load_norm(p, norm);
        if (number == 0 && !ROUTED) {
            pdl_wait();
            pdl_launch();
        }
        int n_in = p.segment[0].w.n_in, n_slots = ROUTED && p.per_slot ? p.n_used : 1;
        InputRow row = {row_of(p.in, 0), n_in, number > 0, 0};
        if (row.flagged) {
            row.in = (const float *)fused.p[number - 1].flagged->row;
            row.epoch = epochs[number - 1] & 1;
            row.wait();
        }
        for (int i = 0; i < n_slots; i++, row.in += n_in) load_row(p, work.x, i, row, norm);
        int batch = 0;
        do { // once even by a block without tile rows: the barriers are for all threads
            partials = shared.partials + shared.input - fused.partial_bytes - partials; // the other copy
            work.partials_at = partials;
            if (batch) out = Epilogue<ROUTED>(work, batch);
            out.load_residual(work);
            if (fused.long_list) list.fill(fused);
            if (batch == 0) __syncthreads(); // the input is complete
            multiply_batch<1, Included, ROUTED>(work, ring, list, cursor, batch);
            __syncthreads(); // these partial sums are complete, and the others have been reduced
            out.store(work, number + 1 < fused.n, epochs[number] & 1);
        } while ((batch += work.split.batch) < work.n_tile_rows);
    }
}

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
    k_product_of_rows(const __grid_constant__ FusedProducts fused) {
    SharedLayout<T> shared(fused);
    Ring ring(threadIdx.x / 32 * shared.ring_bytes, fused.slot_bytes, fused.n_stages);
    PrefetchList<T, false> list = {};
    list.fill(fused);
    for (int i = 0; i < fused.n_stages; i++) list.fetch(ring, i);
    const Product &p = fused.p[0];
    WarpWork<T> work(p, fused.split[0]);
    work.partials_at = shared.partials;
    work.x = input_at(shared.input, work.split.n_floats, work.split.n_tiles, T);
    TileRowCursor<T, false> cursor = cursor_at<T, false>(work, work.group);
    RowLoader loader;
    pdl_wait();
    pdl_launch();
    int from = work.input_begin_bytes();
    loader.load(work.x, min(work.x.stride, fused.input_stride - from), fused.n_rows,
                [&](int t) { return fused.inputs + (size_t)t * fused.input_stride + from; });
    auto out_of = [](const ProductSegment &s, int t) { return s.out + (size_t)t * s.out_stride; };
    for (int batch = 0; batch < work.n_tile_rows; batch += work.split.batch) {
        if (fused.long_list) list.fill(fused);
        multiply_batch<T, Included, false>(work, ring, list, cursor, batch);
        Cluster::barrier(fused.cluster_size, SHARED_WRITES_VISIBLE); // the partial sums are complete
        store_batch<T, false>(work, batch, fused.n_rows, out_of);
        Cluster::barrier(fused.cluster_size, SHARED_READS_DONE); // and have been reduced
    }
}

// Several input rows through the matrices of their experts, group after group.
template <int T, class Included>
__global__ void __launch_bounds__(threads_for(T), 1)
    k_product_of_groups(const __grid_constant__ FusedProducts fused) {
    __shared__ int in_at[T], out_at[T]; // rows of fused.inputs; floats from the output's beginning
    SharedLayout<T> shared(fused);
    RowLoader loader;
    Ring ring(threadIdx.x / 32 * shared.ring_bytes, fused.slot_bytes, fused.n_stages);
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
        WarpWork<T> work(p, fused.split[0], share.tile_rows(piece, group));
        work.partials_at = shared.partials;
        work.x = input_at(shared.input, work.split.n_floats, work.split.n_tiles, fused.group_rows);
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

template <class Included> bool includes(const FusedProducts &fused) {
    for (int i = 0; i < fused.n; i++)
        for (int s = 0; s < fused.p[i].n_segments; s++)
            if (!Included::include(fused.p[i].segment[s].w.type)) return false;
    return true;
}

// Launches the first of the kernels that includes the products' types.
template <int T, class Included, class... Others>
cudaError_t launch_types(const Launch *l, const FusedProducts &fused, const LaunchPlan &plan) {
    if constexpr (sizeof...(Others) > 0)
        if (!includes<Included>(fused)) return launch_types<T, Others...>(l, fused, plan);
    if constexpr (T == MAX_GROUP_ROWS)
        if (fused.group_rows)
            return launch_kernel(l, k_product_of_groups<T, Included>, plan.n_clusters, threads_for(T),
                                 plan.shared_bytes, fused);
    if constexpr (T > 1)
        return launch_clusters(l, k_product_of_rows<T, Included>, fused.cluster_size,
                               plan.n_clusters * fused.cluster_size, threads_for(T), plan.shared_bytes,
                               fused);
    else if (fused.p[0].n_used)
        return launch_kernel(l, k_products<Included, true>, plan.n_clusters, threads_for(T),
                             plan.shared_bytes, fused);
    else
        return launch_kernel(l, k_products<Included, false>, plan.n_clusters, threads_for(T),
                             plan.shared_bytes, fused);
}

// The combinations of types that most model files have; for a single row with F32, the type of routers, which
// are fused with the product before them.
template <int T, QuantType... INCLUDED>
using Mix = std::conditional_t<T == 1, Types<INCLUDED..., QUANT_F32>, Types<INCLUDED...>>;

template <int T>
cudaError_t launch_rows(const Launch *l, const FusedProducts &fused, const LaunchPlan &plan) {
    return launch_types<T, Mix<T, QUANT_Q4_K, QUANT_Q6_K>, Mix<T, QUANT_Q5_K, QUANT_Q6_K>, Mix<T, QUANT_Q4_0>,
                        Mix<T, QUANT_Q8_0>, Mix<T, QUANT_MXFP4>,
                        Types<QUANT_F32, QUANT_F16, QUANT_BF16, QUANT_FP8_E4M3>, AllTypes>(l, fused, plan);
}

cudaError_t launch_planned(const Launch *l, const FusedProducts &fused, const LaunchPlan &plan) {
    switch (plan.n_rows) {
    case 1:
        return launch_rows<1>(l, fused, plan);
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

cudaError_t check(const Product *p) {
    if (p->norm && p->segment[0].w.n_in > LOADED) // the plan has an op of its own to normalise such rows
        return cudaErrorInvalidValue;
    if (p->n_used && (p->residual.data || (p->norm && p->per_slot) || (p->n_segments > 1 && !is_pair(*p)) ||
                      p->segment[0].w.n_expert > MAX_EXPERTS))
        return cudaErrorInvalidValue;
    return cudaSuccess;
}

// Whether b can read the output of a in one kernel, as a FlaggedOutput.
bool can_fuse(const Launch *l, const Product &a, const Product &b) {
    int n = a.segment[0].w.n_out;
    return a.flagged && l->n_sm <= MAX_FLAGGED_BLOCKS && a.segment[0].out == b.in.data &&
           b.segment[0].w.n_in == n && n % 4 == 0 && !a.n_used && !b.n_used;
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
    if (p.residual.data) p.residual = rows_from(p.residual, first);
    if (p.ids) p.ids += (size_t)first * p.ids_stride;
    for (int i = 0; i < p.n_segments; i++) p.segment[i].out += (size_t)first * p.segment[i].out_stride;
    return p;
}

extern "C" cudaError_t launch_products(const Launch *l, const Product *products, int n, int T,
                                       void *scratch) {
    if (n < 1 || n > MAX_PRODUCTS) return cudaErrorInvalidValue;
    FusedProducts fused = {.n = n};
    bool one_kernel = n == 1 || T == 1;
    for (int i = 0; i < n; i++) {
        fused.p[i] = products[i];
        cudaError_t error = check(&products[i]);
        if (error != cudaSuccess) return error;
        if (i) one_kernel &= can_fuse(l, products[i - 1], products[i]);
    }
    LaunchPlan plan;
    bool fits = plan_launch(l, &fused, T, &plan);
    if (n > 1 && !(fits && one_kernel)) {
        for (int i = 0; i < n; i++) {
            cudaError_t error = launch_products(l, products + i, 1, T, scratch);
            if (error != cudaSuccess) return error;
        }
        return cudaSuccess;
    }
    if (!fits) return cudaErrorInvalidValue;
    int stride = fused.input_stride = plan.row.stride;
    if (fused.group_rows) return launch_groups(l, fused, plan, T, (uint8_t *)scratch);
    for (int done = 0; done < T; done += plan.n_rows) {
        FusedProducts rows = fused;
        for (int i = 0; i < n; i++) rows.p[i] = product_rows(products[i], done);
        rows.n_rows = std::min(T - done, plan.n_rows);
        int prepared = done % PREPARED_ROWS; // where these rows are among those that k_inputs wrote last
        if (plan.n_rows > 1 && prepared == 0) {
            int n_inputs = std::min(T - done, PREPARED_ROWS);
            cudaError_t error = launch_kernel(l, k_inputs, n_inputs, THREADS, stride, rows.p[0], plan.row,
                                              (uint8_t *)scratch, n_inputs, PairSort{});
            if (error != cudaSuccess) return error;
        }
        rows.inputs = (const uint8_t *)scratch + (size_t)prepared * stride;
        cudaError_t error = launch_planned(l, rows, plan);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
