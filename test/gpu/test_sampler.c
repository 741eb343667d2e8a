/* sampler: the kernels of the sampler choose the tokens of the host's, to the bit, and leave the same mu.
 *
 * Each option by itself on 100,000 rows of random logits; chains of any filters in any order, rows of several
 * kinds beside each other, in one and in many tiles of tokens. */
#include "device.h"
#include "gpu.h"
#include "tiny.h"
#include "../../src/exec/sample_math.h"

enum { R = 50, N_VOCAB = 1003, N_LAUNCHES = 2000, HISTORY = 40, LENGTH = HISTORY + 1 }; // 100,000 rows

typedef struct Sampling { // on the device, with the host's view of what changes
    SampleStep step;
    SampleParams params[R];
    bool ban[R];
    DeviceSampler samplers[R];
    int32_t history[R][LENGTH], position[R];
    float mu[R][LENGTH];
    float *logits; // [R][stride]
    int stride;
    void *scratch; // the host's
    void *device_logits;
    uint32_t *device_banned;
    SampleParams tables; // the tables below, on the device
    RingEntry *ring;
} Sampling;

static const int32_t banned[] = {0, 2, 500, 1002};
static const SampleBias biases[] = {{1, 1.5f}, {7, -2}, {500, 3}, {1001, -INFINITY}};
static const int32_t phrases[] = {2, 1, 0, 3, 1, 0, 3, 2, 4, 4};
enum { N_BIASES = sizeof biases / sizeof *biases, N_PHRASES = sizeof phrases / sizeof *phrases };

static uint32_t breaks[1 << 15];

static Sampling *sampling_open(int n_vocab) {
    Sampling *s = mem_new(1, sizeof *s);
    size_t n_words = ((size_t)n_vocab + 31) / 32;
    int32_t seq[R], none[R] = {0};
    for (int r = 0; r < R; r++) seq[r] = r;
    breaks[0] = 1u << 5;
    s->stride = (n_vocab + 15) / 16 * 16;
    s->logits = mem_new((size_t)(R * s->stride), sizeof *s->logits);
    s->scratch = mem_new(sample_scratch_bytes(n_vocab), 1);
    s->device_logits = device_new(NULL, (size_t)(R * s->stride) * sizeof(float));
    s->device_banned = device_new(NULL, n_words * sizeof(uint32_t));
    device_check(launch_ban(device_launch(), s->device_banned, n_words, banned, 4), "bans");
    s->tables = (SampleParams){.bias = device_new(biases, sizeof biases),
                               .breaks = device_new(breaks, n_words * sizeof *breaks),
                               .phrases = device_new(phrases, sizeof phrases)};
    device_check(cudaMallocHost((void **)&s->ring, 4 * R * sizeof *s->ring), "pinned memory");
    memset(s->ring, 0, 4 * R * sizeof *s->ring);
    s->step = (SampleStep){.logits = s->device_logits,
                           .n_vocab = n_vocab,
                           .R = R,
                           .rows = {.token = device_new(none, sizeof none),
                                    .seq = device_new(seq, sizeof seq),
                                    .position = device_new(none, sizeof none),
                                    .sampler = device_new(NULL, sizeof s->samplers)},
                           .loop = true,
                           .history = {.data = device_new(NULL, sizeof s->history),
                                       .mu = device_new(NULL, sizeof s->mu),
                                       .stride = LENGTH},
                           .step = device_zeros(sizeof(uint32_t)),
                           .ring = s->ring,
                           .ring_steps = 4,
                           .ring_rows = R,
                           .scratch = device_zeros(sample_device_scratch_bytes(R, n_vocab))};
    return s;
}

static void sampling_close(Sampling *s) {
    device_end("sampler");
    cudaFreeHost(s->ring);
    free(s->logits);
    free(s->scratch);
    free(s);
}

