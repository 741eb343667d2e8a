/* cpu: the first gate of an executor: a row's numbers are its own.
 *
 * Whatever else a batch holds (more of the prompt, other sequences, rows that are not wanted), however many
 * threads share the work, and however far the tape was fused: the logits of a row are the same to the bit.
 * Everything here compares bytes, on every table of kernels that this machine can run. */
#include "slots.h"
#include "gguf_writer.h"

#include <math.h>

#define MODELS "test/data/models/"

static const char *const models[] = {
    MODELS "llama-s-Q4_0.gguf",
    MODELS "llama-s-Q8_0.gguf",
    MODELS "llama-s-MXFP4.gguf",
    MODELS "llama-Q4_K_M.gguf",
    MODELS "llama-Q2_K.gguf",
    MODELS "llama-moe-Q4_0.gguf",
    MODELS "llama-bias-F16.gguf",
    MODELS "llama-ropefreqs-F16.gguf",
    MODELS "llama-s-BF16.gguf",
    MODELS "qwen3-F16.gguf",
    MODELS "qwen3moe-F16.gguf",
    // dense: window, softcap, learned positions, temperature, parallel blocks
    MODELS "gemma2-Q4_0.gguf",
    MODELS "gpt2-Q4_0.gguf",
    MODELS "mistral3-Q4_0.gguf",
    MODELS "cohere2-Q4_0.gguf",
    // with experts
    MODELS "glm4moe-Q4_0.gguf",
    MODELS "ernie4_5-moe-Q4_0.gguf",
    MODELS "deepseek2-Q4_0.gguf",
    MODELS "step35-Q4_0.gguf",
    // with states
    MODELS "qwen35-Q4_0.gguf",
    MODELS "lfm2-Q4_0.gguf",
    MODELS "nemotron_h-Q4_0.gguf",
    MODELS "falcon-h1-Q4_0.gguf",
};
enum { N_MODELS = sizeof models / sizeof *models, N_IDS = 66 };

/* Calls check with the first n models on every table. */
static void on_models(RigConfig c, int n, void (*check)(const char *path, RigConfig c)) {
    for (int k = 0; k < kernels_n; k++) {
        if (!kernels_all[k]->supported()) continue;
        c.isa = kernels_all[k]->name;
        for (int m = 0; m < n; m++) {
            c.kv_type = (KvType)(m % KV_N_TYPES);
            check(models[m], c);
        }
    }
}

/* Calls check with every model on every table; with a model for every type of cache. */
static void on_every_table(RigConfig c, void (*check)(const char *path, RigConfig c)) {
    on_models(c, N_MODELS, check);
}
static void on_every_cache(RigConfig c, void (*check)(const char *path, RigConfig c)) {
    on_models(c, KV_N_TYPES, check);
}

static void check_same(const Rig *rig, RigConfig c, const char *what, int which, const float *a,
                       const float *b, int n) {
    size_t bytes = (size_t)n * (size_t)rig->n_vocab * sizeof *a;
    if (memcmp(a, b, bytes) == 0) return;
    double error = 0, power = 0;
    for (size_t i = 0; i < bytes / sizeof *a; i++) {
        error += (double)(a[i] - b[i]) * (a[i] - b[i]);
        power += (double)b[i] * b[i];
    }
    test_fail(__FILE__, __LINE__, "%s, %s: %s %d: not the same bits, NMSE %.3g", gguf_label(rig->gguf), c.isa,
              what, which, error / power);
}

/* Opens a rig and computes the logits of N_IDS ids in one run, which the others are compared with. */
static bool open_whole(Rig *rig, const char *path, RigConfig c, int32_t *ids, float **whole) {
    if (!rig_open(rig, path, c)) return false;
    rig_ids(rig, 1, ids, N_IDS);
    *whole = rig_rows(rig, N_IDS);
    if (rig_feed(rig, 0, ids, 0, N_IDS, *whole)) return true;
    free(*whole);
    rig_close(rig);
    return false;
}

static const float *row_of(const Rig *rig, const float *logits, int i) {
    return logits + (size_t)i * (size_t)rig->n_vocab;
}

