// ceilings: the limits of the GPU, measured without a model: bandwidth of reads and of copies in device
// memory, time between two kernels of a graph, arithmetic rate of the tensor cores, bandwidth from the host.
//
// Each is the median of REPEATS runs after a first one, timed on the device.  The data is noise, because
// constant data costs less power than weights do and would let the clock rise.
#include <algorithm>
#include <vector>

#include "ceilings.h"
#include "../device/device.cuh"
#include "../device/launch.cuh"
extern "C" {
#include "../cuda.h"
}

namespace {

constexpr int REPEATS = 9;
constexpr int THREADS = 512, BLOCKS_PER_SM = 2, LOADS = 8; // the fastest of 1, 2, 4 blocks and 4, 8, 16 loads
constexpr int KERNELS = 400;                               // of the graph
constexpr int SIDE = 8192;                                 // of the matrices
constexpr size_t READ_BYTES = (size_t)8 << 30, READ_LEAST = (size_t)256 << 20; // beyond the caches
constexpr size_t UPLOAD_BYTES = (size_t)512 << 20;

// Bits that are finite small numbers as f16, because the highest bit of each exponent is clear.
__global__ void k_noise(uint4 *out, size_t n) {
    size_t stride = (size_t)gridDim.x * blockDim.x;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += stride) {
        uint32_t x = (uint32_t)i * 2654435761u;
        x ^= x >> 15;
        auto word = [&](uint32_t k) { return (x * (2 * k + 1) ^ x >> (k + 3)) & 0xBFFFBFFFu; };
        out[i] = make_uint4(word(0), word(1), word(2), word(3));
    }
}

// Reads LOADS * rounds words per thread.
__global__ void __launch_bounds__(THREADS) k_read(const uint4 *data, int rounds, uint32_t *out) {
    size_t stride = (size_t)gridDim.x * blockDim.x;
    const uint4 *p = data + blockIdx.x * (size_t)blockDim.x + threadIdx.x;
    uint32_t sum = 0;
    for (int r = 0; r < rounds; r++, p += LOADS * stride) {
        uint4 v[LOADS];
#pragma unroll
        for (int i = 0; i < LOADS; i++) v[i] = __ldcs(p + i * stride);
#pragma unroll
        for (int i = 0; i < LOADS; i++) sum ^= v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
    }
    if (sum == 0x12345678) *out = sum; // keeps the compiler from removing the loads
}

__global__ void k_touch(uint32_t *x) {
    pdl_wait();
    if (blockIdx.x == 0 && threadIdx.x == 0) x[0]++;
    pdl_launch();
}

// A stream, two events to time it, and device memory; its destructor frees them.
struct Rig {
    cudaStream_t stream = nullptr;
    cudaEvent_t begin = nullptr, end = nullptr;
    uint8_t *data = nullptr;
    size_t bytes = 0;

    cudaError_t open(size_t least, size_t most) {
        size_t free_bytes, total;
        cudaError_t error = cudaMemGetInfo(&free_bytes, &total);
        bytes = std::min(most, free_bytes / 2 / READ_LEAST * READ_LEAST);
        if (error == cudaSuccess && bytes < least) error = cudaErrorMemoryAllocation;
        if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
        if (error == cudaSuccess) error = cudaEventCreate(&begin);
        if (error == cudaSuccess) error = cudaEventCreate(&end);
        if (error == cudaSuccess) error = cudaMalloc(&data, bytes);
        if (error != cudaSuccess) return error;
        k_noise<<<1024, THREADS, 0, stream>>>((uint4 *)data, bytes / sizeof(uint4));
        return cudaGetLastError();
    }

    ~Rig() {
        cudaFree(data);
        if (begin) cudaEventDestroy(begin);
        if (end) cudaEventDestroy(end);
        if (stream) cudaStreamDestroy(stream);
    }

    // The median time of the work that `run` puts on the stream.
    template <class Run> cudaError_t median(Run run, double *seconds) {
        std::vector<float> ms(REPEATS);
        cudaError_t error = run();
        for (int i = 0; i < REPEATS && error == cudaSuccess; i++) {
            error = cudaEventRecord(begin, stream);
            if (error == cudaSuccess) error = run();
            if (error == cudaSuccess) error = cudaEventRecord(end, stream);
            if (error == cudaSuccess) error = cudaEventSynchronize(end);
            if (error == cudaSuccess) error = cudaEventElapsedTime(&ms[i], begin, end);
        }
        std::sort(ms.begin(), ms.end());
        *seconds = ms[REPEATS / 2] * 1e-3;
        return error;
    }
};

cudaError_t measure_read(Rig *rig, int n_sm, double *out) {
    int blocks = BLOCKS_PER_SM * n_sm;
    size_t round = (size_t)blocks * THREADS * LOADS * sizeof(uint4);
    int rounds = (int)(rig->bytes / round);
    double seconds;
    cudaError_t error = rig->median(
        [&] {
            k_read<<<blocks, THREADS, 0, rig->stream>>>((const uint4 *)rig->data, rounds,
                                                        (uint32_t *)rig->data);
            return cudaGetLastError();
        },
        &seconds);
    *out = round * (double)rounds / seconds;
    return error;
}