/* Rows of different kinds: smooth, steep, of few distinct values, and some that cannot be chosen from. */
static void draw_rows(Sampling *s, uint64_t *state) {
    int n_vocab = s->step.n_vocab;
    for (int r = 0; r < R; r++) {
        int kind = (int)(tiny_random(state) % 16);
        float spread = kind < 8 ? 3 : kind < 12 ? 40 : 0.5f, *logits = s->logits + r * s->stride;
        for (int i = 0; i < n_vocab; i++) {
            float v = spread * (tiny_float(state) + tiny_float(state));
            logits[i] = kind == 13 ? rintf(v * 4) : kind == 14 && i % 3 ? -INFINITY : v;
        }
        if (kind == 15 && tiny_random(state) % 8 == 0)
            logits[tiny_random(state) % (uint64_t)n_vocab] = r % 2 ? NAN : INFINITY;
        for (int i = 0; i < HISTORY; i++)
            s->history[r][i] = (int32_t)(tiny_random(state) % (i % 2 && r % 2 ? N_VOCAB : 20));
        for (int i = 0; i < LENGTH; i++) s->mu[r][i] = 5 + 4 * tiny_float(state);
    }
}

/* params and ban of each row are set, but for seeds and positions. */
static void sampling_send(Sampling *s, uint64_t seed) {
    s->step.chain = false;
    for (int r = 0; r < R; r++) {
        SampleParams *p = &s->params[r], on_device;
        s->position[r] = (r * 7 + (int)(seed % HISTORY)) % HISTORY;
        p->seed += seed * R + (uint64_t)r;
        p->first = s->position[r] == 0 || r % 3 == 0 ? s->position[r] + 1 : -1;
        p->banned = s->ban[r] ? banned : NULL;
        p->n_banned = s->ban[r] ? 4 : 0;
        on_device = *p;
        on_device.bias = s->tables.bias;
        on_device.breaks = p->breaks ? s->tables.breaks : NULL;
        on_device.phrases = s->tables.phrases;
        s->samplers[r] = (DeviceSampler){s->ban[r] ? s->device_banned : NULL, has_own_chain(p), on_device};
        s->step.chain |= s->samplers[r].chain;
    }
    const DeviceRows *rows = &s->step.rows;
    const DeviceHistory *history = &s->step.history;
    size_t bytes = (size_t)(R * s->stride) * sizeof(float);
    cudaMemcpy(rows->sampler, s->samplers, sizeof s->samplers, cudaMemcpyHostToDevice);
    cudaMemcpy(rows->position, s->position, sizeof s->position, cudaMemcpyHostToDevice);
    cudaMemcpy(history->data, s->history, sizeof s->history, cudaMemcpyHostToDevice);
    cudaMemcpy(history->mu, s->mu, sizeof s->mu, cudaMemcpyHostToDevice);
    device_check(cudaMemcpy(s->device_logits, s->logits, bytes, cudaMemcpyHostToDevice), "logits");
    device_check(cudaDeviceSynchronize(), "inputs"); // a copy returns before its last bytes have come
}

/* One launch against the host's sampler.  The number of rows that differ. */
static int sampling_check(Sampling *s, uint32_t step) {
    static float mu[R][LENGTH];
    int n_wrong = 0;
    device_check(launch_sample(device_launch(), &s->step), "sample");
    device_check(cudaStreamSynchronize(device_launch()->stream), "sample");
    device_read(mu, s->step.history.mu, sizeof mu);
    for (int r = 0; r < R; r++) {
        int n = s->position[r] + 1,
            token = sample_token(s->logits + r * s->stride, s->step.n_vocab, &s->params[r], s->history[r], n,
                                 (uint64_t)n, s->mu[r] + n - 1, s->scratch);
        const RingEntry *entry = &s->ring[(step - 1) % 4 * R + (uint32_t)r];
        bool same_mu = token < 0 || memcmp(mu[r], s->mu[r], sizeof mu[r]) == 0;
        n_wrong += entry->token != token || entry->step != step || !same_mu;
    }
    return n_wrong;
}

static void check_option(const SampleParams *p, bool ban, const char *name) {
    Sampling *s = sampling_open(N_VOCAB);
    uint64_t state = 8;
    int n_wrong = 0;
    for (uint32_t step = 1; step <= N_LAUNCHES; step++) {
        draw_rows(s, &state);
        for (int r = 0; r < R; r++) {
            s->params[r] = *p;
            s->ban[r] = ban;
        }
        sampling_send(s, step);
        n_wrong += sampling_check(s, step);
    }
    CHECK(n_wrong == 0, "%s: %d of %d rows are not the host's", name, n_wrong, R * N_LAUNCHES);
    sampling_close(s);
}

