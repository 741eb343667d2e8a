/* bench: how fast a model runs on this machine, in the tables of llama-bench, or with -npl of
 * llama-batched-bench.
 *
 * Owns the cross product: every list of the command line is one factor, in llama-bench's order.  The
 * factors that need an engine of their own (layers on the GPU, batch sizes, cache types, threads) are the
 * outer loops, so that a model is loaded once for all tests that share them.  Nothing is printed before the
 * first result; with --verify a test that fails has no row.  run/bench.h describes how a test is timed, row.h
 * what a row means. */
#include "bench.h"
#include "machine.h"
#include "row.h"
#include "../cli/cli.h"
#include "../cli/profile.h"
#include "../cli/prompt.h"
#include "../cli/setup.h"
#include "../cli/stop.h"
#include "../cli/verdict.h"
#include "../base/clock.h"
#include "../base/mem.h"
#include "../run/synth.h"
#include "../../cuda/cuda.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct BenchConfig { // of one engine
    Options options;         // the user's, with one value of each list
    int n_batch;             // -b
    EngineConfig config;
    CudaDevice gpu; // with the memory that was free before
} BenchConfig;

typedef struct Bench {
    const Options *o;
    BenchConfig *configs; // [n_configs]
    int n_configs;
    bool has_gpu;     // one of the configurations runs on a GPU
    BenchTest *tests; // [n_tests]
    int *n_seq;       // [n_tests] sequences at once
    int n_tests;
    TokIds text; // of --real
    BenchSettings settings;
    const BenchLayout *layout;
    BenchTable table;
    BenchColumn columns[BENCH_COLUMNS];
    SynthImage image; // of --shape
    Runner run;       // of the current model and configuration
    const char *filename;
    char label[120];                        // of a model without a file
    double model_seconds, load_seconds;     // opening the model; that and its engine
    double read_bandwidth;                  // bytes per second
    double peak_host_bytes, peak_gpu_bytes; // of the current engine
} Bench;

/* The text of --real without -f. */
static const char TEXT[] =
    "The harbour wakes before the town does. At five the first boats come in past the light, low in the "
    "water, and the gulls know it before anybody else. Old Marta sets out her scales, as she has done "
    "for forty years, and argues with the skippers about the weight of ice. By six the street behind "
    "the market smells of bread and diesel. A boy on a bicycle carries newspapers that nobody under "
    "fifty reads; he has a system, he says, and throws each of them without slowing down. The ferry "
    "leaves at seven, if the fog lets it, with nurses, two lorries, and the teacher who lives on the "
    "island and works on the mainland because that is how it turned out. When the sun reaches the roof "
    "of the net loft the whole harbour seems to stop for a moment, as if everyone had remembered "
    "something at once, and then the winches start again.\n\n";

/* ---- checks -------------------------------------------------------------------------------------------- */

static bool check_batch(const BenchOptions *b, Err *e) {
    if (b->n_seq.n == 0) return true;
    if (b->pairs.n || !b->depth.is_standard)
        return err_set(e, ERR_USAGE,
                       "-npl runs the prompts of -p and generates the tokens of -n; drop -pg and -d");
    for (int i = 0; i < b->n_prompt.n; i++)
        if (b->n_prompt.values[i] == 0)
            return err_set(e, ERR_USAGE,
                           "-npl: each sequence needs a prompt of at least one token; drop -p 0");
    return true;
}

static bool samples_by_default(const Options *o) {
    SampleParams p = sampling_numbers(o, 0), d = sample_defaults;
    return p.temp == d.temp && p.top_k == d.top_k && p.top_p == d.top_p && p.min_p == d.min_p &&
           p.repeat_penalty == d.repeat_penalty && p.repeat_last_n == d.repeat_last_n &&
           p.presence_penalty == d.presence_penalty && p.frequency_penalty == d.frequency_penalty;
}

static bool is_off(const char *word) {
    return strcmp(word, "0") == 0 || strcmp(word, "off") == 0;
}

/* What zgen does not have has no rows, where other values of the list have some. */
static bool check_flash_attn(const WordList *list, Err *e) {
    int n_off = 0;
    for (int i = 0; i < list->n; i++) n_off += is_off(list->values[i]);
    if (list->n && n_off == list->n)
        return err_set(
            e, ERR_USAGE,
            "-fa %s: there is one attention, which never stores scores whole; use -fa 1, or drop it",
            list->values[0]);
    if (n_off) err_warn("-fa 0: there is one attention, that of -fa 1; only its rows are printed");
    return true;
}

