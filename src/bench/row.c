/* bench_row: see bench_row.h. */
#include "row.h"
#include "model_type.h"
#include "../cli/cli.h"
#include "../cli/sha256.h"
#include "../cli/show.h"
#include "../base/mem.h"
#include "../base/stat.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- what follows from the samples ---- */

static bool on_gpu(const BenchRow *r) {
    return r->config->device == DEVICE_CUDA;
}

static int ngl(const BenchRow *r) {
    return !on_gpu(r) ? 0 : r->options->gpu_layers > 0 ? r->options->gpu_layers : GPU_LAYERS_MANY;
}

/* What llama-bench calls the logical batch: zgen knows no more than that a run is not larger. */
static int n_batch(const BenchRow *r) {
    enum { STANDARD = 2048 }; // llama-bench's
    int n = engine_chunk(r->engine);
    return r->n_batch ? r->n_batch : n > STANDARD ? n : STANDARD;
}

static const char *mode(const BenchRow *r) {
    return r->settings->params.blind ? "random" : "real";
}

/* Tokens per second of n tokens in each of the times, in new memory. */
static double *rates(double n, const double *seconds, int n_seconds) {
    double *out = mem_new((size_t)n_seconds, sizeof *out);
    for (int i = 0; i < n_seconds; i++) out[i] = n / seconds[i];
    return out;
}

typedef struct Spread {
    double mean, deviation;
} Spread;

static Spread spread(const double *x, int n) {
    return (Spread){stat_mean(x, n), stat_deviation(x, n)};
}

static Spread rate_spread(double n, const double *seconds, int n_seconds) {
    double *x = rates(n, seconds, n_seconds);
    Spread s = spread(x, n_seconds);
    free(x);
    return s;
}

static int n_tokens(const BenchRow *r) {
    return r->test->n_prompt + r->test->n_gen;
}

/* The time of the decoding in one repetition. */
static double decode_seconds(const BenchRow *r) {
    return stat_mean(r->result->gaps, r->result->n_gaps) * r->test->n_gen;
}

static double decode_bytes(const BenchRow *r) {
    const BenchTest *t = r->test;
    int behind = t->n_depth + (t->n_prompt ? t->n_prompt : 1);
    return bench_decode_bytes(engine_plan(r->engine), r->config->kv_type, r->n_seq ? r->n_seq : 1, behind,
                              t->n_gen);
}

static double none_if_zero(double x) {
    return x > 0 ? x : NAN;
}

static double bytes_per_second(const BenchRow *r) {
    return r->test->n_gen ? decode_bytes(r) / decode_seconds(r) : NAN;
}

static double read_share(const BenchRow *r) {
    return 100 * bytes_per_second(r) / none_if_zero(r->read_bandwidth);
}

/* Tokens per second if the bytes were all that takes time. */
static double limit(const BenchRow *r) {
    double n = (double)r->test->n_gen * (r->n_seq ? r->n_seq : 1);
    return r->test->n_gen ? n * none_if_zero(r->read_bandwidth) / decode_bytes(r) : NAN;
}

static double operations_per_second(const BenchRow *r) {
    const BenchTest *t = r->test;
    double seconds = stat_mean(r->result->prompt_seconds, r->result->n);
    double n = bench_prompt_operations(engine_plan(r->engine), t->n_depth, t->n_prompt);
    return t->n_prompt ? n * (r->n_seq ? r->n_seq : 1) / seconds : NAN;
}

static double first_seconds(const BenchRow *r) {
    return r->test->n_prompt ? stat_mean(r->result->prompt_seconds, r->result->n) : NAN;
}

static double gap_seconds(const BenchRow *r, double q) {
    return r->result->n_gaps ? stat_quantile(r->result->gaps, r->result->n_gaps, q) : NAN;
}

/* ---- llama-bench's columns ---- */

typedef enum Column {
    MODEL,
    SIZE,
    PARAMS,
    BACKEND,
    NGL,
    THREADS,
    N_BATCH,
    N_UBATCH,
    TYPE_K,
    TYPE_V,
    FLASH,
    TEST,
    RATE,
    BYTES,
    SHARE,
    OPERATIONS,
    FIRST,
    GAPS
} Column;

