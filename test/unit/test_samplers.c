/* The filters of the sampler, beyond those of test_sample.c: each against its definition by probabilities, in
 * double precision with libm, sorted, in any order of the chain.  The token must be the one that chance
 * pointed at, within 1e-5; where a threshold is too near a token for double precision to decide, the trial
 * does not count. */
#include "check.h"
#include "noise.h"

#include "../../src/exec/sample.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const SampleParams plain = {.temp = 1, .top_p = 1, .repeat_penalty = 1, .seed = 5}; // every filter off

static int choose(const float *logits, int n, const SampleParams *p, const int32_t *history, int n_history,
                  uint64_t position, float *mu) {
    void *scratch = malloc(sample_scratch_bytes(n));
    memset(scratch, (int)noise(), sample_scratch_bytes(n));
    int token = sample_token(logits, n, p, history, n_history, position, mu, scratch);
    free(scratch);
    return token;
}

/* The random number of a position, 0..1. */
static double chance(uint64_t seed, uint64_t position, uint32_t stream) {
    uint32_t counter[4] = {(uint32_t)position, (uint32_t)(position >> 32), stream}, out[4];
    sample_philox(counter, (uint32_t[2]){(uint32_t)seed, (uint32_t)(seed >> 32)}, out);
    return (double)((uint64_t)out[1] << 32 | out[0]) * 0x1p-64;
}

/* ---- the definitions ----------------------------------------------------------------------------------- */

enum { N_MOST = 300 };

typedef struct Candidate {
    int id;
    double logit, p, key;
} Candidate;

typedef struct Row { // sorted by logit, the best first
    Candidate c[N_MOST];
    int n;
    bool unclear; // a threshold was too near
} Row;

static int by_logit(const void *a, const void *b) {
    const Candidate *s = a, *t = b;
    if (s->logit != t->logit) return s->logit > t->logit ? -1 : 1;
    return s->id - t->id;
}

static int by_key(const void *a, const void *b) {
    const Candidate *s = a, *t = b;
    if (s->key != t->key) return s->key < t->key ? -1 : 1;
    return s->id - t->id;
}

static int by_id(const void *a, const void *b) {
    return ((const Candidate *)a)->id - ((const Candidate *)b)->id;
}

static void sort(Row *r) {
    qsort(r->c, (size_t)r->n, sizeof *r->c, by_logit);
}

static void soften(Row *r) {
    double total = 0;
    for (int i = 0; i < r->n; i++) total += r->c[i].p = exp(r->c[i].logit - r->c[0].logit);
    for (int i = 0; i < r->n; i++) r->c[i].p /= total;
}

static bool is_below(Row *r, double a, double b) {
    if (fabs(a - b) < 1e-5) r->unclear = true;
    return a < b;
}

static double entropy(const Row *r) {
    double sum = 0;
    for (int i = 0; i < r->n; i++) sum -= r->c[i].p > 0 ? r->c[i].p * log(r->c[i].p) : 0;
    return sum;
}

static void penalties(Row *r, const SampleParams *p, const int32_t *history, int n) {
    for (int i = 0; i < r->n; i++) {
        int count = 0;
        for (int k = 0; k < n; k++)
            count += history[k] == r->c[i].id && (p->repeat_last_n < 0 || k >= n - p->repeat_last_n);
        if (!count) continue;
        double l = r->c[i].logit;
        l = l > 0 ? l / p->repeat_penalty : l * p->repeat_penalty;
        r->c[i].logit = l - count * (double)p->frequency_penalty - p->presence_penalty;
    }
    sort(r);
}

static bool ends_with(const int32_t *ids, int n, const int32_t *tail, int n_tail) {
    return n >= n_tail && memcmp(ids + n - n_tail, tail, (size_t)n_tail * sizeof *tail) == 0;
}

static bool breaks(const SampleParams *p, int32_t id) {
    return p->breaks && p->breaks[id / 32] >> id % 32 & 1;
}

/* How many tokens lie behind the end of the sequence breaker that begins last, the longest of these. */
static int behind_breaker(const SampleParams *p, const int32_t *window, int n) {
    for (int first = n - 1; first >= 0; first--) {
        int longest = breaks(p, window[first]) ? 1 : 0;
        for (int at = 0; at < p->n_phrases; at += 1 + p->phrases[at]) {
            int length = p->phrases[at];
            if (first + length <= n && length > longest &&
                ends_with(window, first + length, p->phrases + at + 1, length))
                longest = length;
        }
        if (longest) return n - first - longest;
    }
    return n;
}

