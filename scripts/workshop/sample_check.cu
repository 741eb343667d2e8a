// sample_check: the sampler on the GPU against the one on the CPU, the small ops against doubles, and how
// fast the sampler is.
//
// Right: the same token as sample_token for every logit vector, over sets of options, sizes and shapes of
// logits that look for trouble (ties, nothing but ties, sorted, flat, -Inf, what is no number), several
// steps of each sequence, so that history, position and ring advance; rows of padding stay untouched.  Fast:
// medians over replays of a graph of 20 steps.
//
//     gcc -std=c11 -O2 -ffp-contract=off -c -o build/sample_reference.o src/exec/sample.c
//     nvcc -std=c++17 -O3 -arch=sm_90 -o build/sample_check scripts/workshop/sample_check.cu
//         cuda/{sample,small}.cu build/sample_reference.o
//     build/sample_check [right [vectors per set] | fast | small]
#include "../../cuda/launch.h"
#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

static constexpr double PEAK_GB = 4645; // of an H200
static int failures, passes;
static Launch launch;

static void must(cudaError_t error, const char *what) {
    if (error == cudaSuccess) return;
    printf("FAIL %s: %s\n", what, cudaGetErrorString(error));
    exit(1);
}

static void report(bool pass, const char *format, ...) {
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pass ? passes++ : failures++;
    printf("%s %s\n", pass ? "PASS" : "FAIL", text);
    fflush(stdout);
}

template <typename E> struct Device { // a vector in device memory, zero at first
    E *data;
    size_t n;
    explicit Device(size_t n_) : n(n_) {
        must(cudaMalloc((void **)&data, n * sizeof(E)), "cudaMalloc");
        must(cudaMemset(data, 0, n * sizeof(E)), "cudaMemset");
    }
    explicit Device(const std::vector<E> &host) : Device(host.size()) { set(host); }
    Device(const Device &) = delete;
    ~Device() { cudaFree(data); }
    void set(const std::vector<E> &host) {
        must(cudaMemcpy(data, host.data(), host.size() * sizeof(E), cudaMemcpyHostToDevice),
             "copy to device");
    }
    std::vector<E> get() const {
        std::vector<E> host(n);
        must(cudaMemcpy(host.data(), data, n * sizeof(E), cudaMemcpyDeviceToHost), "copy to host");
        return host;
    }
};

struct Random { // xorshift64*
    uint64_t state;
    explicit Random(uint64_t seed) : state(seed * 0x9E3779B97F4A7C15 + 0x123456789) {
        for (int i = 0; i < 4; i++) bits();
    }
    uint32_t bits() {
        state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
        return (uint32_t)(state * 0x2545F4914F6CDD1D >> 32);
    }
    int below(int n) { return (int)(bits() % (uint32_t)n); }
    float unit() { return (float)(bits() >> 8) * 0x1p-24f; }
    float normal() { return (unit() + unit() + unit() + unit() - 2) * 1.7320508f; } // nearly
    float pick(std::initializer_list<float> of) { return of.begin()[below((int)of.size())]; }
};

static void parallel(int n, const std::function<void(int)> &work) {
    int n_threads = (int)std::max(1u, std::min(16u, std::thread::hardware_concurrency()));
    std::atomic<int> next{0};
    std::vector<std::thread> threads;
    for (int k = 0; k < n_threads; k++)
        threads.emplace_back([&] {
            for (int i; (i = next++) < n;) work(i);
        });
    for (auto &t : threads) t.join();
}

static size_t stride_of(size_t width) {
    return (width + 15) / 16 * 16;
}

// ---- what is sampled ------------------------------------------------------------------------------------

enum { SHAPES = 12, WRONG = 50 }; // one vector in WRONG is not to be chosen from

