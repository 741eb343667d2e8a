/* batched: a row in the table of llama-batched-bench, many sequences at once; see row.h. */
#include "row.h"
#include "../base/mem.h"
#include "../base/stat.h"

#include <stdlib.h>
#include <string.h>

static const BenchColumn COLUMNS[] = {
    {"PP", 6},     {"TG", 6},       {"B", 4},   {"N_KV", 6},  {"T_PP s", 8}, {"S_PP t/s", 8},
    {"T_TG s", 8}, {"S_TG t/s", 8}, {"T s", 8}, {"S t/s", 8}, {"GB/s", 8},   {"% read", 6},
};
enum { N_COLUMNS = sizeof COLUMNS / sizeof *COLUMNS };

static int add_columns(const BenchOptions *o, bool has_gpu, BenchColumn *out) {
    (void)o;
    (void)has_gpu;
    memcpy(out, COLUMNS, sizeof COLUMNS);
    return N_COLUMNS;
}

typedef struct Phase { // prompt, decoding, or both
    int n_tokens;      // of all sequences
    double seconds;    // the mean
    double rate;       // tokens per second
} Phase;

static Phase phase_of(int n_tokens, double seconds) {
    return (Phase){n_tokens, seconds, n_tokens > 0 ? n_tokens / seconds : 0};
}

typedef struct Phases {
    Phase prompt, decode, all;
} Phases;

static Phases phases_of(const BenchRow *r) {
    int n_prompt = r->n_seq * r->test->n_prompt, n_gen = r->n_seq * r->test->n_gen;
    double prompt = stat_mean(r->result->prompt_seconds, r->result->n), all = r->metrics.seconds.mean;
    return (Phases){.prompt = phase_of(n_prompt, prompt),
                    .decode = phase_of(n_gen, all - prompt),
                    .all = phase_of(n_prompt + n_gen, all)};
}

static void add_cells(const BenchRow *r, bool has_gpu, Buf *cells) {
    (void)has_gpu;
    Phases p = phases_of(r);
    const int counts[] = {r->test->n_prompt, r->test->n_gen, r->n_seq, p.all.n_tokens};
    const Phase phases[] = {p.prompt, p.decode, p.all};
    for (int i = 0; i < 4; i++) buf_printf(cells++, "%d", counts[i]);
    for (int i = 0; i < 3; i++) {
        buf_printf(cells++, "%.3f", phases[i].seconds);
        buf_printf(cells++, "%.2f", phases[i].rate);
    }
    bench_add_number(cells++, "%.1f", r->metrics.bytes_per_second / 1e9);
    bench_add_number(cells++, "%.1f", r->metrics.read_percent);
}

static void set_deviations(json_t *object, const BenchRow *r) {
    const BenchResult *result = r->result;
    double *decode = mem_new((size_t)result->n, sizeof *decode);
    for (int i = 0; i < result->n; i++) decode[i] = result->seconds[i] - result->prompt_seconds[i];
    Spread pp = bench_rate_spread(r->n_seq * r->test->n_prompt, result->prompt_seconds, result->n);
    Spread tg = bench_rate_spread(r->n_seq * r->test->n_gen, decode, result->n);
    json_object_set_new(object, "stddev_pp", json_real(pp.deviation));
    json_object_set_new(object, "stddev_tg", json_real(r->test->n_gen ? tg.deviation : 0));
    free(decode);
}

static json_t *make_object(const BenchRow *r) {
    const BenchTest *t = r->test;
    const Runner *run = r->run;
    Phases p = phases_of(r);
    json_t *object = json_object();
    bench_set_int(object, "n_kv_max", r->n_seq * bench_context(t));
    bench_set_int(object, "n_batch", bench_n_batch(r));
    bench_set_int(object, "n_ubatch", engine_chunk(run->engine));
    bench_set_int(object, "flash_attn", 1);
    bench_set_int(object, "is_pp_shared", 0);
    bench_set_int(object, "n_gpu_layers", bench_n_gpu_layers(r));
    bench_set_int(object, "n_threads", run->config.n_threads);
    bench_set_int(object, "n_threads_batch", run->config.n_threads);
    bench_set_int(object, "pp", t->n_prompt);
    bench_set_int(object, "tg", t->n_gen);
    bench_set_int(object, "pl", r->n_seq);
    bench_set_int(object, "n_kv", p.all.n_tokens);
    json_object_set_new(object, "t_pp", json_real(p.prompt.seconds));
    json_object_set_new(object, "speed_pp", json_real(p.prompt.rate));
    json_object_set_new(object, "t_tg", json_real(p.decode.seconds));
    json_object_set_new(object, "speed_tg", json_real(p.decode.rate));
    json_object_set_new(object, "t", json_real(p.all.seconds));
    json_object_set_new(object, "speed", json_real(p.all.rate));
    bench_set_build(object);
    bench_set_machine(object, r);
    bench_set_model(object, r);
    bench_set_text(object, "type_k", run->options->kv);
    bench_set_text(object, "type_v", run->options->kv);
    bench_set_int(object, "repetitions", r->result->n);
    set_deviations(object, r);
    bench_set_more(object, r);
    return object;
}

const BenchLayout bench_batched_layout = {true, add_columns, add_cells, make_object};