/* ---- The first gate ---- */

static void check_prefill(const char *path, RigConfig c) {
    static const int lengths[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,
                                  12, 13, 14, 15, 16, 17, 31, 32, 33, 64, 65};
    int32_t ids[N_IDS];
    float *whole;
    Rig rig;
    if (!open_whole(&rig, path, c, ids, &whole)) return;
    float *logits = rig_rows(&rig, N_IDS);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        int k = lengths[i];
        if (!rig_feed(&rig, 0, ids, 0, k, logits)) break;
        check_same(&rig, c, "prompt of", k, logits, whole, k);
        if (!rig_feed(&rig, 0, ids, k, k + 1, logits)) break;
        check_same(&rig, c, "decoding behind", k, logits, row_of(&rig, whole, k), 1);
    }
    free(logits);
    free(whole);
    rig_close(&rig);
}

TEST(cpu_prefill_and_decode_are_one_prefill) {
    on_every_table((RigConfig){0}, check_prefill);
}

/* ---- Sequences side by side ---- */

enum { N_SEQ = 3 };

static void check_sequences(const char *path, RigConfig c) {
    static const int lengths[N_SEQ] = {17, 5, 30};
    enum { N_MORE = 4 }; // decoding steps
    Rig rig;
    c.n_seq = N_SEQ;
    if (!rig_open(&rig, path, c)) return;
    int32_t ids[N_SEQ][N_IDS];
    float *alone[N_SEQ];
    for (int s = 0; s < N_SEQ; s++) { // in another sequence's place, which the batch below overwrites
        int n = lengths[s] + N_MORE;
        rig_ids(&rig, 10 + (unsigned)s, ids[s], n);
        alone[s] = rig_rows(&rig, n);
        rig_feed(&rig, (s + 1) % N_SEQ, ids[s], 0, n, alone[s]);
    }
    Row rows[RIG_ROWS];
    int T = 0;
    for (int i = 0; i < N_IDS; i++) // interleaved
        for (int s = 0; s < N_SEQ; s++)
            if (i < lengths[s]) rows[T++] = (Row){ids[s][i], s, i, true};
    float *logits = rig_rows(&rig, T);
    if (rig_run(&rig, rows, T, logits))
        for (int t = 0; t < T; t++)
            check_same(&rig, c, "a row among sequences", t, row_of(&rig, logits, t),
                       row_of(&rig, alone[rows[t].seq], rows[t].position), 1);
    for (int step = 0; step < N_MORE; step++) {
        for (int s = 0; s < N_SEQ; s++)
            rows[s] = (Row){ids[s][lengths[s] + step], s, lengths[s] + step, true};
        if (!rig_run(&rig, rows, N_SEQ, logits)) break;
        for (int s = 0; s < N_SEQ; s++)
            check_same(&rig, c, "decoding beside others", s, row_of(&rig, logits, s),
                       row_of(&rig, alone[s], lengths[s] + step), 1);
    }
    for (int s = 0; s < N_SEQ; s++) free(alone[s]);
    free(logits);
    rig_close(&rig);
}

TEST(cpu_sequences_do_not_see_each_other) {
    on_every_table((RigConfig){0}, check_sequences);
}

/* ---- The wanted rows ---- */

static void check_subset(const char *path, RigConfig c) {
    int32_t ids[N_IDS];
    float *whole;
    Rig rig;
    if (!open_whole(&rig, path, c, ids, &whole)) return;
    float *logits = rig_rows(&rig, N_IDS);
    for (int step = 2; step <= N_IDS + 1; step += 13) { // the last one has no wanted row
        Row rows[N_IDS];
        int n = 0;
        for (int t = 0; t < N_IDS - 1; t++) rows[t] = (Row){ids[t], 0, t, t % step == step - 1};
        if (!rig_run(&rig, rows, N_IDS - 1, logits)) break;
        for (int t = step - 1; t < N_IDS - 1; t += step, n++)
            check_same(&rig, c, "a wanted row", t, row_of(&rig, logits, n), row_of(&rig, whole, t), 1);
        if (!rig_feed(&rig, 0, ids, N_IDS - 1, N_IDS, logits))
            break; // rows that were not wanted are in the cache too
        check_same(&rig, c, "behind unwanted rows", step, logits, row_of(&rig, whole, N_IDS - 1), 1);
    }
    free(logits);
    free(whole);
    rig_close(&rig);
}

