// attn: attention of single rows, decoding, over a cache of keys and values.
//
// The cost is reading the cache once.  A sequence is cut into splits, each the work of one block: a work
// item is (row, up to 8 query heads of one KV head, split).  How a row is cut depends on its own length
// alone, so that its result is the same to the bit alone and among others; which block computes which item
// depends on all lengths, read from device memory, so that a captured launch serves every step.
//
// The trick: the tensor cores do the arithmetic although there is one row, with positions as the rows of
// the matrix and query heads as its columns: scores^T = K q^T, out^T = V^T weights^T.  Queries and weights
// enter as the sum of two f16 (22 bits), so that nothing of f32 accuracy is lost; keys and values are f16
// as stored, or f32 split the same way, or bytes widened to f16 exactly: a scale of q8_0 joins the sums of
// its dimensions (keys) or the weights of its position (values).  Each warp streams tiles of 16 positions
// through a ring of its own and keeps its own running maximum; the block reduces its warps at the end, and
// the last block to finish a row's head reduces the splits in their order.
//
// A tile lies in one page of the cache.  The lanes of a warp hold the ids of 32 pages, from one load, so
// that most tiles are fetched without loading an id first.
//
// Where each row is the newest of its sequence, its K and V rows may be given beside the cache: then the
// blocks wait for these rows only.  The cached positions are fetched while the kernel before still runs; the
// query is normalised and rotated as it is loaded; and the warp that has the newest tile does the same with
// the key, stores the key and the value in the cache, and puts both into the tile that it is about to read.
//
// Of a window or a chunk only the tiles are read that the row sees, and of its first tile only the rows.
//
// Where V is a part of K, a tile of keys is its own tile of values.  Queries of more than 256 dimensions do
// not fit into registers: their fragments stay in shared memory, the same for all warps.
//
// Head dimensions without an instance are padded with zeros to the next.  f32 keys and values beyond 65504
// overflow, and values of q8_0 beyond 32512.
#include "../device/rope.cuh"
#include <algorithm>
#include <cassert>

