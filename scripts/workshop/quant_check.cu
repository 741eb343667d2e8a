// quant_check: block formats and upload on the GPU, against the decoder of src/gguf: exactness, then time.
//
//     gcc -std=c11 -D_GNU_SOURCE -O2 -ffp-contract=off -r -o build/quant_check.o \
//         src/gguf/quant.c src/base/pool.c src/base/mem.c src/base/err.c
//     nvcc -std=c++17 -O3 -arch=sm_90 -o build/quant_check scripts/workshop/quant_check.cu \
//         cuda/upload.cu cuda/embed.cu cuda/dequant.cu build/quant_check.o
//     build/quant_check [exact]
//
// Every type, matrices of odd shapes with random blocks: uploaded, then read back through tile_words,
// tile_scales and tile_values (from global and from shared memory), launch_dequant and launch_embed.  All
// must be equal to the bit.
#include "../../cuda/launch.cuh"
#include "../../cuda/quant.cuh"
#include "../../cuda/upload.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

extern "C" {
#include "../../src/base/pool.h"
}

namespace {

int n_failed;

void verdict(bool good, const char *type, const char *what) {
    printf("%s %s %s\n", good ? "PASS" : "FAIL", type, what);
    n_failed += !good;
}

void must(cudaError_t error, const char *what) {
    if (error == cudaSuccess) return;
    printf("FAIL %s: %s\n", what, cudaGetErrorString(error));
    exit(1);
}

uint64_t random_state = 1;
uint32_t random_bits() {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// ---- what a weight is, read on the device ---------------------------------------------------------------

struct Seen { // of a chunk of a row of blocks; of 32 floats in a row, only the values
    int8_t number[32];
    float scale[2], min[2], value[32];
};

// A warp per tile, which is read where it lies, or from shared memory; out: [rows of tiles * 16][n_tiles][8].
template <QuantType T> __global__ void k_see(DeviceWeight w, bool from_shared, Seen *out) {
    __shared__ uint4 copy[TILE_MAX_BYTES / 16];
    const Layout &at = w.layout;
    const uint8_t *tile = w.data + (size_t)blockIdx.x * at.tile_bytes;
    int lane = threadIdx.x, g = lane / 4, i = lane % 4;
    size_t row = blockIdx.x / at.n_tiles * TILE_ROWS + g, chunks = (size_t)at.n_tiles * at.tile_weights / 32,
           chunk = (size_t)(blockIdx.x % at.n_tiles) * at.tile_weights / 32;
    if (from_shared) {
        for (int k = lane; k < at.tile_bytes / 16; k += 32) copy[k] = ((const uint4 *)tile)[k];
        __syncthreads();
        tile = (const uint8_t *)copy;
    }
    for (int h = 0; h < 2; h++) {
        Seen *s = out + (row + 8 * h) * chunks + chunk;
        if constexpr (Format<T>::FLOAT) {
            for (int k = 0; k < 4; k++) {
                float v[VECTOR_FLOATS<T>];
                tile_floats<T>(tile, lane, h, k, v);
                for (int j = 0; j < VECTOR_FLOATS<T>; j++) {
                    int column = (4 * k + i) * VECTOR_FLOATS<T> + j;
                    s[column / 32].value[column % 32] = v[j];
                }
            }
        } else {
            float scale[2][2][2], min[2][2][2];
            tile_scales<T>(tile, lane, scale, min);
            for (int j = 0; j < 2; j++)
                for (int half = 0; half < 2; half++) {
                    int from = Format<T>::GROUP == 16 ? half : 0;
                    s[2 * i + j].scale[half] = scale[h][j][from];
                    s[2 * i + j].min[half] = Format<T>::HAS_MIN ? min[h][j][from] : 0;
                }
            for (int k = 0; k < 2; k++) {
                uint32_t first[4], second[4];
                float v[4][8];
                tile_words<T>(tile, lane, h, k, first, second);
                tile_values<T>(tile, lane, h, k, v);
                for (int c = 0; c < 4; c++)
                    for (int b = 0; b < 4; b++) {
                        Seen *at = s + 4 * k + c;
                        at->number[4 * i + b] = (int8_t)(first[c] >> 8 * b);
                        at->number[16 + 4 * i + b] = (int8_t)(second[c] >> 8 * b);
                        at->value[4 * i + b] = v[c][b], at->value[16 + 4 * i + b] = v[c][4 + b];
                    }
            }
        }
    }
}

std::vector<Seen> see(const Launch *l, const DeviceWeight &w, bool from_shared) {
    const Layout &at = w.layout;
    unsigned n_tiles = (unsigned)(w.n_expert * at.n_tile_rows * at.n_tiles);
    std::vector<Seen> seen((size_t)n_tiles * TILE_ROWS * at.tile_weights / 32);
    Seen *device;
    must(cudaMalloc(&device, seen.size() * sizeof(Seen)), "memory");
    must(for_type(w.type,
                  [&](auto T) { return launch_kernel(l, k_see<T>, n_tiles, 32, 0, w, from_shared, device); }),
         "k_see");
    must(cudaMemcpyAsync(seen.data(), device, seen.size() * sizeof(Seen), cudaMemcpyDeviceToHost, l->stream),
         "copy");
    must(cudaStreamSynchronize(l->stream), "k_see");
    must(cudaFree(device), "memory");
    return seen;
}

// ---- random weights -------------------------------------------------------------------------------------

struct Shape {
    int n_in, n_out, n_expert;
};

bool finite(const float *v, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!std::isfinite(v[i])) return false;
    return true;
}

struct Matrix {
    std::vector<uint8_t> bytes;
    std::vector<float> value, scale; // scale is empty, or one per row
    Weight w = {};