TEST(cpu_wanted_rows_are_a_choice_not_a_change) {
    on_every_table((RigConfig){0}, check_subset);
}

/* ---- The tape in pieces, on more threads, unfused ---- */

static void check_pieces(const char *path, RigConfig c) {
    enum { N = 5 };
    int32_t ids[N_IDS];
    float *whole;
    Rig rig;
    if (!open_whole(&rig, path, c, ids, &whole)) return;
    float *logits = rig_rows(&rig, N);
    Row rows[N];
    for (int t = 0; t < N; t++) rows[t] = (Row){ids[t], 0, t, true};
    for (int k = 0; k <= rig.plan->n_ops; k++) {
        Err e;
        memset(logits, 0, (size_t)N * (size_t)rig.n_vocab * sizeof *logits);
        if (!rig_run_ops(&rig, rows, N, 0, k, NULL, NULL, &e)) break;
        if (!rig_run_ops(&rig, rows, N, k, rig.plan->n_ops, logits, NULL, &e)) break;
        check_same(&rig, c, "tape cut at op", k, logits, whole, N);
    }
    free(logits);
    free(whole);
    rig_close(&rig);
}

TEST(cpu_tape_runs_in_pieces) {
    on_every_table((RigConfig){0}, check_pieces);
}

/* The logits of N_IDS ids by each of the other configurations are those by c. */
static void check_equal_configs(const char *path, RigConfig c, const RigConfig *others, int n,
                                const char *what) {
    int32_t ids[N_IDS];
    float *a, *b;
    Rig rig;
    if (!open_whole(&rig, path, c, ids, &a)) return;
    rig_close(&rig);
    for (int i = 0; i < n; i++)
        if (open_whole(&rig, path, others[i], ids, &b)) {
            check_same(&rig, others[i], what, i, b, a, N_IDS);
            rig_close(&rig);
            free(b);
        }
    free(a);
}

static void check_threads(const char *path, RigConfig c) {
    RigConfig many[] = {c, c, c};
    many[0].n_threads = 2;
    many[1].n_threads = 3;
    many[2].n_threads = 5;
    check_equal_configs(path, c, many, 3, "more threads");
}

TEST(cpu_threads_change_no_bit) {
    on_every_table((RigConfig){0}, check_threads);
}

static void check_fusing(const char *path, RigConfig c) {
    RigConfig less[] = {c, c, c};
    less[0].no_segments = less[2].no_segments = true;
    less[1].no_residual = less[2].no_residual = true;
    check_equal_configs(path, c, less, 3, "rules left out");
}

TEST(cpu_fused_tape_is_the_plain_one) {
    on_every_table((RigConfig){0}, check_fusing);
}

TEST(cpu_fused_tape_is_the_plain_one_on_floats) {
    for (int m = 0; m < N_MODELS; m += 3)
        check_fusing(models[m], (RigConfig){.isa = "scalar", .act_f32 = true});
}

/* ---- Forms of activations ---- */

static double nmse(const float *a, const float *b, size_t n) {
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        power += (double)b[i] * b[i];
    }
    return error / power;
}

/* Eight bits cost something, and not much; where every weight is a float, nothing. */
TEST(cpu_activation_forms) {
    for (int m = 0; m < N_MODELS; m++) {
        int32_t ids[N_IDS];
        float *q8, *f32;
        Rig rig;
        if (!open_whole(&rig, models[m], (RigConfig){.isa = "scalar"}, ids, &q8)) continue;
        size_t n = (size_t)N_IDS * (size_t)rig.n_vocab;
        rig_close(&rig);
        if (open_whole(&rig, models[m], (RigConfig){.isa = "scalar", .act_f32 = true}, ids, &f32)) {
            double d = nmse(q8, f32, n);
            bool floats = strstr(models[m], "F16") != NULL;
            CHECK(floats ? d == 0 : d > 1e-6 && d < 1e-2, "%s: %g", models[m], d);
            rig_close(&rig);
            free(f32);
        }
        free(q8);
    }
}

