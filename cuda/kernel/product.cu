// product: weights times few activations, the kernel that decoding lives in.
//
// One block per SM, of 16 warps or 8.  A unit of work is a row of tiles (layout.h): 16 outputs, or 16 of gate
// and of up.  The warps of a block share a unit by cutting the row into slices, so that all finish together
// and each needs a small part of the input; where a block has fewer slices than warps,
// groups of warps take units in turn.
//
// First every warp starts its ring of weights (ring.cuh), before it waits for the kernel before; then the
// block brings the input into shared memory (input.cuh); then each warp multiplies the tiles of its slice as
// they arrive (tile.cuh), leaves its sums in shared memory, and goes on.  After a round of units the block
// adds up what the slices gave.  Who does what is work_split.cu's to say.
//
// A row of one input goes through a chain of products in one kernel: what one leaves to the next are links,
// and the rings run on.  Of several rows the inputs are made ready by a kernel before; where so many of them
// are too long for shared memory, the blocks of a cluster share a unit: each has some of its slices and the
// inputs' pieces for these, and adds up some of the outputs out of all their sums.
#include <algorithm>

#include "../device/cluster.cuh"
#include "../device/launch.cuh"
#include "../device/product.cuh"

namespace {

// Several rows are made ready once, a block each, and not by every block that needs them.
__global__ void __launch_bounds__(THREADS) k_inputs(const __grid_constant__ Product p, Input x, uint8_t *to) {
    float4 norm[VECTORS];
    load_norm(p, norm);
    pdl_wait();
    pdl_launch();
    int t = blockIdx.x;
    load_row(p, x, 0, {row_of(p.in, t), p.segment[0].w.n_in, false, 0}, norm);
    __syncthreads();
    to += (size_t)t * x.stride;
    for (int i = threadIdx.x * 16; i < x.stride; i += THREADS * 16)
        *(uint4 *)(to + i) = *(const uint4 *)(shared_memory() + x.at + i);
}

// ---- a warp's way through the tiles ---------------------------------------------------------------------

// Where a block stands: one row of the input leaves every block by itself, and reads no more than it must.
template <int T> struct Stand : Cluster {};
template <> struct Stand<1> {
    static constexpr int rank = 0;
    int number = blockIdx.x, of = gridDim.x;
};

// A block, or a cluster, takes every so many-th unit, numbered k = 0, 1, ... here; units count through matrix
// after matrix, or expert after expert, the parts.
template <int T, bool ROUTED> struct Place { // ROUTED: the product is one of experts
    int k, part, row;                        // row of tiles in the part

    __device__ int rows(const Product &p) const { // of tiles in the part
        return p.segment[ROUTED ? 0 : part].w.layout.n_tile_rows;
    }
    __device__ void go(const Product &p, int units) { // that many units on
        k += units, row += units * Stand<T>().of;
        if (!p.glu || ROUTED)
            for (int n; row >= (n = rows(p)) && part + 1 < (ROUTED ? p.n_used : p.n_segments); part++)
                row -= n;
    }
    __device__ int segment(const Product &p) const { // of a pair the first
        return ROUTED ? 0 : part;
    }
    __device__ size_t expert(const Product &p) const { return ROUTED ? (size_t)__ldcg(p.ids + part) : 0; }
};

template <int T, bool ROUTED> __device__ Place<T, ROUTED> place_of(const Product &p, int k) {
    Place<T, ROUTED> at = {0, 0, Stand<T>().number};
    at.go(p, k);
    return at;
}

template <int T> struct Worker { // what a warp needs besides the matrix
    const Product &p;
    const Cut &cut;
    Input x;
    int at_parts;     // float [group][unit of the round][gate, up][slice][T][PART_ROW], in shared memory
    int n_units;      // of this block
    int slice, group; // the warp takes this slice of the block's, of every n_groups-th unit from number
                      // `group` on; -1: of none

    __device__ Worker(const Product &p_, const Cut &cut_) : p(p_), cut(cut_) {
        int warp = threadIdx.x / 32;
        n_units = cut.per_block + (Stand<T>().number < cut.n_longer);
        group = warp * cut.slice_inverse >> 16, slice = warp - group * cut.n_slices;
        if (group >= cut.n_groups || first_slice() + slice >= cut.all_slices) group = n_units, slice = -1;
    }
    __device__ int first_slice() const { return Stand<T>().rank * cut.n_slices; } // of the block's
    __device__ int n_slices() const { // that the warp multiplies, a pair's both
        int n = (max(n_units - group, 0) + cut.n_groups - 1) * cut.group_inverse >> 16;
        return p.glu ? 2 * n : n;
    }

    __device__ float *parts() const { return (float *)(shared_memory() + at_parts); }
    __device__ int part_of(int unit) const { // of the round; those of a warp lie one behind the other
        int in_group = unit * cut.group_inverse >> 16;
        return (unit - in_group * cut.n_groups) * cut.per_group + in_group;
    }
    __device__ int part_step() const { return cut.n_slices * T * PART_ROW<T>; }
    __device__ int slice_begins(int segment, int number) const { // at which tile
        return number * cut.per_slice[segment] + min(number, cut.n_wider[segment]);
    }
    __device__ int first_tile(int segment) const { return slice_begins(segment, first_slice() + slice); }
    __device__ int tiles(int segment) const {
        return cut.per_slice[segment] + (first_slice() + slice < cut.n_wider[segment]);
    }
    // Where the block's input begins: at which tile, all matrices' tiles being alike, and at which byte.
    __device__ int origin() const { return Stand<T>().rank ? slice_begins(0, first_slice()) : 0; }
    __device__ int origin_bytes() const {
        return origin() * (cut.n_tiles ? (int)sizeof(TileInput) : p.segment[0].w.layout.tile_weights * 4);
    }
};

// Ahead of the arithmetic: what the ring fetches, through all products of the chain.  LISTED slices are
// listed at a time, one in each lane, which also starts the fetches of its tiles: so nobody has to work out
// an address where time is short.  They are listed anew between rounds, where a chain has more of them, for
// what works them out would be in the way among the instructions of a tile.
template <int T, bool ROUTED> struct List {
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
            Worker<T> worker(chain.p[i], chain.cut[i]);
            int n = worker.n_slices();
            if (number < n) return enter(worker, number);
            number -= n;
        }
    }
    __device__ void enter(const Worker<T> &worker, int number) {
        const Product &p = worker.p;
        Place<T, ROUTED> place =
            place_of<T, ROUTED>(p, worker.group + (number >> p.glu) * worker.cut.n_groups);
        int segment = place.segment(p) + (number & p.glu);
        const DeviceWeight &w = p.segment[segment].w;
        bytes = w.layout.tile_bytes, tiles = worker.tiles(segment);
        size_t row = place.expert(p) * w.layout.n_tile_rows + place.row;
        at = w.data + (row * w.layout.n_tiles + worker.first_tile(segment)) * bytes;
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
__device__ __forceinline__ void multiply_slices(const Worker<T> &worker, Ring &ring, List<T, ROUTED> &list,
                                                int segment, int x0, float *part, int n) {
    int first = worker.first_tile(segment) - worker.origin(), end = first + worker.tiles(segment);
    for (; n; n--, part += worker.part_step()) {
        Sums<F, T> sums;
        for (int i = first; i < end; i++) {
            const uint8_t *tile = ring.wait();
            if constexpr (Format<F>::FLOAT)
                multiply_floats<F, T>(tile, i, worker.x, x0, ring.lane, sums);
            else if constexpr (T == 1)
                multiply_blocks<F>(tile, i, worker.x, x0, ring.lane, sums);
            else
                multiply_blocks<F, T>(tile, i, worker.x, ring.lane, sums);
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
__device__ __forceinline__ void multiply_round(const Worker<T> &worker, Ring &ring, List<T, ROUTED> &list,
                                               Place<T, ROUTED> &place, int round) {
    const Product &p = worker.p;
    int end = min(round + worker.cut.round, worker.n_units), matrices = p.glu ? 2 : 1;
    bool alike = !p.glu || p.segment[0].w.type == p.segment[1].w.type;
    while (place.k < end) {
        Place<T, ROUTED> from = place;
        int count = 0;
        do place.go(p, worker.cut.n_groups), count++;
        while (place.k < end && place.part == from.part && alike);
        for (int matrix = 0; matrix < matrices; matrix += alike ? matrices : 1) {
            int segment = from.segment(p) + matrix, x0 = ROUTED && p.per_slot ? from.part : 0;
            float *part = worker.parts() +
                          (worker.part_of(from.k - round) * matrices + matrix) * worker.part_step() +
                          worker.slice * T * PART_ROW<T>;
            int n = alike ? count * matrices : count;
            switch (p.segment[segment].w.type) {
#define MULTIPLY(type, ...)                                                                                  \
    case QUANT_##type:                                                                                       \
        if constexpr (Known::know(QUANT_##type))                                                             \
            multiply_slices<QUANT_##type, T>(worker, ring, list, segment, x0, part, n);                      \
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

// An output, from its sum (of a pair, sums) and what is added to it.
__device__ __forceinline__ float output_of(const Product &p, const ProductSegment &s, size_t row, float sum,
                                           float up, float before) {
    float y = finish(s, row, sum);
    if (p.glu) y = silu(y) * finish(p.segment[1], row, up);
    return y + before;
}

// The sum of what the slices left, from the first on.
__device__ __forceinline__ float add_slices(const float *part, int n_slices) {
    constexpr int STEP = PART_ROW<1>;
    float x[MAX_SLICES], sum = 0;
#pragma unroll
    for (int i = 0; i < MAX_SLICES; i++) x[i] = i < n_slices ? part[i * STEP] : 0; // all on their way at once
#pragma unroll
    for (int i = 0; i < MAX_SLICES; i++) sum += x[i];
    return sum;
}

// One row: a thread's output of a round, element `row` of the first matrix or of its own.
template <bool ROUTED> struct Output {
    int part, row; // row: -1 where there is none
    float before;  // what is added to it

    __device__ Output(const Worker<1> &worker, int round) : part(0), row(-1), before(0) {
        const Product &p = worker.p;
        int unit = threadIdx.x / TILE_ROWS;
        if (unit >= worker.cut.round || round + unit >= worker.n_units) return;
        Place<1, ROUTED> place = place_of<1, ROUTED>(p, round + unit);
        int to = place.row * TILE_ROWS + threadIdx.x % TILE_ROWS;
        if (to >= p.segment[place.segment(p)].w.n_out) return;
        part = place.part, row = to;
    }
    // Asks for what is added to it; where this chain wrote it, this block did: a row goes to the same block
    // in every product of as many rows.
    __device__ void ask(const Worker<1> &worker) {
        const RegRows &residual = worker.p.residual;
        if (row >= 0 && residual.data && part == 0) before = __ldcg(row_of(residual, 0) + row);
    }
    // Adds up the slices.  lap: for the chain's next product, where there is one.
    __device__ void write(const Worker<1> &worker, bool linked, uint32_t lap) const {
        if (row < 0) return;
        const Product &p = worker.p;
        const ProductSegment &s = p.segment[ROUTED ? 0 : part];
        const float *parts = worker.parts() +
                             worker.part_of(threadIdx.x / TILE_ROWS) * (p.glu ? 2 : 1) * worker.part_step() +
                             threadIdx.x % TILE_ROWS;
        size_t w_row = (ROUTED ? (size_t)__ldcg(p.ids + part) * s.w.n_out : 0) + row;
        float sum = add_slices(parts, worker.cut.n_slices),
              up = p.glu ? add_slices(parts + worker.part_step(), worker.cut.n_slices) : 0,
              y = output_of(p, s, w_row, sum, up, before);
        if (linked)
            asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(p.link->row + row),
                         "r"((__float_as_uint(y) & ~1u) | lap)
                         : "memory");
        s.out[(ROUTED ? (size_t)part * s.w.n_out : 0) + row] = y;
    }
};

// The same of four neighbouring outputs, over all blocks of the cluster.
template <int T> __device__ __forceinline__ void add_slices(const Cut &cut, const float *part, float sum[4]) {
    constexpr int STEP = T * PART_ROW<T>, N = 8; // on their way at once
    for (int i = 0; i < 4; i++) sum[i] = 0;
    for (int rank = 0, left = cut.all_slices; left > 0; rank++, left -= cut.n_slices) {
        Neighbour from(part, rank);
        int n = min(left, cut.n_slices);
        for (int base = 0; base < n; base += N) {
            float4 x[N];
#pragma unroll
            for (int i = 0; i < N; i++)
                x[i] = base + i < n ? from.load4((base + i) * STEP) : make_float4(0, 0, 0, 0);
#pragma unroll
            for (int i = 0; i < N; i++)
                sum[0] += x[i].x, sum[1] += x[i].y, sum[2] += x[i].z, sum[3] += x[i].w;
        }
    }
}

// Several rows: the outputs of a round, four at a time, by all threads of the cluster, whose blocks take
// warp after warp in turns.
template <int T> __device__ __forceinline__ void write_round(const Worker<T> &worker, int round, int n_rows) {
    const Product &p = worker.p;
    Stand<T> at;
    int warp = threadIdx.x / 32 * at.size + at.rank;
    for (int i = warp * 32 + threadIdx.x % 32; i < worker.cut.round * T * TILE_ROWS / 4;
         i += at.size * threads_for(T)) {
        int unit = i / (T * TILE_ROWS / 4), t = i / (TILE_ROWS / 4) % T, first = i % (TILE_ROWS / 4) * 4;
        if (round + unit >= worker.n_units || t >= n_rows) continue;
        Place<T, false> place = place_of<T, false>(p, round + unit);
        const ProductSegment &s = p.segment[place.part];
        int row = place.row * TILE_ROWS + first, n = min(s.w.n_out - row, 4);
        const float *parts = worker.parts() + worker.part_of(unit) * (p.glu ? 2 : 1) * worker.part_step() +
                             t * PART_ROW<T> + first;
        bool adds = p.residual.data && place.part == 0;
        float4 before = make_float4(0, 0, 0, 0); // rows of registers end at a multiple of 16
        if (adds && n > 0) before = __ldcg((const float4 *)(row_of(p.residual, t) + row));
        float sum[4], up[4] = {};
        add_slices<T>(worker.cut, parts, sum);
        if (p.glu) add_slices<T>(worker.cut, parts + worker.part_step(), up);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if (k >= n) break;
            s.out[(size_t)t * s.out_stride + row + k] =
                output_of(p, s, row + k, sum[k], up[k], (&before.x)[k]);
        }
    }
}

// ---- kernels --------------------------------------------------------------------------------------------

// Shared memory: the warps' rings, the parts, the input.
template <int T> struct Room {
    int ring_bytes, parts, input;

    __device__ Room(const Chain &chain)
        : ring_bytes(Ring::bytes(chain.slot_bytes, chain.n_stages)), parts(warps_for(T) * ring_bytes),
          input(parts + parts_for(T) * chain.parts_bytes) {}
};

// One row of the input.
template <class Known, bool ROUTED>
__global__ void __launch_bounds__(threads_for(1) + ATTN_THREADS, 1)
    k_products(const __grid_constant__ Chain chain) {
    Room<1> room(chain);
    int parts = room.parts;
    if (ROUTED) pdl_wait(), pdl_launch(); // which weights to fetch is what the kernel before decides
    Ring ring(threadIdx.x / 32 * room.ring_bytes, chain.slot_bytes, chain.n_stages);
    List<1, ROUTED> list = {};
    list.fill(chain);
    for (int i = 0; i < chain.n_stages; i++) list.fetch(ring, i);
    __shared__ uint32_t laps[MAX_PRODUCTS];
    if ((int)threadIdx.x < chain.n - 1) {
        uint32_t *count = chain.p[threadIdx.x].link->laps + blockIdx.x;
        laps[threadIdx.x] = *count = __ldcg(count) + 1;
    }
    for (int number = 0; number < chain.n; number++) {
        const Product &p = chain.p[number];
        Worker<1> worker(p, chain.cut[number]);
        worker.at_parts = parts;
        worker.x = input_at(room.input, worker.cut.n_floats, worker.cut.n_tiles);
        Place<1, ROUTED> place = place_of<1, ROUTED>(p, worker.group);
        Output<ROUTED> out(worker, 0);
        float4 norm[VECTORS];
        load_norm(p, norm);
        if (number == 0 && !ROUTED) pdl_wait(), pdl_launch();
        int n_in = p.segment[0].w.n_in, n_slots = ROUTED && p.per_slot ? p.n_used : 1;
        Row row = {row_of(p.in, 0), n_in, number > 0, 0};
        if (row.linked) {
            row.in = (const float *)chain.p[number - 1].link->row, row.lap = laps[number - 1] & 1;
            row.await();
        }
        for (int i = 0; i < n_slots; i++, row.in += n_in) load_row(p, worker.x, i, row, norm);
        int round = 0;
        do { // once even where there is nothing to do: the barriers are for the whole block
            parts = room.parts + room.input - chain.parts_bytes - parts,
            worker.at_parts = parts; // the other ones
            if (round) out = Output<ROUTED>(worker, round);
            out.ask(worker);
            if (chain.many_slices) list.fill(chain);
            if (round == 0) __syncthreads(); // the input is there
            multiply_round<1, Known, ROUTED>(worker, ring, list, place, round);
            __syncthreads(); // the other parts are free too: all have written their outputs before coming
                             // here
            out.write(worker, number + 1 < chain.n, laps[number] & 1);
        } while ((round += worker.cut.round) < worker.n_units);
    }
}

// Rows of the input as they lie in device memory, each of so many bytes, into shared memory; the block waits.
__device__ __forceinline__ void load_rows(const Input &x, const uint8_t *from, int from_stride, int bytes,
                                          int n_rows) {
#if __CUDA_ARCH__ >= 900
    __shared__ uint64_t arrived;
    uint32_t barrier = shared_address(&arrived), to = shared_address(shared_memory() + x.at);
    if (threadIdx.x == 0) {
        arrival_init(barrier);
        arrival_expect(barrier, bytes * n_rows);
        for (int t = 0; t < n_rows; t++)
            bulk_copy(to + t * x.stride, from + (size_t)t * from_stride, bytes, barrier, READ_OFTEN);
    }
    __syncthreads();
    arrival_wait(barrier, 0);
#else
    for (int t = threadIdx.x / 32; t < n_rows; t += blockDim.x / 32)
#pragma unroll 4
        for (int i = threadIdx.x % 32 * 16; i < bytes; i += 32 * 16)
            *(uint4 *)(shared_memory() + x.at + t * x.stride + i) =
                __ldcg((const uint4 *)(from + (size_t)t * from_stride + i));
    __syncthreads();
#endif
}

// Several rows, as k_inputs left them.
template <int T, class Known>
__global__ void __launch_bounds__(threads_for(T), 1) k_product_of_rows(const __grid_constant__ Chain chain) {
    Room<T> room(chain);
    Ring ring(threadIdx.x / 32 * room.ring_bytes, chain.slot_bytes, chain.n_stages);
    List<T, false> list = {};
    list.fill(chain);
    for (int i = 0; i < chain.n_stages; i++) list.fetch(ring, i);
    const Product &p = chain.p[0];
    Worker<T> worker(p, chain.cut[0]);
    worker.at_parts = room.parts;
    worker.x = input_at(room.input, worker.cut.n_floats, worker.cut.n_tiles);
    Place<T, false> place = place_of<T, false>(p, worker.group);
    pdl_wait(), pdl_launch();
    int from = worker.origin_bytes();
    load_rows(worker.x, chain.inputs + from, chain.input_stride,
              min(worker.x.stride, chain.input_stride - from), chain.n_rows);
    for (int round = 0; round < worker.n_units; round += worker.cut.round) {
        if (chain.many_slices) list.fill(chain);
        multiply_round<T, Known, false>(worker, ring, list, place, round);
        Cluster::barrier(chain.n_pieces, true); // all parts are there
        write_round<T>(worker, round, chain.n_rows);
        Cluster::barrier(chain.n_pieces, false); // and have been read
    }
}

// ---- launcher -------------------------------------------------------------------------------------------

template <class Known> bool knows(const Chain &chain) {
    for (int i = 0; i < chain.n; i++)
        for (int s = 0; s < chain.p[i].n_segments; s++)
            if (!Known::know(chain.p[i].segment[s].w.type)) return false;
    return true;
}

// The first instance that knows the chain's types.
template <int T, class Known, class... Others>
cudaError_t launch_known(const Launch *l, const Chain &chain, const Cutting &cutting) {
    if constexpr (sizeof...(Others) > 0)
        if (!knows<Known>(chain)) return launch_known<T, Others...>(l, chain, cutting);
    if constexpr (T > 1)
        return launch_clusters(l, k_product_of_rows<T, Known>, chain.n_pieces,
                               cutting.n_teams * chain.n_pieces, threads_for(T), cutting.shared, chain);
    else if (chain.p[0].ids)
        return launch_kernel(l, k_products<Known, true>, cutting.n_teams, threads_for(T), cutting.shared,
                             chain);
    else
        return launch_kernel(l, k_products<Known, false>, cutting.n_teams, threads_for(T), cutting.shared,
                             chain);
}

// The mixes in which most models come.
template <int T> cudaError_t launch_rows(const Launch *l, const Chain &chain, const Cutting &cutting) {
    return launch_known<T, Types<QUANT_Q4_K, QUANT_Q6_K>, Types<QUANT_Q5_K, QUANT_Q6_K>, Types<QUANT_Q4_0>,
                        Types<QUANT_Q8_0>, Types<QUANT_F32, QUANT_F16, QUANT_BF16, QUANT_FP8_E4M3>, AllTypes>(
        l, chain, cutting);
}

cudaError_t launch_cut(const Launch *l, const Chain &chain, const Cutting &cutting) {
    switch (cutting.at_once) {
    case 1:
        return launch_rows<1>(l, chain, cutting);
    case 4:
        return launch_rows<4>(l, chain, cutting);
    case 8:
        return launch_rows<8>(l, chain, cutting);
    case 16:
        return launch_rows<16>(l, chain, cutting);
    default:
        return launch_rows<32>(l, chain, cutting);
    }
}

cudaError_t check(const Product *p) {
    if (p->norm && p->segment[0].w.n_in > LOADED)
        return cudaErrorInvalidValue; // the plan normalises such rows apart
    return p->ids && p->n_segments > 1 && !p->glu ? cudaErrorInvalidValue : cudaSuccess;
}

// Whether b has a's output as its input, by a link.
bool is_linked(const Launch *l, const Product &a, const Product &b) {
    int n = a.segment[0].w.n_out;
    return a.link && l->n_sm <= LINK_BLOCKS && a.segment[0].out == b.in.data &&
           b.segment[0].w.n_in == n && n % 4 == 0 && !a.ids && !b.ids;
}

} // namespace

extern "C" Product product_rows(Product p, int first) {
    p.in = rows_from(p.in, first);
    if (p.residual.data) p.residual = rows_from(p.residual, first);
    if (p.ids) p.ids += (size_t)first * p.ids_stride;
    for (int i = 0; i < p.n_segments; i++) p.segment[i].out += (size_t)first * p.segment[i].out_stride;
    return p;
}

extern "C" cudaError_t launch_products(const Launch *l, const Product *products, int n, int T) {
    if (n < 1 || n > MAX_PRODUCTS) return cudaErrorInvalidValue;
    Chain chain = {.n = n};
    bool linked = n == 1 || T == 1;
    for (int i = 0; i < n; i++) {
        chain.p[i] = products[i];
        cudaError_t error = check(&products[i]);
        if (error != cudaSuccess) return error;
        if (i) linked &= is_linked(l, products[i - 1], products[i]);
    }
    Cutting cutting;
    bool fits = cut_products(l, &chain, T, &cutting);
    if (n > 1 && !(fits && linked)) {
        for (int i = 0; i < n; i++) {
            cudaError_t error = launch_products(l, products + i, 1, T);
            if (error != cudaSuccess) return error;
        }
        return cudaSuccess;
    }
    if (!fits) return cudaErrorInvalidValue;
    int stride = chain.input_stride = cutting.row.stride;
    for (int done = 0; done < T; done += cutting.at_once) {
        Chain rows = chain;
        for (int i = 0; i < n; i++) rows.p[i] = product_rows(products[i], done);
        rows.n_rows = std::min(T - done, cutting.at_once);
        int ready = done % PRODUCT_ROWS; // of the rows that were made ready last
        if (cutting.at_once > 1 && ready == 0) {
            cudaError_t error = launch_kernel(l, k_inputs, std::min(T - done, (int)PRODUCT_ROWS), THREADS,
                                              stride, rows.p[0], cutting.row, l->inputs);
            if (error != cudaSuccess) return error;
        }
        rows.inputs = l->inputs + (size_t)ready * stride;
        cudaError_t error = launch_cut(l, rows, cutting);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
