/* The sampler: its generator against published vectors, its exponential against libm's, its chain against two
 * references: one that sorts and sums the same integers in the plainest way (the token must be the same), and
 * one in double precision with libm (the token must be the one that chance pointed at, within 1e-5). */
#include "check.h"
#include "noise.h"

#include "../../src/exec/sample.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PICK(table) table[noise() % (sizeof table / sizeof table[0])]

static const SampleParams plain = {.temp = 1, .top_p = 1, .repeat_penalty = 1}; // every filter off

static int choose(const float *logits, int n, const SampleParams *p, const int32_t *history, int n_history,
                  uint64_t position) {
    void *scratch = malloc(sample_scratch_bytes(n));
    memset(scratch, (int)noise(), sample_scratch_bytes(n)); // what a slot held before must not matter
    int token = sample_token(logits, n, p, history, n_history, position, NULL, scratch);
    free(scratch);
    return token;
}

static int greedy(const float *logits, int n, SampleParams p, const int32_t *history, int n_history) {
    p.temp = 0;
    return choose(logits, n, &p, history, n_history, 0);
}

static uint64_t random_bits(uint64_t seed, uint64_t position) {
    uint32_t counter[4] = {(uint32_t)position, (uint32_t)(position >> 32)}, out[4];
    sample_philox(counter, (uint32_t[2]){(uint32_t)seed, (uint32_t)(seed >> 32)}, out);
    return (uint64_t)out[1] << 32 | out[0];
}

TEST(sample_philox_vectors) { // Random123's known answers
    static const uint32_t vectors[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb,
         0x5001e420, 0x24126ea1},
    };
    for (int v = 0; v < 3; v++) {
        uint32_t out[4];
        sample_philox(vectors[v], vectors[v] + 4, out);
        CHECK(memcmp(out, vectors[v] + 6, sizeof out) == 0, "vector %d: %08x", v, out[0]);
    }
}

TEST(sample_weight_accuracy) {
    double worst = 0;
    for (int i = 0; i < 300000; i++) {
        float x = -(float)i * (29.0f / 300000);
        double exact = exp(x) * 0x1p42, error = fabs((double)sample_weight(x) - exact);
        if (error > 1) worst = fmax(worst, (error - 1) / exact); // 1: the integer is cut, not rounded
    }
    CHECK(worst < 0x1p-22, "relative error %g", worst);
    CHECK(sample_weight(0) == 1ull << 42);
    CHECK(sample_weight(-0.0f) == 1ull << 42);
    CHECK(sample_weight(-0x1p-149f) == 1ull << 42);
    CHECK(sample_weight(-29.10f) == 1);
    CHECK(sample_weight(-29.12f) == 0);
    CHECK(sample_weight(-88) == 0);
    CHECK(sample_weight(-FLT_MAX) == 0);
    CHECK(sample_weight(-INFINITY) == 0);
}

/* Equal bits on every machine and compiler: a fused multiply-add or another rounding changes this sum. */
TEST(sample_weight_bits) {
    uint64_t hash = 0xcbf29ce484222325;
    for (int i = 0; i < 1000000; i++)
        hash = (hash ^ sample_weight(-(float)i * 0x1.3a92p-15f)) * 0x100000001b3;
    CHECK(hash == 0x6c24aa216550494c, "%016llx", (unsigned long long)hash);
}

/* The order of the sampler, once more: better is higher, then the lower id. */
typedef struct Token {
    float logit;
    int id;
    uint64_t weight;
    double p;
} Token;

static int by_rank(const void *a, const void *b) {
    const Token *s = a, *t = b;
    if (s->logit != t->logit) return s->logit > t->logit ? -1 : 1;
    return s->id < t->id ? -1 : s->id > t->id;
}

static int by_id(const void *a, const void *b) {
    return ((const Token *)a)->id - ((const Token *)b)->id;
}

