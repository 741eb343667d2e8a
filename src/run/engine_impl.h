/* engine_impl: what the files of the engine share; everything else uses engine.h.
 *
 *     engine_open.c      opening and closing, and the engine's properties
 *     engine_memory.c    the memory that it needs, the context that would fit, and the advice
 *     engine_request.c   requests, the queue, and which slot a request gets
 *     engine_step.c      one step: the decode loop, then a batch of prompt chunks
 *     engine_text.c      tokens become text, up to a stop string
 *     engine_logits.c    logits of given tokens
 *     engine_inputs.c    the inputs of products over given tokens
 *     engine_profile.c   the time of each op
 *
 * A task is a request with the sequence that answers it.  A slot is one sequence of the executor's cache,
 * free or with a task.  A task waits in the queue, then has a slot until it is finished; a free slot keeps
 * its cache. */
#ifndef ZGEN_RUN_ENGINE_IMPL_H
#define ZGEN_RUN_ENGINE_IMPL_H

#include "engine.h"

typedef struct Slot Slot;
typedef struct Task Task;

struct Task {
    Request request;
    Sequence seq;
    TokStream stream;
    bool in_use;      // the task has a request
    int n_limit;      // tokens at which the sequence is full
    uint64_t arrival; // number of the request, ascending
    Slot *slot;       // NULL: waiting, or finished
    Task *next;       // behind it in the queue
};

struct Slot {
    int32_t *held; // tokens whose keys and values are in the cache, from position 0 [n_ctx]
    int n_held;
    Task *task;     // NULL: free
    bool in_loop;   // of the executor
    int n_rows, r;  // of the batch that is being built: its rows, and its wanted row or -1
    Timing *timing; // of its task, to which the running step counts; NULL: it has no part in the step
};

struct Engine {
    const Model *model;
    EngineConfig config;
    Plan *plan;
    const ExecOps *exec_ops;
    ExecConfig exec_config; // T_max, R_max: rows of a run, wanted ones
    ExecMemory memory;      // before loading
    Exec *exec;
    int logits;   // the register that SAMPLE reads
    int chunk;    // rows of a prompt in one run
    Task **tasks; // by number [n_tasks], n_seq of them at least
    int n_tasks;
    Task *first, *last; // of the queue
    uint64_t n_arrived;
    Slot *slots;  // [n_seq]
    int32_t *eog; // end-of-generation tokens [n_eog]
    int n_eog;
    int32_t *token, *seq, *position, *out_row, *sampled; // of the batch that is being built
    SampleParams *sampling;
    int32_t *loop_tokens; // of a step of the decode loop [n_seq]
};

/* ---- engine_request ---- */

/* Gives slots to waiting tasks while there are free ones. */
void engine_admit(Engine *g);
bool engine_is_busy(const Engine *g); // some task is not finished

/* The free slot whose cache holds most of the beginning of ids[n]; among equals the one that holds the fewest
 * tokens. *n_common: how many of ids it holds.  NULL: there is no free slot. */
Slot *engine_find_slot(Engine *g, const int32_t *ids, int n, int *n_common);

/* Leaves a slot with its first n tokens in the cache, or with none where these cannot be restored. */
void engine_go_back(Engine *g, Slot *s, int n);

/* Ends a task, whose text is complete, and frees its slot, whose cache stays. */
void engine_finish(Engine *g, Task *t, Finish why);
void engine_free_task(Task *t); // what it owns

/* ---- engine_step ---- */

Batch engine_batch(const Engine *g); // without rows

/* The end of the chunk of ids[n] that begins at `from`: the next multiple of the chunk size, at most n. */
int engine_chunk_end(const Engine *g, int from, int n);

/* Appends ids[from..end) as rows of a slot. */
void engine_add_rows(Engine *g, const Slot *s, const int32_t *ids, int from, int end, Batch *b);

/* ---- engine_text ---- */

/* The next token of a task that is not finished.  r: its row of the logits register where the request has
 * log-probabilities.  false: ERR_RUN of the executor. */
bool engine_add_token(Engine *g, Task *t, int r, int token, Err *e);

static inline int n_tokens(const Task *t) {
    return t->seq.n_prompt + t->seq.n_generated;
}

/* ---- engine_memory ---- */

int engine_chunk_of(const EngineConfig *c);
ExecConfig engine_exec_config(const EngineConfig *c);
bool engine_too_large(const Engine *g, Err *e); // ERR_MEMORY

#endif
