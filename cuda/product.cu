// product: weights times few activations, the kernel that decoding lives in.
//
// One block of 16 warps per SM.  A unit of work is a row of tiles (layout.h): 16 outputs, or 16 of gate and
// of up.  The warps of a block share a unit by cutting the row into slices, so that all finish together and
// each needs a small part of the input; where a row is too short for 16 slices, groups of warps take units in
// turn.
//
// First every warp starts its ring of weights (ring.cuh), before it waits for the kernel before; then the
// block brings the input into shared memory (input.cuh); then each warp multiplies the tiles of its slice as
// they arrive (tile.cuh), leaves its sums in shared memory, and goes on.  After a round of units the block
// adds up what the slices gave.
//
// A row of one input goes through a chain of products in one kernel: what one leaves to the next are links,
// and the rings run on.  Of several rows the inputs are made ready by a kernel before; where so many of them
// are too long for shared memory, they are cut into pieces of some slices each, one kernel after the other,
// each of which goes on with the sums of those before.
#include <algorithm>
#include <climits>

#include "launch.cuh"
#include "tile.cuh"

namespace {

constexpr int ROWS_MAX = 16;  // of the instances of the kernel: for 1, 4, 8, 16 rows at once
constexpr int PIECES_MAX = 2; // of a row; with four fewer warps have work
template <int T> constexpr int PARTS = T == 1 ? 2 : 1; // that a block has: with two, rounds wait less

// How the work is cut; the host decides.  Division is slow on the device, so it is done here.
struct Cut {
    int units, n_slices, n_groups; // n_slices * n_groups <= WARPS
    int per_block, n_longer;       // units of a block; the first n_longer blocks have one more
    unsigned slice_inverse;        // of n_slices: n / n_slices = n * slice_inverse >> 16 for small n
    unsigned group_inverse;        // of n_groups
    int per_slice[3], n_wider[3];  // tiles of a slice, by segment; the first n_wider slices have one more
    int round;                     // units of a block between two additions
    int per_group;                 // and of a group
    int n_tiles, n_floats;         // of an input row in either form, filled up to whole tiles; 0: not wanted
    bool goes_on, is_last;         // of a piece: whether there are some before; whether it is the last
};

// Products of which each has the one before it as its input.  They run as one kernel, so that the rings run
// on over the boundaries.  Nobody waits for all: an output goes on as a number whose lowest bit tells whether
// it is there (Link in launch.h), and who needs it looks until it is.  A block that has its whole input knows
// that all blocks are done with the product before.
struct Chain {
    Product p[MAX_PRODUCTS];
    Cut cut[MAX_PRODUCTS];
    int n, n_rows;
    const uint8_t *inputs;    // of several rows, as k_inputs leaves them, input_stride bytes apart
    int input_stride;
    int slot_bytes, n_stages; // of a warp's ring
    int parts_bytes;          // of one round
    bool many_slices;         // a warp may have more than it lists
};

// Several rows are made ready once, a block each, and not by every block that needs them.
__global__ void __launch_bounds__(THREADS) k_inputs(const __grid_constant__ Product p, Input x, uint8_t *to) {
    float4 norm[VECTORS];
    load_norm(p, norm);
    pdl_wait();
    pdl_launch();
    int t = blockIdx.x;
    const float *in = p.in + (size_t)(p.rows ? __ldcg(p.rows + t) : t) * p.in_stride;
    load_row(p, x, 0, {in, p.segment[0].w.n_in, false, 0}, norm);
    __syncthreads();
    to += (size_t)t * x.stride;
    for (int i = threadIdx.x * 16; i < x.stride; i += THREADS * 16)
        *(uint4 *)(to + i) = *(const uint4 *)(shared_memory() + x.at + i);
}

// ---- a warp's way through the tiles ---------------------------------------------------------------------

// A block takes every gridDim.x-th unit, numbered k = 0, 1, ... here; units count through matrix after
// matrix, or expert after expert, the parts.
template <bool ROUTED> struct Place { // ROUTED: the product is one of experts
    int k, part, row;                 // row of tiles in the part

    __device__ int rows(const Product &p) const { // of tiles in the part
        return p.segment[ROUTED ? 0 : part].w.layout.n_tile_rows;
    }
    __device__ void go(const Product &p, int units) { // that many units on
        k += units, row += units * (int)gridDim.x;
        if (!p.glu || ROUTED)
            for (int n; row >= (n = rows(p)) && part + 1 < (ROUTED ? p.n_used : p.n_segments); part++)
                row -= n;
    }
    __device__ int segment(const Product &p) const { // of a pair the first
        return ROUTED ? 0 : part;
    }
    __device__ size_t expert(const Product &p) const { return ROUTED ? (size_t)__ldcg(p.ids + part) : 0; }
};

template <bool ROUTED> __device__ Place<ROUTED> place_of(const Product &p, int k) {
    Place<ROUTED> at = {0, 0, (int)blockIdx.x};
    at.go(p, k);
    return at;
}

struct Team { // what a warp needs besides the matrix
    const Product &p;
    const Cut &cut;
    Input x;
    int at_parts; // float [group][unit of the round][gate, up][slice][T][PART_ROW], in shared memory
    int n_units;  // of this block
    int slice,
        group; // the warp takes this slice of every n_groups-th unit from number `group` on; -1: of none

