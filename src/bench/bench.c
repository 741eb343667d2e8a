/* bench: how fast a model runs on this machine, in llama-bench's words (and llama-batched-bench's, with
 * -npl).
 *
 * It owns the cross product: every list of the command line is one side of it, in llama-bench's order.  What
 * an engine is made of (layers on the GPU, rows of a run, cache, threads) are the outer loops, so that a
 * model is loaded once for all tests that share them.  Nothing is printed before the first result, and with
 * --verify no speed of a text that is wrong.  How a test is run and timed is said in run/bench.h, what a row
 * means in bench_row.h. */
#include "bench.h"
#include "model_type.h"
#include "row.h"
#include "../cli/cli.h"
#include "../cli/profile.h"
#include "../cli/prompt.h"
#include "../cli/setup.h"
#include "../cli/stop.h"
#include "../cli/verdict.h"
#include "../base/clock.h"
#include "../base/mem.h"
#include "../base/pool.h"
#include "../run/synth.h"
#include "../../cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

typedef struct Place { // what an engine is opened with
    Options options;   // the user's, with one value of each list
    int n_batch;       // -b
    EngineConfig config;
    CudaDevice gpu; // as it was before: what it had free
} Place;

typedef struct Bench {
    const Options *o;
    Place *places; // [n_places]
    int n_places;
    bool beside_gpu;  // one of them is a GPU
    BenchTest *tests; // [n_tests]
    int *n_seq;       // [n_tests] 0: no batch
    int n_tests;
    TokIds text; // --real
    BenchSettings settings;
    BenchTable table;
    BenchColumn columns[BENCH_COLUMNS];
    SynthImage image;
    Model model;
    const char *filename;
    char label[120];
    double model_seconds, load_seconds, read_bandwidth; // of the running model and place
    double host_bytes, gpu_bytes;                       // its peaks
} Bench;

/* What --real reads where no -f names another text. */
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

/* ---- what was asked for -------------------------------------------------------------------------------- */

static bool check_batch(const Options *o, Err *e) {
    const BenchOptions *b = &o->bench;
    if (b->n_seq.n == 0) return true;
    if (b->pairs.n || !b->depth.is_standard)
        return err_set(e, ERR_USAGE, "-npl takes prompts from -p and answers from -n; drop -pg and -d");
    for (int i = 0; i < b->n_prompt.n; i++)
        if (b->n_prompt.values[i] == 0)
            return err_set(e, ERR_USAGE, "-npl: sequences need a prompt of one token at least; drop -p 0");
    return true;
}

/* Random tokens are chosen by nothing that could be set. */
static bool samples_by_default(const Options *o) {
    SampleParams p = setup_sampling(o, 0), d = sample_defaults;
    return p.temp == d.temp && p.top_k == d.top_k && p.top_p == d.top_p && p.min_p == d.min_p &&
           p.repeat_penalty == d.repeat_penalty && p.repeat_last_n == d.repeat_last_n &&
           p.presence_penalty == d.presence_penalty && p.frequency_penalty == d.frequency_penalty;
}

static bool check(const Options *o, Err *e) {
    const BenchOptions *b = &o->bench;
    if (o->n_rest)
        return err_set(e, ERR_USAGE, "unexpected argument '%.100s'; the model is given with -m", o->rest[0]);
    if (b->shape && o->n_models)
        return err_set(e, ERR_USAGE, "--shape makes a model and -m names one; drop one of them");
    if (o->n_layers && !b->shape)
        return err_set(e, ERR_USAGE, "--layers cuts a shape; name one with --shape");
    if (o->file && !b->real) return err_set(e, ERR_USAGE, "-f gives the text for --real, which is missing");
    if (!samples_by_default(o) && !b->real)
        return err_set(e, ERR_USAGE,
                       "sampling is for --real, which is missing; random tokens are not chosen");
    return check_batch(o, e);
}

/* ---- the cross product --------------------------------------------------------------------------------- */

static void add_test(Bench *b, int n_prompt, int n_gen, int n_depth, int n_seq) {
    if (n_prompt == 0 && n_gen == 0) return;
    size_t n = (size_t)b->n_tests++;
    b->tests = mem_resize(b->tests, (n + 1) * sizeof *b->tests);
    b->n_seq = mem_resize(b->n_seq, (n + 1) * sizeof *b->n_seq);
    b->tests[n] = (BenchTest){n_prompt, n_gen, n_depth};
    b->n_seq[n] = n_seq;
}