/* A table agrees with the oracle on whole models too; its norms and attention may round otherwise. */
TEST(cpu_tables_agree) {
    for (int m = 0; m < N_MODELS; m++) {
        int32_t ids[N_IDS];
        float *expected, *got;
        Rig rig;
        if (!open_whole(&rig, models[m], (RigConfig){.isa = "scalar"}, ids, &expected)) continue;
        size_t n = (size_t)N_IDS * (size_t)rig.n_vocab;
        rig_close(&rig);
        for (int k = 1; k < kernels_n; k++) {
            RigConfig c = {.isa = kernels_all[k]->name};
            if (!kernels_all[k]->supported() || !open_whole(&rig, models[m], c, ids, &got)) continue;
            // a float's last bit may turn one 8-bit number by one step, which then is a step of 1/127
            double d = nmse(got, expected, n), limit = strstr(models[m], "F16") ? 1e-6 : 1e-3;
            CHECK(d <= limit, "%s, %s: %g", models[m], c.isa, d);
            rig_close(&rig);
            free(got);
        }
        free(expected);
    }
}

/* ---- The ends of the cache ---- */

static void check_last_position(const char *path, RigConfig c) {
    enum { N = 33 };
    int32_t ids[N_IDS], others[N];
    float *whole;
    Rig rig;
    if (!open_whole(&rig, path, c, ids, &whole)) return; // in a wide context
    rig_close(&rig);
    c.n_ctx = N;
    c.n_seq = 3;
    if (rig_open(&rig, path, c)) {
        float *logits = rig_rows(&rig, N), *neighbour = rig_rows(&rig, N), *again = rig_rows(&rig, 1);
        rig_ids(&rig, 2, others, N);
        for (int s = 0; s < 3; s += 2) {
            rig_feed(&rig, s, others, 0, N - 1, neighbour);
            rig_feed(&rig, s, others, N - 1, N, neighbour + (size_t)(N - 1) * (size_t)rig.n_vocab);
        }
        rig_feed(&rig, 1, ids, 0, N - 1, logits);
        rig_feed(&rig, 1, ids, N - 1, N, logits + (size_t)(N - 1) * (size_t)rig.n_vocab);
        check_same(&rig, c, "a full context of", N, logits, whole, N);
        for (int s = 0; s < 3; s += 2) { // their last keys are right before and behind
            rig_feed(&rig, s, others, N - 1, N, again);
            check_same(&rig, c, "beside a full context, sequence", s, again, row_of(&rig, neighbour, N - 1),
                       1);
        }
        free(logits);
        free(neighbour);
        free(again);
        rig_close(&rig);
    }
    free(whole);
}

TEST(cpu_context_is_used_to_its_last_position) {
    on_every_table((RigConfig){0}, check_last_position);
}

static bool has_state(const Rig *rig) {
    for (int i = 0; i < rig->plan->n_kv; i++)
        if (rig->plan->kv[i].kind == KV_STATE) return true;
    return false;
}

static void check_truncation(const char *path, RigConfig c) {
    enum { CUT = 10 };
    int32_t ids[N_IDS], mixed[N_IDS];
    float *whole;
    Rig rig;
    if (!open_whole(&rig, path, c, ids, &whole)) return;
    float *fresh = rig_rows(&rig, N_IDS), *again = rig_rows(&rig, N_IDS);
    rig_ids(&rig, 3, mixed, N_IDS);
    memcpy(mixed, ids, CUT * sizeof *ids);
    if (has_state(&rig)) { // it goes back by a run of one row only
        rig_feed(&rig, 0, ids, 0, CUT, again);
        rig_feed(&rig, 0, ids, CUT, CUT + 1, again);
    }
    rig_feed(&rig, 0, mixed, CUT, 40, again); // the first CUT positions are those of ids still
    rig_close(&rig);
    if (rig_open(&rig, path, c)) {
        rig_feed(&rig, 0, mixed, 0, 40, fresh);
        check_same(&rig, c, "truncated to", CUT, again, row_of(&rig, fresh, CUT), 40 - CUT);
        rig_close(&rig);
    }
    free(fresh);
    free(again);
    free(whole);
}