/* The longest part in front of some `id` of the window that the window ends with, too. */
static int repeats(const int32_t *window, int n, int32_t id, int most) {
    int longest = -1;
    for (int at = 1; at < n; at++) {
        if (window[at] != id) continue;
        int length = 0;
        while (length < most && length < at && window[at - 1 - length] == window[n - 1 - length]) length++;
        if (length > longest) longest = length;
    }
    return longest;
}

static void dry(Row *r, const SampleParams *p, const int32_t *history, int n) {
    int last_n = p->dry_last_n < 0 || p->dry_last_n > n ? n : p->dry_last_n;
    const int32_t *window = history + n - last_n;
    int most = behind_breaker(p, window, last_n);
    for (int i = 0; i < r->n; i++) {
        int length = repeats(window, last_n, r->c[i].id, most);
        if (length < p->dry_allowed_length || length < 0 || breaks(p, r->c[i].id)) continue;
        r->c[i].logit -= p->dry_multiplier * pow(p->dry_base, length - p->dry_allowed_length);
    }
    sort(r);
}

static void top_n_sigma(Row *r, const SampleParams *p) {
    double mean = 0, variance = 0;
    int n = 0;
    for (int i = 0; i < r->n; i++) mean += r->c[i].logit / r->n;
    for (int i = 0; i < r->n; i++) variance += pow(r->c[i].logit - mean, 2) / r->n;
    double least = r->c[0].logit - p->top_n_sigma * sqrt(variance);
    for (; n < r->n && !(r->c[n].logit < least); n++) {
    }
    for (int i = 0; i < r->n; i++) r->unclear |= fabs(r->c[i].logit - least) < 1e-3 * p->top_n_sigma;
    r->n = n;
}

static void typical(Row *r, const SampleParams *p) {
    double sum = 0;
    soften(r);
    double h = entropy(r);
    for (int i = 0; i < r->n; i++) r->c[i].key = fabs(-log(r->c[i].p) - h);
    qsort(r->c, (size_t)r->n, sizeof *r->c, by_key);
    int n = 0;
    while (n < r->n && (sum += r->c[n++].p, !is_below(r, p->typical_p, sum))) {
    }
    if (n < r->n && r->c[n].key - r->c[n - 1].key < 1e-4) r->unclear = true;
    r->n = n;
    sort(r);
}

static void top_p(Row *r, const SampleParams *p) {
    double sum = 0;
    int n = 0;
    soften(r);
    while (n < r->n && (n == 0 || is_below(r, sum, p->top_p))) sum += r->c[n++].p;
    r->n = n;
}

static void min_p(Row *r, const SampleParams *p) {
    int n = 1;
    soften(r);
    while (n < r->n && !is_below(r, r->c[n].p / r->c[0].p, p->min_p)) n++;
    r->n = n;
}

static void xtc(Row *r, const SampleParams *p, uint64_t position) {
    if (p->xtc_threshold > 0.5f || !is_below(r, chance(p->seed, position, 1), p->xtc_probability)) return;
    int n = 0;
    soften(r);
    while (n < r->n && !is_below(r, r->c[n].p, p->xtc_threshold)) n++;
    if (n < 2) return;
    r->n -= n - 1;
    memmove(r->c, r->c + n - 1, (size_t)r->n * sizeof *r->c);
}

static void temperature(Row *r, const SampleParams *p) {
    double temp = p->temp;
    if (p->temp_range > 0 && r->n > 1) {
        double least = fmax(0, (double)p->temp - p->temp_range), most = (double)p->temp + p->temp_range;
        soften(r);
        temp = least + (most - least) * pow(entropy(r) / log(r->n), p->temp_exponent);
        r->unclear |= temp < 0.2; // a colder one magnifies the rounding of a difference
    }
    if (temp <= 0) r->n = 1;
    for (int i = 0; temp > 0 && i < r->n; i++) r->c[i].logit /= temp;
}

