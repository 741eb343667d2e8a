// attn_check: attention and rotation on the GPU, against a reference in double on the CPU, and how fast they
// are.
//
// Right: decoding over head dimensions, groups, lengths and caches of floats (test_ops.c has all), the same bytes alone and among
// others, prompts of odd shapes at odd places, the same bytes however they are cut; caches hold NaN wherever
// a kernel has no business. Fast: medians over replays of a graph that walks over more layers than the L2
// holds.
//
//     nvcc -std=c++17 -O3 -arch=sm_90 -o build/attn_check scripts/workshop/attn_check.cu cuda/{attn*,rope}.cu \
//         src/exec/kv.c
//     build/attn_check [right | fast]
#include "../../cuda/launch.h"
#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda_fp16.h>
#include <functional>
#include <string>
#include <thread>
#include <vector>

static constexpr double PEAK_GB = 4645, PEAK_TFLOP = 790; // of an H200
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

template <typename E> struct Device { // a vector in device memory
    E *data;
    size_t n;
    explicit Device(size_t n_) : n(n_) { must(cudaMalloc((void **)&data, n * sizeof(E)), "cudaMalloc"); }
    explicit Device(const std::vector<E> &host) : Device(host.size()) { set(host); }
    Device(const Device &) = delete;
    ~Device() { cudaFree(data); }
    void set(const std::vector<E> &host) {
        must(cudaMemcpy(data, host.data(), host.size() * sizeof(E), cudaMemcpyHostToDevice),
             "copy to device");
    }
    void fill(int byte) { must(cudaMemset(data, byte, n * sizeof(E)), "cudaMemset"); }
    std::vector<E> get() const {
        std::vector<E> host(n);
        must(cudaMemcpy(host.data(), data, n * sizeof(E), cudaMemcpyDeviceToHost), "copy to host");
        return host;
    }
};

static uint64_t random_state = 1;
static uint32_t random_bits() {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}
static float random_normal() { // nearly
    float sum = 0;
    for (int i = 0; i < 4; i++) sum += (float)(random_bits() & 0xffffff) / 0x1000000 - 0.5f;
    return sum * 1.7320508f;
}

static void parallel(int n, const std::function<void(int)> &work) {
    int n_threads = (int)std::max(1u, std::min(16u, std::thread::hardware_concurrency()));
    std::vector<std::thread> threads;
    for (int k = 0; k < n_threads; k++)
        threads.emplace_back([=, &work] {
            for (int i = k; i < n; i += n_threads) work(i);
        });
    for (auto &t : threads) t.join();
}

// ---- a cache with random contents, NaN behind each sequence's length ------------------------------------

struct Cache {
    int n_kv_head, head_dim, n_ctx;
    KvType type;
    std::vector<float> k, v; // what the reference reads
    Device<uint8_t> device_k, device_v;

    static const std::vector<float> &pool() {
        static std::vector<float> p;
        if (p.empty()) {
            p.resize(1 << 20);
            for (auto &x : p) x = random_normal();
        }
        return p;
    }

    void fill(std::vector<float> &host, Device<uint8_t> &device, const std::vector<int> &length,
              bool halves) {
        size_t bytes = (size_t)kv_element_bytes(type);
        std::vector<uint8_t> raw(host.size() * bytes, 0xff);
        for (size_t s = 0; s < length.size(); s++)
            for (int h = 0; h < n_kv_head; h++)
                for (int p = 0; p < length[s]; p++) {
                    size_t to = ((s * n_kv_head + h) * n_ctx + p) * head_dim;
                    const float *from = pool().data() + random_bits() % (pool().size() - head_dim);
                    for (int d = 0; d < head_dim; d++) {
                        __half half = __float2half_rn(from[d]);
                        host[to + d] = halves ? __half2float(half) : from[d];
                        if (type == KV_F16)
                            memcpy(&raw[(to + d) * 2], &half, 2);
                        else
                            memcpy(&raw[(to + d) * 4], &host[to + d], 4);
                    }
                }
        device.set(raw);
    }