TEST(cpu_sequences_are_truncated) {
    on_every_table((RigConfig){0}, check_truncation);
}

/* ---- The cache ---- */

/* Rows behind a shared beginning are the same as behind one that the sequence computed itself. */
static void check_sharing(const char *path, RigConfig c) {
    enum { SHARED = 70, N = 100 };
    int32_t ids[N], other[N];
    Rig rig;
    c.n_seq = 3;
    if (!rig_open(&rig, path, c)) return;
    float *alone = rig_rows(&rig, N), *shared = rig_rows(&rig, N), *first = rig_rows(&rig, N);
    rig_ids(&rig, 4, ids, N);
    rig_ids(&rig, 5, other, N);
    memcpy(other, ids, SHARED * sizeof *ids);
    bool ok = rig_feed(&rig, 0, other, 0, N, alone) && rig_feed(&rig, 1, ids, 0, SHARED, first);
    CHECK(rig.ops->share(rig.exec, 1, 2, SHARED), "%s", path);
    ok = ok && rig_feed(&rig, 2, other, SHARED, N, shared) && rig_feed(&rig, 1, ids, SHARED, N, first);
    if (ok) check_same(&rig, c, "shared", SHARED, shared, row_of(&rig, alone, SHARED), N - SHARED);
    if (ok && rig_feed(&rig, 0, ids, 0, N, alone)) // the other one has its own rows still
        check_same(&rig, c, "shared from", SHARED, first, row_of(&rig, alone, SHARED), N - SHARED);
    free(alone);
    free(shared);
    free(first);
    rig_close(&rig);
}

TEST(cpu_sequences_share_a_beginning) {
    on_every_table((RigConfig){0}, check_sharing);
}

TEST(cpu_sequences_share_their_tokens) {
    Rig rig;
    if (!rig_open(&rig, models[0], (RigConfig){.isa = "auto", .n_seq = 2})) return;
    slots_check_sharing(&rig);
    rig_close(&rig);
}

enum { WINDOW = 80 };

static void plant_window(Plan *p) {
    for (int i = 0; i < p->n_ops; i++)
        if (p->ops[i].code == OP_ATTN || p->ops[i].code == OP_KVPUT) p->ops[i].attn.window = WINDOW;
}

static void plant_window_of_cache(Plan *p) {
    plant_window(p);
    for (int i = 0; i < p->n_kv; i++) p->kv[i].window = WINDOW;
}

/* Attention in a window gives the same bytes over a cache that keeps all rows and over one that keeps those
 * of the window, in chunks and row by row; the first rows are those without a window. */
static void check_window(const char *path, RigConfig c) {
    enum { N = 330, CHUNKS = 256 };
    void (*const change[])(Plan *) = {plant_window, plant_window_of_cache, NULL};
    int32_t ids[N];
    float *logits[3] = {NULL};
    Rig rig;
    for (int i = 0; i < 3; i++) {
        c.change = change[i];
        if (!rig_open(&rig, path, c)) break;
        rig_ids(&rig, 6, ids, N);
        logits[i] = rig_rows(&rig, N);
        rig_feed(&rig, 0, ids, 0, CHUNKS, logits[i]);
        for (int at = CHUNKS; at < N; at++)
            rig_feed(&rig, 0, ids, at, at + 1, logits[i] + (size_t)at * (size_t)rig.n_vocab);
        Cache *cache = rig.ops->cache(rig.exec);
        CHECK(cache_truncate(cache, 0, N - 1) && cache_truncate(cache, 0, WINDOW) == (i != 1), "%s", path);
        if (i == 1) check_same(&rig, c, "window", 0, logits[1], logits[0], N);
        if (i == 2) {
            size_t row = (size_t)rig.n_vocab;
            check_same(&rig, c, "before the window", 0, logits[2], logits[0], WINDOW);
            CHECK(memcmp(row_of(&rig, logits[2], WINDOW), row_of(&rig, logits[0], WINDOW),
                         row * sizeof(float)) != 0);
        }
        rig_close(&rig);
    }
    for (int i = 0; i < 3; i++) free(logits[i]);
}

