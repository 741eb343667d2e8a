// experts: the rows of an EXPERT op in the order of their experts.
//
// A pair is a row and one of its slots, numbered row * n_used + slot.  They are sorted by expert and cut into
// groups of at most so many pairs of one expert, so that a kernel reads the weights of an expert once for a
// whole group.  The sort counts and then places, by one block beside those that prepare the op's inputs: no
// launch of its own, and the host knows upper bounds only.
//
// The order of the pairs of one expert is that of atomic additions and changes from run to run; no result
// depends on it, because kernels compute the rows of a group independently of each other.
#pragma once
#include "device.cuh"
#include "launch.cuh"

struct __align__(16) ExpertGroup {
    int32_t expert, first, n, unused; // pairs pair[first..first + n)
};

struct ExpertGroups { // in device memory
    int32_t *n_groups;
    ExpertGroup *group;
    int32_t *pair;

    __device__ ExpertGroup at(int i) const {
        int4 v = __ldcg((const int4 *)(group + i));
        return {v.x, v.y, v.z, v.w};
    }
};

// The pairs of n rows, or of a product without ids, whose slot s has matrix s.
struct PairSort {
    const int32_t *ids;
    int ids_stride, n_used, n, n_expert;
    int most; // pairs of a group
    ExpertGroups out;

    __device__ int expert(int pair) const {
        int row = pair / n_used, slot = pair - row * n_used;
        return ids ? __ldcg(ids + (size_t)row * ids_stride + slot) : slot;
    }
};

inline size_t most_groups(int n_pairs, int n_expert, int most) {
    return (size_t)n_pairs / most + (n_pairs < n_expert ? n_pairs : n_expert);
}

inline size_t groups_bytes(int n_pairs, int n_expert, int most) {
    return sizeof(ExpertGroup) * (1 + most_groups(n_pairs, n_expert, most)) + sizeof(int32_t) * n_pairs;
}

// The sort of a product's first n rows, with its result at a multiple of 16 in groups_bytes of memory.
inline PairSort pair_sort(const Product &p, int n, int most, void *memory) {
    int n_pairs = n * p.n_used, n_expert = p.segment[0].w.n_expert;
    ExpertGroup *group = (ExpertGroup *)memory + 1;
    int32_t *pair = (int32_t *)(group + most_groups(n_pairs, n_expert, most));
    return {p.ids, p.ids_stride, p.n_used, n, n_expert, most, {(int32_t *)memory, group, pair}};
}

// Writes the groups of the experts that have pairs: an expert in each lane, 32 at a time.  begin[e] becomes
// the place of the first pair of expert e, of which there are count[e].
__device__ inline void cut_groups(const PairSort &sort, const int *count, int *begin) {
    int lane = threadIdx.x % 32, n_pairs = 0, n_groups = 0; // before these experts
    for (int first = 0; first < sort.n_expert; first += 32) {
        int e = first + lane, mine = e < sort.n_expert ? count[e] : 0,
            groups = (mine + sort.most - 1) / sort.most;
        int pairs_to = mine, groups_to = groups; // up to and with this lane's
#pragma unroll
        for (int offset = 1; offset < 32; offset *= 2) {
            int p = __shfl_up_sync(0xffffffffu, pairs_to, offset),
                g = __shfl_up_sync(0xffffffffu, groups_to, offset);
            if (lane >= offset) {
                pairs_to += p;
                groups_to += g;
            }
        }
        int at = n_pairs + pairs_to - mine;
        if (e < sort.n_expert) begin[e] = at;
        ExpertGroup *to = sort.out.group + n_groups + groups_to - groups;
        for (int done = 0; done < mine; done += sort.most, to++)
            *to = {e, at + done, min(mine - done, sort.most), 0};
        n_pairs += __shfl_sync(0xffffffffu, pairs_to, 31);
        n_groups += __shfl_sync(0xffffffffu, groups_to, 31);
    }
    if (lane == 0) *sort.out.n_groups = n_groups;
}

// By all threads of a block.
__device__ inline void sort_pairs(const PairSort &sort, int thread, int n_threads) {
    __shared__ int count[MAX_EXPERTS], begin[MAX_EXPERTS];
    int n_pairs = sort.n * sort.n_used;
    for (int e = thread; e < sort.n_expert; e += n_threads) count[e] = 0;
    __syncthreads();
    for (int i = thread; i < n_pairs; i += n_threads) atomicAdd(&count[sort.expert(i)], 1);
    __syncthreads();
    if (thread < 32) cut_groups(sort, count, begin);
    __syncthreads();
    for (int i = thread; i < n_pairs; i += n_threads) sort.out.pair[atomicAdd(&begin[sort.expert(i)], 1)] = i;
}
