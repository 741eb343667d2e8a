/* kernels: the functions that each instruction set provides.
 *
 * The CPU executor (cpu.c) runs the tape; arithmetic on many numbers goes through one table of
 * functions, chosen once at run time.  scalar.c is the oracle: plain loops over the decoders of quant.h.  The
 * fast tables give the same products to the bit: the shared 8-bit activations make every block sum an exact
 * integer, and the contracts below fix the order of the few float operations around it.  Norms, activation
 * functions and attention agree within NMSE 1e-7.
 *
 * A panel is 16 consecutive rows of a weight matrix.  Rows are the lanes: element r of every accumulator
 * belongs to row r, so a sum never crosses lanes, and the result for one activation does not depend on how
 * many others are beside it.  Prompt and decoding run the same code with another T. */
#ifndef ZGEN_CPU_KERNELS_H
#define ZGEN_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "../exec/act.h"
#include "../exec/cache.h"
#include "../gguf/quant.h"
#include "../plan/op.h"

enum { PANEL_ROWS = 16 };

typedef struct Panel {
    QuantType type;
    const uint8_t *rows; // the first row's blocks, any alignment
    size_t row_bytes;    // from one row to the next
    int n_rows;          // 1..PANEL_ROWS; nothing behind them may be read
    int n_in;            // weights per row
} Panel;

typedef struct AttnJob {
    const float *q; // [n_q][width of K], the query heads that share this KV head
    int n_q;
    const CacheView *cache;
    const int32_t *pages; // of the sequence
    int head;             // the KV head
    int first, n_pos;     // positions first.. that are seen, at least 1
    float scale;          // of the scores
    float softcap;        // scores become softcap * tanh(score / softcap); 0: as they are
    const float *sinks;   // [n_q] a further score of each head, without a value, or NULL
    float *scores;        // scratch [n_q][n_pos]
    float *out;           // [n_q][width of V] = softmax(scale * q k^T) v
} AttnJob;

/* One row through the state of one head, a matrix [n][width]. */
typedef struct StateJob {
    int n, width;
    const float *from;        // the state before the row
    float *to;                // and behind it; may be from
    const float *decay;       // [n] factors of the rows of the state
    const float *key, *query; // [n]
    const float *value;       // [width]
    float *out;               // [width]
} StateJob;

typedef struct Kernels {
    const char *name;
    bool (*supported)(void); // by this machine and its kernel
    bool any_act;            // matmul_f32 takes every type with a decoder, not only those of QUANT_ACT_F32

    /* y[t][r] = sum_k w[r][k] * x[t][k] for a type of QUANT_ACT_Q8, in act8_dot's order (exec/act.h).
     * y: [T][PANEL_ROWS]; lanes from n_rows on are undefined.  x: from act8_view; padding may be read. */
    void (*matmul_q8)(const Panel *w, const Act8 *x, int T, float *y);

    /* The same for float activations: acc = fmaf(w[r][k], x[t][k], acc) from k = 0 on. */
    void (*matmul_f32)(const Panel *w, const float *const *x, int T, float *y);

    /* As act8_quantize, to the bit. */
    void (*quantize)(const float *x, int n, Act8 out);

    /* NORM of n values with n weights and biases; GLU of n columns, up NULL: act(gate); cap * tanh(x / cap).
     * out may be an input. */
    void (*norm)(const NormParams *p, const float *x, int n, float *out);
    void (*glu)(const GluParams *p, const float *gate, const float *up, int n, float *out);
    void (*softcap)(float cap, const float *x, int n, float *out);

    void (*to_f16)(const float *x, int n, uint16_t *out); // round to nearest even
    void (*attn)(const AttnJob *job);

    /* out = sum_i key[i] * (decay[i] * from[i]); and to[i] = decay[i] * from[i] + key[i] * value, then out =
     * sum_i query[i] * to[i].  Sums from i = 0 on without contraction: the same bits in all tables. */
    void (*state_recall)(const StateJob *job);
    void (*state_update)(const StateJob *job);
} Kernels;

/* A table per instruction set, each in the file of its name; kernels.c lists those that this build has. */
extern const Kernels kernels_scalar, kernels_avx2, kernels_avx512;

/* All tables of this build, the fastest last. */
extern const Kernels *const kernels_all[];
extern const int kernels_n;

/* The table of that name, or for "auto" the fastest that the machine supports; NULL when there is none. */
const Kernels *kernels_find(const char *name);

#endif
