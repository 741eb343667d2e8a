// sample: the last op, and the first of the next step.  See src/exec/sample.h for what each filter means.
//
// The trick: the filters leave the best few tokens, so that a BOUND which is surely no better than the worst
// of these gives a short list, in which the filters are computed by their definitions: a thread per token,
// which compares it with all others.  The bound is cheap: the best tokens of k groups are k tokens, so no
// token worse than all of them is among the k best.
//
//   k_rank    many blocks, each a tile of 1024 tokens: ranks after penalties and bans, the best rank of each
//             group of 32, the best token of all.
//   k_choose  one block per row: for greedy rows the best token; else the bound, the list of the tokens
//             within it, the filters, the draw.  Where the bound needs the weights of the whole vocabulary
//             (top-p without top-k), or the draw does, helper blocks weigh first, and the last block to
//             finish chooses.  A list that is not short (a flat distribution, many ties, a large k) is never
//             made: the block goes over all tokens instead, several times, as sample.c does.
//
// A row of random tokens is used by k_choose only, which draws a token without reading logits.
//
// Order never matters: sums are integers, and a KEY, rank and id in one number, is smaller for the better
// token.
#include "../device/device.cuh"
#include "../device/launch.cuh"
#include "../../src/exec/sample_math.h"

namespace {

using Word = unsigned long long; // an amount (weights or a count), or a key

constexpr int GROUP = 32, TILE = 1024, GROUPS = TILE / GROUP; // tokens, tokens, groups of a tile
constexpr int RANK_THREADS = TILE / 4, THREADS = TILE;        // of k_rank and k_choose
constexpr int SHORT = THREADS;                                // the longest list
constexpr int BINS = 2 * THREADS, MAX_HELPERS = 64, MAX_VOCAB = 1 << 20;
constexpr uint32_t NO_TOKEN = 0xffffffff, EVERYTHING = NO_TOKEN - 1; // the rank behind the end; a bound
static_assert(MAX_VOCAB <= TILE * THREADS, "a thread of k_choose per tile");
static_assert((2 + BINS) * 8 % 16 == 0, "ranks are written in fours");
static_assert(sizeof(RingEntry) == 8 && sizeof(DeviceSampler) % 8 == 0,
              "read and written in words of 8 bytes");

struct RowScratch { // scratch of one row
    Word *top;      // complement of the best key; zero between launches
    Word *bin;      // [BINS] weights by distance from the best; zero between launches
    Word *sum;      // [n_tiles] weights of each tile
    uint32_t *done; // finished helper blocks; zero between launches
    uint32_t *rank; // [n_tiles * TILE] NO_TOKEN behind the end, 0 for what is no logit
    uint32_t *best; // [n_tiles * GROUPS]
    int n_tiles;
};

__host__ __device__ size_t tiles_of(int n) {
    return (n + TILE - 1) / TILE;
}

__host__ __device__ size_t row_bytes(int n) {
    return ((2 + BINS) * 8 + tiles_of(n) * (8 + (TILE + GROUPS) * 4) + 255) / 256 * 256;
}

__device__ RowScratch row_of(const SampleStep &s, int r) {
    RowScratch row;
    row.n_tiles = (int)tiles_of(s.n_vocab);
    row.top = (Word *)((uint8_t *)s.scratch + r * row_bytes(s.n_vocab));
    row.done = (uint32_t *)(row.top + 1);
    row.bin = row.top + 2;
    row.rank = (uint32_t *)(row.bin + BINS); // at a multiple of 16
    row.best = row.rank + row.n_tiles * TILE;
    row.sum = (Word *)(row.best + row.n_tiles * GROUPS);
    return row;
}

// The index of wanted row r among all rows.
__device__ int row_among_all(const SampleStep &s, int r) {
    return s.loop ? r : __ldcg(s.rows.out_row + r);
}

// Read through L2: rows change between two replays of a captured step.
__device__ DeviceSampler sampler_of(const SampleStep &s, int r) {
    DeviceSampler d;
#pragma unroll
    for (int i = 0; i < (int)(sizeof d / 8); i++)
        ((Word *)&d)[i] = __ldcg((const Word *)(s.rows.sampler + r) + i);
    return d;
}

// The tokens of a sequence: the kernels read up to the row's position, and write behind it.
__device__ int32_t *history_of(const SampleStep &s, int seq) {
    return s.history.data + (size_t)seq * s.history.stride;
}

__device__ Word key_of(uint32_t rank, uint32_t id) {
    return (Word)rank << 32 | id;
}
__device__ uint32_t rank_in(Word key) {
    return (uint32_t)(key >> 32);
}

// ---- ranks: a block per tile, four tokens per thread ----------------------------------------------------

// Each block looks for its own tokens in the window of the n_history tokens, so that nothing is counted in
// device memory.
__device__ void penalise(const SampleParams &p, const int32_t *history, int n_history, int first,
                         const float logit[4], uint32_t rank[4]) {
    __shared__ int32_t count[TILE];
    bool off = p.repeat_penalty == 1 && p.presence_penalty == 0 && p.frequency_penalty == 0;
    int window = p.repeat_last_n < 0 || p.repeat_last_n > n_history ? n_history : p.repeat_last_n;
    if (off || window == 0) return;
    for (int i = threadIdx.x; i < TILE; i += RANK_THREADS) count[i] = 0;
    __syncthreads();
    const int32_t *recent = history + (n_history - window);
    for (int i = threadIdx.x; i < window; i += RANK_THREADS) {
        uint32_t at = (uint32_t)(__ldcg(recent + i) - first);
        if (at < TILE) atomicAdd(&count[at], 1);
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < 4; k++) {
        int n = count[4 * threadIdx.x + k];
        if (n) rank[k] = rank_of(penalised(logit[k], n, &p, 1));
    }
}

__device__ bool is_logit(uint32_t rank) {
    return rank >= RANK_HIGHEST && rank <= RANK_LOWEST;
}

// The tokens first_of_mine..first_of_mine+3; first_of_mine % 4 == 0.
__device__ void ban(const uint32_t *banned, int first_of_mine, int n_vocab, uint32_t rank[4]) {
    if (!banned || first_of_mine >= n_vocab) return;
    uint32_t mine = __ldcg(banned + first_of_mine / 32) >> first_of_mine % 32;
#pragma unroll
    for (int k = 0; k < 4; k++)
        if ((mine >> k & 1) && is_logit(rank[k]))
            rank[k] = RANK_LOWEST; // NaN and +Inf keep their ranks, which are an error
}

// The best key of the block goes to row.top.
__device__ void note_top(const RowScratch &row, Word key) {
    __shared__ Word best[RANK_THREADS / 32];
    uint32_t rank = __reduce_min_sync(0xffffffffu, rank_in(key));
    uint32_t id = __reduce_min_sync(0xffffffffu, rank_in(key) == rank ? (uint32_t)key : 0xffffffffu);
    if (threadIdx.x % 32 == 0) best[threadIdx.x / 32] = key_of(rank, id);
    __syncthreads();
    if (threadIdx.x) return;
    for (int w = 1; w < RANK_THREADS / 32; w++) key = min(key, best[w]);
    atomicMax(row.top, ~min(key, best[0]));
}

__global__ void __launch_bounds__(RANK_THREADS) k_rank(SampleStep s) {
    pdl_wait();
    pdl_launch();
    int r = blockIdx.y, first = blockIdx.x * TILE, id = first + 4 * threadIdx.x, t = row_among_all(s, r);
    int seq = __ldcg(s.rows.seq + t), position = __ldcg(s.rows.position + t);
    if (blockIdx.x == 0 && r == 0 && threadIdx.x == 0) *s.step = __ldcg(s.step) + 1;
    float4 v = make_float4(0, 0, 0, 0);
    if (id < s.n_vocab)
        v = __ldcg((const float4 *)(s.logits + (size_t)r * ((s.n_vocab + 15) / 16 * 16) + id));
    if (seq < 0) return;
    DeviceSampler d = sampler_of(s, r);
    if (d.params.random_tokens) return;
    RowScratch row = row_of(s, r);
    float logit[4] = {v.x, v.y, v.z, v.w};
    uint32_t rank[4], best = NO_TOKEN;
    Word key = ~0ull;
#pragma unroll
    for (int k = 0; k < 4; k++) rank[k] = rank_of(logit[k]);
    penalise(d.params, history_of(s, seq), position + 1, first, logit, rank);
    ban(d.banned, id, s.n_vocab, rank);
#pragma unroll
    for (int k = 0; k < 4; k++) {
        rank[k] = id + k >= s.n_vocab ? NO_TOKEN : is_logit(rank[k]) ? rank[k] : 0;
        best = min(best, rank[k]);
        key = min(key, key_of(rank[k], id + k));
    }
    *(uint4 *)(row.rank + id) = make_uint4(rank[0], rank[1], rank[2], rank[3]);
#pragma unroll
    for (int offset = 1; offset < GROUP / 4; offset *= 2)
        best = min(best, __shfl_xor_sync(0xffffffffu, best, offset));
    if (id % GROUP == 0) row.best[id / GROUP] = best;
    note_top(row, key);
}

// ---- what the choosing block, and its helpers, share ----------------------------------------------------

struct Weigher {
    float max, temp;
    __device__ Word operator()(uint32_t rank) const {
        return weight_of(over(minus(logit_of(rank), max), temp));
    }
};

struct Crossing { // where a running sum passes a target, and how much of the target lies there
    int at;
    Word rest;
};

__shared__ uint32_t bin_low[BINS], bin_high[BINS]; // halves of words: the hardware adds 32 bits at once
__shared__ Word tile_sum[THREADS];
__shared__ Word list[SHORT], amount[SHORT];

// The sum of v over the threads before this one; *total is that over all.
__device__ Word scan(Word v, Word *total) {
    __shared__ Word warp_sum[THREADS / 32];
    Word mine = v;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
        Word before = __shfl_up_sync(0xffffffffu, v, offset);
        if (lane >= offset) v += before;
    }
    __syncthreads();
    if (lane == 31) warp_sum[warp] = v;
    __syncthreads();
    Word sum = warp_sum[lane];
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
        Word before = __shfl_up_sync(0xffffffffu, sum, offset);
        if (lane >= offset) sum += before;
    }
    *total = __shfl_sync(0xffffffffu, sum, 31);
    Word warps_before = __shfl_sync(0xffffffffu, sum, (warp + 31) % 32);
    return (warp ? warps_before : 0) + v - mine;
}

