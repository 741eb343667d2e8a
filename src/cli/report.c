/* report: see report.h. */
#include "report.h"
#include "out.h"
#include "show.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- notices ---- */

static bool on_gpu(const Runner *r) {
    return r->config.device == DEVICE_CUDA;
}

void report_begin(const Report *r) {
    const Runner *run = r->runner;
    const Notices *n = &run->options->notices;
    runner_report_model(run);
    notice(n, "seed %" PRIu64, r->request->params.seed);
    notice(n, "%d threads, %s kernels, %s activations", run->config.n_threads,
           on_gpu(run) ? engine_executor(run->engine) : run->config.isa, run->config.act_f32 ? "f32" : "q8");
}

static double rate(double amount, double seconds) {
    return seconds > 0 ? amount / seconds : NAN;
}

/* bandwidth: of reading memory, in bytes per second; 0: not known or no limit.  It is none either where it is
 * exceeded: then another program slowed its measurement. */
static void print_timing(const Runner *run, const char *name, const Timing *t, double bandwidth) {
    if (t->n == 0) return;
    double bytes = rate(t->bytes, t->seconds);
    char share[120] = "";
    if (bytes <= bandwidth)
        snprintf(share, sizeof share, ", %.0f %% of the %.1f GB/s read bandwidth of %s",
                 100 * bytes / bandwidth, bandwidth / 1e9, on_gpu(run) ? "the GPU" : "these threads");
    notice(&run->options->notices, "%s: %d tokens in %.3f s, %.1f tok/s, %.2f GB/s%s", name, t->n, t->seconds,
           rate(t->n, t->seconds), bytes / 1e9, share);
}

void report_end(const Report *r) {
    const Runner *run = r->runner;
    const Notices *n = &run->options->notices;
    const Sequence *s = r->seq;
    if (s->finish == FINISH_LENGTH && s->n_prompt + s->n_generated >= run->config.n_ctx)
        notice(n, "the context of %d tokens is full; -c makes it longer", run->config.n_ctx);
    else if (s->finish == FINISH_LENGTH)
        notice(n, "stopped after %d new tokens, the limit of -n", s->n_generated);
    if (!run->options->perf || n->quiet) return;
    if (on_gpu(run))
        notice(n, "load: %.3f s, after %.3f s to initialise the GPU", run->load_seconds, run->device_seconds);
    else
        notice(n, "load: %.3f s", run->load_seconds);
    bool measures = n->verbose && s->decode.n;
    print_timing(run, "prompt", &s->prompt, 0);
    print_timing(run, "decode", &s->decode, measures ? engine_read_limit(run->engine) : 0);
}

/* ---- JSON ---- */

/* A float in the fewest digits that identify it: 0.8, not 0.800000012. */
static json_t *decimal(float x) {
    char text[32];
    snprintf(text, sizeof text, "%.7g", (double)x);
    return json_real(strtod(text, NULL));
}

static json_t *id_list(const int32_t *ids, int n) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, json_integer(ids[i]));
    return list;
}

static json_t *seed_value(uint64_t seed) {
    return seed <= INT64_MAX ? json_integer((json_int_t)seed) : json_sprintf("%" PRIu64, seed);
}

static json_t *timing(const Timing *t) {
    json_t *object = json_object();
    json_object_set_new(object, "n", json_integer(t->n));
    json_object_set_new(object, "s", show_number(t->seconds));
    json_object_set_new(object, "tok_s", show_number(rate(t->n, t->seconds)));
    json_object_set_new(object, "gb_s", show_number(rate(t->bytes / 1e9, t->seconds)));
    return object;
}

static void set_number(json_t *object, const char *key, float value, bool is_on) {
    if (is_on) json_object_set_new(object, key, decimal(value));
}

static json_t *bias_value(float bias) {
    return bias == -INFINITY ? json_string("-inf") : decimal(bias);
}

static void set_biases(json_t *object, const SampleParams *p) {
    json_t *list = json_array();
    for (int i = 0; i < p->n_bias; i++)
        json_array_append_new(
            list, json_pack("{s:i,s:o}", "id", p->bias[i].id, "bias", bias_value(p->bias[i].bias)));
    json_object_set_new(object, "logit_bias", list);
}

static void set_order(json_t *object, const SampleParams *p) {
    json_t *list = json_array();
    for (int i = 0; p->order[i]; i++) json_array_append_new(list, json_string(sampling_name(p->order[i])));
    json_object_set_new(object, "samplers", list);
}

/* What is off by default is named where it is on. */
static void set_more(json_t *object, const Options *o, const SampleParams *p) {
    bool mirostat = o->mirostat == 2, xtc = p->xtc_probability > 0 && !mirostat,
         dry = p->dry_multiplier > 0 && !mirostat;
    if (p->n_bias) set_biases(object, p);
    if (p->order[0] && !mirostat) set_order(object, p);
    set_number(object, "typical_p", o->typical_p, o->typical_p < 1 && !mirostat);
    set_number(object, "top_n_sigma", p->top_n_sigma, p->top_n_sigma > 0 && !mirostat);
    set_number(object, "xtc_probability", p->xtc_probability, xtc);
    set_number(object, "xtc_threshold", p->xtc_threshold, xtc);
    set_number(object, "dynatemp_range", p->temp_range, p->temp_range > 0);
    set_number(object, "dynatemp_exp", p->temp_exponent, p->temp_range > 0);
    set_number(object, "dry_multiplier", p->dry_multiplier, dry);
    set_number(object, "dry_base", p->dry_base, dry);
    if (dry) json_object_set_new(object, "dry_allowed_length", json_integer(p->dry_allowed_length));
    if (dry) json_object_set_new(object, "dry_penalty_last_n", json_integer(p->dry_last_n));
    if (mirostat) json_object_set_new(object, "mirostat", json_integer(2));
    set_number(object, "mirostat_ent", p->mirostat_tau, mirostat);
    set_number(object, "mirostat_lr", p->mirostat_eta, mirostat);
}

