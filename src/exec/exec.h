/* exec: the interface of all executors.
 *
 *     open(plan, config) -> run(batch, first op, last op) -> read(register) -> close
 *                        -> decode_join(slot) ... -> decode_next ... -> decode_leave(slot)
 *
 * Prompts are computed by runs.  Generated tokens come from the decode loop: n_seq slots, slot s for sequence
 * s, each free or occupied, R_max of them at once.  A step of the loop computes a token for each occupied slot,
 * which is that slot's input in the next step, without the caller in between; an executor may compute steps
 * ahead of the one that is fetched.  Slots are joined and left, and runs computed, between two steps: the other
 * slots are not affected.
 *
 * An executor depends on ops, registers and the batch; never on the tokenizer, a family or the model's name.
 * The plan holds the weights it needs and must outlive it. */
#ifndef ZGEN_EXEC_EXEC_H
#define ZGEN_EXEC_EXEC_H

#include "batch.h"
#include "cache.h"
#include "../plan/plan.h"

typedef struct ExecConfig {
    int n_ctx;           // positions per sequence
    int n_seq;           // sequences
    int64_t n_positions; // of all sequences together, see CacheConfig
    int T_max;           // rows of the largest batch
    int R_max;           // rows with logits of the largest batch
    KvType kv_type;      // one that exec_check_kv allows
    int n_threads;       // CPU; elsewhere for reading the file
    int thread_bytes; // CPU: that each thread of a step must have to move per op, else fewer take part; 0: all do
    const char *isa; // CPU: "auto" or the name of a table in cpu/kernels.h
    int device;      // GPU: its number
    bool managed;    // GPU: weights in managed memory
    /* GPU: generated tokens, too, are multiplied as rows of prompts are, but by experts: it pays for many
     * sequences. */
    bool wide;
    /* Whether a run or a step shall end; once true it stays so until that has returned.  CPU: asked by all
     * threads for each work item; GPU: only while it is opened, for each op whose weights are uploaded.  NULL: never. */
    bool (*stop)(void);
} ExecConfig;

/* Bytes that an executor needs for a plan and a configuration, and the bytes that are free. */
typedef struct ExecMemory {
    size_t weights, kv, registers, scratch;
    size_t kv_position;         // of kv: bytes that one more position of one sequence takes
    size_t kv_window, kv_state; // and bytes of one sequence, whatever its length, in windows and states
    size_t free;
    bool is_mapped; // the weights stay in the file: those that do not fit are read again in each step
} ExecMemory;

/* The beginning of a slot. */
typedef struct DecodeStart {
    int32_t token; // the sequence's latest, whose keys and values are not computed yet
    int position;  // of that token
    int n_steps;   // tokens that the slot gives at most: position + n_steps <= n_ctx
    SampleParams params;
} DecodeStart;

/* Counts since the executor was opened; 0 for events that it does not have. */
typedef struct ExecCounters {
    uint64_t runs, steps;   // batches, and steps of the decode loop, computed or enqueued
    uint64_t row_steps;     // rows of these steps that were occupied
    uint64_t joins, leaves; // of slots
    uint64_t captures;      // of a step as a graph
    uint64_t drains;        // waits for all steps that are enqueued, other than by fetching their tokens
    uint64_t bytes_sent;    // from the host to the device, weights aside
    uint64_t bytes_read;    // from the device to the host: registers that were read
} ExecCounters;

typedef struct Exec Exec;

