// bulk: copies from device to shared memory that the hardware makes by itself (sm_90), and the barriers in
// shared memory on which they arrive.
#pragma once
#include <cstdint>
#include <cuda_runtime.h>

__device__ __forceinline__ uint32_t shared_address(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

#if __CUDA_ARCH__ >= 900
// L2 policies, as createpolicy.fractional makes them of evict_first and evict_normal: what is read once makes
// room for its like, not for what blocks tell each other.
constexpr uint64_t READ_ONCE = 0x12F0000000000000, READ_OFTEN = 0x1000000000000000;

// One thread makes the barrier, before any copy is announced; the block waits no sooner than it is made.
__device__ __forceinline__ void arrival_init(uint32_t barrier) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barrier) : "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// So many bytes will come next.
__device__ __forceinline__ void arrival_expect(uint32_t barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

// Starts a copy of a multiple of 16 bytes between places at multiples of 16.
__device__ __forceinline__ void bulk_copy(uint32_t to, const uint8_t *from, int bytes, uint32_t barrier,
                                          uint64_t policy) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
        "[%1], %2, [%3], %4;" ::"r"(to),
        "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
        : "memory");
}

// phase: 0 for the first bytes announced, 1 for the next, 0 ...
__device__ __forceinline__ void arrival_wait(uint32_t barrier, int phase) {
    asm volatile(
        "{\n.reg .pred p;\nWAIT:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra "
        "WAIT;\n}" ::"r"(barrier),
        "r"(phase)
        : "memory");
}
#endif