TEST(gpu_sampler_of_each_option_is_the_hosts) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const struct {
        const char *name;
        SampleParams p;
        bool ban;
    } options[] = {
        {"greedy", {.top_p = 1, .repeat_penalty = 1}, false},
        {"random tokens", {.random_tokens = true, .seed = 9}, false},
        {"random tokens, bans", {.random_tokens = true, .seed = 9}, true},
        {"temperature", {.temp = 0.8f, .top_p = 1, .repeat_penalty = 1, .seed = 1}, false},
        {"top-k", {.temp = 1, .top_p = 1, .repeat_penalty = 1, .top_k = 40, .seed = 2}, false},
        {"top-p", {.temp = 1, .top_p = 0.9f, .repeat_penalty = 1, .seed = 3}, false},
        {"min-p", {.temp = 1.5f, .top_p = 1, .min_p = 0.1f, .repeat_penalty = 1, .seed = 4}, false},
        {"repeat penalty",
         {.temp = 1, .top_p = 1, .repeat_penalty = 1.3f, .repeat_last_n = 16, .seed = 5},
         false},
        {"presence and frequency",
         {.temp = 1,
          .top_p = 1,
          .repeat_penalty = 1,
          .presence_penalty = 0.7f,
          .frequency_penalty = 0.3f,
          .repeat_last_n = -1,
          .seed = 6},
         false},
        {"bans", {.temp = 1, .top_p = 1, .repeat_penalty = 1, .seed = 7}, true},
        {"greedy, penalised",
         {.top_p = 1, .repeat_penalty = 1.2f, .frequency_penalty = 0.5f, .repeat_last_n = 32},
         true},
        {"all",
         {.temp = 0.8f,
          .top_p = 0.95f,
          .min_p = 0.05f,
          .repeat_penalty = 1.1f,
          .presence_penalty = 0.1f,
          .frequency_penalty = 0.1f,
          .top_k = 100,
          .repeat_last_n = 64,
          .seed = 8},
         true},
        {"biases",
         {.temp = 1, .top_p = 1, .repeat_penalty = 1, .seed = 9, .bias = biases, .n_bias = N_BIASES},
         true},
        {"typical", {.temp = 1, .top_p = 1, .repeat_penalty = 1, .typical_p = 0.6f, .seed = 10}, false},
        {"top-n-sigma", {.temp = 1.5f, .top_p = 1, .repeat_penalty = 1, .top_n_sigma = 1, .seed = 11}, false},
        {"xtc",
         {.temp = 1,
          .top_p = 1,
          .repeat_penalty = 1,
          .xtc_probability = 0.7f,
          .xtc_threshold = 0.01f,
          .seed = 12},
         false},
        {"temperature by entropy",
         {.temp = 1, .top_p = 1, .repeat_penalty = 1, .temp_range = 0.8f, .temp_exponent = 1.7f, .seed = 13},
         false},
        {"dry",
         {.temp = 1,
          .top_p = 1,
          .repeat_penalty = 1,
          .dry_multiplier = 2,
          .dry_base = 1.75f,
          .dry_allowed_length = 1,
          .dry_last_n = -1,
          .breaks = breaks,
          .phrases = phrases,
          .n_phrases = N_PHRASES,
          .seed = 14},
         false},
        {"dry, greedy",
         {.top_p = 1,
          .repeat_penalty = 1,
          .dry_multiplier = 50,
          .dry_base = 1.2f,
          .dry_last_n = 30,
          .seed = 15},
         true},
        {"mirostat",
         {.temp = 0.9f,
          .top_p = 1,
          .repeat_penalty = 1,
          .order = {FILTER_TEMPERATURE, FILTER_MIROSTAT},
          .mirostat_tau = 4,
          .mirostat_eta = 0.1f,
          .seed = 16},
         false},
        {"another order",
         {.temp = 0.7f,
          .top_p = 0.9f,
          .min_p = 0.02f,
          .repeat_penalty = 1.2f,
          .presence_penalty = 0.4f,
          .top_k = 60,
          .repeat_last_n = 20,
          .order = {FILTER_TEMPERATURE, FILTER_MIN_P, FILTER_TOP_K, FILTER_PENALTIES, FILTER_TOP_P},
          .seed = 17},
         true},
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        check_option(&options[i].p, options[i].ban, options[i].name);
}