// The thread whose amount takes the running sum over target(total).
template <class Target> __device__ Crossing find(Word mine, Target target) {
    __shared__ Crossing crossing;
    Word total, before = scan(mine, &total), sought = target(total);
    if (before <= sought && sought - before < mine) crossing = {(int)threadIdx.x, sought - before};
    __syncthreads();
    Crossing found = crossing;
    __syncthreads();
    return found;
}

__device__ void clear_bins() {
    for (int i = threadIdx.x; i < BINS; i += THREADS) bin_low[i] = bin_high[i] = 0;
    __syncthreads();
}

__device__ void add_to_bin(uint32_t i, Word w) {
    uint32_t low = (uint32_t)w, high = (uint32_t)(w >> 32);
    if (low) high += atomicAdd(&bin_low[i], low) + low < low;
    if (high) atomicAdd(&bin_high[i], high);
}

__device__ Word bin_at(int i) {
    return (Word)bin_high[i] << 32 | bin_low[i];
}

template <class Target> __device__ Crossing find_bin(Target target) {
    Crossing p = find(bin_at(2 * threadIdx.x) + bin_at(2 * threadIdx.x + 1), target);
    Word first = bin_at(2 * p.at);
    __syncthreads();
    return p.rest < first ? Crossing{2 * p.at, p.rest} : Crossing{2 * p.at + 1, p.rest - first};
}

