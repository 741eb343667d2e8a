// fusion: the products of a single row, one after the other in one kernel, in which decoding spends its time.
//
//     o:    w x ---flags--+--> router ---flags---> choice of experts
//                         |                             |
//                         +-----------------------> gate, up ---flags---> down, sum ---flags---> q, k, v
//
// A block computes a part of the outputs of every product, and reads the whole output of an earlier one, or
// the input of the one before again, as a FlaggedOutput (launch.h): there is no barrier over the grid, and
// the prefetching of weights runs on from product to product.  It stops where it must: which experts'
// weights are read is known when the router's logits are.  All blocks choose them, each for itself, which
// takes less time than a kernel of its own or an exchange between blocks.
//
// Every block computes a norm between two products for itself, because it has to read the whole row anyway.
// It keeps the row in its shared memory, where the next norm finds its residual; block 0 writes the register.
//
// The results of a row's slots may be summed: then all slots' K-slices of a tile row are computed by one
// block, a few warps per slot, and its epilogue adds up what MOE_SUM would, in the same order.
#include <algorithm>

#include "../device/epilogue.cuh"
#include "../device/multiply.cuh"
#include "../device/route.cuh"

namespace {

// ---- flagged outputs ------------------------------------------------------------------------------------

// Float e of a flagged row, when it is of this epoch.
__device__ float wait_for(const FlaggedOutput *flagged, int e, uint32_t epoch) {
    uint32_t v;
    do {
        asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(flagged->row + e) : "memory");
    } while ((v ^ epoch) & 1);
    return without_flag(__uint_as_float(v));
}

__device__ void write_flagged(FlaggedOutput *flagged, int e, float y, uint32_t epoch) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(flagged->row + e),
                 "r"((__float_as_uint(y) & ~1u) | (epoch & 1))
                 : "memory");
}

// ---- reduction and epilogue -----------------------------------------------------------------------------

// The sum of n K-slices' partial sums of one output, from the first on.
__device__ __forceinline__ float reduce(const float *partial, int n_slices) {
    constexpr int STEP = PARTIAL_STRIDE<1>;
    float x[MAX_SLICES], sum = 0;
#pragma unroll
    for (int i = 0; i < MAX_SLICES; i++) x[i] = i < n_slices ? partial[i * STEP] : 0; // loads overlap
#pragma unroll
    for (int i = 0; i < MAX_SLICES; i++) sum += x[i];
    return sum;
}