namespace {

constexpr int TILE = 16;       // positions of a warp's step: rows of a matrix instruction
constexpr int HEADS = 8;       // query heads of a work item: its columns
constexpr int SPLIT_TILES = 8; // tiles that are worth a block
constexpr int PAGE_TILES = CACHE_PAGE / TILE;
constexpr int SPLITS_MAX = 64; // what one block reduces in little time
constexpr int BLOCKS_PER_SM = 4;
constexpr int LAUNCH_ROWS = 64; // at most; more rows are several launches, which keeps the scratch small
constexpr int ARRIVED_MAX = LAUNCH_ROWS * 1024; // rows times KV heads of a launch

struct Decode {
    Attention a;
    int group, parts;          // query heads of a KV head, and work items that these make
    int splits_max, items_max; // of a row's head, and of all
    uint32_t *arrived;         // [T][n_kv_head * parts] splits done, 0 between launches
    float2 *stat;              // [T][n_kv_head * parts][splits_max][HEADS] maximum and sum of the weights
    float *partial; // [T][n_kv_head * parts][splits_max][HEADS][padded v_dim] weighted sum of values
};

// A block's shared memory: a ring for each warp, then the queries.  The blocks
// of an SM keep well over 35 KB in flight, the amount that hides a latency of 1 us at the bandwidth of an
// H200.
template <KvType KV, int HD> struct Shape {
    static constexpr int VD = HD < V_DIM_MAX ? HD : V_DIM_MAX; // dimensions of values
    static constexpr int ROW = padded_row_bytes(HD * ELEMENT_BYTES<KV>), ROWS = TILE * ROW;
    static constexpr int SCALES = KV == KV_Q8_0 ? TILE * HD / KV_SCALED * 2 : 0; // bytes, behind the rows
    static constexpr int SLOT = ROWS + SCALES;
    static constexpr int QUERIES = HD / 16 * 32 * sizeof(uint4); // bytes
    static constexpr int FIT =
        ((int)ATTN_SHARED - 3072 - QUERIES) / (ATTN_THREADS / 32 * SLOT); // beside 3 KB that are static
    static constexpr int SLOTS = FIT < 2 ? 2 : FIT > 5 ? 5 : FIT;
    static constexpr int WARPS = SLOT < 10000 ? 4 : SLOT < 20000 ? 2 : 1, THREADS = WARPS * 32;
    static constexpr int RINGS = WARPS * SLOTS * SLOT;
    static constexpr bool SHARED_QUERIES = HD > 256;
    static constexpr size_t SHARED = RINGS + QUERIES;
    static_assert(SHARED <= 96 * 1024, "fits every GPU since sm_80");
    static_assert(SLOTS * SLOT >= HEADS * (VD + 4) * (int)sizeof(float), "a warp's sums fit into its ring");
};

// ---- work items -----------------------------------------------------------------------------------------

struct WorkItem {
    int row;                            // -1: there is no such item
    int seq, first, length;             // the row sees positions first..length - 1
    int newest;                         // the position that is not in the cache yet, -1: none
    int column, kv_head, head, n_heads; // column: of KV heads x parts; head: the first query head
    int split, n_splits;
};

__device__ int tiles_of(int first, int length) {
    return (length + TILE - 1) / TILE - first / TILE;
}

__device__ int splits_of(int first, int length, int splits_max) {
    return min(max((tiles_of(first, length) + SPLIT_TILES - 1) / SPLIT_TILES, 1), splits_max);
}

// Finds item u by counting the items of the rows before.  Whole warp.
__device__ WorkItem find_item(const Decode &d, int u) {
    int lane = threadIdx.x % 32, columns = d.a.n_kv_head * d.parts;
    for (int base = 0; base < d.a.T; base += 32) {
        int t = base + lane, seq = -1, position = 0, first = 0, length = 0, end = 0;
        if (t < d.a.T) {
            position = __ldcg(d.a.position + t); // loaded together with seq, not after it
            seq = __ldcg(d.a.seq + t);
            length = seq < 0 ? 0 : min(position + 1, d.a.n_ctx);
            first = first_seen(d.a, length - 1);
            end = splits_of(first, length, d.splits_max) * columns;
        }
        for (int offset = 1; offset < 32; offset <<= 1) {
            int below = __shfl_up_sync(0xffffffffu, end, offset);
            if (lane >= offset) end += below;
        }
        int total = __shfl_sync(0xffffffffu, end, 31);
        if (u >= total) {
            u -= total;
            continue;
        }
        int owner = __popc(__ballot_sync(0xffffffffu, end <= u));
        WorkItem item = {.row = base + owner};
        item.seq = __shfl_sync(0xffffffffu, seq, owner);
        item.first = __shfl_sync(0xffffffffu, first, owner);
        item.length = __shfl_sync(0xffffffffu, length, owner);
        position = __shfl_sync(0xffffffffu, position, owner);
        item.newest = d.a.k.data && item.seq >= 0 && position < d.a.n_ctx ? position : -1;
        item.n_splits = splits_of(item.first, item.length, d.splits_max);
        u -= __shfl_sync(0xffffffffu, end, owner) - item.n_splits * columns;
        item.split = u / columns;
        item.column = u % columns;
        item.kv_head = item.column / d.parts;
        int in_group = item.column % d.parts * HEADS;
        item.head = item.kv_head * d.group + in_group;
        item.n_heads = min(HEADS, d.group - in_group);
        return item;
    }
    return {.row = -1};
}

// ---- fragments ------------------------------------------------------------------------------------------

// A number as the sum of two f16.
struct Fragment {
    uint32_t high[4], low[4];
};

__device__ void split_half(float x, float y, uint32_t &high, uint32_t &low) {
    high = pack_half(x, y);
    float2 h = __half22float2(*(__half2 *)&high);
    low = pack_half(x - h.x, y - h.y);
}

// Where a lane reads element (row, column) of a tile in shared memory.
template <KvType KV, int HD> __device__ const uint8_t *at(const uint8_t *tile, int row, int column) {
    return tile + row * Shape<KV, HD>::ROW + column * ELEMENT_BYTES<KV>;
}

// The dimensions, of the 16 of a step, in a lane's columns lane % 4 * 2 and + 8 of the A fragments: of
// elements of a byte four neighbouring ones are read together, and the columns of the queries have the same
// order.
template <KvType KV> __device__ int column_of(int half) {
    int pair = threadIdx.x % 4;
    return BYTES<KV> ? pair * 4 + half * 2 : pair * 2 + half * 8;
}

// Keys of 16 positions, dimensions 16 step...: positions are rows, columns as column_of has them.  Low parts
// only where the cache has them.
template <KvType KV, int HD> __device__ void load_keys(Fragment &f, const uint8_t *tile, int step) {
    int lane = threadIdx.x % 32;
    if constexpr (KV == KV_F16) {
        load_matrices(f.high, shared_address(at<KV, HD>(tile, lane % 16, step * 16 + lane / 16 * 8)));
    } else if constexpr (BYTES<KV>) {
        for (int i = 0; i < 2; i++)
            widen<KV>(*(const uint32_t *)at<KV, HD>(tile, lane / 4 + i * 8, step * 16 + column_of<KV>(0)),
                      f.high[i], f.high[i + 2]);
    } else {
        for (int i = 0; i < 4; i++) {
            int row = lane / 4 + i % 2 * 8, column = step * 16 + lane % 4 * 2 + i / 2 * 8;
            float2 x = *(const float2 *)at<KV, HD>(tile, row, column);
            split_half(x.x, x.y, f.high[i], f.low[i]);
        }
    }
}

// Which of the 16 dimensions of a step the rows lane / 4 and + 8 are: bytes come in pairs of dimensions.
template <KvType KV> __device__ int dimension_of(int half) {
    int row = threadIdx.x % 32 / 4;
    return BYTES<KV> ? row * 2 + half : row + half * 8;
}

// Values of 16 positions, dimensions 16 step...: dimensions are rows, as dimension_of has them.
template <KvType KV, int HD> __device__ void load_values(Fragment &f, const uint8_t *tile, int step) {
    int lane = threadIdx.x % 32;
    if constexpr (KV == KV_F16) {
        const uint8_t *from = at<KV, HD>(tile, lane % 8 + lane / 16 * 8, step * 16 + lane / 8 % 2 * 8);
        load_matrices_transposed(f.high, shared_address(from));
    } else if constexpr (BYTES<KV>) {
        uint32_t pairs[2]; // dimensions 2 row, 2 row + 1 of position lane % 4 * 2, then of the next; + 8
        load_two_matrices_transposed(pairs, shared_address(at<KV, HD>(tile, lane % 16, step * 16)));
        for (int i = 0; i < 2; i++)
            widen<KV>(__byte_perm(pairs[i], 0, 0x3120), f.high[2 * i], f.high[2 * i + 1]);
    } else {
        for (int i = 0; i < 4; i++) {
            int column = step * 16 + lane / 4 + i % 2 * 8, row = lane % 4 * 2 + i / 2 * 8;
            float x = *(const float *)at<KV, HD>(tile, row, column),
                  y = *(const float *)at<KV, HD>(tile, row + 1, column);
            split_half(x, y, f.high[i], f.low[i]);
        }
    }
}

// The positions of a tile that a row sees: first..end - 1, which may lie outside of the tile.
struct Seen {
    int first, end;
    __device__ bool has(int position) const { return position >= first && position < end; }
};

__device__ Seen seen_of(const WorkItem &item, int tile) {
    return {item.first - tile * TILE, item.length - tile * TILE};
}

// The scale of a block of dimensions at a position of the tile, 0 for those that the row does not see.
template <KvType KV, int HD>
__device__ float scale_at(const uint8_t *tile, int n_blocks, Seen seen, int position, int block) {
    const __half *scales = (const __half *)(tile + Shape<KV, HD>::ROWS);
    if (!seen.has(position) || block >= n_blocks) return 0;
    return __half2float(scales[position * n_blocks + block]);
}

// The queries of a work item, normalised, rotated and scaled: heads are columns, dimensions 16 step... are
// rows.  A warp prepares a head, as it does a new key, and writes it into shared memory in the form of the
// fragments, from where all warps load them into registers, or read them again for each tile.
template <KvType KV, int HD> struct Query {
    using S = Shape<KV, HD>;
    static constexpr int STEPS = HD / 16, KEPT = S::SHARED_QUERIES ? 0 : STEPS;
    uint4 *shared; // [STEPS][32] {high, high, low, low} of each lane
    uint4 kept[KEPT ? KEPT : 1];

    __device__ Query(uint8_t *shared_) : shared((uint4 *)shared_) {}

    // Whole block.
    __device__ void load(const Attention &a, const WorkItem &item, const HeadTables<HD> &tables) {
        float scale = query_scale(a, item.length - 1);
        for (int head = threadIdx.x / 32; head < HEADS; head += S::WARPS) {
            HeadRow<HD> x = {};
            if (head < item.n_heads) {
                x.load(head_of(a.q, item.row, item.head + head, a.k_dim), a.k_dim);
                x.normalise(a.q_norm, tables.q_weight, a.k_dim);
                x.rotate_pairs(a.rotation, tables.rotation);
            }
            store(x, head, scale);
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < KEPT; i++) kept[i] = shared[i * 32 + threadIdx.x % 32];
    }

    __device__ void get(int step, uint32_t high[2], uint32_t low[2]) const {
        uint4 f;
        if constexpr (KEPT > 0)
            f = kept[step];
        else
            f = shared[step * 32 + threadIdx.x % 32];
        high[0] = f.x;
        high[1] = f.y;
        low[0] = f.z;
        low[1] = f.w;
    }

  private:
    // Where column_of finds a pair of dimensions: in which of a head's four lanes, in which half.
    __device__ void store(const HeadRow<HD> &x, int head, float scale) {
#pragma unroll
        for (int i = 0; i < x.PAIRS; i++) {
            int column = x.column_of(i), in_step = column % 16;
            if (column >= HD) continue;
            int lane = BYTES<KV> ? in_step / 4 : in_step % 8 / 2,
                half = BYTES<KV> ? in_step % 4 / 2 : in_step / 8;
            uint32_t *to = (uint32_t *)(shared + column / 16 * 32 + head * 4 + lane);
            split_half(x.x[i].x * scale, x.x[i].y * scale, to[half], to[2 + half]);
        }
    }
};

// ---- the stream of a warp -------------------------------------------------------------------------------

// Tiles first, first + WARPS, ... < end of what the cache has of one head: keys and values of each in turn,
// or keys only where V is a part of them, SLOTS of them ahead.
template <KvType KV, int HD, bool V_IN_K> struct Stream {
    using S = Shape<KV, HD>;
    const Attention &a;
    const WorkItem &item;
    uint8_t *slots;
    int end;
    int tile;            // of the next fetch
    bool values = false; // what the next fetch is of
    int slot = 0;        // the oldest
    bool reading = false;
    int32_t id; // of page i of 32, in lane i: those among which the next fetch has its page

    __device__ Stream(const Attention &a_, const WorkItem &item_, uint8_t *slots_, int first, int end_)
        : a(a_), item(item_), slots(slots_), end(end_), tile(first) {
        if (tile < end && !enters_ids()) load_ids();
        for (; slot < S::SLOTS; slot++) fetch();
        slot = 0;
    }

    // The page of the tile that was fetched last.  Whole warp.
    __device__ int32_t page_of(int of_tile) const {
        return __shfl_sync(0xffffffffu, id, of_tile / PAGE_TILES % 32);
    }

    // Into the slot.
    __device__ void fetch() {
        constexpr int COPIES = HD * ELEMENT_BYTES<KV> / 16; // per row
        if (tile < end) {
            if (!values && enters_ids()) load_ids();
            int row_bytes = (values ? a.v_dim : a.k_dim) * ELEMENT_BYTES<KV>,
                in_page = tile % PAGE_TILES * TILE;
            Seen cached = {item.first - tile * TILE,
                           (item.newest < 0 ? item.length : item.newest) - tile * TILE};
            KvRows rows = cache_rows(&a.cache, page_of(tile), values ? CACHE_V : CACHE_K, item.kv_head);
            uint32_t to = shared_address(slots + slot * S::SLOT);
            const uint8_t *from = rows.cells + in_page * row_bytes;
#pragma unroll
            for (int i = 0; i < (TILE * COPIES + 31) / 32; i++) {
                int copy = i * 32 + threadIdx.x % 32, row = copy / COPIES, byte = copy % COPIES * 16;
                if (row >= TILE) break;
                copy_async(to + row * S::ROW + byte, from + row * row_bytes + byte,
                           cached.has(row) && byte < row_bytes);
            }
            if constexpr (KV == KV_Q8_0) { // the scales of a tile's positions follow each other
                int row_scales = row_bytes / KV_SCALED * (int)sizeof(__half);
                const uint8_t *scales = (const uint8_t *)rows.scales + in_page * row_scales;
#pragma unroll
                for (int i = 0; i < (S::SCALES + 511) / 512; i++) {
                    int byte = (i * 32 + (int)threadIdx.x % 32) * 16;
                    if (byte < TILE * row_scales) copy_async(to + S::ROWS + byte, scales + byte, true);
                }
            }
        }
        copy_commit();
        if (values || V_IN_K) tile += S::WARPS;
        values = !values && !V_IN_K;
    }

    // The oldest tile; the slot of the one before it becomes free.
    __device__ uint8_t *next() {
        if (reading) {
            __syncwarp();
            fetch();
            slot = slot + 1 == S::SLOTS ? 0 : slot + 1;
        }
        reading = true;
        copy_wait<S::SLOTS - 1>();
        __syncwarp();
        return slots + slot * S::SLOT;
    }

  private:
    // Whether the tile is the warp's first in another 32 pages than the tile before.
    __device__ bool enters_ids() const {
        return tile % (32 * PAGE_TILES) < S::WARPS;
    }

    __device__ void load_ids() {
        int page = tile / (32 * PAGE_TILES) * 32 + threadIdx.x % 32;
        if (page < a.cache.layer.table_pages) id = __ldcg(cache_pages(&a.cache, item.seq) + page);
    }
};

// A new row of K or V goes into the cache, and into a tile that was fetched without it.
template <KvType KV, int HD>
__device__ void put_row(const HeadRow<HD> &x, int dim, const WorkItem &item, const KvRows &page,
                        uint8_t *tile) {
    uint8_t *row = tile + item.newest % TILE * Shape<KV, HD>::ROW;
    uint16_t *scales = (uint16_t *)(tile + Shape<KV, HD>::ROWS) + item.newest % TILE * (dim / KV_SCALED);
#pragma unroll
    for (int i = 0; i < x.PAIRS; i++) {
        int column = x.column_of(i);
        if (column >= dim) continue;
        put_pair<KV>(page, dim, item.newest, column, x.x[i]);
        put_pair<KV>(row, scales, column, x.x[i]);
    }
    __syncwarp();
}

// ---- a warp's attention ---------------------------------------------------------------------------------

// The state of a warp: weighted sums of values (dimensions are rows, heads columns), the maximum of the
// scores, and this lane's share of the sum of weights, for heads lane % 4 * 2 and the next.
template <KvType KV, int HD> struct WarpState {
    // Of o: a weight times a scale may be too small for f16.
    static constexpr float LIFT = KV == KV_Q8_0 ? 256 : 1;
    static constexpr int VD = Shape<KV, HD>::VD;
    float o[VD / 16][4] = {};
    float top[2] = {-INFINITY, -INFINITY}, sum[2] = {};

    // s: scores of positions lane / 4 and + 8 (rows); becomes weights.
    __device__ void weigh(float s[4]) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float best = fmaxf(s[h], s[h + 2]);
            for (int offset = 4; offset < 32; offset <<= 1)
                best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, offset));
            best = fmaxf(best, top[h]);
            float shrink = exp2_fast(top[h] - best);
            top[h] = best;
            s[h] = exp2_fast(s[h] - best);
            s[h + 2] = exp2_fast(s[h + 2] - best);
            sum[h] = sum[h] * shrink + s[h] + s[h + 2];