static void fill(Random &rng, float *logits, int n) {
    int shape = rng.below(SHAPES);
    float scale = rng.pick({0.5f, 2, 5}), offset = rng.pick({0, 0, 12, -30});
    for (int i = 0; i < n; i++) {
        float x = rng.normal();
        switch (shape) {
        case 0:
            x = floorf(x * 2) / 2;
            break; // ties
        case 1:
            x = 3.25f;
            break; // nothing but ties
        case 2:
            x = x * 0.001f + 10;
            break; // crowded
        case 3:
            x = (float)i * 20 / (float)n;
            break; // the best stand together
        case 4:
            x = -(float)(i / 3) * 20 / (float)n;
            break;
        case 5:
            x = rng.below(3) ? -INFINITY : x;
            break;
        case 6:
            x = rng.below(n) ? -INFINITY : x;
            break;
        case 7:
            x = rng.pick({-FLT_MAX, 1e30f, -1e30f, 1e-40f, -1e-40f, 0, -0.0f, 1, FLT_MAX});
            break;
        case 8:
            x = rng.below(n) < 3 ? x + 30 : x * 3;
            break; // peaked
        default:
            x = x * scale + offset;
        }
        logits[i] = x;
    }
    if (rng.below(WRONG) == 0) logits[rng.below(n)] = rng.pick({NAN, -NAN, INFINITY});
    if (rng.below(WRONG) == 0) std::fill(logits, logits + n, -INFINITY);
}

struct Options {
    const char *name;
    void (*set)(Random &rng, SampleParams *p, int n);
};

static const SampleParams plain = {.temp = 1, .top_p = 1, .min_p = 0, .repeat_penalty = 1};

static void penalties(Random &rng, SampleParams *p) {
    p->repeat_penalty = rng.pick({1, 1.1f, 1.3f, 0.8f, 2});
    p->presence_penalty = rng.pick({0, 0.5f, -0.3f});
    p->frequency_penalty = rng.pick({0, 0.1f, -0.2f});
    p->repeat_last_n = (int)rng.pick({-1, 0, 1, 64, 64, 500});
}

static const Options option_sets[] = {
    {"greedy", [](Random &, SampleParams *p, int) { *p = plain, p->temp = 0; }},
    {"the defaults", [](Random &, SampleParams *p, int) { *p = sample_defaults; }},
    {"top-k",
     [](Random &rng, SampleParams *p, int n) {
         *p = plain, p->temp = rng.pick({0.3f, 1, 3});
         p->top_k = rng.below(2) ? 1 + rng.below(n) : 1 + rng.below(100);
     }},
    {"top-p",
     [](Random &rng, SampleParams *p, int) {
         *p = plain, p->temp = rng.pick({0.3f, 1, 3});
         p->top_p = rng.below(2) ? rng.unit() : rng.pick({0, 0.5f, 0.9f, 0.95f, 0.99f, 0.9999999f});
     }},
    {"min-p",
     [](Random &rng, SampleParams *p, int) {
         *p = plain, p->temp = rng.pick({0.3f, 1, 3});
         p->min_p = rng.below(2) ? rng.unit() : rng.pick({1, 0.5f, 0.05f, 1e-3f, 1e-13f, 1e-40f});
     }},
    {"temperature alone",
     [](Random &rng, SampleParams *p, int) {
         *p = plain, p->temp = rng.pick({0.1f, 0.8f, 1, 1.5f, 30});
     }},
    {"penalties",
     [](Random &rng, SampleParams *p, int) {
         *p = sample_defaults, penalties(rng, p);
         p->temp = rng.pick({0, 0.8f, 1});
     }},
    {"all at once, to extremes",
     [](Random &rng, SampleParams *p, int n) {
         penalties(rng, p);
         p->temp = rng.pick({0, 1e-40f, 1e-4f, 0.5f, 1, 2, 1e4f, 1e30f});
         p->top_k = (int)rng.pick({0, 0, 1, 2, 40, 900, 1024, 1025, (float)(n - 1), (float)n, (float)n + 7});
         if (p->top_k < 0) p->top_k = 0;
         p->top_p = rng.pick({0, 1e-6f, 0.3f, 0.9f, 0.99f, 0.99999994f, 1});
         p->min_p = rng.pick({0, 0, 1e-30f, 1e-6f, 0.02f, 0.3f, 1});
     }},
};
enum { N_SETS = sizeof option_sets / sizeof option_sets[0], FIRST_BANNED_SET = 6 };

