/* bench: what is measured must be possible, what is computed from it must be right. */
#include "check.h"
#include "../../src/cpu/cpu.h"
#include "../../src/run/engine.h"

TEST(bench_ceilings_of_the_cpu_are_possible) {
    Ceilings c;
    Model model;
    Engine *engine;
    Err e;
    REQUIRE(cpu_ceilings(2, &c, &e));
    CHECK(c.read > 1e8 && c.read < 1e13, "%g bytes/s", c.read);
    CHECK(c.copy > c.read / 20 && c.copy < 4 * c.read, "%g bytes/s of %g", c.copy, c.read);
    CHECK(c.boundary > 1e-9 && c.boundary < 1e-2, "%g s", c.boundary);
    CHECK(c.boundary_overlap == 0 && c.product == 0 && c.upload == 0);
    EngineConfig config = {.device = DEVICE_CPU, .isa = "auto", .n_ctx = 16, .n_seq = 1, .n_threads = 2};
    REQUIRE(model_open(NULL, &model, &e) && engine_open(&model, &config, &engine, &e));
    double beside = engine_read_bandwidth(engine);
    CHECK(beside > c.read / 20 && beside < 20 * c.read, "%g bytes/s, with a model %g", c.read, beside);
    engine_close(engine);
    model_close(&model);
}
