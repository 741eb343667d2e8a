/* machine: the CPU executor's state, shared by cpu.c and the functions of the ops.
 *
 * The threads of the pool run the tape together, an op as one or two stages (pool.h).  Within a stage threads take
 * work items from a counter, so that one that the system delays takes fewer of them, and one that it does not run
 * takes none; which thread computes an item changes no number. */
#ifndef ZGEN_CPU_MACHINE_H
#define ZGEN_CPU_MACHINE_H

#include <stdatomic.h>
#include "kernels.h"
#include "../base/pool.h"
#include "../exec/exec.h"

typedef struct Rotation { // the angles of all ROPE ops with equal parameters of the angle
    RopeParams rope;
    double *frequency; // [n_rot / 2] radians per position
    float *cos, *sin;  // [T_max][n_rot / 2], for the rows of the running batch
} Rotation;

enum { ATTN_HEADS = 8 }; // query heads of one KV head that a work item of attention takes at most

typedef struct Scratch {    // of one thread
    float *row;             // a row of the widest register
    float *y;               // [T_max][PANEL_ROWS] of a product
    Act8 *q8;               // [T_max] inputs of a product
    const float **f32;      // the same as floats
    float **out;            // the rows its results go to
    const float **residual; // the rows added, or NULL each
    int32_t *pair, *start;  // EXPERT: (row, slot) pairs by expert [T_max * slots], [n_expert + 1]
    float *score;           // ROUTE [3][n_expert]
    float *scores;          // attention [ATTN_HEADS][n_ctx]
    float *state;           // SCAN, DELTA: vectors of one head [machine_state_floats]
    void *sample;
} Scratch;

typedef struct Stage {
    int op;      // of the tape
    bool is_end; // the second stage of an op that writes rows in parts: the whole rows are quantised
} Stage;

typedef struct RowChains { // the rows of the running batch by sequence, for ops with a state
    int n;                 // sequences that have rows
    int *first, *last;     // their first and last rows [n]
    int *next;             // of each row: the next one of its sequence, -1: none [T_max]
    int *number;           // while they are made: of each sequence, its chain [n_seq]
} RowChains;

struct Exec {
    const Plan *plan;
    ExecConfig config;
    const Kernels *kernels;
    Pool *pool;
    uint8_t *regs[2]; // T and R registers
    size_t regs_bytes[2];
    Cache *cache;
    uint8_t *kv; // its memory
    size_t kv_bytes;
    Rotation *rotations;
    int n_rotations;
    int *rotation_of; // [n_ops] for ROPE ops
    Scratch *scratch; // [threads]
    RowChains chains;
    Stage *stages;            // of the whole tape
    int *first_stage;         // of each op, and the number of all stages [n_ops + 1]
    atomic_int *next;         // [n_ops] next work item of each op
    atomic_int *next_row;     // [n_ops] next row that its second stage quantises
    atomic_int next_rotation; // next row of the batch whose angles are computed
    double stage_bytes;       // that a stage moves for a step of one row, on average
    atomic_int stopped; // the op of the running step in which a thread was told to stop; n_ops: none was
    struct {            // the occupied slots of the decode loop: row r of a step [n_seq]
        int n;
        int32_t *token, *seq, *position, *out_row; // out_row: the identity; seq: the slot
        int32_t *sampled;
        int *n_left; // steps
        SampleParams *sampling;
    } loop;
    int32_t *history; // [n_seq][n_ctx + 1] tokens of each sequence by position
    float *mu;        // [n_seq][n_ctx + 1] mirostat's, as the choice of the row at a position has left it
    ExecCounters counters;
};

/* The rows of a register: row i of its kind, in float or 8-bit form; of a view its columns of that row. */
float *machine_f32(const Exec *x, int reg, int row);
Act8 machine_q8(const Exec *x, int reg, int row);

/* The columns of a row from `column` on, a multiple of ACT8_GROUP. */
static inline Act8 act8_at(Act8 a, int column) {
    return (Act8){a.q + column, a.d + column / ACT8_GROUP, a.sum + column / ACT8_SUM};
}

/* The tokens of a sequence by position [n_ctx + 1]. */
static inline int32_t *machine_history(const Exec *x, int seq) {
    return x->history + (size_t)seq * ((size_t)x->config.n_ctx + 1);
}

static inline float *machine_mu(const Exec *x, int seq) {
    return x->mu + (size_t)seq * ((size_t)x->config.n_ctx + 1);
}

/* Whether op i has a second stage. */
bool machine_has_end(const Plan *p, int i);

/* Takes items of a stage on thread `thread`, until none is left. */
void machine_stage(Exec *x, const Batch *b, const Stage *stage, int thread);

/* Floats of Scratch.state that the op needs. */
size_t machine_state_floats(const Op *op);

/* Fills chains for the batch; one thread, before the run. */
void machine_chain_rows(Exec *x, const Batch *b);

/* Fills cos and sin of all rotations for rows of the batch, until none is left. */
void machine_rotate(Exec *x, const Batch *b);

#endif
