// cluster: blocks that run beside each other and see each other's shared memory.  A launch says how many they
// are; where it does not, and before sm_90, each block is a cluster by itself.
#pragma once
#include "bulk.cuh"

struct Cluster {    // this block's
    int number, of; // its number, and how many clusters there are
    int rank, size; // this block's number among its blocks

    __device__ Cluster() : number(blockIdx.x), of(gridDim.x), rank(0), size(1) {
#if __CUDA_ARCH__ >= 900
        asm("mov.u32 %0, %%clusterid.x;" : "=r"(number));
        asm("mov.u32 %0, %%nclusterid.x;" : "=r"(of));
        asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
        asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
#endif
    }

    // All threads of its n blocks wait for each other.  tells: what they wrote to shared memory is then seen
    // by all.  Otherwise they have just read what the others must not overwrite or take away yet; whoever has
    // used the values that it read has read them, and a relaxed barrier does, which does not wait for what
    // they wrote to device memory.
    static __device__ void barrier(int n, bool tells) {
#if __CUDA_ARCH__ >= 900
        __syncwarp(); // the barrier wants whole warps
        if (n > 1 && tells)
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

// What the block `rank` of the cluster has where this one has `mine`, in shared memory.
class Neighbour {
#if __CUDA_ARCH__ >= 900
    uint32_t at;

  public:
    __device__ Neighbour(const float *mine, int rank) {
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
    __device__ Neighbour(const float *mine, int) : at(mine) {}
    __device__ float4 load4(int i) const {
        return *(const float4 *)(at + i);
    }
#endif
};
