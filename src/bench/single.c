/* single: a row in the table of llama-bench, one sequence at a time; see row.h. */
#include "model_type.h"
#include "row.h"
#include "../base/mem.h"
#include "../cli/show.h"

#include <time.h>

/* ---- columns ---- */

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
    GAPS,
    N_COLUMNS
} Column;

static const BenchColumn COLUMNS[N_COLUMNS] = {
    [MODEL] = {"model", -30},      [SIZE] = {"size", 10},        [PARAMS] = {"params", 10},
    [BACKEND] = {"backend", -10},  [NGL] = {"ngl", 3},           [THREADS] = {"threads", 7},
    [N_BATCH] = {"n_batch", 7},    [N_UBATCH] = {"n_ubatch", 8}, [TYPE_K] = {"type_k", 6},
    [TYPE_V] = {"type_v", 6},      [FLASH] = {"fa", 3},          [TEST] = {"test", 15},
    [RATE] = {"t/s", 20},          [BYTES] = {"GB/s", 8},        [SHARE] = {"% read", 6},
    [OPERATIONS] = {"TFLOP/s", 8}, [FIRST] = {"ttft ms", 10},    [GAPS] = {"itl ms 50/90/99 %", 24},
};

/* Whether the column is in the table: some appear only if their option is given. */
static bool is_shown(Column column, const BenchOptions *o, bool has_gpu) {
    switch (column) {
    case NGL:
        return has_gpu;
    case THREADS:
        return !has_gpu || !o->n_threads.is_standard;
    case N_BATCH:
        return !o->batch.is_standard;
    case N_UBATCH:
        return !o->ubatch.is_standard;
    case TYPE_K:
    case TYPE_V:
        return !o->kv.is_standard || o->cache_k.n || o->cache_v.n;
    case FLASH:
        return o->flash_attn.n > 0;
    default:
        return true;
    }
}

static int add_columns(const BenchOptions *o, bool has_gpu, BenchColumn *out) {
    int n = 0;
    for (Column c = 0; c < N_COLUMNS; c++)
        if (is_shown(c, o, has_gpu)) out[n++] = COLUMNS[c];
    return n;
}

/* ---- cells ---- */

static void add_size(Buf *out, double bytes) {
    double mib = bytes / (1 << 20);
    buf_printf(out, mib < 1024 ? "%.2f MiB" : "%.2f GiB", mib < 1024 ? mib : mib / 1024);
}

static void add_params(Buf *out, double n) {
    buf_printf(out, n < 1e9 ? "%.2f M" : "%.2f B", n < 1e9 ? n / 1e6 : n / 1e9);
}

static void add_gaps(Buf *out, const BenchRow *r) {
    const double *gaps = r->metrics.gaps;
    bench_add_number(out, "%.2f", 1e3 * gaps[0]);
    if (r->result->n_gaps) buf_printf(out, " / %.2f / %.2f", 1e3 * gaps[1], 1e3 * gaps[2]);
}

static void add_cell(Buf *out, const BenchRow *r, Column column) {
    const Runner *run = r->run;
    const BenchMetrics *m = &r->metrics;
    switch (column) {
    case MODEL:
        bench_model_type(run->model.gguf, engine_plan(run->engine), out);
        break;
    case SIZE:
        add_size(out, bench_model_bytes(run->model.gguf));
        break;
    case PARAMS:
        add_params(out, bench_model_params(run->model.gguf));
        break;
    case BACKEND:
        buf_printf(out, "%s", bench_on_gpu(r) ? "CUDA" : "CPU");
        break;
    case NGL:
        buf_printf(out, "%d", bench_n_gpu_layers(r));
        break;
    case THREADS:
        buf_printf(out, "%d", run->config.n_threads);
        break;
    case N_BATCH:
        buf_printf(out, "%d", bench_n_batch(r));
        break;
    case N_UBATCH:
        buf_printf(out, "%d", engine_chunk(run->engine));
        break;
    case TYPE_K:
    case TYPE_V:
        buf_printf(out, "%s", run->options->kv);
        break;
    case FLASH:
        buf_printf(out, "1");
        break;
    case TEST:
        bench_add_test(out, r->test->n_prompt, r->test->n_gen, r->test->n_depth);
        break;
    case RATE:
        buf_printf(out, "%.2f ± %.2f", m->rate.mean, m->rate.deviation);
        break;
    case BYTES:
        bench_add_number(out, "%.1f", m->bytes_per_second / 1e9);
        break;
    case SHARE:
        bench_add_number(out, "%.1f", m->read_percent);
        break;
    case OPERATIONS:
        bench_add_number(out, "%.2f", m->flops / 1e12);
        break;
    case FIRST:
        bench_add_number(out, "%.2f", 1e3 * m->first_seconds);
        break;
    case GAPS:
        add_gaps(out, r);
        break;
    case N_COLUMNS:
        break;
    }
}