// visit(tile, rank) for this thread's token of the tiles first, first + step, ..., by whole warps.
template <class Visit> __device__ void each_token(const RowScratch &row, int first, int step, Visit visit) {
    constexpr int N = 8; // loads in flight
    for (int tile = first; tile < row.n_tiles; tile += N * step) {
        uint32_t rank[N];
#pragma unroll
        for (int i = 0; i < N; i++)
            rank[i] = tile + i * step < row.n_tiles
                          ? __ldcg(row.rank + (tile + i * step) * TILE + threadIdx.x)
                          : NO_TOKEN;
#pragma unroll
        for (int i = 0; i < N; i++)
            if (tile + i * step < row.n_tiles) visit(tile + i * step, rank[i]);
    }
}

// tile_sum of the tiles first, first + step, ...; weigh gives the amount of a key.
template <class Weigh> __device__ void sum_tiles(const RowScratch &row, int first, int step, Weigh weigh) {
    tile_sum[threadIdx.x] = 0;
    __syncthreads();
    each_token(row, first, step, [=](int tile, uint32_t rank) {
        Word sum = weigh(key_of(rank, tile * TILE + threadIdx.x));
#pragma unroll
        for (int offset = 16; offset; offset >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
        if (threadIdx.x % 32 == 0 && sum) atomicAdd(&tile_sum[tile], sum);
    });
    __syncthreads();
}

// The key of the first token, in ascending id, that takes the running amount over target(total); tile_sum
// holds the amounts.
template <class Weigh, class Target>
__device__ Word find_token(const RowScratch &row, Weigh weigh, Target target) {
    __shared__ Word found;
    Crossing tile = find(tile_sum[threadIdx.x], target);
    uint32_t id = tile.at * TILE + threadIdx.x;
    Word key = key_of(__ldcg(row.rank + id), id);
    Crossing token = find(weigh(key), [=](Word) { return tile.rest; });
    if (token.at == (int)threadIdx.x) found = key;
    __syncthreads();
    key = found;
    __syncthreads();
    return key;
}

// ---- weighing the whole vocabulary ----------------------------------------------------------------------

__device__ bool counts(const SampleParams &p, int n_vocab) {
    return p.top_k > 0 && p.top_k < n_vocab;
}
// A min-p below the weights' resolution keeps every token, those of weight 0 too.
__device__ bool drops_light(const SampleParams &p) {
    return share(p.min_p, weight_of(0)) > 0;
}
__device__ bool weighs_all(const SampleParams &p, int n_vocab) {
    return !p.random_tokens && p.temp > 0 && !counts(p, n_vocab) && (p.top_p < 1 || !drops_light(p));
}

constexpr float BINS_PER_UNIT = 64; // of the logarithm: weights end at 29.12

// A helper's part: the weights of its tiles at temperature 1 by distance from the best, for top-p; without
// any filter the sums of its tiles, for the draw.
__device__ void weigh_tiles(const RowScratch &row, const SampleParams &p) {
    float max = logit_of(rank_in(~__ldcg(row.top)));
    int first = blockIdx.x, step = gridDim.x;
    if (p.top_p < 1) {
        Weigher plain = {max, 1};
        clear_bins();
        each_token(row, first, step, [=](int, uint32_t rank) {
            if (rank == NO_TOKEN) return;
            uint32_t bin = __float2uint_rz(times(minus(max, logit_of(rank)), BINS_PER_UNIT));
            add_to_bin(min(bin, BINS - 1), plain(rank));
        });
        __syncthreads();
        for (int i = threadIdx.x; i < BINS; i += THREADS)
            if (bin_at(i)) atomicAdd(row.bin + i, bin_at(i));
    } else {
        Weigher weigh = {max, p.temp};
        sum_tiles(row, first, step,
                  [=](Word key) { return rank_in(key) == NO_TOKEN ? 0 : weigh(rank_in(key)); });
        for (int tile = first + step * threadIdx.x; tile < row.n_tiles; tile += step * THREADS)
            row.sum[tile] = tile_sum[tile];
    }
}

// Whether all other helpers of the row are done, and what they wrote can be read.
__device__ bool is_last(const RowScratch &row) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicInc(row.done, gridDim.x - 1) == gridDim.x - 1;
    __syncthreads();
    __threadfence();
    return last;
}

