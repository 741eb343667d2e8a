// product: how products are described to their kernels, and how the work is cut (work_split.cu).
#pragma once
#include "input.cuh"
#include "tile.cuh"

constexpr int ROWS_MAX = 32; // of the instances of the kernel: for 1, 4, 8, 16, 32 rows at once
constexpr int MAX_SLICES = 16;
// Of a block: the sums of many rows take more registers than half a block's threads may have.
__host__ __device__ constexpr int warps_for(int T) {
    return T < 16 ? 16 : 8;
}
__host__ __device__ constexpr int threads_for(int T) {
    return warps_for(T) * 32;
}
static_assert(threads_for(1) == THREADS, "input.cuh's");
// How often a block has its parts: twice, and a round need not wait until all have written the one before.
__host__ __device__ constexpr int parts_for(int T) {
    return T == 1 ? 2 : 1;
}
constexpr int MIN_STAGES = 2; // of a ring, where there is a choice
constexpr int LISTED = 32;    // slices that a warp lists at a time

// How the work is cut; the host decides.  Division is slow on the device, so it is done here.
struct Cut {
    int units, all_slices;        // of the product; of a unit
    int n_slices, n_groups;       // of a block: n_slices * n_groups <= warps_for(T)
    int per_block, n_longer;      // units of a block, or a cluster; the first n_longer have one more
    unsigned slice_inverse;       // of n_slices: n / n_slices = n * slice_inverse >> 16 for small n
    unsigned group_inverse;       // of n_groups
    int per_slice[3], n_wider[3]; // tiles of a slice, by segment; the first n_wider slices have one more
    int round;                    // units of a block between two additions
    int per_group;                // and of a group
    int n_tiles, n_floats; // of an input row or its longest piece, filled up to whole tiles; 0: not wanted
};

// Products of which each has the one before it as its input.  They run as one kernel, so that the rings run
// on over the boundaries.  Nobody waits for all: an output goes on as a number whose lowest bit tells whether
// it is there (Link in launch.h), and who needs it looks until it is.  A block that has its whole input knows
// that all blocks are done with the product before.
struct Chain {
    Product p[MAX_PRODUCTS];
    Cut cut[MAX_PRODUCTS];
    int n, n_rows, n_pieces;
    const uint8_t *inputs; // of several rows, as k_inputs leaves them, input_stride bytes apart
    int input_stride;
    int slot_bytes, n_stages; // of a warp's ring
    int parts_bytes;          // of one round
    bool many_slices;         // a warp may have more than it lists
};

// How a launch goes on.
struct Cutting {
    int at_once, n_teams; // rows; blocks, or clusters
    size_t shared;        // bytes of a block
    Input row;            // of the input, whole
};

// Cuts the products of a chain (p and n are there) for T rows: as many at once as there is room for.  false:
// not even one fits, or the chain is too long for one kernel.
bool cut_products(const Launch *l, Chain *chain, int T, Cutting *out);