static void add_batches(Bench *b) {
    const BenchOptions *o = &b->o->bench;
    for (int p = 0; p < o->n_prompt.n; p++)
        for (int g = 0; g < o->n_gen.n; g++)
            for (int s = 0; s < o->n_seq.n; s++)
                add_test(b, o->n_prompt.values[p], o->n_gen.values[g], 0, o->n_seq.values[s]);
}

static void add_tests(Bench *b) {
    const BenchOptions *o = &b->o->bench;
    for (int d = 0; d < o->depth.n; d++) {
        int depth = o->depth.values[d];
        for (int p = 0; p < o->n_prompt.n; p++) add_test(b, o->n_prompt.values[p], 0, depth, 0);
        for (int g = 0; g < o->n_gen.n; g++) add_test(b, 0, o->n_gen.values[g], depth, 0);
        for (int i = 0; i < o->pairs.n; i += 2)
            add_test(b, o->pairs.values[i], o->pairs.values[i + 1], depth, 0);
    }
}

/* The cache types: those of --kv, or all that -ctk and -ctv make together. */
static bool choose_kv(const BenchOptions *o, int i, Options *out) {
    const WordList *k = o->cache_k.n ? &o->cache_k : &o->kv, *v = o->cache_v.n ? &o->cache_v : &o->kv;
    bool is_apart = o->cache_k.n || o->cache_v.n;
    if (i >= (is_apart ? k->n * v->n : k->n)) return false;
    out->kv = k->values[is_apart ? i / v->n : i];
    out->cache_k = out->kv, out->cache_v = is_apart ? v->values[i % v->n] : out->kv;
    return true;
}

static bool add_place(Bench *b, const Options *one, int n_batch, int n_ubatch, Err *e) {
    Place p = {.options = *one, .n_batch = n_batch};
    if (!setup_config(one, &p.config, e)) return false;
    p.config.chunk = n_batch && (n_batch < n_ubatch || !n_ubatch) ? n_batch : n_ubatch;
    p.config.n_seq = 1;
    for (int i = 0; i < b->n_tests; i++) {
        int n_ctx = bench_context(&b->tests[i]) + (b->n_seq[i] > 0);
        if (n_ctx > p.config.n_ctx) p.config.n_ctx = n_ctx;
        if (b->n_seq[i] > p.config.n_seq) p.config.n_seq = b->n_seq[i];
    }
    if (b->o->profile) p.config.n_ctx += PROFILE_ROOM;
    p.config.R_max = p.config.n_seq;
    if (p.config.device == DEVICE_CUDA && !cuda_device(p.config.device_index, &p.gpu, e)) return false;
    b->beside_gpu |= p.config.device == DEVICE_CUDA;
    b->places = mem_resize(b->places, ((size_t)b->n_places + 1) * sizeof *b->places);
    b->places[b->n_places++] = p;
    return true;
}

static bool add_places(Bench *b, Err *e) {
    const BenchOptions *o = &b->o->bench;
    Options one = *b->o;
    for (int l = 0; l < o->gpu_layers.n; l++)
        for (int n = 0; n < o->batch.n; n++)
            for (int u = 0; u < o->ubatch.n; u++)
                for (int k = 0; choose_kv(o, k, &one); k++)
                    for (int t = 0; t < o->n_threads.n; t++) {
                        one.gpu_layers = o->gpu_layers.values[l], one.n_threads = o->n_threads.values[t];
                        if (!add_place(b, &one, o->batch.values[n], o->ubatch.values[u], e)) return false;
                    }
    return true;
}

/* ---- measuring ----------------------------------------------------------------------------------------- */

/* The measurement of the bandwidth is no part of the peak: what it took is forgotten where the system can. */
static double measure_bandwidth(Bench *b, Engine *engine) {
    b->host_bytes = bench_peak_memory(), b->gpu_bytes = 0;
    double rate = engine_read_bandwidth(engine);
    bench_forget_peak_memory();
    return rate;
}

static void take_peaks(Bench *b, const Place *p, const CudaDevice *now) {
    double host = bench_peak_memory(), gpu = (double)p->gpu.free_bytes - (double)now->free_bytes;
    if (host > b->host_bytes) b->host_bytes = host;
    if (gpu > b->gpu_bytes) b->gpu_bytes = gpu;
}