    // halves: f32 caches too hold numbers of f16.
    Cache(const std::vector<int> &length, int n_kv_head_, int head_dim_, KvType type_, bool halves)
        : n_kv_head(n_kv_head_), head_dim(head_dim_),
          n_ctx((int)kv_positions(*std::max_element(length.begin(), length.end()) + 3)), type(type_),
          k(length.size() * n_kv_head * n_ctx * head_dim), v(k.size()),
          device_k(k.size() * (size_t)kv_element_bytes(type)), device_v(k.size() * (size_t)kv_element_bytes(type)) {
        fill(k, device_k, length, halves || type == KV_F16),
            fill(v, device_v, length, halves || type == KV_F16);
    }

    DeviceKv kv() { return {device_k.data, device_v.data, type, n_ctx, n_kv_head, head_dim}; }

    // One query over `length` positions.
    void attend(const float *q, int seq, int kv_head, int length, double scale, double *out) const {
        size_t base = ((size_t)seq * n_kv_head + kv_head) * n_ctx * head_dim;
        std::vector<double> w(length);
        double top = -INFINITY, sum = 0;
        for (int p = 0; p < length; p++) {
            const float *row = &k[base + (size_t)p * head_dim];
            double dot = 0;
            for (int d = 0; d < head_dim; d++) dot += (double)q[d] * row[d];
            w[p] = dot * scale, top = std::max(top, w[p]);
        }
        std::fill(out, out + head_dim, 0);
        for (int p = 0; p < length; p++) {
            double weight = exp(w[p] - top);
            const float *row = &v[base + (size_t)p * head_dim];
            for (int d = 0; d < head_dim; d++) out[d] += weight * row[d];
            sum += weight;
        }
        for (int d = 0; d < head_dim; d++) out[d] /= sum;
    }
};

// Largest NMSE of a row's head, over all rows with a sequence.
static double worst_nmse(const Cache &cache, int n_head, const std::vector<float> &q,
                         const std::vector<int> &seq, const std::vector<int> &position, double scale,
                         const std::vector<float> &out) {
    int D = cache.head_dim, n = (int)seq.size() * n_head;
    std::vector<double> nmse(n);
    parallel(n, [&](int i) {
        int t = i / n_head, head = i % n_head;
        if (seq[t] < 0) return;
        std::vector<double> want(D);
        cache.attend(&q[(size_t)i * D], seq[t], head / (n_head / cache.n_kv_head), position[t] + 1, scale,
                     want.data());
        double error = 0, power = 0;
        for (int d = 0; d < D; d++) {
            double e = out[(size_t)i * D + d] - want[d];
            error += e * e, power += want[d] * want[d];
        }
        nmse[i] = std::isfinite(error) ? error / power : INFINITY;
    });
    return *std::max_element(nmse.begin(), nmse.end());
}

static std::vector<float> random_queries(size_t n) {
    std::vector<float> q(n);
    for (auto &x : q) x = random_normal();
    return q;
}

// ---- decoding -------------------------------------------------------------------------------------------

static Device<uint8_t> *scratch; // zero at first, as every launch leaves its counters

static std::vector<float> decode(Cache &cache, int n_head, const std::vector<float> &q,
                                 const std::vector<int> &seq, const std::vector<int> &position, float scale) {
    int T = (int)seq.size();
    if (attn_scratch_bytes(T, n_head, cache.head_dim, launch.n_sm) > scratch->n)
        must(cudaErrorMemoryAllocation, "scratch");
    Device<float> device_q(q), out(q.size());
    Device<int32_t> device_seq(seq), device_position(position);
    out.fill(0xff);
    DeviceKv kv = cache.kv();
    must(launch_attn(&launch, device_q.data, n_head, nullptr, &kv, scale, device_seq.data, device_position.data, T,
                     true, out.data, scratch->data),
         "launch_attn");
    must(cudaDeviceSynchronize(), "decode");
    return out.get();
}