/* Penalised and sorted; *n tokens, as many as top-k leaves. */
static Token *sorted_tokens(const float *logits, int *n, const SampleParams *p, const int32_t *history,
                            int n_history) {
    Token *tokens = calloc((size_t)*n, sizeof *tokens);
    int *count = calloc((size_t)*n, sizeof *count);
    for (int i = 0; i < n_history; i++)
        if (p->repeat_last_n < 0 || i >= n_history - p->repeat_last_n) count[history[i]]++;
    for (int i = 0; i < *n; i++) {
        float l = logits[i];
        if (count[i]) {
            if (l > 0)
                l /= p->repeat_penalty;
            else
                l *= p->repeat_penalty;
            float frequency = (float)count[i] * p->frequency_penalty,
                  penalty = frequency + p->presence_penalty;
            l -= penalty;
        }
        for (int b = 0; b < p->n_banned; b++)
            if (p->banned[b] == i) l = -INFINITY;
        tokens[i] = (Token){.logit = l, .id = i};
    }
    free(count);
    qsort(tokens, (size_t)*n, sizeof *tokens, by_rank);
    if (p->top_k > 0 && p->top_k < *n) *n = p->top_k;
    return tokens;
}

static int keep_heavy(Token *tokens, int n, uint64_t least) {
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (tokens[i].weight >= least) tokens[kept++] = tokens[i];
    return kept;
}

/* ceil(f * total), by way of the 24 bits of f. */
static uint64_t exact_share(float f, uint64_t total) {
    int exponent;
    uint64_t bits = (uint64_t)(frexpf(f, &exponent) * 0x1p24f);
    unsigned __int128 product = (unsigned __int128)bits * total, one = 1;
    return (uint64_t)((product + (one << (24 - exponent)) - 1) >> (24 - exponent));
}

static int integer_reference(const float *logits, int n, const SampleParams *p, const int32_t *history,
                             int n_history, uint64_t position) {
    Token *tokens = sorted_tokens(logits, &n, p, history, n_history);
    float max = tokens[0].logit;
    uint64_t total = 0, sum = 0;
    for (int i = 0; i < n; i++) total += tokens[i].weight = sample_weight(tokens[i].logit - max);
    if (p->top_p < 1) {
        uint64_t want = exact_share(p->top_p, total);
        int kept = 0;
        do sum += tokens[kept++].weight;
        while (sum < want);
        n = kept;
    }
    if (p->min_p > 0) n = keep_heavy(tokens, n, exact_share(p->min_p, 1ull << 42));
    qsort(tokens, (size_t)n, sizeof *tokens, by_id);
    total = sum = 0;
    for (int i = 0; i < n; i++) total += tokens[i].weight = sample_weight((tokens[i].logit - max) / p->temp);
    uint64_t target = (uint64_t)((unsigned __int128)random_bits(p->seed, position) * total >> 64);
    int i = 0;
    while ((sum += tokens[i].weight) <= target) i++;
    int token = tokens[i].id;
    free(tokens);
    return token;
}

enum {
    NORMAL,
    NORMAL_WIDE,
    TIES,
    SIGNED_ZEROS,
    EQUAL,
    WITH_HOLES,
    RISING,
    FALLING,
    SPIKE,
    HUGE_RANGE,
    N_SHAPES
};

static void fill(float *logits, int n, int shape) {
    for (int i = 0; i < n; i++) {
        float z = (float)noise_normal();
        switch (shape) {
        case NORMAL:
            logits[i] = 3 * z;
            break;
        case NORMAL_WIDE:
            logits[i] = 15 * z - 40;
            break;
        case TIES:
            logits[i] = floorf(2 * z) / 2;
            break;
        case SIGNED_ZEROS:
            logits[i] = z > 1 ? -1 : z > 0 ? 0.0f : -0.0f;
            break;
        case EQUAL:
            logits[i] = -7.25f;
            break;
        case WITH_HOLES:
            logits[i] = z < -0.5f ? -INFINITY : z;
            break;
        case RISING:
            logits[i] = (float)i / (float)n * 20;
            break;
        case FALLING:
            logits[i] = (float)(n - i) / (float)n * 20;
            break;
        case SPIKE:
            logits[i] = z - 30;
            break;
        case HUGE_RANGE:
            logits[i] = z * 2e37f;
            break;
        }
        if (!(logits[i] < FLT_MAX)) logits[i] = FLT_MAX;
    }
    if (shape == SPIKE || shape == WITH_HOLES) logits[noise() % (uint32_t)n] = 5;
}