static bool check(const Options *o, Err *e) {
    const BenchOptions *b = &o->bench;
    if (!check_flash_attn(&b->flash_attn, e)) return false;
    if (o->n_rest)
        return err_set(e, ERR_USAGE, "unexpected argument '%.100s'; the model is given with -m", o->rest[0]);
    if (b->shape && o->n_models)
        return err_set(e, ERR_USAGE, "--shape makes a model and -m names one; drop one of them");
    if (o->n_layers && !b->shape)
        return err_set(e, ERR_USAGE, "--layers changes a shape; name one with --shape");
    if (o->file && !b->real) return err_set(e, ERR_USAGE, "-f is the text of --real; add --real, or drop -f");
    if (!samples_by_default(o) && !b->real)
        return err_set(e, ERR_USAGE,
                       "random tokens are not sampled; add --real, or drop the sampling options");
    return check_batch(b, e);
}

/* ---- the cross product --------------------------------------------------------------------------------- */

static void add_test(Bench *b, BenchTest test, int n_seq) {
    if (test.n_prompt == 0 && test.n_gen == 0) return;
    size_t n = (size_t)b->n_tests++;
    b->tests = mem_resize(b->tests, (n + 1) * sizeof *b->tests);
    b->n_seq = mem_resize(b->n_seq, (n + 1) * sizeof *b->n_seq);
    b->tests[n] = test;
    b->n_seq[n] = n_seq;
}

static void add_batched_tests(Bench *b) {
    const BenchOptions *o = &b->o->bench;
    for (int p = 0; p < o->n_prompt.n; p++)
        for (int g = 0; g < o->n_gen.n; g++)
            for (int s = 0; s < o->n_seq.n; s++)
                add_test(b, (BenchTest){o->n_prompt.values[p], o->n_gen.values[g], 0}, o->n_seq.values[s]);
}

static void add_single_tests(Bench *b) {
    const BenchOptions *o = &b->o->bench;
    for (int d = 0; d < o->depth.n; d++) {
        int depth = o->depth.values[d];
        for (int p = 0; p < o->n_prompt.n; p++) add_test(b, (BenchTest){o->n_prompt.values[p], 0, depth}, 1);
        for (int g = 0; g < o->n_gen.n; g++) add_test(b, (BenchTest){0, o->n_gen.values[g], depth}, 1);
        for (int i = 0; i < o->pairs.n; i += 2)
            add_test(b, (BenchTest){o->pairs.values[i], o->pairs.values[i + 1], depth}, 1);
    }
}

/* Sets pair i of cache types: those of --kv, or the cross product of -ctk and -ctv.  false: there is none. */
static bool choose_kv(const BenchOptions *o, int i, Options *out) {
    const WordList *k = o->cache_k.n ? &o->cache_k : &o->kv, *v = o->cache_v.n ? &o->cache_v : &o->kv;
    bool is_product = o->cache_k.n || o->cache_v.n;
    if (i >= (is_product ? k->n * v->n : k->n)) return false;
    out->kv = k->values[is_product ? i / v->n : i];
    out->cache_k = out->kv;
    out->cache_v = is_product ? v->values[i % v->n] : out->kv;
    return true;
}

/* Makes the engine large enough for every test. */
static void fit_tests(const Bench *b, EngineConfig *c) {
    bool is_batched = b->layout->is_batched;
    c->n_seq = 1;
    for (int i = 0; i < b->n_tests; i++) {
        int n_ctx = bench_context(&b->tests[i]) + is_batched;
        if (n_ctx > c->n_ctx) c->n_ctx = n_ctx;
        if (b->n_seq[i] > c->n_seq) c->n_seq = b->n_seq[i];
    }
    if (b->o->profile) c->n_ctx += PROFILE_ROOM;
    c->R_max = c->n_seq;
}

static bool add_config(Bench *b, const Options *one, int n_batch, int n_ubatch, Err *e) {
    BenchConfig added = {.options = *one, .n_batch = n_batch};
    EngineConfig *c = &added.config;
    if (!setup_config(one, c, e)) return false;
    c->chunk = n_batch && (n_batch < n_ubatch || !n_ubatch) ? n_batch : n_ubatch;
    fit_tests(b, c);
    if (c->device == DEVICE_CUDA && !cuda_device(c->device_index, &added.gpu, e)) return false;
    b->has_gpu |= c->device == DEVICE_CUDA;
    b->configs = mem_resize(b->configs, ((size_t)b->n_configs + 1) * sizeof *b->configs);
    b->configs[b->n_configs++] = added;
    return true;
}