#pragma unroll
            for (int i = 0; i < VD / 16; i++) {
                o[i][h] *= shrink;
                o[i][h + 2] *= shrink;
            }
        }
    }

    __device__ void add_values(const uint8_t *tile, const float weight[4], int n_blocks, Seen seen) {
        uint32_t high[2], low[2]; // positions were rows of the scores and are rows again
#pragma unroll
        for (int i = 0; i < VD / 16; i++) {
            if (i == 0 || (KV == KV_Q8_0 && i % 2 == 0)) // a scale belongs to 32 dimensions
                for (int half = 0; half < 2; half++) {
                    int position = (int)threadIdx.x % 32 / 4 + half * 8;
                    float d = LIFT;
                    if constexpr (KV == KV_Q8_0) d *= scale_at<KV, HD>(tile, n_blocks, seen, position, i / 2);
                    split_half(weight[2 * half] * d, weight[2 * half + 1] * d, high[half], low[half]);
                    high[half] = transpose_matrix(high[half]);
                    low[half] = transpose_matrix(low[half]);
                }
            Fragment f;
            load_values<KV, HD>(f, tile, i);
            multiply(o[i], f.high, high);
            multiply(o[i], f.high, low);
            if constexpr (KV == KV_F32) multiply(o[i], f.low, high);
        }
    }

    // Writes [HEADS][VD + 4] sums, and [HEADS] maximum and sum of weights, to shared memory.
    __device__ void write(float *to, float2 *stat) {
        int lane = threadIdx.x % 32;
        for (int h = 0; h < 2; h++) {
            for (int offset = 4; offset < 32; offset <<= 1)
                sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], offset);
            if (lane < 4) stat[lane * 2 + h] = make_float2(top[h], sum[h]);
        }
