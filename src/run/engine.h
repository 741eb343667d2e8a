/* engine: requests become batches, batches become tokens, tokens become text.
 *
 *     engine_prepare -> engine_load -> engine_add -> while (engine_step) print what is new -> engine_close
 *
 * A prepared engine has a plan and the number of bytes that it needs, so that a model that does not fit is
 * refused before anything is loaded.
 *
 * A sequence is a prompt and the tokens generated behind it.  Requests may be added at any time, any number
 * of them: n_seq sequences are computed at once, the others wait in a queue.  Each step gives a token to
 * every sequence that has begun to answer, and computes a chunk of the prompts of those that have not.
 * Sequences begin and end between steps without stopping the others.
 *
 * The cache may have fewer positions than all sequences together need (EngineConfig.n_positions).  A request
 * begins when there are pages for it; when they run out, the sequence that came last gives its pages back and
 * is computed again later, with the same tokens.  Its text and tokens stay as they are.
 *
 * A request whose prompt begins with tokens of another sequence, running or finished, is given that part of the
 * cache and computes only the rest: a turn of a chat costs its new tokens, and a system prompt is computed
 * once.  So does going back, unless the cache refuses it (cache_truncate): then the prompt is computed from its
 * beginning.
 *
 * A sequence has the same tokens alone, beside any others, in any slot, computed again, with or without a
 * beginning that it was given (REUSE_SAME). */
#ifndef ZGEN_RUN_ENGINE_H
#define ZGEN_RUN_ENGINE_H

#include "model.h"
#include "../exec/exec.h"

typedef enum EngineDevice { DEVICE_CPU, DEVICE_CUDA } EngineDevice; // which of them is the caller's choice

enum { FILL_MEMORY = -1 };

typedef struct EngineConfig {
    EngineDevice device;
    int device_index; // which GPU
    bool managed;     // GPU: weights in managed memory
    int n_ctx;        // positions per sequence
    int n_seq;        // sequences computed at once; 0: as many as are worth while and fit
    int n_kept; // finished ones whose keys and values are kept beside them, for requests that begin alike
    int64_t n_positions;         // of all sequences together: n_ctx at least; 0: n_ctx of each of n_seq;
                                 // FILL_MEMORY, or with n_seq 0: as many of these as fit
    int n_threads, thread_bytes; // see ExecConfig
    KvType kv_type;
    const char *isa;    // see ExecConfig
    bool act_f32;       // exact products on float activations
    bool keeps_inputs;  // of products, for engine_inputs
    bool weights_fp8;   // converted at load
    int R_max;          // rows with logits per run: at least n_seq; more only for engine_logits
    int chunk;          // rows of a prompt in one run, so what decoding waits for; 0: the executor's choice
    bool (*stop)(void); // see ExecConfig: whether to end a computation, which is then undone
} EngineConfig;

typedef struct Engine Engine;

typedef enum Finish {
    FINISH_NONE,        // not finished
    FINISH_STOP,        // an end-of-generation token or a stop string
    FINISH_LENGTH,      // n_predict tokens, or the context is full
    FINISH_INTERRUPTED, // engine_interrupt
} Finish;
const char *finish_name(Finish f); // "stop", "length", "interrupted", "none"

typedef enum Reuse {
    REUSE_NONE, // all tokens of the prompt are computed
    REUSE_SAME, // what is reused gives the bytes that computing it gives
    REUSE_ANY,  // of a conversation: its own answers, too, whose arithmetic may differ from that of a prompt
} Reuse;

typedef struct Request {
    const int32_t *ids; // the prompt, at least one token, each below n_vocab [n_ids]
    int n_ids;
    int n_predict;       // tokens at most, 0 or more; -1: until the context is full
    SampleParams params; // banned ids are the engine's: it bans the end-of-generation tokens for ignore_eos;
                         // so is `first`, where it begins to choose
    bool ignore_eos;
    const char *const *stop; // strings that end the text and are not part of it [n_stop], none empty
    int n_stop;
    int n_logprobs; // the n best log-probabilities of each token are wanted, 0 for none
    bool special;   // control tokens appear in the text
    bool tags;      // so do those that are tags of thinking (think.h)
    Reuse reuse;    // of the beginning of ids that the cache holds
} Request;

typedef struct TokenLogprobs { // of the raw logits, natural logarithms
    double logprob;            // of the token itself
    int32_t *ids;              // [n_logprobs] the best ones, best first
    double *logprobs;          // [n_logprobs]
} TokenLogprobs;

typedef struct Timing {
    int n; // tokens
    double seconds;
    double bytes; // that had to be moved at least (plan_cost)
} Timing;

typedef struct Sequence {
    int32_t *ids; // prompt and generated tokens [n_prompt + n_generated], without an end-of-generation token
    int n_prompt, n_generated;
    int n_reused;    // tokens of the prompt that the cache held; known when a slot is given, not in prompt.n
    int n_preempted; // how often its pages went to an older sequence, so that it was computed again
    Buf text;        // of the generated tokens, whole characters, less the stop string
    size_t n_final;  // bytes of text that can no longer become part of a stop string: print up to here
    Finish finish;   // when not NONE, all of text is final
    int32_t end;     // the end-of-generation token that finished it, or -1
    TokenLogprobs *logprobs; // [n_generated], or NULL
    Timing prompt, decode;   // the first token counts to the prompt, its sampling too
} Sequence;

/* The plan of the model for the configuration's executor, which need not be there: no device is asked.
 * NULL: see plan_build, plan_supported. */
Plan *engine_build_plan(const Model *m, const EngineConfig *config, Err *e);

/* Builds the plan of the model, which must outlive the engine.  false: ERR_MODEL; ERR_RUN, the GPU does not
 * answer. */
