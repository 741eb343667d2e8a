// recurrence: SCAN and DELTA, row after row.
//
// Both keep a matrix S of [k_dim][v_dim] per head, and do for each row, with g and `gain` numbers of the row
// (g in DELTA also one for each of the k_dim channels),
//
//     S = g S;  u = gain * (v - k^T S) in DELTA, gain * v in SCAN;  S = S + k u^T;  out = q^T S
//
// The columns of S do not depend on each other, and q^T (S + k u^T) is q^T S + (q k) u: so a row reads S once,
// for both products, and changes it once.  A thread has N elements of one column in registers for all rows of
// a run; the PARTS lanes that share a column add up their sums.  What a row needs beside S (k and q of length
// 1, g, gain, q k) is computed once per block, for TILE rows at a time, and kept in shared memory: while the
// rows of a tile are computed, the inputs of the next one are on their way.
//
// The state in the cache is [n_head][v_dim][k_dim].  The same kernel computes a row of a prompt and one of a
// decode step, with the same bits.
#include "../device/activation.cuh"
#include "../device/device.cuh"
#include "../device/four.cuh"
#include "../device/state.cuh"

namespace {

constexpr int WARPS = 8, THREADS = WARPS * 32;
constexpr int PARTS = 8;                 // lanes that share a column
constexpr int COLUMNS = THREADS / PARTS; // of a block
constexpr int TILE = 16;                 // rows
constexpr int WARP_ROWS = TILE / WARPS;  // rows of a tile that a warp prepares
static_assert(COLUMNS == 32, "a lane loads v of one column");

enum Rule { SCAN, DELTA, DELTA_CHANNELS }; // the last with a decay of each channel

// The inputs of a row as a warp loads them: lane l has elements 4 l + 128 i of k and q.
template <int N, Rule RULE> struct Inputs {
    static constexpr int FOURS = N * PARTS / 128, DECAYS = RULE == DELTA_CHANNELS ? FOURS : 1;
    float4 k[FOURS], q[FOURS], decays[DECAYS];
    float v, decay, gain, gate;
};

// TILE rows, ready to be used: k and q of all elements, v of the block's columns.
template <int N, Rule RULE> struct Tile {
    static constexpr int K = N * PARTS;
    float k[TILE][K], q[TILE][K], decays[RULE == DELTA_CHANNELS ? TILE : 1][K];
    float v[TILE][COLUMNS], factor[RULE == SCAN ? TILE : 1][COLUMNS]; // the activation of the gate
    float4 numbers[TILE];                                             // g, gain, q k, none
};

__device__ float softplus(float x) {
    return x > 20 ? x : log1pf(expf(x));
}

__device__ float dot(float4 a, float4 b) {
    return fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, a.w * b.w)));
}

__device__ float4 times(float4 a, float b) {
    return make_float4(a.x * b, a.y * b, a.z * b, a.w * b);
}

// A head, and the block's columns of it.
struct Head {
    int number, key, column; // of v, of k and q; the first column
    float a, dt_bias, d;

    __device__ explicit Head(const Recurrence &r) {
        int blocks = (r.v_dim + COLUMNS - 1) / COLUMNS;
        number = blockIdx.x / blocks;
        column = blockIdx.x % blocks * COLUMNS;
        key = r.k_tiled ? number % r.n_k_head : number / (r.n_head / r.n_k_head);
        a = r.a[number];
        dt_bias = r.dt_bias && !r.per_channel ? r.dt_bias[number] : 0;
        d = r.d ? r.d[number] : 0;
    }
};

template <int N, Rule RULE>
__device__ void load(const Recurrence &r, const Head &h, int row, Inputs<N, RULE> *in) {
    int lane = threadIdx.x % 32;
    const float *k = row_of(r.k, row) + h.key * r.k_dim, *q = row_of(r.q, row) + h.key * r.k_dim,
                *decay = row_of(r.decay, row);
#pragma unroll
    for (int i = 0; i < in->FOURS; i++) {
        in->k[i] = load4(k, 4 * lane + 128 * i, r.k_dim);
        in->q[i] = load4(q, 4 * lane + 128 * i, r.k_dim);
        if constexpr (RULE == DELTA_CHANNELS)
            in->decays[i] = load4(decay + h.number * r.k_dim, 4 * lane + 128 * i, r.k_dim);
    }
    int at = h.number * r.v_dim + h.column + lane;
    bool has_column = h.column + lane < r.v_dim;
    in->v = has_column ? __ldcg(row_of(r.v, row) + at) : 0;
    in->gate = RULE == SCAN && r.gate.data && has_column ? __ldcg(row_of(r.gate, row) + at) : 0;
    in->decay = RULE == DELTA_CHANNELS ? 0 : __ldcg(decay + h.number);
    in->gain = RULE == SCAN ? 0 : __ldcg(row_of(r.beta, row) + h.number);
}