static const BenchColumn columns[] = {
    [MODEL] = {"model", -30},      [SIZE] = {"size", 10},        [PARAMS] = {"params", 10},
    [BACKEND] = {"backend", -10},  [NGL] = {"ngl", 3},           [THREADS] = {"threads", 7},
    [N_BATCH] = {"n_batch", 7},    [N_UBATCH] = {"n_ubatch", 8}, [TYPE_K] = {"type_k", 6},
    [TYPE_V] = {"type_v", 6},      [FLASH] = {"fa", 3},          [TEST] = {"test", 15},
    [RATE] = {"t/s", 20},          [BYTES] = {"GB/s", 8},        [SHARE] = {"% read", 6},
    [OPERATIONS] = {"TFLOP/s", 8}, [FIRST] = {"ttft ms", 10},    [GAPS] = {"itl ms 50/90/99 %", 24},
};

/* Those that are always there, and those whose option was given. */
static int choose(const Options *o, bool beside_gpu, Column *out) {
    const BenchOptions *b = &o->bench;
    bool is_kv_given = !b->kv.is_standard || b->cache_k.n || b->cache_v.n;
    const struct {
        Column column;
        bool is_shown;
    } all[] = {{MODEL, true},
               {SIZE, true},
               {PARAMS, true},
               {BACKEND, true},
               {NGL, beside_gpu},
               {THREADS, !beside_gpu || !b->n_threads.is_standard},
               {N_BATCH, !b->batch.is_standard},
               {N_UBATCH, !b->ubatch.is_standard},
               {TYPE_K, is_kv_given},
               {TYPE_V, is_kv_given},
               {FLASH, b->flash_attn != NULL},
               {TEST, true},
               {RATE, true},
               {BYTES, true},
               {SHARE, true},
               {OPERATIONS, true},
               {FIRST, true},
               {GAPS, true}};
    int n = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].is_shown) out[n++] = all[i].column;
    return n;
}

int bench_row_columns(const Options *o, bool beside_gpu, BenchColumn *out) {
    Column chosen[BENCH_COLUMNS];
    int n = choose(o, beside_gpu, chosen);
    for (int i = 0; i < n; i++) out[i] = columns[chosen[i]];
    return n;
}

static void add_number(Buf *out, const char *format, double x) {
    char text[40] = "-";
    if (isfinite(x)) snprintf(text, sizeof text, format, x);
    buf_printf(out, "%s", text);
}

static void add_size(Buf *out, double bytes) {
    double mib = bytes / (1 << 20);
    buf_printf(out, mib < 1024 ? "%.2f MiB" : "%.2f GiB", mib < 1024 ? mib : mib / 1024);
}

static void add_params(Buf *out, double n) {
    buf_printf(out, n < 1e9 ? "%.2f M" : "%.2f B", n < 1e9 ? n / 1e6 : n / 1e9);
}

static void add_test(Buf *out, const BenchTest *t) {
    if (t->n_prompt) buf_printf(out, "pp%d", t->n_prompt);
    if (t->n_gen) buf_printf(out, "%stg%d", t->n_prompt ? "+" : "", t->n_gen);
    if (t->n_depth) buf_printf(out, " @ d%d", t->n_depth);
}

static void add_gaps(Buf *out, const BenchRow *r) {
    add_number(out, "%.2f", 1e3 * gap_seconds(r, 0.5));
    if (r->result->n_gaps)
        buf_printf(out, " / %.2f / %.2f", 1e3 * gap_seconds(r, 0.9), 1e3 * gap_seconds(r, 0.99));
}