// ---- the bound and the short list -----------------------------------------------------------------------

// No better than the rank of the k-th best token: the k-th best of the threads' bests, its last bits not
// sought.
__device__ uint32_t bound_of_count(const RowScratch &row, int k) {
    constexpr int N = 8, LAST_BIT = 10;
    int n = row.n_tiles * GROUPS;
    uint32_t best = NO_TOKEN, bound = 0;
    for (int first = threadIdx.x; first < n; first += N * THREADS) {
        uint32_t some[N];
#pragma unroll
        for (int i = 0; i < N; i++)
            some[i] = first + i * THREADS < n ? __ldcg(row.best + first + i * THREADS) : NO_TOKEN;
#pragma unroll
        for (int i = 0; i < N; i++) best = min(best, some[i]);
    }
    for (int bit = 31; bit >= LAST_BIT; bit--)
        if (__syncthreads_count(best <= (bound | ((1u << bit) - 1))) < k) bound |= 1u << bit;
    return min(bound | ((1u << LAST_BIT) - 1), EVERYTHING);
}

// No better than the worst token that top-p leaves of all; *total is the weight of all.
__device__ uint32_t bound_of_weight(const RowScratch &row, float max, float top_p, Word *total) {
    for (int i = threadIdx.x; i < BINS; i += THREADS) {
        Word w = __ldcg(row.bin + i);
        bin_low[i] = (uint32_t)w;
        bin_high[i] = (uint32_t)(w >> 32);
    }
    __syncthreads();
    Crossing border = find_bin([=](Word sum) {
        *total = sum;
        Word want = share(top_p, sum);
        return want ? want - 1 : 0;
    });
    return rank_of(minus(max, (border.at + 1) / BINS_PER_UNIT));
}