static void mirostat(Row *r, double mu) {
    int n = 1;
    soften(r);
    while (n < r->n && !is_below(r, mu, -log2(r->c[n].p))) n++;
    r->n = n;
}

static void apply(Row *r, int filter, const SampleParams *p, const int32_t *history, int n, double mu) {
    if (filter == FILTER_PENALTIES && p->repeat_last_n) penalties(r, p, history, n);
    if (filter == FILTER_DRY && p->dry_multiplier > 0 && p->dry_last_n) dry(r, p, history, n);
    if (filter == FILTER_TOP_N_SIGMA && p->top_n_sigma > 0) top_n_sigma(r, p);
    if (filter == FILTER_TOP_K && p->top_k && p->top_k < r->n) r->n = p->top_k;
    if (filter == FILTER_TYPICAL && p->typical_p > 0 && p->typical_p < 1) typical(r, p);
    if (filter == FILTER_TOP_P && p->top_p < 1) top_p(r, p);
    if (filter == FILTER_MIN_P && p->min_p > 0) min_p(r, p);
    if (filter == FILTER_XTC && p->xtc_probability > 0) xtc(r, p, (uint64_t)n);
    if (filter == FILTER_TEMPERATURE) temperature(r, p);
    if (filter == FILTER_MIROSTAT) mirostat(r, mu);
}

static void begin(Row *r, const float *logits, int n, const SampleParams *p) {
    *r = (Row){.n = n};
    for (int i = 0; i < n; i++) r->c[i] = (Candidate){.id = i, .logit = logits[i]};
    for (int i = 0; i < p->n_bias; i++) r->c[p->bias[i].id].logit += p->bias[i].bias;
    sort(r);
}

/* Whether the token is the one at `point` of 0..1, in the order of ids, within 1e-5. */
static bool is_at(Row *r, int token, double point) {
    double sum = 0;
    bool is_there = false;
    soften(r);
    qsort(r->c, (size_t)r->n, sizeof *r->c, by_id);
    for (int i = 0; i < r->n; sum += r->c[i++].p)
        if (r->c[i].id == token) is_there = point > sum - 1e-5 && point < sum + r->c[i].p + 1e-5;
    return is_there;
}

static double surprise(const Row *r, int token) {
    for (int i = 0; i < r->n; i++)
        if (r->c[i].id == token) return -log2(r->c[i].p);
    return 0;
}

/* ---- chains -------------------------------------------------------------------------------------------- */

static void run(Row *r, const float *logits, int n, const SampleParams *p, const int32_t *history,
                int n_history, double mu) {
    static const uint8_t usual[] = {FILTER_PENALTIES, FILTER_DRY,     FILTER_TOP_N_SIGMA,
                                    FILTER_TOP_K,     FILTER_TYPICAL, FILTER_TOP_P,
                                    FILTER_MIN_P,     FILTER_XTC,     FILTER_TEMPERATURE};
    const uint8_t *order = p->order[0] ? p->order : usual;
    begin(r, logits, n, p);
    for (int i = 0; i < 9 && order[i]; i++) apply(r, order[i], p, history, n_history, mu);
}

static bool maybe(void) {
    return noise() % 2;
}

static void try_order(SampleParams *p) {
    for (int i = 0; i < 9; i++) p->order[i] = (uint8_t)(i + 1);
    for (int i = 8; i > 0; i--) {
        int k = (int)(noise() % (unsigned)(i + 1));
        uint8_t swapped = p->order[i];
        p->order[i] = p->order[k];
        p->order[k] = swapped;
    }
    p->order[1 + noise() % 9] = 0; // and without the rest
}