static bool same_bytes(const float *a, const float *b, size_t n) {
    return !memcmp(a, b, n * sizeof *a);
}

static void check_decode(int head_dim, int n_kv_head, int group, KvType type, const std::vector<int> &lengths,
                         double limit) {
    int T = (int)lengths.size(), n_head = n_kv_head * group;
    size_t width = (size_t)n_head * head_dim;
    std::vector<int> length(lengths), seq(T), position(T);
    for (int t = 0; t < T; t++) seq[t] = lengths[t] ? t : -1, position[t] = lengths[t] ? lengths[t] - 1 : 7;
    Cache cache(length, n_kv_head, head_dim, type, false);
    std::vector<float> q = random_queries(T * width);
    float scale = 1.5f / sqrtf((float)head_dim);
    std::vector<float> out = decode(cache, n_head, q, seq, position, scale);
    double nmse = worst_nmse(cache, n_head, q, seq, position, scale, out);
    bool padded = true, alone = true, first = true,
         again = same_bytes(decode(cache, n_head, q, seq, position, scale).data(), out.data(), out.size());
    for (int t = 0; t < T; t++) {
        if (seq[t] < 0)
            for (size_t i = 0; i < width; i++) padded &= out[t * width + i] == 0;
        std::vector<float> one(q.begin() + t * width, q.begin() + (t + 1) * width);
        alone &= same_bytes(decode(cache, n_head, one, {seq[t]}, {position[t]}, scale).data(),
                            &out[t * width], width);
        std::vector<float> some =
            decode(cache, n_head, {q.begin(), q.begin() + (t + 1) * width},
                   {seq.begin(), seq.begin() + t + 1}, {position.begin(), position.begin() + t + 1}, scale);
        first &= same_bytes(some.data(), out.data(), some.size());
    }
    report(nmse <= limit && padded && alone && first && again,
           "decode %s head_dim %3d heads %d/%d rows %d: NMSE %.1e%s%s%s%s", type == KV_F16 ? "f16" : "f32",
           head_dim, n_head, n_kv_head, T, nmse, padded ? "" : ", padding not 0",
           alone ? "" : ", alone differs", first ? "" : ", fewer rows differ",
           again ? "" : ", second run differs");
}

// More rows than a warp counts at once, and several of one sequence.
static void check_many_rows(int T) {
    int head_dim = 64, n_kv_head = 2, n_head = 8;
    size_t width = (size_t)n_head * head_dim;
    std::vector<int> length = {3, 700, 0, 129, 40}, seq(T), position(T);
    for (int t = 0; t < T; t++) {
        seq[t] = t % 5 == 2 ? -1 : t % 5;
        position[t] = seq[t] < 0 ? 0 : (length[seq[t]] - 1) * (t % 7) / 6;
    }
    Cache cache(length, n_kv_head, head_dim, KV_F16, false);
    std::vector<float> q = random_queries(T * width), out = decode(cache, n_head, q, seq, position, 0.125f);
    double nmse = worst_nmse(cache, n_head, q, seq, position, 0.125, out);
    bool alone = true;
    for (int t = 0; t < T; t += 3) {
        std::vector<float> one(q.begin() + t * width, q.begin() + (t + 1) * width);
        alone &= same_bytes(decode(cache, n_head, one, {seq[t]}, {position[t]}, 0.125f).data(),
                            &out[t * width], width);
    }
    report(nmse <= 1e-10 && alone, "decode %d rows of 5 sequences: NMSE %.1e%s", T, nmse,
           alone ? "" : ", alone differs");
}

// ---- prompts --------------------------------------------------------------------------------------------

