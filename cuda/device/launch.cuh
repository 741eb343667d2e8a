// launch: one kernel launch, on the stream and with the attributes of a Launch; rows of registers.
#pragma once
#include "../launch.h"

// Row i of an op.
__device__ __forceinline__ float *row_of(const RegRows &r, int i) {
    return r.data + (size_t)(r.map ? __ldcg(r.map + i) : i) * r.stride;
}

// Whether two segments make one output.
__host__ __device__ inline bool is_pair(const Product &p) {
    return p.act != ACT_NONE;
}

// Threads and shared memory of a block of the attention of single rows.  Where an SM is large enough,
// products of one row leave this much free, so that the product behind attention starts, and prefetches
// weights, while attention still runs.
constexpr int ATTN_THREADS = 128;
constexpr size_t ATTN_SHARED = 55 * 1024;

// cluster: blocks of a cluster (cluster.cuh).
template <class... Parameters, class... Arguments>
cudaError_t launch_clusters(const Launch *l, void (*kernel)(Parameters...), int cluster, dim3 blocks,
                            dim3 threads, size_t shared_bytes, Arguments... arguments) {
    // All kernels split an SM's memory alike, because a kernel with another split waits until the SM is
    // empty.
    cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                             cudaSharedmemCarveoutMaxShared);
    if (error == cudaSuccess)
        error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
    if (error != cudaSuccess) return error;
    cudaLaunchAttribute attributes[2] = {};
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks;
    config.blockDim = threads;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = l->stream;
    config.attrs = attributes;
    if (l->dependent) {
        cudaLaunchAttribute *a = &attributes[config.numAttrs++];
        a->id = cudaLaunchAttributeProgrammaticStreamSerialization;
        a->val.programmaticStreamSerializationAllowed = 1;
    }
    if (cluster > 1) {
        cudaLaunchAttribute *a = &attributes[config.numAttrs++];
        a->id = cudaLaunchAttributeClusterDimension;
        a->val.clusterDim = {(unsigned)cluster, 1, 1};
    }
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}

template <class... Parameters, class... Arguments>
cudaError_t launch_kernel(const Launch *l, void (*kernel)(Parameters...), dim3 blocks, dim3 threads,
                          size_t shared_bytes, Arguments... arguments) {
    return launch_clusters(l, kernel, 1, blocks, threads, shared_bytes, arguments...);
}
