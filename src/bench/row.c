/* row: see row.h. */
#include "row.h"
#include "machine.h"
#include "model_type.h"
#include "../cli/cli.h"
#include "../cli/sha256.h"
#include "../cli/show.h"

#include <math.h>
#include <string.h>

bool bench_on_gpu(const BenchRow *r) {
    return r->run->config.device == DEVICE_CUDA;
}

int bench_n_gpu_layers(const BenchRow *r) {
    int n = r->run->options->gpu_layers;
    return !bench_on_gpu(r) ? 0 : n > 0 ? n : GPU_LAYERS_MANY;
}

int bench_n_batch(const BenchRow *r) {
    enum { STANDARD = 2048 }; // llama-bench's
    int n = engine_chunk(r->run->engine);
    return r->n_batch ? r->n_batch : n > STANDARD ? n : STANDARD;
}

void bench_add_number(Buf *out, const char *format, double x) {
    char text[40] = "-";
    if (isfinite(x)) snprintf(text, sizeof text, format, x);
    buf_printf(out, "%s", text);
}

void bench_set_text(json_t *object, const char *key, const char *text) {
    json_object_set_new(object, key, json_string_nocheck(text));
}

void bench_set_int(json_t *object, const char *key, double value) {
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

void bench_set_build(json_t *object) {
    bench_set_text(object, "build_commit", "zgen-" ZGEN_VERSION);
    bench_set_int(object, "build_number", 0);
}

void bench_set_machine(json_t *object, const BenchRow *r) {
    Buf cpu = {0};
    bench_cpu_name(&cpu);
    bench_set_text(object, "cpu_info", cpu.data);
    bench_set_text(object, "gpu_info", r->gpu);
    bench_set_text(object, "backends", bench_on_gpu(r) ? "CUDA" : "CPU");
    buf_free(&cpu);
}

void bench_set_model(json_t *object, const BenchRow *r) {
    const Gguf *g = r->run->model.gguf;
    Buf type = {0};
    bench_model_type(g, engine_plan(r->run->engine), &type);
    json_object_set_new(object, "model_filename", show_json(r->filename, strlen(r->filename)));
    bench_set_text(object, "model_type", type.data);
    bench_set_int(object, "model_size", bench_model_bytes(g));
    bench_set_int(object, "model_n_params", bench_model_params(g));
    buf_free(&type);
}

void bench_set_more(json_t *object, const BenchRow *r) {
    const BenchMetrics *m = &r->metrics;
    const BenchResult *result = r->result;
    const SampleParams *sampling = &r->settings->params;
    char digest[65];
    sha256_hex(result->ids, (size_t)result->n_ids * sizeof *result->ids, digest);
    json_object_set_new(object, "use_mmap", json_true()); // the older name of load_mode, which tools read
    bench_set_text(object, "mode", sampling->random_tokens ? "random" : "real");
    bench_set_int(object, "seed", (double)sampling->seed);
    bench_set_text(object, "executor", engine_executor(r->run->engine));
    bench_set_text(object, "isa", bench_on_gpu(r) ? "" : r->run->config.isa);
    bench_set_int(object, "load_ns", 1e9 * r->load_seconds);
    json_object_set_new(object, "ttft_ns", show_number(1e9 * m->first_seconds));
    json_object_set_new(object, "itl_p50_ns", show_number(1e9 * m->gaps[0]));
    json_object_set_new(object, "itl_p90_ns", show_number(1e9 * m->gaps[1]));
    json_object_set_new(object, "itl_p99_ns", show_number(1e9 * m->gaps[2]));
    json_object_set_new(object, "gb_s", show_number(m->bytes_per_second / 1e9));
    double bandwidth = r->read_bandwidth > 0 ? r->read_bandwidth : NAN;
    json_object_set_new(object, "read_gb_s", show_number(bandwidth / 1e9));
    json_object_set_new(object, "read_percent", show_number(m->read_percent));
    json_object_set_new(object, "limit_ts", show_number(m->limit));
    json_object_set_new(object, "tflop_s", show_number(m->flops / 1e12));
    bench_set_int(object, "peak_host_bytes", r->host_bytes);
    bench_set_int(object, "peak_gpu_bytes", r->gpu_bytes);
    bench_set_text(object, "ids_sha256", digest);
    json_object_set_new(object, "ids_repeat",
                        sampling->random_tokens ? json_null() : json_boolean(!result->differs));
    if (r->verdict) json_object_set_new(object, "verify", json_incref(r->verdict));
}
