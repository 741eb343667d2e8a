// cluster: thread block clusters, whose blocks run at the same time and can read each other's shared memory.
// Before sm_90, and in a launch without a cluster size, each block is a cluster by itself.
#pragma once
#include "bulk.cuh"

// The purpose of a barrier.  SHARED_WRITES_VISIBLE: behind it all threads see the writes to shared memory
// that any thread made before it.  SHARED_READS_DONE: memory that was read before it may be overwritten, and
// the block that owns that memory may end; no writes are ordered, so that writes to device memory are not
// waited for.
enum BarrierKind { SHARED_WRITES_VISIBLE, SHARED_READS_DONE };

struct Cluster {      // of this block
    int index, count; // its number in the grid, and how many there are
    int rank, size;   // this block's number in it, and how many blocks it has

    __device__ Cluster() : index(blockIdx.x), count(gridDim.x), rank(0), size(1) {
#if __CUDA_ARCH__ >= 900
        asm("mov.u32 %0, %%clusterid.x;" : "=r"(index));
        asm("mov.u32 %0, %%nclusterid.x;" : "=r"(count));
        asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
        asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
#endif
    }

    // A barrier of all threads of a cluster of n blocks; of one block, always with visible writes.
    static __device__ void barrier(int n, BarrierKind kind) {
#if __CUDA_ARCH__ >= 900
        __syncwarp(); // .aligned: all lanes of a warp arrive together
        if (n > 1 && kind == SHARED_WRITES_VISIBLE)
            asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                             : "memory");
        else if (n > 1)
            asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::
                             : "memory");
        else
#endif
            __syncthreads();
    }
};

// Distributed shared memory: the address in block `rank` of the cluster that corresponds to `mine` in this
// block.
class PeerShared {
#if __CUDA_ARCH__ >= 900
    uint32_t at;

  public:
    __device__ PeerShared(const float *mine, int rank) {
        asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(shared_address(mine)), "r"(rank));
    }
    __device__ float4 load4(int i) const { // the elements i..i+3
        float4 x;
        asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
                     : "r"(at + 4 * i)
                     : "memory");
        return x;
    }
#else
    const float *at;

  public:
    __device__ PeerShared(const float *mine, int) : at(mine) {}
    __device__ float4 load4(int i) const {
        return *(const float4 *)(at + i);
    }
#endif
};