#pragma unroll
        for (int i = 0; i < VD / 16; i++)
            for (int r = 0; r < 4; r++)
                to[(lane % 4 * 2 + r % 2) * (VD + 4) + i * 16 + dimension_of<KV>(r / 2)] = o[i][r] / LIFT;
    }
};

template <KvType KV, int HD>
__device__ void scores(float s[4], const uint8_t *tile, const Query<KV, HD> &q, const Attention &a,
                       Seen seen) {
    int position = threadIdx.x % 32 / 4, n_blocks = a.k_dim / KV_SCALED;
    float part[2][4] = {}, sum[4] = {}; // more accumulators would overlap better, but spill registers
#pragma unroll
    for (int i = 0; i < HD / 16; i++) {
        Fragment f;
        uint32_t high[2], low[2];
        q.get(i, high, low);
        load_keys<KV, HD>(f, tile, i);
        multiply(part[0], f.high, high);
        multiply(part[1], f.high, low);
        if constexpr (KV == KV_F32) multiply(part[1], f.low, high);
        if (i + 1 < HD / 16 && (KV != KV_Q8_0 || i % 2 == 0)) continue;
        float d[2] = {1, 1};
        for (int half = 0; KV == KV_Q8_0 && half < 2; half++)
            d[half] = scale_at<KV, HD>(tile, n_blocks, seen, position + half * 8, i / 2);
        for (int r = 0; r < 4; r++) {
            sum[r] += d[r / 2] * (part[0][r] + part[1][r]);
            part[0][r] = part[1][r] = 0;
        }
    }
    if (a.softcap != 0)
        for (int r = 0; r < 4; r++) sum[r] = capped(a, sum[r]);
    for (int r = 0; r < 4; r++) s[r] = seen.has(position + r / 2 * 8) ? sum[r] : -INFINITY;
}