// g of the four channels from `element` on; those behind the last are not used.
__device__ float4 decays_of(const Recurrence &r, const Head &h, int element, float4 in) {
    float4 bias = load4(r.dt_bias + h.number * r.k_dim, element, r.k_dim);
    return make_float4(expf(h.a * softplus(in.x + bias.x)), expf(h.a * softplus(in.y + bias.y)),
                       expf(h.a * softplus(in.z + bias.z)), expf(h.a * softplus(in.w + bias.w)));
}

// Row i of a tile, from its inputs.
template <int N, Rule RULE>
__device__ void prepare(const Recurrence &r, const Head &h, const Inputs<N, RULE> &in, int i,
                        Tile<N, RULE> *tile) {
    int lane = threadIdx.x % 32;
    float kk = 0, qq = 0, qk = 0;
#pragma unroll
    for (int f = 0; f < in.FOURS; f++) {
        kk += dot(in.k[f], in.k[f]);
        qq += dot(in.q[f], in.q[f]);
        qk += dot(in.q[f], in.k[f]);
    }
    float k_scale = 1, q_scale = 1, dt = softplus(in.decay + h.dt_bias), gain = dt;
    if (RULE != SCAN) {
        k_scale = 1 / fmaxf(sqrtf(warp_sum(kk)), r.eps);
        q_scale = r.scale / fmaxf(sqrtf(warp_sum(qq)), r.eps);
        gain = 1 / (1 + expf(-in.gain));
    }
    qk = warp_sum(qk) * k_scale * q_scale;
#pragma unroll
    for (int f = 0; f < in.FOURS; f++) {
        int element = 4 * lane + 128 * f;
        *(float4 *)(tile->k[i] + element) = times(in.k[f], k_scale);
        *(float4 *)(tile->q[i] + element) = times(in.q[f], q_scale);
        if constexpr (RULE == DELTA_CHANNELS)
            *(float4 *)(tile->decays[i] + element) = decays_of(r, h, element, in.decays[f]);
    }
    tile->v[i][lane] = in.v;
    if constexpr (RULE == SCAN) tile->factor[i][lane] = r.gate.data ? activate(r.gate_act, in.gate) : 1;
    if (lane == 0) tile->numbers[i] = make_float4(expf(h.a * dt), gain, qk, 0);
}

// The sum over the lanes of a column, in each of them.
__device__ float column_sum(float v) {
#pragma unroll
    for (int offset = PARTS / 2; offset; offset >>= 1) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}

// A thread's elements of S: 4 (part + PARTS i) .. + 3 of its column.
template <int N> struct State {
    float4 s[N / 4];

    __device__ static int element(int i) { return 4 * ((int)threadIdx.x % PARTS + PARTS * i); }

    __device__ void read(const float *column, int k_dim) {
#pragma unroll
        for (int i = 0; i < N / 4; i++)
            s[i] = column ? load4(column, element(i), k_dim) : make_float4(0, 0, 0, 0);
    }
    __device__ void write(float *column, int k_dim) const {
#pragma unroll
        for (int i = 0; i < N / 4; i++) store4(column, element(i), k_dim, s[i]);
    }

    // Row i of a tile; returns out of the thread's column.
    template <Rule RULE> __device__ float step(const Tile<N, RULE> &tile, int i, int column) {
        const float4 numbers = tile.numbers[i];
        const float v = tile.v[i][column], g = RULE == DELTA_CHANNELS ? 1 : numbers.x;
        float4 k[N / 4], recalled = make_float4(0, 0, 0, 0), queried = recalled;
#pragma unroll
        for (int j = 0; j < N / 4; j++) {
            k[j] = *(const float4 *)(tile.k[i] + element(j));
            float4 q = *(const float4 *)(tile.q[i] + element(j));
            if constexpr (RULE == DELTA_CHANNELS) {
                float4 decay = *(const float4 *)(tile.decays[i] + element(j));
                s[j] = make_float4(s[j].x * decay.x, s[j].y * decay.y, s[j].z * decay.z, s[j].w * decay.w);
            }
            if constexpr (RULE != SCAN) add_products(&recalled, k[j], s[j]);
            add_products(&queried, q, s[j]);
        }
        float u = numbers.y * v;
        if constexpr (RULE != SCAN) u = numbers.y * (v - g * column_sum(sum_of(recalled)));
#pragma unroll
        for (int j = 0; j < N / 4; j++)
            s[j] = make_float4(fmaf(k[j].x, u, g * s[j].x), fmaf(k[j].y, u, g * s[j].y),
                               fmaf(k[j].z, u, g * s[j].z), fmaf(k[j].w, u, g * s[j].w));
        return fmaf(numbers.z, u, g * column_sum(sum_of(queried)));
    }

    // sum += a b, element by element.
    __device__ static void add_products(float4 *sum, float4 a, float4 b) {
        *sum = make_float4(fmaf(a.x, b.x, sum->x), fmaf(a.y, b.y, sum->y), fmaf(a.z, b.z, sum->z),
                           fmaf(a.w, b.w, sum->w));
    }
    __device__ static float sum_of(float4 v) {
        return (v.x + v.y) + (v.z + v.w);
    }
};