TEST(cpu_attention_in_a_window) {
    on_every_cache((RigConfig){0}, check_window);
}

/* ---- Refusals ---- */

static void check_refused(RigConfig c, int code, const char *part) {
    Gguf *gguf;
    Rig rig;
    Err e = {0};
    REQUIRE(gguf_open(models[0], &gguf, &e));
    if (rig_build(&rig, gguf, c, &e)) {
        test_fail(__FILE__, __LINE__, "opened without '%s'", part);
        rig_close(&rig);
    } else
        CHECK(e.code == code && strstr(e.text, part), "says %d: %s", e.code, e.text);
}

TEST(cpu_refusals) {
    check_refused((RigConfig){.isa = "abacus"}, ERR_USAGE, "abacus");
    check_refused((RigConfig){.n_ctx = 1 << 29, .n_seq = 1 << 16}, ERR_MEMORY, "smaller -c");
    for (int k = 0; k < kernels_n; k++)
        if (kernels_all[k]->supported() && !kernels_all[k]->any_act)
            check_refused((RigConfig){.isa = kernels_all[k]->name, .act_f32 = true}, ERR_USAGE, "scalar");
    KvLayer odd[] = {{.n_head = 1, .k_width = 64, .v_width = 64},
                     {.n_head = 2, .k_width = 64, .v_width = 48},
                     {.n_head = 1, .k_width = 40, .v_width = 64}};
    for (int type = 0; type < KV_N_TYPES; type++)
        for (int n = 0; n <= 3; n++) {
            Err e = {0};
            Plan p = {.kv = odd, .n_kv = n};
            bool whole = type == KV_Q8_0 ? n < 2 : type == KV_FP8 ? n < 3 : true;
            CHECK(exec_check_kv(&p, (KvType)type, &e) == whole && (e.code == ERR_USAGE) == !whole,
                  "%s, %d heads", kv_type_name((KvType)type), n);
            CHECK(whole || (strstr(e.text, kv_type_name((KvType)type)) && strstr(e.text, "--kv f16")), "%s",
                  e.text);
        }
    CHECK(cpu_isa("scalar") && strcmp(cpu_isa("scalar"), "scalar") == 0);
    CHECK(cpu_isa("auto") && !cpu_isa("abacus"));
}

/* ---- Damaged weights ---- */

typedef struct Damage {
    const char *file, *tensor;
    size_t offset; // in the tensor's data
    const char *bytes;
    size_t n_bytes;
} Damage;

/* A wide embedding's row is read at the position of its token; all other damage shows at the first
 * position. */
static void check_damage(const Damage *d, const char *isa) {
    enum { N = 8, AT = 5 };
    Buf file = {0};
    Gguf *gguf;
    Rig rig = {0};
    Err e = {0};
    REQUIRE(read_file(d->file, &file), "%s", d->file);
    bool ok = gguf_open_bytes(file.data, file.n, "x.gguf", &gguf, &e) &&
              rig_build(&rig, gguf, (RigConfig){.isa = isa}, &e);
    if (!ok) {
        test_fail(__FILE__, __LINE__, "%s: %s", d->file, e.text);
        buf_free(&file);
        return;
    }
    const GgufTensor *t = gguf_find_tensor(gguf, d->tensor);
    size_t row = t->n_bytes / (size_t)(t->ne[1] * t->ne[2]);
    bool embedding = strcmp(d->tensor, "token_embd.weight") == 0;
    size_t place = (size_t)(t->data - (const uint8_t *)file.data) + d->offset + (embedding ? 77 * row : 0);
    memcpy(file.data + place, d->bytes, d->n_bytes);
    Row rows[N];
    for (int i = 0; i < N; i++) rows[i] = (Row){i == AT ? 77 : 100 + i, 0, i, true};
    char position[40];
    snprintf(position, sizeof position, "position %d ", embedding ? AT : 0);
    ok = rig_run_ops(&rig, rows, N, 0, rig.plan->n_ops, NULL, NULL, &e);
    CHECK(!ok && e.code == ERR_RUN && strstr(e.text, d->tensor) && strstr(e.text, position),
          "%s, %s at %zu: %d %s", d->file, d->tensor, d->offset, e.code, ok ? "ran" : e.text);
    rig_close(&rig);
    buf_free(&file);
}

