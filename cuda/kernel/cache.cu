// cache: writes page ids to the executor's page tables.
//
// The ids are parameters of the launch, so that host memory may be reused when the call returns.
#include "../device/device.cuh"
#include "../device/launch.cuh"
#include <algorithm>

namespace {

constexpr int IDS = 512; // of a launch, whose parameters may have 4 KB

struct PageIds {
    int32_t *to; // [n]
    int n;
    int32_t id[IDS];
};

__global__ void __launch_bounds__(IDS) k_page_ids(const __grid_constant__ PageIds ids) {
    pdl_wait(); // the kernel before may still read the old ids
    pdl_launch();
    if (threadIdx.x < ids.n) ids.to[threadIdx.x] = ids.id[threadIdx.x];
}

} // namespace

extern "C" cudaError_t launch_page_ids(const Launch *l, int32_t *tables, size_t first, const int32_t *ids,
                                       int n) {
    for (int done = 0; done < n; done += IDS) {
        PageIds some = {.to = tables + first + done, .n = std::min(IDS, n - done)};
        std::copy(ids + done, ids + done + some.n, some.id);
        cudaError_t error = launch_kernel(l, k_page_ids, dim3(1), dim3(IDS), 0, some);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