    Matrix(QuantType type, Shape s, bool scaled) {
        const QuantTraits *t = quant_traits(type);
        size_t n_rows = (size_t)s.n_out * s.n_expert, n_blocks = n_rows * s.n_in / t->n_weights;
        bytes.resize(n_blocks * t->n_bytes), value.resize(n_rows * s.n_in);
        for (size_t b = 0; b < n_blocks; b++) {
            uint8_t *block = bytes.data() + b * t->n_bytes;
            float *v = value.data() + b * t->n_weights;
            do {
                for (size_t i = 0; i < t->n_bytes; i++) block[i] = (uint8_t)random_bits();
                t->decode(block, 1, v);
            } while (!finite(v, t->n_weights));
        }
        if (scaled)
            for (size_t i = 0; i < n_rows; i++) scale.push_back(ldexpf((float)random_bits(), -32) + 0.001f);
        w.name = t->name, w.type = type, w.n_in = s.n_in, w.n_out = s.n_out, w.n_expert = s.n_expert;
        w.row_bytes = s.n_in / t->n_weights * t->n_bytes;
        w.data = bytes.data(), w.scale = scaled ? scale.data() : nullptr;
    }
};

// ---- exactness ------------------------------------------------------------------------------------------

bool same(const void *a, const void *b, size_t bytes) {
    return memcmp(a, b, bytes) == 0;
}

bool layout_is_sound(const DeviceWeight &w) {
    const Layout &at = w.layout;
    const QuantTraits *t = quant_traits(w.type);
    return (size_t)at.tile_bytes == TILE_ROWS * at.tile_weights / t->n_weights * t->n_bytes &&
           at.tile_bytes <= TILE_MAX_BYTES && (uintptr_t)w.data % 256 == 0 &&
           at.n_tiles * at.tile_weights >= w.n_in && (at.n_tiles - 1) * at.tile_weights < w.n_in &&
           at.n_tile_rows * TILE_ROWS >= w.n_out && (at.n_tile_rows - 1) * TILE_ROWS < w.n_out;
}

// Row r of the matrix, all experts' rows counted through, among those seen.
const Seen *seen_row(const DeviceWeight &w, const std::vector<Seen> &seen, size_t r) {
    size_t row = r / w.n_out * w.layout.n_tile_rows * TILE_ROWS + r % w.n_out;
    return &seen[row * w.layout.n_tiles * w.layout.tile_weights / 32];
}

bool values_agree(const Matrix &m, const DeviceWeight &w, const std::vector<Seen> &seen) {
    for (size_t i = 0; i < m.value.size(); i++) {
        int column = (int)(i % w.n_in);
        if (!same(&seen_row(w, seen, i / w.n_in)[column / 32].value[column % 32], &m.value[i], 4))
            return false;
    }
    return true;
}

bool blocks_agree(const Matrix &m, const DeviceWeight &w, const std::vector<Seen> &seen) {
    const QuantTraits *t = quant_traits(w.type);
    int zero = 0;
    for_type(w.type, [&](auto T) {
        if constexpr (!Format<T>::FLOAT) zero = Format<T>::ZERO;
        return cudaSuccess;
    });
    for (size_t i = 0; i < m.value.size(); i += 32) {
        const Seen &s = seen_row(w, seen, i / w.n_in)[i % w.n_in / 32];
        int8_t q[QUANT_MAX_WEIGHTS];
        float scale[QUANT_MAX_GROUPS], min[QUANT_MAX_GROUPS];
        int first = (int)(i % t->n_weights);
        t->unpack(m.bytes.data() + i / t->n_weights * t->n_bytes, q, scale, min);
        for (int k = 0; k < 32; k++)
            if (s.number[k] != (int8_t)(q[first + k] + zero)) return false;
        for (int h = 0; h < 2; h++) {
            int g = (first + 16 * h) / t->group;
            if (!same(&scale[g], &s.scale[h], 4) || !same(&min[g], &s.min[h], 4)) return false;
        }
    }
    return true;
}

bool dequant_agrees(const Launch *l, const Matrix &m, const DeviceWeight &w) {
    size_t n = (size_t)w.n_out * w.n_in;
    std::vector<uint16_t> got(n);
    __half *device;
    must(cudaMalloc(&device, n * sizeof *device), "memory");
    bool good = true;
    for (int expert = 0; expert < w.n_expert && good; expert++) {
        must(launch_dequant(l, &w, expert, device), "launch_dequant");
        must(cudaMemcpyAsync(got.data(), device, n * sizeof *device, cudaMemcpyDeviceToHost, l->stream),
             "copy");
        must(cudaStreamSynchronize(l->stream), "k_dequant");
        for (size_t i = 0; i < n && good; i++) {
            uint16_t wanted = f32_to_f16(m.value[expert * n + i]);
            good = got[i] == ((wanted & 0x7fff) == 0x7c00 ? wanted - 1 : wanted);
        }
    }
    must(cudaFree(device), "memory");
    return good;
}

bool embed_agrees(const Launch *l, const Matrix &m, const DeviceWeight &w) {
    const int32_t tokens[5] = {w.n_out - 1, 0, -1, w.n_out / 2, w.n_out + 7};
    int stride = (w.n_in + 15) / 16 * 16;
    std::vector<float> got((size_t)5 * stride);
    int32_t *device_tokens;
    float *device;
    must(cudaMalloc(&device_tokens, sizeof tokens), "memory");
    must(cudaMalloc(&device, got.size() * sizeof(float)), "memory");
    must(cudaMemcpyAsync(device_tokens, tokens, sizeof tokens, cudaMemcpyHostToDevice, l->stream), "copy");
    must(launch_embed(l, &w, device_tokens, 5, device), "launch_embed");
    must(cudaMemcpyAsync(got.data(), device, got.size() * sizeof(float), cudaMemcpyDeviceToHost, l->stream),
         "copy");
    must(cudaStreamSynchronize(l->stream), "k_embed");
    must(cudaFree(device), "memory"), must(cudaFree(device_tokens), "memory");
    for (int t = 0; t < 5; t++)
        for (int i = 0; i < w.n_in; i++) {
            size_t row = std::min(std::max(tokens[t], 0), w.n_out - 1);
            float wanted = m.value[row * w.n_in + i];
            if (m.w.scale) wanted *= m.scale[row];
            if (!same(&wanted, &got[(size_t)t * stride + i], 4)) return false;
        }
    return true;
}

void check_type(const Launch *l, QuantType type, bool managed) {
    static const Shape shapes[] = {{256, 1, 1},  {256, 3, 2},  {512, 5, 1},  {1280, 2, 3},
                                   {2048, 4, 1}, {2816, 3, 1}, {4096, 3, 1}, {4864, 2, 2},
                                   {7168, 2, 1}, {9472, 2, 1}, {14336, 3, 1}};
    static const Shape small[] = {{32, 1, 1},  {32, 33, 2},  {64, 5, 1},  {96, 7, 2},
                                  {160, 3, 1}, {2720, 3, 1}, {1184, 2, 1}};
    static const Shape ragged[] = {{1, 3, 1}, {5, 4, 2}, {8, 2, 1}, {40, 3, 1}, {647, 2, 1}, {1000, 2, 2}};
    const QuantTraits *t = quant_traits(type);
    std::vector<Matrix> matrices;
    auto add = [&](const Shape &s) {
        if (s.n_in % t->n_weights == 0) matrices.emplace_back(type, s, matrices.size() % 2 == 1);
    };
    for (const Shape &s : shapes) add(s);
    for (const Shape &s : small) add(s);
    for (const Shape &s : ragged) add(s);
    if (type == QUANT_Q4_K || type == QUANT_F16) add({4096, 4000, 1}); // more than one piece

    std::vector<Op> ops(matrices.size());
    Plan plan = {};
    plan.ops = ops.data(), plan.n_ops = (int)ops.size();
    for (size_t i = 0; i < ops.size(); i++) ops[i].n_w = 1, ops[i].w[0] = &matrices[i].w;
    Err e = {};
    Upload *u = upload_open(&plan, managed, 3, &e);
    std::vector<DeviceWeight> device(matrices.size());
    bool uploaded = u != nullptr;
    for (size_t i = 0; uploaded && i < matrices.size(); i++)
        uploaded = upload_tensor(u, &matrices[i].w, &device[i], &e);
    if (!uploaded || !upload_finish(u, &e)) {
        printf("FAIL %s upload: %s\n", t->name, e.text);
        n_failed++;
        upload_close(u);
        return;
    }
    bool layout = true, global = true, shared = true, dequant = true, embed = true;
    for (size_t i = 0; i < matrices.size(); i++) {
        const Matrix &m = matrices[i];
        const DeviceWeight &w = device[i];
        auto agree = [&](bool from_shared) {
            std::vector<Seen> seen = see(l, w, from_shared);
            bool blocks = quant_traits(w.type)->act == QUANT_ACT_Q8;
            return values_agree(m, w, seen) && (!blocks || blocks_agree(m, w, seen));
        };
        layout &= layout_is_sound(w);
        global &= agree(false), shared &= agree(true);
        dequant &= dequant_agrees(l, m, w);
        if (w.n_expert == 1) embed &= embed_agrees(l, m, w);
    }
    verdict(layout, t->name, "layout");
    verdict(global, t->name, "tiles from global memory");
    verdict(shared, t->name, "tiles from shared memory");
    verdict(dequant, t->name, "dequant");
    verdict(embed, t->name, "embed");
    upload_close(u);
}

// ---- time -----------------------------------------------------------------------------------------------

// Median seconds of one of the n_inside launches of a captured graph.
template <class F> double median_time(const Launch *l, int n_inside, F launch) {
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    must(cudaStreamBeginCapture(l->stream, cudaStreamCaptureModeThreadLocal), "capture");
    for (int i = 0; i < n_inside; i++) must(launch(), "launch");
    must(cudaStreamEndCapture(l->stream, &graph), "capture");
    must(cudaGraphInstantiate(&ready, graph, 0), "graph");
    cudaEvent_t begin, end;
    must(cudaEventCreate(&begin), "event"), must(cudaEventCreate(&end), "event");
    std::vector<float> times;
    for (int i = 0; i < 12; i++) {
        float ms;
        must(cudaEventRecord(begin, l->stream), "event");
        must(cudaGraphLaunch(ready, l->stream), "graph");
        must(cudaEventRecord(end, l->stream), "event");
        must(cudaEventSynchronize(end), "graph");
        must(cudaEventElapsedTime(&ms, begin, end), "event");
        if (i >= 2) times.push_back(ms);
    }
    std::sort(times.begin(), times.end());
    cudaEventDestroy(begin), cudaEventDestroy(end);
    cudaGraphExecDestroy(ready), cudaGraphDestroy(graph);
    return times[times.size() / 2] * 1e-3 / n_inside;
}

// Uploads n copies of a tensor that lies in warm memory, and times dequant and embed on the way.
void time_type(const Launch *l, QuantType type, int n_in, int n_out, int n_copies, int n_threads) {
    const QuantTraits *t = quant_traits(type);
    size_t bytes = (size_t)n_in / t->n_weights * t->n_bytes * n_out;
    std::vector<uint8_t> file(bytes * n_copies);
    std::vector<Weight> weights(n_copies);
    std::vector<Op> ops(n_copies);
    for (size_t i = 0; i < bytes; i++) file[i] = (uint8_t)(i * 37 >> 3 & 0x3f);
    for (int i = 0; i < n_copies; i++) {
        if (i) memcpy(&file[bytes * i], &file[0], bytes);
        weights[i] = Weight{};
        weights[i].name = t->name, weights[i].type = type, weights[i].n_in = n_in, weights[i].n_out = n_out;
        weights[i].n_expert = 1, weights[i].data = &file[bytes * i];
        ops[i] = Op{}, ops[i].n_w = 1, ops[i].w[0] = &weights[i];
    }
    Plan plan = {};
    plan.ops = ops.data(), plan.n_ops = n_copies;
    Err e = {};
    double t0 = seconds();
    Upload *u = upload_open(&plan, false, n_threads, &e);
    double t1 = seconds();
    std::vector<DeviceWeight> device(n_copies);
    bool good = u;
    for (int i = 0; good && i < n_copies; i++) good = upload_tensor(u, &weights[i], &device[i], &e);
    double t2 = seconds();
    good = good && upload_finish(u, &e);
    double t3 = seconds();
    if (!good) {
        printf("FAIL %s upload: %s\n", t->name, e.text);
        n_failed++;
        upload_close(u);
        return;
    }
    printf(
        "%-9s upload %.2f GB, %d threads: open %.0f ms, send %.0f ms, finish %.0f ms: %.1f GB/s sending, "
        "%.1f in all\n",
        t->name, file.size() * 1e-9, n_threads, (t1 - t0) * 1e3, (t2 - t1) * 1e3, (t3 - t2) * 1e3,
        file.size() * 1e-9 / (t3 - t1), file.size() * 1e-9 / (t3 - t0));

    __half *plain;
    float *rows;
    int32_t *tokens, host_tokens[64];
    for (int i = 0; i < 64; i++) host_tokens[i] = (int32_t)((i * 7919u) % n_out);
    must(cudaMalloc(&plain, (size_t)n_in * n_out * sizeof *plain), "memory");
    must(cudaMalloc(&rows, (size_t)n_in * 64 * sizeof *rows), "memory");
    must(cudaMalloc(&tokens, sizeof host_tokens), "memory");
    must(cudaMemcpy(tokens, host_tokens, sizeof host_tokens, cudaMemcpyHostToDevice), "copy");
    int turn = 0;
    double dequant =
        median_time(l, 8, [&] { return launch_dequant(l, &device[turn++ % n_copies], 0, plain); });
    double embed1 = median_time(l, 64, [&] { return launch_embed(l, &device[0], tokens, 1, rows); });
    double embed64 = median_time(l, 64, [&] { return launch_embed(l, &device[0], tokens, 64, rows); });
    double moved = (double)bytes + (double)n_in * n_out * 2;
    printf("%-9s dequant %d x %d: %.1f us, %.0f GB/s of 4645; embed: 1 row %.2f us, 64 rows %.2f us\n",
           t->name, n_out, n_in, dequant * 1e6, moved / dequant * 1e-9, embed1 * 1e6, embed64 * 1e6);
    cudaFree(plain), cudaFree(rows), cudaFree(tokens);
    upload_close(u);
}

} // namespace

