// chain: SAMPLE of rows whose chain of filters is not the usual one.  See src/exec/sample.h for what each
// filter means; the functions here are those of src/exec/sample.c, by the same names, in the same order.
//
// The trick: one block goes over all tokens of a row, whose ranks stand in device memory, once or a few times
// per filter; a token that is dropped gets the rank NO_TOKEN.  As soon as no more than SHORT tokens are left,
// they move together in the order of their ids: then a row is a single tile, a token per thread, and the same
// code goes on in it.  A SLOT is the place of a token among the ranks; it is the id until the tokens move.
//
// k_rank has added biases and bans.  Numbers of the whole row are computed by every thread, from sums that
// all threads have.
#include "../device/launch.cuh"
#include "../device/sample.cuh"

namespace {

struct Chain {
    RowScratch row;
    const SampleParams *p;
    int n;           // tokens left
    bool is_short;   // the tokens have moved
    float max, temp; // the best logit, and what logits are divided by
};

__shared__ uint32_t short_id[SHORT]; // ids of the slots where the tokens have moved, ascending

// ---- over all tokens ------------------------------------------------------------------------------------

__device__ Word sum_of(Word mine) {
    Word total;
    scan(mine, &total);
    return total;
}

// The least of the block's numbers.
__device__ Word least_of(Word mine) {
    __shared__ Word of_warp[THREADS / 32];
#pragma unroll
    for (int offset = 16; offset; offset >>= 1) mine = min(mine, __shfl_xor_sync(0xffffffffu, mine, offset));
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = mine;
    __syncthreads();
    mine = of_warp[threadIdx.x % 32];
#pragma unroll
    for (int offset = 16; offset; offset >>= 1) mine = min(mine, __shfl_xor_sync(0xffffffffu, mine, offset));
    return mine;
}

// visit(rank, slot) for each of this thread's tokens that are left.
template <class Visit> __device__ void each_left(const Chain &c, Visit visit) {
    each_token(c.row, 0, 1, [&](int tile, uint32_t rank) {
        if (rank != NO_TOKEN) visit(rank, (uint32_t)(tile * TILE + threadIdx.x));
    });
}

__device__ uint32_t id_of(const Chain &c, uint32_t slot) {
    return c.is_short ? short_id[slot] : slot;
}

// The rank of a token; NULL: it was dropped.
__device__ uint32_t *rank_of_token(const Chain &c, uint32_t id) {
    uint32_t slot = id;
    if (c.is_short) {
        int low = 0, high = SHORT; // of slots, among them those of tokens that were dropped since
        while (low < high) {
            int middle = low + (high - low) / 2;
            if (short_id[middle] < id)
                low = middle + 1;
            else
                high = middle;
        }
        if (low == SHORT || short_id[low] != id) return nullptr;
        slot = low;
    }
    return __ldcg(c.row.rank + slot) == NO_TOKEN ? nullptr : c.row.rank + slot;
}

// ---- dropping tokens ------------------------------------------------------------------------------------

// The n tokens of the list move together.
__device__ void move_together(Chain *c, int n) {
    int i = threadIdx.x, slot = 0;
    if (i < n) {
        Word mine = list[i];
        for (int j = 0; j < n; j++) slot += (uint32_t)list[j] < (uint32_t)mine;
        short_id[slot] = (uint32_t)mine;
        c->row.rank[slot] = rank_in(mine);
    } else {
        short_id[i] = NO_TOKEN;
        c->row.rank[i] = NO_TOKEN;
    }
    c->row.n_tiles = 1;
    c->n = n;
    c->is_short = true;
    __syncthreads();
}

// Puts the tokens on the list where they fit, and moves them together.
__device__ void shorten(Chain *c) {
    __shared__ int n_list;
    if (c->is_short || c->n > SHORT) return;
    if (threadIdx.x == 0) n_list = 0;
    __syncthreads();
    each_left(*c, [&](uint32_t rank, uint32_t slot) { list[atomicAdd(&n_list, 1)] = key_of(rank, slot); });
    __syncthreads();
    move_together(c, n_list);
}

// Keeps the tokens for which stays(rank, slot).
template <class Stays> __device__ void keep(Chain *c, Stays stays) {
    Word n = 0;
    each_left(*c, [&](uint32_t rank, uint32_t slot) {
        if (stays(rank, slot))
            n++;
        else
            c->row.rank[slot] = NO_TOKEN;
    });
    c->n = (int)sum_of(n);
    shorten(c);
}

// Keeps the fewest of the first, by sort(rank), then slot, whose amounts reach want(total).
template <class Sort, class Weigh, class Want>
__device__ void keep_first(Chain *c, Sort sort, Weigh weigh, Want want) {
    Word last = cut(c->row, key_of(NO_TOKEN, 0) - 1, sort, weigh, want);
    uint32_t border = sort(rank_in(last)), slot_last = (uint32_t)last;
    keep(c, [=](uint32_t rank, uint32_t slot) {
        return sort(rank) < border || (sort(rank) == border && slot <= slot_last);
    });
}

// ---- logits ---------------------------------------------------------------------------------------------

// Applies change(logit, number) to each token among end[-1 .. -n] that has a number in row.note, which
// becomes zero again.
template <class Change>
__device__ void change_noted(const Chain &c, const int32_t *end, int n, Change change) {
    __threadfence_block();
    __syncthreads();
    for (int i = 1 + threadIdx.x; i <= n; i += THREADS) {
        int32_t id = __ldcg(end - i);
        uint32_t number = atomicExch(c.row.note + id, 0); // for one of the threads that find the token
        uint32_t *rank = number ? rank_of_token(c, (uint32_t)id) : nullptr;
        if (!rank) continue;
        uint32_t changed = rank_of(change(logit_of(__ldcg(rank)), number, id));
        *rank = is_logit(changed) ? changed : 0;
    }
    __threadfence_block();
    __syncthreads();
}

__device__ void penalise(const Chain &c, const int32_t *history, int n) {
    const SampleParams *p = c.p;
    int window = window_of(p->repeat_last_n, n);
    const int32_t *end = history + n;
    for (int i = 1 + threadIdx.x; i <= window; i += THREADS) atomicAdd(c.row.note + __ldcg(end - i), 1);
    change_noted(c, end, window, [=](float logit, uint32_t count, int32_t) {
        return penalised(logit, (int32_t)count, p, c.temp);
    });
}

// The tokens behind the last sequence breaker of the window.
__device__ int n_behind_breaker(const SampleParams *p, const int32_t *end, int window) {
    Word first = (Word)window << 32 | (uint32_t)window;
    for (int i = threadIdx.x; i < window; i += THREADS) {
        int longer = breaker_at(p, end, i);
        if (longer < 0) continue;
        first = (Word)i << 32 | (uint32_t)(i - longer);
        break;
    }
    return (int)(uint32_t)least_of(first);
}

__device__ void dry(const Chain &c, const int32_t *history, int n) {
    const SampleParams *p = c.p;
    int window = window_of(p->dry_last_n, n);
    const int32_t *end = history + n;
    int most = min(n_behind_breaker(p, end, window), dry_longest(p));
    for (int k = 1 + threadIdx.x; k < window; k += THREADS) {
        int same = repeat_length(end, k, min(most, window - k));
        if (same >= p->dry_allowed_length) atomicMax(c.row.note + __ldcg(end - k), (uint32_t)same + 1);
    }
    change_noted(c, end, window - 1, [=](float logit, uint32_t length, int32_t id) {
        return has_bit(p->breaks, id) ? logit : minus(logit, dry_penalty(p, (int)length - 1, c.temp));
    });
}

// Finds max; false: the row cannot be chosen from.  The best of each group are found again, too.
__device__ bool find_max(Chain *c) {
    uint32_t best = NO_TOKEN;
    each_token(c->row, 0, 1, [&](int tile, uint32_t rank) {
        best = min(best, rank);
        uint32_t of_group = __reduce_min_sync(0xffffffffu, rank);
        if (threadIdx.x % GROUP == 0) c->row.best[tile * GROUPS + threadIdx.x / GROUP] = of_group;
    });
    best = (uint32_t)least_of(best);
    __threadfence_block();
    __syncthreads();
    c->max = logit_of(best);
    return best >= RANK_HIGHEST && best < RANK_LOWEST;
}

// ---- filters --------------------------------------------------------------------------------------------

__device__ float x_of(const Chain &c, uint32_t rank) {
    return distance_of(logit_of(rank), c.max, c.temp);
}

// The sum of the weights; that of weight * x goes to *distances where it is not NULL.
__device__ Word weigh(const Chain &c, Word *distances) {
    Word total = 0, sum = 0;
    each_left(c, [&](uint32_t rank, uint32_t) {
        float x = x_of(c, rank);
        Word weight = weight_of(x);
        total += weight;
        sum += weighed_distance(weight, x);
    });
    if (distances) *distances = sum_of(sum);
    return sum_of(total);
}

__device__ void top_n_sigma(Chain *c) {
    Word n = 0, sum = 0, squares = 0;
    each_left(*c, [&](uint32_t rank, uint32_t) {
        if (rank == RANK_LOWEST) return;
        Word d = difference_of(logit_of(rank), c->max);
        n++;
        sum += d;
        squares += d * d;
    });
    n = sum_of(n);
    sum = sum_of(sum);
    squares = sum_of(squares);
    uint32_t worst = rank_of(minus(c->max, times(c->p->top_n_sigma, deviation_of(n, sum, squares))));
    keep(c, [=](uint32_t rank, uint32_t) { return rank <= worst; });
}

// Of many tokens those that may be among the k best are put on the list first.
__device__ void top_k(Chain *c) {
    int k = c->p->top_k;
    if (k >= c->n) return;
    if (!c->is_short && k <= SHORT) {
        int n = gather(c->row, bound_of_count(c->row, k));
        if (n <= SHORT) move_together(c, n);
    }
    auto by_rank = [](uint32_t rank) { return rank; };
    keep_first(
        c, by_rank, [](uint32_t) { return 1ull; }, [=](Word) { return (Word)k; });
}

__device__ void top_p(Chain *c) {
    float top_p = c->p->top_p;
    Weigher plain = {c->max, c->temp};
    auto by_rank = [](uint32_t rank) { return rank; };
    keep_first(c, by_rank, plain, [=](Word total) {
        Word want = share(top_p, total);
        return want ? want : 1;
    });
}

__device__ void typical(Chain *c) {
    Word distances, total = weigh(*c, &distances);
    float max = c->max, temp = c->temp, mean = over(float_of(distances), float_of(total)),
          p = c->p->typical_p;
    Weigher plain = {max, temp};
    auto by_difference = [=](uint32_t rank) {
        return untypical(distance_of(logit_of(rank), max, temp), mean);
    };
    keep_first(c, by_difference, plain, [=](Word sum) { return more_than_share(p, sum); });
}

__device__ void min_p(Chain *c) {
    Word least = share(c->p->min_p, weight_of(0));
    Weigher plain = {c->max, c->temp};
    keep(c, [=](uint32_t rank, uint32_t) { return plain(rank) >= least; });
}

__device__ void xtc(Chain *c, uint64_t position) {
    if (!xtc_happens(c->p, position)) return;
    Word least = share(c->p->xtc_threshold, weigh(*c, nullptr)), worst = 0;
    Weigher plain = {c->max, c->temp};
    each_left(*c, [&](uint32_t rank, uint32_t slot) {
        if (plain(rank) >= least) worst = max(worst, key_of(rank, slot));
    });
    worst = ~least_of(~worst); // the worst of the likely ones
    keep(c, [=](uint32_t rank, uint32_t slot) { return plain(rank) < least || key_of(rank, slot) == worst; });
}

__device__ void keep_best(Chain *c) {
    Word best = ~0ull;
    each_left(*c, [&](uint32_t rank, uint32_t slot) { best = min(best, key_of(rank, slot)); });
    best = least_of(best);
    keep(c, [=](uint32_t rank, uint32_t slot) { return key_of(rank, slot) == best; });
}

__device__ void temperature(Chain *c) {
    Word distances = 0, total = c->p->temp_range > 0 ? weigh(*c, &distances) : 0;
    c->temp = temperature_of(c->p, c->n, total, distances);
    if (c->temp > 0) return;
    c->temp = 1;
    keep_best(c);
}

__device__ void mirostat(Chain *c, float mu) {
    float most = mirostat_limit(mu, weigh(*c, nullptr)), max = c->max, temp = c->temp;
    if (most < 0)
        keep_best(c);
    else
        keep(c, [=](uint32_t rank, uint32_t) { return distance_of(logit_of(rank), max, temp) <= most; });
}

// ---- the choice -----------------------------------------------------------------------------------------

// A filter of tokens, or the temperature; max is known.  Returns whether the best token may have been
// dropped.
__device__ bool apply(Chain *c, int filter, uint64_t position, const float *mu) {
    switch (filter) {
    case FILTER_TOP_N_SIGMA:
        top_n_sigma(c);
        return false;
    case FILTER_TOP_K:
        top_k(c);
        return false;
    case FILTER_TYPICAL:
        typical(c);
        return true;
    case FILTER_TOP_P:
        top_p(c);
        return false;
    case FILTER_MIN_P:
        min_p(c);
        return false;
    case FILTER_XTC:
        xtc(c, position);
        return true;
    case FILTER_TEMPERATURE:
        temperature(c);
        return false;
    default:
        mirostat(c, mirostat_mu(c->p, position, mu));
        return false;
    }
}

// Applies the chain, and finds max; false: the row cannot be chosen from.
__device__ bool run_chain(Chain *c, const int32_t *history, int n_history, const float *mu) {
    bool known = false; // max
    for (int i = 0, filter; (filter = filter_at(c->p, i)) != FILTER_END; i++) {
        if (!filter_is_on(c->p, filter)) continue;
        if (filter == FILTER_PENALTIES)
            penalise(*c, history, n_history);
        else if (filter == FILTER_DRY)
            dry(*c, history, n_history);
        if (filter_changes_logits(filter)) {
            known = false;
            continue;
        }
        if (!known && !find_max(c)) return false;
        known = !apply(c, filter, (uint64_t)n_history, mu);
    }
    return known || find_max(c);
}

// history: [n_history] tokens; mu: as for sample_token.
__device__ int32_t choose(Chain *c, const int32_t *history, int n_history, float *mu) {
    if (!run_chain(c, history, n_history, mu)) return -1;
    uint64_t random = random_bits(c->p->seed, (uint64_t)n_history, 0);
    Weigher plain = {c->max, c->temp};
    Word total = 0;
    auto left = [=](Word key) { return rank_in(key) == NO_TOKEN ? 0 : plain(rank_in(key)); };
    sum_tiles(c->row, 0, 1, left);
    Word key = find_token(c->row, left, [&](Word sum) {
        total = sum;
        return multiply_high(random, sum);
    });
    if (uses_mirostat(c->p) && threadIdx.x == 0)
        *mu = mirostat_next(c->p, mirostat_mu(c->p, (uint64_t)n_history, mu), x_of(*c, rank_in(key)), total);
    return (int32_t)id_of(*c, (uint32_t)key);
}

__global__ void __launch_bounds__(THREADS) k_chain(SampleStep s) {
    __shared__ DeviceSampler d;
    pdl_wait();
    pdl_launch();
    int r = blockIdx.x, t = row_among_all(s, r);
    int seq = __ldcg(s.rows.seq + t), position = __ldcg(s.rows.position + t) + 1;
    if (seq < 0) return;
    if (threadIdx.x < sizeof d / sizeof(Word))
        ((Word *)&d)[threadIdx.x] = __ldcg((const Word *)(s.rows.sampler + r) + threadIdx.x);
    __syncthreads();
    if (!d.chain) return;
    Chain c = {row_of(s, r), &d.params, s.n_vocab, false, 0, 1};
    int32_t token = choose(&c, history_of(s, seq), position, mu_of(s, seq) + position - 1);
    __syncthreads();
    if (threadIdx.x == 0) end_row(s, r, seq, position, __ldcg(s.step), token);
}

} // namespace

cudaError_t launch_chain(const Launch *l, const SampleStep *s) {
    return launch_kernel(l, k_chain, dim3(s->R), THREADS, 0, *s);
}
