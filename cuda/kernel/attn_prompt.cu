// attn_prompt: attention of chunks of prompts: of each many rows of one sequence against its cache, causal.
//
// The method is FlashAttention-2 (Dao, 2023) on the tensor cores of sm_80: a block keeps the queries of one
// head and a range of rows, goes over the positions that they may see in tiles, and never writes a score to
// memory.  Blocks find their rows among the chunks of all prompts.  The copy of a tile's values runs under its scores, that of the next tile's keys under its sum of
// values; a tile lies in one page of the cache, whose id is loaded a tile ahead.  Blocks with the most
// tiles start first.
//
// Queries and weights are rounded to f16; scores, maxima and sums are f32.  f32 and q8_0 caches are rounded
// to f16 on the way into shared memory.  A row's result does not depend on how a prompt is cut into chunks:
// tiles of positions are counted from 0, and positions that a row may not see change no bit of its sums.
//
// Of a window or a chunk a block reads the tiles that one of its rows sees.  Sums of more than 256 dimensions
// do not fit into registers: several blocks, each of some dimensions of V, compute the same scores.
#include "../device/attn.cuh"

namespace {

template <int HD> struct Shape {
    static constexpr int WARPS = HD <= 256 ? 4 : 2, THREADS = WARPS * 32;
    static constexpr int BANDS = HD <= 128 ? 2 : 1;  // of 16 rows, for each warp
    static constexpr int ROWS = WARPS * BANDS * 16;  // of queries, for a block
    static constexpr int SPAN = HD <= 128 ? 64 : 32; // positions of a tile
    static constexpr int VD = HD <= 256 ? HD : 256;  // dimensions of V, for a block
    static constexpr int PITCH = padded_row_bytes(HD * 2), V_PITCH = padded_row_bytes(VD * 2);
    static constexpr size_t SHARED = (size_t)(ROWS + SPAN) * PITCH + SPAN * V_PITCH;
    static_assert(SHARED <= 99 * 1024, "fits every GPU since sm_80");
    static_assert(CACHE_PAGE % SPAN == 0, "a tile lies in one page");
};

// ---- into shared memory ---------------------------------------------------------------------------------

// 8 elements of the cache, which share a scale where they have one, to shared memory as f16; or 8 zeros.
template <KvType KV>
__device__ void copy_f16(uint32_t to, const uint8_t *from, const __half *scale, bool valid) {
    if constexpr (KV == KV_F16) {
        copy_async(to, from, valid);
    } else if constexpr (BYTES<KV>) {
        uint2 bytes = make_uint2(0, 0);
        uint32_t halves[4] = {};
        if (valid) {
            bytes = __ldcg((const uint2 *)from);
            widen<KV>(bytes.x, halves[0], halves[1]);
            widen<KV>(bytes.y, halves[2], halves[3]);
        }
        if constexpr (KV == KV_Q8_0) {
            __half2 d = __half2half2(valid ? __ldcg(scale) : __half(0));
            for (uint32_t &h : halves) {
                __half2 x = __hmul2(*(__half2 *)&h, d);
                h = *(uint32_t *)&x;
            }
        }
        store_shared(to, halves[0], halves[1], halves[2], halves[3]);
    } else {
        float4 x = make_float4(0, 0, 0, 0), y = x;
        if (valid) {
            x = __ldcg((const float4 *)from);
            y = __ldcg((const float4 *)from + 1);
        }
        store_shared(to, pack_half(x.x, x.y), pack_half(x.z, x.w), pack_half(y.x, y.y), pack_half(y.z, y.w));
    }
}

// Where a tile of keys or values comes from: columns [0, width) of rows that are pitch apart.
struct Source {
    const uint8_t *cells;
    const __half *scales;
    int width, pitch; // elements
};

// The part of a page's rows from column `begin` on.
template <KvType KV>
__device__ Source source_of(const Attention &a, int32_t page, CachePart part, int kv_head, int begin) {
    KvRows rows = cache_rows(&a.cache, page, part, kv_head);
    return {rows.cells + begin * ELEMENT_BYTES<KV>, (const __half *)rows.scales + begin / KV_SCALED,
            (part == CACHE_K ? a.k_dim : a.v_dim) - begin, a.cache.layer.pitch[part]};
}

// N columns of the positions `tile`..., as f16 in rows of PITCH bytes; zeros where a position is not one of
// first..end - 1.  A thread keeps its columns.
template <KvType KV, int HD, int N, int PITCH>
__device__ void fetch_tile(uint32_t to_tile, const Source &source, int tile, int first, int end) {
    using S = Shape<HD>;
    constexpr int COLUMNS = N <= 32 ? 4 : N <= 64 ? 8 : N <= 128 ? 16 : 32; // of 8 elements, at a time
    constexpr int STEP = S::THREADS / COLUMNS;                              // rows at a time
    int row = threadIdx.x / COLUMNS, before = first - tile - row, behind = end - tile - row;
#pragma unroll
    for (int column = threadIdx.x % COLUMNS * 8; column < N; column += COLUMNS * 8) {
        int left = column < source.width ? behind : 0, at = (tile % CACHE_PAGE + row) * source.pitch + column;
        int step = STEP * source.pitch * ELEMENT_BYTES<KV>;
        uint32_t to = to_tile + row * PITCH + column * 2;
        const uint8_t *from = source.cells + at * ELEMENT_BYTES<KV>;
        const __half *scale = source.scales + at / KV_SCALED;
#pragma unroll(KV == KV_F16 ? S::SPAN / STEP : BYTES <KV> ? 4 : 1) // others than f16 pass through registers
        for (int i = 0; i < S::SPAN; i += STEP, from += step, scale += step / KV_SCALED)
            copy_f16<KV>(to + i * PITCH, from, scale, i >= before && i < left);
    }
    copy_commit();
}

// ---- which rows ------------------------------------------------------------------------------------------

// Rows first..end - 1 of the launch, in consecutive positions of one sequence.
struct BlockRows {
    int first, end, seq, position; // of row `first`
};

// Tile number `number` of the pieces, each cut into tiles of n_rows; no rows where there are fewer tiles.  By
// whole warps, 32 pieces at a time.
__device__ inline BlockRows rows_of_tile(const Attention &a, int number, int n_rows) {
    int lane = threadIdx.x % 32;
    for (int base = 0; base < a.n_pieces; base += 32) {
        int2 piece = base + lane < a.n_pieces ? __ldcg((const int2 *)a.piece + base + lane) : int2{0, 0};
        int mine = (piece.y + n_rows - 1) / n_rows, to = mine; // tiles; those up to and with this lane's
#pragma unroll
        for (int offset = 1; offset < 32; offset *= 2) {
            int before = __shfl_up_sync(0xffffffffu, to, offset);
            if (lane >= offset) to += before;
        }
        unsigned behind = __ballot_sync(0xffffffffu, number < to);
        if (behind) {
            int owner = __ffs(behind) - 1, first = piece.x + (number - to + mine) * n_rows;
            first = __shfl_sync(0xffffffffu, first, owner);
            int end = min(first + n_rows, __shfl_sync(0xffffffffu, piece.x + piece.y, owner));
            return {first, end, __ldcg(a.seq + first), __ldcg(a.position + first)};
        }
        number -= __shfl_sync(0xffffffffu, to, 31);
    }
    return {0, 0, -1, 0};
}

// The block's queries, scaled; zeros behind its rows.
template <int HD>
__device__ void load_queries(uint8_t *tile, const Attention &a, int head, const BlockRows &block) {
    using S = Shape<HD>;
#pragma unroll 4
    for (int i = threadIdx.x; i < S::ROWS * HD / 4; i += S::THREADS) {
        int row = i / (HD / 4), column = i % (HD / 4) * 4;
        float4 x = make_float4(0, 0, 0, 0);
        if (block.first + row < block.end && column < a.k_dim)
            x = __ldcg((const float4 *)(head_of(a.q, block.first + row, head, a.k_dim) + column));
        float scale = query_scale(a, block.position + row);
        *(uint2 *)(tile + row * S::PITCH + column * 2) =
            make_uint2(pack_half(x.x * scale, x.y * scale), pack_half(x.z * scale, x.w * scale));
    }
}

// ---- a warp's rows --------------------------------------------------------------------------------------

// Bands of 16 rows, of which a lane holds rows lane / 4 and + 8: scores of a tile, and sums over all tiles so
// far.
template <int HD> struct Rows {
    using S = Shape<HD>;
    float s[S::BANDS][S::SPAN / 8][4];
    float o[S::BANDS][S::VD / 8][4] = {};
    float top[S::BANDS][2], sum[S::BANDS][2] = {};

    __device__ Rows() {
        for (int b = 0; b < S::BANDS; b++) top[b][0] = top[b][1] = -INFINITY;
    }

    // s = queries keys^T
    __device__ void score(uint32_t queries, uint32_t keys) {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int b = 0; b < S::BANDS; b++)
#pragma unroll
            for (int n = 0; n < S::SPAN / 8; n++)
#pragma unroll
                for (int r = 0; r < 4; r++) s[b][n][r] = 0;
#pragma unroll 1 // unrolled, more fragments would be loaded ahead than there are registers
        for (int i = 0; i < HD / 16; i++) {
            uint32_t q[S::BANDS][4];
#pragma unroll
            for (int b = 0; b < S::BANDS; b++)
                load_matrices(q[b], queries + (b * 16 + lane % 16) * S::PITCH + i * 32 + lane / 16 * 16);
#pragma unroll
            for (int n = 0; n < S::SPAN / 16; n++) {
                uint32_t k[4]; // positions 16n.. and 16n + 8..
                load_matrices(k, keys + (n * 16 + lane % 8 + lane / 16 * 8) * S::PITCH + i * 32 +
                                     lane / 8 % 2 * 16);
#pragma unroll
                for (int b = 0; b < S::BANDS; b++) {
                    multiply(s[b][2 * n], q[b], k);
                    multiply(s[b][2 * n + 1], q[b], k + 2);
                }
            }
        }
    }