// ---- rounds: R sequences of one vocabulary, several steps each ------------------------------------------

struct Sequence { // one row
    SampleParams params;
    std::vector<int32_t> history, banned;
    int n_history, seq; // -1: padding
    std::vector<int32_t> expected;
};

struct Round {
    int n_vocab, R, steps, ring_steps, longest; // history
    std::vector<float> logits;                  // [steps][R][stride]
    std::vector<Sequence> rows;
};

static void make_row(Round &round, int r, const Options &options, bool bans, uint64_t seed) {
    Random rng(seed);
    int n = round.n_vocab;
    Sequence &row = round.rows[r];
    for (int step = 0; step < round.steps; step++)
        fill(rng, &round.logits[((size_t)step * round.R + r) * stride_of(n)], n);
    row.params = SampleParams();
    options.set(rng, &row.params, n);
    row.params.seed = (uint64_t)rng.bits() << 32 | rng.bits();
    row.n_history = rng.below(4) ? rng.below(100) : rng.below(round.longest + 1);
    row.n_history = std::min(row.n_history, round.longest);
    row.history.assign(round.longest + round.steps + 1, 0);
    for (int i = 0; i < row.n_history; i++) row.history[i] = rng.below(rng.below(2) ? n : std::min(n, 20));
    if (bans && rng.below(2))
        for (int i = rng.below(rng.below(4) ? 5 : n + 1); i > 0; i--) row.banned.push_back(rng.below(n));
}

static void expect_row(Round &round, int r) {
    Sequence &row = round.rows[r];
    std::vector<uint64_t> scratch(sample_scratch_bytes(round.n_vocab) / 8 + 1);
    SampleParams p = row.params;
    p.banned = row.banned.data(), p.n_banned = (int)row.banned.size();
    for (int step = 0; step < round.steps && row.seq >= 0; step++) {
        const float *logits = &round.logits[((size_t)step * round.R + r) * stride_of(round.n_vocab)];
        int token = sample_token(logits, round.n_vocab, &p, row.history.data(), row.n_history,
                                 (uint64_t)row.n_history, scratch.data());
        row.expected.push_back(token);
        if (token >= 0) row.history[row.n_history] = token;
        row.n_history++;
    }
}

