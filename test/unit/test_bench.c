/* bench: times are possible, and the numbers computed from them are right. */
#include "check.h"
#include "../../src/base/stat.h"
#include "../../src/bench/metrics.h"
#include "../../src/bench/model_type.h"
#include "../../src/cpu/cpu.h"
#include "../../src/run/bench.h"

#include <math.h>
#include <string.h>

static bool near(double a, double b) {
    return fabs(a - b) <= 1e-12 * fabs(b);
}

typedef struct Small { // a small model with its engine
    Model model;
    Engine *engine;
} Small;

static bool never(void) {
    return false;
}

static int n_asked, n_patience;
static bool impatient(void) {
    return ++n_asked == n_patience;
}

static bool open_small(Small *s, int n_ctx, int n_seq) {
    EngineConfig config = {
        .device = DEVICE_CPU, .isa = "auto", .n_ctx = n_ctx, .n_seq = n_seq, .n_threads = 1, .chunk = 16};
    Err e;
    bool ok = model_open("test/data/models/llama-s-Q4_0.gguf", &s->model, &e) &&
              engine_open(&s->model, &config, &s->engine, &e);
    if (!ok) test_fail(__FILE__, __LINE__, "%s", e.text);
    return ok;
}

static void close_small(Small *s) {
    engine_close(s->engine);
    model_close(&s->model);
}

static const BenchSettings thrice = {.n_repetitions = 3,
                                     .warm_up = true,
                                     .bos = -1,
                                     .params = {.top_p = 1, .repeat_penalty = 1, .seed = 5},
                                     .stopped = never};

/* Bytes and operations, summed token by token and op by op. */
TEST(bench_costs_are_those_of_each_token) {
    Small s;
    REQUIRE(open_small(&s, 64, 1));
    const Plan *p = engine_plan(s.engine);
    Cost first = plan_cost_total(p, 2, 0, 1), second = plan_cost_total(p, 2, 1, 1);
    double bytes = 0, operations = 0, per_past = second.bytes_rows - first.bytes_rows;
    for (int at = 7; at < 7 + 5; at++) bytes += first.bytes_fixed + 3 * (first.bytes_rows + at * per_past);
    CHECK(near(bench_decode_bytes(p, KV_F16, 3, 7, 5), bytes));
    for (int at = 7; at < 7 + 5; at++)
        for (int i = 0; i < p->n_ops; i++) {
            Cost op = plan_cost(p, &p->ops[i], 2, at, 1);
            bool is_computed = !p->ops[i].on_R || at == 7 + 5 - 1;
            operations += is_computed ? 2 * op.macs : 0;
        }
    CHECK(near(bench_prompt_operations(p, 7, 5), operations));
    CHECK(bench_decode_bytes(p, KV_F32, 1, 100, 1) > bench_decode_bytes(p, KV_F16, 1, 100, 1));
    close_small(&s);
}