/* Whether the test may have a row.  The scalar executor lives for one test only: its memory and threads are
 * no part of the next one. */
static bool verify_test(const Bench *b, const Place *p, Engine *engine, json_t **verdict, Err *e) {
    Verify *v;
    if (b->o->n_verify) setup_notice(b->o, "verifying it beside the scalar executor, which is slow");
    bool ok = verdict_open(b->o, &b->model, &p->config, &v, e) &&
              (!v || (verdict_take(b->o, v, engine, verdict, e) && !stop_wanted() && verdict_passes(v, e)));
    verify_close(v);
    if (v) bench_forget_peak_memory();
    return ok;
}

static bool print_row(Bench *b, const Place *p, Engine *engine, int i, const BenchResult *result,
                      json_t *verdict, Err *e) {
    Buf cells[BENCH_COLUMNS] = {0};
    BenchRow row = {.options = &p->options,
                    .config = &p->config,
                    .n_batch = p->n_batch,
                    .model = &b->model,
                    .filename = b->filename,
                    .gpu = p->gpu.name,
                    .beside_gpu = b->beside_gpu,
                    .engine = engine,
                    .test = &b->tests[i],
                    .n_seq = b->n_seq[i],
                    .settings = &b->settings,
                    .result = result,
                    .load_seconds = b->load_seconds,
                    .read_bandwidth = b->read_bandwidth,
                    .host_bytes = b->host_bytes,
                    .gpu_bytes = b->gpu_bytes,
                    .verdict = verdict};
    (row.n_seq ? bench_batch_cells : bench_row_cells)(&row, cells);
    bool ok = bench_table_row(&b->table, cells, (row.n_seq ? bench_batch_object : bench_row_object)(&row), e);
    for (int k = 0; k < BENCH_COLUMNS; k++) buf_free(&cells[k]);
    if (result->differs)
        err_warn("repetitions of one test generated different tokens; see ids_repeat in -o jsonl");
    return ok;
}

static bool run_test(Bench *b, const Place *p, Engine *engine, int i, Err *e) {
    const BenchTest *t = &b->tests[i];
    BenchResult result;
    CudaDevice now = p->gpu;
    json_t *verdict = NULL;
    setup_notice(b->o, "test %d of %d: %d tokens of prompt, %d generated, depth %d", i + 1, b->n_tests,
                 t->n_prompt, t->n_gen, t->n_depth);
    bool ok = b->n_seq[i] ? bench_run_batch(engine, &b->settings, t, b->n_seq[i], &result, e)
                          : bench_run(engine, &b->settings, t, &result, e);
    ok = ok && (p->config.device != DEVICE_CUDA || cuda_device(p->config.device_index, &now, e));
    if (ok) take_peaks(b, p, &now);
    ok = ok && verify_test(b, p, engine, &verdict, e) && print_row(b, p, engine, i, &result, verdict, e);
    json_decref(verdict);
    bench_free(&result);
    return ok || (stop_wanted() ? stop_err(e) : false);
}

static bool run_place(Bench *b, const Place *p, Err *e) {
    Engine *engine = NULL;
    double start = clock_now();
    bool ok = setup_layers(&p->options, b->model.gguf, e) &&
              setup_engine(&p->options, &b->model, &p->config, &engine, e);
    b->load_seconds = b->model_seconds + clock_now() - start;
    b->read_bandwidth = ok ? measure_bandwidth(b, engine) : 0;
    for (int i = 0; ok && i < b->n_tests; i++) ok = run_test(b, p, engine, i, e);
    const BenchTest *last = &b->tests[b->n_tests - 1];
    ok = ok && profile_tell(b->o, engine, last->n_depth + last->n_prompt + last->n_gen, NULL, e);
    engine_close(engine);
    return ok;
}

