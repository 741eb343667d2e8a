/* gpu: whole models on the GPU executor.
 *
 * Three questions.  Are the results right: against exact logits (golden.h), and against the scalar CPU
 * executor, for every type and many numbers of rows.  Does a row's result depend on that row alone: the same
 * bytes alone and among others, by a run or by the decode loop, and when repeated.  Does a run end where it
 * must: limits, damaged weights, memory.
 *
 * Without a GPU all of it is skipped.  compute-sanitizer's memcheck and racecheck must report nothing:
 *
 *     compute-sanitizer --tool memcheck build/test_gpu gpu_row gpu_odd gpu_ops_rope gpu_ops_att gpu_ops_moe
 *
 * Products of fewer than 33 rows are exact integer sums; with more rows, and a cuBLASLt, activations are f16.
 * Whole tapes of 8-bit products are chaotic (the last bit of a float changes a rounding, which is a step of
 * 1/127 in all that follows): their limit is 1e-3, as in the tests of the CPU; test_product.c and test_ops.c
 * have the narrow limits. */
#include "gpu.h"
#include "tiny.h"
#include "../unit/gguf_writer.h"
#include "../../src/base/pool.h"
#include "../../src/run/synth.h"

#define MODELS "test/data/models/"

static const RigConfig on_gpu = {.executor = &cuda_exec};
static const SampleParams greedy = {.top_p = 1, .repeat_penalty = 1};
static const SampleParams random_params = {.temp = 1, .top_p = 1, .repeat_penalty = 1, .seed = 11};

static const char *const models[] = {
    MODELS "llama-s-Q4_0.gguf",       MODELS "llama-s-Q8_0.gguf",        MODELS "llama-s-MXFP4.gguf",
    MODELS "llama-Q4_K_M.gguf",       MODELS "llama-Q2_K.gguf",          MODELS "llama-moe-Q4_0.gguf",
    MODELS "llama-moe-k-Q4_K_M.gguf", MODELS "llama-bias-F16.gguf",      MODELS "llama-hd128-F16.gguf",
    MODELS "llama-s-NVFP4.gguf",      MODELS "llama-ropefreqs-F16.gguf", MODELS "llama-s-BF16.gguf",
    MODELS "qwen3-F16.gguf",          MODELS "qwen3moe-F16.gguf",
};
enum { N_MODELS = sizeof models / sizeof *models };

static const float *row_of(const Rig *rig, const float *logits, int i) {
    return logits + (size_t)i * (size_t)rig->n_vocab;
}

static bool same_bytes(const Rig *rig, const float *a, const float *b, int n) {
    return memcmp(a, b, (size_t)n * (size_t)rig->n_vocab * sizeof *a) == 0;
}

/* ---- Exact logits, greedy texts ---- */

/* The greedy text once more, by the decode loop. */
static void check_steps(const Golden *g, const Case *c, const Mode *m) {
    Rig rig;
    Err e;
    int32_t tokens[MAX_GREEDY];
    if (!rig_open(&rig, g->path, m->config)) return;
    float *logits = rig_rows(&rig, c->n_prompt);
    DecodeRow s = {c->prompt[c->n_prompt - 1], 0, c->n_prompt - 1, greedy};
    bool ok = rig_feed(&rig, 0, c->prompt, 0, c->n_prompt - 1, logits) && // no state can be taken back
              gpu_decode(&rig, &s, 1, c->n_greedy, tokens, &e);
    CHECK(ok, "%s", g->path);
    for (int i = 0; ok && i < c->n_greedy; i++) {
        if (tokens[i] == c->greedy[i]) continue;
        CHECK(c->margin[i] < m->margin, "%s %s: step %d gives %d, not %d, at a margin of %.3f", g->path,
              c->name, i, tokens[i], c->greedy[i], c->margin[i]);
        break;
    }
    free(logits);
    rig_close(&rig);
}

static void check_case(const Golden *g, const Case *c, RigConfig config) {
    Mode m = mode_of(g, c, config);
    check_mode(g, c, m);
    check_steps(g, c, &m);
}

TEST(gpu_golden_logits) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    golden_each(check_case, on_gpu);
}

TEST(gpu_golden_logits_of_an_f32_cache) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    RigConfig config = on_gpu;
    config.kv_type = KV_F32;
    golden_each(check_case, config);
}

