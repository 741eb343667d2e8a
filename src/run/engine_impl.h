/* engine_impl: what the files of the engine share; everything else uses engine.h.
 *
 *     engine_open.c      opening and closing, and the engine's properties
 *     engine_memory.c    the memory that it needs, the context that would fit, and the advice
 *     engine_request.c   requests, their queue, and their end
 *     engine_admit.c     which request begins, in which slot, and what of its prompt is in the cache already
 *     engine_pages.c     the pages of the next step, and where they are taken from
 *     engine_step.c      one step: the decode loop, then a batch of prompt chunks
 *     engine_text.c      tokens become text, up to a stop string
 *     engine_logits.c    logits of given tokens
 *     engine_inputs.c    the inputs of products over given tokens
 *     engine_profile.c   the time of each op
 *
 * A task is a request with the sequence that answers it.  A slot is one sequence of the executor's cache,
 * free or with a task.  A task waits in the queue, then has a slot until it is finished; a free slot keeps
 * its cache until another task or its pages are needed.  A task that is preempted goes back to the queue. */
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
    int n_chosen;     // generated tokens that need not be chosen again: fewer than seq's behind a preemption
    uint64_t arrival; // number of the request, ascending
    Slot *slot;       // NULL: it waits, or is finished
    Task *next;       // behind it in the queue
};

/* The bytes that a row must move, from its first position of a page to the last: between them a line. */
typedef struct RowBytes {
    int page; // + 1; 0: not known
    double first, last;
} RowBytes;

struct Slot {
    int32_t *held; // tokens whose keys and values are in the cache, from position 0 [n_ctx]
    int n_held;
    int n_prompt_rows; // the first of them, which were computed as rows of a prompt
    uint64_t used;     // when it was freed, or gave its beginning to another slot, ascending; 0: never
    int stop;      // a chunk of its prompt ends there, because another task begins with these tokens; 0: none
    Task *task;    // NULL: free
    bool in_loop;  // of the executor
    int n_rows, r; // of the batch that is being built: its rows, and its wanted row or -1
    Timing *timing; // of its task, to which the running step counts; NULL: it has no part in the step
    RowBytes bytes;
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
    bool forgets; // some layer keeps a window or a state, not all positions
    int chunk;    // rows of a prompt in one run
    Task **tasks; // by number [n_tasks], n_seq of them at least
    int n_tasks;
    Task *first, *last;         // of the queue
    int n_slots;                // EngineConfig's n_seq + n_kept
    uint64_t n_arrived, n_used; // requests, and the latest Slot.used
    Slot *slots;                // [n_slots]
    Slot **order;               // those whose rows a batch computes, in the order of their turns [n_slots]
    int32_t *eog;               // end-of-generation tokens [n_eog]
    int n_eog;
    int32_t *token, *seq, *position, *out_row, *sampled; // of the batch that is being built
    bool *prompt;
    SampleParams *sampling;
    int32_t *loop_tokens; // of a step of the decode loop [n_slots]
};

/* ---- engine_request ---- */

bool engine_is_busy(const Engine *g); // some task is not finished

/* Puts a task into the queue, which is in the order of arrival. */
void engine_wait(Engine *g, Task *t);

/* Removes the first task of the queue. */
Task *engine_take_first(Engine *g);

/* Ends a task, whose text is complete, and frees its slot, whose cache stays. */
void engine_finish(Engine *g, Task *t, Finish why);
void engine_free_task(Task *t); // what it owns

/* ---- engine_admit ---- */

/* Gives slots to waiting tasks, in the order of arrival, while there are free slots and free pages. */
void engine_admit(Engine *g);

/* The free slot whose cache holds most of the beginning of ids[n]; among equals the one that was used longest
 * ago.  *n_common: how many of ids it holds.  NULL: there is no free slot. */
Slot *engine_find_slot(Engine *g, const int32_t *ids, int n, int *n_common);

/* Leaves a slot with its first n tokens in the cache, or with none where these cannot be restored. */
void engine_go_back(Engine *g, Slot *s, int n);

/* ---- engine_pages ---- */

static inline int engine_seq(const Engine *g, const Slot *s) {
    return (int)(s - g->slots);
}

/* Takes the task of a slot, which leaves the decode loop and keeps its cache. */
void engine_free_slot(Engine *g, Slot *s);

/* Frees pages of slots without a task other than `a` and `b`, the longest unused one first, until n are free.
 * false: there are no more. */
bool engine_evict(Engine *g, int n, const Slot *a, const Slot *b);

/* Reserves the pages of a slot up to position `end`, see cache_reserve: from free slots, then from the
 * youngest tasks, which are preempted.  false: the youngest was its own. */
bool engine_reserve(Engine *g, Slot *s, int end);

/* Pages for whatever follows in a slot; no other has a task. */
void engine_take_pages(Engine *g, const Slot *s);

/* ---- engine_step ---- */

Batch engine_batch(const Engine *g); // without rows

/* The end of the chunk of ids[n] that begins at `from`: the next multiple of the chunk size, at most n. */
int engine_chunk_end(const Engine *g, int from, int n);

/* Appends ids[from..end) as rows of a slot, of a prompt of n_prompt tokens and the generated ones behind it. */
void engine_add_rows(Engine *g, const Slot *s, const int32_t *ids, int from, int end, int n_prompt, Batch *b);

/* ---- engine_text ---- */

/* The next token of a task that is not finished.  r: its row of the logits register where the request has
 * log-probabilities.  false: ERR_RUN of the executor. */
bool engine_add_token(Engine *g, Task *t, int r, int token, Err *e);

/* Tokens that need not be chosen: those of the prompt, and those that were. */
static inline int n_tokens(const Task *t) {
    return t->seq.n_prompt + t->n_chosen;
}

/* ---- engine_memory ---- */

int engine_chunk_of(const EngineConfig *c);

/* Chooses what the configuration leaves open, and asks the executor for the memory of it.  false: see
 * ExecOps.memory. */
bool engine_configure(Engine *g, Err *e);
bool engine_too_large(const Engine *g, Err *e); // ERR_MEMORY

#endif
