/* importance: the inputs of products as the GPU executor has them, beside those of the scalar one.
 *
 * Runs go in pieces between products, on a plan without norms within products.  Rounding of activations to 8
 * bits may send a row to another expert: sums of experts are compared over all of them. */
#include "gpu.h"
#include "../../src/run/importance.h"

#include <math.h>
#include <stdlib.h>

#define MODELS "test/data/models/"

enum { N_CTX = 48, N_WINDOWS = 2 };

static bool yes(void *arg, int n_done) {
    (void)arg;
    return n_done >= 0;
}

static bool run_on(EngineDevice device, const Model *m, Engine **g, Importance *out) {
    static int32_t ids[N_CTX * N_WINDOWS];
    for (int i = 0; i < N_CTX * N_WINDOWS; i++) ids[i] = 3 + (i * 37) % 200;
    EngineConfig c = {.device = device,
                      .isa = "scalar",
                      .n_ctx = N_CTX,
                      .n_seq = 1,
                      .n_threads = 2,
                      .chunk = 20, // the last of a window has 8 rows
                      .R_max = 20,
                      .keeps_inputs = true};
    ImportanceTask task = {
        .ids = ids, .n_ctx = N_CTX, .n_windows = N_WINDOWS, .bos = -1, .with_output = true, .go_on = yes};
    Err e = {0};
    *g = NULL;
    bool ok = engine_open(m, &c, g, &e) && importance_run(*g, &task, out, &e);
    CHECK(ok, "%s: %s", gguf_label(m->gguf), e.text);
    return ok;
}

/* The differences of two sums over all experts, added up, as a share of the first. */
static double difference(const ImatrixSums *a, const ImatrixSums *b) {
    double differences = 0, sum = 0;
    for (int i = 0; i < a->n_in; i++) {
        double x = 0, y = 0;
        for (int m = 0; m < a->n_mat; m++) {
            x += a->squares[m * a->n_in + i];
            y += b->squares[m * a->n_in + i];
        }
        differences += fabs(x - y);
        sum += x;
    }
    return differences / sum;
}

static int64_t count(const ImatrixSums *s) {
    int64_t n = 0;
    for (int m = 0; m < s->n_mat; m++) n += s->counts[m];
    return n;
}

static void check_model(const char *path) {
    Model m;
    Engine *cpu = NULL, *gpu = NULL;
    Importance a = {0}, b = {0};
    Err e;
    REQUIRE(model_open(path, &m, &e), "%s", e.text);
    if (run_on(DEVICE_CPU, &m, &cpu, &a) && run_on(DEVICE_CUDA, &m, &gpu, &b)) {
        CHECK(a.n == b.n && a.n > 10, "%s: %zu and %zu tensors", path, a.n, b.n);
        for (size_t i = 0; i < a.n && i < b.n; i++) {
            const ImatrixSums *x = &a.sums[i], *y = &b.sums[i];
            CHECK(strcmp(x->name, y->name) == 0 && x->n_in == y->n_in && x->n_mat == y->n_mat, "%s: %s, %s",
                  path, x->name, y->name);
            CHECK(count(x) == count(y), "%s: %s", path, x->name);
            double share = difference(x, y);
            CHECK(share <= 0.05, "%s: %s differs by %g", path, x->name, share);
        }
    }
    importance_free(&a);
    importance_free(&b);
    engine_close(cpu);
    engine_close(gpu);
    model_close(&m);
}

TEST(gpu_importance_is_that_of_the_cpu) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const char *const models[] = {
        MODELS "llama-s-Q4_0.gguf",       MODELS "llama-Q4_K_M.gguf",   MODELS "llama-bias-F16.gguf",
        MODELS "llama-moe-Q4_0.gguf",     MODELS "gemma2-Q4_0.gguf",    MODELS "qwen3moe-F16.gguf",
        MODELS "granitehybrid-Q4_0.gguf", MODELS "qwen3next-Q4_0.gguf", MODELS "deepseek2-Q4_0.gguf",
        MODELS "lfm2-Q4_0.gguf",
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) check_model(models[i]);
}
