/* golden: the CPU's tables against exact results; rules and comparisons are golden.h's.
 *
 * The scalar kernels must keep rule 1 on float activations, every table rule 3.  The demo model's stories
 * must keep rule 5, its answers must be equal to the letter. */
#include "golden.h"

#include <unistd.h>

static void check_on_floats(const Golden *g, const Case *c, RigConfig config) {
    config.act_f32 = true;
    config.kv_type = KV_F32;
    check_mode(g, c, (Mode){config, 1e-9, INFINITY, 0.05});
    config.kv_type = KV_F16;
    check_mode(g, c, (Mode){config, 3e-5, INFINITY, 0.05});
}

static void check_on_8_bits(const Golden *g, const Case *c, RigConfig config) {
    check_mode(g, c, mode_of(g, c, config));
}

/* In three tests, because tests run beside each other. */
TEST(golden_logits_on_float_activations_llama) {
    golden_each_of("llama-*", check_on_floats, (RigConfig){.isa = "scalar"});
}
TEST(golden_logits_on_float_activations_a_to_g) {
    golden_each_of("[a-g]*-*", check_on_floats, (RigConfig){.isa = "scalar"});
}
TEST(golden_logits_on_float_activations_h_to_z) {
    golden_each_of("[h-km-z]*-*", check_on_floats, (RigConfig){.isa = "scalar"});
    golden_each_of("lfm*-*", check_on_floats, (RigConfig){.isa = "scalar"});
    golden_each_of("llama4-*", check_on_floats, (RigConfig){.isa = "scalar"});
}

/* The error of logits grows with the root of their NMSE: rule 3 has a margin of 0.5 for 6e-3. */
static double cache_margin(KvType type) {
    return 0.5 * fmax(1, sqrt(cache_nmse(type) / 6e-3));
}

static void check_on_8_bit_caches(const Golden *g, const Case *c, RigConfig config) {
    static const KvType types[] = {KV_Q8_0, KV_FP8};
    for (int i = 0; i < 2; i++) {
        config.act_f32 = true;
        config.kv_type = types[i];
        check_mode(g, c, (Mode){config, cache_nmse(types[i]), INFINITY, cache_margin(types[i])});
    }
}

/* Of every shape of heads: all of llama's, windows, sinks, values within keys and narrower than keys. */
TEST(golden_logits_of_8_bit_caches) {
    static const char *const patterns[] = {"llama-*", "gemma3-*", "gpt-oss-*", "deepseek2-*", "mimo2-*"};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        golden_each_of(patterns[i], check_on_8_bit_caches, (RigConfig){.isa = "scalar"});
}

/* llama has a file of every type; the other families run on the table that users have. */
TEST(golden_logits_of_every_table) {
    for (int i = 0; i < kernels_n; i++)
        if (kernels_all[i]->supported())
            golden_each_of("llama-*", check_on_8_bits, (RigConfig){.isa = kernels_all[i]->name});
}
TEST(golden_logits_of_every_family) {
    golden_each(check_on_8_bits, (RigConfig){.isa = "auto"});
}

/* The files that test/data lacks, of all families. */
TEST(golden_logits_of_further_files) {
    glob_t files;
    if (glob("../shared/golden/models/*-*.json", 0, NULL, &files) != 0) SKIP("no ../shared/golden/models");
    int n = 0;
    for (size_t i = 0; i < files.gl_pathc; i++) {
        char ours[256];
        snprintf(ours, sizeof ours, "test/data/models/%s", strrchr(files.gl_pathv[i], '/') + 1);
        if (access(ours, F_OK) == 0 || !golden_runs(files.gl_pathv[i], NULL)) continue;
        golden_cases(files.gl_pathv[i], check_on_floats, (RigConfig){.isa = "scalar"});
        golden_cases(files.gl_pathv[i], check_on_8_bits, (RigConfig){.isa = "auto"});
        n++;
    }
    globfree(&files);
    if (n == 0) SKIP("../shared/golden/models has no file that test/data lacks and zgen runs");
}

/* ---- The demo model ---- */

static EngineConfig on_table(const char *isa) {
    return (EngineConfig){.device = DEVICE_CPU, .isa = isa};
}

TEST(golden_demo_answers_of_every_table) {
    for (int i = 0; i < kernels_n; i++)
        if (kernels_all[i]->supported())
            check_stories("models/stories-q8_0.gguf", on_table(kernels_all[i]->name), 0, 1, 0);
}

TEST(golden_demo_answers_of_every_cache) {
    for (int type = 0; type < KV_N_TYPES; type++) {
        EngineConfig config = on_table("auto");
        config.kv_type = (KvType)type;
        check_stories("models/stories-q8_0.gguf", config, 0, 1, 0);
    }
}

TEST(golden_demo_stories) {
    check_stories("models/stories-q8_0.gguf", on_table("auto"), 0, 0, 0.5);
}

TEST(golden_demo_stories_of_every_type) {
    glob_t files;
    if (glob("../shared/models/stories-*.gguf", 0, NULL, &files) != 0) SKIP("no ../shared/models");
    for (size_t i = 0; i < files.gl_pathc; i++) {
        bool floats = strstr(files.gl_pathv[i], "-f16") != NULL; // the exact results are of this file
        check_stories(files.gl_pathv[i], on_table("auto"), 0, 0, floats ? 0.05 : 0.5);
    }
    globfree(&files);
}