/* A whole model on the GPU and on the scalar executor, whose caches hold the same bits. */
static void check_oracle(const char *path, KvType type, bool weights_fp8) {
    enum { N = 40, STEPS = 8 };
    int32_t ids[N], tokens[STEPS], expected[STEPS];
    Rig gpu = {0}, cpu = {0};
    RigConfig config = {.isa = "scalar", .kv_type = type, .weights_fp8 = weights_fp8}, other = on_gpu;
    other.kv_type = type;
    other.weights_fp8 = weights_fp8;
    Err e;
    float *oracle = NULL, *exact = NULL;
    for (int act_f32 = 0; act_f32 < 2; act_f32++) { // rows of prompts are compared with the exact oracle
        config.act_f32 = act_f32;
        if (!rig_open(&cpu, path, config)) {
            free(oracle);
            return;
        }
        rig_ids(&cpu, 1, ids, N);
        float *rows = rig_rows(&cpu, N);
        rig_feed(&cpu, 0, ids, 0, N, rows);
        *(act_f32 ? &exact : &oracle) = rows;
        rig_close(&cpu);
    }
    if (!rig_open(&gpu, path, other)) {
        free(oracle);
        free(exact);
        return;
    }
    float *logits = rig_rows(&gpu, N);
    static const int firsts[] = {1, 16, N}; // rows of the first run; the others come one by one
    for (int i = 0; i < 6; i++) {
        int first = firsts[i / 2];
        gpu.generated = i % 2;
        rig_feed(&gpu, 0, ids, 0, first, logits);
        for (int k = first; k < N; k++)
            rig_feed(&gpu, 0, ids, k, k + 1, logits + (size_t)k * (size_t)gpu.n_vocab);
        Distance d = distance(logits, gpu.generated ? oracle : exact, N, gpu.n_vocab, 1e-3);
        CHECK(d.median_nmse <= 1e-3 && d.n_far * 10 <= N, "%s, %s, first %d %s: NMSE %.3g (median %.3g)",
              path, kv_type_name(type), first, gpu.generated ? "generated" : "of a prompt", d.nmse,
              d.median_nmse);
    }
    DecodeRow s = {ids[N - 1], 0, N - 1, greedy};
    CHECK(gpu_decode(&gpu, &s, 1, STEPS, tokens, &e), "%s", e.text);
    CHECK(gpu_decode(&gpu, &s, 1, STEPS, expected, &e) && memcmp(tokens, expected, sizeof tokens) == 0,
          "%s, %s", path, kv_type_name(type));
    free(oracle);
    free(exact);
    free(logits);
    rig_close(&gpu);
}

TEST(gpu_caches_agree_with_the_oracle) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int type = 0; type < KV_N_TYPES; type++)
        for (int m = type % 2; m < N_MODELS; m += 2) check_oracle(models[m], (KvType)type, false);
}

TEST(gpu_weights_converted_at_load_agree_with_the_oracle) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const char *const wide[] = {MODELS "llama-s-BF16.gguf", MODELS "llama-hd128-F16.gguf",
                                       MODELS "llama-moe-F16.gguf", MODELS "llama-tied-F16.gguf",
                                       MODELS "llama-s-Q8_0.gguf"};
    for (int i = 0; i < 5; i++) check_oracle(wide[i], KV_F16, true);
}

TEST(gpu_golden_stories) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    EngineConfig config = {.device = DEVICE_CUDA};
    check_stories("models/stories-q8_0.gguf", config, 0, 0, 0.5);
    check_stories("models/stories-q8_0.gguf", config, 0, 1, 0); // wide margins: to the letter
}

TEST(gpu_golden_answers_of_every_cache) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int type = 0; type < KV_N_TYPES; type++) {
        EngineConfig config = {.device = DEVICE_CUDA, .kv_type = (KvType)type};
        check_stories("models/stories-q8_0.gguf", config, 0, 1, 0);
        check_stories("models/stories-q8_0.gguf", config, 5, 1, 0);
    }
}

/* Sequences of different lengths that begin and end at different times. */
TEST(gpu_golden_stories_begun_one_by_one) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    EngineConfig config = {.device = DEVICE_CUDA};
    check_stories("models/stories-q8_0.gguf", config, 3, 0, 0.5);
    check_stories("models/stories-q8_0.gguf", config, 5, 1, 0);
}

/* ---- Every type, many rows ---- */

enum { N_LONG = 513 };

static void check_rows(Rig *gpu, const int32_t *ids, int T, const float *q8, const float *f32,
                       const Tiny *model, const char *name) {
    float *logits = rig_rows(gpu, T);
    if (rig_feed(gpu, 0, ids, 0, T, logits)) {
        // Products of generated tokens have the 8-bit oracle's integers, those of prompts are f16.
        bool floats = quant_traits(model->type)->act == QUANT_ACT_F32, narrow = gpu->generated;
        double limit = narrow ? floats ? 1e-6 : 1e-3 : 1e-5;
        Distance d = distance(logits, narrow ? q8 : f32, T, gpu->n_vocab, limit);
        CHECK(d.median_nmse <= limit && d.n_far * 10 <= T,
              "%s, %d rows: NMSE %.3g to the %s oracle (median %.3g)", name, T, d.nmse,
              narrow ? "8-bit" : "exact", d.median_nmse);
    }
    free(logits);
}

