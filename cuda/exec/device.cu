// device: which GPU is present, and the properties of it that launches need.
#include <cstdio>

#include "../launch.h"
extern "C" {
#include "../cuda.h"
}

namespace {

__global__ void k_nothing() {}

// How many clusters run at once: the blocks of a cluster run in one part of the GPU (a GPC), whose number of
// SMs need not be a multiple of the cluster size.  0 where CUDA returns an error.
void count_clusters(Launch *l) {
    cudaError_t error =
        cudaFuncSetAttribute(k_nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)l->shared_max);
    for (int n = 2; n <= MAX_CLUSTER && error == cudaSuccess; n *= 2) {
        cudaLaunchAttribute size = {};
        size.id = cudaLaunchAttributeClusterDimension;
        size.val.clusterDim = {(unsigned)n, 1, 1};
        cudaLaunchConfig_t config = {};
        config.gridDim = l->n_sm / n * n;
        config.blockDim = 512; // any number: the shared memory of one block fills an SM
        config.dynamicSmemBytes = l->shared_max;
        config.attrs = &size;
        config.numAttrs = 1;
        error = cudaOccupancyMaxActiveClusters(&l->n_clusters[n], k_nothing, &config);
        if (error != cudaSuccess) l->n_clusters[n] = 0;
    }
    cudaGetLastError(); // clears the error of a device without clusters
}

} // namespace

extern "C" cudaError_t launch_for_device(int device, Launch *l) {
    int major = 0, shared = 0;
    cudaError_t error = cudaDeviceGetAttribute(&l->n_sm, cudaDevAttrMultiProcessorCount, device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    l->shared_max = (size_t)shared;
    l->dependent = major >= 9;
    for (int &n : l->n_clusters) n = 0;
    if (error == cudaSuccess && l->dependent) count_clusters(l);
    return error;
}

extern "C" bool cuda_device(int index, CudaDevice *out, Err *e) {
    *out = {};
    int n = 0;
    cudaError_t error = cudaDriverGetVersion(&out->driver);
    if (error == cudaSuccess) error = cudaRuntimeGetVersion(&out->runtime);
    if (error == cudaSuccess && out->driver == 0)
        return err_set(e, ERR_RUN, "there is no NVIDIA driver on this machine");
    if (error == cudaSuccess) error = cudaGetDeviceCount(&n);
    if (error == cudaErrorInsufficientDriver)
        return err_set(
            e, ERR_RUN,
            "the NVIDIA driver is too old: it supports CUDA %d.%d, this build needs %d.%d; update the driver",
            out->driver / 1000, out->driver % 1000 / 10, out->runtime / 1000, out->runtime % 1000 / 10);
    if (error == cudaErrorNoDevice || (error == cudaSuccess && n == 0))
        return err_set(e, ERR_RUN, "there is no NVIDIA GPU that may be used");
    if (error != cudaSuccess)
        return err_set(e, ERR_RUN, "the NVIDIA driver does not answer: %s", cudaGetErrorString(error));
    if (index >= n) return err_set(e, ERR_RUN, "there is no GPU number %d; the machine has %d", index, n);
    cudaDeviceProp p;
    error = cudaGetDeviceProperties(&p, index);
    if (error == cudaSuccess) error = cudaSetDevice(index);
    if (error == cudaSuccess) error = cudaMemGetInfo(&out->free_bytes, &out->total_bytes);
    if (error != cudaSuccess)
        return err_set(e, ERR_RUN, "GPU %d does not answer: %s", index, cudaGetErrorString(error));
    snprintf(out->name, sizeof out->name, "%.127s", p.name);
    out->major = p.major;
    out->minor = p.minor;
    out->shares_host_tables = p.pageableMemoryAccessUsesHostPageTables || p.integrated;
    if (p.major < 8)
        return err_set(e, ERR_RUN,
                       "the GPU (%s) is older than this build supports: compute capability %d.%d, needed 8.0",
                       p.name, p.major, p.minor);
    return true;
}