/* Each bit of `filters` turns one step of the chain on, with a value worth trying. */
static SampleParams try_params(int filters, int n) {
    static const float temps[] = {0.01f, 0.5f, 0.8f, 1.5f, 5, 1000};
    static const float top_ps[] = {0, 1e-6f, 0.1f, 0.5f, 0.95f, 0.999f, 0x1.fffffep-1f};
    static const float min_ps[] = {1e-6f, 0.01f, 0.05f, 0.5f, 1};
    static const float repeats[] = {1.0f, 1.1f, 2.0f, 0.7f};
    static const float others[] = {0, 0.25f, 1.3f, -0.5f};
    static const int windows[] = {-1, 0, 1, 7, 64};
    const int top_ks[] = {1, 2, 5, 40, 1000, n - 1, n, n + 1};
    SampleParams p = plain;
    p.seed = noise();
    p.seed = p.seed << 32 | noise();
    if (filters & 1) p.top_k = PICK(top_ks);
    if (filters & 2) p.top_p = PICK(top_ps);
    if (filters & 4) p.min_p = PICK(min_ps);
    if (filters & 8) p.temp = PICK(temps);
    if (filters & 16) {
        p.repeat_last_n = PICK(windows);
        p.repeat_penalty = PICK(repeats);
        p.presence_penalty = PICK(others);
        p.frequency_penalty = PICK(others);
    }
    return p;
}

static void against_integer_reference(int n, int n_trials) {
    float *logits = malloc((size_t)n * sizeof *logits);
    for (int trial = 0; trial < n_trials; trial++) {
        noise_state = 0x9E3779B97F4A7C15 * (uint64_t)(trial + 1) + (uint64_t)n;
        int shape = trial % N_SHAPES, filters = n_trials < 100 ? 31 : (int)(noise() % 64);
        fill(logits, n, shape);
        SampleParams p = try_params(filters, n);
        int32_t history[200], n_history = (int)(noise() % 200), banned[] = {(int32_t)(noise() % (uint32_t)n)};
        for (int i = 0; i < n_history; i++) history[i] = (int32_t)(noise() % (uint32_t)(n < 90 ? n : 90));
        bool can_ban = n > 1 && shape != WITH_HOLES && shape != HUGE_RANGE;
        if (filters & 32 && can_ban) {
            p.banned = banned;
            p.n_banned = 1;
        }
        int token = choose(logits, n, &p, history, n_history, (uint64_t)trial);
        int expected = integer_reference(logits, n, &p, history, n_history, (uint64_t)trial);
        CHECK(token == expected, "n %d trial %d shape %d filters %d: %d, not %d", n, trial, shape, filters,
              token, expected);
    }
    free(logits);
}

TEST(sample_chain_exact_small) {
    against_integer_reference(1, 300);
    against_integer_reference(2, 3000);
    against_integer_reference(17, 6000);
    against_integer_reference(1000, 1000);
}

TEST(sample_chain_exact_large) {
    against_integer_reference(128256, N_SHAPES);
    against_integer_reference(262209, N_SHAPES);
}

/* The tokens of 1000 rows without libm in their making: every machine and every executor must choose
 * these. */
TEST(sample_tokens_everywhere) {
    enum { N = 1003 };
    float logits[N];
    uint64_t hash = 0xcbf29ce484222325;
    noise_state = 2026;
    for (uint64_t row = 0; row < 1000; row++) {
        for (int i = 0; i < N; i++) logits[i] = (float)(noise() >> 8) * 0x1p-20f - 8;
        int32_t history[50];
        for (int i = 0; i < 50; i++) history[i] = (int32_t)(noise() % 90);
        SampleParams p = try_params((int)row % 32, N);
        hash = (hash ^ (uint64_t)choose(logits, N, &p, history, 50, row)) * 0x100000001b3;
    }
    CHECK(hash == 0xf7c27281e9ca9289, "%016llx", (unsigned long long)hash);
}

/* Where double precision says that chance points: the token's share of [0, 1), in id order, must hold r /
 * 2^64 within 1e-5.  Returns false where a threshold is too near a token for double precision to decide. */
