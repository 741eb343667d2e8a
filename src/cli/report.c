/* report: see report.h. */
#include "report.h"
#include "out.h"
#include "setup.h"
#include "show.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool on_gpu(const Report *r) {
    return r->config->device == DEVICE_CUDA;
}

/* ---- notices ---- */

void report_begin(const Report *r) {
    const Options *o = r->options;
    if (!o->model)
        setup_notice(o, "the demo model, part of this executable, speaks; -m FILE lets another one");
    setup_notice(o, "seed %" PRIu64, r->request->params.seed);
    setup_notice(o, "%d threads, %s kernels, %s activations", r->config->n_threads,
                 on_gpu(r) ? engine_executor(r->engine) : r->config->isa, r->config->act_f32 ? "f32" : "q8");
}

static double rate(double amount, double seconds) {
    return seconds > 0 ? amount / seconds : NAN;
}

static void print_timing(const Report *r, const char *name, const Timing *t, double bandwidth) {
    if (t->n == 0) return;
    double bytes = rate(t->bytes, t->seconds);
    char share[120] = "", reader[40] = "the GPU reads its";
    if (!on_gpu(r)) snprintf(reader, sizeof reader, "%d threads read", r->config->n_threads);
    if (bandwidth > 0)
        snprintf(share, sizeof share, ", %.0f %% of the %.1f GB/s at which %s memory",
                 100 * bytes / bandwidth, bandwidth / 1e9, reader);
    setup_notice(r->options, "%s: %d tokens in %.3f s, %.1f tok/s, %.2f GB/s%s", name, t->n, t->seconds,
                 rate(t->n, t->seconds), bytes / 1e9, share);
}

void report_end(const Report *r) {
    const Options *o = r->options;
    const Sequence *s = r->seq;
    if (s->finish == FINISH_LENGTH && s->n_prompt + s->n_generated >= r->config->n_ctx)
        setup_notice(o, "the context of %d tokens is full; -c makes it longer", r->config->n_ctx);
    else if (s->finish == FINISH_LENGTH)
        setup_notice(o, "stopped after %d new tokens, as -n asks", s->n_generated);
    if (!o->perf || o->quiet) return;
    if (on_gpu(r))
        setup_notice(o, "load: %.3f s, after %.3f s of waking the GPU", r->load_seconds, r->device_seconds);
    else
        setup_notice(o, "load: %.3f s", r->load_seconds);
    print_timing(r, "prompt", &s->prompt, 0);
    print_timing(r, "decode", &s->decode, o->verbose && s->decode.n ? engine_read_bandwidth(r->engine) : 0);
}

/* ---- JSON ---- */

/* A parameter as the user wrote it: 0.8 and not the nearest float in full. */
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
    return object;
}

static json_t *one_logprob(const Report *r, int32_t id, float logprob) {
    json_t *object = json_object();
    json_object_set_new(object, "id", json_integer(id));
    json_object_set_new(object, "piece", show_piece(r->model->tok, id));
    json_object_set_new(object, "logprob", show_number(logprob));
    return object;
}

static json_t *logprobs(const Report *r) {
    const Sequence *s = r->seq;
    json_t *list = json_array();
    int n_best = r->request->n_logprobs, n_vocab = engine_plan(r->engine)->hparams.n_vocab;
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
    const Sequence *s = r->seq;
    json_t *root = json_object();
    json_object_set_new(root, "model",
                        show_json(gguf_label(r->model->gguf), strlen(gguf_label(r->model->gguf))));
    json_object_set_new(root, "prompt", show_json(r->prompt->data, r->prompt->n));
    json_object_set_new(root, "prompt_ids", id_list(s->ids, s->n_prompt));
    json_object_set_new(root, "text", show_json(s->text.data, s->text.n));
    json_object_set_new(root, "ids", id_list(s->ids + s->n_prompt, s->n_generated));
    json_object_set_new(root, "finish_reason", json_string(finish_name(s->finish)));
    json_object_set_new(root, "seed", seed_value(r->request->params.seed));
    json_object_set_new(root, "sampling", sampling(r));
    json_object_set_new(root, "executor", json_string(engine_executor(r->engine)));
    json_object_set_new(root, "isa", json_string(r->config->isa));
    json_object_set_new(root, "act", json_string(r->config->act_f32 ? "f32" : "q8"));
    json_object_set_new(root, "weights", json_string(r->config->weights_fp8 ? "fp8" : "file"));
    json_object_set_new(root, "kv", json_string(kv_type_name(r->config->kv_type)));
    json_object_set_new(root, "threads", json_integer(r->config->n_threads));
    json_object_set_new(root, "n_ctx", json_integer(r->config->n_ctx));
    json_object_set_new(root, "counts",
                        json_pack("{s:i,s:i}", "prompt", s->n_prompt, "generated", s->n_generated));
    json_object_set_new(root, "memory", setup_memory(r->engine));
    json_object_set_new(root, "timings",
                        json_pack("{s:o,s:o,s:o,s:o}", "device_s", show_number(r->device_seconds), "load_s",
                                  show_number(r->load_seconds), "prompt", timing(&s->prompt), "decode",
                                  timing(&s->decode)));
    if (r->verify) json_object_set_new(root, "verify", r->verify);
    if (r->profile) json_object_set_new(root, "profile", r->profile);
    if (r->request->n_logprobs) json_object_set_new(root, "logprobs", logprobs(r));
    return show_write(root, e);
}