    __device__ void cap(const Attention &a) {
#pragma unroll
        for (int b = 0; b < S::BANDS; b++)
#pragma unroll
            for (int n = 0; n < S::SPAN / 8; n++)
#pragma unroll
                for (int r = 0; r < 4; r++) s[b][n][r] = capped(a, s[b][n][r]);
    }

    // Row r of the warp has position first_row + r, column c first_column + c: a row sees no later position,
    // and none before its window or chunk.
    __device__ void mask(const Attention &a, int first_row, int first_column) {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int b = 0; b < S::BANDS; b++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int last = first_row + b * 16 + lane / 4 + h * 8, first = first_seen(a, last);
#pragma unroll
                for (int n = 0; n < S::SPAN / 8; n++)
#pragma unroll
                    for (int r = 2 * h; r < 2 * h + 2; r++) {
                        int column = first_column + n * 8 + lane % 4 * 2 + r % 2;
                        if (column > last || column < first) s[b][n][r] = -INFINITY;
                    }
            }
    }

    // s becomes weights relative to the maxima so far, and sums shrink with them.
    __device__ void weigh() {
#pragma unroll
        for (int b = 0; b < S::BANDS; b++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float best = top[b][h], total = 0;
#pragma unroll
                for (int n = 0; n < S::SPAN / 8; n++)
                    best = fmaxf(best, fmaxf(s[b][n][2 * h], s[b][n][2 * h + 1]));
                best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, 1));
                best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, 2));
                float shrink = exp2_fast(top[b][h] - best);
                top[b][h] = best;
                if (best == -INFINITY) best = shrink = 0; // the row saw nothing yet: weights and sums are 0