// A thread's output of a tile batch.
template <bool EXPERTS> struct Epilogue {
    int matrix, row; // row of the matrix, or -1 for threads without an output
    float residual, factor;

    __device__ Epilogue(const WarpWork<1, EXPERTS> &work, int batch)
        : matrix(0), row(-1), residual(0), factor(1) {
        const Product &p = work.p;
        int tile_row = threadIdx.x / TILE_ROWS;
        if (tile_row >= work.split.batch || batch + tile_row >= work.n_tile_rows) return;
        TileRowCursor<1, EXPERTS> cursor = cursor_at<1, EXPERTS>(work, batch + tile_row);
        int to = cursor.row * TILE_ROWS + threadIdx.x % TILE_ROWS;
        if (to >= p.segment[cursor.segment(p)].w.n_out) return;
        matrix = cursor.matrix;
        row = to;
    }
    // What is added to the output, and the factor that a gate is.  A residual that this kernel wrote was
    // written by this block: in products of as many outputs a row belongs to the same block.
    template <class F>
    __device__ void load(const WarpWork<1, EXPERTS> &work, const F &fused, const uint32_t *epochs) {
        const Product &p = work.p;
        if (row < 0 || matrix > 0) return;
        if (p.residual.data) residual = __ldcg(row_of(p.residual, 0) + row);
        if (!EXPERTS) return;
        factor =
            p.gate_from < 0
                ? gate_factor(p.gate, 0, row)
                : gate_of(p.gate, wait_for(fused.p[p.gate_from].flagged, p.gate_at, epochs[p.gate_from]));
    }
    // flagged: whether another product follows in this kernel; the flags are then those of the epoch.
    __device__ void store(const WarpWork<1, EXPERTS> &work, bool flagged, uint32_t epoch) const {
        if (row < 0) return;
        const Product &p = work.p;
        bool experts = TileRowCursor<1, EXPERTS>::has_experts(p);
        const ProductSegment &s = p.segment[experts ? 0 : matrix];
        const float *partial =
            work.partials() +
            work.partial_index(threadIdx.x / TILE_ROWS) * (is_pair(p) ? 2 : 1) * work.matrix_step() +
            threadIdx.x % TILE_ROWS;
        int expert = experts && !p.summed ? work.chosen->id[matrix] : 0,
            at = experts ? matrix * s.w.n_out + row : row;
        float y;
        if (EXPERTS && p.summed) {
            y = fmaf(p.sum_scale, sum_of_slots(work, partial), residual);
        } else {
            float sum = reduce(partial, work.split.block_slices),
                  up = is_pair(p) ? reduce(partial + work.matrix_step(), work.split.block_slices) : 0;
            y = epilogue(p, s, (size_t)expert * s.w.n_out + row, sum, up, factor, residual);
        }
        int flag_at = at; // behind the outputs of the segments before
        for (int i = 0; !experts && i < matrix; i++) flag_at += p.segment[i].w.n_out;
        if (flagged) write_flagged(p.flagged, flag_at, y, epoch);
        s.out[at] = y;
    }

  private:
    __device__ float sum_of_slots(const WarpWork<1, EXPERTS> &work, const float *partial) const {
        const Product &p = work.p;
        const ProductSegment &s = p.segment[0];
        int n_slices = work.split.slot_slices;
        float sum = 0;
        for (int slot = 0; slot < p.n_used; slot++) {
            size_t w_row = (size_t)work.chosen->id[slot] * s.w.n_out + row;
            float y = epilogue(p, s, w_row, reduce(partial + slot * n_slices * PARTIAL_STRIDE<1>, n_slices),
                               0, 1, 0);
            sum = fmaf(work.chosen->weight[slot], y, sum);
        }
        return sum;
    }
};

// ---- kept rows ------------------------------------------------------------------------------------------

// The first output of product `from` of a fusion, which it waits for; n elements, of each of n_slots.
template <class F>
__device__ InputRow flagged_row(const F &fused, int from, int n, int n_slots, const uint32_t *epochs) {
    InputRow row = {(const float *)fused.p[from].flagged->row, n, n_slots, InputRow::FLAGGED,
                    epochs[from] & 1};
    row.wait();
    return row;
}

__device__ __forceinline__ float4 plus(float4 a, float4 b) { // never contracted with a product
    return make_float4(__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z), __fadd_rn(a.w, b.w));
}
__device__ __forceinline__ float4 times(float s, float4 a) {
    return make_float4(s * a.x, s * a.y, s * a.z, s * a.w);
}

// Kept rows, of which a thread has the elements that it loads of any row of their width.
struct Kept {
    int at, width; // bytes in shared memory

    __device__ float *row(int i) const { return (float *)(shared_memory() + at + i * kept_stride(width)); }
    __device__ InputRow input(int i) const { return {row(i), width, 1, InputRow::KEPT, 0}; }

    __device__ void load_first(const RegRows &from) const {
        const float *in = row_of(from, 0);
        for (int i = 0; i < VECTORS; i++) {
            int e = element_of<WARPS>(i);
            if (e < width) *(float4 *)(row(0) + e) = load4(in, e, width);
        }
    }
    // The same bytes as k_norm's.
    template <class F>
    __device__ void compute(const F &fused, const KeptNorm &norm, const uint32_t *epochs) const {
        float4 v[VECTORS], w[VECTORS];
        InputRow source = norm.from < 0 ? input(norm.kept) : flagged_row(fused, norm.from, width, 1, epochs);
        source.load<false>(v, 0, width);
        load_norm(norm.weight, width, w); // arrives while the sum is computed
        normalise(v, w, width, norm.eps);
#pragma unroll
        for (int i = 0; i < VECTORS; i++) {
            int e = element_of<WARPS>(i);
            if (e >= width) break;
            if (norm.add >= 0) v[i] = plus(v[i], *(const float4 *)(row(norm.add) + e));
            v[i] = times(norm.scale, v[i]);
            *(float4 *)(row(norm.to) + e) = v[i];
            if (blockIdx.x == 0) *(float4 *)(norm.out + e) = v[i];
        }
        __syncthreads(); // before another sum over the block
    }
};

