// multiply: which tiles of weights a warp multiplies, how it fetches them ahead, and the partial sums that it
// writes.  The words are those of product.cuh; product.cu has a picture.
#pragma once
#include "cluster.cuh"
#include "product.cuh"

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
// rows count through matrix after matrix: the segments, or the matrices of a row's experts; where the slots
// of a row are summed, one matrix.  Where several rows are grouped by EXPERTS, consecutive tile rows of an
// expert.
template <int T, bool EXPERTS> struct TileRowCursor {
    static constexpr bool GROUPED = T > 1 && EXPERTS;
    int k, matrix, row; // matrix: where GROUPED the expert; row: tile row of the matrix

    static __device__ bool has_experts(const Product &p) { return EXPERTS && p.n_used; }
    __device__ int n_matrices(const Product &p) const {
        if (has_experts(p)) return p.summed ? 1 : p.n_used;
        return is_pair(p) ? 1 : p.n_segments;
    }
    __device__ int segment(const Product &p) const { // of a pair the first
        return has_experts(p) ? 0 : matrix;
    }
    __device__ void advance(const Product &p, int n) {
        k += n;
        row += GROUPED ? n : n * BlockIndex<T>().count;
        for (int n_rows; !GROUPED && row >= (n_rows = p.segment[segment(p)].w.layout.n_tile_rows) &&
                         matrix + 1 < n_matrices(p);
             matrix++)
            row -= n_rows;
    }
};

// The work of a warp: K-slice `slice` of its block's, in every n_groups-th tile row of the cluster from
// number `group` on.  A warp without work has slice -1.
template <int T, bool EXPERTS> struct WarpWork {
    const Product &p;
    const WorkSplit &split;
    Input x;
    int partials_at; // bytes: float [group][tile row][gate, up][K-slice][T][PARTIAL_STRIDE], in shared memory
    int n_tile_rows; // of the cluster
    int slice, group;
    int slot; // of the row, where slots are summed
    GroupTileRows grouped;
    const Chosen *chosen;

    __device__ WarpWork(const Product &p_, const WorkSplit &split_, GroupTileRows grouped_ = {},
                        const Chosen *chosen_ = nullptr)
        : p(p_), split(split_), n_tile_rows(grouped_.n), slot(0), grouped(grouped_), chosen(chosen_) {
        int warp = threadIdx.x / 32;
        if (n_tile_rows == 0)
            n_tile_rows = split.cluster_tile_rows + (BlockIndex<T>().index < split.n_longer);
        group = warp * split.slice_inverse >> 16;
        slice = warp - group * split.block_slices;
        if (group >= split.n_groups || first_slice() + slice >= split.n_slices) {
            group = n_tile_rows;
            slice = -1;
        }
        if (T == 1 && EXPERTS && p.summed) slot = max(slice, 0) / split.slot_slices;
    }
    __device__ int slot_slice() const { return slice - slot * split.slot_slices; } // among those of its slot
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
    __device__ int first_tile(int segment) const {
        return slice_begin(segment, first_slice() + slot_slice());
    }
    __device__ int n_tiles(int segment) const {
        return split.slice_tiles[segment] + (first_slice() + slot_slice() < split.n_longer_slices[segment]);
    }
    // Where the block's range of the input begins: in tiles, which are as wide in all segments, and in bytes.
    __device__ int input_begin() const { return BlockIndex<T>().rank ? slice_begin(0, first_slice()) : 0; }
    __device__ int input_begin_bytes() const {
        return input_begin() *
               (split.n_tiles ? (int)sizeof(TileInput) : p.segment[0].w.layout.tile_weights * 4);
    }
};

template <int T, bool EXPERTS>
__device__ TileRowCursor<T, EXPERTS> cursor_at(const WarpWork<T, EXPERTS> &work, int k) {
    TileRowCursor<T, EXPERTS> cursor = {0, 0, BlockIndex<T>().index};
    if (cursor.GROUPED) cursor = {0, work.grouped.expert, work.grouped.first};
    cursor.advance(work.p, k);
    return cursor;
}

// The expert whose matrix a warp, or the slot of a sum, multiplies.
template <int T, bool EXPERTS>
__device__ size_t expert_of(const WarpWork<T, EXPERTS> &work, const TileRowCursor<T, EXPERTS> &cursor,
                            int slot) {
    if (cursor.GROUPED) return cursor.matrix;
    return cursor.has_experts(work.p) ? work.chosen->id[work.p.summed ? slot : cursor.matrix] : 0;
}

// A block's share of all groups' tile rows: consecutive ones, cut into pieces of one group each.
struct GroupShare {
    const Fused<1> &fused;
    int matrix_rows, first_group, begin, n; // begin: of the first group's tile rows