/* Opens a model in memory, which must outlive the rig. */
static bool open_tiny(Rig *rig, const Buf *file, RigConfig c) {
    Gguf *gguf;
    Err e;
    bool ok = gguf_open_bytes((const uint8_t *)file->data, file->n, "tiny", &gguf, &e) &&
              rig_build(rig, gguf, c, &e);
    if (!ok) test_fail(__FILE__, __LINE__, "%s", e.text);
    return ok;
}

/* Opens the model on one executor and computes the logits of N_LONG ids. */
static bool open_long(Rig *rig, const Buf *file, RigConfig c, int32_t *ids, float **logits) {
    c.n_ctx = c.n_rows = RIG_MAX_ROWS;
    c.n_threads = pool_cpus();
    if (!open_tiny(rig, file, c)) return false;
    *logits = rig_rows(rig, N_LONG);
    rig_ids(rig, 1, ids, N_LONG);
    return rig_feed(rig, 0, ids, 0, N_LONG, *logits);
}

static void check_tiny(Tiny t, const char *name) {
    static const int lengths[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,  12,
                                  13, 14, 15, 16, 17, 31, 32, 33, 64, 65, 512, 513};
    Buf file = tiny_model(&t, NULL);
    int32_t ids[N_LONG];
    float *q8 = NULL, *f32 = NULL, *gpu_logits = NULL;
    Rig q8_rig = {0}, f32_rig = {0}, gpu = {0};
    RigConfig exact = {.isa = "scalar", .act_f32 = true};
    if (open_long(&q8_rig, &file, (RigConfig){.isa = "scalar"}, ids, &q8) &&
        open_long(&f32_rig, &file, exact, ids, &f32) && open_long(&gpu, &file, on_gpu, ids, &gpu_logits))
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            gpu.generated = false;
            check_rows(&gpu, ids, lengths[i], q8, f32, &t, name);
            gpu.generated = true;
            if (lengths[i] <= 65) check_rows(&gpu, ids, lengths[i], q8, f32, &t, name);
        }
    free(q8);
    free(f32);
    free(gpu_logits);
    for (Rig *rigs[] = {&q8_rig, &f32_rig, &gpu}, **r = rigs; r < rigs + 3; r++)
        if ((*r)->ops) rig_close(*r);
    buf_free(&file);
}

TEST(gpu_types_agree_with_the_oracle) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int i = 0; i < tiny_n_types; i++) {
        QuantType type = tiny_types[i];
        check_tiny((Tiny){type, 2, 256, 4, 2, 64, 768, 331, 0, 0, 7}, quant_traits(type)->name);
    }
}

TEST(gpu_types_of_experts_agree_with_the_oracle) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const QuantType types[] = {QUANT_F16, QUANT_Q8_0, QUANT_Q4_K, QUANT_Q6_K, QUANT_MXFP4};
    for (int i = 0; i < 5; i++)
        check_tiny((Tiny){types[i], 2, 256, 4, 2, 64, 256, 331, 6, 2, 7}, quant_traits(types[i])->name);
}

/* Widths that fill no 16 floats, heads of all kinds. */
TEST(gpu_odd_shapes_agree_with_the_oracle) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const Tiny shapes[] = {
        {QUANT_BF16, 2, 96, 3, 1, 40, 224, 77, 0, 0, 1},   {QUANT_F16, 2, 40, 3, 3, 8, 72, 19, 0, 0, 2},
        {QUANT_Q4_0, 3, 64, 8, 1, 96, 32, 333, 0, 0, 3},   {QUANT_F32, 1, 100, 5, 5, 24, 36, 7, 0, 0, 4},
        {QUANT_Q4_K, 1, 512, 4, 1, 256, 256, 65, 0, 0, 5}, {QUANT_F16, 2, 56, 2, 1, 72, 33, 35, 5, 3, 6},
        {QUANT_Q2_0, 2, 192, 3, 1, 64, 320, 77, 0, 0, 8},  {QUANT_Q1_0, 2, 384, 3, 1, 128, 640, 77, 0, 0, 9},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        char name[60];
        snprintf(name, sizeof name, "%s, %d wide, %d heads of %d", quant_traits(shapes[i].type)->name,
                 shapes[i].n_embd, shapes[i].n_head, shapes[i].head_dim);
        check_tiny(shapes[i], name);
    }
}

/* ---- Prefill and decode ---- */

/* Products of fewer than 33 rows and attention of fewer than 16 go one way for one row and for many: the same
 * bytes.  Beyond, two roundings of the same numbers may differ by as much as either from the exact ones. */