TEST(cpu_names_damaged_weights) {
    static const Damage damages[] = {
        {MODELS "llama-s-F32.gguf", "blk.1.ffn_down.weight", 400, "\0\0\xC0\x7F", 4},
        {MODELS "llama-s-F16.gguf", "blk.2.attn_k.weight", 128, "\0\x7C", 2},       // Inf
        {MODELS "llama-s-BF16.gguf", "blk.0.attn_output.weight", 6, "\x80\xFF", 2}, // -Inf
        {MODELS "llama-s-Q8_0.gguf", "blk.1.attn_v.weight", 34, "\0\x7E", 2},       // a scale of NaN
        {MODELS "llama-s-Q4_0.gguf", "blk.2.ffn_up.weight", 18, "\0\x7C", 2},       // a scale of Inf
        {MODELS "llama-s-Q4_1.gguf", "blk.0.ffn_gate.weight", 2, "\0\x7C", 2},      // a minimum of Inf
        {MODELS "llama-Q4_K_M.gguf", "blk.1.attn_q.weight", 0, "\0\x7E", 2},
        {MODELS "llama-s-MXFP4.gguf", "blk.1.ffn_down.weight", 0, "\xFF", 1}, // E8M0's NaN
        {MODELS "llama-s-Q8_0.gguf", "token_embd.weight", 0, "\0\x7E", 2},
        {MODELS "llama-s-Q8_0.gguf", "output.weight", 0, "\0\x7E", 2},
    };
    for (int k = 0; k < kernels_n; k++)
        for (size_t i = 0; kernels_all[k]->supported() && i < sizeof damages / sizeof *damages; i++)
            check_damage(&damages[i], kernels_all[k]->name);
}

static void join(Rig *rig, int slot, int32_t token) {
    Err e;
    DecodeStart start = {.token = token, .n_steps = 3, .params = {.top_p = 1, .repeat_penalty = 1}};
    rig_go_back(rig, slot, 0);
    CHECK(rig->ops->decode_join(rig->exec, slot, &start, &e));
}

/* A step of the decode loop that fails frees all slots. */
TEST(cpu_failed_step_frees_the_slots) {
    enum { DAMAGED = 77, WHOLE = 100 };
    Buf file = {0};
    Gguf *gguf;
    Rig rig;
    Err e = {0};
    int32_t tokens[2];
    REQUIRE(read_file(MODELS "llama-s-Q8_0.gguf", &file));
    REQUIRE(gguf_open_bytes(file.data, file.n, "x.gguf", &gguf, &e), "%s", e.text);
    REQUIRE(rig_build(&rig, gguf, (RigConfig){.n_seq = 2}, &e), "%s", e.text);
    const GgufTensor *t = gguf_find_tensor(gguf, "token_embd.weight");
    size_t row = t->n_bytes / (size_t)t->ne[1];
    memcpy(file.data + (t->data - (const uint8_t *)file.data) + DAMAGED * row, "\0\x7E", 2);
    join(&rig, 0, WHOLE);
    join(&rig, 1, DAMAGED);
    CHECK(!rig.ops->decode_next(rig.exec, tokens, &e) && e.code == ERR_RUN, "%s", e.text);
    join(&rig, 1, WHOLE);
    CHECK(rig.ops->decode_next(rig.exec, tokens, &e) && tokens[0] == -1 && tokens[1] >= 0, "%d, %d",
          tokens[0], tokens[1]);
    join(&rig, 0, WHOLE);
    CHECK(rig.ops->decode_next(rig.exec, tokens, &e) && tokens[0] >= 0 && tokens[1] >= 0, "%d, %d", tokens[0],
          tokens[1]);
    rig_close(&rig);
    buf_free(&file);
}
