// conv: the short convolution of each column over the rows of a sequence.  Its state is the latest n_tap - 1
// inputs, [n_tap - 1][width].
//
// A thread has a column and up to ROWS rows of a run, one behind the other, with the inputs of all taps in
// registers.  The thread of a run's first rows reads the state and writes the new one, which may be the same
// page: no other thread uses the state of its column.
#include "../device/activation.cuh"
#include "../device/device.cuh"
#include "../device/state.cuh"

namespace {

constexpr int ROWS = 32, COLUMNS = 256; // of a block
constexpr int UNDER_WAY = 8;            // inputs that a thread loads at once
static_assert(ROWS >= CONV_MAX_TAPS && ROWS % UNDER_WAY == 0, "later rows of a run do not reach the state");

// Input number `row` of a run, of column i; -1 is the latest one of the state.
__device__ float input(const Conv &c, const Run &run, int row, int i) {
    int t = run.first + row;
    if (row >= 0) return __ldcg(row_of(c.in, t) + i) * (c.factor.data ? __ldcg(row_of(c.factor, t) + i) : 1);
    return run.from ? __ldcg(run.from + (size_t)(row + c.n_tap - 1) * c.width + i) : 0;
}

// TAPS >= n_tap: the first ones have the weight 0.
template <int TAPS> __global__ void __launch_bounds__(COLUMNS) k_conv(const __grid_constant__ Conv c) {
    int i = blockIdx.x * COLUMNS + threadIdx.x, begin = blockIdx.z * ROWS, missing = TAPS - c.n_tap;
    bool has_column = i < c.width;
    float weight[TAPS], x[TAPS], bias = c.bias && has_column ? c.bias[i] : 0;
#pragma unroll
    for (int k = 0; k < TAPS; k++)
        weight[k] = has_column && k >= missing ? c.weight[(size_t)i * c.n_tap + k - missing] : 0;
    Run run(c.runs, c.cache, blockIdx.y);
#pragma unroll
    for (int k = 0; k < TAPS - 1; k++)
        x[k] = has_column && k >= missing && begin == 0 ? input(c, run, k - (TAPS - 1), i) : 0;
    pdl_wait();
    pdl_launch();
    if (!has_column || begin >= run.n) return;
#pragma unroll
    for (int k = 0; k < TAPS - 1; k++)
        if (k >= missing && begin > 0) x[k] = input(c, run, begin + k - (TAPS - 1), i);
    int end = min(begin + ROWS, run.n);
    for (int base = begin; base < end; base += UNDER_WAY) {
        float next[UNDER_WAY], gate[UNDER_WAY];
#pragma unroll
        for (int k = 0; k < UNDER_WAY; k++) {
            next[k] = base + k < end ? input(c, run, base + k, i) : 0;
            gate[k] = base + k < end && c.gate.data ? __ldcg(row_of(c.gate, run.first + base + k) + i) : 0;
        }
#pragma unroll
        for (int k = 0; k < UNDER_WAY; k++) {
            if (base + k >= end) break;
            float sum = 0;
            x[TAPS - 1] = next[k];
#pragma unroll
            for (int tap = 0; tap < TAPS; tap++) sum = fmaf(weight[tap], x[tap], sum);
#pragma unroll
            for (int tap = 1; tap < TAPS; tap++) x[tap - 1] = x[tap];
            float out = activate(c.act, sum + bias);
            if (c.gate.data) out *= activate(c.gate_act, gate[k]);
            row_of(c.out, run.first + base + k)[i] = out;
        }
    }
    if (begin > 0 || !run.to) return;
#pragma unroll
    for (int k = 0; k < TAPS - 1; k++) // the run's latest inputs; in x where this thread has all of its rows
        if (k >= missing)
            run.to[(size_t)(k - missing) * c.width + i] =
                end == run.n ? x[k] : input(c, run, run.n + k - (TAPS - 1), i);
}

} // namespace

extern "C" cudaError_t launch_conv(const Launch *l, const Conv *c) {
    if (c->n_tap < 2 || c->n_tap > CONV_MAX_TAPS) return cudaErrorInvalidValue;
    dim3 grid((c->width + COLUMNS - 1) / COLUMNS, c->runs.n, (c->runs.longest + ROWS - 1) / ROWS);
    return launch_kernel(l, c->n_tap <= 4 ? k_conv<4> : k_conv<CONV_MAX_TAPS>, grid, COLUMNS, 0, *c);
}