    __device__ explicit GroupShare(const Fused<1> &fused_) : fused(fused_) {
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
    template <int T> __device__ WarpWork<T, true> work(int piece) const {
        return WarpWork<T, true>(fused.p[0], fused.split[0], tile_rows(piece, group(piece)));
    }
};

// The fetches of a warp's ring, through all fused products.  The list has LIST_ENTRIES K-slices, one in each
// lane, which also starts the fetches of its tiles: addresses are computed ahead, because among the
// instructions of a tile they would cost time.  A longer list is filled again between tile batches.
template <int T, bool EXPERTS> struct PrefetchList {
    const uint8_t *at; // the next tile of this lane's K-slice
    int bytes, tiles;  // of a tile, 0 beyond the last K-slice; of the K-slice
    unsigned slice;    // of the next fetch, counted through all products; the same in all lanes
    int tile;

    int n_before; // K-slices of the works before the first that fill goes through; set by resume

    // From `slice` on, through the works number first..end - 1 of this warp; behind them the stream ends.
    template <class WorkAt> __device__ void fill(int first, int end, WorkAt work_at) {
        unsigned ahead = (threadIdx.x - slice) % LIST_ENTRIES;
        if (ahead == 0 && tile) return; // part of this K-slice has been fetched
        int number = (int)(slice + ahead) - n_before;
        bytes = 0;
        tiles = 0x7fffffff;
        for (int i = first; i < end; i++) {
            WarpWork<T, EXPERTS> work = work_at(i);
            int n = work.list_length();
            if (number < n) return enter(work, number);
            number -= n;
        }
    }
    template <class F> __device__ void fill(const F &fused, int first, int end, const Chosen *chosen) {
        fill(first, end, [&](int i) { return WarpWork<T, EXPERTS>(fused.p[i], fused.split[i], {}, chosen); });
    }
    __device__ void fill(const GroupShare &share) {
        fill(0, share.n_pieces(), [&](int i) { return share.work<T>(i); });
    }
    __device__ void enter(const WarpWork<T, EXPERTS> &work, int number) {
        const Product &p = work.p;
        TileRowCursor<T, EXPERTS> cursor =
            cursor_at<T, EXPERTS>(work, work.group + (number >> is_pair(p)) * work.split.n_groups);
        int segment = cursor.segment(p) + (number & is_pair(p));
        const DeviceWeight &w = p.segment[segment].w;
        bytes = w.layout.tile_bytes;
        tiles = work.n_tiles(segment);
        size_t row = expert_of(work, cursor, work.slot) * w.layout.n_tile_rows + cursor.row;
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
    // Where the stream has ended, and all of it has been read: goes on with more works.
    template <class F>
    __device__ void resume(Ring &ring, const F &fused, int first, int end, const Chosen *chosen) {
        tile = 0;
        n_before = (int)slice;
        fill(fused, first, end, chosen);
        for (int i = 0, stage = ring.stage; i < ring.n_stages; i++, stage++)
            fetch(ring, stage < ring.n_stages ? stage : stage - ring.n_stages);
    }
};

// n K-slices of the matrices from `segment` on, which are of one type: the partial sums of their 16 rows for
// each of the T input rows, from input_row on, to `partial`, one matrix_step behind the other.
template <QuantType F, int T, bool EXPERTS>
__device__ __forceinline__ void multiply_slices(const WarpWork<T, EXPERTS> &work, Ring &ring,
                                                PrefetchList<T, EXPERTS> &list, int segment, int input_row,
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
template <int T, class Included, bool EXPERTS>
__device__ __forceinline__ void multiply_batch(const WarpWork<T, EXPERTS> &work, Ring &ring,
                                               PrefetchList<T, EXPERTS> &list,
                                               TileRowCursor<T, EXPERTS> &cursor, int batch) {
    const Product &p = work.p;
    int end = min(batch + work.split.batch, work.n_tile_rows), matrices = is_pair(p) ? 2 : 1;
    bool same_type = !is_pair(p) || p.segment[0].w.type == p.segment[1].w.type;
    while (cursor.k < end) {
        TileRowCursor<T, EXPERTS> from = cursor;
        int count = 0; // tile rows of one matrix
        do {
            cursor.advance(p, work.split.n_groups);
            count++;
        } while (cursor.k < end && cursor.matrix == from.matrix && same_type);
        for (int matrix = 0; matrix < matrices; matrix += same_type ? matrices : 1) {
            int segment = from.segment(p) + matrix,
                input_row = T == 1 && EXPERTS && p.per_slot ? from.matrix + work.slot : 0;
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

// Whether a kernel for some types includes those of all products.
template <class Included> bool includes(const FusedProducts &fused) {
    for (int i = 0; i < fused.n; i++)
        for (int s = 0; s < fused.p[i].n_segments; s++)
            if (!Included::include(fused.p[i].segment[s].w.type)) return false;
    return true;
}
