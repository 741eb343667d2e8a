// ring: a warp's private stream from device memory into shared memory.
//
// Each warp owns a few slots.  It asks for the next stretch of weights into a slot as soon as it is done with
// what was there, so that the memory never waits for arithmetic, and no other warp has to be asked.  On sm_90
// a stretch is one bulk copy, announced by one lane and completed on a barrier in shared memory; before that
// it is a group of 16-byte cp.async by all lanes.
#pragma once
#include "device.cuh"

constexpr int MAX_STAGES = 4;

struct Ring {
    uint8_t *slots;     // [n_stages][slot_bytes], shared
    uint64_t *barriers; // [n_stages], shared
    int slot_bytes, n_stages, lane;
    int stage = 0, phase = 0; // of the next wait

    __device__ Ring(uint8_t *slots_, uint64_t *barriers_, int slot_bytes_, int n_stages_)
        : slots(slots_), barriers(barriers_), slot_bytes(slot_bytes_), n_stages(n_stages_),
          lane(threadIdx.x % 32) {
#if __CUDA_ARCH__ >= 900
        if (lane < n_stages)
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(address(barriers + lane)));
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        __syncwarp();
#endif
    }

    static __device__ uint32_t address(const void *p) {
        return (uint32_t)__cvta_generic_to_shared(p);
    }

    // Starts to fill slot i, which nobody reads any more, with what the lane `who` says, a multiple of 16
    // bytes; 0 bytes: nothing more is to come, and nobody will wait for it.
    __device__ void fetch(int i, int who, const uint8_t *from, int bytes) {
        __syncwarp(); // all have read the slot
        uint32_t to = address(slots + i * slot_bytes);
#if __CUDA_ARCH__ >= 900
        if (lane == who && bytes) {
            uint32_t barrier = address(barriers + i);
            asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                         : "memory");
            asm volatile(
                "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
                    "r"(to),
                "l"(from), "r"(bytes), "r"(barrier)
                : "memory");
        }
#else
        from = (const uint8_t *)__shfl_sync(0xffffffffu, (unsigned long long)from, who);
        bytes = __shfl_sync(0xffffffffu, bytes, who);
        for (int k = lane * 16; k < bytes; k += 512)
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + k), "l"(from + k) : "memory");
        asm volatile("cp.async.commit_group;" ::: "memory");
#endif
    }

    // Waits for the oldest fetch and returns its slot's bytes.
    __device__ const uint8_t *wait() {
#if __CUDA_ARCH__ >= 900
        asm volatile(
            "{\n.reg .pred p;\nWAIT:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra "
            "WAIT;\n}" ::"r"(address(barriers + stage)),
            "r"(phase)
            : "memory");
#else
        switch (n_stages) { // groups that may still be under way
        case 1:
            asm volatile("cp.async.wait_group 0;" ::: "memory");
            break;
        case 2:
            asm volatile("cp.async.wait_group 1;" ::: "memory");
            break;
        case 3:
            asm volatile("cp.async.wait_group 2;" ::: "memory");
            break;
        default:
            asm volatile("cp.async.wait_group 3;" ::: "memory");
        }
        __syncwarp();
#endif
        return slots + stage * slot_bytes;
    }

    // After the slot's next fetch has been started: on to the other slots.
    __device__ void advance() {
        if (++stage == n_stages) stage = 0, phase ^= 1;
    }
};
