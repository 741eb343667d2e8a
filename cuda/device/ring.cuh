// ring: a warp's private stream from device memory into shared memory.
//
// Each warp owns a few slots.  It asks for the next stretch of weights into a slot as soon as it is done with
// what was there, so that the memory never waits for arithmetic, and no other warp has to be asked.  On sm_90
// a stretch is one bulk copy, announced by one lane and completed on a barrier in shared memory; before that
// it is a group of 16-byte cp.async by all lanes.
#pragma once
#include "bulk.cuh"
#include "device.cuh"

constexpr int MAX_STAGES = 4;

// A block's dynamic shared memory.
__device__ __forceinline__ uint8_t *shared_memory() {
    extern __shared__ __align__(128) uint8_t shared[];
    return shared;
}

struct Ring {
    static constexpr int LINE = 128; // bytes of shared memory that are read and written at once

    int at; // in shared memory: barriers [MAX_STAGES] of 8 bytes, slots [n_stages][slot_bytes], both LINE by
            // LINE
    int slot_bytes, n_stages, lane;
    int stage = 0, phase = 0; // of the next wait

    static __host__ __device__ constexpr int bytes(int slot_bytes, int n_stages) {
        return LINE + n_stages * slot_bytes;
    }

    __device__ Ring(int at_, int slot_bytes_, int n_stages_)
        : at(at_), slot_bytes(slot_bytes_), n_stages(n_stages_), lane(threadIdx.x % 32) {
#if __CUDA_ARCH__ >= 900
        if (lane < n_stages) arrival_init(barrier(lane));
        __syncwarp();
#endif
    }

    // Starts to fill slot i, which nobody reads any more, with what the lane `who` says, a multiple of 16
    // bytes, and takes that lane's `from` behind them; 0 bytes: nothing more is to come, and nobody will wait
    // for it.
    __device__ void fetch(int i, int who, const uint8_t *&from, int bytes) {
        __syncwarp(); // all have read the slot
        bool mine = lane == who && bytes;
        uint32_t to = shared_address(slot(i));
#if __CUDA_ARCH__ >= 900
        if (mine) {
            arrival_expect(barrier(i), bytes);
            bulk_copy(to, from, bytes, barrier(i), READ_ONCE);
        }
#else
        const uint8_t *its = (const uint8_t *)__shfl_sync(0xffffffffu, (unsigned long long)from, who);
        int n = __shfl_sync(0xffffffffu, bytes, who);
        for (int k = lane * 16; k < n; k += 512)
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + k), "l"(its + k) : "memory");
        asm volatile("cp.async.commit_group;" ::: "memory");
#endif
        if (mine) from += bytes;
    }

    // Waits for the oldest fetch and returns its slot's bytes.
    __device__ const uint8_t *wait() {
#if __CUDA_ARCH__ >= 900
        arrival_wait(barrier(stage), phase);
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
        return slot(stage);
    }

    // After the slot's next fetch has been started: on to the other slots.
    __device__ void advance() {
        if (++stage == n_stages) stage = 0, phase ^= 1;
    }

  private:
    __device__ const uint8_t *slot(int i) const {
        return shared_memory() + at + LINE + i * slot_bytes;
    }
    __device__ uint32_t barrier(int i) const {
        return shared_address(shared_memory() + at) + i * 8;
    }
};
