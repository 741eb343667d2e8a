/* launch: one function per kernel of the tape, with a C signature.
 *
 * A launcher checks its preconditions, chooses the grid, launches on the stream and returns the launch's
 * error.  All pointers are device memory.  Sizes that vary from step to step (positions, tokens) are read by
 * the kernels from device memory, so that a captured step can be replayed; T and R are those of the bucket
 * that is captured.  Rows of padding have seq -1: they are computed like the others, but their keys and
 * values are not written to the cache and no token is sampled for them.
 *
 * An op reads and writes rows of registers, and each register is given as a RegRows: a register may be a
 * range of columns of another one, so a stride is independent of a width, and the floats between two rows
 * are not the op's. */
#ifndef ZGEN_CUDA_LAUNCH_H
#define ZGEN_CUDA_LAUNCH_H

#include <cuda_runtime.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "layout.h"
#include "../src/exec/cache.h"
#include "../src/exec/sample.h"
#include "../src/gguf/quant.h"
#include "../src/plan/op.h"

/* ---- Where a kernel runs ---- */

enum { MAX_CLUSTER = 4 }; // blocks of a cluster

typedef struct Launch {
    cudaStream_t stream;
    int n_sm;
    int n_clusters[MAX_CLUSTER + 1]; // [2], [4]: clusters of so many blocks that run at once, a block per SM
    size_t shared_max;               // bytes of shared memory that a block may have
    bool dependent;                  // programmatic dependent launch: sm_90 and later
} Launch;

cudaError_t launch_for_device(int device, Launch *l); // all but the stream

/* ---- Registers ---- */

/* Rows of a register: row i of an op is row map[i] of the register, or row i where map is NULL. */
typedef struct RegRows {
    float *data;
    int stride;     // floats from row to row of the register
    const int *map; // [n] rows of the register, or NULL
} RegRows;

/* The rows from row `first` of the op on. */
static inline RegRows rows_from(RegRows r, int first) {
    if (r.map)
        r.map += first;
    else
        r.data += (size_t)first * (size_t)r.stride;
    return r;
}

/* ---- Weights ---- */

/* Before the tiles of a matrix of blocks: the bits of a float at least 512 times as large as the finite scale
 * of any block, and 2^-15 times as large as any minimum. */
enum { WEIGHT_HEAD_BYTES = 256 };

typedef struct DeviceWeight {
    QuantType type;
    int n_in, n_out, n_expert;
    Layout layout;
    const uint8_t *data; // tile i of tile row r of expert e: number (e * n_tile_rows + r) * n_tiles + i
    const float *scale;  // [n_expert * n_out] or NULL
} DeviceWeight;

/* EMBED: row[t] of w, a token or a position, times its scale and `factor`, to row t of out, whose rows begin
 * at multiples of 16 bytes. */
cudaError_t launch_embed(const Launch *l, const DeviceWeight *w, const int32_t *row, float factor, int T,
                         RegRows out);

/* ---- Products of few rows: 8-bit activations for block types, exact integer sums of each block ---- */

/* A factor of a row's outputs: one value, or if it is wide as many as there are outputs; or sigmoids of
 * these. */
typedef struct Gate {
    RegRows rows; // or no data: 1
    bool wide, sigmoid;
} Gate;

typedef struct ProductSegment {
    DeviceWeight w;
    const float *bias; // [n_expert][n_out] or NULL
    float *out;        // [T][out_stride]
    int out_stride;
} ProductSegment;

/* The outputs of a product in a form that other products can read while all run in one kernel: the
 * lowest bit of each float is the parity of the epoch that wrote it, so that a reader sees of each float
 * whether it is of this epoch.  An epoch is one run of the product; each block counts its own.  All zero at
 * first. */
enum { MAX_FLAGGED_BLOCKS = 256 };
typedef struct FlaggedOutput {
    uint32_t epoch[MAX_FLAGGED_BLOCKS]; // of each block
    uint32_t row[];                     // the outputs of all segments
} FlaggedOutput;