/* One executor: the whole interface. */
typedef struct ExecOps {
    const char *name;
    const Capability *can; // what it runs
    int prompt_chunk;      // rows of a prompt that are best computed in one run
    int n_seq_best;        // sequences that are best computed at once, where there is memory for them
    int prompt_multiple; // a prompt cut at multiples of this gives the same bytes; 1: and rows of prompts are
                         // the same arithmetic as those of decode steps

    /* The memory that open would allocate, and what is free now.  false: ERR_RUN, the device does not answer;
     * ERR_MODEL, this very device has no room for a row of some op. */
    bool (*memory)(const Plan *p, const ExecConfig *config, ExecMemory *out, Err *e);

    /* false: ERR_MEMORY, the system or the device refuses some part; ERR_USAGE for an unknown isa; or code 0,
     * ExecConfig.stop ended it. */
    bool (*open)(const Plan *p, const ExecConfig *config, Exec **out, Err *e);

    /* Runs ops first_op..last_op-1 of the tape over the batch, behind the steps that are enqueued; (0, n_ops)
     * is all.  From another op than 0 on it goes on with the run before, which ended there, of the same batch.  The rows belong to no occupied slot.  false: ERR_RUN; the logits of some row are not finite:
     * the sentence names position and, where it can be found, tensor; or code 0, ExecConfig.stop ended it. */
    bool (*run)(Exec *x, const Batch *batch, int first_op, int last_op, Err *e);

    /* Occupies a free slot from the next step on that is not enqueued yet.  false: ERR_RUN. */
    bool (*decode_join)(Exec *x, int slot, const DecodeStart *start, Err *e);

    /* Waits for the next step and gives its tokens: tokens[n_seq], -1 for a slot that was not part of it.  At
     * least one slot has a step left.  false: ERR_RUN, as for run; then all slots are free. */
    bool (*decode_next)(Exec *x, int32_t *tokens, Err *e);

    /* Frees a slot: its tokens that were not fetched are dropped, and its sequence ends with the last one
     * that was.  A free slot is left as it is. */
    void (*decode_leave)(Exec *x, int slot);

    /* The time of each op of the tape in a step of the occupied slots, in seconds [n_ops]: the mean of
     * `repeats` passes over the tape, whose order leaves in caches what a step does; one more pass comes
     * first.  Ops that overlap in a step are kept apart: then the sum is more than a step takes.  The slots
     * must have repeats + 1 steps left, and their sequences are spoilt: the slots can only be left. */
    bool (*profile)(Exec *x, int repeats, double *seconds, Err *e);

    /* Bytes per second at which this executor reads its memory, measured now beside all that it holds; 0 when
     * there is no room to measure in. */
    double (*read_bandwidth)(Exec *x);

    /* Rows first..first+n-1 of a register after a run, as floats: row i of them begins at read(...) + i *
     * stride floats.  Valid until the next call of any function; on a GPU it is a copy.  NULL: ERR_RUN, or
     * the register keeps no floats. */
    const float *(*read)(Exec *x, int reg, int first, int n, size_t *stride, Err *e);

    ExecCounters (*counters)(const Exec *x);

    /* The cache: for cache_truncate, before a sequence goes back.  Runs and steps extend it; decode_leave
     * takes back the positions that were computed ahead. */
    Cache *(*cache)(Exec *x);

    /* Gives sequence `to`, whose positions are lost, the first n positions of sequence `from`: their keys and
     * values, by cache_share, and their tokens.  The slot of `to` is free.  false: as for cache_share. */
    bool (*share)(Exec *x, int from, int to, int n);

    void (*close)(Exec *x); // NULL is fine
} ExecOps;

/* The limits of a machine, measured without a model, each by itself; 0 where it has no such limit. */
typedef struct Ceilings {
    double read, copy;                 // of its memory, in bytes per second; copying counts both ways
    double boundary, boundary_overlap; // seconds from one op to the next; the same where it may start early
    double product;                    // operations per second of f16 matrix products, 2 per multiply-add
    double upload;                     // from the host's pinned memory, in bytes per second
} Ceilings;

/* Angle per position of each rotated pair, [n_rot / 2], in radians, in a context of n_ctx positions. */
void exec_rope_frequencies(const RopeParams *rope, int n_ctx, double *out);

/* The error of logits at a position that are not finite: ERR_RUN, and the damaged tensor if there is one; all
 * weights are read for it.  Returns false. */
bool exec_not_finite(const Plan *p, int position, Err *e);

/* Whether the heads of the model can be kept in that type.  false: ERR_USAGE naming one that can. */
bool exec_check_kv(const Plan *p, KvType type, Err *e);

/* Whether the model has n_ctx positions: learned ones end.  false: ERR_USAGE, how many there are. */
bool exec_check_context(const Plan *p, int n_ctx, Err *e);

/* The cache of an executor that computes up to n_ahead steps beyond the one that is fetched. */
CacheConfig exec_cache_config(const ExecConfig *config, int n_ahead);

/* The parts of the memory that are the same in all executors: the cache, registers. */
ExecMemory exec_memory(const Plan *p, const ExecConfig *config, int n_ahead);

/* The bytes that must be free, and whether they are. */
size_t exec_needed(const ExecMemory *m);
bool exec_fits(const ExecMemory *m);

/* Whether all weights stay in memory beside these bytes.  false: the executor runs, and reads those of the file that
 * do not from the disk in each step. */
bool exec_keeps_weights(const ExecMemory *m);

#endif
