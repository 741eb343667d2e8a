// rows: changes of the rows of the decode loop, and of the histories, between two steps.
//
// All inputs of a kernel here are launch parameters.  So host memory may be reused when a call returns,
// nothing is staged, and a slot is joined or left by a launch of one thread between two replays of a captured
// step.
#include "../device/launch.cuh"

namespace {

__global__ void k_history(DeviceRows rows, int T, DeviceHistory history) {
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= T || rows.seq[t] < 0) return;
    history.data[(size_t)rows.seq[t] * history.stride + rows.position[t]] = rows.token[t];
}

__global__ void k_row_begin(DeviceRows rows, int row, int token, int seq, int position, DeviceSampler sampler,
                            DeviceHistory history) {
    rows.token[row] = token;
    rows.seq[row] = seq;
    rows.position[row] = position;
    rows.sampler[row] = sampler;
    history.data[(size_t)seq * history.stride + position] = token;
}

__global__ void k_row_move(DeviceRows rows, int from, int to) {
    rows.token[to] = rows.token[from];
    rows.seq[to] = rows.seq[from];
    rows.position[to] = rows.position[from];
    rows.sampler[to] = rows.sampler[from];
    rows.token[from] = 0; // padding is computed, like any row, at little cost
    rows.seq[from] = -1;
    rows.position[from] = 0;
}

constexpr int IDS = 960; // per launch, whose parameters may take 4 KB

struct Ids {
    int n;
    int32_t id[IDS];
};

__global__ void k_ban(uint32_t *bits, Ids ids) {
    for (int i = threadIdx.x; i < ids.n; i += blockDim.x)
        atomicOr(bits + ids.id[i] / 32, 1u << ids.id[i] % 32);
}

} // namespace

extern "C" cudaError_t launch_history(const Launch *l, const DeviceRows *rows, int T, DeviceHistory history) {
    constexpr int THREADS = 256;
    if (T <= 0) return cudaSuccess;
    k_history<<<(T + THREADS - 1) / THREADS, THREADS, 0, l->stream>>>(*rows, T, history);
    return cudaGetLastError();
}

extern "C" cudaError_t launch_row_begin(const Launch *l, const DeviceRows *rows, int row, int token, int seq,
                                        int position, const DeviceSampler *sampler, DeviceHistory history) {
    if (token < 0 || seq < 0 || position < 0 || position >= history.stride) return cudaErrorInvalidValue;
    k_row_begin<<<1, 1, 0, l->stream>>>(*rows, row, token, seq, position, *sampler, history);
    return cudaGetLastError();
}

extern "C" cudaError_t launch_row_move(const Launch *l, const DeviceRows *rows, int from, int to) {
    k_row_move<<<1, 1, 0, l->stream>>>(*rows, from, to);
    return cudaGetLastError();
}

extern "C" cudaError_t launch_ban(const Launch *l, uint32_t *bits, size_t n_words, const int32_t *ids,
                                  int n) {
    cudaError_t error = cudaMemsetAsync(bits, 0, n_words * sizeof *bits, l->stream);
    for (int first = 0; first < n && error == cudaSuccess; first += IDS) {
        Ids some;
        some.n = n - first < IDS ? n - first : IDS;
        for (int i = 0; i < some.n; i++) some.id[i] = ids[first + i];
        k_ban<<<1, 256, 0, l->stream>>>(bits, some);
        error = cudaGetLastError();
    }
    return error;
}
