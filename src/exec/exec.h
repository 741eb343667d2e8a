/* exec: the interface of all executors.
 *
 *     open(plan, config) -> run(batch, first op, last op) -> read(register) -> close
 *                        -> decode_start(batch) -> decode_next ... -> decode_stop
 *
 * An executor knows ops, registers and the batch; never the tokenizer, a family or the model's name.  The
 * plan holds the weights it needs and must outlive it. */
#ifndef ZGEN_EXEC_EXEC_H
#define ZGEN_EXEC_EXEC_H

#include "batch.h"
#include "kv.h"
#include "../plan/plan.h"

typedef struct ExecConfig {
    int n_ctx;       // positions per sequence
    int n_seq;       // sequences
    int T_max;       // rows of the largest batch
    int R_max;       // rows with logits of the largest batch
    KvType kv_type;  // one that exec_check_kv allows
    int n_threads;   // CPU; elsewhere for reading the file
    const char *isa; // CPU: "auto" or the name of a table in cpu/kernels.h
    int device;      // GPU: its number
    bool managed;    // GPU: weights in managed memory
} ExecConfig;

/* Bytes that an executor takes for a plan and a configuration, and those that are there for it. */
typedef struct ExecMemory {
    size_t weights, kv, registers, scratch;
    size_t free;
    bool is_mapped; // the weights stay in the file: what finds no room is read again and again
} ExecMemory;

typedef struct Exec Exec;

/* One executor: the whole interface. */
typedef struct ExecOps {
    const char *name;
    const Capability *can; // what it runs
    int prompt_chunk;      // rows of a prompt that it likes to have in one run

    /* What open would take, and what is free now.  false: ERR_RUN, the device does not answer. */
    bool (*memory)(const Plan *p, const ExecConfig *config, ExecMemory *out, Err *e);

    /* false: ERR_MEMORY, the system or the device refuses some part; ERR_USAGE for an unknown isa. */
    bool (*open)(const Plan *p, const ExecConfig *config, Exec **out, Err *e);

    /* Runs ops first..last-1 of the tape over the batch; (0, n_ops) is all.  false: ERR_RUN, logits of some
     * row are not finite: the sentence names position and, where it can be found, tensor. */
    bool (*run)(Exec *x, const Batch *batch, int first_op, int last_op, Err *e);

    /* Decoding: a token per sequence and step, each step's tokens being the next one's input, without the
     * caller in between; an executor may run ahead of what has been fetched.  The batch of decode_start has T
     * = R rows, one per sequence, with the latest token of each and the sampling for the next; its arrays may
     * be reused after the call, but histories must go on growing by each token fetched.  decode_next waits
     * for the tokens of the next step, [R]; it may be called n_steps times.  decode_stop forgets whatever ran
     * ahead: sequences then end with the last token fetched. */
    bool (*decode_start)(Exec *x, const Batch *batch, int n_steps, Err *e);
    bool (*decode_next)(Exec *x, int32_t *sampled, Err *e);
    void (*decode_stop)(Exec *x);

    /* The time of each op of the tape, in seconds [n_ops], for a batch as decode_start takes it: the mean of
     * `repeats` passes over the tape, whose order leaves in caches what a step does.  Ops that overlap in a
     * step are kept apart: then the sum is more than a step takes.  Sequences are spoilt by it. */
    bool (*profile)(Exec *x, const Batch *batch, int repeats, double *seconds, Err *e);

    /* Bytes per second at which this executor reads its memory, measured now beside all that it holds; 0 when
     * there is no room to measure in. */
    double (*read_bandwidth)(Exec *x);

    /* The float rows of a register after a run: row i begins at read(...) + i * stride floats. */
    const float *(*read)(const Exec *x, int reg, size_t *stride);

    void (*close)(Exec *x); // NULL is fine
} ExecOps;

/* What a machine reaches with no model in the way, each measured by itself; 0 where there is no such thing.
 */
typedef struct Ceilings {
    double read, copy;                 // of its memory, in bytes per second; copying counts both ways
    double boundary, boundary_overlap; // seconds from one op to the next; the same where it may start early
    double product;                    // operations per second of f16 matrix products, 2 per multiply-add
    double upload;                     // from the host's pinned memory, in bytes per second
} Ceilings;

/* Angle per position of each rotated pair, [n_rot / 2], in radians. */
void exec_rope_frequencies(const RopeParams *rope, double *out);

/* The error of logits at a position that are not finite: ERR_RUN, and the damaged tensor if there is one; all
 * weights are read for it.  Returns false. */
bool exec_not_finite(const Plan *p, int position, Err *e);

/* Whether the heads of the model can be kept in that type.  false: ERR_USAGE naming one that can. */
bool exec_check_kv(const Plan *p, KvType type, Err *e);

/* The parts of the memory that are the same in all executors: keys and values, registers. */
ExecMemory exec_memory(const Plan *p, const ExecConfig *config);

/* The bytes that must be free, and whether they are. */
size_t exec_needed(const ExecMemory *m);
bool exec_fits(const ExecMemory *m);

#endif