static std::vector<float> prompt(Cache &cache, int n_head, const float *q, int T, int first) {
    size_t n = (size_t)T * n_head * cache.head_dim;
    std::vector<int> seq(T, 1), position(T);
    for (int t = 0; t < T; t++) position[t] = first + t;
    Device<float> device_q(std::vector<float>(q, q + n)), out(n + 256);
    Device<int32_t> device_seq(seq), device_position(position);
    out.fill(0xff);
    DeviceKv kv = cache.kv();
    must(launch_attn(&launch, device_q.data, n_head, nullptr, &kv, 1 / sqrtf((float)cache.head_dim), device_seq.data,
                     device_position.data, T, false, out.data, nullptr),
         "launch_attn");
    must(cudaDeviceSynchronize(), "prompt");
    return out.get();
}

static void check_prompt(int head_dim, int n_kv_head, int group, KvType type, const std::vector<int> &chunks,
                         const std::vector<int> &begins) {
    int n_head = n_kv_head * group;
    double worst = 0;
    bool overrun = false;
    for (int T : chunks)
        for (int begin : begins) {
            Cache cache({1, begin + T}, n_kv_head, head_dim, type, true);
            std::vector<float> q = random_queries((size_t)T * n_head * head_dim),
                               out = prompt(cache, n_head, q.data(), T, begin);
            std::vector<int> seq(T, 1), position(T);
            for (int t = 0; t < T; t++) position[t] = begin + t;
            worst =
                std::max(worst, worst_nmse(cache, n_head, q, seq, position, 1 / sqrt((double)head_dim), out));
            for (size_t i = q.size(); i < out.size(); i++) overrun |= !std::isnan(out[i]);
        }
    report(worst <= 1e-6 && !overrun, "prompt %s head_dim %3d heads %d/%d: NMSE %.1e%s",
           type == KV_F16 ? "f16" : "f32", head_dim, n_head, n_kv_head, worst,
           overrun ? ", rows behind the last written" : "");
}

static void check_cuts(int head_dim) {
    int T = 513, begin = 300, n_head = 4;
    size_t width = (size_t)n_head * head_dim;
    Cache cache({1, begin + T}, 2, head_dim, KV_F16, false);
    std::vector<float> q = random_queries(T * width), whole = prompt(cache, n_head, q.data(), T, begin);
    bool same = true;
    int at = 0;
    for (int n : {100, 28, 1, 384}) {
        same &= same_bytes(prompt(cache, n_head, &q[at * width], n, begin + at).data(), &whole[at * width],
                           n * width);
        at += n;
    }
    report(same, "prompt head_dim %d: the same bytes whole and in 4 chunks", head_dim);
}

// ---- rotation -------------------------------------------------------------------------------------------

