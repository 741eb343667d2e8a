/* report: what a run of generate tells about itself: notices around the text, or one JSON object instead of
 * it.
 *
 * JSON: {"model", "prompt", "prompt_ids", "text", "ids", "finish_reason", "seed", "sampling": {...}, "isa",
 * "act", "kv", "threads", "n_ctx", "counts": {"prompt", "generated"}, "memory": setup_memory, "timings":
 * {"load_s", "prompt", "decode"}}, and with
 * --logprobs "logprobs": for each id {"id", "piece", "logprob", "top": [{"id", "piece", "logprob"}]}.  A
 * number that does not exist (a rate without time, the logarithm of zero) is null; a seed above 2^63 - 1 is a
 * string of its digits. */
#ifndef ZGEN_CLI_REPORT_H
#define ZGEN_CLI_REPORT_H

#include "options.h"
#include "../run/engine.h"

#include <jansson.h>

typedef struct Report {
    const Options *options;
    const Model *model;
    Engine *engine;
    const EngineConfig *config;
    const Request *request;
    const Buf *prompt;     // as the user gave it
    const Sequence *seq;   // NULL until there is one
    double device_seconds; // that a GPU took to wake up
    double load_seconds;   // from opening the file to the first batch, without the former
    json_t *profile;       // see profile.h, or NULL; report_json takes it, and so below
    json_t *verify;        // see verdict.h, or NULL
} Report;

void report_begin(const Report *r); // notices: model, seed, context, memory
void report_end(const Report *r);   // notices: why it ended, timings

bool report_json(const Report *r, Err *e); // writes the object to stdout

#endif