static bool is_one_type(const Options *o) {
    return strcmp(o->cache_k, o->cache_v) == 0;
}

/* Of the pairs of -ctk and -ctv those of one type have rows.  false: there are none. */
static bool check_kv(const BenchOptions *o, Err *e) {
    Options one = {0};
    int n = 0, n_same = 0;
    for (; choose_kv(o, n, &one); n++) n_same += is_one_type(&one);
    if (n_same == 0)
        return err_set(e, ERR_USAGE,
                       "keys of type %s and values of type %s: both are kept in one type; -ctk and -ctv must "
                       "name the same",
                       one.cache_k, one.cache_v);
    if (n_same < n)
        err_warn("keys and values are kept in one type: %d of the %d pairs of -ctk and -ctv have rows",
                 n_same, n);
    return true;
}

static bool add_configs(Bench *b, Err *e) {
    const BenchOptions *o = &b->o->bench;
    Options one = *b->o;
    if (!check_kv(o, e)) return false;
    for (int l = 0; l < o->gpu_layers.n; l++)
        for (int n = 0; n < o->batch.n; n++)
            for (int u = 0; u < o->ubatch.n; u++)
                for (int k = 0; choose_kv(o, k, &one); k++)
                    for (int t = 0; t < o->n_threads.n; t++) {
                        if (!is_one_type(&one)) continue;
                        one.gpu_layers = o->gpu_layers.values[l];
                        one.n_threads = o->n_threads.values[t];
                        if (!add_config(b, &one, o->batch.values[n], o->ubatch.values[u], e)) return false;
                    }
    return true;
}

/* ---- measuring ----------------------------------------------------------------------------------------- */

/* The memory of measuring the bandwidth must not count in the peak, which is reset if the system can. */
static double measure_bandwidth(Bench *b) {
    b->peak_host_bytes = bench_peak_memory();
    b->peak_gpu_bytes = 0;
    double bandwidth = engine_read_limit(b->run.engine);
    bench_reset_peak_memory();
    return bandwidth;
}

/* now: the GPU with the memory that is free after a test. */
static void update_peaks(Bench *b, const CudaDevice *before, const CudaDevice *now) {
    double host = bench_peak_memory(), gpu = (double)before->free_bytes - (double)now->free_bytes;
    if (host > b->peak_host_bytes) b->peak_host_bytes = host;
    if (gpu > b->peak_gpu_bytes) b->peak_gpu_bytes = gpu;
}

/* The scalar engine is opened for one test only: its memory and threads must not count in the next one. */
static bool verify_test(Bench *b, json_t **verdict, Err *e) {
    Runner *run = &b->run;
    if (!b->o->n_verify) return true;
    notice(&b->o->notices, "comparing the test with the scalar executor, which is slow");
    bool ok = verdict_open(run, e) && verdict_of_sequence(run, verdict, e) && !stop_wanted() &&
              verdict_passes(run, e);
    verify_close(run->verify);
    run->verify = NULL;
    bench_reset_peak_memory();
    return ok;
}

static bool print_row(Bench *b, const BenchConfig *c, int i, const BenchResult *result, json_t *verdict,
                      Err *e) {
    Buf cells[BENCH_COLUMNS] = {0};
    BenchRow row = {.run = &b->run,
                    .n_batch = c->n_batch,
                    .filename = b->filename,
                    .gpu = c->gpu.name,
                    .test = &b->tests[i],
                    .n_seq = b->n_seq[i],
                    .settings = &b->settings,
                    .result = result,
                    .load_seconds = b->load_seconds,
                    .read_bandwidth = b->read_bandwidth,
                    .host_bytes = b->peak_host_bytes,
                    .gpu_bytes = b->peak_gpu_bytes,
                    .verdict = verdict};
    row.metrics = bench_metrics(engine_plan(b->run.engine), c->config.kv_type, row.test, row.n_seq, result,
                                b->read_bandwidth);
    b->layout->cells(&row, b->has_gpu, cells);
    bool ok = bench_table_row(&b->table, cells, b->layout->object(&row), e);
    for (int k = 0; k < BENCH_COLUMNS; k++) buf_free(&cells[k]);
    if (result->differs)
        err_warn("repetitions of one test generated different tokens; see ids_repeat in -o jsonl");
    return ok;
}