static void check_rope(int head_dim, int n_rot, KvType type, const std::vector<int> &position, int n_ctx) {
    int n_head = 6, n_kv = 2, T = (int)position.size(), n_seq = 3;
    std::vector<int> seq(T);
    for (int t = 0; t < T; t++) seq[t] = t % 4 == 3 ? -1 : t % n_seq;
    std::vector<float> q = random_queries((size_t)T * n_head * head_dim),
                       k = random_queries((size_t)T * n_kv * head_dim), v = random_queries(k.size());
    std::vector<double> frequency(n_rot / 2);
    for (int i = 0; i < n_rot / 2; i++) frequency[i] = pow(500000, -2.0 * i / n_rot);
    size_t bytes = (size_t)kv_element_bytes(type), n_cache = (size_t)n_seq * n_kv * n_ctx * head_dim;
    Device<float> device_q(q), device_k(k), device_v(v);
    Device<double> device_frequency(frequency);
    Device<int32_t> device_seq(seq), device_position(position);
    Device<uint8_t> cache_k(n_cache * bytes), cache_v(n_cache * bytes);
    cache_k.fill(0x2a), cache_v.fill(0x2a);
    DeviceKv kv = {cache_k.data, cache_v.data, type, n_ctx, n_kv, head_dim};
    NewKv fresh = {device_k.data, device_v.data, device_frequency.data, n_rot};
    must(launch_rope_kvput(&launch, device_q.data, n_head, &fresh, &kv, device_seq.data, device_position.data, T),
         "launch_rope_kvput");
    must(cudaDeviceSynchronize(), "rope");

    double worst_q = 0, worst_cache = 0, ulp = type == KV_F16 ? 1.0 / 2048 : 0;
    auto turned = [&](const float *x, int t, int d) { // element d of a rotated head
        if (d >= n_rot) return (double)x[d];
        double angle = position[t] * frequency[d / 2], c = cos(angle), s = sin(angle);
        return d % 2 ? x[d - 1] * s + x[d] * c : x[d] * c - x[d + 1] * s;
    };
    std::vector<float> got_q = device_q.get();
    std::vector<uint8_t> got[2] = {cache_k.get(), cache_v.get()}, touched(n_cache);
    for (int t = 0; t < T; t++) {
        bool writes = seq[t] >= 0 && position[t] >= 0 && position[t] < n_ctx;
        for (int h = 0; writes && h < n_head; h++)
            for (int d = 0; d < head_dim; d++) {
                const float *x = &q[((size_t)t * n_head + h) * head_dim];
                worst_q =
                    std::max(worst_q, fabs(got_q[((size_t)t * n_head + h) * head_dim + d] - turned(x, t, d)));
            }
        for (int h = 0; writes && h < n_kv; h++)
            for (int d = 0; d < head_dim; d++) {
                size_t from = ((size_t)t * n_kv + h) * head_dim,
                       at = (((size_t)seq[t] * n_kv + h) * n_ctx + position[t]) * head_dim + d;
                double want[2] = {turned(&k[from], t, d), v[from + d]};
                touched[at] = 1;
                for (int i = 0; i < 2; i++) {
                    __half half;
                    float x;
                    memcpy(&half, &got[i][at * bytes], 2),
                        memcpy(&x, &got[i][at * bytes], bytes == 4 ? 4 : 2);
                    if (type == KV_F16) x = __half2float(half);
                    worst_cache = std::max(worst_cache, fabs(x - want[i]) - ulp * fabs(want[i]));
                }
            }
    }
    bool stray = false;
    for (size_t i = 0; i < n_cache * bytes; i++)
        if (!touched[i / bytes]) stray |= got[0][i] != 0x2a || got[1][i] != 0x2a;
    report(worst_q <= 1e-6 && worst_cache <= 1e-6 && !stray,
           "rope %s head_dim %d n_rot %d rows %d: q within %.1e, cache within %.1e%s",
           type == KV_F16 ? "f16" : "f32", head_dim, n_rot, T, worst_q, std::max(worst_cache, 0.0),
           stray ? ", stray writes" : "");
}