static void check_gate(const Golden *g, const Case *c, RigConfig config) {
    Mode m = mode_of(g, c, config);
    Rig rig;
    Err e;
    if (!rig_open(&rig, g->path, config)) return;
    if (!exec_check_kv(rig.plan, config.kv_type, &e)) { // some heads are not of whole blocks of a type
        rig_close(&rig);
        return;
    }
    float *prefill = rig_rows(&rig, c->n_prompt), *decoded = rig_rows(&rig, c->n_prompt),
          *whole = rig_rows(&rig, c->n_prompt), *rest = rig_rows(&rig, 1);
    for (int k = 1; k < c->n_prompt; k++) {
        rig_feed(&rig, 0, c->prompt, 0, k + 1, prefill);
        memcpy(whole + (size_t)k * (size_t)rig.n_vocab, row_of(&rig, prefill, k),
               (size_t)rig.n_vocab * sizeof *whole);
        rig_feed(&rig, 0, c->prompt, 0, k, prefill);
        rig_feed(&rig, 0, c->prompt, k, k + 1, rest);
        CHECK(same_bytes(&rig, rest, row_of(&rig, whole, k), 1), "%s: a prompt of %d and the next token",
              g->path, k);
        rig.generated = true;
        rig_feed(&rig, 0, c->prompt, k, k + 1, decoded + (size_t)k * (size_t)rig.n_vocab);
        rig.generated = false;
    }
    Distance d =
        distance(row_of(&rig, decoded, 1), row_of(&rig, whole, 1), c->n_prompt - 1, rig.n_vocab, m.nmse);
    double nmse = g->experts ? d.median_nmse : d.nmse;
    double limit = fmax(m.nmse, cache_nmse(config.kv_type));
    CHECK(nmse <= limit, "%s %s, %s: decoding differs from prefill by NMSE %.3g of %.3g", g->path, c->name,
          kv_type_name(config.kv_type), nmse, limit);
    free(prefill);
    free(decoded);
    free(whole);
    free(rest);
    rig_close(&rig);
}

TEST(gpu_prefill_and_decode_are_one_prefill) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int type = 0; type < KV_N_TYPES; type++) {
        RigConfig config = on_gpu;
        config.kv_type = (KvType)type;
        golden_each(check_gate, config);
    }
}

/* ---- A row among others ---- */

enum { N_SEQ = 64, N_STEPS = 12 };

/* Sequences of 1 to 14 positions, each with ids of its own; the last id of each is the first input of the
 * decode loop. */
static bool open_sequences(Rig *rig, DecodeRow inputs[N_SEQ]) {
    float *logits = rig_rows(rig, 16);
    bool ok = true;
    for (int s = 0; s < N_SEQ && ok; s++) {
        int32_t ids[16];
        int n = 1 + s * 5 % 14;
        rig_ids(rig, 100 + (unsigned)s, ids, n + 1);
        ok = rig_feed(rig, s, ids, 0, n, logits);
        inputs[s] = (DecodeRow){ids[n], s, n, random_params};
        inputs[s].params.seed += (uint64_t)s;
    }
    free(logits);
    return ok;
}

static void check_logits_among(Rig *rig, const DecodeRow inputs[N_SEQ]) {
    static const int sizes[] = {2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64};
    Row rows[N_SEQ];
    float *alone = rig_rows(rig, N_SEQ), *among = rig_rows(rig, N_SEQ);
    for (int s = 0; s < N_SEQ; s++) {
        rows[s] = (Row){inputs[s].token, s, inputs[s].position, true};
        rig_run(rig, &rows[s], 1, alone + (size_t)s * (size_t)rig->n_vocab);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        rig_run(rig, rows, sizes[i], among);
        CHECK(same_bytes(rig, among, alone, sizes[i]), "%s: %d rows", gguf_label(rig->gguf), sizes[i]);
    }
    free(alone);
    free(among);
}

static void check_steps_among(Rig *rig, const DecodeRow inputs[N_SEQ]) {
    static const int sizes[] = {1, 2, 3, 7, 16, 33, 64};
    static int32_t alone[N_SEQ][N_STEPS], among[N_STEPS * N_SEQ];
    Err e;
    for (int s = 0; s < N_SEQ; s++)
        CHECK(gpu_decode(rig, &inputs[s], 1, N_STEPS, alone[s], &e), "%s", e.text);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int n = sizes[i];
        CHECK(gpu_decode(rig, inputs, n, N_STEPS, among, &e), "%s", e.text);
        for (int s = 0; s < n; s++)
            for (int k = 0; k < N_STEPS; k++)
                CHECK(among[k * n + s] == alone[s][k], "%s: row %d of %d, step %d", gguf_label(rig->gguf), s,
                      n, k);
    }
}

static void check_among_others(Rig *rig) {
    DecodeRow inputs[N_SEQ];
    if (!open_sequences(rig, inputs)) return;
    for (int generated = 0; generated < 2; generated++) {
        rig->generated = generated;
        check_logits_among(rig, inputs);
    }
    check_steps_among(rig, inputs);
}