template <KvType KV, int HD, bool V_IN_K>
__device__ void attend_warp(const Decode &d, const WorkItem &item, uint8_t *slots, Query<KV, HD> &q,
                            HeadTables<HD> &tables, float2 *stat) {
    using S = Shape<KV, HD>;
    const Attention &a = d.a;
    int first = item.first / TILE, tiles = tiles_of(item.first, item.length), warp = threadIdx.x / 32;
    int tile = first + (int)((int64_t)item.split * tiles / item.n_splits) + warp;
    int end = first + (int)((int64_t)(item.split + 1) * tiles / item.n_splits);
    int newest = end == first + tiles && (end - 1 - tile) % S::WARPS == 0 && item.newest >= 0 ? end - 1 : -1;
    Stream<KV, HD, V_IN_K> stream(a, item, slots, tile, end);
    tables.fill(a, item.length - 1); // while the first tiles come
    __syncthreads();
    pdl_wait();
    HeadRow<HD> key, value;
    if (tile <= newest) {
        key.load(head_of(a.k, item.row, item.kv_head, a.k_dim), a.k_dim);
        if (!V_IN_K) value.load(head_of(a.v, item.row, item.kv_head, a.v_dim), a.v_dim);
    }
    q.load(a, item, tables);
    WarpState<KV, HD> sums;
    for (; tile < end; tile += S::WARPS) {
        float s[4];
        Seen seen = seen_of(item, tile);
        uint8_t *keys = stream.next();
        if (tile == newest) {
            key.normalise(a.k_norm, tables.k_weight, a.k_dim);
            key.rotate_pairs(a.rotation, tables.rotation);
            put_row<KV>(key, a.k_dim, item, cache_rows(&a.cache, stream.page_of(tile), CACHE_K, item.kv_head),
                        keys);
        }
        scores<KV, HD>(s, keys, q, a, seen);
        sums.weigh(s);
        uint8_t *values = V_IN_K ? keys : stream.next();
        if (!V_IN_K && tile == newest) {
            value.normalise(a.v_norm, a.v_norm.weight, a.v_dim);
            put_row<KV>(value, a.v_dim, item,
                        cache_rows(&a.cache, stream.page_of(tile), CACHE_V, item.kv_head), values);
        }
        sums.add_values(values, s, (V_IN_K ? a.k_dim : a.v_dim) / KV_SCALED, seen);
    }
    copy_wait<0>();
    __syncwarp();
    sums.write((float *)slots, stat);
}

