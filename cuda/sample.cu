// sample: the last op, and the first of the next step.  See src/exec/sample.h for what each filter means.
//
// k_rank turns logits into ranks with many blocks, counts the ranks by their first digit (11 bits), and notes for each slice of the
// vocabulary the best rank in it.  k_choose, one block per row, corrects the ranks of the few penalised or banned tokens, gathers the
// tokens that can matter (for greedy and top-k: those whose first digit is not beyond the border's; slices without any are skipped), and goes
// on as sample.c does, on lists that stay in ascending id.  Sums are integers, so that no order of adding matters.
#include "device.cuh"
#include "launch.cuh"
#include "../src/exec/sample_math.h"

namespace {

constexpr int SLICES = 64, RANK_THREADS = 256, THREADS = 1024, OWNERS = THREADS / SLICES; // threads of k_choose per slice
constexpr int BINS = 2048;
constexpr uint32_t FIRST_SHIFT = 21;

struct Row { // scratch of one row
    uint32_t *rank;     // [n]
    int32_t *count;     // [n], zero between launches
    uint32_t *bins;     // [BINS] first digits, zero between launches
    uint32_t *slice;    // [SLICES] best rank of each, RANK_LOWEST or worse for none
    uint32_t *damaged;  // not 0: a NaN or +Inf was seen; zero between launches
    uint32_t *list[2];  // [n] ranks of candidates, two lists in turn
    int32_t *id[2];     // [n] their ids, ascending
};

__host__ __device__ size_t row_bytes(int n) { return ((size_t)n * 24 + (BINS + SLICES + 1) * 4 + 255) / 256 * 256; }

__device__ Row row_of(void *scratch, int r, int n) {
    uint32_t *p = (uint32_t *)((uint8_t *)scratch + (size_t)r * row_bytes(n));
    Row row;
    row.bins = p, p += BINS;
    row.slice = p, p += SLICES;
    row.damaged = p, p += 1;
    row.count = (int32_t *)p, p += n;
    row.rank = p, p += n;
    for (int i = 0; i < 2; i++) row.list[i] = p, p += n, row.id[i] = (int32_t *)p, p += n;
    return row;
}

__device__ int part_of(int n) { return (n + THREADS - 1) / THREADS; } // tokens per thread of k_choose
__device__ bool out_of_range(uint32_t rank) { return rank < RANK_HIGHEST || rank > RANK_LOWEST; }

__global__ void __launch_bounds__(RANK_THREADS) k_rank(SampleStep s) {
    __shared__ uint32_t bins[BINS], best, damaged;
    pdl_launch();
    for (int i = threadIdx.x; i < BINS; i += RANK_THREADS) bins[i] = 0;
    if (threadIdx.x == 0) best = 0xffffffffu, damaged = 0;
    __syncthreads();
    pdl_wait();
    int r = blockIdx.y, n = s.n_vocab, length = part_of(n) * OWNERS, first = blockIdx.x * length;
    if (__ldcg(s.seq + r) < 0) return;
    Row row = row_of(s.scratch, r, n);
    const float *logits = s.logits + (size_t)r * ((n + 15) / 16 * 16);
    uint32_t mine = 0xffffffffu, wrong = 0;
    for (int i = first + threadIdx.x; i < first + length && i < n; i += RANK_THREADS) {
        uint32_t rank = rank_of(__ldcg(logits + i));
        row.rank[i] = rank;
        atomicAdd(&bins[rank >> FIRST_SHIFT], 1u);
        mine = min(mine, rank);
        wrong |= out_of_range(rank);
    }
    atomicMin(&best, mine);
    if (wrong) damaged = 1;
    __syncthreads();
    for (int i = threadIdx.x; i < BINS; i += RANK_THREADS)
        if (bins[i]) atomicAdd(row.bins + i, bins[i]);
    if (threadIdx.x == 0) row.slice[blockIdx.x] = best;
    if (threadIdx.x == 0 && damaged) *row.damaged = 1;
}

// ---- one block per row -----------------------------------------------------------------------------------------

__shared__ uint64_t shared_sum[THREADS / 32], shared_value[2];
__shared__ uint64_t histogram[BINS];

// The sum of v over the threads before this one; *total is that over all.
__device__ uint64_t scan(uint64_t v, uint64_t *total) {
    uint64_t mine = v;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
        uint64_t before = __shfl_up_sync(0xffffffffu, v, offset);
        if (lane >= offset) v += before;
    }
    __syncthreads();
    if (lane == 31) shared_sum[warp] = v;
    __syncthreads();
    uint64_t sum = shared_sum[lane];
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
        uint64_t before = __shfl_up_sync(0xffffffffu, sum, offset);
        if (lane >= offset) sum += before;
    }
    *total = __shfl_sync(0xffffffffu, sum, 31);
    uint64_t warps_before = warp ? __shfl_sync(0xffffffffu, sum, warp - 1) : 0;
    return warps_before + v - mine;
}

