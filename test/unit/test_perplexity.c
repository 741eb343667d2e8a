/* perplexity: formulas computed by hand, malformed files, and a run compared with its logits. */
#include "check.h"
#include "../../src/base/mem.h"
#include "../../src/cpu/cpu.h"
#include "../../src/run/perplexity.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool near(double a, double b, double error) {
    return fabs(a - b) <= error;
}

/* ---- rows --------------------------------------------------------------------------------------------- */

/* 16 below the likewrongt are 65535 steps: 1 below is step 61439.06, 2 below 57343.1, 31 below is cut. */
TEST(logits_row_by_hand) {
    static const float logits[] = {0, 1, -1, -30, 0.5f};
    double log_sum = log(1 + exp(1) + exp(-1) + exp(-30) + exp(0.5));
    uint8_t row[20] = {0};
    REQUIRE(logits_file_row_bytes(5) == sizeof row && logits_file_row_bytes(4) == 16);
    memset(row, 0xEE, sizeof row);
    logits_file_encode(logits, 5, log_sum, row);
    static const uint16_t steps[] = {61439, 65535, 57343, 0, 63487, 0};
    for (int i = 0; i < 6; i++) CHECK(logits_row_step(row, i) == steps[i], "%d", i);
    CHECK(near(logits_row_scale(row), 16.0 / 65535, 1e-11) && near(logits_row_min(row), -15 - log_sum, 1e-6));
    CHECK(logits_row_is_cut(row, 3) && !logits_row_is_cut(row, 2));

    static const float uniform[] = {2, 2, 2, 2};
    logits_file_encode(uniform, 4, 2 + log(4), row);
    CHECK(logits_row_scale(row) == 0 && logits_row_step(row, 1) == 0 && !logits_row_is_cut(row, 1));
    CHECK(near(logits_row_min(row), -log(4), 1e-6));
}

/* Base 1/2 1/4 1/4, model 1/4 1/2 1/4: KL = 1/2 ln 2 - 1/4 ln 2. */
TEST(perplexity_compare_by_hand) {
    float base[] = {logf(0.5f), logf(0.25f), logf(0.25f)},
          model[] = {logf(0.25f) + 7, logf(0.5f) + 7, logf(0.25f) + 7};
    uint8_t row[16];
    double kl;
    bool same;
    logits_file_encode(base, 3, 0, row);
    CHECK(perplexity_compare(row, model, 3, 7, &kl, &same) && near(kl, 0.25 * log(2), 1e-5) && !same);
    CHECK(perplexity_compare(row, base, 3, 0, &kl, &same) && near(kl, 0, 1e-6) && same);
    static const float peak[] = {0, -15.5f, -40};
    logits_file_encode(peak, 3, 0, row); // what is below -16 does not count, what is above does
    float other[] = {logf(0.5f), logf(0.5f), -90};
    CHECK(perplexity_compare(row, other, 3, 0, &kl, &same));
    CHECK(near(kl, log(2) + exp(-15.5) * (-15.5 + log(2)), 1e-6));
}

TEST(perplexity_compare_refuses_what_is_no_distribution) {
    static const float logits[] = {-1, -2, -3};
    uint8_t row[16], good[16];
    double kl;
    bool same;
    logits_file_encode(logits, 3, log(exp(-1) + exp(-2) + exp(-3)), good);
    static const struct {
        int at;
        float value;
    } damages[] = {{0, NAN}, {0, INFINITY},  {0, -1e-4f}, {0, 1e-3f},
                   {4, NAN}, {4, -INFINITY}, {4, 0},      {4, -9}};
    CHECK(perplexity_compare(good, logits, 3, 0, &kl, &same));
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        memcpy(row, good, sizeof row);
        store_u32(row + damages[i].at, f32_to_bits(damages[i].value));
        CHECK(!perplexity_compare(row, logits, 3, 0, &kl, &same), "%zu", i);
    }
}

TEST(perplexity_of_two_tokens) {
    double nll[] = {log(2), log(8)};
    Estimate p = perplexity_of(nll, 2), m = estimate_mean(nll, 2);
    CHECK(near(p.value, 4, 1e-12) && near(p.error, 4 * log(4) / 2, 1e-12)); // |ln 8 - ln 2| / 2
    CHECK(near(m.value, log(4), 1e-12) && near(m.error, log(4) / 2, 1e-12));
}

