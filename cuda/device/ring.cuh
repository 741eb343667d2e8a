// ring: a warp's private queue of copies from device memory into shared memory.
//
// Each warp has a few slots.  As soon as it has read a slot it starts the copy of the next tile into it, so
// that copies are always under way, and warps need no barrier among themselves.  On sm_90 a fetch is one bulk
// copy, started by one lane, which completes on a barrier in shared memory; before that it is a group of
// 16-byte cp.async by all lanes.
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
    static constexpr int LINE = 128; // bytes; slots begin at multiples

    int at; // in shared memory: a line of barriers [MAX_STAGES] of 8 bytes, then slots [n_stages][slot_bytes]
    int slot_bytes, n_stages, lane;
    int stage = 0, phase = 0; // of the next wait

    static __host__ __device__ constexpr int bytes(int slot_bytes, int n_stages) {
        return LINE + n_stages * slot_bytes;
    }

    // Number `number` of rings that lie one behind the other from the beginning of shared memory on.
    __device__ Ring(int number, int slot_bytes_, int n_stages_)
        : at(number * bytes(slot_bytes_, n_stages_)), slot_bytes(slot_bytes_), n_stages(n_stages_),
          lane(threadIdx.x % 32) {
#if __CUDA_ARCH__ >= 900
        if (lane < n_stages) arrival_init(barrier(lane));
        __syncwarp();
#endif
    }

    // Starts a copy into slot i, which all lanes have read, with the arguments of lane `owner`: `bytes`, a
    // multiple of 16, from `from`, which is advanced behind them.  0 bytes: the stream has ended, and no wait
    // will follow.
    __device__ void fetch(int i, int owner, const uint8_t *&from, int bytes) {
        __syncwarp();
        bool mine = lane == owner && bytes;
        uint32_t to = shared_address(slot(i));
#if __CUDA_ARCH__ >= 900
        if (mine) {
            arrival_expect(barrier(i), bytes);
            bulk_copy(to, from, bytes, barrier(i), READ_ONCE);
        }
#else
        const uint8_t *its = (const uint8_t *)__shfl_sync(0xffffffffu, (unsigned long long)from, owner);
        int n = __shfl_sync(0xffffffffu, bytes, owner);
        for (int k = lane * 16; k < n; k += 512)
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + k), "l"(its + k) : "memory");
        asm volatile("cp.async.commit_group;" ::: "memory");
#endif
        if (mine) from += bytes;
    }

    // Waits for the oldest fetch and returns its slot.
    __device__ const uint8_t *wait() {
#if __CUDA_ARCH__ >= 900
        arrival_wait(barrier(stage), phase);
#else
        switch (n_stages) { // all but n_stages - 1 groups must have arrived
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

    // To the next slot, after this one's next fetch has been started.
    __device__ void advance() {
        if (++stage == n_stages) {
            stage = 0;
            phase ^= 1;
        }
    }

  private:
    __device__ const uint8_t *slot(int i) const {
        return shared_memory() + at + LINE + i * slot_bytes;
    }
    __device__ uint32_t barrier(int i) const {
        return shared_address(shared_memory() + at) + i * 8;
    }
};
