/* sample: the reference of the sampler, see sample.h; plain C, one thread, no allocation.
 *
 * The one trick: a logit becomes its RANK, an unsigned integer that is smaller where the logit is higher, and
 * top-k and top-p become one question: how many of the best, counted or weighed, reach a given amount?  A
 * descent over three digits of the rank answers it in linear time, and what survives stays in id order. */
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
    int n;
    uint64_t *weight;
    uint32_t *rank;
    int32_t *id;
} Candidates;

uint64_t sample_weight(float x) {
    return weight_of(x);
}

void sample_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    philox(counter, key, out);
}

size_t sample_scratch_bytes(int n_vocab) {
    return (size_t)n_vocab * (sizeof(uint64_t) + sizeof(uint32_t) + sizeof(int32_t));
}

static void rank_all(Candidates *c, const float *logits) {
    int i = 0;
    for (; i + LANES <= c->n; i += LANES)
        for (int j = 0; j < LANES; j++) c->rank[i + j] = rank_of(logits[i + j]);
    for (; i < c->n; i++) c->rank[i] = rank_of(logits[i]);
}

static void penalise(Candidates *c, const float *logits, const SampleParams *p, const int32_t *history,
                     int n) {
    int window = p->repeat_last_n < 0 || p->repeat_last_n > n ? n : p->repeat_last_n;
    bool off = p->repeat_penalty == 1 && p->presence_penalty == 0 && p->frequency_penalty == 0;
    if (off || window == 0) return;
    const int32_t *recent = history + (n - window);
    int32_t *count = c->id; // not yet in use; only the entries of the window are touched
    for (int i = 0; i < window; i++) count[recent[i]] = 0;
    for (int i = 0; i < window; i++) count[recent[i]]++;
    for (int i = 0; i < window; i++) {
        int32_t id = recent[i];
        float logit = logits[id]; // as the model gave it: done again at each occurrence, the same comes out
        c->rank[id] = rank_of(
            penalised(logit, count[id], p->repeat_penalty, p->presence_penalty, p->frequency_penalty));
    }
}

static inline uint32_t smaller(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

static inline uint32_t larger(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

/* The best token, or -1 where the row cannot be chosen from. */
static int best(const Candidates *c) {
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
    if (low < RANK_HIGHEST || low >= RANK_LOWEST || high > RANK_LOWEST) return -1;
    int id = 0;
    while (c->rank[id] != low) id++;
    return id;
}

/* Weights of exp((logit - max) / temp); returns their sum. */
static uint64_t weigh(Candidates *c, float max, float temp) {
    uint64_t total = 0;
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
}

/* Keeps the fewest of the best whose amount reaches `want` > 0: the amount of a token is its weight, or 1
 * where `counted`.  The amounts of all candidates must reach it.  Each digit of the rank is decided by a
 * histogram over the candidates that share the digits before it; what lies beyond the decided bin is dropped
 * immediately. */
static void cut(Candidates *c, bool counted, uint64_t want) {
    static const struct { int shift, bits; } digits[] = {{21, DIGIT_BITS}, {10, DIGIT_BITS}, {0, 10}};
    uint64_t before = 0; // amount of the candidates known to be better than the border
    uint32_t border = 0, known = 0;
    for (int d = 0; d < 3; d++) {
        uint64_t bins[1 << DIGIT_BITS] = {0};
        int shift = digits[d].shift, n = 0, n_before = c->n;
        uint32_t mask = (1u << digits[d].bits) - 1, bin = 0;
        for (int i = 0; i < n_before; i++)
            if ((c->rank[i] & known) == border)
                bins[c->rank[i] >> shift & mask] += counted ? 1 : c->weight[i];
        for (; before + bins[bin] < want; bin++) before += bins[bin];
        border |= bin << shift;
        known |= mask << shift;
        for (int i = 0; i < n_before; i++)
            if ((c->rank[i] & known) <= border) keep(c, n++, i);
        c->n = n;
    }
    int n = 0;
    for (int i = 0; i < c->n; i++) { // equal logits at the border: the lower ids first
        if (c->rank[i] == border) {
            if (before >= want) continue;
            before += counted ? 1 : c->weight[i];
        }
        keep(c, n++, i);
    }
    c->n = n;
}

static void drop_lighter(Candidates *c, uint64_t least) {
    int n = 0;
    for (int i = 0; i < c->n; i++)
        if (c->weight[i] >= least) keep(c, n++, i);
    c->n = n;
}

static int32_t draw(const Candidates *c, uint64_t total, uint64_t random) {
    uint64_t target = multiply_high(random, total), sum = 0;
    for (int i = 0; i < c->n; i++) {
        sum += c->weight[i];
        if (sum > target) return c->id[i];
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

int sample_token(const float *logits, int n_vocab, const SampleParams *p, const int32_t *history,
                 int n_history, uint64_t position, void *scratch) {
    assert(n_vocab > 0 && n_vocab <= 1 << 20); // the sums of weights stay below 2^63
    if (p->random_tokens) return choose_any(p, n_vocab, random_bits(p->seed, position));
    assert(p->temp >= 0 && p->top_p >= 0 && p->min_p >= 0 && p->min_p <= 1 && p->repeat_penalty > 0);
    Candidates c = {.n = n_vocab, .weight = scratch}; // widest first, so that all are aligned
    c.rank = (uint32_t *)(c.weight + n_vocab);
    c.id = (int32_t *)(c.rank + n_vocab);
    rank_all(&c, logits);
    penalise(&c, logits, p, history, n_history);
    for (int i = 0; i < p->n_banned; i++) {
        uint32_t *rank = &c.rank[p->banned[i]];
        if (*rank >= RANK_HIGHEST && *rank < RANK_LOWEST) *rank = RANK_LOWEST; // NaN and +Inf stay to be seen
    }
    int top = best(&c);
    if (top < 0 || p->temp == 0) return top;

    float max = logit_of(c.rank[top]);
    for (int i = 0; i < n_vocab; i++) c.id[i] = i;
    if (p->top_k > 0 && p->top_k < c.n) cut(&c, true, (uint64_t)p->top_k);
    if (p->top_p < 1) {
        uint64_t want = share(p->top_p, weigh(&c, max, 1));
        cut(&c, false, want > 0 ? want : 1);
    }
    if (p->min_p > 0) {
        weigh(&c, max, 1);
        drop_lighter(&c, share(p->min_p, sample_weight(0)));
    }
    uint64_t total = weigh(&c, max, p->temp);
    return draw(&c, total, random_bits(p->seed, position));
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