// No better than the worst token that min-p leaves, with room for the errors of logarithm and weight.
__device__ uint32_t bound_of_share(float max, float min_p) {
    return rank_of(max + (logf(min_p) * 1.001f - 0.01f));
}

// Puts the tokens within the bound on the list, in no order; returns how many there are, or SHORT + 1 if more
// than fit.
__device__ int gather(const RowScratch &row, uint32_t bound) {
    constexpr int N = 4; // loads in flight
    __shared__ int n_groups, n_list;
    __shared__ int group[SHORT];
    int n = row.n_tiles * GROUPS, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (threadIdx.x == 0) n_groups = n_list = 0;
    __syncthreads();
    for (int first = threadIdx.x; first < n; first += N * THREADS) {
        uint32_t best[N];
#pragma unroll
        for (int i = 0; i < N; i++)
            best[i] = first + i * THREADS < n ? __ldcg(row.best + first + i * THREADS) : NO_TOKEN;
#pragma unroll
        for (int i = 0; i < N; i++) {
            if (best[i] > bound) continue;
            int at = atomicAdd(&n_groups, 1);
            if (at < SHORT) group[at] = first + i * THREADS;
        }
    }
    __syncthreads();
    if (n_groups > SHORT) return SHORT + 1; // each has at least one
    for (int first = warp; first < n_groups; first += N * (THREADS / 32)) {
        uint32_t id[N], rank[N];
#pragma unroll
        for (int i = 0; i < N; i++) {
            bool some = first + i * (THREADS / 32) < n_groups;
            id[i] = some ? group[first + i * (THREADS / 32)] * GROUP + lane : 0;
            rank[i] = some ? __ldcg(row.rank + id[i]) : NO_TOKEN;
        }
#pragma unroll
        for (int i = 0; i < N; i++) {
            if (rank[i] > bound) continue;
            int at = atomicAdd(&n_list, 1);
            if (at < SHORT) list[at] = key_of(rank[i], id[i]);
        }
    }
    __syncthreads();
    return min(n_list, SHORT + 1);
}