static SampleParams try_params(void) {
    static const float temps[] = {0, 0.5f, 0.8f, 1.5f, 3};
    SampleParams p = plain;
    p.seed = noise();
    if (maybe()) try_order(&p);
    if (maybe()) p.temp = temps[noise() % 5];
    if (maybe()) p.top_k = (int)(noise() % 30);
    if (maybe()) p.top_p = (float)noise_unit();
    if (maybe()) p.min_p = (float)(noise_unit() * noise_unit());
    if (maybe()) p.typical_p = (float)noise_unit();
    if (maybe()) p.top_n_sigma = (float)noise_unit() * 3;
    if (maybe()) p.xtc_probability = (float)noise_unit() * 1.2f;
    p.xtc_probability = p.xtc_probability > 1 ? 1 : p.xtc_probability;
    p.xtc_threshold = (float)(noise_unit() * noise_unit());
    if (maybe()) p.temp_range = (float)noise_unit();
    p.temp_exponent = maybe() ? 1 : (float)noise_unit() * 3;
    if (maybe()) {
        p.repeat_last_n = (int)(noise() % 20) - 1;
        p.repeat_penalty = 1 + (float)noise_unit();
        p.frequency_penalty = (float)noise_unit();
    }
    if (maybe()) {
        p.dry_multiplier = (float)noise_unit() * 2;
        p.dry_base = 1 + (float)(noise() % 4) * 0.25f;
        p.dry_allowed_length = (int)(noise() % 4);
        p.dry_last_n = (int)(noise() % 60) - 1;
    }
    return p;
}

TEST(samplers_follow_their_definitions) {
    static const int sizes[] = {2, 17, 300};
    static const int32_t phrases[] = {2, 1, 0, 3, 1, 0, 3, 2, 4, 4};
    static const uint32_t breaker[N_MOST / 32 + 1] = {1u << 5};
    enum { N_TRIALS = 30000 };
    int n_unclear = 0;
    for (int trial = 0; trial < N_TRIALS; trial++) {
        noise_state = 0x9E3779B97F4A7C15 * (uint64_t)(trial + 1);
        float logits[N_MOST];
        int n = sizes[trial % 3], n_history = (int)(noise() % 60),
            n_kinds = n < 6 ? n : 2 + (int)(noise() % 5);
        int32_t history[60];
        for (int i = 0; i < n; i++) logits[i] = (float)(3 * noise_normal());
        for (int i = 0; i < n_history; i++) history[i] = (int32_t)(noise() % (unsigned)n_kinds);
        SampleParams p = try_params();
        SampleBias bias[2] = {{0, (float)noise_normal()}, {1, (float)noise_normal()}};
        p.bias = bias;
        p.n_bias = (int)(noise() % 3);
        if (n > 6 && maybe()) {
            p.breaks = breaker;
            p.phrases = phrases;
            p.n_phrases = (int)(sizeof phrases / sizeof *phrases);
        }
        Row r;
        run(&r, logits, n, &p, history, n_history, 0);
        int token = choose(logits, n, &p, history, n_history, (uint64_t)n_history, NULL);
        n_unclear += r.unclear;
        CHECK(r.unclear || is_at(&r, token, chance(p.seed, (uint64_t)n_history, 0)), "trial %d: %d", trial,
              token);
    }
    CHECK(n_unclear < N_TRIALS / 10, "%d of them unclear", n_unclear);
}

/* ---- one by one ---------------------------------------------------------------------------------------- */

enum { DRAWS = 20000 };

/* The shares of tokens that are drawn from given probabilities are the expected ones. */
static void check_shares(const char *what, const SampleParams *p, const double *from, const double *to, int n,
                         const int32_t *history, int n_history) {
    float logits[8];
    int count[8] = {0};
    for (int i = 0; i < n; i++) logits[i] = (float)log(from[i]);
    for (uint64_t at = 0; at < DRAWS; at++) count[choose(logits, n, p, history, n_history, at, NULL)]++;
    for (int i = 0; i < n; i++) {
        double expected = to[i] * DRAWS, wide = 4 * sqrt(expected * (1 - to[i]));
        CHECK(fabs(count[i] - expected) <= wide, "%s: token %d is drawn %d times, not %g", what, i, count[i],
              expected);
    }
}

#define SHARES(...) ((const double[]){__VA_ARGS__})

TEST(samplers_typical) {
    SampleParams p = plain;
    p.typical_p = 0.5f;
    check_shares("peak", &p, SHARES(0.97, 0.01, 0.01, 0.01), SHARES(1, 0, 0, 0), 4, NULL, 0);
    check_shares("the best goes", &p, SHARES(0.4, 0.2, 0.2, 0.2), SHARES(0, 1 / 3., 1 / 3., 1 / 3.), 4, NULL,
                 0);
    p.typical_p = FLT_MIN;
    check_shares("one", &p, SHARES(0.4, 0.2, 0.2, 0.2), SHARES(0, 1, 0, 0), 4, NULL, 0);
    p.typical_p = 1;
    check_shares("off", &p, SHARES(0.4, 0.2, 0.2, 0.2), SHARES(0.4, 0.2, 0.2, 0.2), 4, NULL, 0);
}