#pragma unroll
                for (int n = 0; n < S::SPAN / 8; n++) {
                    float x = exp2_fast(s[b][n][2 * h] - best), y = exp2_fast(s[b][n][2 * h + 1] - best);
                    s[b][n][2 * h] = x;
                    s[b][n][2 * h + 1] = y;
                    total += x + y;
                }
                sum[b][h] = sum[b][h] * shrink + total;
#pragma unroll
                for (int n = 0; n < S::VD / 8; n++) {
                    o[b][n][2 * h] *= shrink;
                    o[b][n][2 * h + 1] *= shrink;
                }
            }
    }

    // o += weights values: the scores' fragments are, packed, those of a left factor.
    __device__ void add_values(uint32_t values) {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < S::SPAN / 16; i++) {
            uint32_t w[S::BANDS][4];
#pragma unroll
            for (int b = 0; b < S::BANDS; b++)
#pragma unroll
                for (int r = 0; r < 4; r++)
                    w[b][r] = pack_half(s[b][2 * i + r / 2][r % 2 * 2], s[b][2 * i + r / 2][r % 2 * 2 + 1]);
#pragma unroll
            for (int n = 0; n < S::VD / 16; n++) {
                uint32_t v[4]; // dimensions 16n.. and 16n + 8..
                load_matrices_transposed(v, values + (i * 16 + lane % 16) * S::V_PITCH + n * 32 +
                                                lane / 16 * 16);
#pragma unroll
                for (int b = 0; b < S::BANDS; b++) {
                    multiply(o[b][2 * n], w[b], v);
                    multiply(o[b][2 * n + 1], w[b], v + 2);
                }
            }
        }
    }

    // The dimensions from `begin` on, of rows before `end`.
    __device__ void write(const Attention &a, int head, int first_row, int end, int begin) {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int b = 0; b < S::BANDS; b++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float total = sum[b][h];
                total += __shfl_xor_sync(0xffffffffu, total, 1);
                total += __shfl_xor_sync(0xffffffffu, total, 2);
                float scale = inverse_sum(a, head, top[b][h], total);
                int row = first_row + b * 16 + lane / 4 + h * 8;
                if (row >= end) continue;
                float *out = head_of(a.out, row, head, a.v_dim) + begin;
#pragma unroll
                for (int n = 0; n < S::VD / 8; n++)
                    if (begin + n * 8 < a.v_dim)
                        *(float2 *)(out + n * 8 + lane % 4 * 2) =
                            make_float2(o[b][n][2 * h] * scale, o[b][n][2 * h + 1] * scale);
            }
    }
};