// The definitions of sample.h, a thread per token of the list; total: weights of all tokens at temperature 1
// where top-k is off.
__device__ int32_t choose_of_list(int n, const SampleParams &p, int k, float max, Word total,
                                  uint64_t random) {
    __shared__ int n_kept;
    __shared__ int32_t chosen;
    int i = threadIdx.x;
    Weigher plain = {max, 1}, weigh = {max, p.temp};
    bool in = i < n;
    Word mine = in ? list[i] : 0;
    if (k > 0) {
        int better = 0;
        if (in)
            for (int j = 0; j < n; j++) better += list[j] < mine;
        if (i == 0) n_kept = 0;
        __syncthreads();
        if (in && better < k) list[atomicAdd(&n_kept, 1)] = mine;
        __syncthreads();
        n = n_kept;
        in = i < n;
        mine = in ? list[i] : 0;
    }
    if (p.top_p < 1) {
        if (in) amount[i] = plain(rank_in(mine));
        __syncthreads();
        Word sum = 0, better = 0;
        if (in)
            for (int j = 0; j < n; j++) {
                sum += amount[j];
                better += list[j] < mine ? amount[j] : 0;
            }
        Word want = share(p.top_p, k > 0 ? sum : total);
        in = in && better < (want ? want : 1);
        __syncthreads();
    }
    if (p.min_p > 0) in = in && plain(rank_in(mine)) >= share(p.min_p, weight_of(0));
    Word weight = in ? weigh(rank_in(mine)) : 0, sum = 0, before = 0;
    if (i < n) amount[i] = weight;
    __syncthreads();
    if (in)
        for (int j = 0; j < n; j++) {
            sum += amount[j];
            before += (uint32_t)list[j] < (uint32_t)mine ? amount[j] : 0;
        }
    Word target = multiply_high(random, sum);
    if (in && before <= target && target - before < weight) chosen = (int32_t)(uint32_t)mine;
    __syncthreads();
    return chosen;
}

// ---- lists that are not short ---------------------------------------------------------------------------

// The worst key of the fewest of the best whose amounts reach want(total) > 0, out of those within the limit.
template <class Weigh, class Want>
__device__ Word cut(const RowScratch &row, Word limit, Weigh weigh, Want want) {
    uint32_t border = 0, known = 0;
    Word rest = 0;
    for (int shift = 21; shift >= 0; shift = shift == 21 ? 10 : shift - 10) {
        uint32_t mask = shift ? 0x7ff : 0x3ff;
        clear_bins();
        each_token(row, 0, 1, [=](int tile, uint32_t rank) {
            if (key_of(rank, tile * TILE + threadIdx.x) <= limit && (rank & known) == border)
                add_to_bin(rank >> shift & mask, weigh(rank));
        });
        __syncthreads();
        Crossing bin = find_bin([=](Word total) { return known ? rest : want(total) - 1; });
        border |= bin.at << shift;
        known |= mask << shift;
        rest = bin.rest;
    }
    auto equals = [=](Word key) { return key <= limit && rank_in(key) == border ? weigh(border) : 0; };
    sum_tiles(row, 0, 1, equals);
    return find_token(row, equals, [=](Word) { return rest; });
}

__device__ int32_t choose_of_all(const RowScratch &row, const SampleParams &p, int k, float max, bool summed,
                                 uint64_t random) {
    Weigher plain = {max, 1}, weigh = {max, p.temp};
    Word limit = key_of(NO_TOKEN, 0) - 1;
    if (k > 0)
        limit = cut(
            row, limit, [](uint32_t) { return 1ull; }, [=](Word) { return (Word)k; });
    if (p.top_p < 1)
        limit = cut(row, limit, plain, [&](Word total) {
            Word want = share(p.top_p, total);
            return want ? want : 1;
        });
    Word least = p.min_p > 0 ? share(p.min_p, weight_of(0)) : 0;
    auto left = [=](Word key) {
        return key <= limit && (least == 0 || plain(rank_in(key)) >= least) ? weigh(rank_in(key)) : 0;
    };
    if (summed)
        tile_sum[threadIdx.x] = (int)threadIdx.x < row.n_tiles ? __ldcg(row.sum + threadIdx.x) : 0;
    else
        sum_tiles(row, 0, 1, left);
    return (int32_t)(uint32_t)find_token(row, left, [=](Word total) { return multiply_high(random, total); });
}

// ---- the choice -----------------------------------------------------------------------------------------