cudaError_t measure_copy(Rig *rig, double *out) {
    size_t half = rig->bytes / 2;
    double seconds;
    cudaError_t error = rig->median(
        [&] {
            return cudaMemcpyAsync(rig->data + half, rig->data, half, cudaMemcpyDeviceToDevice, rig->stream);
        },
        &seconds);
    *out = 2.0 * half / seconds;
    return error;
}

// The time of one kernel of a captured sequence, of a block per SM.
cudaError_t measure_boundary(Rig *rig, const Launch *l, double *out) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    cudaError_t error = cudaStreamBeginCapture(l->stream, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess) return error;
    for (int i = 0; i < KERNELS && error == cudaSuccess; i++)
        error = launch_kernel(l, k_touch, l->n_sm, 256, 0, (uint32_t *)rig->data);
    cudaError_t ended = cudaStreamEndCapture(l->stream, &graph);
    if (error == cudaSuccess) error = ended;
    if (error == cudaSuccess) error = cudaGraphInstantiate(&exec, graph, 0);
    double seconds = 0;
    if (error == cudaSuccess) error = rig->median([&] { return cudaGraphLaunch(exec, l->stream); }, &seconds);
    *out = seconds / KERNELS;
    if (exec) cudaGraphExecDestroy(exec);
    if (graph) cudaGraphDestroy(graph);
    return error;
}

cudaError_t measure_product(Rig *rig, const Launch *l, double *out) {
    constexpr size_t MATRIX = (size_t)SIDE * SIDE * 2;
    Gemm *g = gemm_open(SIDE);
    if (!g) return cudaSuccess; // without the library the figure stays 0
    double seconds;
    cudaError_t error = rig->median(
        [&] {
            return launch_gemm(g, l, rig->data, rig->data + MATRIX, (float *)(rig->data + 2 * MATRIX));
        },
        &seconds);
    cudaStreamSynchronize(l->stream);
    gemm_close(g);
    *out = 2.0 * SIDE * SIDE * SIDE / seconds;
    return error;
}

cudaError_t measure_upload(Rig *rig, double *out) {
    void *pinned;
    cudaError_t error = cudaMallocHost(&pinned, UPLOAD_BYTES);
    if (error != cudaSuccess) return error;
    double seconds;
    error = rig->median(
        [&] { return cudaMemcpyAsync(rig->data, pinned, UPLOAD_BYTES, cudaMemcpyHostToDevice, rig->stream); },
        &seconds);
    *out = UPLOAD_BYTES / seconds;
    cudaFreeHost(pinned);
    return error;
}

cudaError_t measure_all(int n_sm, bool dependent, Ceilings *out) {
    Rig rig;
    *out = {};
    cudaError_t error = rig.open((size_t)SIDE * SIDE * 8, READ_BYTES);
    Launch plain = {.stream = rig.stream, .n_sm = n_sm, .dependent = false},
           overlapping = {.stream = rig.stream, .n_sm = n_sm, .dependent = true};
    if (error == cudaSuccess) error = measure_read(&rig, n_sm, &out->read);
    if (error == cudaSuccess) error = measure_copy(&rig, &out->copy);
    if (error == cudaSuccess) error = measure_product(&rig, &plain, &out->product);
    if (error == cudaSuccess) error = measure_upload(&rig, &out->upload);
    if (error == cudaSuccess) error = measure_boundary(&rig, &plain, &out->boundary);
    if (error == cudaSuccess && dependent)
        error = measure_boundary(&rig, &overlapping, &out->boundary_overlap);
    return error;
}

} // namespace

cudaError_t ceilings_read(int n_sm, double *out) {
    Rig rig;
    cudaError_t error = rig.open(READ_LEAST, READ_BYTES);
    if (error == cudaSuccess) error = measure_read(&rig, n_sm, out);
    cudaGetLastError(); // clears a refused allocation
    return error;
}

extern "C" bool cuda_ceilings(int index, Ceilings *out, Err *e) {
    CudaDevice device;
    int n_sm;
    if (!cuda_device(index, &device, e)) return false;
    cudaError_t error = cudaDeviceGetAttribute(&n_sm, cudaDevAttrMultiProcessorCount, index);
    if (error == cudaSuccess) error = measure_all(n_sm, device.major >= 9, out);
    if (error == cudaErrorMemoryAllocation)
        return err_set(
            e, ERR_MEMORY,
            "the GPU has too little free memory for this measurement: %.0f MB are free, %.0f MB are needed",
            device.free_bytes / 1e6, 2.0 * SIDE * SIDE * 8 / 1e6);
    return error == cudaSuccess ||
           err_set(e, ERR_RUN, "measuring the limits of the GPU failed: %s", cudaGetErrorString(error));
}