TEST(gpu_row_alone_and_among_others) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    RigConfig config = on_gpu;
    config.n_seq = N_SEQ;
    config.n_ctx = 64;
    Rig rig;
    for (int wide = 0; wide < 2; wide++)
        for (int m = 0; m < N_MODELS; m++) {
            config.wide = wide;
            if (!rig_open(&rig, models[m], config)) continue;
            check_among_others(&rig);
            rig_close(&rig);
        }
}

/* Then some heads have written their output before others have begun.  With more heads of queries than of
 * keys, an output row lies at another offset than the rows that it was computed from. */
TEST(gpu_row_among_more_than_run_at_once) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    RigConfig config = on_gpu;
    config.n_seq = N_SEQ;
    config.n_ctx = 64;
    Tiny t = {QUANT_Q8_0, 2, 128, 64, 32, 32, 128, 1000, 0, 0, 9};
    Buf file = tiny_model(&t, NULL);
    Rig rig;
    if (open_tiny(&rig, &file, config)) {
        check_among_others(&rig);
        rig_close(&rig);
    }
    buf_free(&file);
}

/* ---- The ends of the cache ---- */

/* A full context; the keys of neighbouring sequences lie right before and behind it. */
TEST(gpu_context_is_used_to_its_last_position) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    enum { N = 33 };
    for (int m = 0; m < N_MODELS; m++) {
        int32_t ids[3][N], tokens[3], more;
        float *last[3];
        Rig rig;
        RigConfig c = on_gpu;
        c.n_ctx = N;
        c.n_seq = 3;
        Err e;
        if (!rig_open(&rig, models[m], c)) continue;
        float *logits = rig_rows(&rig, N);
        for (int s = 0; s < 3; s++) { // one after the other, token by token
            rig_ids(&rig, 30 + (unsigned)s, ids[s], N);
            for (int i = 0; i < N; i++) rig_feed(&rig, s, ids[s], i, i + 1, logits);
            last[s] = rig_rows(&rig, 1);
            memcpy(last[s], logits, (size_t)rig.n_vocab * sizeof *logits);
            DecodeRow row = {ids[s][N - 1], s, N - 1, random_params};
            CHECK(gpu_decode(&rig, &row, 1, 1, &tokens[s], &e), "%s", e.text);
        }
        for (int s = 2; s >= 0; s--) {
            rig_feed(&rig, s, ids[s], N - 1, N, logits);
            CHECK(same_bytes(&rig, logits, last[s], 1), "%s: sequence %d", models[m], s);
            CHECK(gpu_decode(&rig, &(DecodeRow){ids[s][N - 1], s, N - 1, random_params}, 1, 1, &more, &e) &&
                      more == tokens[s],
                  "%s", models[m]);
        }
        for (int s = 0; s < 3; s++) free(last[s]);
        free(logits);
        rig_close(&rig);
    }
}

/* ---- A vocabulary beyond 2^18 ---- */

/* Row `twin` of the output becomes a copy of row `best`, which is 64 times as large as the others. */
static void plant(Buf *file, size_t output, size_t row_bytes, int best, int twin) {
    uint8_t *row = (uint8_t *)file->data + output + (size_t)best * row_bytes;
    for (size_t b = 0; b < row_bytes; b += sizeof(BlockQ8_0))
        row[b + 1] = (uint8_t)(row[b + 1] + (6 << 2)); // of an f16: exponent + 6
    memcpy(file->data + output + (size_t)twin * row_bytes, row, row_bytes);
}

TEST(gpu_vocabulary_above_262144) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    enum { N_VOCAB = 262209, BEST = 262151, TWIN = 262208, ROW_BYTES = 64 / 32 * 34 };
    Tiny t = {QUANT_Q8_0, 1, 64, 2, 1, 32, 64, N_VOCAB, 0, 0, 3};
    size_t output;
    Buf file = tiny_model(&t, &output);
    plant(&file, output, ROW_BYTES, BEST, TWIN);
    static const RigConfig configs[] = {{.executor = &cuda_exec, .n_rows = 8},
                                        {.isa = "scalar", .n_rows = 8}};
    float *logits[2] = {NULL, NULL};
    int n_planted = 0;
    for (int i = 0; i < 2; i++) {
        Rig rig;
        Err e;
        if (!open_tiny(&rig, &file, configs[i])) continue;
        int32_t ids[8], sampled[8];
        Row rows[8];
        rig_ids(&rig, 5, ids, 8);
        for (int k = 0; k < 8; k++) rows[k] = (Row){ids[k], 0, k, true};
        logits[i] = rig_rows(&rig, 8);
        CHECK(rig_run_ops(&rig, rows, 8, 0, rig.plan->n_ops, logits[i], sampled, &e), "%s", e.text);
        for (int k = 0; k < 8; k++) { // the lowest of the best
            const float *row = row_of(&rig, logits[i], k);
            int best = 0;
            for (int id = 1; id < N_VOCAB; id++)
                if (row[id] > row[best]) best = id;
            CHECK(sampled[k] == best && row[BEST] == row[TWIN], "position %d: %d, not %d", k, sampled[k],
                  best);
            n_planted += best == BEST;
        }
        rig_close(&rig);
    }
    CHECK(n_planted >= 2, "the planted row was never the best");
    if (logits[0] && logits[1]) CHECK(gpu_nmse(logits[0], logits[1], (size_t)8 * N_VOCAB) <= 1e-3);
    free(logits[0]);
    free(logits[1]);
    buf_free(&file);
}