// Runs a round on the GPU, then on the CPU; false after saying what differs.
static bool try_round(Round &round) {
    enum { UNTOUCHED = -77, FIRST_POSITION = 1000 };
    int R = round.R, n_seq = R + 2, capacity = round.longest + round.steps + 1;
    std::vector<int32_t> seq(R), history((size_t)n_seq * capacity), banned(1);
    std::vector<DeviceSampler> samplers(n_seq, DeviceSampler());
    for (const Sequence &row : round.rows) banned.insert(banned.end(), row.banned.begin(), row.banned.end());
    Device<float> logits(round.logits);
    Device<int32_t> device_history(history.size()), device_banned(banned);
    int32_t *bans = device_banned.data + 1;
    for (int r = 0; r < R; r++) {
        const Sequence &row = round.rows[r];
        seq[r] = row.seq;
        if (row.seq >= 0) {
            samplers[row.seq] = {row.params, device_history.data + (size_t)row.seq * capacity, row.n_history};
            samplers[row.seq].params.banned = bans,
            samplers[row.seq].params.n_banned = (int)row.banned.size();
            std::copy(row.history.begin(), row.history.end(), history.begin() + (size_t)row.seq * capacity);
        }
        bans += row.banned.size();
    }
    device_history.set(history);
    Device<int32_t> device_seq(seq);
    Device<DeviceSampler> device_samplers(samplers);
    Device<int32_t> token(std::vector<int32_t>(R, UNTOUCHED)),
        position(std::vector<int32_t>(R, FIRST_POSITION));
    Device<uint32_t> step_counter(R);
    Device<uint8_t> scratch(sample_device_scratch_bytes(R, round.n_vocab));
    RingEntry *ring;
    size_t n_ring = (size_t)round.ring_steps * R;
    must(cudaMallocHost((void **)&ring, n_ring * sizeof *ring), "cudaMallocHost");
    memset(ring, 0, n_ring * sizeof *ring);

    SampleStep s = {};
    s.n_vocab = round.n_vocab, s.R = R, s.samplers = device_samplers.data, s.seq = device_seq.data;
    s.token = token.data, s.position = position.data, s.step_counter = step_counter.data;
    s.ring = ring, s.ring_steps = round.ring_steps, s.scratch = scratch.data;
    for (int step = 0; step < round.steps; step++) {
        s.logits = logits.data + (size_t)step * R * stride_of(round.n_vocab);
        must(launch_sample(&launch, &s), "launch_sample");
    }
    parallel(R, [&](int r) { expect_row(round, r); });
    must(cudaStreamSynchronize(launch.stream), "sampling");

    std::vector<int32_t> tokens = token.get(), positions = position.get(), histories = device_history.get();
    samplers = device_samplers.get();
    const char *wrong = nullptr;
    int wrong_row = 0, wrong_step = 0, was = 0, expected = 0;
    auto check = [&](const char *what, int r, int step, int a, int b) {
        if (a != b && !wrong) wrong = what, wrong_row = r, wrong_step = step, was = a, expected = b;
    };
    for (int r = 0; r < R; r++) {
        const Sequence &row = round.rows[r];
        bool padding = row.seq < 0;
        int first = std::max(0, round.steps - round.ring_steps);
        for (int step = first; step < round.steps; step++) {
            const RingEntry &e = ring[(size_t)(step % round.ring_steps) * R + r];
            check("token in the ring", r, step, e.token, padding ? 0 : row.expected[step]);
            check("step in the ring", r, step, (int)e.step, padding ? 0 : step + 1);
        }
        check("token", r, round.steps, tokens[r], padding ? (int)UNTOUCHED : row.expected.back());
        check("position", r, round.steps, positions[r], FIRST_POSITION + (padding ? 0 : round.steps));
        if (padding) continue;
        check("length of the history", r, round.steps, samplers[row.seq].n_history, row.n_history);
        for (int i = 0; i < capacity; i++)
            check("history", r, i, histories[(size_t)row.seq * capacity + i], row.history[i]);
    }
    cudaFreeHost(ring);
    if (!wrong) return true;
    const SampleParams &p = round.rows[wrong_row].params;
    printf("     n_vocab %d R %d: %s of row %d at step %d is %d, not %d\n", round.n_vocab, R, wrong,
           wrong_row, wrong_step, was, expected);
    printf("     temp %g top-k %d top-p %.9g min-p %g penalties %g %g %g over %d, %zu bans\n", p.temp,
           p.top_k, p.top_p, p.min_p, p.repeat_penalty, p.presence_penalty, p.frequency_penalty,
           p.repeat_last_n, round.rows[wrong_row].banned.size());
    return false;
}

