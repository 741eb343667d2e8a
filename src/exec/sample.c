/* sample: the reference of the sampler, see sample.h; plain C, one thread, no allocation.
 *
 * The one trick: a logit becomes its RANK, an unsigned integer that is smaller where the logit is higher, and
 * top-k, top-p and typical become one question: how many of the first, counted or weighed, reach a given
 * amount?  A descent over three digits of what they are sorted by answers it in linear time, and what
 * survives stays in id order. */
#include "sample.h"
#include "sample_math.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

static_assert(FLT_EVAL_METHOD == 0, "float arithmetic must round to float after each operation");

enum {
    DIGIT_BITS = 11,
    LANES = 16, // loops over all tokens go in blocks of a constant length, which compilers turn into vectors
};

/* The tokens still in play, ids ascending. */
typedef struct Candidates {
    int n, n_vocab;
    uint64_t *weight;
    uint32_t *rank;
    int32_t *id;
    uint32_t *spare; // [n_vocab] a number of each token, by id; or the key of typical, by candidate
    uint32_t *key;   // by which they are cut: rank, or spare
    float max, temp; // the best logit, and what logits are divided by
} Candidates;

uint64_t sample_weight(float x) {
    return weight_of(x);
}

void sample_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    philox(counter, key, out);
}

size_t sample_scratch_bytes(int n_vocab) {
    return (size_t)n_vocab * (sizeof(uint64_t) + 2 * sizeof(uint32_t) + sizeof(int32_t));
}

/* ---- logits -------------------------------------------------------------------------------------------- */

static void rank_all(Candidates *c, const float *logits) {
    int i = 0;
    for (; i + LANES <= c->n; i += LANES)
        for (int j = 0; j < LANES; j++) c->rank[i + j] = rank_of(logits[i + j]);
    for (; i < c->n; i++) c->rank[i] = rank_of(logits[i]);
}

static void add_biases(Candidates *c, const float *logits, const SampleParams *p) {
    for (int i = 0; i < p->n_bias; i++)
        c->rank[p->bias[i].id] = rank_of(plus(logits[p->bias[i].id], p->bias[i].bias));
}

static void ban(Candidates *c, const SampleParams *p) {
    for (int i = 0; i < p->n_banned; i++) {
        uint32_t *rank = &c->rank[p->banned[i]];
        if (*rank >= RANK_HIGHEST && *rank < RANK_LOWEST) *rank = RANK_LOWEST; // NaN and +Inf stay to be seen
    }
}