static void add_cells(const BenchRow *r, bool has_gpu, Buf *cells) {
    int n = 0;
    for (Column c = 0; c < N_COLUMNS; c++)
        if (is_shown(c, &r->run->options->bench, has_gpu)) add_cell(&cells[n++], r, c);
}

/* ---- keys ---- */

static void set_settings(json_t *object, const BenchRow *r) {
    const EngineConfig *c = &r->run->config;
    const char *kv = r->run->options->kv;
    bench_set_int(object, "n_batch", bench_n_batch(r));
    bench_set_int(object, "n_ubatch", engine_chunk(r->run->engine));
    bench_set_int(object, "n_threads", c->n_threads);
    bench_set_text(object, "cpu_mask", "0x0");
    json_object_set_new(object, "cpu_strict", json_false());
    bench_set_int(object, "poll", 50);
    bench_set_text(object, "type_k", kv);
    bench_set_text(object, "type_v", kv);
    bench_set_int(object, "n_gpu_layers", bench_n_gpu_layers(r));
    bench_set_int(object, "n_cpu_moe", 0);
    bench_set_text(object, "split_mode", "layer");
    bench_set_int(object, "main_gpu", c->device_index);
    json_object_set_new(object, "no_kv_offload", json_false());
    bench_set_int(object, "flash_attn", 1);
    bench_set_text(object, "devices", "auto");
    bench_set_text(object, "tensor_split", "0.00");
    bench_set_text(object, "tensor_buft_overrides", "none");
    bench_set_text(object, "load_mode", "mmap");
    json_object_set_new(object, "embeddings", json_false());
    bench_set_int(object, "no_op_offload", 0);
    json_object_set_new(object, "no_host", json_false());
    bench_set_int(object, "fit_target", 0);
    bench_set_int(object, "fit_min_ctx", 0);
}

static void set_test(json_t *object, const BenchTest *t) {
    char now[40];
    time_t seconds = time(NULL);
    strftime(now, sizeof now, "%FT%TZ", gmtime(&seconds));
    bench_set_int(object, "n_prompt", t->n_prompt);
    bench_set_int(object, "n_gen", t->n_gen);
    bench_set_int(object, "n_depth", t->n_depth);
    bench_set_text(object, "test_time", now);
}

static void set_samples(json_t *object, const BenchRow *r) {
    const BenchResult *result = r->result;
    const BenchMetrics *m = &r->metrics;
    double n_tokens = r->test->n_prompt + r->test->n_gen;
    json_t *ns = json_array(), *ts = json_array();
    for (int i = 0; i < result->n; i++) {
        json_array_append_new(ns, json_integer((json_int_t)(1e9 * result->seconds[i])));
        json_array_append_new(ts, json_real(n_tokens / result->seconds[i]));
    }
    bench_set_int(object, "avg_ns", 1e9 * m->seconds.mean);
    bench_set_int(object, "stddev_ns", 1e9 * m->seconds.deviation);
    json_object_set_new(object, "avg_ts", json_real(m->rate.mean));
    json_object_set_new(object, "stddev_ts", json_real(m->rate.deviation));
    json_object_set_new(object, "samples_ns", ns);
    json_object_set_new(object, "samples_ts", ts);
}

static json_t *make_object(const BenchRow *r) {
    json_t *object = json_object();
    bench_set_build(object);
    bench_set_machine(object, r);
    bench_set_model(object, r);
    set_settings(object, r);
    set_test(object, r->test);
    set_samples(object, r);
    bench_set_more(object, r);
    return object;
}

const BenchLayout bench_single_layout = {false, add_columns, add_cells, make_object};