/* --delay: the machine cools before each test. */
static void rest(int seconds) {
    const struct timespec tenth = {.tv_nsec = 100000000};
    for (int i = 0; i < 10 * seconds && !stop_wanted(); i++) nanosleep(&tenth, NULL);
}

static bool run_test(Bench *b, const BenchConfig *c, int i, Err *e) {
    const BenchTest *t = &b->tests[i];
    Engine *engine = b->run.engine;
    BenchResult result;
    CudaDevice now = c->gpu;
    json_t *verdict = NULL;
    rest(b->o->bench.delay);
    if (stop_wanted()) return stop_err(e);
    notice(&b->o->notices, "test %d of %d: %d prompt tokens, %d generated, depth %d", i + 1, b->n_tests,
           t->n_prompt, t->n_gen, t->n_depth);
    bool ok = b->layout->is_batched ? bench_run_batch(engine, &b->settings, t, b->n_seq[i], &result, e)
                                    : bench_run(engine, &b->settings, t, &result, e);
    ok = ok && (c->config.device != DEVICE_CUDA || cuda_device(c->config.device_index, &now, e));
    if (ok) update_peaks(b, &c->gpu, &now);
    ok = ok && verify_test(b, &verdict, e) && print_row(b, c, i, &result, verdict, e);
    json_decref(verdict);
    bench_free(&result);
    return ok || (stop_wanted() ? stop_err(e) : false);
}

static bool run_config(Bench *b, const BenchConfig *c, Err *e) {
    Runner *run = &b->run;
    double begun = clock_now();
    run->options = &c->options;
    run->config = c->config;
    bool ok = runner_start(run, e);
    b->load_seconds = b->model_seconds + clock_now() - begun;
    b->read_bandwidth = ok ? measure_bandwidth(b) : 0;
    for (int i = 0; ok && i < b->n_tests; i++) ok = run_test(b, c, i, e);
    const BenchTest *last = &b->tests[b->n_tests - 1];
    ok = ok && profile_print(run, last->n_depth + last->n_prompt + last->n_gen, NULL, e);
    engine_close(run->engine);
    run->engine = NULL;
    return ok;
}

/* The tokens of the real text, or the token before random ones. */
static bool choose_tokens(Bench *b, Err *e) {
    const Model *m = &b->run.model;
    if (!model_need_text(m, e)) return false;
    b->settings.bos = tok_adds_bos(m->tok) ? tok_bos(m->tok) : -1;
    if (!b->o->bench.real) return true;
    Buf text = {0};
    if (!b->o->file) buf_add(&text, TEXT, sizeof TEXT - 1);
    bool ok = !b->o->file || prompt_read_file(b->o->file, "the text", &text, e);
    tok_ids_free(&b->text);
    if (ok) tok_encode(m->tok, text.data, text.n, TOK_ADD_SPECIAL, &b->text);
    buf_free(&text);
    b->settings.text = b->text.data;
    b->settings.n_text = (int)b->text.n;
    return ok && (b->text.n > 0 || err_set(e, ERR_USAGE, "the text for --real is empty"));
}

/* Whether the first configuration can run the model, of which only the metadata need be there. */
static bool check_config(Bench *b, Err *e) {
    b->run.options = &b->configs[0].options;
    b->run.config = b->configs[0].config;
    bool ok = runner_prepare(&b->run, e);
    if (ok) engine_close(b->run.engine);
    b->run.engine = NULL;
    return ok;
}

static bool open_shape(Bench *b, Err *e) {
    const Options *o = b->o;
    const char *shape = o->bench.shape, *mix = o->bench.mix;
    int n_threads = b->configs[0].config.n_threads;
    snprintf(b->label, sizeof b->label, "synthetic %.50s %.50s", shape, mix);
    b->filename = b->label;
    bool ok = synth_open(shape, mix, o->n_layers, (uint64_t)o->fixed_seed, &b->image, e) &&
              model_open_bytes(b->image.data, b->image.n, b->label, &b->run.model, e) && check_config(b, e);
    if (!ok) return false;
    notice(&o->notices, "making %s in memory", b->label);
    synth_fill(&b->image, n_threads);
    return true;
}