// Returns how many vectors were tried, 0 after a failure.
static int random_round(int set, int n_vocab, int R, int steps, uint64_t seed) {
    Random rng(seed);
    Round round = {};
    round.n_vocab = n_vocab, round.R = R, round.steps = steps;
    round.ring_steps = rng.below(3) ? steps : 1 + rng.below(steps);
    round.longest = rng.below(8) ? 300 : 3000;
    round.logits.resize((size_t)steps * R * stride_of(n_vocab), NAN);
    round.rows.resize(R);
    parallel(R,
             [&](int r) { make_row(round, r, option_sets[set], set >= FIRST_BANNED_SET, seed * 1000 + r); });
    int tried = 0;
    for (int r = 0; r < R; r++) {
        bool padding = R > 1 && rng.below(10) == 0;
        round.rows[r].seq =
            padding ? -1 : (r * 7 + 1) % R + 2; // R is no multiple of 7: another sequence each
        tried += padding ? 0 : steps;
    }
    return try_round(round) ? tried : 0;
}

static void check_set(int set, int n_vectors) {
    struct Part {
        int share, from, to, R,
            steps; // thousandths of n_vectors, at least one round; sizes of the vocabulary
    };
    static const Part parts[] = {{700, 1, 400, 64, 16},       {200, 400, 3000, 64, 16},
                                 {95, 3000, 40000, 64, 4},    {4, 128256, 128256, 16, 4},
                                 {1, 262209, 262209, 4, 2},   {0, 1000003, 1000003, 2, 2},
                                 {0, 1 << 20, 1 << 20, 1, 2}, {0, 1, 3000, 1, 100}};
    uint64_t seed = (uint64_t)set * 1000000 + 1;
    int total = 0;
    bool pass = true;
    for (const Part &part : parts) {
        int tried = 0;
        do {
            int n = part.from + (int)(seed * 2654435761u % (unsigned)(part.to - part.from + 1));
            int got = random_round(set, n, part.R, part.steps, seed++);
            pass &= got > 0, tried += got;
        } while (pass && tried < (long long)n_vectors * part.share / 1000);
        total += tried;
    }
    report(pass, "%s: the same token for %d vectors", option_sets[set].name, total);
}

// ---- speed ----------------------------------------------------------------------------------------------

static void measure(const char *name, SampleParams params, int n_vocab, int R, float spread,
                    int n_history = 100) {
    enum { STEPS = 20, REPLAYS = 15 };
    const int longest = n_history + STEPS * (REPLAYS + 2);
    Random rng(7);
    std::vector<float> logits((size_t)R * stride_of(n_vocab));
    for (auto &x : logits) x = rng.normal() * spread;
    for (int r = 0; r < R; r++)
        for (int i = 0; i < 30; i++)
            logits[r * stride_of(n_vocab) + rng.below(n_vocab)] += 4 * spread * rng.unit();
    std::vector<int32_t> seq(R), history((size_t)R * longest);
    for (auto &x : history) x = rng.below(n_vocab);
    Device<float> device_logits(logits);
    Device<int32_t> device_history(history), token(R), position(R);
    std::vector<DeviceSampler> samplers(R);
    for (int r = 0; r < R; r++) {
        seq[r] = r;
        samplers[r].params = params, samplers[r].params.seed = (uint64_t)r;
        samplers[r].history = device_history.data + (size_t)r * longest, samplers[r].n_history = n_history;
    }
    Device<DeviceSampler> device_samplers(samplers);
    Device<int32_t> device_seq(seq);
    Device<uint32_t> step_counter(R);
    Device<uint8_t> scratch(sample_device_scratch_bytes(R, n_vocab));
    RingEntry *ring;
    must(cudaMallocHost((void **)&ring, (size_t)STEPS * R * sizeof *ring), "cudaMallocHost");
    SampleStep s = {device_logits.data, n_vocab, R,     device_samplers.data, device_seq.data, token.data,
                    position.data,      ring,    STEPS, step_counter.data,    scratch.data};

    cudaGraph_t graph;
    cudaGraphExec_t replay;
    cudaEvent_t before, after;
    must(cudaEventCreate(&before), "cudaEventCreate"), must(cudaEventCreate(&after), "cudaEventCreate");
    must(cudaStreamBeginCapture(launch.stream, cudaStreamCaptureModeGlobal), "capture");
    for (int i = 0; i < STEPS; i++) must(launch_sample(&launch, &s), "launch_sample");
    must(cudaStreamEndCapture(launch.stream, &graph), "capture");
    must(cudaGraphInstantiate(&replay, graph, 0), "instantiate");
    std::vector<float> us;
    for (int i = 0; i < REPLAYS + 1; i++) {
        must(cudaEventRecord(before, launch.stream), "event");
        must(cudaGraphLaunch(replay, launch.stream), "replay");
        must(cudaEventRecord(after, launch.stream), "event");
        must(cudaStreamSynchronize(launch.stream), "replay");
        float ms;
        must(cudaEventElapsedTime(&ms, before, after), "event");
        if (i) us.push_back(ms * 1000 / STEPS);
    }
    std::sort(us.begin(), us.end());

    // What the replays chose, step by step, is what the CPU chooses; the first row stands for all.
    std::vector<int32_t> chosen = device_history.get();
    std::vector<uint64_t> room(sample_scratch_bytes(n_vocab) / 8 + 1);
    bool same = true;
    for (int i = n_history; i < n_history + 2 * STEPS; i++)
        same &= chosen[i] == sample_token(logits.data(), n_vocab, &samplers[0].params, chosen.data(), i,
                                          (uint64_t)i, room.data());
    double median = us[us.size() / 2], gb = (double)R * n_vocab * 4 / median / 1000;
    report(same, "%-34s n_vocab %7d R %2d %8.2f us  %7.1f GB/s of logits (%4.1f %%)", name, n_vocab, R,
           median, gb, 100 * gb / PEAK_GB);
    cudaGraphExecDestroy(replay), cudaGraphDestroy(graph);
    cudaEventDestroy(before), cudaEventDestroy(after), cudaFreeHost(ring);
}