// ---- reduction ------------------------------------------------------------------------------------------

// Four dimensions of one head, reduced from partial results in a fixed order.
struct Reduction {
    float4 o = {0, 0, 0, 0};
    float top = -INFINITY, sum = 0;

    template <int N> __device__ void add(const float2 stat[N], const float4 x[N]) {
        float best = top;
#pragma unroll
        for (int i = 0; i < N; i++) best = fmaxf(best, stat[i].x);
        float base = best == -INFINITY ? 0 : best; // of no positions the sums are 0, not NaN
        float shrink = exp2_fast(top - base);
        o.x *= shrink;
        o.y *= shrink;
        o.z *= shrink;
        o.w *= shrink;
        sum *= shrink;
#pragma unroll
        for (int i = 0; i < N; i++) {
            float w = exp2_fast(stat[i].x - base);
            o.x += w * x[i].x;
            o.y += w * x[i].y;
            o.z += w * x[i].z;
            o.w += w * x[i].w;
            sum += w * stat[i].y;
        }
        top = best;
    }

    __device__ void write(const Attention &a, const WorkItem &item, int head, int column) const {
        if (column >= a.v_dim) return;
        float r = inverse_sum(a, item.head + head, top, sum);
        float *to = head_of(a.out, item.row, item.head + head, a.v_dim) + column;
        *(float4 *)to = make_float4(o.x * r, o.y * r, o.z * r, o.w * r);
    }
};

// Reduces the sums of the block's warps: to the row's result, or to the split's partial result.
template <KvType KV, int HD>
__device__ void reduce_warps(const Decode &d, const WorkItem &item, size_t first_partial,
                             const uint8_t *shared, const float2 (*stat)[HEADS]) {
    using S = Shape<KV, HD>;
    constexpr int VD = S::VD;
    for (int i = threadIdx.x; i < item.n_heads * VD / 4; i += S::THREADS) {
        int head = i / (VD / 4), column = i % (VD / 4) * 4;
        float2 stats[S::WARPS];
        float4 x[S::WARPS];
#pragma unroll
        for (int w = 0; w < S::WARPS; w++) {
            const float *sums = (const float *)(shared + w * S::SLOTS * S::SLOT);
            stats[w] = stat[w][head];
            x[w] = *(const float4 *)(sums + head * (VD + 4) + column);
        }
        Reduction all;
        all.add<S::WARPS>(stats, x);
        if (item.n_splits == 1) {
            all.write(d.a, item, head, column);
        } else {
            size_t partial = (first_partial + item.split) * HEADS + head;
            *(float4 *)(d.partial + partial * VD + column) = all.o;
            if (column == 0) d.stat[partial] = make_float2(all.top, all.sum);
        }
    }
}