/* ---- chains ---- */

static bool maybe(uint64_t *state) {
    return tiny_random(state) >> 20 & 1;
}

static float unit(uint64_t *state) {
    return fabsf(tiny_float(state));
}

static int below(uint64_t *state, int n) {
    return (int)(tiny_random(state) >> 8) % n;
}

static void draw_order(SampleParams *p, uint64_t *state) {
    int n = 1 + below(state, 9);
    uint8_t all[9];
    for (int i = 0; i < 9; i++) all[i] = (uint8_t)(i + 1);
    for (int i = 0; i < n; i++) {
        int k = i + below(state, 9 - i);
        p->order[i] = all[k];
        all[k] = all[i];
    }
}

static SampleParams draw_params(uint64_t *state) {
    static const float temps[] = {0, 0.5f, 0.8f, 1.5f};
    static const int ks[] = {1, 5, 40, 900, 1024, 1025, 3000};
    SampleParams p = {.temp = 1, .top_p = 1, .repeat_penalty = 1, .xtc_threshold = 0.02f, .temp_exponent = 1};
    if (maybe(state)) draw_order(&p, state);
    if (maybe(state)) p.temp = temps[below(state, 4)];
    if (maybe(state)) p.top_k = ks[below(state, 7)];
    if (maybe(state)) p.top_p = unit(state);
    if (maybe(state)) p.min_p = unit(state) * unit(state);
    if (maybe(state)) p.typical_p = unit(state);
    if (maybe(state)) p.top_n_sigma = 3 * unit(state);
    if (maybe(state)) p.xtc_probability = unit(state);
    if (maybe(state)) p.temp_range = unit(state);
    if (maybe(state)) p.repeat_last_n = below(state, HISTORY) - 1;
    p.repeat_penalty = maybe(state) ? 1.3f : 0.8f;
    p.frequency_penalty = tiny_float(state);
    if (maybe(state)) p.dry_multiplier = 2 * unit(state);
    p.dry_base = 1 + 0.25f * (float)below(state, 4);
    p.dry_allowed_length = below(state, 4);
    p.dry_last_n = below(state, HISTORY) - 1;
    if (maybe(state)) p.breaks = breaks;
    p.phrases = phrases;
    p.n_phrases = maybe(state) ? N_PHRASES : 0;
    p.bias = biases;
    p.n_bias = below(state, N_BIASES + 1);
    p.mirostat_tau = 5 * unit(state);
    p.mirostat_eta = unit(state);
    if (below(state, 6) == 0) {
        memcpy(p.order, (const uint8_t[N_FILTERS]){FILTER_TEMPERATURE, FILTER_MIROSTAT}, sizeof p.order);
        p.temp_range = 0;
    }
    p.random_tokens = below(state, 20) == 0;
    return p;
}

TEST(gpu_sampler_of_any_chain_is_the_hosts) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const struct {
        int n_vocab;
        uint32_t n_launches;
    } sizes[] = {{1003, 2000}, {5003, 200}, {131072, 10}};
    static const SampleParams usual = {
        .temp = 0.8f, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1, .top_k = 40};
    uint64_t state = 77;
    for (int i = 0; i < 3; i++) {
        Sampling *s = sampling_open(sizes[i].n_vocab);
        int n_wrong = 0;
        for (uint32_t step = 1; step <= sizes[i].n_launches; step++) {
            draw_rows(s, &state);
            for (int r = 0; r < R; r++) {
                s->params[r] = below(&state, 4) ? draw_params(&state) : usual;
                s->ban[r] = maybe(&state);
            }
            sampling_send(s, step);
            n_wrong += sampling_check(s, step);
        }
        CHECK(n_wrong == 0, "%d tokens: %d of %d rows are not the host's", sizes[i].n_vocab, n_wrong,
              R * (int)sizes[i].n_launches);
        sampling_close(s);
    }
}
