// conv: the short convolution of each column over the rows of a sequence.  Its state is the latest n_tap - 1
// inputs, [n_tap - 1][width].
//
// A thread has a column and up to ROWS rows of a run, one behind the other, with the inputs of all taps in
// registers.  The first rows of a run read the state and write the new one, which may be the same page: no
// other thread uses the state of its column.
#include "../device/activation.cuh"
#include "../device/device.cuh"
#include "../device/state.cuh"

namespace {

constexpr int ROWS = 32, COLUMNS = 256; // of a block
constexpr int UNDER_WAY = 8;            // inputs that a thread loads at once
static_assert(ROWS >= CONV_MAX_TAPS && ROWS % UNDER_WAY == 0, "later rows of a run do not reach the state");

// A column of one run.
struct Column {
    const Conv &c;
    const Run &run;
    int i;

    // Input number `row` of the run; -1 is the latest one of the state.
    __device__ float input(int row) const {
        if (row >= 0) return __ldcg(row_of(c.in, run.first + row) + i);
        return run.from ? __ldcg(run.from + (size_t)(row + c.n_tap - 1) * c.width + i) : 0;
    }

    // A state that is read lies behind the one that is written, where both are of one page.
    __device__ void write_state() const {
        for (int k = 0; run.to && k < c.n_tap - 1; k++)
            run.to[(size_t)k * c.width + i] = input(run.n - (c.n_tap - 1) + k);
    }
};

// TAPS >= n_tap: the first ones have the weight 0.
template <int TAPS> __global__ void __launch_bounds__(COLUMNS) k_conv(const __grid_constant__ Conv c) {
    int i = blockIdx.x * COLUMNS + threadIdx.x, begin = blockIdx.z * ROWS, missing = TAPS - c.n_tap;
    float weight[TAPS], x[TAPS];
#pragma unroll
    for (int k = 0; k < TAPS; k++)
        weight[k] = i < c.width && k >= missing ? c.weight[(size_t)i * c.n_tap + k - missing] : 0;
    pdl_wait();
    pdl_launch();
    Run run(c.runs, c.cache, blockIdx.y);
    Column column = {c, run, i};
    if (i >= c.width || begin >= run.n) return;
#pragma unroll
    for (int k = 0; k < TAPS - 1; k++) x[k] = k < missing ? 0 : column.input(begin - (TAPS - 1) + k);
    float bias = c.bias ? c.bias[i] : 0;
    int end = min(begin + ROWS, run.n);
    for (int base = begin; base < end; base += UNDER_WAY) {
        float next[UNDER_WAY];
#pragma unroll
        for (int k = 0; k < UNDER_WAY; k++) next[k] = base + k < end ? column.input(base + k) : 0;
#pragma unroll
        for (int k = 0; k < UNDER_WAY; k++) {
            float sum = 0;
            x[TAPS - 1] = next[k];
#pragma unroll
            for (int tap = 0; tap < TAPS; tap++) sum = fmaf(weight[tap], x[tap], sum);
#pragma unroll
            for (int tap = 1; tap < TAPS; tap++) x[tap - 1] = x[tap];
            if (base + k < end) row_of(c.out, run.first + base + k)[i] = activate(c.act, sum + bias);
        }
    }
    if (begin == 0) column.write_state();
}

} // namespace

extern "C" cudaError_t launch_conv(const Launch *l, const Conv *c) {
    if (c->n_tap < 2 || c->n_tap > CONV_MAX_TAPS) return cudaErrorInvalidValue;
    dim3 grid((c->width + COLUMNS - 1) / COLUMNS, c->runs.n, (c->runs.longest + ROWS - 1) / ROWS);
    return launch_kernel(l, c->n_tap <= 4 ? k_conv<4> : k_conv<CONV_MAX_TAPS>, grid, COLUMNS, 0, *c);
}
