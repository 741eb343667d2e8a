// work_split: how the work of products is split among clusters, blocks and warps, and what shared memory
// holds.
//
// A tile row is cut into K-slices, the same ones for any number of input rows, because the order of all
// additions follows from them.  A block computes all K-slices of a tile row; or, where so many input rows do
// not fit into its shared memory, some of them, and a cluster of blocks the tile row.
#include <algorithm>
#include <climits>

#include "../device/product.cuh"

namespace {

int ceil_div(int a, int b) {
    return (a + b - 1) / b;
}

int round_up(int a, int b) {
    return ceil_div(a, b) * b;
}

// Slots of a single row that may be summed, with all of their K-slices in one block.
int summable_slots(const Product *p) {
    return p->per_slot && p->n_used <= MAX_SUMMED ? p->n_used : 1;
}

// Chooses the number of K-slices (of a slot) for which the busiest warp has the fewest tiles, and of equal
// ones the largest: more K-slices rather than more groups of warps.  No K-slice of any segment is empty.
//  n_blocks: those of a launch for one row, as the split may not depend on the number of rows, nor on
// whether slots are summed.
void choose_slices(WorkSplit *split, const Product *p, int n_blocks) {
    int n_tiles = p->segment[0].w.layout.n_tiles, slots = summable_slots(p),
        n_tile_rows = slots > 1 ? p->segment[0].w.layout.n_tile_rows : split->n_tile_rows,
        tile_rows = ceil_div(n_tile_rows, n_blocks), fewest = 0, most = MAX_SLICES / slots;
    for (int i = 0; i < p->n_segments; i++) most = std::min(most, p->segment[i].w.layout.n_tiles);
    for (int n = 1; n <= most; n++) {
        int slice_tiles = ceil_div(n_tiles, n), slices = ceil_div(n_tiles, slice_tiles),
            groups = MAX_SLICES / (slices * slots), tiles = ceil_div(tile_rows, groups) * slice_tiles;
        if (fewest && tiles > fewest) continue;
        fewest = tiles;
        split->slot_slices = slices;
    }
    for (int i = 0; i < p->n_segments; i++) {
        int tiles = p->segment[i].w.layout.n_tiles;
        split->slice_tiles[i] = tiles / split->slot_slices;
        split->n_longer_slices[i] = tiles % split->slot_slices;
    }
    split->n_slices = split->slot_slices * (p->summed ? slots : 1);
}

// Clusters of cluster_size blocks among which n_tile_rows are divided.
int clusters_for(const Launch *l, int n_tile_rows, int n_blocks, int cluster_size) {
    return cluster_size == 1 ? n_blocks : std::min(n_tile_rows, l->n_clusters[cluster_size]);
}

// The split of a product for T input rows at once and clusters of cluster_size blocks; without the tile
// batches. n_groups is 0 where a block has more K-slices than warps.
WorkSplit split_product(const Launch *l, const Product *p, int n_blocks, int T, int cluster_size) {
    WorkSplit split = {};
    int slots = p->n_used && !p->summed ? p->n_used : 1;
    for (int i = 0; i < p->n_segments; i++) {
        const Layout &at = p->segment[i].w.layout;
        if (i == 0 || !is_pair(*p)) split.n_tile_rows += slots * at.n_tile_rows;
        if (quant_traits(p->segment[i].w.type)->act == QUANT_ACT_Q8)
            split.n_tiles = at.n_tiles;
        else
            split.n_floats = std::max(split.n_floats, at.n_tiles * at.tile_weights);
    }
    choose_slices(&split, p, n_blocks);
    split.block_slices = ceil_div(split.n_slices, cluster_size);
    if (cluster_size > 1) { // a block has the input of its K-slices alone; that of rank 0 is the longest
        int tiles = split.block_slices * split.slice_tiles[0] +
                    std::min(split.block_slices, (int)split.n_longer_slices[0]);
        split.n_tiles = split.n_tiles ? tiles : 0;
        split.n_floats = split.n_floats ? tiles * p->segment[0].w.layout.tile_weights : 0;
    }
    int n_clusters = clusters_for(l, split.n_tile_rows, n_blocks, cluster_size);
    split.cluster_tile_rows = split.n_tile_rows / n_clusters;
    split.n_longer = split.n_tile_rows % n_clusters;
    split.n_groups = warps_for(T) / split.block_slices;
    if (split.n_groups == 0) return split;
    split.slice_inverse = (65536u + split.block_slices - 1) / split.block_slices;
    split.group_inverse = (65536u + split.n_groups - 1) / split.n_groups;
    return split;
}

// Dynamic shared memory that a block of T input rows may take.
size_t shared_for(const Launch *l, int T) {
    // Static shared memory of the kernels.
    size_t fixed = sizeof(Chosen) + 256 + (T == 1 ? sizeof(FusedProducts) : 0);
    bool beside_attention = T == 1 && l->dependent && l->shared_max > 3 * ATTN_SHARED;
    return l->shared_max - fixed - (beside_attention ? ATTN_SHARED : 0);
}

// K-slices of a product in a warp's prefetch list, at most, and tiles of one entry, at most and at least; of
// a pair, both K-slices are one entry of `most` tiles.
struct ListLength {
    int slices, most, least;
};

ListLength list_length(const Product *p, const WorkSplit *split) {
    int tile_rows = ceil_div(split->cluster_tile_rows + (split->n_longer > 0), split->n_groups);
    ListLength length = {tile_rows * (is_pair(*p) ? 2 : 1), 0, split->slice_tiles[0]};
    for (int i = 0; i < p->n_segments; i++) {
        int most = split->slice_tiles[i] + (split->n_longer_slices[i] > 0);
        length.most = is_pair(*p) ? length.most + most : std::max(length.most, most);
        length.least = std::min(length.least, (int)split->slice_tiles[i]);
    }
    return length;
}

// Shortens the tile batches where a warp may have more K-slices than its prefetch list has entries, so that a
// filled list lasts for any batch; false where not even the shortest batch is short enough.
bool shorten_batches(FusedProducts *fused) {
    int slices = 0, least = INT_MAX;
    for (int i = 0; i < fused->n; i++) {
        ListLength length = list_length(&fused->p[i], &fused->split[i]);
        slices += length.slices;
        least = std::min(least, length.least);
    }
    fused->long_list = fused->group_rows || slices > LIST_ENTRIES;
    for (int i = 0; fused->long_list && i < fused->n; i++) {
        WorkSplit *split = &fused->split[i];
        int times = (LIST_ENTRIES - MAX_STAGES) * least / list_length(&fused->p[i], split).most;
        if (times == 0) return false;
        split->batch = std::min(split->batch, times * split->n_groups);
    }
    return true;
}

// Whether a block has a warp for each of its K-slices, each block of a cluster has a K-slice, and the tiles
// of all segments cover the same ranges of the input.
bool is_possible(const Product *p, const WorkSplit *split, int T, int cluster_size) {
    if (split->block_slices > warps_for(T) || (cluster_size - 1) * split->block_slices >= split->n_slices)
        return false;
    for (int i = 1; cluster_size > 1 && i < p->n_segments; i++)
        if (p->segment[i].w.layout.tile_weights != p->segment[0].w.layout.tile_weights) return false;
    return cluster_size == 1 || !split->n_floats || !split->n_tiles;
}

// Tile rows of a product's tile batch, given `bytes` of shared memory for a copy of its partial sums.
void choose_batch(WorkSplit *split, int tile_row_bytes, size_t bytes, int most) {
    split->batch = std::min((int)bytes / tile_row_bytes, most);
    split->batch -= split->batch % split->n_groups;
    if (split->batch == 0) split->batch = std::min(split->n_groups, most);
    split->group_batch = ceil_div(split->batch, split->n_groups);
}

// Input rows of a product in a block's shared memory: for a row of its own all slots' inputs.
int rows_in_block(const FusedProducts *fused, const Product *p, int T) {
    if (fused->group_rows) return fused->group_rows;
    return T == 1 && p->per_slot ? p->n_used : T;
}

// Products with the same input have it in shared memory in all the forms that one of them needs.
void share_forms(FusedProducts *fused) {
    for (int last = fused->n - 1, first; last > 0; last = first - 1) {
        WorkSplit *split = fused->split;
        for (first = last; fused->p[first].same_input; first--) {
            split[first - 1].n_floats = std::max(split[first - 1].n_floats, split[first].n_floats);
            split[first - 1].n_tiles = std::max(split[first - 1].n_tiles, split[first].n_tiles);
        }
        for (int i = first + 1; i <= last; i++) {
            split[i].n_floats = split[first].n_floats;
            split[i].n_tiles = split[first].n_tiles;
        }
    }
}

// Splits all products for T input rows at once and divides the shared memory of a block.  The bytes of shared
// memory; 0 where it does not suffice, or where the products' rows are too unlike for one kernel or for a
// cluster.
size_t split_all(const Launch *l, FusedProducts *fused, int n_blocks, int T, int cluster_size) {
    size_t most = shared_for(l, T), input = 0;
    fused->slot_bytes = 0;
    fused->partial_bytes = 0;
    for (int i = 0; i < fused->n; i++) {
        const Product *p = &fused->p[i];
        WorkSplit *split = &fused->split[i];
        *split = split_product(l, p, n_blocks, T, cluster_size);
        if (!is_possible(p, split, T, cluster_size)) return 0;
        for (int s = 0; s < p->n_segments; s++)
            fused->slot_bytes =
                std::max(fused->slot_bytes, round_up(p->segment[s].w.layout.tile_bytes, Ring::LINE));
    }
    share_forms(fused);
    for (int i = 0; i < fused->n; i++) {
        const Product *p = &fused->p[i];
        WorkSplit *split = &fused->split[i];
        size_t row = input_at(0, split->n_floats, split->n_tiles, 1).stride;
        input = std::max(input, row * rows_in_block(fused, p, T));
    }
    size_t kept = T == 1 ? fused->n_kept * kept_stride(fused->kept_width) : 0;
    auto rings = [&](int n_stages) { return warps_for(T) * Ring::bytes(fused->slot_bytes, n_stages); };
    auto rings_and_input = [&](int n_stages) { return input + kept + rings(n_stages); };
    // Batches of one input row are short, because the next one begins while the last one is reduced; with
    // several rows all warps wait there, and a batch is as long as shared memory allows.
    size_t rest = most - std::min(most, rings_and_input(MIN_STAGES)),
           batch_bytes = T == 1 ? std::clamp(rest / partial_copies(T), most / 88, most / 22) : rest;
    int longest =
        T == 1 ? THREADS / TILE_ROWS : 8; // a thread has one output; enough for all threads of a cluster
    for (int i = 0; i < fused->n; i++) {
        WorkSplit *split = &fused->split[i];
        int stride = T == 1 ? PARTIAL_STRIDE<1> : PARTIAL_STRIDE<MAX_INPUT_ROWS>;
        int tile_row_bytes =
            (is_pair(fused->p[i]) ? 2 : 1) * split->block_slices * T * stride * (int)sizeof(float);
        choose_batch(split, tile_row_bytes, batch_bytes, longest);
        fused->partial_bytes =
            std::max(fused->partial_bytes, split->group_batch * split->n_groups * tile_row_bytes);
    }
    if (fused->router >= 0) // the scores of its experts are there for a while
        fused->partial_bytes =
            std::max(fused->partial_bytes, round_up(score_floats(fused->route.moe) * (int)sizeof(float), 16));
    size_t partials = partial_copies(T) * fused->partial_bytes;
    if (rings_and_input(1) + partials > most || !shorten_batches(fused)) return 0;
    fused->n_stages = 1;
    while (fused->n_stages < MAX_STAGES && rings_and_input(fused->n_stages + 1) + partials <= most)
        fused->n_stages++;
    fused->partials = rings(fused->n_stages);
    fused->kept = fused->partials + (int)partials;
    fused->input = fused->kept + (int)kept;
    return fused->input + input;
}

int fewer_rows(int n_rows) {
    return n_rows == 4 ? 1 : n_rows / 2;
}

// Finds the most input rows, in the smallest clusters, that leave each ring n_stages; 0 where not even 4 rows
// do.
size_t find_rows(const Launch *l, FusedProducts *fused, int n_blocks, int most, int n_stages, int *n_rows) {
    for (*n_rows = most; *n_rows > 1; *n_rows = fewer_rows(*n_rows))
        for (int size = 1; size == 1 || (size <= MAX_CLUSTER && l->n_clusters[size]); size *= 2) {
            fused->cluster_size = size;
            size_t shared = split_all(l, fused, n_blocks, *n_rows, size);
            if (shared && fused->n_stages >= n_stages) return shared;
        }
    return 0;
}

// Finds the most rows of a group that leave each ring n_stages; 0 where there is no room for two.  The kernel
// reads all of MAX_GROUP_ROWS rows of floats.
size_t find_groups(const Launch *l, FusedProducts *fused, int n_blocks, int n_stages) {
    fused->cluster_size = 1;
    for (fused->group_rows = MAX_GROUP_ROWS; fused->group_rows > 1; fused->group_rows /= 2) {
        size_t shared = split_all(l, fused, n_blocks, MAX_GROUP_ROWS, 1);
        bool fits = shared && fused->n_stages >= n_stages;
        if (fits && (fused->group_rows == MAX_GROUP_ROWS || !fused->split[0].n_floats)) return shared;
    }
    return fused->group_rows = 0;
}

} // namespace