/* ---- Memory ---- */

TEST(gpu_managed_memory_changes_no_bit) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int m = 0; m < N_MODELS; m += 3) {
        float *logits[2] = {NULL, NULL};
        int n_vocab = 0;
        for (int managed = 0; managed < 2; managed++) {
            Rig rig;
            RigConfig c = on_gpu;
            int32_t ids[40];
            c.managed = managed;
            if (!rig_open(&rig, models[m], c)) continue;
            n_vocab = rig.n_vocab;
            rig_ids(&rig, 1, ids, 40);
            logits[managed] = rig_rows(&rig, 40);
            rig_feed(&rig, 0, ids, 0, 40, logits[managed]);
            rig_close(&rig);
        }
        if (logits[0] && logits[1])
            CHECK(memcmp(logits[0], logits[1], (size_t)40 * (size_t)n_vocab * sizeof(float)) == 0, "%s",
                  models[m]);
        free(logits[0]);
        free(logits[1]);
    }
}

static double free_bytes(void) {
    CudaDevice device;
    Err e;
    return cuda_device(0, &device, &e) ? (double)device.free_bytes : 0;
}

/* The shape of an 8B model, of fewer layers, with a context of 32768. */
TEST(gpu_takes_little_memory_beyond_weights_and_cache) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    SynthImage image;
    Gguf *gguf;
    Err e;
    REQUIRE(synth_make("llama-3.1-8b", "q4_k_m", 2, 1, pool_cpus(), &image, &e), "%s", e.text);
    REQUIRE(gguf_open_bytes(image.data, image.n, "synthetic", &gguf, &e), "%s", e.text);
    Plan *plan = plan_build(gguf, &(PlanConfig){.can = *cuda_exec.can}, &e);
    REQUIRE(plan, "%s", e.text);
    ExecConfig config = {.n_ctx = 32768,
                         .n_seq = 1,
                         .T_max = cuda_exec.prompt_chunk + 1,
                         .R_max = 1,
                         .n_threads = pool_cpus()};
    Exec *exec = NULL;
    ExecMemory stated;
    double before = free_bytes();
    REQUIRE(cuda_exec.memory(plan, &config, &stated, &e), "%s", e.text);
    REQUIRE(cuda_exec.open(plan, &config, &exec, &e), "%s", e.text);
    double used = before - free_bytes(), needed = (double)(stated.weights + stated.kv);
    CHECK(used >= 0.9 * needed && used <= needed + 1.5e9, "%.0f MB are used, weights and cache take %.0f MB",
          used / 1e6, needed / 1e6);
    CHECK(used <= (double)exec_needed(&stated), "%.0f MB are used, %.0f MB were stated", used / 1e6,
          (double)exec_needed(&stated) / 1e6);
    cuda_exec.close(exec);
    CHECK(before - free_bytes() < 256e6, "%.0f MB are not given back", (before - free_bytes()) / 1e6);
    plan_free(plan);
    gguf_close(gguf);
    synth_free(&image);
}

TEST(gpu_refuses_what_does_not_fit) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    Model model;
    Engine *engine;
    Err e = {0};
    EngineConfig c = {.device = DEVICE_CUDA, .n_ctx = 1 << 30, .n_seq = 1, .n_threads = 1};
    REQUIRE(model_open(models[0], &model, &e), "%s", e.text);
    bool opened = engine_open(&model, &c, &engine, &e);
    CHECK(!opened && e.code == ERR_MEMORY && strstr(e.text, "weights") && strstr(e.text, "would fit"),
          "%d: %s", e.code, e.text);
    if (opened) engine_close(engine);
    model_close(&model);
}

/* ---- The sampler ---- */