TEST(samplers_top_n_sigma) {
    SampleParams p = plain;
    p.top_n_sigma = 1; // of 0.53
    check_shares("1", &p, SHARES(0.1, 0.2, 0.3, 0.4), SHARES(0, 0, 3 / 7., 4 / 7.), 4, NULL, 0);
    p.top_n_sigma = 3;
    check_shares("3", &p, SHARES(0.1, 0.2, 0.3, 0.4), SHARES(0.1, 0.2, 0.3, 0.4), 4, NULL, 0);
    p.top_n_sigma = 0;
    check_shares("off", &p, SHARES(0.1, 0.2, 0.3, 0.4), SHARES(0.1, 0.2, 0.3, 0.4), 4, NULL, 0);
    float holes[] = {-INFINITY, 1, 1.5f, -INFINITY, -1};
    p.top_n_sigma = 1.2f; // of 1.08: tokens at -Inf do not count
    for (uint64_t at = 0; at < 300; at++) {
        int token = choose(holes, 5, &p, NULL, 0, at, NULL);
        CHECK(token == 1 || token == 2, "%d", token);
    }
}

TEST(samplers_xtc) {
    SampleParams p = plain;
    p.xtc_probability = 1;
    p.xtc_threshold = 0.09f;
    check_shares("all but one go", &p, SHARES(0.4, 0.3, 0.2, 0.1), SHARES(0, 0, 0, 1), 4, NULL, 0);
    p.xtc_threshold = 0.19f;
    check_shares("two go", &p, SHARES(0.4, 0.3, 0.2, 0.1), SHARES(0, 0, 2 / 3., 1 / 3.), 4, NULL, 0);
    p.xtc_threshold = 0.29f;
    check_shares("one goes", &p, SHARES(0.4, 0.3, 0.2, 0.1), SHARES(0, 1 / 2., 1 / 3., 1 / 6.), 4, NULL, 0);
    p.xtc_threshold = 0.39f;
    check_shares("a single one stays", &p, SHARES(0.4, 0.3, 0.2, 0.1), SHARES(0.4, 0.3, 0.2, 0.1), 4, NULL,
                 0);
    p.xtc_threshold = 0.51f;
    check_shares("off", &p, SHARES(0.4, 0.3, 0.2, 0.1), SHARES(0.4, 0.3, 0.2, 0.1), 4, NULL, 0);
    p.xtc_threshold = 0.39f;
    check_shares("one of two equals goes", &p, SHARES(0.4, 0.4, 0.2), SHARES(0, 2 / 3., 1 / 3.), 3, NULL, 0);
    p.xtc_probability = 0.25f; // the chance of xtc is not that of the token
    check_shares("by chance", &p, SHARES(0.4, 0.4, 0.2), SHARES(0.3, 0.3 + 1 / 6., 0.15 + 1 / 12.), 3, NULL,
                 0);
    p.xtc_probability = 1;
    p.temp = 0; // the best of what is left
    check_shares("cold", &p, SHARES(0.5, 0.4, 0.1), SHARES(0, 1, 0), 3, NULL, 0);
}

TEST(samplers_temperature_by_entropy) {
    SampleParams p = plain;
    p.temp = p.temp_range = 0.5f;
    p.temp_exponent = 1; // equal probabilities have all of the entropy: temperature 1
    check_shares("flat", &p, SHARES(0.25, 0.25, 0.25, 0.25), SHARES(0.25, 0.25, 0.25, 0.25), 4, NULL, 0);
    double h = -(0.7 * log(0.7) + 0.3 * log(0.3)) / log(2), a = pow(0.7, 1 / h), b = pow(0.3, 1 / h);
    check_shares("by entropy", &p, SHARES(0.7, 0.3), SHARES(a / (a + b), b / (a + b)), 2, NULL, 0);
    p.temp = 1;
    p.temp_exponent = 0; // always the highest
    a = pow(0.7, 1 / 1.5), b = pow(0.3, 1 / 1.5);
    check_shares("to the power 0", &p, SHARES(0.7, 0.3), SHARES(a / (a + b), b / (a + b)), 2, NULL, 0);
}

