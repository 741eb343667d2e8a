// elementwise: the ops whose work costs less than their launch: add, glu, slice and join, for any number of
// rows.
//
// A block computes COLUMNS elements of one row.  A register may begin at any
// column: rows of four floats are read and written at once where their addresses allow that.
#include "../device/activation.cuh"
#include "../device/device.cuh"
#include "../device/launch.cuh"
#include "../device/norm.cuh"

namespace {

// The element of its row that a thread of these kernels has; the row is blockIdx.y.
__device__ int column() {
    return (int)(blockIdx.x * blockDim.x + threadIdx.x);
}

__global__ void k_add(RegRows a, RegRows b, AddParams add, int width, RegRows out) {
    pdl_wait();
    pdl_launch();
    int i = 4 * column(), t = blockIdx.y;
    float4 x = load4(row_of(a, t), i, width), y = load4(row_of(b, t), i, width);
#pragma unroll
    for (int k = 0; k < 4; k++) (&x.x)[k] = add.scale * fmaf(add.a_scale, (&x.x)[k], (&y.x)[k]);
    store4(row_of(out, t), i, width, x);
}

// Gates of elements i..i + 3.
__device__ float4 load_gates(const Glu &g, const float *row, int i) {
    if (g.columns_per_gate == 1) return load4(row, i, g.width);
    float4 v = make_float4(0, 0, 0, 0);
    for (int k = 0; k < 4; k++)
        if (i + k < g.width) (&v.x)[k] = __ldcg(row + (i + k) / g.columns_per_gate);
    return v;
}

__global__ void k_glu(const __grid_constant__ Glu g) {
    pdl_wait();
    pdl_launch();
    int i = 4 * column(), t = blockIdx.y;
    if (i >= g.width) return;
    float4 v = load_gates(g, row_of(g.gate, t), i);
    if (g.up.data) {
        float4 up = load4(row_of(g.up, t), i, g.width);
#pragma unroll
        for (int k = 0; k < 4; k++) (&v.x)[k] = gated(g.params, (&v.x)[k], (&up.x)[k]);
    } else {
#pragma unroll
        for (int k = 0; k < 4; k++) (&v.x)[k] = activate(g.params, (&v.x)[k]);
    }
    store4(row_of(g.out, t), i, g.width, v);
}

__global__ void k_slice(RegRows in, SliceParams s, int width, RegRows out) {
    pdl_wait();
    pdl_launch();
    int i = column(), t = blockIdx.y;
    if (i < width) row_of(out, t)[i] = __ldcg(row_of(in, t) + i / s.n * s.period + s.first + i % s.n);
}

__global__ void k_join(const __grid_constant__ Join j) {
    pdl_wait();
    pdl_launch();
    int i = column(), t = blockIdx.y, dim = j.a_dim + j.b_dim, head = i / dim, k = i % dim;
    if (head >= j.n_head) return;
    const float *from =
        k < j.a_dim ? row_of(j.a, t) + head * j.a_dim + k : row_of(j.b, t) + head * j.b_dim + k - j.a_dim;
    row_of(j.out, t)[i] = __ldcg(from);
}

constexpr int COLUMNS = 256; // of a block; of kernels that have four elements per thread, THREADS_OF_FOUR
constexpr int THREADS_OF_FOUR = COLUMNS / 4;

// Blocks for n rows of `width` elements.
dim3 grid_of(int width, int n) {
    return dim3((width + COLUMNS - 1) / COLUMNS, n);
}

} // namespace

extern "C" cudaError_t launch_add(const Launch *l, RegRows a, RegRows b, const AddParams *add, int width,
                                  int n, RegRows out) {
    return launch_kernel(l, k_add, grid_of(width, n), THREADS_OF_FOUR, 0, a, b, *add, width, out);
}

extern "C" cudaError_t launch_glu(const Launch *l, const Glu *g, int n) {
    if (g->columns_per_gate <= 0 || g->width % g->columns_per_gate) return cudaErrorInvalidValue;
    return launch_kernel(l, k_glu, grid_of(g->width, n), THREADS_OF_FOUR, 0, *g);
}

extern "C" cudaError_t launch_slice(const Launch *l, RegRows in, const SliceParams *slice, int width, int n,
                                    RegRows out) {
    if (slice->n <= 0 || width % slice->n) return cudaErrorInvalidValue;
    return launch_kernel(l, k_slice, grid_of(width, n), COLUMNS, 0, in, *slice, width, out);
}

extern "C" cudaError_t launch_join(const Launch *l, const Join *j, int n) {
    int width = j->n_head * (j->a_dim + j->b_dim);
    return launch_kernel(l, k_join, grid_of(width, n), COLUMNS, 0, *j);
}