static bool agrees_with_double(const float *logits, int n, const SampleParams *p, uint64_t position,
                               int token, bool *agrees) {
    const double slack = 1e-5;
    Token *tokens = sorted_tokens(logits, &n, p, NULL, 0);
    double max = tokens[0].logit, total = 0, sum = 0;
    bool clear = true;
    for (int i = 0; i < n; i++) total += tokens[i].p = exp(tokens[i].logit - max);
    int kept = 0;
    while (kept < n && (kept == 0 || sum < p->top_p * total)) {
        sum += tokens[kept++].p;
        clear = clear && (p->top_p == 1 || fabs(sum - p->top_p * total) > slack * total);
    }
    if (p->top_p == 1) kept = n;
    for (n = 0; n < kept && tokens[n].p >= p->min_p; n++) {
    }
    for (int i = 0; i < kept; i++)
        clear = clear && (p->min_p == 0 || fabs(tokens[i].p / p->min_p - 1) > slack);
    qsort(tokens, (size_t)n, sizeof *tokens, by_id);
    total = sum = 0;
    for (int i = 0; i < n; i++) total += tokens[i].p = exp((tokens[i].logit - max) / p->temp);
    double u = (double)random_bits(p->seed, position) * 0x1p-64;
    *agrees = false;
    for (int i = 0; i < n; sum += tokens[i++].p)
        if (tokens[i].id == token)
            *agrees = u > sum / total - slack && u < (sum + tokens[i].p) / total + slack;
    free(tokens);
    return clear;
}

TEST(sample_chain_double) {
    static const int sizes[] = {2, 17, 1000};
    int n_unclear = 0, n_trials = 4000;
    float logits[1000];
    for (int trial = 0; trial < n_trials; trial++) {
        noise_state = 77 + (uint64_t)trial * 0x9E3779B97F4A7C15;
        int n = trial % 20 ? sizes[trial % 2] : sizes[2];
        bool agrees;
        fill(logits, n, NORMAL);
        SampleParams p = try_params(trial % 16, n);
        if (p.temp < 0.5f) p.temp = 0.5f; // a colder one magnifies the rounding of a logit difference
        if (p.top_p > 0.999f && p.top_p < 1) p.top_p = 0.9f; // the next two lie on a threshold by nature
        if (p.min_p == 1) p.min_p = 0.3f;
        int token = choose(logits, n, &p, NULL, 0, (uint64_t)trial);
        if (!agrees_with_double(logits, n, &p, (uint64_t)trial, token, &agrees))
            n_unclear++;
        else
            CHECK(agrees, "trial %d: token %d", trial, token);
    }
    CHECK(n_unclear < n_trials / 20, "%d of them unclear", n_unclear);
}

/* The chain as a parallel machine does it, straight from the definitions in sample.h: no sort, and sums in a
 * scrambled order. */
TEST(sample_order_free) {
    enum { N = 307 };
    float logits[N];
    uint64_t weight[N];
    bool in[N], stays[N];
    for (int trial = 0; trial < 200; trial++) {
        noise_state = 0xABCDEF + (uint64_t)trial * 0x9E3779B97F4A7C15;
        fill(logits, N, trial % N_SHAPES);
        SampleParams p = try_params(15, N);
        float max = -INFINITY;
        for (int i = 0; i < N; i++) max = fmaxf(max, logits[i]);
        uint64_t total = 0;
        for (int i = 0; i < N; i++) {
            int n_better = 0;
            for (int j = 0; j < N; j++)
                n_better += logits[j] > logits[i] || (logits[j] == logits[i] && j < i);
            in[i] = n_better < p.top_k;
        }
        for (int s = 0; s < N; s++) { // 100 and 307 are coprime: every token once, out of order
            int i = s * 100 % N;
            weight[i] = in[i] ? sample_weight(logits[i] - max) : 0;
            total += weight[i];
        }
        for (int i = 0; i < N; i++) {
            uint64_t better = 0;
            int n_better = 0;
            for (int s = 0; s < N; s++) {
                int j = s * 100 % N;
                if (!in[j] || !(logits[j] > logits[i] || (logits[j] == logits[i] && j < i))) continue;
                better += weight[j];
                n_better++;
            }
            stays[i] = in[i] && (p.top_p == 1 || n_better == 0 || better < exact_share(p.top_p, total)) &&
                       weight[i] >= exact_share(p.min_p, 1ull << 42);
        }
        uint64_t strands[7] = {0}, before = 0;
        for (int i = 0; i < N; i++) {
            weight[i] = stays[i] ? sample_weight((logits[i] - max) / p.temp) : 0;
            strands[i % 7] += weight[i];
        }
        total = 0;
        for (int s = 6; s >= 0; s--) total += strands[s];
        uint64_t target = (uint64_t)((unsigned __int128)random_bits(p.seed, 5) * total >> 64);
        int expected = -1;
        for (int i = 0; i < N; before += weight[i++])
            if (before <= target && target < before + weight[i]) expected = i;
        CHECK(choose(logits, N, &p, NULL, 0, 5) == expected, "trial %d", trial);
    }
}