TEST(samplers_dry) {
    static const int32_t text[] = {0, 1, 2, 0, 1}; // 2 would repeat two tokens
    static const uint32_t one[] = {1u << 1}, two[] = {1u << 2};
    SampleParams p = plain;
    p.dry_multiplier = (float)log(4);
    p.dry_base = 1.5f;
    p.dry_allowed_length = 2;
    p.dry_last_n = -1;
    check_shares("a repetition of 2", &p, SHARES(0.25, 0.25, 0.4, 0.1),
                 SHARES(0.25 / 0.7, 0.25 / 0.7, 0.1 / 0.7, 0.1 / 0.7), 4, text, 5);
    p.dry_allowed_length = 1;
    double left = 0.4 * pow(4, -1.5), sum = 0.6 + left;
    check_shares("one more", &p, SHARES(0.25, 0.25, 0.4, 0.1),
                 SHARES(0.25 / sum, 0.25 / sum, left / sum, 0.1 / sum), 4, text, 5);
    p.dry_allowed_length = 3;
    check_shares("allowed", &p, SHARES(0.25, 0.25, 0.4, 0.1), SHARES(0.25, 0.25, 0.4, 0.1), 4, text, 5);
    p.dry_allowed_length = 2;
    p.dry_last_n = 3;
    check_shares("out of the window", &p, SHARES(0.25, 0.25, 0.4, 0.1), SHARES(0.25, 0.25, 0.4, 0.1), 4, text,
                 5);
    p.dry_last_n = 5;
    p.breaks = one;
    check_shares("behind a breaker", &p, SHARES(0.25, 0.25, 0.4, 0.1), SHARES(0.25, 0.25, 0.4, 0.1), 4, text,
                 5);
    p.breaks = two;
    check_shares("a breaker itself", &p, SHARES(0.25, 0.25, 0.4, 0.1), SHARES(0.25, 0.25, 0.4, 0.1), 4, text,
                 5);
    p.breaks = NULL;
    p.phrases = (const int32_t[]){2, 0, 1};
    p.n_phrases = 3;
    check_shares("behind a phrase", &p, SHARES(0.25, 0.25, 0.4, 0.1), SHARES(0.25, 0.25, 0.4, 0.1), 4, text,
                 5);
    p.n_phrases = 0;
    p.dry_base = 4; // 4^1000 is not a float
    int32_t same[1100];
    for (int i = 0; i < 1100; i++) same[i] = 3;
    check_shares("beyond floats", &p, SHARES(0.25, 0.25, 0.4, 0.1),
                 SHARES(0.25 / 0.9, 0.25 / 0.9, 0.4 / 0.9, 0), 4, same, 1100);
    CHECK(choose((const float[]){0}, 1, &p, (const int32_t[]){0, 0, 0, 0}, 4, 4, NULL) == 0,
          "it stays a logit");
}

TEST(samplers_bias) {
    const SampleBias bias[] = {{1, (float)log(3)}, {3, -INFINITY}};
    SampleParams p = plain;
    p.bias = bias;
    p.n_bias = 2;
    check_shares("bias", &p, SHARES(0.25, 0.25, 0.25, 0.25), SHARES(0.2, 0.6, 0.2, 0), 4, NULL, 0);
    p.repeat_penalty = 2; // of the logit with its bias: log 0.75 becomes twice that
    p.repeat_last_n = 1;
    check_shares("penalised", &p, SHARES(0.25, 0.25, 0.25, 0.25),
                 SHARES(0.25 / 1.0625, 0.5625 / 1.0625, 0.25 / 1.0625, 0), 4, (const int32_t[]){1}, 1);
    p.temp = 0;
    CHECK(choose((const float[]){2, 1.5f, 0, 9}, 4, &p, NULL, 0, 0, NULL) == 1,
          "the greedy choice has them, too");
}