static void fast() {
    SampleParams greedy = plain, top_p = plain, min_p = plain, penalised = sample_defaults, wide = plain,
                 whole = sample_defaults;
    greedy.temp = 0, top_p.top_p = 0.95f, min_p.min_p = 0.05f, wide.top_k = 5000;
    penalised.repeat_penalty = 1.1f, whole.repeat_penalty = 1.1f, whole.repeat_last_n = -1;
    for (int n : {32000, 128256, 262144, 1 << 20}) {
        measure("greedy", greedy, n, 1, 2);
        measure("defaults", sample_defaults, n, 1, 2);
    }
    for (int R : {4, 16, 64}) {
        measure("greedy", greedy, 128256, R, 2);
        measure("defaults", sample_defaults, 128256, R, 2);
    }
    measure("defaults, logits crowded", sample_defaults, 128256, 1, 0.01f);
    measure("defaults, all logits equal", sample_defaults, 128256, 1, 0);
    measure("defaults and penalties of 64", penalised, 128256, 1, 2);
    measure("defaults, penalties of 32768", whole, 128256, 1, 2, 32768);
    measure("top-k 5000", wide, 128256, 1, 2);
    for (int n : {128256, 262144}) {
        measure("top-p 0.95, logits peaked", top_p, n, 1, 4);
        measure("top-p 0.95, logits flat", top_p, n, 1, 1);
        measure("min-p 0.05", min_p, n, 1, 2);
        measure("temperature 1 alone", plain, n, 1, 2);
    }
}

// ---- the small ops --------------------------------------------------------------------------------------

static double nmse(const std::vector<float> &was, const std::vector<double> &exact) {
    double error = 0, power = 1e-300;
    for (size_t i = 0; i < exact.size(); i++)
        error += (was[i] - exact[i]) * (was[i] - exact[i]), power += exact[i] * exact[i];
    return error / power;
}

static std::vector<float> noise(Random &rng, size_t n, float scale) {
    std::vector<float> v(n);
    for (auto &x : v) x = rng.normal() * scale;
    return v;
}