static json_t *sampling(const Report *r) {
    const SampleParams *p = &r->request->params;
    json_t *object = json_object();
    json_object_set_new(object, "temp", decimal(p->temp));
    json_object_set_new(object, "top_k", json_integer(p->top_k));
    json_object_set_new(object, "top_p", decimal(p->top_p));
    json_object_set_new(object, "min_p", decimal(p->min_p));
    json_object_set_new(object, "repeat_penalty", decimal(p->repeat_penalty));
    json_object_set_new(object, "repeat_last_n", json_integer(p->repeat_last_n));
    json_object_set_new(object, "presence_penalty", decimal(p->presence_penalty));
    json_object_set_new(object, "frequency_penalty", decimal(p->frequency_penalty));
    json_object_set_new(object, "ignore_eos", json_boolean(r->request->ignore_eos));
    set_more(object, r->runner->options, p);
    return object;
}

static json_t *one_logprob(const Report *r, int32_t id, float logprob) {
    json_t *object = json_object();
    json_object_set_new(object, "id", json_integer(id));
    json_object_set_new(object, "piece", show_piece(r->runner->model.tok, id));
    json_object_set_new(object, "bytes", show_bytes(r->runner->model.tok, id));
    json_object_set_new(object, "logprob", show_number(logprob));
    return object;
}

static json_t *logprobs(const Report *r) {
    const Sequence *s = r->seq;
    json_t *list = json_array();
    int n_best = r->request->n_logprobs, n_vocab = engine_plan(r->runner->engine)->hparams.n_vocab;
    for (int i = 0; i < s->n_generated; i++) {
        const TokenLogprobs *p = &s->logprobs[i];
        json_t *object = one_logprob(r, s->ids[s->n_prompt + i], p->logprob), *top = json_array();
        for (int k = 0; k < n_best && k < n_vocab; k++)
            json_array_append_new(top, one_logprob(r, p->ids[k], p->logprobs[k]));
        json_object_set_new(object, "top", top);
        json_array_append_new(list, object);
    }
    return list;
}

bool report_json(const Report *r, Err *e) {
    const Runner *run = r->runner;
    const EngineConfig *c = &run->config;
    const Sequence *s = r->seq;
    const char *label = gguf_label(run->model.gguf);
    json_t *root = json_object();
    json_object_set_new(root, "model", show_json(label, strlen(label)));
    json_object_set_new(root, "prompt", show_json(r->prompt->data, r->prompt->n));
    json_object_set_new(root, "prompt_ids", id_list(s->ids, s->n_prompt));
    const Buf *text = r->answer ? &r->answer->text : &s->text,
              *thought = r->answer ? &r->answer->reasoning : NULL;
    json_object_set_new(root, "text", show_json(text->data, text->n));
    if (thought)
        json_object_set_new(root, "reasoning",
                            thought->n ? show_json(thought->data, thought->n) : json_null());
    json_object_set_new(root, "ids", id_list(s->ids + s->n_prompt, s->n_generated));
    json_object_set_new(root, "finish_reason", json_string(finish_name(s->finish)));
    json_object_set_new(root, "seed", seed_value(r->request->params.seed));
    json_object_set_new(root, "sampling", sampling(r));
    json_object_set_new(root, "executor", json_string(engine_executor(run->engine)));
    json_object_set_new(root, "isa", json_string(c->isa));
    json_object_set_new(root, "act", json_string(c->act_f32 ? "f32" : "q8"));
    json_object_set_new(root, "weights", json_string(c->weights_fp8 ? "fp8" : "file"));
    json_object_set_new(root, "kv", json_string(kv_type_name(c->kv_type)));
    json_object_set_new(root, "threads", json_integer(c->n_threads));
    json_object_set_new(root, "n_ctx", json_integer(c->n_ctx));
    json_object_set_new(root, "counts",
                        json_pack("{s:i,s:i}", "prompt", s->n_prompt, "generated", s->n_generated));
    json_object_set_new(root, "memory", runner_memory(run));
    json_object_set_new(root, "timings",
                        json_pack("{s:o,s:o,s:o,s:o}", "device_s", show_number(run->device_seconds), "load_s",
                                  show_number(run->load_seconds), "prompt", timing(&s->prompt), "decode",
                                  timing(&s->decode)));
    if (r->verify) json_object_set_new(root, "verify", r->verify);
    if (r->profile) json_object_set_new(root, "profile", r->profile);
    if (r->request->n_logprobs) json_object_set_new(root, "logprobs", logprobs(r));
    return show_write(root, e);
}