template <int VD> __device__ void reduce_splits(const Decode &d, const WorkItem &item, size_t first_partial) {
    constexpr int AHEAD = 16; // loads in flight
    for (int i = threadIdx.x; i < item.n_heads * VD / 4; i += blockDim.x) {
        int head = i / (VD / 4), column = i % (VD / 4) * 4;
        Reduction all;
        for (int base = 0; base < item.n_splits; base += AHEAD) {
            float2 stats[AHEAD];
            float4 x[AHEAD];
#pragma unroll
            for (int s = 0; s < AHEAD; s++) {
                size_t partial = (first_partial + base + s) * HEADS + head;
                bool valid = base + s < item.n_splits;
                stats[s] = valid ? __ldcg(d.stat + partial) : make_float2(-INFINITY, 0);
                x[s] = valid ? __ldcg((const float4 *)(d.partial + partial * VD + column))
                             : make_float4(0, 0, 0, 0);
            }
            all.add<AHEAD>(stats, x);
        }
        all.write(d.a, item, head, column);
    }
}

template <KvType KV, int HD, bool V_IN_K>
__device__ void attend(const Decode &d, const WorkItem &item, uint8_t *shared) {
    using S = Shape<KV, HD>;
    __shared__ float2 stat[S::WARPS][HEADS];
    __shared__ HeadTables<HD> tables;
    __shared__ bool last;
    int warp = threadIdx.x / 32;
    Query<KV, HD> q(shared + S::RINGS);
    attend_warp<KV, HD, V_IN_K>(d, item, shared + warp * S::SLOTS * S::SLOT, q, tables, stat[warp]);
    __syncthreads();
    int head = item.row * d.a.n_kv_head * d.parts + item.column;
    size_t first_partial = (size_t)head * d.splits_max;
    reduce_warps<KV, HD>(d, item, first_partial, shared, stat);
    if (item.n_splits > 1) {
        __threadfence();
        __syncthreads();
        unsigned others = (unsigned)item.n_splits - 1; // the counter is back at 0 after the last
        if (threadIdx.x == 0) last = atomicInc(d.arrived + head, others) == others;
        __syncthreads();
        if (last) {
            __threadfence();
            reduce_splits<S::VD>(d, item, first_partial);
        }
    }
    __syncthreads();
}

// ---- kernel and launcher --------------------------------------------------------------------------------

template <KvType KV, int HD, bool V_IN_K>
__global__ void __launch_bounds__(Shape<KV, HD>::THREADS, HD > 128 ? 2 : BLOCKS_PER_SM)
    k_attn(const __grid_constant__ Decode d) {
    extern __shared__ __align__(16) uint8_t shared[];
    if (!d.a.k.data) pdl_wait(); // for keys and values
    pdl_launch();
    for (int u = blockIdx.x; u < d.items_max; u += gridDim.x) {
        WorkItem item = find_item(d, u);
        if (item.row < 0) break;
        attend<KV, HD, V_IN_K>(d, item, shared);
    }
}

int padded_dim(int k_dim, int v_dim) {
    for (int padded : {32, 64, 80, 96, 128, 256})
        if (std::max(k_dim, v_dim) <= padded) return padded;
    return HEAD_DIM_MAX;
}

int rows_of_launch(int v_dim) {
    return v_dim > 256 ? LAUNCH_ROWS / 4 : LAUNCH_ROWS;
}

// Splits of the longest row: no more work items than blocks that run at once.
int splits_max_of(int columns, int n_sm) {
    return std::max(1, std::min(SPLITS_MAX, BLOCKS_PER_SM * n_sm / columns));
}

template <KvType KV, int HD, bool V_IN_K = false>
cudaError_t launch_padded(const Launch *l, const Decode &d) {
    using S = Shape<KV, HD>;
    unsigned grid = (unsigned)std::min(d.items_max, BLOCKS_PER_SM * l->n_sm);
    return launch_kernel(l, k_attn<KV, HD, V_IN_K>, dim3(grid), dim3(S::THREADS), S::SHARED, d);
}

template <KvType KV> cudaError_t launch_type(const Launch *l, const Decode &d) {
    if (cache_v_in_k(&d.a.cache.layer)) return launch_padded<KV, HEAD_DIM_MAX, true>(l, d);
    switch (padded_dim(d.a.k_dim, d.a.v_dim)) {
    case 32:
        return launch_padded<KV, 32>(l, d);
    case 64:
        return launch_padded<KV, 64>(l, d);
    case 80:
        return launch_padded<KV, (KV == KV_Q8_0 ? 96 : 80)>(l, d);
    case 96:
        return launch_padded<KV, 96>(l, d);
    case 128:
        return launch_padded<KV, 128>(l, d);
    case 256:
        return launch_padded<KV, 256>(l, d);
    default:
        return launch_padded<KV, HEAD_DIM_MAX>(l, d);
    }
}