/* MATMUL, EXPERT and LOGITS: out = scale * (w in * scale_of_rows + bias), of up to four segments with one
 * input; the first one, times the gate, + residual; all with a softcap.  The input is normalised first
 * where there is a norm.  With an activation two segments make one output, act(first) * second + residual,
 * written to the first's out, and one segment makes act(first).  No input may overlap an output, which
 * holds partial results until the end.
 *
 * A product of experts has one segment, or a pair with an activation, and no residual unless it is summed;
 * inputs by slot are not normalised. */
enum { MAX_EXPERTS = 1024 };
typedef struct Product {
    ProductSegment segment[OP_MAX_SEGMENTS];
    int n_segments;
    RegRows in;
    const float *norm; // weight [n_in] of the RMS norm applied to in, or NULL
    float norm_eps;
    Activation act;       // of a pair, or ACT_NONE
    Activation act_alone; // of one segment, or ACT_NONE
    float scale, softcap; // of the results: 1, 0 where there are none
    Gate gate;
    RegRows residual;       // or no data, as with experts; in rows of whole 16 bytes
    FlaggedOutput *flagged; // the outputs, if another product may follow in the same kernel, or NULL
    const int32_t *ids;     // experts of each row, n_used in rows ids_stride apart; NULL: slot s has matrix s
    int ids_stride;         // slot s of n_used writes out + s * n_out and, if per_slot, reads in + s * n_in
    int n_used;             // 0: a product without experts
    bool per_slot;
    /* In a fusion: */
    bool summed; // out = residual + sum_scale * sum over slots of the slot's weight times what it gives
    float sum_scale;
    int from;               // the product of the fusion whose first output is the input, or -1
    int kept;               // the kept row that is the input, or -1; both -1: a register, or same_input
    bool same_input;        // the input, normalised alike, is that of the product before
    int gate_from, gate_at; // the product whose outputs have the gate, and where; -1: a register
} Product;

/* The product of its rows from `first` on. */
Product product_rows(Product p, int first);

/* A product of T rows (any T; beyond a few dozen launch_wide is faster).  The bytes of a row do not depend on
 * T.  scratch: product_scratch_bytes, which reads no address. */
cudaError_t launch_products(const Launch *l, const Product *p, int T, void *scratch);
size_t product_scratch_bytes(const Product *p);
cudaError_t product_check(const Product *p);

/* Whether a block's shared memory has room for an input row of the product, of which no address is read. */
bool product_fits(const Launch *l, const Product *p);

/* A product of experts of many rows, with f16 weights and activations and f32 sums on the tensor cores: each
 * expert's weights are read once, or once in 128 of its rows, and go from their tiles to f16 in registers; of
 * a pair both are of one type.  Where a block's shared memory has no room for that, launch_products. */
cudaError_t launch_experts(const Launch *l, const Product *p, int T, void *scratch);
size_t experts_scratch_bytes(const Product *p, int T); // reads no address

/* ---- Products of many rows: f16 weights and activations, f32 sums, on the tensor cores ---- */

/* A product of T rows without experts.  The bytes of a row depend on its own input, the matrix and `sliced`
 * alone.  sliced: the sums are cut, where that makes the work of few rows even. */
cudaError_t launch_wide(const Launch *l, const Product *p, int T, bool sliced, void *scratch);
size_t wide_scratch_bytes(const Launch *l, const Product *p, int T); // reads no address

/* The library's product, for comparison: out = b a^T, of [n][n] matrices of f16, out in f32.  gemm_open takes
 * long, because cuBLASLt's first answer does; NULL where that is missing or fails. */
typedef struct Gemm Gemm;
Gemm *gemm_open(int n);
void gemm_close(Gemm *g);
cudaError_t launch_gemm(Gemm *g, const Launch *l, const void *a, const void *b, float *out);

/* ---- Rows: NORM, ADD, GLU, SLICE, JOIN ---- */

/* NORM of n rows of `width` floats, or of each head of them: out = (in - mean) / sqrt(mean of squares + eps)
 * * weight + bias, times gate_act(gate), plus residual, times sum_scale; the mean is 0 unless the norm is
 * centred. */
typedef struct Norm {
    RegRows in, gate, residual, out; // gate and residual may have no data
    Activation gate_act;
    const float *weight, *bias; // [width], or [head_dim] of heads that share them; or NULL
    float eps, sum_scale;
    int width, head_dim; // head_dim 0: the whole row
    bool centred, per_head;
} Norm;
cudaError_t launch_norm(const Launch *l, const Norm *norm, int n);