/* The threshold of top-p is not cut: of weights 2^42, 2^42 and 1, half of the sum is more than the first. */
TEST(sample_top_p_threshold) {
    SampleParams p = plain;
    p.top_p = 0.5f;
    int count[3] = {0};
    for (uint64_t position = 0; position < 100; position++)
        count[choose((float[]){0, 0, -29.1f}, 3, &p, NULL, 0, position)]++;
    CHECK(count[0] > 0 && count[1] > 0 && count[2] == 0, "%d %d %d", count[0], count[1], count[2]);
    p.top_p = 0.49f;
    for (uint64_t position = 0; position < 100; position++)
        CHECK(choose((float[]){0, 0, -29.1f}, 3, &p, NULL, 0, position) == 0);
}

/* Chi-square of 100 000 draws against softmax in double precision; `over_seeds` draws one position of many
 * sequences instead of many positions of one. */
static void chi_square(SampleParams p, int n_kept, bool over_seeds) {
    enum { N = 40, DRAWS = 100000 };
    float logits[N];
    int count[N] = {0};
    double total = 0, statistic = 0;
    for (int i = 0; i < N; i++) logits[i] = (float)(i * 7 % N) * 0.1f; // rank 0 at the highest
    for (int i = 0; i < N; i++)
        if (i * 7 % N >= N - n_kept) total += exp(logits[i] / p.temp);
    uint64_t scratch[N * 3];
    for (int d = 0; d < DRAWS; d++) {
        if (over_seeds) p.seed = (uint64_t)d;
        count[sample_token(logits, N, &p, NULL, 0, over_seeds ? 9 : (uint64_t)d, NULL, scratch)]++;
    }
    for (int i = 0; i < N; i++) {
        double expected = i * 7 % N >= N - n_kept ? DRAWS * exp(logits[i] / p.temp) / total : 0;
        if (expected > 0)
            statistic += (count[i] - expected) * (count[i] - expected) / expected;
        else
            CHECK(count[i] == 0, "token %d was dropped, and drawn %d times", i, count[i]);
    }
    double degrees = n_kept - 1; // 3.3 deviations: one run in a thousand, but the run is always the same
    CHECK(statistic < degrees + 3.3 * sqrt(2 * degrees), "%g with %g degrees", statistic, degrees);
}

TEST(sample_distribution) {
    SampleParams p = plain;
    p.seed = 42;
    chi_square(p, 40, false);
    chi_square(p, 40, true);
    p.temp = 2;
    chi_square(p, 40, false);
    p.temp = 0.5f;
    p.top_k = 11;
    chi_square(p, 11, false);
    p.top_k = 0;
    p.min_p = 0.5f; // exp(-0.1 * 6) = 0.55
    chi_square(p, 7, false);
}

/* Chance alone: what the logits are, and all other parameters, is nothing to it; each token as likely. */
TEST(sample_blind) {
    enum { N = 10, DRAWS = 20000 };
    static const int32_t ids[] = {7, 0, 9, 8};
    const float nothing[N] = {NAN, INFINITY, 3};
    int count[N] = {0}, n_moved = 0;
    double statistic = 0;
    SampleParams p = plain, other = sample_defaults, high = plain;
    p.seed = other.seed = 3;
    high.seed = 3 | 1ull << 40;
    p.random_tokens = other.random_tokens = high.random_tokens = true;
    for (uint64_t at = 0; at < DRAWS; at++) {
        int token = choose(nothing, N, &p, NULL, 0, at);
        CHECK(token >= 0 && token < N && token == choose(NULL, N, &other, ids, 4, at));
        n_moved += token != choose(NULL, N, &high, NULL, 0, at);
        count[token]++;
    }
    for (int i = 0; i < N; i++) statistic += pow(count[i] - DRAWS / N, 2) / (DRAWS / N);
    CHECK(statistic < 9 + 3.3 * sqrt(2 * 9), "%g with 9 degrees", statistic);
    CHECK(fabs(n_moved / (double)DRAWS - 0.9) < 0.01, "%d of %d depend on the seed", n_moved, DRAWS);
    other.banned = ids;
    other.n_banned = 4;
    for (uint64_t at = 0; at < 200; at++) {
        int token = choose(NULL, N, &p, NULL, 0, at), left = choose(NULL, N, &other, NULL, 0, at);
        CHECK(left == (token == 0 || token > 6 ? 1 : token), "%d for %d", left, token);
    }
    other.banned = (int32_t[]){1, 0};
    other.n_banned = 2;
    CHECK(choose(NULL, 2, &other, NULL, 0, 0) == -1, "nothing is left");
}