struct List { // candidates, ids ascending
    int n, which;
};

// Rank of token id becomes `rank`, and the counts follow.
__device__ void set_rank(const Row &row, int n, int id, uint32_t rank) {
    uint32_t old = atomicExch(row.rank + id, rank);
    atomicSub(row.bins + (old >> FIRST_SHIFT), 1u);
    atomicAdd(row.bins + (rank >> FIRST_SHIFT), 1u);
    atomicMin(row.slice + id / (part_of(n) * OWNERS), rank);
    if (out_of_range(rank)) *row.damaged = 1;
}

__device__ void penalise(const SampleStep &s, const DeviceSampler &d, const Row &row, const float *logits) {
    const SampleParams &p = d.params;
    bool off = p.repeat_penalty == 1 && p.presence_penalty == 0 && p.frequency_penalty == 0;
    int window = p.repeat_last_n < 0 || p.repeat_last_n > d.n_history ? d.n_history : p.repeat_last_n;
    if (!off && window > 0) {
        const int32_t *recent = d.history + (d.n_history - window);
        for (int i = threadIdx.x; i < window; i += THREADS) atomicAdd(row.count + recent[i], 1);
        __syncthreads();
        for (int i = threadIdx.x; i < window; i += THREADS) { // whoever takes the count does the token
            int32_t id = recent[i], count = atomicExch(row.count + id, 0);
            if (count) set_rank(row, s.n_vocab, id, rank_of(penalised(__ldcg(logits + id), count, p.repeat_penalty, p.presence_penalty, p.frequency_penalty)));
        }
        __syncthreads();
    }
    for (int i = threadIdx.x; i < p.n_banned; i += THREADS) {
        int32_t id = p.banned[i];
        if (!out_of_range(__ldcg(row.rank + id))) set_rank(row, s.n_vocab, id, RANK_LOWEST);
    }
    __syncthreads();
}

// The bin in which the running sum reaches want, and the sum before it; a and b are this thread's two bins.
__device__ void find_bin(uint64_t a, uint64_t b, uint64_t want, uint32_t *bin, uint64_t *before) {
    uint64_t total, sum = scan(a + b, &total);
    if (sum < want && sum + a >= want) shared_value[0] = 2 * threadIdx.x, shared_value[1] = sum;
    else if (sum + a < want && sum + a + b >= want) shared_value[0] = 2 * threadIdx.x + 1, shared_value[1] = sum + a;
    __syncthreads();
    *bin = (uint32_t)shared_value[0], *before = shared_value[1];
    __syncthreads();
}

// Each thread keeps, of its stretch of the list, what `wanted` (rank) says; order stays.
template <class F> __device__ List filter(const Row &row, const List &list, F wanted) {
    int part = part_of(list.n), first = threadIdx.x * part, last = min(first + part, list.n), to = list.which ^ 1;
    uint64_t n = 0, total;
    for (int i = first; i < last; i++) n += wanted(row.list[list.which][i]);
    uint64_t at = scan(n, &total);
    for (int i = first; i < last; i++) {
        uint32_t rank = row.list[list.which][i];
        if (wanted(rank)) row.list[to][at] = rank, row.id[to][at++] = row.id[list.which][i];
    }
    __syncthreads();
    return {(int)total, to};
}