template <int N, Rule RULE>
__global__ void __launch_bounds__(THREADS) k_recurrence(const __grid_constant__ Recurrence r) {
    extern __shared__ __align__(16) uint8_t shared[];
    Tile<N, RULE> *tiles = (Tile<N, RULE> *)shared; // two, or one where no run is longer
    int warp = threadIdx.x / 32, column = threadIdx.x / PARTS;
    Head h(r);
    Run run(r.runs, r.cache, blockIdx.y);
    bool has_column = h.column + column < r.v_dim;
    size_t at = ((size_t)h.number * r.v_dim + h.column + column) * r.k_dim; // of the column in the state
    Inputs<N, RULE> in[WARP_ROWS];
    auto load_tile = [&](int base) { // of the run's rows from `base` on
#pragma unroll
        for (int i = 0; i < WARP_ROWS; i++) {
            int row = base + i * WARPS + warp;
            if (row < run.n) load(r, h, run.first + row, &in[i]);
        }
    };
    auto prepare_tile = [&](int base) {
#pragma unroll
        for (int i = 0; i < WARP_ROWS; i++) {
            int row = base + i * WARPS + warp;
            if (row < run.n) prepare(r, h, in[i], row - base, &tiles[base / TILE % 2]);
        }
    };
    State<N> state;
    state.read(run.from && has_column ? run.from + at : nullptr, r.k_dim);
    pdl_wait();
    pdl_launch();
    load_tile(0);
    prepare_tile(0);
    __syncthreads();
    for (int base = 0; base < run.n; base += TILE) {
        load_tile(base + TILE);
        const Tile<N, RULE> &tile = tiles[base / TILE % 2];
        int n = min(TILE, run.n - base);
        for (int i = 0; i < n; i++) {
            float out = fmaf(h.d, tile.v[i][column], state.step(tile, i, column));
            if constexpr (RULE == SCAN) out *= tile.factor[i][column];
            if (has_column && threadIdx.x % PARTS == 0)
                row_of(r.out, run.first + base + i)[h.number * r.v_dim + h.column + column] = out;
        }
        prepare_tile(base + TILE); // the other tile, which all warps have left behind the last barrier
        __syncthreads();
    }
    if (run.to && has_column) state.write(run.to + at, r.k_dim);
}

template <int N, Rule RULE> cudaError_t launch(const Launch *l, const Recurrence *r) {
    dim3 grid(r->n_head * ((r->v_dim + COLUMNS - 1) / COLUMNS), r->runs.n);
    size_t n_tiles = r->runs.longest > TILE ? 2 : 1;
    return launch_kernel(l, k_recurrence<N, RULE>, grid, THREADS, n_tiles * sizeof(Tile<N, RULE>), *r);
}

template <int N> cudaError_t launch_rule(const Launch *l, const Recurrence *r) {
    if (!r->delta) return launch<N, SCAN>(l, r);
    return r->per_channel ? launch<N, DELTA_CHANNELS>(l, r) : launch<N, DELTA>(l, r);
}

} // namespace

extern "C" cudaError_t launch_recurrence(const Launch *l, const Recurrence *r) {
    if (r->k_dim < 1 || r->k_dim > RECURRENCE_MAX_K || r->n_head % r->n_k_head) return cudaErrorInvalidValue;
    return r->k_dim <= 16 * PARTS ? launch_rule<16>(l, r) : launch_rule<32>(l, r);
}