static const SampleBias some_biases[] = {{3, 2}, {250, -INFINITY}};
static const SampleParams all_params[] = {
    {.top_p = 1, .repeat_penalty = 1},
    {.temp = 1, .top_p = 1, .repeat_penalty = 1, .seed = 1},
    {.temp = 0.8f,
     .top_p = 0.95f,
     .min_p = 0.05f,
     .repeat_penalty = 1,
     .top_k = 40,
     .repeat_last_n = 64,
     .seed = 2},
    {.temp = 1.5f,
     .top_p = 1,
     .repeat_penalty = 1.3f,
     .presence_penalty = 0.5f,
     .frequency_penalty = 0.25f,
     .repeat_last_n = -1,
     .seed = 3},
    {.temp = 2, .top_p = 0.5f, .repeat_penalty = 1.1f, .repeat_last_n = 8, .seed = 4},
    {.temp = 1, .top_p = 1, .min_p = 0.3f, .repeat_penalty = 1, .seed = 5},
    {.repeat_penalty = 1.5f, .top_p = 1, .repeat_last_n = -1},
    {.random_tokens = true, .seed = 6},
    {.temp = 1, .top_p = 1, .repeat_penalty = 1, .typical_p = 0.7f, .xtc_probability = 0.5f, .seed = 7},
    {.temp = 1,
     .top_p = 0.9f,
     .repeat_penalty = 1.1f,
     .repeat_last_n = -1,
     .order = {FILTER_TEMPERATURE, FILTER_TOP_P, FILTER_PENALTIES},
     .bias = some_biases,
     .n_bias = 2,
     .seed = 8},
};
enum { N_PARAMS = sizeof all_params / sizeof *all_params };

/* Rows of one run, most of them of one sequence, each with parameters and a seed of its own, against the
 * host's sampler on the logits read back. */
static void check_sampler(Rig *rig, unsigned seed, const int32_t *banned, int n_banned, void *scratch) {
    enum { N = 30, FIRST = 20, OTHER = 3 }; // rows, of them of sequence 0, the other sequence
    int32_t ids[N], seq[N], position[N], out_row[N], sampled[N];
    SampleParams sampling[N];
    rig_ids(rig, seed, ids, N);
    for (int i = 0; i < N; i++) {
        seq[i] = i < FIRST ? 0 : OTHER;
        position[i] = i < FIRST ? i : i - FIRST;
        out_row[i] = i;
        sampling[i] = all_params[i % N_PARAMS];
        sampling[i].seed += seed;
        if (i % 2) {
            sampling[i].banned = banned + i % 3;
            sampling[i].n_banned = n_banned - i % 3;
        }
    }
    Batch b = {.T = N,
               .R = N,
               .token = ids,
               .seq = seq,
               .position = position,
               .out_row = out_row,
               .sampling = sampling,
               .sampled = sampled};
    Err e;
    size_t stride;
    for (int i = 0; i < N; i++) rig_go_back(rig, seq[i], position[i]);
    bool ok = rig->ops->run(rig->exec, &b, 0, rig->plan->n_ops, &e);
    CHECK(ok, "%s", e.text);
    const float *logits = rig->ops->read(rig->exec, rig->logits, 0, N, &stride, &e);
    for (int i = 0; ok && logits && i < N; i++) {
        int n_history = position[i] + 1;
        int token = sample_token(logits + (size_t)i * stride, rig->n_vocab, &sampling[i],
                                 ids + i - position[i], n_history, (uint64_t)n_history, NULL, scratch);
        CHECK(sampled[i] == token, "seed %u, row %d: %d, not %d", seed, i, sampled[i], token);
    }
}

TEST(gpu_sampler_is_the_hosts) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int32_t banned[] = {2, 300, 17, 301};
    Rig rig;
    RigConfig c = on_gpu;
    c.n_seq = 32;
    c.n_ctx = 64;
    if (!rig_open(&rig, models[0], c)) return;
    void *scratch = mem_new(sample_scratch_bytes(rig.n_vocab), 1);
    for (unsigned seed = 0; seed < 200; seed++) check_sampler(&rig, seed, banned, 4, scratch);
    free(scratch);
    rig_close(&rig);
}

/* ---- Damaged weights ---- */

/* Opens the file with a NaN for the scale of a row's first block; name NULL: unchanged. */
static bool open_damaged(Rig *rig, Buf *file, const char *name, int row, Err *e) {
    Gguf *gguf;
    if (!gguf_open_bytes((const uint8_t *)file->data, file->n, "x.gguf", &gguf, e)) return false;
    const GgufTensor *t = name ? gguf_find_tensor(gguf, name) : NULL;
    if (t) {
        size_t place =
            (size_t)(t->data - (const uint8_t *)file->data) + (size_t)row * (t->n_bytes / (size_t)t->ne[1]);
        memcpy(file->data + place, "\0\x7E", 2);
    }
    return rig_build(rig, gguf, on_gpu, e);
}

/* position < 0: any.  Attention over a prompt multiplies masked values by 0, which is NaN for a NaN: earlier
 * positions may be damaged too. */
static void check_refused(bool ok, const Err *e, const char *tensor, int position) {
    char text[40] = "position ";
    if (position >= 0) snprintf(text, sizeof text, "position %d ", position);
    CHECK(!ok && e->code == ERR_RUN && strstr(e->text, tensor) && strstr(e->text, text), "%s, %s: %d %s",
          tensor, text, e->code, ok ? "ran" : e->text);
}