/* ADD of n rows: out = scale * (a_scale * a + b). */
cudaError_t launch_add(const Launch *l, RegRows a, RegRows b, const AddParams *add, int width, int n,
                       RegRows out);

/* GLU of n rows: out = act(gate) * up, or act(gate). */
typedef struct Glu {
    GluParams params;
    RegRows gate;    // [width / columns_per_gate]
    RegRows up, out; // [width]; up may have no data
    int width, columns_per_gate;
} Glu;
cudaError_t launch_glu(const Launch *l, const Glu *g, int n);

/* SLICE of n rows, to out[width]. */
cudaError_t launch_slice(const Launch *l, RegRows in, const SliceParams *slice, int width, int n,
                         RegRows out);

/* JOIN of n rows: of each of n_head heads a_dim columns of a, then b_dim of b. */
typedef struct Join {
    RegRows a, b, out;
    int a_dim, b_dim, n_head;
} Join;
cudaError_t launch_join(const Launch *l, const Join *j, int n);

/* ---- Experts: ROUTE, MOE_SUM ---- */

/* ROUTE of n rows: the experts of the n_used largest scores, the lower id first where two are equal, and
 * their weights; at most MAX_EXPERTS experts in at most 32 groups. */
typedef struct Route {
    RegRows logits;  // [n_expert]
    MoeParams moe;   // its bias in device memory
    RegRows ids;     // out: int32_t [n_used] in place of floats
    RegRows weights; // out: [n_used]
} Route;
cudaError_t launch_route(const Launch *l, const Route *r, int n);

/* MOE_SUM of n rows: out = residual + scale * sum over s < n_used of weights[s] * in[s]. */
typedef struct MoeSum {
    RegRows in;      // [n_used][width]
    RegRows weights; // [n_used]
    int n_used, width;
    float scale;
    RegRows residual; // [width], or no data
    RegRows out;      // [width]
} MoeSum;
cudaError_t launch_moe_sum(const Launch *l, const MoeSum *m, int n);

/* ---- A single row: several products in one kernel ---- */

enum { MAX_PRODUCTS = 7 };
enum { MAX_SUMMED = 16 }; // slots whose results a product can sum
enum { MAX_KEPT = 2, MAX_KEPT_NORMS = 4 };

/* NORM within a fusion.  Every block computes the row for itself and keeps it in shared memory:
 * kept[to] = scale * (norm(source) + kept[add]). */
typedef struct KeptNorm {
    const float *weight;
    float *out; // the row's register
    float eps, scale;
    int8_t before;     // the product before whose input it is computed
    int8_t from, kept; // the source: the first output of an earlier product, or a kept row; the other is -1
    int8_t add, to;    // kept rows; add may be -1
} KeptNorm;

typedef struct KeptRows {
    RegRows first_kept; // kept[0] at first, or no data
    KeptNorm norm[MAX_KEPT_NORMS];
    int n_norms, n_kept, kept_width; // kept rows, of as many floats
} KeptRows;

/* The products of one row, each of which reads the first output of an earlier one, the input of the one
 * before it, or a kept row; a gate may be another output of an earlier one.  Those of experts have the same
 * ids, which are in `route`. */
typedef struct Fusion {
    Product p[MAX_PRODUCTS];
    int n;
    KeptRows kept;
    int router;  // the product whose first output ROUTE reads; -1: ids and weights are in registers
    Route route; // ROUTE, or these registers; ids without data: slot s has matrix s
} Fusion;
Fusion fusion_of(const Product *p); // it alone
bool fusion_fits(const Launch *l, const Fusion *c);
cudaError_t launch_fusion(const Launch *l, const Fusion *c);

/* ---- The cache and attention ---- */

/* The RMS norm of each head of a row. */
typedef struct HeadNorm {
    const float *weight; // [head_dim]; NULL: no norm
    float eps;
} HeadNorm;

/* The rotation of n_rot dimensions of each head, from `first` on.  Within attention `first`, n_rot and, by
 * halves, n_rot / 2 are even. */