// The same out of the whole vocabulary; stretches of slices whose best is beyond the border are not read.
__device__ List gather(const Row &row, int n_vocab, uint32_t last_rank) {
    int part = part_of(n_vocab), first = threadIdx.x * part, last = min(first + part, n_vocab);
    if (__ldcg(row.slice + threadIdx.x / OWNERS) > last_rank) last = first;
    uint64_t n = 0, total;
    for (int i = first; i < last; i++) n += __ldcg(row.rank + i) <= last_rank;
    uint64_t at = scan(n, &total);
    for (int i = first; i < last; i++)
        if (__ldcg(row.rank + i) <= last_rank) row.list[0][at] = __ldcg(row.rank + i), row.id[0][at++] = i;
    __syncthreads();
    return {(int)total, 0};
}

struct Weigher {
    float max, temp;
    __device__ uint64_t operator()(uint32_t rank) const { return weight_of(over(minus(logit_of(rank), max), temp)); }
};
struct Counter {
    __device__ uint64_t operator()(uint32_t) const { return 1; }
};

// The fewest of the best whose amounts reach want; the digits before `digit` are known to be border's.
template <class Amount> __device__ List cut(const Row &row, List list, Amount amount, uint64_t want, int digit, uint32_t border, uint64_t before) {
    const int shifts[3] = {21, 10, 0};
    const uint32_t masks[3] = {0x7ff, 0x7ff, 0x3ff};
    uint32_t known = digit ? masks[0] << shifts[0] : 0;
    for (int d = digit; d < 3; d++) {
        for (int i = threadIdx.x; i < BINS; i += THREADS) histogram[i] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < list.n; i += THREADS) {
            uint32_t rank = row.list[list.which][i];
            if ((rank & known) == border) atomicAdd((unsigned long long *)&histogram[rank >> shifts[d] & masks[d]], (unsigned long long)amount(rank));
        }
        __syncthreads();
        uint32_t bin;
        uint64_t inside;
        find_bin(histogram[2 * threadIdx.x], histogram[2 * threadIdx.x + 1], want - before, &bin, &inside);
        before += inside;
        border |= bin << shifts[d], known |= masks[d] << shifts[d];
        list = filter(row, list, [=](uint32_t rank) { return (rank & known) <= border; });
    }
    // Equal logits at the border: the lower ids first, as many as are still wanted.
    uint64_t each = amount(border), left = each ? (want - before + each - 1) / each : 0;
    int part = part_of(list.n), first = threadIdx.x * part, last = min(first + part, list.n), to = list.which ^ 1;
    uint64_t equals = 0, total;
    for (int i = first; i < last; i++) equals += row.list[list.which][i] == border;
    uint64_t equals_before = scan(equals, &total), room = left > equals_before ? left - equals_before : 0;
    uint64_t at = scan(max(last - first, 0) - equals + min(equals, room), &total);
    for (int i = first; i < last; i++) {
        if (row.list[list.which][i] == border && room-- == 0) {
            room = 0;
            continue;
        }
        row.list[to][at] = row.list[list.which][i], row.id[to][at++] = row.id[list.which][i];
    }
    __syncthreads();
    return {(int)total, to};
}

__device__ uint64_t total_weight(const Row &row, const List &list, const Weigher &weigh) {
    uint64_t sum = 0, total;
    for (int i = threadIdx.x; i < list.n; i += THREADS) sum += weigh(row.list[list.which][i]);
    scan(sum, &total);
    return total;
}

__device__ uint32_t best_rank(const Row &row, const List &list) {
    uint32_t best = 0xffffffffu;
    for (int i = threadIdx.x; i < list.n; i += THREADS) best = min(best, row.list[list.which][i]);
#pragma unroll
    for (int offset = 16; offset; offset >>= 1) best = min(best, __shfl_xor_sync(0xffffffffu, best, offset));
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared_sum[threadIdx.x / 32] = best;
    __syncthreads();
    for (int i = 0; i < THREADS / 32; i++) best = min(best, (uint32_t)shared_sum[i]);
    __syncthreads();
    return best;
}