// A random token, or the next one that is not banned; -1 where all are.
__device__ int32_t choose_any(const uint32_t *banned, int n_vocab, uint64_t random) {
    int32_t id = any_token(random, n_vocab);
    for (int tries = 0; tries < n_vocab; tries++) {
        if (!banned || !(__ldcg(banned + id / 32) >> id % 32 & 1)) return id;
        id = id + 1 < n_vocab ? id + 1 : 0;
    }
    return -1;
}

// position: that of the token to be chosen.
__device__ int32_t choose(const RowScratch &row, const DeviceSampler &d, int n_vocab, int position) {
    const SampleParams &p = d.params;
    uint64_t random = random_bits(p.seed, (uint64_t)position, 0);
    if (p.random_tokens) return choose_any(d.banned, n_vocab, random);
    Word top = ~__ldcg(row.top);
    if (rank_in(top) < RANK_HIGHEST || rank_in(top) >= RANK_LOWEST) return -1;
    if (p.temp == 0) return (int32_t)(uint32_t)top;
    float max = logit_of(rank_in(top));
    int k = counts(p, n_vocab) ? p.top_k : 0;
    Word total = 0;
    uint32_t bound = EVERYTHING;
    if (k > 0) {
        if (k <= SHORT) bound = bound_of_count(row, k);
    } else {
        if (p.top_p < 1) bound = bound_of_weight(row, max, p.top_p, &total);
        if (drops_light(p)) bound = min(bound, bound_of_share(max, p.min_p));
    }
    int n = bound < EVERYTHING || n_vocab <= SHORT ? gather(row, bound) : SHORT + 1;
    if (n <= SHORT) return choose_of_list(n, p, k, max, total, random);
    return choose_of_all(row, p, k, max, weighs_all(p, n_vocab) && p.top_p == 1, random);
}

// Writes the input of the next step for a row of the decode loop.
__device__ void advance(const SampleStep &s, int r, int seq, int position, int32_t token) {
    s.rows.token[r] = token;
    s.rows.position[r] = position;
    if (token >= 0) history_of(s, seq)[position] = token;
}

__global__ void __launch_bounds__(THREADS) k_choose(SampleStep s) {
    pdl_wait();
    pdl_launch();
    int r = blockIdx.y, t = row_among_all(s, r);
    int seq = __ldcg(s.rows.seq + t), position = __ldcg(s.rows.position + t) + 1;
    if (seq < 0) return;
    uint32_t step = __ldcg(s.step);
    RowScratch row = row_of(s, r);
    DeviceSampler d = sampler_of(s, r);
    bool helped = weighs_all(d.params, s.n_vocab);
    if (helped) weigh_tiles(row, d.params);
    if (helped ? !is_last(row) : blockIdx.x > 0) return;
    int32_t token = choose(row, d, s.n_vocab, position);
    __syncthreads();
    if (helped)
        for (int i = threadIdx.x; i < BINS; i += THREADS) row.bin[i] = 0;
    if (threadIdx.x) return;
    *row.top = 0;
    if (s.loop) advance(s, r, seq, position, token);
    RingEntry *entry = s.ring + (size_t)((step - 1) % s.ring_steps) * s.ring_rows + r;
    *(volatile Word *)entry = (Word)step << 32 | (uint32_t)token; // one store: the host reads both or neither
}

} // namespace

extern "C" size_t sample_device_scratch_bytes(int R, int n_vocab) {
    return R * row_bytes(n_vocab);
}

extern "C" cudaError_t launch_sample(const Launch *l, const SampleStep *s) {
    if (s->R <= 0 || s->n_vocab <= 0 || s->n_vocab > MAX_VOCAB) return cudaErrorInvalidValue;
    unsigned n_tiles = (unsigned)tiles_of(s->n_vocab),
             helpers = (unsigned)max(1, min(MAX_HELPERS, l->n_sm / s->R));
    cudaError_t error = launch_kernel(l, k_rank, dim3(n_tiles, s->R), RANK_THREADS, 0, *s);
    if (error != cudaSuccess) return error;
    return launch_kernel(l, k_choose, dim3(min(n_tiles, helpers), s->R), THREADS, 0, *s);
}
