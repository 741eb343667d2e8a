// gemm: products of prompt chunks on the tensor cores.
//
// Weights are dequantised to f16 on the device, one matrix at a time, and multiplied by cuBLASLt with f32
// sums: for a prompt chunk of 2048 rows, writing and reading the f16 weights costs a tenth of the arithmetic.
// The library is opened at run time, so that the executable starts, and decodes, on machines that have only a
// driver.
#include <dlfcn.h>
#include <algorithm>
#include <map>
#include <tuple>

#include "../device/epilogue.cuh"
#include "../device/half.cuh"
#include "../device/launch.cuh"
#include "../device/norm.cuh"
#include <cublasLt.h>

namespace {

constexpr size_t WORKSPACE_BYTES = 32 << 20;
constexpr int WARPS = 16, THREADS = WARPS * 32;

// The functions of cuBLASLt that are used.
struct Library {
    decltype(&cublasLtCreate) create;
    decltype(&cublasLtDestroy) destroy;
    decltype(&cublasLtMatmul) matmul;
    decltype(&cublasLtMatmulDescCreate) desc_create;
    decltype(&cublasLtMatmulDescSetAttribute) desc_set;
    decltype(&cublasLtMatrixLayoutCreate) layout_create;
    decltype(&cublasLtMatmulPreferenceCreate) preference_create;
    decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
    decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
};

template <class F> bool find(void *library, const char *name, F *out) {
    return (*out = (F)dlsym(library, name)) != nullptr;
}

bool open_library(Library *f) {
    void *so = nullptr;
    for (const char *name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"})
        if ((so = dlopen(name, RTLD_NOW | RTLD_LOCAL))) break;
    return so && find(so, "cublasLtCreate", &f->create) && find(so, "cublasLtDestroy", &f->destroy) &&
           find(so, "cublasLtMatmul", &f->matmul) && find(so, "cublasLtMatmulDescCreate", &f->desc_create) &&
           find(so, "cublasLtMatmulDescSetAttribute", &f->desc_set) &&
           find(so, "cublasLtMatrixLayoutCreate", &f->layout_create) &&
           find(so, "cublasLtMatmulPreferenceCreate", &f->preference_create) &&
           find(so, "cublasLtMatmulPreferenceSetAttribute", &f->preference_set) &&
           find(so, "cublasLtMatmulAlgoGetHeuristic", &f->heuristic);
}

struct Shape { // of one kind of product: its descriptors and the library's choice of algorithm
    cublasLtMatrixLayout_t w, x, residual, out;
    cublasLtMatmulAlgo_t algorithm;
};

} // namespace

struct Gemm {
    Library f;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc; // out = w^T x, column-major: w is [n_in, n_out], x [n_in, T]
    std::map<std::tuple<int, int, int, int, int>, Shape>
        shapes; // by n_out, T, n_in, strides of out and residual
    __half *weight, *input;
    float *output;
    void *workspace;
};

namespace {

// Rows of the input as f16, normalised first where there is a norm.
__global__ void __launch_bounds__(THREADS)
    k_input(RegRows in, const float *norm, float eps, int n_in, __half *out) {
    pdl_wait();
    pdl_launch();
    const float *row = row_of(in, blockIdx.x);
    float scale = norm ? row_rms_scale<WARPS>(row, n_in, eps) : 1.0f;
    for (int k = threadIdx.x; k < n_in; k += THREADS) {
        float x = __ldcg(row + k);
        out[(size_t)blockIdx.x * n_in + k] = saturated(norm ? normalised(x, scale, norm[k]) : x);
    }
}

// The part of the epilogue that the library lacks: scales of rows, biases, an activation and a gate, before
// the factor and the residual, and the row map of a residual.
__global__ void k_epilogue(float *out, int stride, int n_out, const float *scale, const float *bias,
                           Activation act, Gate gate, float factor, RegRows residual) {
    pdl_wait();
    pdl_launch();
    int i = blockIdx.x * blockDim.x + threadIdx.x, t = blockIdx.y;
    if (i >= n_out) return;
    float v = out[(size_t)t * stride + i];
    if (scale) v *= scale[i];
    if (bias) v += bias[i];
    v = activate(act, v) * gate_factor(gate, t, i);
    v *= factor;
    out[(size_t)t * stride + i] = residual.data ? row_of(residual, t)[i] + v : v;
}

// out[T][stride] = factor * act(gate) * up + residual, of gate and up [T][n].
__global__ void k_pair(Activation act, const float *gate, const float *up, int n, float factor, float *out,
                       int stride, RegRows residual) {
    pdl_wait();
    pdl_launch();
    int i = blockIdx.x * blockDim.x + threadIdx.x, t = blockIdx.y;
    if (i >= n) return;
    float y = factor * gated(act, gate[(size_t)t * n + i], up[(size_t)t * n + i]);
    out[(size_t)t * stride + i] = residual.data ? y + row_of(residual, t)[i] : y;
}

cudaError_t status(cublasStatus_t s) {
    return s == CUBLAS_STATUS_SUCCESS ? cudaSuccess : cudaErrorUnknown;
}

cudaError_t shape_of(Gemm *g, int n_out, int T, int n_in, int out_stride, int residual_stride, Shape *out) {
    auto key = std::make_tuple(n_out, T, n_in, out_stride, residual_stride);
    auto known = g->shapes.find(key);
    if (known != g->shapes.end()) {
        *out = known->second;
        return cudaSuccess;
    }
    Shape s;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result;
    size_t workspace = WORKSPACE_BYTES;
    int found = 0;
    g->f.layout_create(&s.w, CUDA_R_16F, n_in, n_out, n_in);
    g->f.layout_create(&s.x, CUDA_R_16F, n_in, T, n_in);
    g->f.layout_create(&s.residual, CUDA_R_32F, n_out, T, residual_stride);
    g->f.layout_create(&s.out, CUDA_R_32F, n_out, T, out_stride);
    g->f.preference_create(&preference);
    g->f.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    cublasStatus_t answer =
        g->f.heuristic(g->handle, g->desc, s.w, s.x, s.residual, s.out, preference, 1, &result, &found);
    if (answer != CUBLAS_STATUS_SUCCESS || found == 0) return cudaErrorNotSupported;
    s.algorithm = result.algo;
    g->shapes[key] = s;
    *out = s;
    return cudaSuccess;
}

// Whether the library finds an algorithm; the first search takes long.
bool finds_algorithm(Gemm *g) {
    int n = 1024; // any size
    Shape ignored;
    return shape_of(g, n, n, n, n, n, &ignored) == cudaSuccess;
}

// out[T][out_stride] = alpha input w^T + beta c.
cudaError_t matmul(Gemm *g, const Launch *l, const void *w, const void *input, int n_out, int T, int n_in,
                   float alpha, float beta, const float *c, int c_stride, float *out, int out_stride) {
    Shape s;
    cudaError_t error = shape_of(g, n_out, T, n_in, out_stride, c_stride, &s);
    if (error != cudaSuccess) return error;
    return status(g->f.matmul(g->handle, g->desc, &alpha, w, s.w, input, s.x, &beta, c, s.residual, out,
                              s.out, &s.algorithm, g->workspace, WORKSPACE_BYTES, l->stream));
}

// out[T][out_stride] = factor * act(input w^T * scale + bias) * gate + residual, of one segment.
cudaError_t multiply(Gemm *g, const Launch *l, const ProductSegment *p, int T, Activation act,
                     const Gate &gate, float factor, float *out, int out_stride, const RegRows &residual) {
    cudaError_t error = launch_dequant(l, &p->w, 0, g->weight);
    bool own_epilogue = p->w.scale || p->bias || act != ACT_NONE || gate.rows.data || residual.map;
    bool joined = residual.data && !own_epilogue; // the library adds the residual
    if (error == cudaSuccess)
        error = matmul(g, l, g->weight, g->input, p->w.n_out, T, p->w.n_in, own_epilogue ? 1 : factor,
                       joined ? 1 : 0, joined ? residual.data : out, joined ? residual.stride : out_stride,
                       out, out_stride);
    if (error == cudaSuccess && own_epilogue) {
        dim3 grid((p->w.n_out + 255) / 256, T);
        error = launch_kernel(l, k_epilogue, grid, 256, 0, out, out_stride, p->w.n_out, p->w.scale, p->bias,
                              act, gate, factor, residual);
    }
    return error;
}

} // namespace

extern "C" size_t gemm_bytes(size_t weight_elements, size_t input_elements, size_t output_elements) {
    return (weight_elements + input_elements) * sizeof(__half) + output_elements * sizeof(float) +
           WORKSPACE_BYTES;
}

extern "C" Gemm *gemm_open(size_t weight_elements, size_t input_elements, size_t output_elements) {
    Library f;
    if (!open_library(&f)) return nullptr;
    Gemm *g = new Gemm{};
    g->f = f;
    cublasOperation_t transpose = CUBLAS_OP_T;
    bool ok = f.create(&g->handle) == CUBLAS_STATUS_SUCCESS &&
              f.desc_create(&g->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
              f.desc_set(g->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose) ==
                  CUBLAS_STATUS_SUCCESS &&
              cudaMalloc(&g->weight, weight_elements * sizeof(__half)) == cudaSuccess &&
              cudaMalloc(&g->input, input_elements * sizeof(__half)) == cudaSuccess &&
              cudaMalloc(&g->output, output_elements * sizeof(float)) == cudaSuccess &&
              cudaMalloc(&g->workspace, WORKSPACE_BYTES) == cudaSuccess && finds_algorithm(g);
    if (ok) return g;
    gemm_close(g);
    return nullptr;
}

extern "C" void gemm_close(Gemm *g) {
    if (!g) return;
    for (void *memory : {(void *)g->weight, (void *)g->input, (void *)g->output, g->workspace})
        cudaFree(memory);
    if (g->handle) g->f.destroy(g->handle);
    delete g;
}

extern "C" cudaError_t launch_gemm(Gemm *g, const Launch *l, const Product *p, int T) {
    int n_in = p->segment[0].w.n_in, n_out = p->segment[0].w.n_out;
    bool pair = is_pair(*p);
    cudaError_t error = launch_kernel(l, k_input, T, THREADS, 0, p->in, p->norm, p->norm_eps, n_in, g->input);
    for (int i = 0; i < p->n_segments && error == cudaSuccess; i++) {
        const ProductSegment *s = &p->segment[i];
        float *out = pair ? g->output + (size_t)i * T * n_out : s->out;
        error = multiply(g, l, s, T, p->act_alone, i == 0 ? p->gate : Gate{}, pair ? 1 : p->scale, out,
                         pair ? n_out : s->out_stride, i == 0 && !pair ? p->residual : RegRows{});
    }
    if (!pair || error != cudaSuccess) return error;
    dim3 grid((n_out + 255) / 256, T);
    const float *up = g->output + (size_t)T * n_out;
    return launch_kernel(l, k_pair, grid, 256, 0, p->act, g->output, up, n_out, p->scale, p->segment[0].out,
                         p->segment[0].out_stride, p->residual);
}

extern "C" cudaError_t launch_gemm_f16(Gemm *g, const Launch *l, const void *w, const void *input, int n_out,
                                       int T, int n_in, float *out) {
    return matmul(g, l, w, input, n_out, T, n_in, 1, 0, out, n_out, out, n_out);
}
