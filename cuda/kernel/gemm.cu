// gemm: the library's product of two f16 matrices, with which ours are compared (ceilings.cu).
//
// cuBLASLt is opened at run time, so that the executable starts on machines that have only a driver.
#include <dlfcn.h>

#include "../launch.h"
#include <cublasLt.h>

namespace {

constexpr size_t WORKSPACE_BYTES = 32 << 20;

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

cudaError_t status(cublasStatus_t s) {
    return s == CUBLAS_STATUS_SUCCESS ? cudaSuccess : cudaErrorUnknown;
}

} // namespace

struct Gemm {
    Library f;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc; // out = w^T x, column-major: w is [n, n], x [n, n]
    cublasLtMatrixLayout_t halves, floats;
    cublasLtMatmulAlgo_t algorithm;
    void *workspace;
};

namespace {

bool choose_algorithm(Gemm *g, int n) {
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result;
    size_t workspace = WORKSPACE_BYTES;
    int found = 0;
    g->f.layout_create(&g->halves, CUDA_R_16F, n, n, n);
    g->f.layout_create(&g->floats, CUDA_R_32F, n, n, n);
    g->f.preference_create(&preference);
    g->f.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    cublasStatus_t answer = g->f.heuristic(g->handle, g->desc, g->halves, g->halves, g->floats, g->floats,
                                           preference, 1, &result, &found);
    g->algorithm = result.algo;
    return answer == CUBLAS_STATUS_SUCCESS && found > 0;
}

} // namespace

extern "C" Gemm *gemm_open(int n) {
    Library f;
    if (!open_library(&f)) return nullptr;
    Gemm *g = new Gemm{};
    g->f = f;
    cublasOperation_t transpose = CUBLAS_OP_T;
    bool ok = f.create(&g->handle) == CUBLAS_STATUS_SUCCESS &&
              f.desc_create(&g->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
              f.desc_set(g->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose) ==
                  CUBLAS_STATUS_SUCCESS &&
              cudaMalloc(&g->workspace, WORKSPACE_BYTES) == cudaSuccess && choose_algorithm(g, n);
    if (ok) return g;
    gemm_close(g);
    return nullptr;
}

extern "C" void gemm_close(Gemm *g) {
    if (!g) return;
    cudaFree(g->workspace);
    if (g->handle) g->f.destroy(g->handle);
    delete g;
}

extern "C" cudaError_t launch_gemm(Gemm *g, const Launch *l, const void *a, const void *b, float *out) {
    float one = 1, zero = 0;
    return status(g->f.matmul(g->handle, g->desc, &one, a, g->halves, b, g->halves, &zero, out, g->floats,
                              out, g->floats, &g->algorithm, g->workspace, WORKSPACE_BYTES, l->stream));
}