static std::vector<float> run(const char *what, Device<float> &out, cudaError_t error) {
    must(error, what);
    must(cudaStreamSynchronize(launch.stream), what);
    return out.get();
}

struct Worst { // over many shapes
    double error = 0;
    bool outside = false; // something was written behind the end
    void see(const std::vector<float> &was, const std::vector<double> &exact) {
        double e = nmse(was, exact);
        error = e > error || !(e == e) ? e : error; // a NaN stays
        for (size_t i = exact.size(); i < was.size(); i++) outside |= was[i] != 0;
    }
    bool pass() const { return error <= 1e-7 && !outside; }
};

static const int widths[] = {1, 5, 16, 33, 100, 576, 2048, 4101, 16384, 16387, 20003};
enum { BEHIND = 40 };

static void check_norm() {
    Random rng(1);
    Worst worst;
    for (int width : widths)
        for (int n = 1; n <= 17; n += n < 4 ? 1 : 13 - n % 2 * 5) {
            size_t stride = stride_of(width);
            std::vector<float> weight = noise(rng, width, 1);
            std::vector<float> in = noise(rng, 20 * stride, 0.01f); // so small that eps counts
            std::vector<int> rows(n);
            for (auto &r : rows) r = rng.below(20);
            Device<float> device_in(in), device_weight(weight);
            Device<int> device_rows(rows);
            for (bool mapped : {false, true}) {
                Device<float> out(n * stride + BEHIND);
                std::vector<double> exact(n * stride);
                for (int t = 0; t < n; t++) {
                    const float *row = &in[(mapped ? rows[t] : t) * stride];
                    double sum = 0;
                    for (int i = 0; i < width; i++) sum += (double)row[i] * row[i];
                    for (int i = 0; i < width; i++)
                        exact[t * stride + i] = row[i] / sqrt(sum / width + 1e-5) * weight[i];
                }
                worst.see(run("norm", out,
                              launch_norm(&launch, device_in.data, mapped ? device_rows.data : nullptr,
                                          device_weight.data, width, 1e-5f, n, out.data)),
                          exact);
            }
        }
    report(worst.pass(), "norm: NMSE at most %.2g%s", worst.error,
           worst.outside ? ", writes behind the end" : "");
}

static void check_add_and_glu() {
    Random rng(2);
    Worst add, glu;
    for (int width : widths)
        for (int n : {1, 2, 3, 17}) {
            size_t size = n * stride_of(width);
            std::vector<float> a = noise(rng, size, 1), b = noise(rng, size, 1);
            for (size_t i = 0; i < size; i += 7) a[i] *= 60; // where the exponential overflows
            Device<float> device_a(a), device_b(b), sum(size + BEHIND), product(size + BEHIND);
            std::vector<double> exact_sum(size), exact_product(size);
            for (size_t i = 0; i < size; i++)
                exact_sum[i] = (double)a[i] + b[i], exact_product[i] = a[i] / (1 + exp(-(double)a[i])) * b[i];
            add.see(run("add", sum, launch_add(&launch, device_a.data, device_b.data, width, n, sum.data)),
                    exact_sum);
            glu.see(
                run("glu", product, launch_glu(&launch, device_a.data, device_b.data, size, product.data)),
                exact_product);
        }
    report(add.pass(), "add: NMSE at most %.2g%s", add.error, add.outside ? ", writes behind the end" : "");
    report(glu.pass(), "glu: NMSE at most %.2g%s", glu.error, glu.outside ? ", writes behind the end" : "");
}