/* Two repetitions of a prompt of 8 tokens and 2 generated ones, at depth 5. */
TEST(bench_metrics_follow_from_the_times) {
    Small s;
    REQUIRE(open_small(&s, 64, 1));
    const Plan *p = engine_plan(s.engine);
    BenchResult r = {.n = 2,
                     .seconds = (double[]){2, 5},
                     .prompt_seconds = (double[]){1, 3},
                     .gaps = (double[]){0.5, 0.5, 0.75, 1.25},
                     .n_gaps = 4};
    BenchTest t = {.n_prompt = 8, .n_gen = 2, .n_depth = 5};
    double bytes = bench_decode_bytes(p, KV_F16, 3, 5 + 8, 2), operations = bench_prompt_operations(p, 5, 8);
    BenchMetrics m = bench_metrics(p, KV_F16, &t, 3, &r, 1e9);
    CHECK(near(m.rate.mean, (10 / 2. + 10 / 5.) / 2) && near(m.seconds.mean, 3.5));
    CHECK(near(m.rate.deviation, 3 / sqrt(2)) && near(m.seconds.deviation, 3 / sqrt(2)));
    CHECK(near(m.bytes_per_second, bytes / (0.75 * 2)) && near(m.limit, 3 * 2 * 1e9 / bytes));
    CHECK(near(m.read_percent, 100 * m.bytes_per_second / 1e9));
    CHECK(m.first_seconds == 2 && near(m.flops, 3 * operations / 2));
    CHECK(m.gaps[0] == stat_quantile(r.gaps, 4, 0.5) && m.gaps[2] == stat_quantile(r.gaps, 4, 0.99));
    m = bench_metrics(p, KV_F16, &t, 3, &r, 0);
    CHECK(near(m.bytes_per_second, bytes / (0.75 * 2)) && isnan(m.limit) && isnan(m.read_percent));
    m = bench_metrics(p, KV_F16, &t, 3, &r, 0.99 * bytes / (0.75 * 2)); // less than was reached: no limit
    CHECK(near(m.bytes_per_second, bytes / (0.75 * 2)) && isnan(m.limit) && isnan(m.read_percent));
    m = bench_metrics(p, KV_F16, &(BenchTest){.n_gen = 2, .n_depth = 5}, 1, &r, 1e9);
    CHECK(isnan(m.first_seconds) && isnan(m.flops) && isfinite(m.limit));
    r.n_gaps = 0;
    m = bench_metrics(p, KV_F16, &(BenchTest){.n_prompt = 8}, 1, &r, 1e9);
    CHECK(isnan(m.bytes_per_second) && isnan(m.limit) && isnan(m.gaps[0]) && isfinite(m.flops));
    close_small(&s);
}