TEST(samplers_in_their_order) {
    SampleParams p = plain;
    p.top_k = 3;
    p.min_p = 0.1f;
    p.temp = 0.25f;
    double total = pow(0.5, 4) + pow(0.3, 4) + pow(0.15, 4);
    check_shares("usual", &p, SHARES(0.5, 0.3, 0.15, 0.05),
                 SHARES(pow(0.5, 4) / total, pow(0.3, 4) / total, pow(0.15, 4) / total, 0), 4, NULL, 0);
    memcpy(p.order, ((const uint8_t[]){FILTER_TEMPERATURE, FILTER_MIN_P, 0}), 3);
    total = pow(0.5, 4) + pow(0.3, 4); // 0.15^4 is less than a tenth of 0.5^4
    check_shares("temperature first", &p, SHARES(0.5, 0.3, 0.15, 0.05),
                 SHARES(pow(0.5, 4) / total, pow(0.3, 4) / total, 0, 0), 4, NULL, 0);
    memcpy(p.order, ((const uint8_t[]){FILTER_TOP_K, 0}), 2);
    check_shares("no temperature", &p, SHARES(0.5, 0.3, 0.15, 0.05),
                 SHARES(0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0), 4, NULL, 0);
    p.top_k = 1;
    p.presence_penalty = 100;
    p.repeat_last_n = -1;
    memcpy(p.order, ((const uint8_t[]){FILTER_TOP_K, FILTER_PENALTIES, 0}), 3);
    check_shares("penalties last", &p, SHARES(0.6, 0.4), SHARES(1, 0), 2, (const int32_t[]){0}, 1);
    memcpy(p.order, ((const uint8_t[]){FILTER_PENALTIES, FILTER_TOP_K, 0}), 3);
    check_shares("penalties first", &p, SHARES(0.6, 0.4), SHARES(0, 1), 2, (const int32_t[]){0}, 1);
}

/* ---- mirostat ------------------------------------------------------------------------------------------ */

static const SampleParams mirostat_params = {.temp = 0.9f,
                                             .top_p = 1,
                                             .repeat_penalty = 1,
                                             .seed = 8,
                                             .order = {FILTER_TEMPERATURE, FILTER_MIROSTAT},
                                             .mirostat_tau = 3,
                                             .mirostat_eta = 0.2f,
                                             .first = 7};

static void draw_logits(float *logits, uint64_t position) {
    noise_state = 0x9E3779B97F4A7C15 * (position + 1);
    for (int i = 0; i < N_MOST; i++) logits[i] = (float)(2.5 * noise_normal());
}

TEST(samplers_mirostat) {
    enum { FIRST = 7, END = 2000 };
    static float mu[END];
    float logits[N_MOST];
    double expected = 2 * 3, mean = 0;
    int n_unclear = 0;
    for (uint64_t at = FIRST; at < END; at++) {
        Row r;
        draw_logits(logits, at);
        int token = choose(logits, N_MOST, &mirostat_params, NULL, 0, at, mu + at - 1);
        run(&r, logits, N_MOST, &mirostat_params, NULL, 0, expected);
        bool is_there = is_at(&r, token, chance(mirostat_params.seed, at, 0));
        n_unclear += r.unclear;
        CHECK(r.unclear || is_there, "position %d: %d", (int)at, token);
        double next = expected - 0.2 * (surprise(&r, token) - 3);
        CHECK(r.unclear || fabs(mu[at - 1] - next) < 1e-4, "position %d: %g, not %g", (int)at, mu[at - 1],
              next);
        mean += surprise(&r, token) / (END - FIRST);
        expected = mu[at - 1]; // so that rounding does not add up
    }
    CHECK(n_unclear < END / 10, "%d of them unclear", n_unclear);
    CHECK(fabs(mean - 3) < 0.1, "a surprise of %g bits", mean);
}

/* A step is a function of its position: going back to one, and then on, gives the same tokens. */
TEST(samplers_mirostat_goes_back) {
    enum { FIRST = 7, END = 100 };
    static float mu[END];
    float logits[N_MOST];
    int tokens[END];
    for (int pass = 0; pass < 3; pass++)
        for (int at = pass == 0 ? FIRST : pass == 1 ? 50 : FIRST; at < END; at++) {
            draw_logits(logits, (uint64_t)at);
            int token = choose(logits, N_MOST, &mirostat_params, NULL, 0, (uint64_t)at, mu + at - 1);
            CHECK(pass == 0 || token == tokens[at], "position %d: %d, not %d", at, token, tokens[at]);
            tokens[at] = token;
        }
}
