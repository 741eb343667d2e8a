// bulk: asynchronous bulk copies from device to shared memory (sm_90), and the barriers in shared memory on
// which they complete.
#pragma once
#include <cstdint>
#include <cuda_runtime.h>

__device__ __forceinline__ uint32_t shared_address(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

#if __CUDA_ARCH__ >= 900
// L2 policies, as createpolicy.fractional encodes evict_first and evict_normal: weights that are read once
// replace each other, and not the activations that blocks exchange.
constexpr uint64_t READ_ONCE = 0x12F0000000000000, READ_OFTEN = 0x1000000000000000;

// Initialises a barrier whose phases take n arrivals, by one thread; other threads may use it after a
// __syncthreads or __syncwarp.
__device__ __forceinline__ void arrival_init(uint32_t barrier, int n = 1) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(n) : "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// The barrier's current phase completes when so many bytes have arrived.
__device__ __forceinline__ void arrival_expect(uint32_t barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

// This thread arrives.
__device__ __forceinline__ void arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Starts a copy of a multiple of 16 bytes between addresses at multiples of 16.
__device__ __forceinline__ void bulk_copy(uint32_t to, const uint8_t *from, int bytes, uint32_t barrier,
                                          uint64_t policy) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
        "[%1], %2, [%3], %4;" ::"r"(to),
        "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
        : "memory");
}

// Waits until a phase is complete; phases alternate: 0, 1, 0, ...
__device__ __forceinline__ void arrival_wait(uint32_t barrier, int phase) {
    asm volatile(
        "{\n.reg .pred p;\nWAIT:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra "
        "WAIT;\n}" ::"r"(barrier),
        "r"(phase)
        : "memory");
}
#endif

// Orders this thread's accesses to shared memory before bulk copies that are started behind a barrier.
__device__ __forceinline__ void before_bulk_writes() {
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