/* The tokens of the real text, or where the random ones begin. */
static bool choose_tokens(Bench *b, Err *e) {
    const Tok *tok = b->model.tok;
    if (!model_need_tok(&b->model, e)) return false;
    b->settings.bos = tok_adds_bos(tok) ? tok_bos(tok) : -1;
    if (!b->o->bench.real) return true;
    Buf text = {0};
    bool ok = !b->o->file || prompt_read_file(b->o->file, "the text", &text, e);
    tok_ids_free(&b->text);
    if (ok && b->o->file) tok_encode(tok, text.data, text.n, TOK_ADD_SPECIAL, &b->text);
    if (ok && !b->o->file) tok_encode(tok, TEXT, sizeof TEXT - 1, TOK_ADD_SPECIAL, &b->text);
    buf_free(&text);
    b->settings.text = b->text.data, b->settings.n_text = (int)b->text.n;
    return ok && (b->text.n > 0 || err_set(e, ERR_USAGE, "the text for --real is empty"));
}

static bool open_shape(Bench *b, Err *e) {
    const Options *o = b->o;
    const char *shape = o->bench.shape, *mix = o->bench.mix;
    int n_threads = b->places[0].config.n_threads;
    snprintf(b->label, sizeof b->label, "synthetic %.50s %.50s", shape, mix);
    b->filename = b->label;
    setup_notice(o, "making %s in memory", b->label);
    return (b->image.data ||
            synth_make(shape, mix, o->n_layers, (uint64_t)o->fixed_seed, n_threads, &b->image, e)) &&
           model_open_bytes(b->image.data, b->image.n, b->label, &b->model, e);
}

static bool run_model(Bench *b, const char *path, Err *e) {
    double start = clock_now();
    b->filename = path ? path : "the demo model";
    bool ok = b->o->bench.shape ? open_shape(b, e) : model_open(path, &b->model, e);
    b->model_seconds = b->o->bench.shape ? 0 : clock_now() - start;
    ok = ok && choose_tokens(b, e);
    for (int i = 0; ok && i < b->n_places; i++) ok = run_place(b, &b->places[i], e);
    model_close(&b->model);
    return ok;
}

/* ---- the command --------------------------------------------------------------------------------------- */

/* Below the table, for people. */
static bool print_footer(const Bench *b, Err *e) {
    if (strcmp(b->table.format, "md") != 0) return true;
    Buf out = {0};
    bool real = b->o->bench.real;
    buf_printf(&out, "\nbuild: zgen-%s (0)\n", ZGEN_VERSION);
    buf_printf(&out, "mode: %s\n",
               real ? "real (a real text, its continuation sampled and made into text)"
                    : "random (random tokens, nothing sampled)");
    if (b->read_bandwidth > 0) buf_printf(&out, "memory read at %.1f GB/s; ", b->read_bandwidth / 1e9);
    buf_printf(&out, "load: %.3f s; peak memory: %.1f MB", b->load_seconds, b->host_bytes / 1e6);
    if (b->gpu_bytes > 0) buf_printf(&out, ", on the GPU %.1f MB", b->gpu_bytes / 1e6);
    buf_printf(&out, "\n");
    bool ok = out_write(out.data, out.n, e);
    buf_free(&out);
    return ok;
}

static bool measure(Bench *b, Err *e) {
    const Options *o = b->o;
    bool is_batch = o->bench.n_seq.n > 0, ok = true;
    (is_batch ? add_batches : add_tests)(b);
    if (b->n_tests == 0)
        return err_set(e, ERR_USAGE, "there is nothing to measure; give -p or -n more than 0 tokens");
    if (!add_places(b, e)) return false;
    b->settings = (BenchSettings){.n_repetitions = o->bench.n_repetitions,
                                  .warm_up = o->bench.warm_up,
                                  .params = setup_sampling(o, (uint64_t)o->fixed_seed),
                                  .stopped = stop_wanted};
    b->settings.params.blind = !o->bench.real, b->settings.shows = o->n_verify > 0;
    b->table = (BenchTable){.format = o->bench.format, .columns = b->columns, .is_batched = is_batch};
    b->table.n_columns =
        is_batch ? bench_batch_columns(b->columns) : bench_row_columns(o, b->beside_gpu, b->columns);
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
                       "--verify and --profile look at a model, which --ceilings, --compare and "
                       "--list-shapes have not; drop one of them");
    if (o->bench.list_shapes) return list_shapes(e);
    if (o->bench.compare) return bench_compare(o, e);
    if (!check(o, e)) return false;
    if (o->bench.ceilings) return bench_ceilings(o, e);
    Bench b = {.o = o};
    stop_install();
    bool ok = measure(&b, e);
    synth_free(&b.image);
    tok_ids_free(&b.text);
    free(b.places), free(b.tests), free(b.n_seq);
    return ok;
}