// ---- kernel and launcher --------------------------------------------------------------------------------

// grid (heads, tiles of rows, dimensions of V / VD)
template <KvType KV, int HD>
__global__ void __launch_bounds__(Shape<HD>::THREADS, 2) k_attn_prompt(const __grid_constant__ Attention a) {
    using S = Shape<HD>;
    extern __shared__ __align__(16) uint8_t shared[];
    uint32_t queries = shared_address(shared), keys = queries + S::ROWS * S::PITCH,
             values = keys + S::SPAN * S::PITCH;
    pdl_wait();
    pdl_launch();
    BlockRows block = rows_of_tile(a, (int)(gridDim.y - 1 - blockIdx.y), S::ROWS);
    if (block.seq < 0) return;
    int head = blockIdx.x, v_begin = blockIdx.z * S::VD;
    int kv_head = head / (a.n_head / a.n_kv_head), first = first_seen(a, block.position),
        end = min(block.position + block.end - block.first, a.n_ctx); // positions that the block's rows see
    auto fetch_keys = [&](int32_t page, int tile) {
        fetch_tile<KV, HD, HD, S::PITCH>(keys, source_of<KV>(a, page, CACHE_K, kv_head, 0), tile, first, end);
    };
    auto fetch_values = [&](int32_t page, int tile) {
        fetch_tile<KV, HD, S::VD, S::V_PITCH>(values, source_of<KV>(a, page, CACHE_V, kv_head, v_begin), tile,
                                              first, end);
    };
    const int32_t *pages = cache_pages(&a.cache, block.seq);
    int tile = first / S::SPAN * S::SPAN;
    int32_t page = __ldcg(pages + tile / CACHE_PAGE);

    int warp_row = threadIdx.x / 32 * S::BANDS * 16;
    int first_row = block.first + warp_row, first_position = block.position + warp_row,
        last_position = first_position + S::BANDS * 16 - 1;
    int all_see = first_seen(a, last_position); // from here on all rows of the warp see what they may
    Rows<HD> rows;
    fetch_keys(page, tile);
    load_queries<HD>(shared, a, head, block);
    for (; tile < end; tile += S::SPAN) {
        int next = tile + S::SPAN;
        bool sees = first_row < block.end && tile <= last_position && next > first_seen(a, first_position);
        copy_wait<0>();
        __syncthreads(); // keys are here, and no warp reads the values of the tile before
        fetch_values(page, tile);
        if (next < end) page = __ldcg(pages + next / CACHE_PAGE); // for the next keys
        if (sees) rows.score(queries + warp_row * S::PITCH, keys);
        copy_wait<0>();
        __syncthreads(); // values are here, and no warp reads these keys
        if (next < end) fetch_keys(page, next);
        if (!sees) continue;
        if (a.softcap != 0) rows.cap(a);
        if (next > first_position + 1 || tile < all_see) rows.mask(a, first_position, tile);
        rows.weigh();
        rows.add_values(values);
    }
    rows.write(a, head, first_row, block.end, v_begin);
}

template <KvType KV, int HD> cudaError_t launch_tiles(const Launch *l, const Attention &a) {
    using S = Shape<HD>;
    dim3 grid((unsigned)a.n_head, (unsigned)(a.T / S::ROWS + a.n_pieces), // a tile of each piece is not full
              (unsigned)((a.v_dim + S::VD - 1) / S::VD));
    return launch_kernel(l, k_attn_prompt<KV, HD>, grid, dim3(S::THREADS), S::SHARED, a);
}

template <KvType KV> cudaError_t launch_type(const Launch *l, const Attention &a) {
    int dim = a.k_dim > a.v_dim ? a.k_dim : a.v_dim;
    if (dim <= 32) return launch_tiles<KV, 32>(l, a);
    if (dim <= 64) return launch_tiles<KV, 64>(l, a);
    if (dim <= 96) return launch_tiles<KV, 96>(l, a);
    if (dim <= 128) return launch_tiles<KV, 128>(l, a);
    if (dim <= 256) return launch_tiles<KV, 256>(l, a);
    return launch_tiles<KV, HEAD_DIM_MAX>(l, a);
}

} // namespace

extern "C" cudaError_t launch_attn_prompt(const Launch *l, const Attn *attn) {
    Attention a = attention_of(attn);
    if (!heads_fit(a)) return cudaErrorInvalidValue;
    switch (a.cache.layer.type) {
    case KV_F16:
        return launch_type<KV_F16>(l, a);
    case KV_Q8_0:
        return launch_type<KV_Q8_0>(l, a);
    case KV_FP8:
        return launch_type<KV_FP8>(l, a);
    default:
        return launch_type<KV_F32>(l, a);
    }
}