// The first id in order whose running weight exceeds the target; thread 0 returns it.
__device__ int32_t draw(const Row &row, const List &list, const Weigher &weigh, uint64_t random) {
    int part = part_of(list.n), first = threadIdx.x * part, last = min(first + part, list.n);
    uint64_t sum = 0, total;
    for (int i = first; i < last; i++) sum += weigh(row.list[list.which][i]);
    uint64_t running = scan(sum, &total), target = multiply_high(random, total);
    if (running <= target && target < running + sum)
        for (int i = first; i < last; i++) {
            running += weigh(row.list[list.which][i]);
            if (running > target) {
                shared_value[0] = (uint64_t)row.id[list.which][i];
                break;
            }
        }
    __syncthreads();
    return (int32_t)shared_value[0];
}

__device__ int32_t choose(const SampleStep &s, const DeviceSampler &d, const Row &row) {
    const SampleParams &p = d.params;
    int n = s.n_vocab;
    penalise(s, d, row, s.logits + (size_t)blockIdx.x * ((n + 15) / 16 * 16));
    int k = p.temp == 0 ? 1 : p.top_k;
    if (__ldcg(row.damaged)) return -1;
    uint32_t bin;
    uint64_t before;
    find_bin(__ldcg(row.bins + 2 * threadIdx.x), __ldcg(row.bins + 2 * threadIdx.x + 1), k > 0 && k < n ? k : n, &bin, &before);
    List list = gather(row, n, bin << FIRST_SHIFT | ((1u << FIRST_SHIFT) - 1));
    uint32_t top = best_rank(row, list);
    if (top >= RANK_LOWEST) return -1; // nothing is left
    if (k > 0 && k < n) list = cut(row, list, Counter(), k, 1, bin << FIRST_SHIFT, before);
    if (p.temp == 0) return row.id[list.which][0];
    float max = logit_of(top);
    Weigher plain = {max, 1};
    if (p.top_p < 1) {
        uint64_t want = share(p.top_p, total_weight(row, list, plain));
        list = cut(row, list, plain, want > 0 ? want : 1, 0, 0, 0);
    }
    if (p.min_p > 0) {
        uint64_t least = share(p.min_p, weight_of(0));
        list = filter(row, list, [=](uint32_t rank) { return plain(rank) >= least; });
    }
    return draw(row, list, {max, p.temp}, random_bits(p.seed, (uint64_t)d.n_history));
}

__global__ void __launch_bounds__(THREADS) k_choose(SampleStep s) {
    pdl_launch();
    pdl_wait();
    int r = blockIdx.x, seq = __ldcg(s.seq + r);
    if (seq >= 0) {
        Row row = row_of(s.scratch, r, s.n_vocab);
        DeviceSampler *d = s.samplers + seq;
        int32_t token = choose(s, *d, row);
        __syncthreads();
        for (int i = threadIdx.x; i < BINS; i += THREADS) row.bins[i] = 0;
        if (threadIdx.x == 0) {
            *row.damaged = 0;
            s.token[r] = token, s.position[r] = s.position[r] + 1;
            if (token >= 0) d->history[d->n_history] = token;
            d->n_history++;
            uint32_t step = s.step_counter[r] += 1;
            RingEntry *entry = s.ring + (size_t)((step - 1) % s.ring_steps) * s.R + r;
            *(volatile int32_t *)&entry->token = token;
            __threadfence_system();
            *(volatile uint32_t *)&entry->step = step;
        }
    }
}

} // namespace

extern "C" size_t sample_device_scratch_bytes(int R, int n_vocab) { return (size_t)R * row_bytes(n_vocab); }

// The scratch must be zero before the first launch.
extern "C" cudaError_t launch_sample(const Launch *l, const SampleStep *s) {
    cudaError_t error = launch_kernel(l, k_rank, dim3(SLICES, s->R), RANK_THREADS, 0, *s);
    return error == cudaSuccess ? launch_kernel(l, k_choose, s->R, THREADS, 0, *s) : error;
}