bool plan_launch(const Launch *l, FusedProducts *fused, int T, LaunchPlan *out) {
    const Product *p = &fused->p[0];
    int tile_rows = 0, most = MAX_INPUT_ROWS, n_rows = 1;
    for (int i = 0; i < fused->n; i++)
        tile_rows = std::max(tile_rows, split_product(l, &fused->p[i], l->n_sm, 1, 1).n_tile_rows);
    while (most > 1 && fewer_rows(most) >= T) most = fewer_rows(most);
    int n_blocks = fused->n > 1 ? l->n_sm : std::min(tile_rows, l->n_sm);
    size_t shared = 0;
    for (int stages = MIN_STAGES; stages > 0 && most > 1 && !shared; stages--)
        shared = p->n_used ? find_groups(l, fused, n_blocks, stages)
                           : find_rows(l, fused, n_blocks, most, stages, &n_rows);
    if (!shared && p->n_used <= MAX_CHOSEN) {
        n_rows = fused->cluster_size = 1;
        shared = split_all(l, fused, n_blocks, 1, 1);
    }
    if (!shared && p->n_used) // the inputs of all slots do not fit, but those of some
        shared = find_groups(l, fused, n_blocks, 1);
    if (fused->group_rows) n_rows = MAX_GROUP_ROWS;
    WorkSplit whole = split_product(l, p, n_blocks, 1, 1); // all of the input in one block
    int n_clusters =
        fused->group_rows ? l->n_sm : clusters_for(l, whole.n_tile_rows, n_blocks, fused->cluster_size);
    *out = {n_rows, n_clusters, shared, input_at(0, whole.n_floats, whole.n_tiles, 1)};
    return shared > 0;
}

extern "C" bool product_fits(const Launch *l, const Product *p) {
    FusedProducts alone = {};
    LaunchPlan ignored;
    alone.p[0] = *p;
    alone.n = 1;
    alone.router = -1;
    return plan_launch(l, &alone, 1, &ignored);
}

// A row that is kept in both forms is the largest.
extern "C" size_t product_scratch_bytes(const Product *p) {
    size_t n = round_up(p->segment[0].w.n_in, TILE_CHUNKS * CHUNK_WEIGHTS),
           n_tiles = n / (TILE_CHUNKS * CHUNK_WEIGHTS),
           rows = PREPARED_ROWS * (size_t)(p->per_slot ? p->n_used : 1);
    return rows * (n * sizeof(float) + n_tiles * sizeof(TileInput) + INPUT_PADDING) +
           groups_bytes(PREPARED_ROWS * p->n_used, p->segment[0].w.n_expert, 2);
}