static void add_cell(Buf *out, const BenchRow *r, Column column) {
    Spread rate = rate_spread(n_tokens(r), r->result->seconds, r->result->n);
    switch (column) {
    case MODEL:
        bench_model_type(r->model->gguf, engine_plan(r->engine), out);
        break;
    case SIZE:
        add_size(out, bench_model_bytes(r->model->gguf));
        break;
    case PARAMS:
        add_params(out, bench_model_params(r->model->gguf));
        break;
    case BACKEND:
        buf_printf(out, "%s", on_gpu(r) ? "CUDA" : "CPU");
        break;
    case NGL:
        buf_printf(out, "%d", ngl(r));
        break;
    case THREADS:
        buf_printf(out, "%d", r->config->n_threads);
        break;
    case N_BATCH:
        buf_printf(out, "%d", n_batch(r));
        break;
    case N_UBATCH:
        buf_printf(out, "%d", engine_chunk(r->engine));
        break;
    case TYPE_K:
    case TYPE_V:
        buf_printf(out, "%s", r->options->kv);
        break;
    case FLASH:
        buf_printf(out, "1");
        break;
    case TEST:
        add_test(out, r->test);
        break;
    case RATE:
        buf_printf(out, "%.2f ± %.2f", rate.mean, rate.deviation);
        break;
    case BYTES:
        add_number(out, "%.1f", bytes_per_second(r) / 1e9);
        break;
    case SHARE:
        add_number(out, "%.1f", read_share(r));
        break;
    case OPERATIONS:
        add_number(out, "%.2f", operations_per_second(r) / 1e12);
        break;
    case FIRST:
        add_number(out, "%.2f", 1e3 * first_seconds(r));
        break;
    case GAPS:
        add_gaps(out, r);
        break;
    }
}

void bench_row_cells(const BenchRow *r, Buf *cells) {
    Column chosen[BENCH_COLUMNS];
    int n = choose(r->options, r->beside_gpu, chosen);
    for (int i = 0; i < n; i++) add_cell(&cells[i], r, chosen[i]);
}

/* ---- keys ---- */

static void set(json_t *object, const char *key, json_t *value) {
    json_object_set_new(object, key, value);
}

static void set_text(json_t *object, const char *key, const char *text) {
    set(object, key, json_string_nocheck(text));
}

static void set_int(json_t *object, const char *key, double value) {
    set(object, key, json_integer((json_int_t)value));
}

static void set_build(json_t *object) {
    set_text(object, "build_commit", "zgen-" ZGEN_VERSION);
    set_int(object, "build_number", 0);
}

static void set_machine(json_t *object, const BenchRow *r) {
    Buf cpu = {0};
    bench_cpu_name(&cpu);
    set_text(object, "cpu_info", cpu.data);
    set_text(object, "gpu_info", r->gpu);
    set_text(object, "backends", on_gpu(r) ? "CUDA" : "CPU");
    buf_free(&cpu);
}

static void set_model(json_t *object, const BenchRow *r) {
    Buf type = {0};
    bench_model_type(r->model->gguf, engine_plan(r->engine), &type);
    set(object, "model_filename", show_json(r->filename, strlen(r->filename)));
    set_text(object, "model_type", type.data);
    set_int(object, "model_size", bench_model_bytes(r->model->gguf));
    set_int(object, "model_n_params", bench_model_params(r->model->gguf));
    buf_free(&type);
}

/* The settings between model_n_params and n_prompt. */
static void set_settings(json_t *object, const BenchRow *r) {
    set_int(object, "n_batch", n_batch(r));
    set_int(object, "n_ubatch", engine_chunk(r->engine));
    set_int(object, "n_threads", r->config->n_threads);
    set_text(object, "cpu_mask", "0x0");
    set(object, "cpu_strict", json_false());
    set_int(object, "poll", 50);
    set_text(object, "type_k", r->options->kv);
    set_text(object, "type_v", r->options->kv);
    set_int(object, "n_gpu_layers", ngl(r));
    set_int(object, "n_cpu_moe", 0);
    set_text(object, "split_mode", "layer");
    set_int(object, "main_gpu", r->config->device_index);
    set(object, "no_kv_offload", json_false());
    set_int(object, "flash_attn", 1);
    set_text(object, "devices", "auto");
    set_text(object, "tensor_split", "0.00");
    set_text(object, "tensor_buft_overrides", "none");
    set_text(object, "load_mode", "mmap");
    set(object, "embeddings", json_false());
    set_int(object, "no_op_offload", 0);
    set(object, "no_host", json_false());
    set_int(object, "fit_target", 0);
    set_int(object, "fit_min_ctx", 0);
}

