// product: how products are described to their kernels, and how their work is split (work_split.cu).
//
// The words, of which product.cu has a picture: a tile row is a row of tiles, 16 outputs (layout.h); a
// K-slice is some consecutive tiles of it; a partial sum is what a K-slice gives; a cluster is the one, two
// or four blocks that compute a tile row; a tile batch is what a cluster multiplies between two reductions.
#pragma once
#include <type_traits>

#include "experts.cuh"
#include "input.cuh"
#include "route.cuh"
#include "tile.cuh"

constexpr int MAX_INPUT_ROWS = 32; // of one launch: there are kernels for 1, 4, 8, 16 and 32
constexpr int PREPARED_ROWS = 64;  // rows that one launch of k_inputs normalises and quantises
constexpr int MAX_GROUP_ROWS = 8;  // input rows of an expert that are multiplied together
constexpr int MAX_SLICES = 16;     // K-slices of a tile row
constexpr int MIN_STAGES = 2;      // of a warp's ring, where there is a choice
constexpr int LIST_ENTRIES = 32;   // K-slices in a warp's prefetch list: one in each lane

// Warps of a block: the sums of 16 or 32 input rows take more registers than a thread of 16 warps can have.
__host__ __device__ constexpr int warps_for(int T) {
    return T < 16 ? 16 : 8;
}
__host__ __device__ constexpr int threads_for(int T) {
    return warps_for(T) * 32;
}
static_assert(threads_for(1) == THREADS, "load_row is written for blocks of THREADS threads");

// Copies of the partial sums in shared memory.  With two of them a warp starts on the next tile batch while
// other warps still read the partial sums of the last one.
__host__ __device__ constexpr int partial_copies(int T) {
    return T == 1 ? 2 : 1;
}

// The experts of a single row, in shared memory.
constexpr int MAX_CHOSEN = 64;
struct Chosen {
    int id[MAX_CHOSEN];
    float weight[MAX_CHOSEN];
};

// The work of one product, split by the host, because division is slow on the device.
struct WorkSplit {
    int n_tile_rows;                           // of the product
    int n_slices;                              // K-slices of a tile row
    int slot_slices;                           // of one slot, where slots are summed; otherwise n_slices
    int block_slices;                          // K-slices of a tile row that a block computes
    int n_groups;                              // groups of block_slices warps in a block
    int cluster_tile_rows;                     // tile rows of a cluster
    int n_longer;                              // the first n_longer clusters have one tile row more
    unsigned slice_inverse;                    // n / block_slices = n * slice_inverse >> 16 for small n
    unsigned group_inverse;                    // n / n_groups
    uint16_t slice_tiles[OP_MAX_SEGMENTS];     // tiles of a K-slice
    uint16_t n_longer_slices[OP_MAX_SEGMENTS]; // the first n_longer_slices K-slices have one tile more
    int batch;                                 // tile rows of a tile batch
    int group_batch;                           // tile rows of a tile batch that a group of warps computes
    int n_tiles, n_floats; // of an input row in a block's shared memory; 0: not in this form
};

// A launch: one product of several rows, or the products of a fusion, so that the prefetching of weights
// continues from one product to the next.  There is no barrier over the grid: an output is passed on as a
// FlaggedOutput, which the blocks of the next product poll.  When a block has read its whole input, all
// blocks that compute a part of it have finished that product.
struct LaunchShape {
    int n, n_rows, cluster_size; // n: products
    int group_rows;              // several rows of a product of experts: at most so many are a group; 0: none
    ExpertGroups groups;
    const uint8_t *inputs; // of several rows: what k_inputs wrote, input_stride bytes from row to row
    int input_stride;
    int slot_bytes, n_stages;  // of a warp's ring
    int partial_bytes;         // of one copy of the partial sums
    int partials, kept, input; // where these begin in shared memory, behind the rings: bytes
    bool long_list;            // a warp may have more K-slices than its prefetch list has entries
};

// How the experts of a fusion are found, as in Fusion.
struct ExpertChoice {
    Route route;
    int router, first_expert; // the first product of experts, or n
};
template <int N> struct None {};

// Parameters of a kernel take time, so that one for products without experts has room for fewer.
constexpr int MAX_PLAIN = 4; // products of a fusion without experts
template <int N>
struct alignas(16) Fused : LaunchShape,
                           std::conditional_t<(N > 1), KeptRows, None<0>>,
                           std::conditional_t<(N > MAX_PLAIN), ExpertChoice, None<1>> {
    Product p[N];
    WorkSplit split[N];
};
using FusedProducts = Fused<MAX_PRODUCTS>;
static_assert(sizeof(FusedProducts) <= 4096, "compilers before CUDA 12.1 allow no more parameters");

// The same, with as many products as F has room for.
template <class F> F first_products(const FusedProducts &from) {
    constexpr int N = sizeof(F::p) / sizeof(Product);
    F to;
    (LaunchShape &)to = from;
    if constexpr (N > 1) (KeptRows &)to = from;
    if constexpr (N > MAX_PLAIN) (ExpertChoice &)to = from;
    for (int i = 0; i < N; i++) {
        to.p[i] = from.p[i];
        to.split[i] = from.split[i];
    }
    return to;
}

struct LaunchPlan {
    int n_rows, n_clusters; // input rows of a launch; clusters, or blocks that are clusters by themselves
    size_t shared_bytes;    // of a block
    Input row;              // of a whole input row, as k_inputs writes it
};

// Splits the work of fused products, of which p and n are given, for launches of as many of T rows as shared
// memory allows.  false: it does not suffice for one row, or the products are too unlike for one kernel.
bool plan_launch(const Launch *l, FusedProducts *fused, int T, LaunchPlan *out);
