/* report: what zgen generate prints about a run: notices around the text, or one JSON object instead of it.
 *
 * JSON: {"model", "prompt", "prompt_ids", "text", "reasoning" (of answers: the thought or null), "ids",
 * "finish_reason", "seed", "sampling": {...}, "executor", "isa", "act", "weights", "kv", "threads",
 * "n_ctx", "counts": {"prompt", "generated"}, "memory" (see runner_memory), "timings": {"device_s",
 * "load_s", "prompt", "decode"}}; with --verify and --profile their objects; with --logprobs "logprobs":
 * for each id {"id", "piece", "logprob", "top": [{"id", "piece", "logprob"}]}.  A number that does not
 * exist (a rate without time, the logarithm of zero) is null; a seed above 2^63 - 1 is a string of its
 * digits. */
#ifndef ZGEN_CLI_REPORT_H
#define ZGEN_CLI_REPORT_H

#include "answer.h"
#include "runner.h"

typedef struct Report {
    const Runner *runner;
    const Request *request;
    const Buf *prompt; // as the model got it
    const Sequence *seq;
    const Answer *answer;     // kept; NULL: the text is not an answer
    json_t *profile, *verify; // see profile.h and verdict.h, or NULL; report_json releases them
} Report;

/* Notices before the text: the model, the seed, threads and kernels. */
void report_begin(const Report *r);

/* Notices after the text: why it ended, timings. */
void report_end(const Report *r);

/* Prints the object to stdout.  false: ERR_OUTPUT, ERR_PIPE. */
bool report_json(const Report *r, Err *e);

#endif