static void check_all() {
    const std::vector<int> lengths = {1, 2, 17, 63, 64, 0, 65, 127, 513, 4097};
    for (int head_dim : {32, 40, 64, 80, 96, 128, 256})
        for (int group : {1, 2, 3, 4, 8, 16}) check_decode(head_dim, 2, group, KV_F16, lengths, 1e-10);
    for (int head_dim : {32, 64, 80, 96, 128, 256}) check_decode(head_dim, 2, 4, KV_F32, lengths, 1e-10);
    check_decode(128, 8, 4, KV_F16, {2000}, 1e-10);
    check_decode(128, 2, 4, KV_F16, {5, 32768, 20001}, 1e-10);
    check_decode(128, 1, 12, KV_F16, {9000, 130}, 1e-10);
    check_many_rows(70);
    for (int head_dim : {32, 64, 80, 96, 128, 256})
        for (KvType type : {KV_F16, KV_F32}) {
            check_prompt(head_dim, 2, 1, type, {1, 16, 17, 64, 65}, {0, 5, 50, 300});
            check_prompt(head_dim, 1, 4, type, {513}, {0, 5, 50, 300});
        }
    for (int head_dim : {64, 128, 256}) check_cuts(head_dim);
    for (KvType type : {KV_F16, KV_F32}) {
        check_rope(128, 128, type, {0, 1, 2, 3, 4095, 4096, 77, -1, 1000}, 4096);
        check_rope(80, 32, type, {17}, 64);
        check_rope(32, 32, type, {131071, 100000, 65537}, 131072);
        check_rope(256, 64, type, {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, 48);
    }
}

// ---- speed ----------------------------------------------------------------------------------------------

// Microseconds of one of `n` equal parts of what `enqueue` launches, replayed as a graph.
static double time_graph(int n, const std::function<void()> &enqueue) {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    must(cudaStreamBeginCapture(launch.stream, cudaStreamCaptureModeGlobal), "capture");
    enqueue();
    must(cudaStreamEndCapture(launch.stream, &graph), "end of capture");
    must(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
    cudaEvent_t begin, end;
    must(cudaEventCreate(&begin), "event"), must(cudaEventCreate(&end), "event");
    std::vector<float> ms(9);
    for (int i = -2; i < (int)ms.size(); i++) {
        float passed;
        must(cudaEventRecord(begin, launch.stream), "record");
        must(cudaGraphLaunch(exec, launch.stream), "graph");
        must(cudaEventRecord(end, launch.stream), "record");
        must(cudaEventSynchronize(end), "replay");
        must(cudaEventElapsedTime(&passed, begin, end), "time");
        if (i >= 0) ms[i] = passed;
    }
    cudaEventDestroy(begin), cudaEventDestroy(end), cudaGraphExecDestroy(exec), cudaGraphDestroy(graph);
    std::sort(ms.begin(), ms.end());
    return ms[ms.size() / 2] * 1000 / n;
}

static void time_decode(int T, int n_kv, int n_head, int head_dim, int depth, KvType type = KV_F16) {
    int n_ctx = (int)kv_positions(depth + 1);
    size_t layer = (size_t)T * n_kv * n_ctx * kv_row_bytes(type, head_dim), width = (size_t)n_head * head_dim;
    int layers = (int)std::min<size_t>(256, std::max<size_t>(8, 400000000 / (layer * 2)));
    Device<uint8_t> k(layer * layers), v(layer * layers);
    k.fill(0), v.fill(0);
    std::vector<int> seq(T), position(T, depth);
    for (int t = 0; t < T; t++) seq[t] = t;
    Device<int32_t> device_seq(seq), device_position(position);
    Device<float> q(random_queries(T * width)), new_k(random_queries((size_t)T * n_kv * head_dim)),
        out(T * width);
    Device<double> frequency(std::vector<double>(head_dim / 2, 1e-3));
    NewKv fresh = {new_k.data, new_k.data, frequency.data, head_dim};
    auto step = [&](bool attn, bool rope) {
        for (int i = 0; i < layers; i++) {
            DeviceKv kv = {k.data + i * layer, v.data + i * layer, type, n_ctx, n_kv, head_dim};
            if (rope)
                must(launch_rope_kvput(&launch, q.data, n_head, &fresh, &kv, device_seq.data, device_position.data,
                                       T),
                     "launch_rope_kvput");
            if (attn)
                must(launch_attn(&launch, q.data, n_head, nullptr, &kv, 0.1f, device_seq.data, device_position.data, T,
                                 true, out.data, scratch->data),
                     "launch_attn");
        }
    };
    double both = time_graph(layers, [&] { step(true, true); }),
           rope = time_graph(layers, [&] { step(false, true); });
    double attn = time_graph(layers, [&] { step(true, false); }), gb = layer * 2 / attn / 1000;
    printf(
        "time decode %s rows %2d kv %d q %d head_dim %3d depth %5d: attn %6.2f us  %4.0f GB/s (%2.0f %%)  rope "
        "%.2f us  both %.2f us\n",
        kv_type_name(type), T, n_kv, n_head, head_dim, depth, attn, gb, gb / PEAK_GB * 100, rope, both);
    fflush(stdout);
}

static void time_prompt(int T, int n_kv, int n_head, int head_dim, KvType type = KV_F16) {
    size_t layer = (size_t)n_kv * T * head_dim, width = (size_t)n_head * head_dim;
    Device<uint8_t> k(layer * 2), v(layer * 2);
    Device<float> q(random_queries(T * width)), in(random_queries(layer)), out(T * width);
    Device<double> frequency(std::vector<double>(head_dim / 2, 1e-3));
    std::vector<int> seq(T, 0), position(T);
    for (int t = 0; t < T; t++) position[t] = t;
    Device<int32_t> device_seq(seq), device_position(position);
    DeviceKv kv = {k.data, v.data, type, T, n_kv, head_dim};
    NewKv fresh = {in.data, in.data, frequency.data, head_dim};
    auto rotate = [&] {
        must(launch_rope_kvput(&launch, q.data, n_head, &fresh, &kv, device_seq.data, device_position.data, T),
             "launch_rope_kvput");
    };
    double rope = time_graph(1, rotate);
    double us = time_graph(4, [&] {
        for (int i = 0; i < 4; i++)
            must(launch_attn(&launch, q.data, n_head, nullptr, &kv, 0.1f, device_seq.data, device_position.data, T,
                             false, out.data, nullptr),
                 "launch_attn");
    });
    double tflop = 2.0 * T * (T + 1) * head_dim * n_head / us / 1e6; // causal: half of 4 T^2
    printf(
        "time prompt %s rows %4d kv %d q %d head_dim %3d: attn %7.1f us  %3.0f TFLOP/s (%2.0f %%)  rope %.1f "
        "us\n",
        kv_type_name(type), T, n_kv, n_head, head_dim, us, tflop, tflop / PEAK_TFLOP * 100, rope);
    fflush(stdout);
}

static void time_all() {
    for (int head_dim : {128, 64})
        for (int depth : {0, 128, 512, 1024, 4096, 32768}) time_decode(1, 8, 32, head_dim, depth);
    time_decode(1, 4, 32, 128, 4096);
    time_decode(1, 1, 4, 256, 4096);
    for (int T : {2, 4, 16, 64}) time_decode(T, 8, 32, 128, 1024);
    for (int T : {512, 2048, 8192}) time_prompt(T, 8, 32, 128);
    time_prompt(2048, 8, 32, 64);
    time_prompt(2048, 1, 4, 256);
    for (KvType type : {KV_Q8_0, KV_FP8}) {
        for (int depth : {128, 1024, 4096, 32768}) time_decode(1, 8, 32, 128, depth, type);
        time_decode(1, 8, 32, 64, 32768, type), time_decode(16, 8, 32, 128, 1024, type);
        time_prompt(2048, 8, 32, 128, type);
    }
}

int main(int argc, char **argv) {
    cudaDeviceProp device;
    must(cudaGetDeviceProperties(&device, 0), "no GPU");
    cudaStream_t stream;
    must(cudaStreamCreate(&stream), "stream");
    launch = {stream, device.multiProcessorCount, device.sharedMemPerBlockOptin, device.major >= 9};
    printf("%s, %d multiprocessors\n", device.name, launch.n_sm);
    Device<uint8_t> memory(attn_scratch_bytes(70, 32, 256, launch.n_sm));
    memory.fill(0);
    must(cudaDeviceSynchronize(), "scratch");
    scratch = &memory;
    std::string what = argc > 1 ? argv[1] : "";
    if (what != "fast") check_all();
    if (what != "right") time_all();
    printf("%d passed, %d failed\n", passes, failures);
    return failures != 0;
}