cudaError_t launch_rows(const Launch *l, const Attention &a, void *scratch) {
    Decode d = {.a = a, .group = a.n_head / a.n_kv_head};
    d.parts = (d.group + HEADS - 1) / HEADS;
    int columns = a.n_kv_head * d.parts;
    if (a.T * columns > ARRIVED_MAX) return cudaErrorInvalidValue;
    d.splits_max = splits_max_of(columns, l->n_sm);
    d.items_max = a.T * columns * d.splits_max;
    d.arrived = (uint32_t *)scratch;
    d.stat = (float2 *)(d.arrived + ARRIVED_MAX);
    d.partial = (float *)(d.stat + (size_t)a.T * columns * d.splits_max * HEADS);
    switch (a.cache.layer.type) {
    case KV_F16:
        return launch_type<KV_F16>(l, d);
    case KV_Q8_0:
        return launch_type<KV_Q8_0>(l, d);
    case KV_FP8:
        return launch_type<KV_FP8>(l, d);
    default:
        return launch_type<KV_F32>(l, d);
    }
}

} // namespace

Attention attention_of(const Attn *attn) {
    const CacheLayer *layer = &attn->cache.layer;
    const AttnParams *p = attn->params;
    assert(p->n_kv_head == layer->n_head && p->n_head % p->n_kv_head == 0 && attn->T > 0);
    assert(p->head_dim == layer->width[CACHE_K] && p->v_dim == layer->width[CACHE_V]);
    constexpr double EXPONENTS_OF_2 = 1.4426950408889634;
    return {.q = attn->q,
            .out = attn->out,
            .k = attn->k,
            .v = attn->v,
            .q_norm = attn->q_norm,
            .k_norm = attn->k_norm,
            .v_norm = attn->v_norm,
            .rotation = attn->rotation,
            .cache = attn->cache,
            .seq = attn->seq,
            .position = attn->position,
            .piece = attn->piece,
            .n_pieces = attn->n_pieces,
            .T = attn->T,
            .n_head = p->n_head,
            .n_kv_head = p->n_kv_head,
            .k_dim = p->head_dim,
            .v_dim = p->v_dim,
            .n_ctx = layer->table_pages * CACHE_PAGE,
            .window = p->window,
            .chunk = p->chunk,
            .scale = (float)(p->scale * EXPONENTS_OF_2),
            .softcap = (float)(p->softcap * EXPONENTS_OF_2),
            .softcap_rate = p->softcap == 0 ? 0 : 2 / p->softcap,
            .sinks = attn->sinks,
            .temperature = p->temperature,
            .temperature_first = p->temperature_first,
            .temperature_length = p->temperature_length};
}

bool heads_fit(const Attention &a) {
    const CacheLayer *layer = &a.cache.layer;
    int multiple = std::max(8, kv_type_multiple(layer->type));
    return a.k_dim >= 8 && a.v_dim >= 8 && a.k_dim % multiple == 0 && a.v_dim % multiple == 0 &&
           a.k_dim <= HEAD_DIM_MAX && a.v_dim <= V_DIM_MAX;
}

extern "C" Attn attn_prepared(Attn a) {
    a.k = a.v = {};
    a.q_norm = a.k_norm = a.v_norm = {};
    a.rotation = {};
    return a;
}

extern "C" size_t attn_scratch_bytes(int T, const AttnParams *p, bool v_in_k, int n_sm) {
    size_t splits =
        (size_t)std::min(BLOCKS_PER_SM * n_sm, SPLITS_MAX * p->n_head); // of a row, over all its heads
    int v_dim = v_in_k ? V_DIM_MAX : std::min(padded_dim(p->head_dim, p->v_dim), V_DIM_MAX);
    return ARRIVED_MAX * sizeof(uint32_t) + (size_t)std::min(T, rows_of_launch(v_dim)) * splits * HEADS *
                                                ((size_t)v_dim * sizeof(float) + sizeof(float2));
}

extern "C" cudaError_t launch_attn_decode(const Launch *l, const Attn *attn) {
    Attention all = attention_of(attn);
    if (!heads_fit(all)) return cudaErrorInvalidValue;
    int n = rows_of_launch(cache_v_in_k(&all.cache.layer) ? V_DIM_MAX : padded_dim(all.k_dim, all.v_dim));
    for (int first = 0; first < all.T; first += n) {
        Attention a = all;
        a.q = rows_from(all.q, first);
        a.out = rows_from(all.out, first);
        a.k = rows_from(all.k, first);
        a.v = rows_from(all.v, first);
        a.seq = all.seq + first;
        a.position = all.position + first;
        a.T = std::min(all.T - first, n);
        cudaError_t error = launch_rows(l, a, attn->scratch);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