/* A damaged row of the embedding is read at the position of its token; other damage at the first position. */
TEST(gpu_run_names_damaged_weights) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const char *const tensors[] = {"token_embd.weight", "blk.1.attn_v.weight", "blk.2.ffn_down.weight",
                                          "output.weight"};
    enum { N = 40, AT = 5, TOKEN = 77 };
    for (int i = 0; i < 4; i++) {
        Buf file = {0};
        Rig rig;
        Err e = {0};
        REQUIRE(read_file(MODELS "llama-s-Q8_0.gguf", &file));
        bool opened = open_damaged(&rig, &file, tensors[i], i == 0 ? TOKEN : 0, &e);
        CHECK(opened, "%s", e.text);
        for (int T = 8; opened && T <= N; T += N - 8) { // few rows of generated tokens, and many of a prompt
            Row rows[N];
            rig.generated = T < N;
            for (int t = 0; t < T; t++) rows[t] = (Row){t == AT ? TOKEN : 100 + t, 0, t, true};
            bool ok = rig_run_ops(&rig, rows, T, 0, rig.plan->n_ops, NULL, NULL, &e);
            check_refused(ok, &e, tensors[i], i > 0 ? 0 : rig.generated ? AT : -1);
        }
        if (opened) rig_close(&rig);
        buf_free(&file);
    }
}

/* The first token from step 5 on that was not read before. */
static int new_step(const int32_t *ids, int n, const int32_t *tokens, int n_steps) {
    for (int at = 5; at < n_steps - 1; at++) {
        bool is_new = true;
        for (int i = 0; i < n; i++) is_new = is_new && ids[i] != tokens[at];
        for (int i = 0; i < at; i++) is_new = is_new && tokens[i] != tokens[at];
        if (is_new) return at;
    }
    return -1;
}

/* Decodes; then the embedding of a decoded token is damaged, and the step that reads it must fail. */
TEST(gpu_decoding_names_damaged_weights) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    enum { N = 8, STEPS = 24 };
    Buf file = {0};
    Rig rig;
    Err e = {0};
    int32_t ids[N], clean[STEPS] = {0}, tokens[STEPS] = {0};
    REQUIRE(read_file(MODELS "llama-s-Q8_0.gguf", &file) && open_damaged(&rig, &file, NULL, 0, &e), "%s",
            e.text);
    float *logits = rig_rows(&rig, N);
    rig_ids(&rig, 9, ids, N);
    DecodeRow s = {ids[N - 1], 0, N - 1, random_params};
    CHECK(rig_feed(&rig, 0, ids, 0, N, logits) && gpu_decode(&rig, &s, 1, STEPS, clean, &e), "%s", e.text);
    rig_close(&rig);
    int at = new_step(ids, N, clean, STEPS);
    bool opened = at > 0 && open_damaged(&rig, &file, "token_embd.weight", clean[at], &e);
    CHECK(opened, "step %d: %s", at, e.text);
    if (opened) {
        CHECK(rig_feed(&rig, 0, ids, 0, N, logits));
        check_refused(gpu_decode(&rig, &s, 1, STEPS, tokens, &e), &e, "token_embd.weight", N + at);
        CHECK(memcmp(tokens, clean, (size_t)(at + 1) * sizeof *tokens) == 0,
              "the steps before are as they were");
        rig_close(&rig);
    }
    free(logits);
    buf_free(&file);
}

/* ---- Limits ---- */

TEST(gpu_ceilings) {
    if (gpu_missing()) SKIP(gpu_missing());
    Ceilings c;
    Err e = {0};
    Rig rig;
    REQUIRE(cuda_ceilings(0, &c, &e), "%s", e.text);
    CHECK(c.read > 1e11 && c.read < 1e14, "%g bytes/s", c.read);
    CHECK(c.copy > c.read / 4 && c.copy < 2 * c.read, "%g bytes/s of %g", c.copy, c.read);
    CHECK(c.boundary > 1e-7 && c.boundary < 1e-4, "%g s", c.boundary);
    CHECK(c.boundary_overlap < c.boundary, "%g of %g s", c.boundary_overlap, c.boundary);
    CHECK(c.product == 0 || (c.product > 1e13 && c.product < 1e16), "%g op/s", c.product);
    CHECK(c.upload > 1e9 && c.upload < c.read, "%g bytes/s", c.upload);
    REQUIRE(rig_open(&rig, models[0], on_gpu));
    double beside = rig.ops->read_bandwidth(rig.exec);
    CHECK(beside > 0.8 * c.read && beside < 1.2 * c.read, "%g bytes/s beside a model, %g alone", beside,
          c.read);
    rig_close(&rig);
}