// ---- the kernel -----------------------------------------------------------------------------------------

// The row's experts, by all threads: chosen here, or as a kernel before has written them.  scores:
// score_floats of shared memory.
template <class F>
__device__ void find_experts(const F &fused, uint32_t epoch, float *scores, Chosen *chosen) {
    const Route &r = fused.route;
    if (fused.router >= 0) {
        const FlaggedOutput *logits = fused.p[fused.router].flagged;
        choose_experts<THREADS>(
            r.moe, [&](int e) { return wait_for(logits, e, epoch); }, scores, chosen->id, chosen->weight);
        if (blockIdx.x == 0 && (int)threadIdx.x < r.moe.n_used) {
            ((int32_t *)row_of(r.ids, 0))[threadIdx.x] = chosen->id[threadIdx.x];
            row_of(r.weights, 0)[threadIdx.x] = chosen->weight[threadIdx.x];
        }
        return;
    }
    for (int slot = threadIdx.x; slot < fused.p[fused.first_expert].n_used; slot += THREADS) {
        chosen->id[slot] = r.ids.data ? __ldcg((const int32_t *)row_of(r.ids, 0) + slot) : slot;
        chosen->weight[slot] = r.weights.data ? __ldcg(row_of(r.weights, 0) + slot) : 0;
    }
    __syncthreads();
}

// What a kernel can do beyond plain products.  Code that a fusion does not need would cost it time.
//  EXPERTS: products of experts, and gates; KEPT: kept rows.
template <bool EXPERTS_, bool KEPT_> struct Kind {
    static constexpr bool EXPERTS = EXPERTS_, KEPT = KEPT_;
    using Parameters = Fused<EXPERTS ? MAX_PRODUCTS : MAX_PLAIN>;
};

