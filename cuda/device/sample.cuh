// sample: what the kernels of the sampler share: the scratch of a row, and what a block of THREADS threads
// does with all of its tokens.  See kernel/sample.cu for the whole.
#pragma once
#include "device.cuh"
#include <cstddef>
#include "../launch.h"
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
    uint32_t *note; // [n_tiles * TILE] a number of each token; zero between launches
    int n_tiles;
};

__host__ __device__ size_t tiles_of(int n) {
    return (n + TILE - 1) / TILE;
}

__host__ __device__ size_t row_bytes(int n) {
    return ((2 + BINS) * 8 + tiles_of(n) * (8 + (2 * TILE + GROUPS) * 4) + 255) / 256 * 256;
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
    row.note = (uint32_t *)(row.sum + row.n_tiles);
    return row;
}

// The index of wanted row r among all rows.
__device__ int row_among_all(const SampleStep &s, int r) {
    return s.loop ? r : __ldcg(s.rows.out_row + r);
}

// What the usual chain needs of a sampler; the fields behind are not read.  Through L2: rows change between
// two replays of a captured step.
__device__ DeviceSampler sampler_of(const SampleStep &s, int r) {
    constexpr int WORDS = offsetof(DeviceSampler, params.order) / 8;
    DeviceSampler d;
#pragma unroll
    for (int i = 0; i < WORDS; i++) ((Word *)&d)[i] = __ldcg((const Word *)(s.rows.sampler + r) + i);
    return d;
}

// The tokens of a sequence: the kernels read up to the row's position, and write behind it.
__device__ int32_t *history_of(const SampleStep &s, int seq) {
    return s.history.data + (size_t)seq * s.history.stride;
}

// mirostat's mu of a sequence, by the position of the row that left it.
__device__ float *mu_of(const SampleStep &s, int seq) {
    return s.history.mu + (size_t)seq * s.history.stride;
}

__device__ Word key_of(uint32_t rank, uint32_t id) {
    return (Word)rank << 32 | id;
}
__device__ uint32_t rank_in(Word key) {
    return (uint32_t)(key >> 32);
}

__device__ bool is_logit(uint32_t rank) {
    return rank >= RANK_HIGHEST && rank <= RANK_LOWEST;
}

// ---- blocks of THREADS threads, over all tokens of a row ------------------------------------------------

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
__shared__ Word list[SHORT];

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

// ---- lists ----------------------------------------------------------------------------------------------

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

// ---- cuts -----------------------------------------------------------------------------------------------

// The last token of the fewest whose amounts reach want(total) > 0, in the order of sort(rank), then of ids,
// out of those within the limit.
template <class Sort, class Weigh, class Want>
__device__ Word cut(const RowScratch &row, Word limit, Sort sort, Weigh weigh, Want want) {
    uint32_t border = 0, known = 0;
    Word rest = 0;
    for (int shift = 21; shift >= 0; shift = shift == 21 ? 10 : shift - 10) {
        uint32_t mask = shift ? 0x7ff : 0x3ff;
        clear_bins();
        each_token(row, 0, 1, [=](int tile, uint32_t rank) {
            if (key_of(rank, tile * TILE + threadIdx.x) <= limit && (sort(rank) & known) == border)
                add_to_bin(sort(rank) >> shift & mask, weigh(rank));
        });
        __syncthreads();
        Crossing bin = find_bin([=](Word total) { return known ? rest : want(total) - 1; });
        border |= bin.at << shift;
        known |= mask << shift;
        rest = bin.rest;
    }
    auto equals = [=](Word key) {
        return key <= limit && sort(rank_in(key)) == border ? weigh(rank_in(key)) : 0;
    };
    sum_tiles(row, 0, 1, equals);
    return find_token(row, equals, [=](Word) { return rest; });
}

// ---- the end --------------------------------------------------------------------------------------------

// Writes the input of the next step for a row of the decode loop.
__device__ void advance(const SampleStep &s, int r, int seq, int position, int32_t token) {
    s.rows.token[r] = token;
    s.rows.position[r] = position;
    if (token >= 0) history_of(s, seq)[position] = token;
}

// One thread ends the choice of a row.
__device__ void end_row(const SampleStep &s, int r, int seq, int position, uint32_t step, int32_t token) {
    *row_of(s, r).top = 0;
    if (s.loop) advance(s, r, seq, position, token);
    RingEntry *entry = s.ring + (size_t)((step - 1) % s.ring_steps) * s.ring_rows + r;
    *(volatile Word *)entry = (Word)step << 32 | (uint32_t)token; // one store: the host reads both or neither
}

} // namespace

// Chooses for the rows whose chain is not the usual one, behind the kernels of launch_sample.
cudaError_t launch_chain(const Launch *l, const SampleStep *s);
