// ring: a warp's private stream from device memory into shared memory.
//
// Each warp owns STAGES slots.  It asks for the next stretch of weights into a slot as soon as it is done
// with what was there, so that the memory never waits for arithmetic, and no other warp has to be asked.  On
// sm_90 a stretch is one bulk copy, announced by one lane and completed on a barrier in shared memory; before
// that it is a group of 16-byte cp.async by all lanes.
#pragma once
#include "device.cuh"

template <int STAGES> struct Ring {
    uint8_t *slots;     // [STAGES][slot_bytes], shared
    uint64_t *barriers; // [STAGES], shared
    uint32_t slot_bytes;
    int lane;
    int stage = 0, phase = 0; // of the next wait

    __device__ Ring(uint8_t *slots_, uint64_t *barriers_, uint32_t slot_bytes_)
        : slots(slots_), barriers(barriers_), slot_bytes(slot_bytes_), lane(threadIdx.x % 32) {
#if __CUDA_ARCH__ >= 900
        if (lane == 0) {
            for (int i = 0; i < STAGES; i++)
                asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(address(barriers + i)));
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        }
        __syncwarp();
#endif
    }

    static __device__ uint32_t address(const void *p) {
        return (uint32_t)__cvta_generic_to_shared(p);
    }

#if __CUDA_ARCH__ >= 900
    // One lane says how many bytes slot i is about to get, and then copies them there in one or more pieces,
    // each of a multiple of 16 bytes; 0 bytes mean that nobody will wait for the slot.
    __device__ void expect(int i, uint32_t bytes) {
        if (bytes)
            asm volatile(
                "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address(barriers + i)),
                "r"(bytes)
                : "memory");
    }
    __device__ void copy(int i, uint32_t offset, const uint8_t *from, uint32_t bytes) {
        if (bytes)
            asm volatile(
                "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
                    "r"(address(slots + i * slot_bytes + offset)),
                "l"(from), "r"(bytes), "r"(address(barriers + i))
                : "memory");
    }
#else
    // All lanes copy their share; commit ends what belongs to one slot.
    __device__ void copy(int i, uint32_t offset, const uint8_t *from, uint32_t bytes) {
        for (uint32_t k = lane * 16; k < bytes; k += 512)
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                             address(slots + i * slot_bytes + offset + k)),
                         "l"(from + k)
                         : "memory");
    }
    __device__ void commit() {
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
#endif

    // Waits for the oldest fetch and returns its slot's bytes.
    __device__ const uint8_t *wait() {
#if __CUDA_ARCH__ >= 900
        asm volatile(
            "{\n.reg .pred p;\nWAIT:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra "
            "WAIT;\n}" ::"r"(address(barriers + stage)),
            "r"(phase)
            : "memory");
#else
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 1) : "memory");
        __syncwarp();
#endif
        return slots + stage * slot_bytes;
    }

    // After the slot's next fetch has been started: on to the other slots.
    __device__ void advance() {
        if (++stage == STAGES) stage = 0, phase ^= 1;
    }
};