typedef struct Rotation {
    const double *frequency; // [n_rot / 2]: radians by which a pair rotates from one position to the next
    int n_rot, first;        // n_rot 0: none
    RopePairing pairing;
    float magnitude; // cosine and sine are multiplied by it
} Rotation;

/* Rows of a launch in consecutive positions of one sequence. */
typedef struct AttnPiece {
    int32_t first, n;
} AttnPiece;

/* ATTN of T rows, in full: heads of q and of the new keys are normalised, then rotated, those of the new
 * values normalised; new keys and values are put into the cache; out[t] = softmax(scale * q[t] K^T) V over
 * the positions that row t sees. */
typedef struct Attn {
    RegRows q, out; // [n_head * head_dim], [n_head * v_dim]
    RegRows k, v;   // new rows, [n_kv_head * head_dim], [n_kv_head * v_dim]; no data: the cache has them
    HeadNorm q_norm, k_norm, v_norm;
    Rotation rotation;
    const AttnParams *params; // heads, mask and scores; no pointers or norms or rotation of it are used
    const float *sinks;       // [n_head], or NULL
    CacheView cache;
    const int32_t *seq, *position; // [T]
    int T;
    const AttnPiece *piece; // prompt: [n_pieces], of T rows at most
    int n_pieces;
    void *scratch; // decode: attn_scratch_bytes, zero before the first launch
} Attn;

/* All of ATTN that comes before scores: changes q in place, keys on their way into the cache, and puts k and
 * v there.  Each of q, k and v may be missing.  Rows of padding write nothing.  attn_prepared is what is left
 * to do behind it. */
cudaError_t launch_rope_kvput(const Launch *l, const Attn *a);
Attn attn_prepared(Attn a);

/* ROPE: rotates rows [n_head * head_dim] in place, any dimensions of them. */
cudaError_t launch_rope(const Launch *l, RegRows x, int n_head, int head_dim, const Rotation *rotation,
                        const int32_t *position, int T);

/* ATTN.  decode: rows of any sequences, few of each; a sequence is split over blocks.  With new rows every
 * row is the newest of a sequence of its own, and the bits are those of launch_rope_kvput before; q stays
 * as it is.  prompt: the rows of some pieces, in tiles on the tensor cores, all of whose new rows are in the
 * cache. */
cudaError_t launch_attn_decode(const Launch *l, const Attn *a);
cudaError_t launch_attn_prompt(const Launch *l, const Attn *a);
size_t attn_scratch_bytes(int T, const AttnParams *params, bool v_in_k, int n_sm);

/* The executor's copy of the page tables: tables[first..first + n) = ids[n], host memory that may be reused
 * when the call returns: the ids are launch parameters. */
cudaError_t launch_page_ids(const Launch *l, int32_t *tables, size_t first, const int32_t *ids, int n);

/* ---- States: CONV, SCAN, DELTA ---- */

/* The rows of an op with a state, which lies in the cache: run i is rows first[i]..first[i + 1] - 1, of one
 * sequence in consecutive positions; where first is NULL, row i.  No two runs are of one sequence.  A run
 * reads the state behind the positions before it, zeros at position 0, and writes the one behind its last
 * row; one of padding reads zeros and writes none.  The bytes of a row do not depend on how its sequence is
 * cut into runs. States are read before the kernel before has ended, unless that one may have written them. */
typedef struct Runs {
    const int32_t *seq, *position; // [T]
    const int32_t *first;          // [n + 1] or NULL
    int n, longest;                // runs; rows of the longest one
    bool behind_runs;              // the kernel before is the same op on other runs of these sequences
} Runs;

/* CONV: out = act(sum over k of weight[k] * in[k - n_tap + 1] + bias) * gate_act(gate), by columns and rows of
 * a run; in is multiplied by `factor` before. */
typedef struct Conv {
    RegRows in, out;      // [width]
    RegRows factor, gate; // [width], or no data
    Activation gate_act;
    int width, n_tap;
    const float *weight; // [width][n_tap]
    const float *bias;   // [width] or NULL
    Activation act;
    CacheView cache;
    Runs runs;
} Conv;
cudaError_t launch_conv(const Launch *l, const Conv *c);