/* ---- files -------------------------------------------------------------------------------------------- */

enum { N_CTX = 8, N_VOCAB = 5, N_WINDOWS = 2, ROW = 20, ROWS = N_WINDOWS * 3, IDS = N_WINDOWS * N_CTX };

static void small_file(Buf *out) {
    int32_t ids[IDS];
    uint8_t row[ROW];
    static const float logits[N_VOCAB] = {0, 1, 2, 3, 4};
    for (int i = 0; i < IDS; i++) ids[i] = i % N_VOCAB;
    logits_file_head(N_CTX, N_VOCAB, N_WINDOWS, ids, out);
    logits_file_encode(logits, N_VOCAB, 4.5, row);
    for (int i = 0; i < ROWS; i++) buf_add(out, row, sizeof row);
}

/* Writes the bytes to a file and opens it; result, *e and *out are those of logits_file_open. */
static bool open_bytes(const void *bytes, size_t n, LogitsFile *out, Err *e) {
    static char path[32]; // the LogitsFile keeps the pointer
    strcpy(path, "/tmp/zgen-logits-XXXXXX");
    int fd = mkstemp(path);
    bool written = fd >= 0 && write(fd, bytes, n) == (ssize_t)n;
    CHECK(written);
    close(fd);
    bool ok = logits_file_open(path, out, e);
    unlink(path);
    return ok;
}

TEST(logits_file_is_read_as_written) {
    Buf bytes = {0};
    LogitsFile f;
    Err e = {0};
    small_file(&bytes);
    REQUIRE(bytes.n == 20 + 4 * IDS + ROWS * ROW &&
            memcmp(bytes.data, "_logits_\x08\0\0\0\x05\0\0\0\x02\0\0\0", 20) == 0);
    REQUIRE(open_bytes(bytes.data, bytes.n, &f, &e), "%s", e.text);
    CHECK(f.n_ctx == N_CTX && f.n_vocab == N_VOCAB && f.n_windows == N_WINDOWS);
    for (int i = 0; i < IDS; i++) {
        int id = i % N_VOCAB;
        CHECK(f.ids[i] == id);
    }
    CHECK(logits_row_step(logits_file_row(&f, ROWS - 1), 4) == 65535);
    CHECK(logits_file_row(&f, ROWS - 1) + ROW == f.map.data + f.map.size);
    logits_file_close(&f);
    buf_free(&bytes);
}

static void refuse(const Buf *bytes, size_t n, const char *wanted) {
    LogitsFile f;
    Err e = {0};
    bool ok = open_bytes(bytes->data, n, &f, &e);
    CHECK(!ok && e.code == ERR_RUN && strstr(e.text, wanted), "%zu bytes: \"%s\" instead of \"%s\"", n,
          ok ? "opened" : e.text, wanted);
    CHECK(!f.map.data && !f.ids);
}

TEST(logits_file_of_any_other_length_is_refused) {
    Buf bytes = {0};
    small_file(&bytes);
    for (size_t n = 0; n < bytes.n; n++)
        refuse(&bytes, n, n == 0 ? "is empty" : n < 20 ? "not a file of" : "its size");
    buf_add(&bytes, "x", 1);
    refuse(&bytes, bytes.n, "its size");
    for (int i = 1; i < ROW; i++) buf_add(&bytes, "x", 1);
    refuse(&bytes, bytes.n, "its size"); // a whole row too many
    buf_free(&bytes);
}