static bool open_file(Bench *b, const char *path, Err *e) {
    double begun = clock_now();
    b->filename = path ? path : "the demo model";
    bool ok = model_open(path, &b->run.model, e);
    b->model_seconds = clock_now() - begun;
    return ok;
}

/* path: NULL for the demo model, or for the shape. */
static bool run_model(Bench *b, const char *path, Err *e) {
    bool ok = (b->o->bench.shape ? open_shape(b, e) : open_file(b, path, e)) && choose_tokens(b, e);
    for (int i = 0; ok && i < b->n_configs; i++) ok = run_config(b, &b->configs[i], e);
    runner_close(&b->run);
    return ok;
}

/* ---- the command --------------------------------------------------------------------------------------- */

/* The lines below a table for people. */
static bool print_footer(const Bench *b, Err *e) {
    if (strcmp(b->table.format, "md") != 0) return true;
    Buf out = {0};
    bool real = b->o->bench.real;
    buf_printf(&out, "\nbuild: zgen-%s (0)\n", ZGEN_VERSION);
    buf_printf(&out, "mode: %s\n",
               real ? "real (a real text, continued with sampling and decoding of tokens)"
                    : "random (random tokens, no sampling)");
    if (b->read_bandwidth > 0) buf_printf(&out, "read bandwidth: %.1f GB/s; ", b->read_bandwidth / 1e9);
    buf_printf(&out, "load: %.3f s; peak memory: %.1f MB", b->load_seconds, b->peak_host_bytes / 1e6);
    if (b->peak_gpu_bytes > 0) buf_printf(&out, ", on the GPU %.1f MB", b->peak_gpu_bytes / 1e6);
    buf_printf(&out, "\n");
    bool ok = out_write(out.data, out.n, e);
    buf_free(&out);
    return ok;
}

static BenchSettings settings_of(const Options *o) {
    BenchSettings s = {.n_repetitions = o->bench.n_repetitions,
                       .warm_up = o->bench.warm_up,
                       .sampled_check = o->n_verify > 0,
                       .params = sampling_numbers(o, (uint64_t)o->fixed_seed),
                       .stopped = stop_wanted};
    s.params.random_tokens = !o->bench.real;
    return s;
}

static bool measure(Bench *b, Err *e) {
    const Options *o = b->o;
    bool is_batched = o->bench.n_seq.n > 0, ok = true;
    b->layout = is_batched ? &bench_batched_layout : &bench_single_layout;
    if (is_batched)
        add_batched_tests(b);
    else
        add_single_tests(b);
    if (b->n_tests == 0)
        return err_set(e, ERR_USAGE, "there is nothing to measure; give -p or -n more than 0 tokens");
    if (!add_configs(b, e)) return false;
    b->settings = settings_of(o);
    b->table = (BenchTable){.format = o->bench.format,
                            .err_format = o->bench.err_format,
                            .columns = b->columns,
                            .is_batched = is_batched};
    b->table.n_columns = b->layout->columns(&o->bench, b->has_gpu, b->columns);
    const char *demo = NULL;
    const char **models = o->n_models ? o->models : &demo;
    for (int i = 0; ok && i < (o->n_models ? o->n_models : 1); i++) ok = run_model(b, models[i], e);
    return bench_table_end(&b->table, e) && ok && print_footer(b, e);
}

static bool list_shapes(Err *e) {
    Buf out = {0};
    synth_print(&out);
    bool ok = out_write(out.data, out.n, e);
    buf_free(&out);
    return ok;
}

bool cmd_bench(const Options *o, Err *e) {
    bool has_model = !o->bench.list_shapes && !o->bench.compare && !o->bench.ceilings;
    if ((o->n_verify || o->profile) && !has_model)
        return err_set(e, ERR_USAGE,
                       "--verify and --profile need a model, and --ceilings, --compare and --list-shapes use "
                       "none; drop one of them");
    if (o->bench.list_shapes) return list_shapes(e);
    if (o->bench.compare) return bench_compare(o, e);
    if (!check(o, e)) return false;
    if (o->bench.ceilings) return bench_ceilings(o, e);
    Bench b = {.o = o};
    stop_install();
    bool ok = measure(&b, e);
    synth_free(&b.image);
    tok_ids_free(&b.text);
    free(b.configs);
    free(b.tests);
    free(b.n_seq);
    return ok;
}