    __device__ Team(const Product &p_, const Cut &cut_) : p(p_), cut(cut_) {
        int warp = threadIdx.x / 32;
        n_units = cut.per_block + ((int)blockIdx.x < cut.n_longer);
        group = warp * cut.slice_inverse >> 16, slice = warp - group * cut.n_slices;
        if (group >= cut.n_groups) group = n_units, slice = -1;
    }
    __device__ int n_slices() const { // that the warp multiplies, a pair's both
        int n = (max(n_units - group, 0) + cut.n_groups - 1) * cut.group_inverse >> 16;
        return p.glu ? 2 * n : n;
    }

    __device__ float *parts() const { return (float *)(shared_memory() + at_parts); }
    __device__ int part_of(int unit) const { // of the round; those of a warp lie one behind the other
        int in_group = unit * cut.group_inverse >> 16;
        return (unit - in_group * cut.n_groups) * cut.per_group + in_group;
    }
    template <int T> __device__ int part_step() const { return cut.n_slices * T * PART_ROW<T>; }
    __device__ int first_tile(int segment) const {
        return slice * cut.per_slice[segment] + min(slice, cut.n_wider[segment]);
    }
    __device__ int tiles(int segment) const {
        return cut.per_slice[segment] + (slice < cut.n_wider[segment]);
    }
};

// Ahead of the arithmetic: what the ring fetches, through all products of the chain.  LISTED slices are
// listed at a time, one in each lane, which also starts the fetches of its tiles: so nobody has to work out
// an address where time is short.  They are listed anew between rounds, where a chain has more of them, for
// what works them out would be in the way among the instructions of a tile.
constexpr int LISTED = 32;

template <bool ROUTED> struct List {
    const uint8_t *at; // this lane's slice: its next tile
    int bytes, tiles;  // of a tile, 0 beyond the end; of the slice
    unsigned slice;    // the next fetch, for the whole warp
    int tile;

    __device__ void fill(const Chain &chain) { // from `slice` on
        unsigned ahead = (threadIdx.x - slice) % LISTED;
        if (ahead == 0 && tile) return; // some of it has been fetched
        int number = (int)(slice + ahead);
        bytes = 0, tiles = 0x7fffffff;
        for (int i = 0; i < chain.n; i++) {
            Team team(chain.p[i], chain.cut[i]);
            int n = team.n_slices();
            if (number < n) return enter(team, number);
            number -= n;
        }
    }
    __device__ void enter(const Team &team, int number) {
        const Product &p = team.p;
        Place<ROUTED> place = place_of<ROUTED>(p, team.group + (number >> p.glu) * team.cut.n_groups);
        int segment = place.segment(p) + (number & p.glu);
        const DeviceWeight &w = p.segment[segment].w;
        bytes = w.layout.tile_bytes, tiles = team.tiles(segment);
        size_t row = place.expert(p) * w.layout.n_tile_rows + place.row;
        at = w.data + (row * w.layout.n_tiles + team.first_tile(segment)) * bytes;
    }
    __device__ void fetch(Ring &ring, int stage) {
        bool last = ++tile == __shfl_sync(0xffffffffu, tiles, slice % LISTED);
        ring.fetch(stage, slice % LISTED, at, bytes);
        if (last) tile = 0, slice++;
    }
};

// n slices of the matrices from `segment` on, which are of one type: the sums of their 16 rows for each of
// the T inputs, to the parts, one behind the other.
template <QuantType F, int T, bool ROUTED>
__device__ __forceinline__ void multiply_slices(const Team &team, Ring &ring, List<ROUTED> &list, int segment,
                                                int x0, float *part, int n) {
    int first = team.first_tile(segment), end = first + team.tiles(segment);
    for (; n; n--, part += team.part_step<T>()) {
        Sums<F, T> sums;
        for (int i = first; i < end; i++) {
            const uint8_t *tile = ring.wait();
            if constexpr (Format<F>::FLOAT)
                multiply_floats<F, T>(tile, i, team.x, x0, ring.lane, sums);
            else if constexpr (T == 1)
                multiply_blocks<F>(tile, i, team.x, x0, ring.lane, sums);
            else
                multiply_blocks<F, T>(tile, i, team.x, ring.lane, sums);
            list.fetch(ring, ring.stage);
            ring.advance();
        }
        sums.leave(part, ring.lane);
    }
}

// The types that an instance of the kernel knows.  What no product of a chain needs would stand between what
// it does need, and takes registers.
template <QuantType... KNOWN> struct Types {
    static __host__ __device__ constexpr bool know(QuantType type) { return ((type == KNOWN) || ...); }
};
struct AllTypes {
    static __host__ __device__ constexpr bool know(QuantType) { return true; }
};

// The warp's units of a round, from `place` on.
template <int T, class Known, bool ROUTED>
__device__ __forceinline__ void multiply_round(const Team &team, Ring &ring, List<ROUTED> &list,
                                               Place<ROUTED> &place, int round) {
    const Product &p = team.p;
    int end = min(round + team.cut.round, team.n_units), matrices = p.glu ? 2 : 1;
    bool alike = !p.glu || p.segment[0].w.type == p.segment[1].w.type;
    while (place.k < end) {
        Place<ROUTED> from = place;
        int count = 0;
        do place.go(p, team.cut.n_groups), count++;
        while (place.k < end && place.part == from.part && alike);
        for (int matrix = 0; matrix < matrices; matrix += alike ? matrices : 1) {
            int segment = from.segment(p) + matrix, x0 = ROUTED && p.per_slot ? from.part : 0;
            float *part = team.parts() +
                          (team.part_of(from.k - round) * matrices + matrix) * team.part_step<T>() +
                          team.slice * T * PART_ROW<T>;
            int n = alike ? count * matrices : count;
            switch (p.segment[segment].w.type) {
#define MULTIPLY(type, ...)                                                                                  \
    case QUANT_##type:                                                                                       \
        if constexpr (Known::know(QUANT_##type))                                                             \
            multiply_slices<QUANT_##type, T>(team, ring, list, segment, x0, part, n);                        \
        break;
#define NOTHING(...)
                QUANT_TYPES(MULTIPLY, MULTIPLY, NOTHING)
#undef MULTIPLY
#undef NOTHING
            default:
                break;
            }
        }
    }
}

// ---- a block's outputs ----------------------------------------------------------------------------------

__device__ __forceinline__ float finish(const ProductSegment &s, size_t row, float y) {
    if (s.w.scale) y *= s.w.scale[row];
    return s.bias ? y + s.bias[row] : y;
}

__device__ __forceinline__ float silu(float x) {
    return __fdividef(x, 1.0f + __expf(-x));
}

__device__ __forceinline__ float add_slices(float sum, const float *part, int n_slices, int step) {
    float x[WARPS];
#pragma unroll
    for (int i = 0; i < WARPS; i++) x[i] = i < n_slices ? part[i * step] : 0; // all on their way at once
#pragma unroll
    for (int i = 0; i < WARPS; i++) sum += x[i];
    return sum;
}

// A thread's output of a round: element `row` of row t of the first matrix or of its own.
template <int T, bool ROUTED> struct Output {
    int part, row; // row: -1 where there is none
    float before;  // what is added to it
    float so_far;  // what the pieces before left

    __device__ Output(const Team &team, int round, int n_rows) : part(0), row(-1), before(0), so_far(0) {
        const Product &p = team.p;
        int unit = threadIdx.x / (T * TILE_ROWS), t = row_of_input();
        if (unit >= team.cut.round || round + unit >= team.n_units || t >= n_rows) return;
        Place<ROUTED> place = place_of<ROUTED>(p, round + unit);
        int to = place.row * TILE_ROWS + threadIdx.x % TILE_ROWS;
        if (to >= p.segment[place.segment(p)].w.n_out) return;
        part = place.part, row = to;
    }
    // Asks for what is added to it; where this chain wrote it, this block did: a row goes to the same block
    // in every product of as many rows.
    __device__ void ask(const Team &team) {
        const Product &p = team.p;
        if (row >= 0 && p.residual && part == 0)
            before = __ldcg(p.residual + (size_t)row_of_input() * p.residual_stride + row);
        if (T > 1 && row >= 0 && team.cut.goes_on)
            so_far = __ldcg(p.segment[part].out + (size_t)row_of_input() * p.segment[part].out_stride + row);
    }
    // Adds up the slices.  lap: for the chain's next product, where there is one.
    __device__ void write(const Team &team, bool linked, uint32_t lap) const {
        if (row < 0) return;
        const Product &p = team.p;
        const ProductSegment &s = p.segment[ROUTED ? 0 : part];
        constexpr int STEP = T * PART_ROW<T>; // from slice to slice
        int n_slices = team.cut.n_slices, slices = team.part_step<T>();
        const float *parts = team.parts() +
                             team.part_of(threadIdx.x / (T * TILE_ROWS)) * (p.glu ? 2 : 1) * slices +
                             row_of_input() * PART_ROW<T> + threadIdx.x % TILE_ROWS;
        size_t w_row = (ROUTED ? (size_t)__ldcg(p.ids + part) * s.w.n_out : 0) + row;
        float y = add_slices(so_far, parts, n_slices, STEP);
        if (T == 1 || team.cut.is_last) {
            y = finish(s, w_row, y);
            if (p.glu) y = silu(y) * finish(p.segment[1], w_row, add_slices(0, parts + slices, n_slices, STEP));
            y += before;
        }
        if (linked)
            asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(p.link->row + row),
                         "r"((__float_as_uint(y) & ~1u) | lap)
                         : "memory");
        s.out[(size_t)row_of_input() * s.out_stride + (ROUTED ? (size_t)part * s.w.n_out : 0) + row] = y;
    }

  private:
    static __device__ int row_of_input() { return threadIdx.x / TILE_ROWS % T; }
};

template <int T, class Known, bool ROUTED>
__global__ void __launch_bounds__(T == 1 ? THREADS + ATTN_THREADS : THREADS, 1)
    k_products(const __grid_constant__ Chain chain) {
    // Shared memory: the warps' rings, the parts, the input.
    int ring_bytes = Ring::bytes(chain.slot_bytes, chain.n_stages), at_parts = WARPS * ring_bytes,
        at_input = at_parts + PARTS<T> * chain.parts_bytes;
    int parts = at_parts, n_rows = T == 1 ? 1 : chain.n_rows;
    if (ROUTED) pdl_wait(), pdl_launch(); // which weights to fetch is what the kernel before decides
    Ring ring(threadIdx.x / 32 * ring_bytes, chain.slot_bytes, chain.n_stages);
    List<ROUTED> list = {};
    list.fill(chain);
    for (int i = 0; i < chain.n_stages; i++) list.fetch(ring, i);
    __shared__ uint32_t laps[MAX_PRODUCTS];
    if ((int)threadIdx.x < chain.n - 1) {
        uint32_t *count = chain.p[threadIdx.x].link->laps + blockIdx.x;
        laps[threadIdx.x] = *count = __ldcg(count) + 1;
    }
    for (int number = 0; number < chain.n; number++) {
        const Product &p = chain.p[number];
        Team team(p, chain.cut[number]);
        team.at_parts = parts;
        team.x = input_at(at_input, team.cut.n_floats, team.cut.n_tiles);
        Place<ROUTED> place = place_of<ROUTED>(p, team.group);
        Output<T, ROUTED> out(team, 0, n_rows);
        if constexpr (T > 1) {
            pdl_wait(), pdl_launch();
            int bytes = team.x.stride;
            for (int t = threadIdx.x / 32; t < chain.n_rows; t += WARPS)
#pragma unroll 4
                for (int i = threadIdx.x % 32 * 16; i < bytes; i += 32 * 16)
                    *(uint4 *)(shared_memory() + at_input + t * bytes + i) =
                        __ldcg((const uint4 *)(chain.inputs + (size_t)t * chain.input_stride + i));
        } else {
            float4 norm[VECTORS];
            load_norm(p, norm);
            if (number == 0 && !ROUTED) pdl_wait(), pdl_launch();
            int n_in = p.segment[0].w.n_in, n_slots = ROUTED && p.per_slot ? p.n_used : 1;
            Row row = {p.in + (size_t)(p.rows ? __ldcg(p.rows) : 0) * p.in_stride, n_in, number > 0, 0};
            if (row.linked) {
                row.in = (const float *)chain.p[number - 1].link->row, row.lap = laps[number - 1] & 1;
                row.await();
            }
            for (int i = 0; i < n_slots; i++, row.in += n_in) load_row(p, team.x, i, row, norm);
        }
        int round = 0;
        do { // once even where there is nothing to do: the barriers are for the whole block
            if (PARTS<T> == 2)
                parts = at_parts + at_input - chain.parts_bytes - parts,
                team.at_parts = parts; // the other ones
            else if (round)
                __syncthreads(); // all have written their outputs
            if (round) out = Output<T, ROUTED>(team, round, n_rows);
            out.ask(team);
            if (chain.many_slices) list.fill(chain);
            if (round == 0) __syncthreads(); // the input is there
            multiply_round<T, Known, ROUTED>(team, ring, list, place, round);
            __syncthreads(); // the other parts are free too: all have written their outputs before coming
                             // here
            out.write(team, number + 1 < chain.n, laps[number] & 1);
        } while ((round += team.cut.round) < team.n_units);
    }
}

// ---- launcher -------------------------------------------------------------------------------------------

int ceil_div(int a, int b) {
    return (a + b - 1) / b;
}

int round_up(int a, int b) {
    return ceil_div(a, b) * b;
}

// The slices that keep the busiest warp's steps fewest; more slices rather than more groups.  No slice of any
// segment is empty.
void cut_rows(Cut *cut, const Product *p, int n_blocks) {
    int n_tiles = p->segment[0].w.layout.n_tiles, units = ceil_div(cut->units, n_blocks), best = 0,
        most = WARPS;
    for (int i = 0; i < p->n_segments; i++) most = std::min(most, p->segment[i].w.layout.n_tiles);
    for (int n = 1; n <= most; n++) {
        int per_slice = ceil_div(n_tiles, n), slices = ceil_div(n_tiles, per_slice), groups = WARPS / slices;
        int steps = ceil_div(units, groups) * per_slice;
        if (best && steps > best) continue;
        best = steps, cut->n_slices = slices;
    }
    cut->per_block = cut->units / n_blocks, cut->n_longer = cut->units % n_blocks;
    for (int i = 0; i < p->n_segments; i++) {
        int tiles = p->segment[i].w.layout.n_tiles;
        cut->per_slice[i] = tiles / cut->n_slices, cut->n_wider[i] = tiles % cut->n_slices;
    }
}

int first_tile(const Cut *cut, int slice) { // of the first segment's rows
    return slice * cut->per_slice[0] + std::min(slice, cut->n_wider[0]);
}

Cut cut_of(const Product *p, int n_blocks, int n_pieces) {
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
    if (n_pieces > 1) // the first is the longest
        cut.n_slices /= n_pieces, cut.n_tiles = first_tile(&cut, cut.n_slices);
    cut.n_groups = WARPS / cut.n_slices;
    cut.slice_inverse = (65536u + cut.n_slices - 1) / cut.n_slices;
    cut.group_inverse = (65536u + cut.n_groups - 1) / cut.n_groups;
    return cut;
}

// Takes piece number i of the product and its input.
void take_piece(Chain *chain, int i, int n_pieces) {
    Cut *cut = &chain->cut[0];
    int skipped = i * cut->n_slices, tile = first_tile(cut, skipped);
    chain->inputs += tile * sizeof(TileInput);
    for (int s = 0; s < chain->p[0].n_segments; s++) {
        DeviceWeight *w = &chain->p[0].segment[s].w;
        w->data += (size_t)tile * w->layout.tile_bytes;
        cut->n_wider[s] = std::max(cut->n_wider[s] - skipped, 0);
    }
    cut->goes_on = i > 0, cut->is_last = i + 1 == n_pieces;
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

// Whether a product's rows can be cut into so many pieces of as many slices; what comes of a pair cannot be
// left half done.
bool has_pieces(const Product *p, int n_blocks, int n_pieces) {
    Cut whole = cut_of(p, n_blocks, 1);
    return whole.n_floats == 0 && !p->glu && whole.n_slices % n_pieces == 0;
}

// Cuts all products for T rows at once and divides what shared memory there is; 0 where it does not suffice,
// or where the products' rows are too unlike for one kernel or cannot be cut into pieces.
size_t cut_chain(Chain *chain, int n_blocks, int T, int n_pieces, size_t most) {
    size_t input = 0, parts = most / 22; // of one round: two units of four rows in 16 slices
    chain->slot_bytes = chain->parts_bytes = 0;
    for (int i = 0; i < chain->n; i++) {
        const Product *p = &chain->p[i];
        if (n_pieces > 1 && !has_pieces(p, n_blocks, n_pieces)) return 0;
        Cut *cut = &(chain->cut[i] = cut_of(p, n_blocks, n_pieces));
        for (int s = 0; s < p->n_segments; s++)
            chain->slot_bytes =
                std::max(chain->slot_bytes, round_up(p->segment[s].w.layout.tile_bytes, Ring::LINE));
        int part_row = T == 1 ? PART_ROW<1> : PART_ROW<ROWS_MAX>;
        int unit = (p->glu ? 2 : 1) * cut->n_slices * T * part_row * (int)sizeof(float);
        int outputs = THREADS / (T * TILE_ROWS); // units that a block's threads write at once
        cut->round = std::min((int)parts / unit, outputs);
        cut->round -= cut->round % cut->n_groups;
        if (cut->round == 0) cut->round = std::min(cut->n_groups, outputs);
        cut->per_group = ceil_div(cut->round, cut->n_groups);
        chain->parts_bytes = std::max(chain->parts_bytes, cut->per_group * cut->n_groups * unit);
        input = std::max(input, (size_t)input_at(0, cut->n_floats, cut->n_tiles).stride * T *
                                    (p->per_slot ? p->n_used : 1));
    }
    size_t others = input + (T == 1 ? PARTS<1> : PARTS<ROWS_MAX>)*chain->parts_bytes;
    auto bytes = [&](int n_stages) { return others + WARPS * Ring::bytes(chain->slot_bytes, n_stages); };
    if (bytes(1) > most || !cut_rounds(chain)) return 0;
    for (chain->n_stages = 1; chain->n_stages < MAX_STAGES && bytes(chain->n_stages + 1) <= most;)
        chain->n_stages++;
    return bytes(chain->n_stages);
}

template <class Known> bool knows(const Chain &chain) {
    for (int i = 0; i < chain.n; i++)
        for (int s = 0; s < chain.p[i].n_segments; s++)
            if (!Known::know(chain.p[i].segment[s].w.type)) return false;
    return true;
}

// The first instance that knows the chain's types.
template <int T, class Known, class... Others>
cudaError_t launch_known(const Launch *l, const Chain &chain, int n_blocks, size_t shared) {
    if constexpr (sizeof...(Others) > 0)
        if (!knows<Known>(chain)) return launch_known<T, Others...>(l, chain, n_blocks, shared);
    if constexpr (T == 1)
        if (chain.p[0].ids)
            return launch_kernel(l, k_products<T, Known, true>, n_blocks, THREADS, shared, chain);
    return launch_kernel(l, k_products<T, Known, false>, n_blocks, THREADS, shared, chain);
}

// The mixes in which most models come.
template <int T> cudaError_t launch_rows(const Launch *l, const Chain &chain, int n_blocks, size_t shared) {
    return launch_known<T, Types<QUANT_Q4_K, QUANT_Q6_K>, Types<QUANT_Q5_K, QUANT_Q6_K>, Types<QUANT_Q4_0>,
                        Types<QUANT_Q8_0>, Types<QUANT_F32, QUANT_F16, QUANT_BF16, QUANT_FP8_E4M3>, AllTypes>(
        l, chain, n_blocks, shared);
}

cudaError_t check(const Product *p) {
    if (p->norm && p->segment[0].w.n_in > LOADED)
        return cudaErrorInvalidValue; // the plan normalises such rows apart
    return p->ids && p->n_segments > 1 && !p->glu ? cudaErrorInvalidValue : cudaSuccess;
}

int fewer(int at_once) {
    return at_once == 4 ? 1 : at_once / 2;
}

// Whether b has a's output as its input, by a link.
bool is_linked(const Launch *l, const Product &a, const Product &b) {
    int n = a.segment[0].w.n_out;
    return a.link && l->n_sm <= LINK_BLOCKS && a.segment[0].out == b.in && b.segment[0].w.n_in == n &&
           n % 4 == 0 && !a.ids && !b.ids;
}

} // namespace

extern "C" Product product_rows(Product p, int first) {
    if (p.rows)
        p.rows += first;
    else
        p.in += (size_t)first * p.in_stride;
    if (p.ids) p.ids += (size_t)first * p.ids_stride;
    if (p.residual) p.residual += (size_t)first * p.residual_stride;
    for (int i = 0; i < p.n_segments; i++) p.segment[i].out += (size_t)first * p.segment[i].out_stride;
    return p;
}

// A row takes most in both forms.
extern "C" size_t product_scratch_bytes(int n_in) {
    size_t n = round_up(n_in, TILE_CHUNKS * CHUNK_WEIGHTS);
    return PRODUCT_ROWS * (n * sizeof(float) + n / (TILE_CHUNKS * CHUNK_WEIGHTS) * sizeof(TileInput) + 32);
}

extern "C" cudaError_t launch_products(const Launch *l, const Product *products, int n, int T) {
    if (n < 1 || n > MAX_PRODUCTS) return cudaErrorInvalidValue;
    Chain chain = {.n = n};
    int units = 0, at_once = ROWS_MAX;
    bool linked = n == 1 || T == 1;
    for (int i = 0; i < n; i++) {
        chain.p[i] = products[i];
        cudaError_t error = check(&products[i]);
        if (error != cudaSuccess) return error;
        if (products[i].ids) at_once = 1; // rows with experts of their own go one by one
        if (i) linked &= is_linked(l, products[i - 1], products[i]);
        units = std::max(units, cut_of(&products[i], l->n_sm, 1).units);
    }
    int n_blocks = n > 1 ? l->n_sm : std::min(units, l->n_sm);
    while (at_once > 1 && fewer(at_once) >= T) at_once = fewer(at_once);
    size_t shared; // the most rows in the fewest pieces that leave the rings two stages, or one row
    int n_pieces = 1;
    while (!(shared = cut_chain(&chain, n_blocks, at_once, n_pieces, room(l, at_once))) || chain.n_stages < 2)
        if (at_once == 1)
            break;
        else if (n_pieces == PIECES_MAX)
            at_once = fewer(at_once), n_pieces = 1;
        else
            n_pieces++;
    if (n > 1 && (!shared || !linked)) {
        for (int i = 0; i < n; i++) {
            cudaError_t error = launch_products(l, products + i, 1, T);
            if (error != cudaSuccess) return error;
        }
        return cudaSuccess;
    }
    if (!shared) return cudaErrorInvalidValue;
    Cut whole = cut_of(&products[0], n_blocks, 1);
    Input x = input_at(0, whole.n_floats, whole.n_tiles);
    for (int done = 0; done < T; done += at_once) {
        Chain rows = chain;
        for (int i = 0; i < n; i++) rows.p[i] = product_rows(products[i], done);
        rows.n_rows = std::min(T - done, at_once);
        int ready = done % PRODUCT_ROWS; // of the rows that were made ready last
        if (at_once > 1 && ready == 0) {
            cudaError_t error = launch_kernel(l, k_inputs, std::min(T - done, (int)PRODUCT_ROWS), THREADS,
                                              x.stride, rows.p[0], x, l->inputs);
            if (error != cudaSuccess) return error;
        }
        rows.inputs = l->inputs + (size_t)ready * x.stride, rows.input_stride = x.stride;
        for (int i = 0; i < n_pieces; i++) {
            Chain piece = rows;
            take_piece(&piece, i, n_pieces);
            cudaError_t error = at_once == 1   ? launch_rows<1>(l, piece, n_blocks, shared)
                                : at_once == 4 ? launch_rows<4>(l, piece, n_blocks, shared)
                                : at_once == 8 ? launch_rows<8>(l, piece, n_blocks, shared)
                                               : launch_rows<16>(l, piece, n_blocks, shared);
            if (error != cudaSuccess) return error;
        }
    }
    return cudaSuccess;
}