TEST(sample_greedy) {
    float logits[40] = {[3] = 2, [17] = 2, [39] = 2};
    CHECK(greedy(logits, 40, plain, NULL, 0) == 3, "the lowest id of equals");
    logits[38] = nextafterf(2, 3);
    CHECK(greedy(logits, 40, plain, NULL, 0) == 38);
    CHECK(greedy((float[]){-0.0f, 0.0f}, 2, plain, NULL, 0) == 0, "the zeros are equal");
    CHECK(greedy((float[]){-3, -2, -2.5f}, 3, plain, NULL, 0) == 1);
    CHECK(greedy((float[]){-INFINITY, -FLT_MAX}, 2, plain, NULL, 0) == 1);
    CHECK(greedy((float[]){FLT_MAX, 1}, 2, plain, NULL, 0) == 0);
    SampleParams one = sample_defaults, none = sample_defaults;
    one.top_k = 1;
    none.top_p = 0;
    none.top_k = 0;
    none.min_p = 0;
    for (uint64_t position = 0; position < 50; position++) {
        CHECK(choose(logits, 40, &one, NULL, 0, position) == 38, "top-k 1");
        CHECK(choose(logits, 40, &none, NULL, 0, position) == 38, "top-p 0");
    }
}

TEST(sample_penalties) {
    const int32_t history[] = {0, 0, 0, 1};
    SampleParams p = plain;
    p.repeat_last_n = 64;
    p.repeat_penalty = 1.1f;
    CHECK(greedy((float[]){2, 0, 1.7f}, 3, p, history, 4) == 0, "2 / 1.1 once, not three times");
    CHECK(greedy((float[]){2, 0, 1.9f}, 3, p, history, 4) == 2);
    CHECK(greedy((float[]){-1, -9, -1.05f}, 3, p, history, 4) == 2, "a negative logit is multiplied");
    p.repeat_penalty = 1;
    p.presence_penalty = 0.25f;
    CHECK(greedy((float[]){2, 0, 1.7f}, 3, p, history, 4) == 0, "presence counts once");
    CHECK(greedy((float[]){2, 0, 1.8f}, 3, p, history, 4) == 2);
    p.presence_penalty = 0;
    p.frequency_penalty = 0.25f;
    CHECK(greedy((float[]){2, 0, 1.3f}, 3, p, history, 4) == 2, "frequency counts each");
    CHECK(greedy((float[]){2, 0, 1.2f}, 3, p, history, 4) == 0);
    p.repeat_last_n = 3; // two of the three
    CHECK(greedy((float[]){2, 0, 1.4f}, 3, p, history, 4) == 0);
    CHECK(greedy((float[]){2, 0, 1.6f}, 3, p, history, 4) == 2);
    p.repeat_last_n = 1;
    CHECK(greedy((float[]){2, 0, 1.9f}, 3, p, history, 4) == 0, "out of the window");
    p.repeat_last_n = -1;
    CHECK(greedy((float[]){2, 0, 1.3f}, 3, p, history, 4) == 2, "the whole history");
    p.repeat_last_n = 0;
    CHECK(greedy((float[]){2, 0, 1.9f}, 3, p, history, 4) == 0, "off");
}

TEST(sample_banned) {
    const int32_t ids[] = {1, 2};
    SampleParams p = plain;
    p.banned = ids;
    p.n_banned = 2;
    float logits[] = {0, 9, 8, 0.5f};
    CHECK(greedy(logits, 4, p, NULL, 0) == 3);
    for (uint64_t position = 0; position < 200; position++) {
        int token = choose(logits, 4, &p, NULL, 0, position);
        CHECK(token == 0 || token == 3);
    }
    CHECK(greedy((float[]){-INFINITY, 9, 8}, 3, p, NULL, 0) == -1, "nothing is left");
    CHECK(greedy((float[]){0, NAN, 8}, 3, p, NULL, 0) == -1, "a ban does not hide a NaN");
    CHECK(greedy((float[]){0, INFINITY, 8}, 3, p, NULL, 0) == -1);
    CHECK(greedy((float[]){0, -NAN, 8}, 3, p, NULL, 0) == -1);
}