/* The rank of a token; NULL: it was dropped. */
static uint32_t *rank_of_token(const Candidates *c, int32_t id) {
    if (c->n == c->n_vocab) return &c->rank[id];
    int low = 0, high = c->n;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (c->id[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < c->n && c->id[low] == id ? &c->rank[low] : NULL;
}

static void penalise(Candidates *c, const SampleParams *p, const int32_t *history, int n) {
    int window = window_of(p->repeat_last_n, n);
    const int32_t *recent = history + (n - window);
    uint32_t *count = c->spare; // only the entries of the window are touched
    for (int i = 0; i < window; i++) count[recent[i]] = 0;
    for (int i = 0; i < window; i++) count[recent[i]]++;
    for (int i = 0; i < window; i++) {
        int32_t id = recent[i], n_times = (int32_t)count[id];
        uint32_t *rank = n_times ? rank_of_token(c, id) : NULL;
        if (rank) *rank = rank_of(penalised(logit_of(*rank), n_times, p, c->temp));
        count[id] = 0; // once for each token
    }
}

/* The tokens behind the last sequence breaker of the window. */
static int n_behind_breaker(const SampleParams *p, const int32_t *end, int window) {
    for (int i = 0; i < window; i++) {
        int longer = breaker_at(p, end, i);
        if (longer >= 0) return i - longer;
    }
    return window;
}

static void dry(Candidates *c, const SampleParams *p, const int32_t *history, int n) {
    int window = window_of(p->dry_last_n, n), longest = dry_longest(p);
    const int32_t *end = history + n;
    int most = n_behind_breaker(p, end, window);
    most = most < longest ? most : longest;
    uint32_t *length = c->spare; // of the longest repetition that a token would continue, and 1
    for (int k = 1; k < window; k++) length[end[-k]] = 0;
    for (int k = 1; k < window; k++) {
        int same = repeat_length(end, k, most < window - k ? most : window - k);
        if (same >= p->dry_allowed_length && (uint32_t)same >= length[end[-k]])
            length[end[-k]] = (uint32_t)same + 1;
    }
    for (int k = 1; k < window; k++) {
        int32_t id = end[-k];
        bool is_repeat = length[id] > 0 && !has_bit(p->breaks, id);
        uint32_t *rank = is_repeat ? rank_of_token(c, id) : NULL;
        if (rank) *rank = rank_of(minus(logit_of(*rank), dry_penalty(p, (int)length[id] - 1, c->temp)));
        length[id] = 0;
    }
}

static inline uint32_t smaller(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

static inline uint32_t larger(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

/* Finds max; false: the row cannot be chosen from. */
static bool find_max(Candidates *c) {
    uint32_t lows[LANES], highs[LANES], low = c->rank[0], high = c->rank[0];
    for (int j = 0; j < LANES; j++) lows[j] = highs[j] = c->rank[0];
    int i = 0;
    for (; i + LANES <= c->n; i += LANES)
        for (int j = 0; j < LANES; j++) {
            lows[j] = smaller(lows[j], c->rank[i + j]);
            highs[j] = larger(highs[j], c->rank[i + j]);
        }
    for (; i < c->n; i++) {
        low = smaller(low, c->rank[i]);
        high = larger(high, c->rank[i]);
    }
    for (int j = 0; j < LANES; j++) {
        low = smaller(low, lows[j]);
        high = larger(high, highs[j]);
    }
    if (low < RANK_HIGHEST || low >= RANK_LOWEST || high > RANK_LOWEST) return false;
    c->max = logit_of(low);
    return true;
}

/* The index of the best candidate; max is known. */
static int best(const Candidates *c) {
    uint32_t rank = rank_of(c->max);
    int i = 0;
    while (c->rank[i] != rank) i++;
    return i;
}

/* ---- filters ------------------------------------------------------------------------------------------- */

/* Weights of exp((logit - max) / temp); returns their sum. */
static uint64_t weigh(Candidates *c) {
    uint64_t total = 0;
    float max = c->max, temp = c->temp;
    int32_t mantissa[LANES], halvings[LANES];
    int i = 0;
    for (; i + LANES <= c->n; i += LANES) {
        for (int j = 0; j < LANES; j++) {
            float x = logit_of(c->rank[i + j]) - max;
            mantissa[j] = exponential(x / temp, &halvings[j]);
        }
        for (int j = 0; j < LANES; j++)
            total += c->weight[i + j] = (uint64_t)mantissa[j] << (WEIGHT_BITS - 24) >> halvings[j];
    }
    for (; i < c->n; i++) {
        float x = logit_of(c->rank[i]) - max;
        total += c->weight[i] = sample_weight(x / temp);
    }
    return total;
}

static void keep(Candidates *c, int to, int from) {
    c->weight[to] = c->weight[from];
    c->rank[to] = c->rank[from];
    c->id[to] = c->id[from];
    if (c->key != c->rank) c->key[to] = c->key[from];
}

/* Keeps the fewest of the first, by key, then id, whose amount reaches `want` > 0: the amount of a token is
 * its weight, or 1 where `counted`.  The amounts of all candidates must reach it.  Each digit of the key is
 * decided by a histogram over the candidates that share the digits before it; what lies beyond the decided
 * bin is dropped immediately. */
static void cut(Candidates *c, bool counted, uint64_t want) {
    static const struct { int shift, bits; } digits[] = {{21, DIGIT_BITS}, {10, DIGIT_BITS}, {0, 10}};
    uint64_t before = 0; // amount of the candidates known to be better than the border
    uint32_t border = 0, known = 0;
    for (int d = 0; d < 3; d++) {
        uint64_t bins[1 << DIGIT_BITS] = {0};
        int shift = digits[d].shift, n = 0, n_before = c->n;
        uint32_t mask = (1u << digits[d].bits) - 1, bin = 0;
        for (int i = 0; i < n_before; i++)
            if ((c->key[i] & known) == border) bins[c->key[i] >> shift & mask] += counted ? 1 : c->weight[i];
        for (; before + bins[bin] < want; bin++) before += bins[bin];
        border |= bin << shift;
        known |= mask << shift;
        for (int i = 0; i < n_before; i++)
            if ((c->key[i] & known) <= border) keep(c, n++, i);
        c->n = n;
    }
    int n = 0;
    for (int i = 0; i < c->n; i++) { // equal logits at the border: the lower ids first
        if (c->key[i] == border) {
            if (before >= want) continue;
            before += counted ? 1 : c->weight[i];
        }
        keep(c, n++, i);
    }
    c->n = n;
}

static void keep_ranks(Candidates *c, uint32_t worst) {
    int n = 0;
    for (int i = 0; i < c->n; i++)
        if (c->rank[i] <= worst) keep(c, n++, i);
    c->n = n;
}

static void top_n_sigma(Candidates *c, const SampleParams *p) {
    uint64_t n = 0, sum = 0, squares = 0;
    for (int i = 0; i < c->n; i++) {
        if (c->rank[i] == RANK_LOWEST) continue;
        uint64_t d = difference_of(logit_of(c->rank[i]), c->max);
        n++;
        sum += d;
        squares += d * d;
    }
    keep_ranks(c, rank_of(minus(c->max, times(p->top_n_sigma, deviation_of(n, sum, squares)))));
}

static void top_k(Candidates *c, const SampleParams *p) {
    if (p->top_k < c->n) cut(c, true, (uint64_t)p->top_k);
}

static void top_p(Candidates *c, const SampleParams *p) {
    uint64_t want = share(p->top_p, weigh(c));
    cut(c, false, want > 0 ? want : 1);
}

static float x_of(const Candidates *c, int i) {
    return distance_of(logit_of(c->rank[i]), c->max, c->temp);
}

/* The sum of weight * x, of weights that are known. */
static uint64_t weigh_distances(const Candidates *c) {
    uint64_t sum = 0;
    for (int i = 0; i < c->n; i++) sum += weighed_distance(c->weight[i], x_of(c, i));
    return sum;
}

static void typical(Candidates *c, const SampleParams *p) {
    uint64_t total = weigh(c);
    float mean = over(float_of(weigh_distances(c)), float_of(total));
    for (int i = 0; i < c->n; i++) c->spare[i] = untypical(x_of(c, i), mean);
    c->key = c->spare;
    cut(c, false, more_than_share(p->typical_p, total));
    c->key = c->rank;
}

static void min_p(Candidates *c, const SampleParams *p) {
    uint64_t least = share(p->min_p, sample_weight(0));
    int n = 0;
    weigh(c);
    for (int i = 0; i < c->n; i++)
        if (c->weight[i] >= least) keep(c, n++, i);
    c->n = n;
}

static void xtc(Candidates *c, const SampleParams *p, uint64_t position) {
    if (!xtc_happens(p, position)) return;
    uint64_t least = share(p->xtc_threshold, weigh(c));
    int worst = -1, n = 0; // of the likely ones
    for (int i = 0; i < c->n; i++)
        if (c->weight[i] >= least && (worst < 0 || c->rank[i] >= c->rank[worst])) worst = i;
    for (int i = 0; i < c->n; i++)
        if (c->weight[i] < least || i == worst) keep(c, n++, i);
    c->n = n;
}

static void keep_best(Candidates *c) {
    keep(c, 0, best(c));
    c->n = 1;
}

static void temperature(Candidates *c, const SampleParams *p) {
    uint64_t total = p->temp_range > 0 ? weigh(c) : 0;
    c->temp = temperature_of(p, (uint64_t)c->n, total, total ? weigh_distances(c) : 0);
    if (c->temp > 0) return;
    c->temp = 1;
    keep_best(c);
}

static void mirostat(Candidates *c, float mu) {
    float most = mirostat_limit(mu, weigh(c));
    int n = 0;
    if (most < 0) {
        keep_best(c);
        return;
    }
    for (int i = 0; i < c->n; i++)
        if (x_of(c, i) <= most) keep(c, n++, i);
    c->n = n;
}

/* ---- the choice ---------------------------------------------------------------------------------------- */

/* The index of the chosen candidate, whose weights sum to total. */
static int draw(const Candidates *c, uint64_t total, uint64_t random) {
    uint64_t target = multiply_high(random, total), sum = 0;
    for (int i = 0; i < c->n; i++) {
        sum += c->weight[i];
        if (sum > target) return i;
    }
    assert(!"the weights sum to more than the target");
    return -1;
}

static bool is_banned(const SampleParams *p, int id) {
    for (int i = 0; i < p->n_banned; i++)
        if (p->banned[i] == id) return true;
    return false;
}

/* A random token, or the next one that is not banned; -1 where all are. */
static int choose_any(const SampleParams *p, int n_vocab, uint64_t random) {
    int id = any_token(random, n_vocab);
    for (int tries = 0; tries < n_vocab; tries++) {
        if (!is_banned(p, id)) return id;
        id = id + 1 < n_vocab ? id + 1 : 0;
    }
    return -1;
}

static void change_logits(Candidates *c, int filter, const SampleParams *p, const int32_t *history, int n) {
    if (filter == FILTER_PENALTIES)
        penalise(c, p, history, n);
    else
        dry(c, p, history, n);
}

/* A filter of tokens, or the temperature; max is known.  Returns whether the best token may have been
 * dropped. */
static bool apply(Candidates *c, int filter, const SampleParams *p, uint64_t position, const float *mu) {
    switch (filter) {
    case FILTER_TOP_N_SIGMA:
        top_n_sigma(c, p);
        return false;
    case FILTER_TOP_K:
        top_k(c, p);
        return false;
    case FILTER_TYPICAL:
        typical(c, p);
        return true;
    case FILTER_TOP_P:
        top_p(c, p);
        return false;
    case FILTER_MIN_P:
        min_p(c, p);
        return false;
    case FILTER_XTC:
        xtc(c, p, position);
        return true;
    case FILTER_TEMPERATURE:
        temperature(c, p);
        return false;
    default:
        mirostat(c, mirostat_mu(p, position, mu));
        return false;
    }
}

/* Applies the chain, and finds max; false: the row cannot be chosen from. */
static bool run_chain(Candidates *c, const SampleParams *p, const int32_t *history, int n_history,
                      uint64_t position, const float *mu) {
    bool known = false; // max
    for (int i = 0, filter; (filter = filter_at(p, i)) != FILTER_END; i++) {
        if (!filter_is_on(p, filter)) continue;
        if (filter_changes_logits(filter)) {
            change_logits(c, filter, p, history, n_history);
            known = false;
            continue;
        }
        if (!known && !find_max(c)) return false;
        known = !apply(c, filter, p, position, mu);
    }
    return known || find_max(c);
}

int sample_token(const float *logits, int n_vocab, const SampleParams *p, const int32_t *history,
                 int n_history, uint64_t position, float *mu, void *scratch) {
    assert(n_vocab > 0 && n_vocab <= 1 << 20); // the sums of weights stay below 2^63
    if (p->random_tokens) return choose_any(p, n_vocab, random_bits(p->seed, position, 0));
    assert(p->temp >= 0 && p->top_p >= 0 && p->min_p >= 0 && p->min_p <= 1 && p->repeat_penalty > 0);
    Candidates c = {
        .n = n_vocab, .n_vocab = n_vocab, .weight = scratch, .temp = 1}; // widest first: all aligned
    c.rank = c.key = (uint32_t *)(c.weight + n_vocab);
    c.spare = c.rank + n_vocab;
    c.id = (int32_t *)(c.spare + n_vocab);
    rank_all(&c, logits);
    add_biases(&c, logits, p);
    ban(&c, p);
    if (is_usual(p) && p->temp == 0) {
        if (filter_is_on(p, FILTER_PENALTIES)) penalise(&c, p, history, n_history);
        return find_max(&c) ? best(&c) : -1;
    }
    for (int i = 0; i < n_vocab; i++) c.id[i] = i;
    if (!run_chain(&c, p, history, n_history, position, mu)) return -1;
    uint64_t total = weigh(&c);
    int i = draw(&c, total, random_bits(p->seed, position, 0));
    if (uses_mirostat(p)) *mu = mirostat_next(p, mirostat_mu(p, position, mu), x_of(&c, i), total);
    return c.id[i];
}

double sample_logprobs(const float *logits, int n_vocab, int n_best, int32_t *ids, double *logprobs,
                       int32_t id) {
    assert(n_best <= n_vocab && id >= 0 && id < n_vocab);
    float max = -INFINITY;
    for (int i = 0; i < n_vocab; i++) max = logits[i] > max ? logits[i] : max;
    uint64_t total = 0;
    for (int i = 0; i < n_vocab; i++) total += sample_weight(logits[i] - max);
    double log_sum = max + log((double)total / (double)sample_weight(0));

    int n = 0;
    for (int i = 0; i < n_vocab; i++) {
        if (n == n_best && (n == 0 || logits[i] <= logits[ids[n - 1]])) continue;
        int at = n < n_best ? n++ : n - 1;
        for (; at > 0 && logits[ids[at - 1]] < logits[i]; at--) ids[at] = ids[at - 1];
        ids[at] = i;
    }
    for (int i = 0; i < n; i++) logprobs[i] = logits[ids[i]] - log_sum;
    return logits[id] - log_sum;
}