int main(int argc, char **argv) {
    bool exact_only = argc > 1 && strcmp(argv[1], "exact") == 0;
    Launch l = {};
    int major = 0;
    must(cudaStreamCreateWithFlags(&l.stream, cudaStreamNonBlocking), "stream");
    must(cudaDeviceGetAttribute(&l.n_sm, cudaDevAttrMultiProcessorCount, 0), "device");
    must(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "device");
    l.dependent = major >= 9;
    std::vector<QuantType> types;
    for (uint32_t id = 0; id <= 1000; id++) {
        const QuantTraits *t = quant_traits(id);
        if (t && t->act != QUANT_ACT_NONE) types.push_back((QuantType)id);
    }
    for (QuantType type : types) check_type(&l, type, false);
    check_type(&l, QUANT_Q4_K, true);
    if (!exact_only) {
        for (QuantType type : types) time_type(&l, type, 4096, 14336, 2, pool_cpus());
        for (int n_threads : {1, 4, 8, 16}) time_type(&l, QUANT_Q4_K, 4096, 14336, 31, n_threads); // 1 GB
    }
    must(cudaStreamDestroy(l.stream), "stream");
    printf("%s: %d failed\n", n_failed ? "FAIL" : "PASS", n_failed);
    return n_failed != 0;
}
