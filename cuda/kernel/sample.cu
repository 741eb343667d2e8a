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
// A row of random tokens is used by k_choose only, which draws a token without reading logits.  A row with another
// chain of filters is left by k_choose to the kernel of chain.cu, which is launched where there is such a row.
//
// Order never matters: sums are integers, and a KEY, rank and id in one number, is smaller for the better
// token.
#include "../device/launch.cuh"
#include "../device/sample.cuh"

namespace {

// ---- ranks: a block per tile, four tokens per thread ----------------------------------------------------

// Each block looks for its own tokens in the window of the n_history tokens, so that nothing is counted in
// device memory.
__device__ void penalise(const SampleParams &p, const int32_t *history, int n_history, int first,
                         const float logit[4], uint32_t rank[4]) {
    __shared__ int32_t count[TILE];
    int window = window_of(p.repeat_last_n, n_history);
    if (!filter_is_on(&p, FILTER_PENALTIES) || window == 0) return;
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

// The tokens first_of_mine..first_of_mine+3, as those of ban.
__device__ void add_biases(const SampleParams &p, int first_of_mine, float logit[4]) {
    for (int i = 0; i < p.n_bias; i++) {
        int at = __ldcg(&p.bias[i].id) - first_of_mine;
        float bias = __ldcg(&p.bias[i].bias);
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (at == k) logit[k] = plus(logit[k], bias);
    }
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
    add_biases(d.params, id, logit);
#pragma unroll
    for (int k = 0; k < 4; k++) rank[k] = rank_of(logit[k]);
    if (!d.chain) penalise(d.params, history_of(s, seq), position + 1, first, logit, rank);
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

__shared__ Word amount[SHORT];

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

__device__ int32_t choose_of_all(const RowScratch &row, const SampleParams &p, int k, float max, bool summed,
                                 uint64_t random) {
    Weigher plain = {max, 1}, weigh = {max, p.temp};
    Word limit = key_of(NO_TOKEN, 0) - 1;
    auto by_rank = [](uint32_t rank) { return rank; };
    if (k > 0)
        limit = cut(
            row, limit, by_rank, [](uint32_t) { return 1ull; }, [=](Word) { return (Word)k; });
    if (p.top_p < 1)
        limit = cut(row, limit, by_rank, plain, [&](Word total) {
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

__global__ void __launch_bounds__(THREADS) k_choose(SampleStep s) {
    pdl_wait();
    pdl_launch();
    int r = blockIdx.y, t = row_among_all(s, r);
    int seq = __ldcg(s.rows.seq + t), position = __ldcg(s.rows.position + t) + 1;
    if (seq < 0) return;
    uint32_t step = __ldcg(s.step);
    RowScratch row = row_of(s, r);
    DeviceSampler d = sampler_of(s, r);
    if (d.chain) return;
    bool helped = weighs_all(d.params, s.n_vocab);
    if (helped) weigh_tiles(row, d.params);
    if (helped ? !is_last(row) : blockIdx.x > 0) return;
    int32_t token = choose(row, d, s.n_vocab, position);
    __syncthreads();
    if (helped)
        for (int i = threadIdx.x; i < BINS; i += THREADS) row.bin[i] = 0;
    if (threadIdx.x == 0) end_row(s, r, seq, position, step, token);
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
    error = launch_kernel(l, k_choose, dim3(min(n_tiles, helpers), s->R), THREADS, 0, *s);
    return error == cudaSuccess && s->chain ? launch_chain(l, s) : error;
}
