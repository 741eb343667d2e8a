// state: what the kernels of CONV, SCAN and DELTA share: a run of rows, and the pages of its state.
//
// A step's sequences, positions, page tables and states are older than the kernel before: an op with a state
// reads them before pdl_wait, so that the state is on its way while that kernel still runs.
#pragma once
#include "device.cuh"
#include "launch.cuh"

// Run i of a launch, as a kernel sees it.
struct Run {
    int first, n;      // rows of the registers
    const float *from; // the state before the first row; NULL: zeros
    float *to;         // the state behind the last row; NULL: padding, not to be written

    // Before pdl_wait.
    __device__ Run(const Runs &runs, const CacheView &cache, int i) {
        if (runs.behind_runs) pdl_wait();
        first = runs.first ? __ldcg(runs.first + i) : i;
        n = runs.first ? __ldcg(runs.first + i + 1) - first : 1;
        int seq = __ldcg(runs.seq + first), position = __ldcg(runs.position + first);
        from = seq >= 0 && position > 0 ? state(cache, seq, position) : nullptr;
        to = seq >= 0 ? state(cache, seq, position + n) : nullptr;
    }

    // The state of a sequence behind n positions.
    static __device__ float *state(const CacheView &cache, int seq, int n) {
        return (float *)cache_page(&cache, __ldcg(cache_pages(&cache, seq) + n % cache.layer.table_pages));
    }
};