// The kernel's parameters to shared memory.  A constant that no instruction has read before is fetched from
// far away, line by line, each when it is needed; these loads fetch all at once.
template <class P> __device__ void copy_parameters(const P &from, P *to) {
    static_assert(sizeof(P) % 16 == 0);
    for (unsigned at = threadIdx.x * 16; at < sizeof(P); at += THREADS * 16) {
        uint4 v;
        asm volatile("ld.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "l"((const char *)&from + at));
        *(uint4 *)((char *)to + at) = v;
    }
    __syncthreads();
}

template <class Included, class Kind>
__global__ void __launch_bounds__(threads_for(1) + ATTN_THREADS, 1)
    k_fusion(const __grid_constant__ typename Kind::Parameters parameters) {
    constexpr bool EXPERTS = Kind::EXPERTS;
    __shared__ typename Kind::Parameters fused;
    __shared__ uint32_t epochs[MAX_PRODUCTS];
    __shared__ Chosen chosen;
    copy_parameters(parameters, &fused);
    int partials = fused.partials;
    Ring ring(threadIdx.x / 32, fused.slot_bytes, fused.n_stages);
    PrefetchList<1, EXPERTS> list = {};
    int first_known = 0, n_known = fused.n; // products whose weights are known to be needed
    if constexpr (EXPERTS) n_known = fused.first_expert;
    list.fill(fused, 0, n_known, &chosen);
    for (int i = 0; i < fused.n_stages; i++) list.fetch(ring, i);
    if ((int)threadIdx.x < fused.n - 1) {
        uint32_t *epoch = fused.p[threadIdx.x].flagged->epoch + blockIdx.x;
        epochs[threadIdx.x] = *epoch = __ldcg(epoch) + 1;
    }
    for (int number = 0; number < fused.n; number++) {
        const Product &p = fused.p[number];
        WarpWork<1, EXPERTS> work(p, fused.split[number], {}, &chosen);
        work.partials_at = partials;
        work.x = input_at(fused.input, work.split.n_floats, work.split.n_tiles, 1);
        TileRowCursor<1, EXPERTS> cursor = cursor_at<1, EXPERTS>(work, work.group);
        Epilogue<EXPERTS> out(work, 0);
        Kept kept = {fused.kept, fused.kept_width};
        for (int i = 0; Kind::KEPT && i < fused.n_norms; i++)
            if (fused.norm[i].before == number) kept.compute(fused, fused.norm[i], epochs);
        if (number == 0) {
            pdl_wait();
            pdl_launch();
            if (Kind::KEPT && fused.first_kept.data) kept.load_first(fused.first_kept);
        }
        int next = 2 * fused.partials + fused.partial_bytes - partials; // the other copy
        if constexpr (EXPERTS)
            if (number == fused.first_expert) {
                uint32_t epoch = fused.router < 0 ? 0 : epochs[fused.router];
                find_experts(fused, epoch, (float *)(shared_memory() + next), &chosen);
                first_known = number;
                n_known = fused.n;
                list.resume(ring, fused, first_known, n_known, &chosen);
            }
        if (!p.same_input) {
            int n_in = p.segment[0].w.n_in, n_slots = EXPERTS && p.per_slot ? p.n_used : 1;
            float4 norm[VECTORS];
            load_norm(p.norm, n_in, norm);
            InputRow row = {row_of(p.in, 0), n_in, n_slots, InputRow::REGISTER, 0};
            if (p.from >= 0) row = flagged_row(fused, p.from, n_in, n_slots, epochs);
            if (Kind::KEPT && p.kept >= 0) row = kept.input(p.kept);
            load_row<EXPERTS>(p, work.x, row, norm);
        }
        int batch = 0;
        do { // once even by a block without tile rows: the barriers are for all threads
            partials = 2 * fused.partials + fused.partial_bytes - partials; // the other copy
            work.partials_at = partials;
            if (batch) out = Epilogue<EXPERTS>(work, batch);
            out.load(work, fused, epochs);
            if (fused.long_list) list.fill(fused, first_known, n_known, &chosen);
            if (batch == 0) __syncthreads(); // the input is complete
            multiply_batch<1, Included, EXPERTS>(work, ring, list, cursor, batch);
            __syncthreads(); // these partial sums are complete, and the others have been reduced
            out.store(work, number + 1 < fused.n, epochs[number]);
        } while ((batch += work.split.batch) < work.n_tile_rows);
    }
}

// ---- launcher -------------------------------------------------------------------------------------------

bool is_plain(const Fusion *c) {
    for (int i = 0; i < c->n; i++)
        if (c->p[i].n_used || c->p[i].gate.rows.data) return false;
    return true;
}

// Launches the first of the kernels that includes the products' types.
template <class Kind, class Included, class... Others>
cudaError_t launch_types(const Launch *l, const FusedProducts &fused, const LaunchPlan &plan) {
    if constexpr (sizeof...(Others) > 0)
        if (!includes<Included>(fused)) return launch_types<Kind, Others...>(l, fused, plan);
    return launch_kernel(l, k_fusion<Included, Kind>, plan.n_clusters, threads_for(1), plan.shared_bytes,
                         first_products<typename Kind::Parameters>(fused));
}

// The combinations of types that most model files have, with F32, the type of routers.
template <QuantType... INCLUDED> using Mix = Types<INCLUDED..., QUANT_F32>;
template <class... Mixes> struct MixList {
    static bool includes_all(const FusedProducts &fused) { return (includes<Mixes>(fused) || ...); }
    template <bool EXPERTS>
    static cudaError_t launch(const Launch *l, const FusedProducts &fused, const LaunchPlan &plan) {
        return fused.n_kept ? launch_types<Kind<EXPERTS, true>, Mixes..., AllTypes>(l, fused, plan)
                            : launch_types<Kind<EXPERTS, false>, Mixes..., AllTypes>(l, fused, plan);
    }
};
using Mixes =
    MixList<Mix<QUANT_Q4_K, QUANT_Q6_K>, Mix<QUANT_Q5_K, QUANT_Q6_K>, Mix<QUANT_Q4_0>, Mix<QUANT_Q8_0>,
            Mix<QUANT_Q8_0, QUANT_MXFP4>, Mix<QUANT_Q4_K, QUANT_Q6_K, QUANT_Q5_0, QUANT_Q8_0>,
            Types<QUANT_F32, QUANT_F16, QUANT_BF16, QUANT_FP8_E4M3>>;

bool fuse(const Fusion *c, FusedProducts *fused) {
    *fused = {};
    fused->n = fused->first_expert = c->n;
    (KeptRows &)*fused = c->kept;
    fused->route = c->route;
    fused->router = c->router;
    for (int i = 0; i < c->n; i++) {
        fused->p[i] = c->p[i];
        if (c->p[i].n_used > MAX_CHOSEN) return false;
        if (c->p[i].n_used) fused->first_expert = std::min(fused->first_expert, i);
    }
    return true;
}

// Whether a product of the fusion can read its input.
bool can_read(const Fusion *c, int i) {
    const Product &p = c->p[i];
    int n_in = p.segment[0].w.n_in;
    if (p.same_input) return i > 0;
    if (p.kept >= 0) return n_in == c->kept.kept_width && !p.per_slot;
    if (p.from < 0) return i == 0;
    if (p.from >= i || !c->p[p.from].flagged) return false;
    const Product &before = c->p[p.from];
    bool slots = before.n_used && !before.summed;
    return n_in % 4 == 0 && n_in == before.segment[0].w.n_out && slots == p.per_slot &&
           (!slots || before.n_used == p.n_used);
}

// Whether the kept rows can be computed.
bool can_keep(const Fusion *c) {
    const KeptRows *kept = &c->kept;
    if (kept->kept_width % 4 || kept->kept_width > LOADED) return false;
    for (int i = 0; i < kept->n_norms; i++) {
        int from = kept->norm[i].from;
        if (from >= 0 &&
            (from >= c->n || !c->p[from].flagged || c->p[from].segment[0].w.n_out != kept->kept_width))
            return false;
    }
    return true;
}

// Splits the work of a fusion; false where one kernel cannot run it.
bool plan_fusion(const Launch *l, const Fusion *c, FusedProducts *fused, LaunchPlan *plan) {
    if (c->n > 1 && l->n_sm > MAX_FLAGGED_BLOCKS) return false;
    if (c->n > MAX_PLAIN && is_plain(c)) return false;
    for (int i = 0; i < c->n; i++)
        if (!can_read(c, i) || (i + 1 < c->n && !c->p[i].flagged)) return false;
    if (!can_keep(c) || !fuse(c, fused)) return false;
    // Code for all types and for experts is too long for the instruction cache: single kernels are faster.
    if (c->n > 1 && !is_plain(c) && !Mixes::includes_all(*fused)) return false;
    bool fits = plan_launch(l, fused, 1, plan) && !fused->group_rows;
    return fits && (c->n == 1 || fused->n_stages >= MIN_STAGES);
}

} // namespace

extern "C" Fusion fusion_of(const Product *p) {
    Fusion c = {.p = {*p}, .n = 1, .router = -1};
    c.p[0].from = c.p[0].kept = c.p[0].gate_from = -1;
    c.p[0].same_input = false;
    c.route.ids = {(float *)p->ids, p->ids_stride, nullptr};
    return c;
}

extern "C" bool fusion_fits(const Launch *l, const Fusion *c) {
    FusedProducts fused;
    LaunchPlan plan;
    return plan_fusion(l, c, &fused, &plan);
}

extern "C" cudaError_t launch_fusion(const Launch *l, const Fusion *c) {
    FusedProducts fused;
    LaunchPlan plan;
    for (int i = 0; i < c->n; i++) {
        cudaError_t error = product_check(&c->p[i]);
        if (error != cudaSuccess) return error;
    }
    if (!plan_fusion(l, c, &fused, &plan)) return cudaErrorInvalidValue;
    return is_plain(c) ? Mixes::launch<false>(l, fused, plan) : Mixes::launch<true>(l, fused, plan);
}
