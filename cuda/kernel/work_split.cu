// work_split: how the work of products is divided among blocks and warps, and what each finds in shared memory.
//
// A row of weights is cut into slices, the same for any number of input rows, as the order of all additions
// follows from them.  A block takes all slices of a unit or, where so many input rows are too long for its
// memory, some of them, and a cluster of blocks the unit.
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

// The slices that keep the busiest warp's steps fewest; more slices rather than more groups.  No slice of any
// segment is empty.  n_blocks: that would be there for one row, as what is added up in which order is the
// same for any.
void cut_rows(Cut *cut, const Product *p, int n_blocks) {
    int n_tiles = p->segment[0].w.layout.n_tiles, units = ceil_div(cut->units, n_blocks), best = 0,
        most = MAX_SLICES;
    for (int i = 0; i < p->n_segments; i++) most = std::min(most, p->segment[i].w.layout.n_tiles);
    for (int n = 1; n <= most; n++) {
        int per_slice = ceil_div(n_tiles, n), slices = ceil_div(n_tiles, per_slice),
            groups = MAX_SLICES / slices;
        int steps = ceil_div(units, groups) * per_slice;
        if (best && steps > best) continue;
        best = steps, cut->all_slices = slices;
    }
    for (int i = 0; i < p->n_segments; i++) {
        int tiles = p->segment[i].w.layout.n_tiles;
        cut->per_slice[i] = tiles / cut->all_slices, cut->n_wider[i] = tiles % cut->all_slices;
    }
}

// How many there are to share the units: blocks, or clusters of n_pieces blocks.
int n_teams_of(const Launch *l, int units, int n_blocks, int n_pieces) {
    return n_pieces == 1 ? n_blocks : std::min(units, l->n_clusters[n_pieces]);
}

// For clusters of n_pieces blocks and T rows at once.
Cut cut_of(const Launch *l, const Product *p, int n_blocks, int T, int n_pieces) {
    Cut cut = {};
    int slots = p->ids ? p->n_used : 1;
    for (int i = 0; i < p->n_segments; i++) {
        const Layout &at = p->segment[i].w.layout;
        if (i == 0 || !p->glu) cut.units += slots * at.n_tile_rows;
        if (quant_traits(p->segment[i].w.type)->act == QUANT_ACT_Q8)
            cut.n_tiles = at.n_tiles;
        else
            cut.n_floats = std::max(cut.n_floats, at.n_tiles * at.tile_weights);
    }
    cut_rows(&cut, p, n_blocks);
    cut.n_slices = ceil_div(cut.all_slices, n_pieces);
    if (n_pieces > 1) { // the first is the longest
        int tiles = cut.n_slices * cut.per_slice[0] + std::min(cut.n_slices, cut.n_wider[0]);
        cut.n_tiles = cut.n_tiles ? tiles : 0;
        cut.n_floats = cut.n_floats ? tiles * p->segment[0].w.layout.tile_weights : 0;
    }
    int n_teams = n_teams_of(l, cut.units, n_blocks, n_pieces);
    cut.per_block = cut.units / n_teams, cut.n_longer = cut.units % n_teams;
    cut.n_groups = warps_for(T) / cut.n_slices;
    if (cut.n_groups == 0) return cut;
    cut.slice_inverse = (65536u + cut.n_slices - 1) / cut.n_slices;
    cut.group_inverse = (65536u + cut.n_groups - 1) / cut.n_groups;
    return cut;
}

// The shared memory of a block of T rows, but for a little that is static.
size_t room(const Launch *l, int T) {
    constexpr size_t fixed = 256;
    bool shares = T == 1 && l->dependent && l->shared_max > 3 * ATTN_SHARED;
    return l->shared_max - fixed - (shares ? ATTN_SHARED : 0);
}

// What a warp lists of a product at most: slices, and their tiles at most and at least; of a pair, both.
struct Extent {
    int slices, most, least;
};

Extent extent_of(const Product *p, const Cut *cut) {
    Extent e = {ceil_div(cut->per_block + (cut->n_longer > 0), cut->n_groups) * (p->glu ? 2 : 1), 0,
                cut->per_slice[0]};
    for (int i = 0; i < p->n_segments; i++) {
        int most = cut->per_slice[i] + (cut->n_wider[i] > 0);
        e.most = p->glu ? e.most + most : std::max(e.most, most);
        e.least = std::min(e.least, cut->per_slice[i]);
    }
    return e;
}

// Shortens the rounds where a warp may have more slices than it lists, so that what it has listed lasts for
// any; whether that could be done.
bool cut_rounds(Chain *chain) {
    int slices = 0, least = INT_MAX;
    for (int i = 0; i < chain->n; i++) {
        Extent e = extent_of(&chain->p[i], &chain->cut[i]);
        slices += e.slices, least = std::min(least, e.least);
    }
    chain->many_slices = slices > LISTED;
    for (int i = 0; chain->many_slices && i < chain->n; i++) {
        Cut *cut = &chain->cut[i];
        int times = (LISTED - MAX_STAGES) * least / extent_of(&chain->p[i], cut).most;
        if (times == 0) return false;
        cut->round = std::min(cut->round, times * cut->n_groups);
    }
    return true;
}