static void set_test(json_t *object, const BenchTest *t) {
    char now[40];
    time_t seconds = time(NULL);
    strftime(now, sizeof now, "%FT%TZ", gmtime(&seconds));
    set_int(object, "n_prompt", t->n_prompt);
    set_int(object, "n_gen", t->n_gen);
    set_int(object, "n_depth", t->n_depth);
    set_text(object, "test_time", now);
}

static void set_samples(json_t *object, const BenchRow *r) {
    const BenchResult *result = r->result;
    double *x = rates(n_tokens(r), result->seconds, result->n);
    json_t *ns = json_array(), *ts = json_array();
    for (int i = 0; i < result->n; i++) {
        json_array_append_new(ns, json_integer((json_int_t)(1e9 * result->seconds[i])));
        json_array_append_new(ts, json_real(x[i]));
    }
    Spread time = spread(result->seconds, result->n), rate = spread(x, result->n);
    set_int(object, "avg_ns", 1e9 * time.mean);
    set_int(object, "stddev_ns", 1e9 * time.deviation);
    set(object, "avg_ts", json_real(rate.mean));
    set(object, "stddev_ts", json_real(rate.deviation));
    set(object, "samples_ns", ns);
    set(object, "samples_ts", ts);
    free(x);
}

/* What llama-bench has not. */
static void set_more(json_t *object, const BenchRow *r) {
    char digest[65];
    sha256_hex(r->result->ids, (size_t)r->result->n_ids * sizeof *r->result->ids, digest);
    set(object, "use_mmap", json_true()); // what load_mode was before; tools still ask for it
    set_text(object, "mode", mode(r));
    set_int(object, "seed", (double)r->settings->params.seed);
    set_text(object, "executor", engine_executor(r->engine));
    set_text(object, "isa", on_gpu(r) ? "" : r->config->isa);
    set_int(object, "load_ns", 1e9 * r->load_seconds);
    set(object, "ttft_ns", bench_number(1e9 * first_seconds(r)));
    set(object, "itl_p50_ns", bench_number(1e9 * gap_seconds(r, 0.5)));
    set(object, "itl_p90_ns", bench_number(1e9 * gap_seconds(r, 0.9)));
    set(object, "itl_p99_ns", bench_number(1e9 * gap_seconds(r, 0.99)));
    set(object, "gb_s", bench_number(bytes_per_second(r) / 1e9));
    set(object, "read_gb_s", bench_number(none_if_zero(r->read_bandwidth) / 1e9));
    set(object, "read_percent", bench_number(read_share(r)));
    set(object, "limit_ts", bench_number(limit(r)));
    set(object, "tflop_s", bench_number(operations_per_second(r) / 1e12));
    set_int(object, "peak_host_bytes", r->host_bytes);
    set_int(object, "peak_gpu_bytes", r->gpu_bytes);
    set_text(object, "ids_sha256", digest);
    set(object, "ids_repeat", r->settings->params.blind ? json_null() : json_boolean(!r->result->differs));
    if (r->verdict) set(object, "verify", json_incref(r->verdict));
}

json_t *bench_row_object(const BenchRow *r) {
    json_t *object = json_object();
    set_build(object);
    set_machine(object, r);
    set_model(object, r);
    set_settings(object, r);
    set_test(object, r->test);
    set_samples(object, r);
    set_more(object, r);
    return object;
}

/* ---- llama-batched-bench's ---- */

static const BenchColumn batch_columns[] = {
    {"PP", 6},     {"TG", 6},       {"B", 4},   {"N_KV", 6},  {"T_PP s", 8}, {"S_PP t/s", 8},
    {"T_TG s", 8}, {"S_TG t/s", 8}, {"T s", 8}, {"S t/s", 8}, {"GB/s", 8},   {"% read", 6},
};
enum { N_BATCH_COLUMNS = sizeof batch_columns / sizeof *batch_columns };