bool engine_prepare(const Model *m, const EngineConfig *config, Engine **out, Err *e);

/* Opens the executor: from here on the engine computes.  false: ERR_MEMORY names each part and what would
 * fit; ERR_USAGE; or code 0, EngineConfig.stop ended it. */
bool engine_load(Engine *g, Err *e);

bool engine_open(const Model *m, const EngineConfig *config, Engine **out, Err *e); // both
void engine_close(Engine *g);                                                       // NULL is fine

const Plan *engine_plan(const Engine *g);
const char *engine_executor(const Engine *g); // "cpu", "cuda"
KvType engine_kv_type(const Engine *g);

/* The memory of the engine, and what was free before it was allocated. */
ExecMemory engine_memory(const Engine *g);

/* EngineConfig's, or the choice. */
int engine_chunk(const Engine *g);
int engine_n_seq(const Engine *g);
int64_t engine_n_positions(const Engine *g);

/* The longest context that would fit in it beside all weights; 0: not even one of a single position. */
int engine_context_that_fits(const Engine *g);

/* Executor, context, each part of the memory and what is free, as one clause; and what to do where it does
 * not fit. */
void engine_print_memory(const Engine *g, Buf *out);
void engine_print_advice(const Engine *g, Buf *out);

/* Sequences that have a slot; all others that are not finished wait. */
int engine_n_running(const Engine *g);

/* Adds a request, which waits where n_seq sequences are unfinished; all that it points to but the ids must
 * outlive the sequence.  Returns the number of the sequence: the lowest that no unfinished sequence has, so
 * that it is below n_seq where none waits.  -1: *e (ERR_RUN: the prompt is longer than the context, both
 * numbers named; the cache is as it was). */
int engine_add(Engine *g, const Request *r, Err *e);

/* The sequence with a number that was given, or below n_seq; valid until the number is given again. */
const Sequence *engine_sequence(const Engine *g, int seq);

/* How its tokens are chosen: the request's parameters, with the ids that are banned. */
const SampleParams *engine_sampling(const Engine *g, int seq);

/* One step: a token for each sequence that has begun to answer, a chunk of prompts.  True while a sequence is
 * unfinished; false when all are finished, or EngineConfig.stop ended the step (e->code 0), or on failure. */
bool engine_step(Engine *g, Err *e);

/* The executor's counts since engine_load. */
ExecCounters engine_counters(const Engine *g);

enum { PROFILE_ROOM = 52 }; // positions behind n_past that a profile needs for all its steps

/* Times of a decode step of one sequence behind n_past tokens. */
typedef struct Profile {
    int n_past, repeats;
    double *seconds; // of each op [n_ops of the plan], see ExecOps.profile
    double step;     // of a whole step, undisturbed
    double wall;     // that measuring took
} Profile;

/* Measures for about a second, or a few steps where they take long; behind fewer tokens where the context is
 * too short.  No sequence is unfinished; one cache is lost.  out->seconds is to be freed, after a failure
 * too. */
bool engine_profile(Engine *g, int n_past, Profile *out, Err *e);

/* See ExecOps.read_bandwidth. */
double engine_read_bandwidth(Engine *g);

/* The same where it limits decoding; 0 where the weights fit into the last cache of the CPU. */
double engine_read_limit(Engine *g);

/* Appends ids[n] to a sequence that has begun to answer and is not finished, as if they had been generated.
 * Its request has no log-probabilities.  false: ERR_RUN of the executor. */
bool engine_insert(Engine *g, int seq, const int32_t *ids, int n, Err *e);

/* Ends all unfinished sequences as interrupted; the text that there is stays. */
void engine_interrupt(Engine *g);

/* Computes ids[*at..end), of which those from n_prompt on are generated tokens, behind the first *at of them,
 * in the cache that holds most of these, up to the end of the chunk in which a prompt is computed, and moves
 * *at there; where no cache holds all of the *at tokens, the missing ones are computed first.  Returns the logits behind the last token [n_vocab], valid
 * until the engine runs again; NULL: *e, or code 0 when stopped.  No sequence is unfinished.  That cache
 * then holds the first *at tokens. */
const float *engine_feed(Engine *g, const int32_t *ids, int n_prompt, int *at, int end, Err *e);

typedef struct LogitRows { // of neighbouring positions
    int position, n;       // the first one, and how many: R_max at most
    const float *data;     // row i: n_vocab floats at data + i * stride
    size_t stride;         // in floats
} LogitRows;

/* Logits of the positions from `first` on of ids[n], chunk by chunk: calls take(arg, rows) in order; stops
 * when it returns false.  No sequence is unfinished; one cache is lost.  false: *e, or code 0 where take
 * returned false or EngineConfig.stop ended it. */
bool engine_logits(Engine *g, const int32_t *ids, int first, int n,
                   bool (*take)(void *arg, const LogitRows *rows), void *arg, Err *e);

typedef struct OpInputs { // of the rows of one run
    int op;               // a product, index in the tape
    int n;                // rows
    const float *data;    // row i: floats at data + i * stride
    size_t stride;
    const int32_t *ids; // EXPERT: [n][n_used] the experts of each row; NULL: slot s has expert s
} OpInputs;

/* The inputs of the products of ids[n], with EngineConfig.keeps_inputs, chunk by chunk: calls take(arg,
 * inputs) for each product of the tape in order, the logits' only if that is wanted, and stops when it returns
 * false. No sequence is unfinished; one cache is lost.  R_max is a chunk's rows.  false: as for
 * engine_logits. */
bool engine_inputs(Engine *g, const int32_t *ids, int n, bool with_logits,
                   bool (*take)(void *arg, const OpInputs *inputs), void *arg, Err *e);

#endif