// Whether a block has a warp for each of its slices, and no piece is without one; and the tiles of all
// matrices lie side by side.
bool has_pieces(const Product *p, const Cut *cut, int T, int n_pieces) {
    if (cut->n_slices > warps_for(T) || (n_pieces - 1) * cut->n_slices >= cut->all_slices) return false;
    for (int i = 1; n_pieces > 1 && i < p->n_segments; i++)
        if (p->segment[i].w.layout.tile_weights != p->segment[0].w.layout.tile_weights) return false;
    return n_pieces == 1 || !cut->n_floats || !cut->n_tiles;
}

// Cuts all products for T rows at once and divides what shared memory there is; 0 where it does not suffice,
// or where the products' rows are too unlike for one kernel or cannot be cut into pieces.
size_t cut_chain(const Launch *l, Chain *chain, int n_blocks, int T, int n_pieces) {
    size_t most = room(l, T), input = 0;
    chain->slot_bytes = chain->parts_bytes = 0;
    for (int i = 0; i < chain->n; i++) {
        const Product *p = &chain->p[i];
        Cut *cut = &(chain->cut[i] = cut_of(l, p, n_blocks, T, n_pieces));
        if (!has_pieces(p, cut, T, n_pieces)) return 0;
        for (int s = 0; s < p->n_segments; s++)
            chain->slot_bytes =
                std::max(chain->slot_bytes, round_up(p->segment[s].w.layout.tile_bytes, Ring::LINE));
        input = std::max(input, (size_t)input_at(0, cut->n_floats, cut->n_tiles).stride * T *
                                    (p->per_slot ? p->n_used : 1));
    }
    auto others = [&](int n_stages) {
        return input + warps_for(T) * Ring::bytes(chain->slot_bytes, n_stages);
    };
    // A round of one row is short, as the next is under way when it ends; else all wait there.
    size_t short_round = most / 22, rest = most - std::min(most, others(MIN_STAGES));
    for (int i = 0; i < chain->n; i++) {
        const Product *p = &chain->p[i];
        Cut *cut = &chain->cut[i];
        int part_row = T == 1 ? PART_ROW<1> : PART_ROW<ROWS_MAX>;
        int unit = (p->glu ? 2 : 1) * cut->n_slices * T * part_row * (int)sizeof(float);
        int outputs = T == 1 ? THREADS / TILE_ROWS : 8; // units: a thread's, or enough
        cut->round = std::min((int)(T == 1 ? short_round : rest) / unit, outputs);
        cut->round -= cut->round % cut->n_groups;
        if (cut->round == 0) cut->round = std::min(cut->n_groups, outputs);
        cut->per_group = ceil_div(cut->round, cut->n_groups);
        chain->parts_bytes = std::max(chain->parts_bytes, cut->per_group * cut->n_groups * unit);
    }
    size_t parts = parts_for(T) * chain->parts_bytes;
    if (others(1) + parts > most || !cut_rounds(chain)) return 0;
    for (chain->n_stages = 1; chain->n_stages < MAX_STAGES && others(chain->n_stages + 1) + parts <= most;)
        chain->n_stages++;
    return others(chain->n_stages) + parts;
}

int fewer(int at_once) {
    return at_once == 4 ? 1 : at_once / 2;
}

// The most rows, in the fewest pieces, that leave the rings so many stages; 0 where not even the fewest do.
size_t find_cut(const Launch *l, Chain *chain, int n_blocks, int most, int stages, int *at_once) {
    for (int rows = most; rows > 1; rows = fewer(rows))
        for (int pieces = 1; pieces == 1 || (pieces <= MAX_CLUSTER && l->n_clusters[pieces]); pieces *= 2) {
            size_t shared = cut_chain(l, chain, n_blocks, rows, pieces);
            *at_once = rows, chain->n_pieces = pieces;
            if (shared && chain->n_stages >= stages) return shared;
        }
    return 0;
}

} // namespace

bool cut_products(const Launch *l, Chain *chain, int T, Cutting *out) {
    int units = 0, most = ROWS_MAX, at_once;
    for (int i = 0; i < chain->n; i++) {
        if (chain->p[i].ids) most = 1; // rows with experts of their own go one by one
        units = std::max(units, cut_of(l, &chain->p[i], l->n_sm, 1, 1).units);
    }
    while (most > 1 && fewer(most) >= T) most = fewer(most);
    int n_blocks = chain->n > 1 ? l->n_sm : std::min(units, l->n_sm);
    size_t shared = 0;
    for (int stages = MIN_STAGES; stages > 0 && !shared; stages--)
        shared = find_cut(l, chain, n_blocks, most, stages, &at_once);
    if (!shared) at_once = chain->n_pieces = 1, shared = cut_chain(l, chain, n_blocks, 1, 1);
    Cut whole = cut_of(l, &chain->p[0], n_blocks, 1, 1);
    *out = {at_once, n_teams_of(l, whole.units, n_blocks, chain->n_pieces), shared,
            input_at(0, whole.n_floats, whole.n_tiles)};
    return shared > 0;
}

// A row takes most in both forms.
extern "C" size_t product_scratch_bytes(int n_in) {
    size_t n = round_up(n_in, TILE_CHUNKS * CHUNK_WEIGHTS);
    return PRODUCT_ROWS * (n * sizeof(float) + n / (TILE_CHUNKS * CHUNK_WEIGHTS) * sizeof(TileInput) + 32);
}