static void check_route() {
    Random rng(3);
    Worst worst;
    int n_wrong = 0;
    for (int n_expert : {1, 2, 4, 7, 8, 31, 32, 60, 128, 257, 512})
        for (int n : {1, 2, 5, 17})
            for (bool ties : {false, true}) {
                int n_used = 1 + rng.below(std::min(n_expert, 40));
                size_t logits_stride = stride_of(n_expert), stride = stride_of(n_used);
                std::vector<float> logits = noise(rng, n * logits_stride, 2);
                for (auto &x : logits) x = ties ? floorf(x) : x;
                Device<float> device_logits(logits), weights(n * stride + BEHIND);
                Device<int32_t> ids(n * stride);
                std::vector<double> exact(n * stride);
                std::vector<int32_t> chosen(n * stride);
                for (int t = 0; t < n; t++) {
                    const float *row = &logits[t * logits_stride];
                    std::vector<int> order(n_expert);
                    for (int e = 0; e < n_expert; e++) order[e] = e;
                    std::stable_sort(order.begin(), order.end(),
                                     [&](int a, int b) { return row[a] > row[b]; });
                    double sum = 0;
                    for (int s = 0; s < n_used; s++) sum += exp((double)row[order[s]] - row[order[0]]);
                    for (int s = 0; s < n_used; s++)
                        chosen[t * stride + s] = order[s],
                                            exact[t * stride + s] =
                                                2.5 * exp((double)row[order[s]] - row[order[0]]) / sum;
                }
                worst.see(run("route", weights,
                              launch_route(&launch, device_logits.data, (int)logits_stride, n_expert, n_used,
                                           2.5f, n, ids.data, weights.data, (int)stride)),
                          exact);
                n_wrong += ids.get() != chosen;
            }
    report(worst.pass() && n_wrong == 0, "route: %d wrong choices, NMSE at most %.2g%s", n_wrong, worst.error,
           worst.outside ? ", writes behind the end" : "");
}

static void check_mix() {
    Random rng(4);
    Worst worst;
    for (int width : widths)
        for (int n : {1, 2, 17})
            for (int n_used : {1, 3, 8}) {
                size_t in_stride = stride_of((size_t)width * n_used), stride = stride_of(width),
                       weights_stride = stride_of(n_used);
                std::vector<float> in = noise(rng, n * in_stride, 1),
                                   weights = noise(rng, n * weights_stride, 1),
                                   residual = noise(rng, n * stride, 1);
                Device<float> device_in(in), device_weights(weights), device_residual(residual);
                for (bool add : {false, true}) {
                    Device<float> out(n * stride + BEHIND);
                    std::vector<double> exact(n * stride);
                    for (int t = 0; t < n; t++)
                        for (int i = 0; i < width; i++) {
                            double sum = add ? residual[t * stride + i] : 0;
                            for (int s = 0; s < n_used; s++)
                                sum += (double)weights[t * weights_stride + s] *
                                       in[t * in_stride + (size_t)s * width + i];
                            exact[t * stride + i] = sum;
                        }
                    worst.see(run("mix", out,
                                  launch_mix(&launch, device_in.data, (int)in_stride, device_weights.data,
                                             (int)weights_stride, n_used, width,
                                             add ? device_residual.data : nullptr, (int)stride, n, out.data)),
                              exact);
                }
            }
    report(worst.pass(), "mix: NMSE at most %.2g%s", worst.error,
           worst.outside ? ", writes behind the end" : "");
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    int n_vectors = argc > 2 ? atoi(argv[2]) : 100000;
    cudaDeviceProp device;
    must(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
    must(cudaStreamCreate(&launch.stream), "cudaStreamCreate"); // one that copies wait for
    launch.n_sm = device.multiProcessorCount, launch.dependent = device.major >= 9;
    printf("%s, %d multiprocessors\n", device.name, launch.n_sm);
    if (!*what || !strcmp(what, "small")) check_norm(), check_add_and_glu(), check_route(), check_mix();
    if (!*what || !strcmp(what, "fast")) fast();
    if (!*what || !strcmp(what, "right"))
        for (int set = 0; set < N_SETS; set++) check_set(set, n_vectors);
    printf("%d passed, %d failed\n", passes, failures);
    return failures > 0;
}