TEST(logits_file_wrong_counts) {
    static const uint32_t wrong[] = {
        0, 1, 3, 4, 6, 7, 9, 10, 100, 0x10000, 0x20000001, 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
    Buf bytes = {0};
    small_file(&bytes);
    for (int field = 0; field < 3; field++)
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
            for (size_t k = 0; k < sizeof wrong / sizeof *wrong;
                 k++) { // two of three, so that products may fit
                uint8_t *at = (uint8_t *)bytes.data + 8, old[12];
                memcpy(old, at, 12);
                store_u32(at + 4 * field, wrong[i]);
                store_u32(at + 4 * ((field + 1) % 3), wrong[k]);
                refuse(&bytes, bytes.n, "; ");
                memcpy(at, old, 12);
            }
    bytes.data[0] = 'L';
    refuse(&bytes, bytes.n, "not a file of log-probabilities");
    buf_free(&bytes);
}

TEST(logits_file_tokens_are_of_its_vocabulary) {
    static const uint32_t wrong[] = {N_VOCAB, 0xFFFFFFFF, 0x80000000};
    for (int i = 0; i < 3; i++)
        for (int field = 0; field < IDS; field += IDS - 1) {
            Buf bytes = {0};
            small_file(&bytes);
            store_u32((uint8_t *)bytes.data + 20 + 4 * field, wrong[i]);
            refuse(&bytes, bytes.n, "a token is not of its vocabulary");
            buf_free(&bytes);
        }
}

/* ---- runs --------------------------------------------------------------------------------------------- */

enum { WINDOW = 21, N = 3, COUNTED = 10 }; // of positions 10..19 the next token

typedef struct Bench {
    Model model;
    Engine *engine;
    int32_t ids[N * WINDOW];
    PerplexityTask task;
    Buf saved;
    int n_asked, patience;
} Bench;

static bool keep(void *arg, const void *bytes, size_t n) {
    buf_add(&((Bench *)arg)->saved, bytes, n);
    return true;
}

static bool go_on(void *arg, const Perplexity *p) {
    Bench *b = arg;
    CHECK(p->n_windows == p->n_rows / COUNTED);
    return ++b->n_asked != b->patience;
}

static bool open_bench(Bench *b, const char *path, int R_max, int n_threads) {
    EngineConfig config = {
        .device = DEVICE_CPU, .isa = "auto", .n_ctx = WINDOW, .n_seq = 1, .n_threads = 1, .R_max = R_max};
    Err e;
    *b = (Bench){0};
    bool ok = model_open(path, &b->model, &e) && engine_open(&b->model, &config, &b->engine, &e);
    if (!ok) test_fail(__FILE__, __LINE__, "%s", e.text);
    for (int i = 0; i < N * WINDOW; i++) b->ids[i] = 3 + i * i * 37 % 300;
    b->task = (PerplexityTask){.ids = b->ids,
                               .n_ctx = WINDOW,
                               .n_windows = N,
                               .bos = 1,
                               .n_threads = n_threads,
                               .go_on = go_on,
                               .arg = b};
    return ok;
}

static void close_bench(Bench *b) {
    engine_close(b->engine);
    model_close(&b->model);
    buf_free(&b->saved);
}

typedef struct Judge { // one window evaluated another way
    const int32_t *ids;
    int n_vocab;
    double nll[WINDOW];
} Judge;

static bool judge(void *arg, const LogitRows *rows) {
    Judge *j = arg;
    for (int i = 0; i < rows->n; i++) {
        const float *x = rows->data + (size_t)i * rows->stride;
        double sum = 0, next = x[j->ids[(rows->position + i + 1) % WINDOW]];
        for (int k = 0; k < j->n_vocab; k++) sum += exp(x[k] - next);
        j->nll[rows->position + i] = log(sum);
    }
    return true;
}

#define TINY "test/data/models/llama-s-F32.gguf"
#define TINY_Q4 "test/data/models/llama-s-Q4_0.gguf"

/* All windows, each begun with BOS, and of each the second half; the same for any number of threads and rows
 * per run. */
TEST(perplexity_is_that_of_the_logits) {
    static const int pieces[] = {256, 256, 3, 1}, threads[] = {1, 3, 2, 1};
    for (int k = 0; k < 4; k++) {
        Bench b;
        Perplexity p;
        Err e = {0};
        if (!open_bench(&b, TINY_Q4, pieces[k], threads[k])) return;
        REQUIRE(perplexity_run(b.engine, &b.task, &p, &e), "%s", e.text);
        REQUIRE(p.n_rows == N * COUNTED && p.n_windows == N && !p.kl && !p.base_nll);
        double sum = 0;
        for (int w = 0; w < N; w++) {
            Judge j = {.ids = b.ids + w * WINDOW, .n_vocab = engine_plan(b.engine)->hparams.n_vocab};
            b.ids[w * WINDOW] = 1;
            CHECK(engine_logits(b.engine, j.ids, 0, WINDOW, judge, &j, &e));
            for (int i = 0; i < COUNTED; i++) {
                CHECK(near(p.nll[w * COUNTED + i], j.nll[10 + i], 1e-5), "window %d, %d", w, i);
                sum += j.nll[10 + i];
            }
            CHECK(near(p.running[w], exp(sum / (w + 1) / COUNTED), 1e-3));
        }
        CHECK(near(p.running[N - 1], perplexity_of(p.nll, p.n_rows).value, 1e-9));
        perplexity_free(&p);
        close_bench(&b);
    }
}

TEST(perplexity_without_bos_keeps_the_first_token) {
    Bench b;
    Perplexity with, without;
    Err e = {0};
    if (!open_bench(&b, TINY_Q4, 256, 1)) return;
    CHECK(perplexity_run(b.engine, &b.task, &with, &e));
    b.task.bos = -1;
    CHECK(perplexity_run(b.engine, &b.task, &without, &e) && with.nll[0] != without.nll[0]);
    perplexity_free(&without);
    b.ids[0] = b.ids[WINDOW] = b.ids[2 * WINDOW] = 1;
    CHECK(perplexity_run(b.engine, &b.task, &without, &e));
    CHECK(memcmp(with.nll, without.nll, N * COUNTED * sizeof *with.nll) == 0);
    perplexity_free(&with);
    perplexity_free(&without);
    close_bench(&b);
}

/* The predictions of the F32 model, as a file. */
static bool base_of(const char *path, LogitsFile *out) {
    Bench b;
    Perplexity p;
    Err e = {0};
    Buf bytes = {0};
    if (!open_bench(&b, path, 3, 2)) return false;
    b.task.save = keep;
    logits_file_head(WINDOW, engine_plan(b.engine)->hparams.n_vocab, N, b.ids, &bytes);
    bool ok = perplexity_run(b.engine, &b.task, &p, &e);
    buf_add(&bytes, b.saved.data, b.saved.n);
    ok = ok && open_bytes(bytes.data, bytes.n, out, &e);
    CHECK(ok, "%s", e.text);
    perplexity_free(&p);
    buf_free(&bytes);
    close_bench(&b);
    return ok;
}

TEST(perplexity_beside_a_base) {
    static const char *const paths[] = {TINY, TINY_Q4};
    LogitsFile base;
    if (!base_of(TINY, &base)) return;
    double kl[2];
    for (int k = 0; k < 2; k++) {
        Bench b;
        Perplexity p;
        Err e = {0};
        if (!open_bench(&b, paths[k], 4, 2)) return;
        b.task.base = &base;
        b.task.ids = base.ids;
        REQUIRE(perplexity_run(b.engine, &b.task, &p, &e), "%s", e.text);
        kl[k] = estimate_mean(p.kl, p.n_rows).value;
        int n_cut = 0;
        for (int i = 0; i < p.n_rows && k == 0; i++) { // a step is 16 / 65535 wide at most
            CHECK(near(p.kl[i], 0, 1.3e-4) && p.same_top[i] == 1, "%d", i);
            n_cut += !near(p.nll[i], p.base_nll[i], 1.3e-4);
        }
        CHECK(k == 1 || (n_cut == p.n_cut && n_cut > 0), "%d, %d", n_cut, p.n_cut);
        perplexity_free(&p);
        close_bench(&b);
    }
    CHECK(kl[0] < 1e-5 && kl[1] > 1e-4, "%g, %g", kl[0], kl[1]);
    logits_file_close(&base);
}

TEST(perplexity_stops) {
    LogitsFile base;
    Bench b;
    Perplexity p;
    Err e = {0};
    if (!base_of(TINY, &base) || !open_bench(&b, TINY, 256, 2)) return;
    b.patience = 2;
    CHECK(!perplexity_run(b.engine, &b.task, &p, &e) && e.code == 0 && p.n_windows == 2);
    perplexity_free(&p);
    uint8_t *damaged = mem_new(base.map.size, 1); // in the last row of the second window
    memcpy(damaged, base.map.data, base.map.size);
    store_u32(damaged + (logits_file_row(&base, 2 * COUNTED - 1) - base.map.data), f32_to_bits(1));
    LogitsFile bad;
    REQUIRE(open_bytes(damaged, base.map.size, &bad, &e));
    b.task.base = &bad;
    b.patience = 0;
    CHECK(!perplexity_run(b.engine, &b.task, &p, &e) && e.code == ERR_RUN && p.n_windows == 1);
    CHECK(strstr(e.text, "do not sum to 1"), "%s", e.text);
    perplexity_free(&p);
    logits_file_close(&bad);
    logits_file_close(&base);
    free(damaged);
    close_bench(&b);
}