/* SCAN, and with delta DELTA.  x of SCAN is v, its B is k, its C is q, its dt is decay, its groups are key
 * heads. */
enum { RECURRENCE_MAX_K = 256 };
typedef struct Recurrence {
    RegRows q, k;   // [n_k_head][k_dim]
    RegRows v, out; // [n_head][v_dim]
    RegRows decay;  // [n_head], or with per_channel [n_head][k_dim]
    RegRows beta;   // DELTA: [n_head]
    RegRows gate;   // SCAN: [n_head][v_dim], or no data: out is multiplied by gate_act of it
    Activation gate_act;
    int n_head, v_dim, n_k_head, k_dim;
    bool delta, k_tiled, per_channel;
    const float *a;       // [n_head]
    const float *dt_bias; // as decay; SCAN: or NULL
    const float *d;       // SCAN: [n_head]; DELTA: NULL
    float scale, eps;     // DELTA
    CacheView cache;
    Runs runs;
} Recurrence;
cudaError_t launch_recurrence(const Launch *l, const Recurrence *r);

/* ---- Rows and their tokens ---- */

/* How the token of a row is chosen. */
typedef struct DeviceSampler {
    const uint32_t *banned; // a bit per id, device memory; NULL: none
    bool chain;             // has_own_chain of sample_math.h
    SampleParams params;    // but for its list of banned ids; its other pointers are to device memory
} DeviceSampler;

/* The rows of a batch, or of the decode loop, whose out_row is the identity. */
typedef struct DeviceRows {
    int32_t *token, *seq, *position; // [T]; a row of padding has seq -1
    int32_t *out_row;                // [R]
    DeviceSampler *sampler;          // [R]
} DeviceRows;

/* The tokens of all sequences by position: token p of sequence s is data[s * stride + p].  stride > n_ctx:
 * the token behind the last position has an element, too.  mu of mirostat, as the choice of the row at
 * position p has left it, is mu[s * stride + p]. */
typedef struct DeviceHistory {
    int32_t *data;
    float *mu;
    int stride;
} DeviceHistory;

/* Writes the T tokens of a batch into the histories of their sequences. */
cudaError_t launch_history(const Launch *l, const DeviceRows *rows, int T, DeviceHistory history);

/* Row `row` of the decode loop begins with a token at a position of a sequence, which is written into the
 * history. */
cudaError_t launch_row_begin(const Launch *l, const DeviceRows *rows, int row, int token, int seq,
                             int position, const DeviceSampler *sampler, DeviceHistory history);

/* Row `to` of the decode loop becomes what row `from` is, where they differ; then row `from` becomes
 * padding. */
cudaError_t launch_row_move(const Launch *l, const DeviceRows *rows, int from, int to);

/* bits[n_words] becomes the set of ids[n], host memory that may be reused when the call
 * returns: the ids are launch parameters. */
cudaError_t launch_ban(const Launch *l, uint32_t *bits, size_t n_words, const int32_t *ids, int n);

typedef struct RingEntry { // read by the host from pinned memory
    int32_t token;         // -1: the logits were not finite
    uint32_t step;         // written last
} RingEntry;

/* SAMPLE of R rows: the same token as sample_token for the same logits, the history up to the row's position
 * and the position behind it.  Counts the step, from 1, and puts (token, step) into ring[(step - 1) %
 * ring_steps * ring_rows + r] in pinned host memory.  In the decode loop the next input of each row is
 * written too: its token, its next position and its history, which EMBED reads.  scratch:
 * sample_device_scratch_bytes, zero at first. */
typedef struct SampleStep {
    const float *logits; // [R][n_vocab]
    int n_vocab, R;
    DeviceRows rows;
    bool loop;  // the rows are those of the decode loop
    bool chain; // some row has a chain of its own
    DeviceHistory history;
    uint32_t *step;  // steps so far
    RingEntry *ring; // device address of pinned host memory
    int ring_steps, ring_rows;
    void *scratch;
} SampleStep;
cudaError_t launch_sample(const Launch *l, const SampleStep *s);
size_t sample_device_scratch_bytes(int R, int n_vocab);

#ifdef __cplusplus
}
#endif
#endif