TEST(bench_labels_of_sizes_are_true) {
    static const struct {
        const char *label;
        double n_params;
        const char *shown;
    } cases[] = {{"8x7B", 46.7e9, "8x7B"}, {"8x7B", 1.2e9, "1.2B"},   {"8x22B", 140.6e9, "8x22B"},
                 {"8B", 8.03e9, "8B"},     {"13B", 23.6e9, "24B"},    {"30B.A3B", 30.5e9, "30B.A3B"},
                 {"270M", 268e6, "270M"},  {"256M", 134.5e6, "134M"}, {"E4B", 7.5e9, "E4B"},
                 {"?B", 5.2e6, "5.2M"},    {NULL, 5.2e6, "5.2M"},     {"7B", 8.5e9, "7B"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Buf out = {0};
        bench_true_size(cases[i].label, cases[i].n_params, &out);
        CHECK(strcmp(out.data, cases[i].shown) == 0, "%s of %g: %s", cases[i].label ? cases[i].label : "none",
              cases[i].n_params, out.data);
        buf_free(&out);
    }
}

/* Depth and prompt are in the cache like one prompt; each repetition begins with the same cache. */
TEST(bench_depth_and_prompt_are_one_text) {
    Small s;
    Err e;
    BenchResult split, whole, alone;
    REQUIRE(open_small(&s, 64, 1));
    const Sequence *q = engine_sequence(s.engine, 0);
    REQUIRE(bench_run(s.engine, &thrice, &(BenchTest){.n_prompt = 9, .n_gen = 6, .n_depth = 20}, &split, &e));
    CHECK(q->n_reused == 20 && q->n_prompt == 29 && q->n_generated == 7);
    REQUIRE(bench_run(s.engine, &thrice, &(BenchTest){.n_prompt = 29, .n_gen = 6}, &whole, &e));
    CHECK(q->n_reused == 0 && q->n_prompt == 29);
    REQUIRE(bench_run(s.engine, &thrice, &(BenchTest){.n_gen = 6, .n_depth = 28}, &alone, &e));
    CHECK(q->n_reused == 28 && q->n_prompt == 29);
    CHECK(split.n == 3 && split.n_gaps == 18 && split.n_ids == 7 && !split.differs);
    CHECK(memcmp(split.ids, whole.ids, 7 * sizeof *split.ids) == 0, "the same 29 tokens go before");
    CHECK(memcmp(split.ids, alone.ids, 7 * sizeof *split.ids) == 0, "and here, too");
    for (int i = 0; i < 3; i++) {
        double gaps = stat_mean(split.gaps + 6 * i, 6) * 6;
        CHECK(fabs(split.prompt_seconds[i] + gaps - split.seconds[i]) < 1e-9, "%d", i);
        CHECK(alone.prompt_seconds[i] == 0 && alone.seconds[i] > 0);
    }
    bench_free(&split);
    bench_free(&whole);
    bench_free(&alone);
    close_small(&s);
}

TEST(bench_sequences_of_a_batch_are_their_own) {
    Small s;
    Err e;
    BenchResult many, one;
    REQUIRE(open_small(&s, 40, 5));
    BenchTest t = {.n_prompt = 21, .n_gen = 4};
    REQUIRE(bench_run_batch(s.engine, &thrice, &t, 5, &many, &e), "%s", e.text);
    REQUIRE(bench_run_batch(s.engine, &thrice, &t, 1, &one, &e), "%s", e.text);
    CHECK(many.n_ids == 5 * 5 && !many.differs && many.n_gaps == 12);
    CHECK(memcmp(many.ids, one.ids, 5 * sizeof *one.ids) == 0,
          "the first generates the same tokens as alone");
    CHECK(memcmp(many.ids, many.ids + 5, 5 * sizeof *one.ids) != 0, "the second has a prompt of its own");
    bench_free(&many);
    bench_free(&one);
    close_small(&s);
}

/* Random tokens do not depend on the model; those of the sampled check, over the same steps, do. */
TEST(bench_sampled_check_can_be_verified) {
    Small s;
    Err e;
    BenchResult r;
    BenchSettings settings = thrice;
    settings.params.random_tokens = true;
    REQUIRE(open_small(&s, 64, 3));
    for (int check = 0; check < 2; check++)
        for (int n_seq = 0; n_seq < 4; n_seq += 3) {
            BenchTest t = {.n_prompt = 9, .n_gen = 5};
            settings.sampled_check = check;
            REQUIRE(n_seq ? bench_run_batch(s.engine, &settings, &t, n_seq, &r, &e)
                          : bench_run(s.engine, &settings, &t, &r, &e));
            const Sequence *q = engine_sequence(s.engine, 0);
            CHECK(engine_sampling(s.engine, 0)->random_tokens == !check && q->n_generated == 6);
            bool random = memcmp(r.ids, q->ids + q->n_prompt, 6 * sizeof *r.ids) == 0;
            CHECK(random == !check, "%d sequences", n_seq);
            CHECK(r.n == 3 && r.n_gaps == 15, "the sampled check is not timed");
            bench_free(&r);
        }
    close_small(&s);
}

/* stopped() is called before every step: three times for 40 tokens in chunks of 16. */
TEST(bench_stops_when_asked) {
    Small s;
    Err e;
    BenchResult r;
    BenchSettings once = {.n_repetitions = 1, .bos = -1, .params = thrice.params, .stopped = impatient};
    REQUIRE(open_small(&s, 64, 1));
    for (n_patience = 1; n_patience <= 4; n_patience++) {
        n_asked = 0;
        bool ok = bench_run(s.engine, &once, &(BenchTest){.n_prompt = 40}, &r, &e);
        CHECK(ok == (n_patience == 4) && e.code == 0, "%d", n_patience);
        CHECK(n_asked == (ok ? 3 : n_patience), "%d of %d", n_asked, n_patience);
        bench_free(&r);
    }
    close_small(&s);
}

TEST(bench_ceilings_of_the_cpu_are_possible) {
    Ceilings c;
    Model model;
    Engine *engine;
    Err e;
    REQUIRE(cpu_ceilings(2, &c, &e));
    CHECK(c.read > 1e8 && c.read < 1e13, "%g bytes/s", c.read);
    CHECK(c.copy > c.read / 20 && c.copy < 20 * c.read, "%g bytes/s of %g", c.copy, c.read);
    CHECK(c.boundary > 1e-9 && c.boundary < 1e-2, "%g s", c.boundary);
    CHECK(c.boundary_overlap == 0 && c.product == 0 && c.upload == 0);
    EngineConfig config = {.device = DEVICE_CPU, .isa = "auto", .n_ctx = 16, .n_seq = 1, .n_threads = 2};
    REQUIRE(model_open(NULL, &model, &e) && engine_open(&model, &config, &engine, &e));
    double beside = engine_read_bandwidth(engine);
    CHECK(beside > c.read / 20 && beside < 20 * c.read, "%g bytes/s, with a model %g", c.read, beside);
    engine_close(engine);
    model_close(&model);
}