TEST(sample_not_finite) {
    enum { N = 37 };
    static const float wrong[] = {NAN, -NAN, INFINITY};
    float logits[N];
    SampleParams p = plain;
    for (int w = 0; w < 3; w++)
        for (int at = 0; at < N; at++) {
            for (int i = 0; i < N; i++) logits[i] = (float)i;
            CHECK(greedy(logits, N, p, NULL, 0) == N - 1);
            logits[at] = wrong[w];
            CHECK(greedy(logits, N, p, NULL, 0) == -1);
            CHECK(choose(logits, N, &p, NULL, 0, 0) == -1);
        }
    for (int i = 0; i < N; i++) logits[i] = -INFINITY;
    CHECK(greedy(logits, N, p, NULL, 0) == -1);
    logits[36] = -5;
    CHECK(greedy(logits, N, p, NULL, 0) == 36);
    CHECK(choose(logits, N, &sample_defaults, NULL, 0, 0) == 36);
    p.repeat_penalty = FLT_MIN;
    p.repeat_last_n = -1; // 5 / FLT_MIN is no logit
    CHECK(greedy((float[]){5, 1}, 2, p, (int32_t[]){0}, 1) == -1);
}

TEST(sample_chance) {
    enum { N = 256, DRAWS = 200 };
    float logits[N] = {0};
    int tokens[DRAWS], n_same = 0;
    SampleParams p = plain, other = plain, high = plain;
    p.seed = 1;
    other.seed = 2;
    high.seed = 1 | 1ull << 32;
    for (int d = 0; d < DRAWS; d++) tokens[d] = choose(logits, N, &p, NULL, 0, (uint64_t)d);
    for (int d = DRAWS - 1; d >= 0; d--) // in another order, from other scratch memory
        CHECK(choose(logits, N, &p, NULL, 0, (uint64_t)d) == tokens[d]);
    for (int d = 0; d < DRAWS; d++) n_same += choose(logits, N, &p, NULL, 0, (uint64_t)d + 1) == tokens[d];
    CHECK(n_same < 10, "%d draws of 200 ignore the position", n_same);
    for (int d = n_same = 0; d < DRAWS; d++)
        n_same += choose(logits, N, &p, NULL, 0, (uint64_t)d + (1ull << 32)) == tokens[d];
    CHECK(n_same < 10, "%d draws of 200 ignore the high half of the position", n_same);
    for (int d = n_same = 0; d < DRAWS; d++)
        n_same += choose(logits, N, &other, NULL, 0, (uint64_t)d) == tokens[d];
    CHECK(n_same < 10, "%d draws of 200 ignore the seed", n_same);
    for (int d = n_same = 0; d < DRAWS; d++)
        n_same += choose(logits, N, &high, NULL, 0, (uint64_t)d) == tokens[d];
    CHECK(n_same < 10, "%d draws of 200 ignore the high half of the seed", n_same);
}

TEST(sample_logprobs_report) {
    enum { N = 1000 };
    float logits[N];
    int32_t ids[N];
    double logprobs[N], exact = 0;
    noise_state = 11;
    fill(logits, N, TIES);
    logits[500] = -INFINITY;
    logits[501] = -200;
    for (int i = 0; i < N; i++) exact += exp(logits[i]);
    exact = log(exact);
    CHECK(fabs(sample_logprobs(logits, N, 0, NULL, NULL, 7) - (logits[7] - exact)) < 1e-6);
    CHECK(fabs(sample_logprobs(logits, N, 0, NULL, NULL, 501) - (-200 - exact)) < 1e-6);
    CHECK(sample_logprobs(logits, N, 0, NULL, NULL, 500) == -INFINITY);
    int n = N;
    Token *tokens = sorted_tokens(logits, &n, &plain, NULL, 0);
    static const int bests[] = {1, 2, 20, N};
    for (int b = 0; b < 4; b++) {
        sample_logprobs(logits, N, bests[b], ids, logprobs, 0);
        for (int i = 0; i < bests[b]; i++) {
            CHECK(ids[i] == tokens[i].id, "best %d of %d", i, bests[b]);
            CHECK(logprobs[i] == tokens[i].logit - exact ||
                  fabs(logprobs[i] - (tokens[i].logit - exact)) < 1e-6);
        }
    }
    free(tokens);
}