int bench_batch_columns(BenchColumn *out) {
    memcpy(out, batch_columns, sizeof batch_columns);
    return N_BATCH_COLUMNS;
}

typedef struct BatchTimes {
    int n_kv;
    double prompt_seconds, decode_seconds, seconds;
} BatchTimes;

static BatchTimes batch_times(const BenchRow *r) {
    BatchTimes b = {.n_kv = r->n_seq * n_tokens(r)};
    b.prompt_seconds = stat_mean(r->result->prompt_seconds, r->result->n);
    b.seconds = stat_mean(r->result->seconds, r->result->n);
    b.decode_seconds = b.seconds - b.prompt_seconds;
    return b;
}

static double rate(double n, double seconds) {
    return n > 0 ? n / seconds : 0;
}

void bench_batch_cells(const BenchRow *r, Buf *cells) {
    const BenchTest *t = r->test;
    BatchTimes b = batch_times(r);
    int i = 0;
    for (const int *n = (int[]){t->n_prompt, t->n_gen, r->n_seq, b.n_kv}; i < 4; i++)
        buf_printf(&cells[i], "%d", n[i]);
    buf_printf(&cells[i++], "%.3f", b.prompt_seconds);
    buf_printf(&cells[i++], "%.2f", rate(t->n_prompt * r->n_seq, b.prompt_seconds));
    buf_printf(&cells[i++], "%.3f", b.decode_seconds);
    buf_printf(&cells[i++], "%.2f", rate(t->n_gen * r->n_seq, b.decode_seconds));
    buf_printf(&cells[i++], "%.3f", b.seconds);
    buf_printf(&cells[i++], "%.2f", rate(b.n_kv, b.seconds));
    add_number(&cells[i++], "%.1f", bytes_per_second(r) / 1e9);
    add_number(&cells[i++], "%.1f", read_share(r));
}

static void set_batch_spreads(json_t *object, const BenchRow *r) {
    const BenchResult *result = r->result;
    double *decode = mem_new((size_t)result->n, sizeof *decode);
    for (int i = 0; i < result->n; i++) decode[i] = result->seconds[i] - result->prompt_seconds[i];
    Spread pp = rate_spread(r->n_seq * r->test->n_prompt, result->prompt_seconds, result->n);
    Spread tg = rate_spread(r->n_seq * r->test->n_gen, decode, result->n);
    set(object, "stddev_pp", json_real(pp.deviation));
    set(object, "stddev_tg", json_real(r->test->n_gen ? tg.deviation : 0));
    free(decode);
}

json_t *bench_batch_object(const BenchRow *r) {
    const BenchTest *t = r->test;
    BatchTimes b = batch_times(r);
    json_t *object = json_object();
    set_int(object, "n_kv_max", r->n_seq * bench_context(t));
    set_int(object, "n_batch", n_batch(r));
    set_int(object, "n_ubatch", engine_chunk(r->engine));
    set_int(object, "flash_attn", 1);
    set_int(object, "is_pp_shared", 0);
    set_int(object, "n_gpu_layers", ngl(r));
    set_int(object, "n_threads", r->config->n_threads);
    set_int(object, "n_threads_batch", r->config->n_threads);
    set_int(object, "pp", t->n_prompt);
    set_int(object, "tg", t->n_gen);
    set_int(object, "pl", r->n_seq);
    set_int(object, "n_kv", b.n_kv);
    set(object, "t_pp", json_real(b.prompt_seconds));
    set(object, "speed_pp", json_real(rate(t->n_prompt * r->n_seq, b.prompt_seconds)));
    set(object, "t_tg", json_real(b.decode_seconds));
    set(object, "speed_tg", json_real(rate(t->n_gen * r->n_seq, b.decode_seconds)));
    set(object, "t", json_real(b.seconds));
    set(object, "speed", json_real(rate(b.n_kv, b.seconds)));
    set_build(object);
    set_machine(object, r);
    set_model(object, r);
    set_text(object, "type_k", r->options->kv);
    set_text(object, "type_v", r->options->kv);
    set_int(object, "repetitions", r->result->n);
    set_batch_spreads(object, r);
    set_more(object, r);
    return object;
}
