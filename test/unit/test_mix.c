/* test_mix: the types of a mix, tensor by tensor, as llama.cpp's quantiser has chosen them.
 *
 * The expected types are those in files that it made; for properties that no file has (eight experts, 80
 * layers, tied embeddings of odd widths) the rules are repeated here. */
#include "check.h"
#include "../../src/gguf/file_type.h"
#include "../../src/run/mix.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "shape-Q4_K_M.gguf" is of the mix Q4_K_M; NULL for one that zgen does not write. */
static const Mix *mix_of_file(const char *path) {
    char name[64];
    const char *dash = strrchr(path, '-');
    snprintf(name, sizeof name, "%.*s", (int)strcspn(dash + 1, "."), dash + 1);
    return mix_find(name);
}

static int64_t read_int(const Gguf *g, const char *name) {
    GgufString arch = {"", 0};
    char key[100];
    int64_t value = 0;
    Err e;
    gguf_get_string(g, "general.architecture", &arch, &e);
    snprintf(key, sizeof key, "%.*s.%s", (int)arch.n, arch.data, name);
    gguf_get_int(g, key, 0, INT32_MAX, &value, &e);
    return value;
}

/* Query heads of a key/value head in the first layer. */
static int n_shared(const Gguf *g) {
    const int64_t *q, *kv;
    size_t n, n_kv;
    GgufString arch = {"", 0};
    char heads[100], kv_heads[100];
    Err e;
    gguf_get_string(g, "general.architecture", &arch, &e);
    snprintf(heads, sizeof heads, "%.*s.attention.head_count", (int)arch.n, arch.data);
    snprintf(kv_heads, sizeof kv_heads, "%.*s.attention.head_count_kv", (int)arch.n, arch.data);
    bool ok = gguf_get_ints(g, heads, &q, &n, &e) && gguf_get_ints(g, kv_heads, &kv, &n_kv, &e);
    return ok && n && n_kv && kv[0] ? (int)(q[0] / kv[0]) : 1;
}

/* The tensors of the file have the types that its mix gives them; returns how many there are. */
static int check_file(const char *path) {
    const Mix *mix = mix_of_file(path);
    Gguf *g;
    Err e;
    int64_t file_type = -1;
    if (!mix) return 0;
    if (!gguf_open(path, &g, &e)) {
        CHECK(false, "%s", e.text);
        return 0;
    }
    int n = (int)gguf_n_tensors(g);
    QuantType *types = calloc((size_t)n, sizeof *types);
    MixModel model = {.n_layer = (int)read_int(g, "block_count"),
                      .n_expert = (int)read_int(g, "expert_count"),
                      .n_shared = n_shared(g)};
    MixWishes none = mix_no_wishes();
    mix_types(mix, &none, &model, gguf_tensor(g, 0), n, types, NULL);
    for (int i = 0; i < n; i++) {
        const GgufTensor *t = gguf_tensor(g, i);
        CHECK(types[i] == t->type, "%s: %s is %s, not %s", path, t->name, quant_traits(t->type)->name,
              quant_traits(types[i])->name);
    }
    CHECK(gguf_get_int(g, "general.file_type", 0, 100, &file_type, &e) &&
              file_type == file_type_number(mix->name),
          "%s", path);
    free(types);
    gguf_close(g);
    return n;
}

static int check_files(const char *pattern) {
    glob_t files;
    int n = 0;
    if (glob(pattern, 0, NULL, &files) != 0) return 0;
    for (size_t i = 0; i < files.gl_pathc; i++) // gemma3n's embeddings were given types of their own
        if (!strstr(files.gl_pathv[i], "gemma3n-")) n += check_file(files.gl_pathv[i]);
    globfree(&files);
    return n;
}

TEST(mix_of_the_golden_files) {
    CHECK(check_files("test/data/models/*-*.gguf") > 450);
}

TEST(mix_of_every_family) {
    int n = check_files("../shared/golden/models/*.gguf") + check_files("../shared/models/stories-*.gguf");
    if (n == 0) SKIP("no ../shared/golden/models");
    CHECK(n > 2000, "%d tensors", n);
}

TEST(mix_names) {
    CHECK(mix_find("q4_k_m") == mix_find("Q4_K") && mix_find("Q5_k") == mix_find("Q5_K_M"));
    CHECK(mix_find("q4_k_s") != mix_find("q4_k_m"));
    CHECK(!mix_find("Q4_K_L") && !mix_find("") && !mix_find("I8"));
}

/* ---- rules that no file at hand shows ----------------------------------------------------------------- */

static QuantType type_in(const char *mix, MixModel model, const char *name, int64_t width, bool has_output) {
    GgufTensor tensors[3] = {{.name = (char *)name, .n_dims = 2, .ne = {width, 64, 1, 1}},
                             {.name = "blk.99.attn_v.weight", .n_dims = 2, .ne = {256, 64, 1, 1}},
                             {.name = "output.weight", .n_dims = 2, .ne = {256, 64, 1, 1}}};
    QuantType types[3];
    MixWishes none = mix_no_wishes();
    mix_types(mix_find(mix), &none, &model, tensors, has_output ? 3 : 2, types, NULL);
    return types[0];
}

TEST(mix_eight_experts) {
    MixModel eight = {.n_layer = 32, .n_expert = 8}, four = {.n_layer = 32, .n_expert = 4};
    CHECK(type_in("q4_k_m", eight, "blk.0.attn_v.weight", 256, true) == QUANT_Q8_0);
    CHECK(type_in("q4_k_m", eight, "blk.0.attn_k.weight", 256, true) == QUANT_Q8_0);
    CHECK(type_in("q4_k_s", eight, "blk.0.attn_output.weight", 256, true) == QUANT_Q5_K);
    CHECK(type_in("q5_k_m", eight, "blk.0.attn_output.weight", 256, true) == QUANT_Q5_K);
    CHECK(type_in("q4_0", eight, "blk.0.attn_k.weight", 256, true) == QUANT_Q8_0);
    CHECK(type_in("f16", eight, "blk.0.attn_k.weight", 256, true) == QUANT_F16);
    CHECK(type_in("fp8", eight, "blk.0.attn_k.weight", 256, true) == QUANT_FP8_E4M3);
    CHECK(type_in("q4_k_m", four, "blk.0.attn_k.weight", 256, true) == QUANT_Q4_K);
    CHECK(type_in("q4_k_m", four, "blk.0.attn_output.weight", 256, true) == QUANT_Q4_K);
    CHECK(type_in("q4_k_m", eight, "blk.9.ffn_down_exps.weight", 256, true) == QUANT_Q6_K);
    CHECK(type_in("q4_k_m", eight, "blk.8.ffn_down_exps.weight", 256, true) == QUANT_Q4_K);
}

TEST(mix_eighty_layers) {
    MixModel large = {.n_layer = 80, .is_70b = true};
    CHECK(type_in("q4_k_m", large, "blk.5.attn_v.weight", 256, true) == QUANT_Q5_K);
    CHECK(type_in("q4_k_m", (MixModel){.n_layer = 80}, "blk.5.attn_v.weight", 256, true) == QUANT_Q4_K);
    CHECK(type_in("q4_k_m", large, "blk.5.attn_q.weight", 256, true) == QUANT_Q4_K);
    CHECK(type_in("q5_k_s", large, "blk.5.attn_v.weight", 256, true) == QUANT_Q5_K);
}

TEST(mix_rules_of_low_bits) {
    MixModel model = {.n_layer = 32, .n_shared = 1}, shared = {.n_layer = 32, .n_shared = 4},
             weighed = {.n_layer = 32, .n_shared = 1, .has_importance = true},
             eight = {.n_layer = 32, .n_expert = 8};
    CHECK(type_in("q2_k", model, "blk.0.attn_v.weight", 256, true) == QUANT_Q3_K);
    CHECK(type_in("q2_k", shared, "blk.0.attn_v.weight", 256, true) == QUANT_Q4_K);
    CHECK(type_in("q2_k_s", model, "blk.0.attn_v.weight", 256, true) == QUANT_Q2_K);
    CHECK(type_in("q2_k_s", shared, "blk.0.attn_v.weight", 256, true) == QUANT_Q4_K);
    CHECK(type_in("q2_k_s", shared, "blk.0.ffn_down.weight", 256, true) == QUANT_Q4_K);
    CHECK(type_in("q2_k", model, "blk.0.ffn_down.weight", 256, true) == QUANT_Q3_K);
    CHECK(type_in("q2_k", model, "blk.0.attn_output.weight", 256, true) == QUANT_Q3_K);
    CHECK(type_in("q2_k", eight, "blk.0.attn_output.weight", 256, true) == QUANT_Q5_K);
    CHECK(type_in("q3_k_l", model, "blk.9.ffn_down.weight", 256, true) == QUANT_Q5_K);
    CHECK(type_in("q3_k_l", model, "blk.9.attn_v.weight", 256, true) == QUANT_Q5_K);
    CHECK(type_in("q3_k_l", model, "blk.9.attn_output.weight", 256, true) == QUANT_Q5_K);
    CHECK(type_in("q3_k_l", eight, "blk.9.attn_output.weight", 256, true) == QUANT_Q3_K);
    CHECK(type_in("q3_k_s", model, "blk.9.attn_v.weight", 256, true) == QUANT_Q3_K);
    CHECK(type_in("iq4_nl", model, "blk.0.ffn_down.weight", 256, true) == QUANT_Q5_K);
    CHECK(type_in("iq4_nl", weighed, "blk.0.ffn_down.weight", 256, true) == QUANT_IQ4_NL);
    CHECK(type_in("iq4_xs", shared, "blk.0.attn_v.weight", 256, true) == QUANT_Q5_K);
    CHECK(type_in("q4_0", weighed, "blk.0.ffn_down.weight", 256, true) == QUANT_Q4_1);
    CHECK(type_in("q5_0", weighed, "blk.0.ffn_down.weight", 256, true) == QUANT_Q5_1);
    CHECK(type_in("q5_0", model, "blk.0.ffn_down.weight", 256, true) == QUANT_Q5_0);
    CHECK(type_in("tq1_0", model, "token_embd.weight", 256, true) == QUANT_Q4_K);
    CHECK(type_in("tq2_0", model, "token_embd.weight", 256, false) == QUANT_Q6_K);
    CHECK(type_in("tq2_0", model, "blk.0.ffn_up.weight", 256, true) == QUANT_TQ2_0);
}

/* Widths that are no multiple of 256, or of 32. */
TEST(mix_odd_widths) {
    MixModel model = {.n_layer = 4};
    CHECK(type_in("q4_k_m", model, "blk.1.ffn_up.weight", 160, true) == QUANT_Q5_0);
    CHECK(type_in("q5_k_m", model, "blk.1.ffn_up.weight", 160, true) == QUANT_Q5_1);
    CHECK(type_in("q6_k", model, "blk.1.ffn_up.weight", 160, true) == QUANT_Q8_0);
    CHECK(type_in("q4_k_m", (MixModel){.n_layer = 4, .n_expert = 2}, "blk.2.ffn_down_exps.weight", 160,
                  true) == QUANT_Q8_0);
    CHECK(type_in("q2_k", model, "blk.1.ffn_up.weight", 160, true) == QUANT_Q4_0);
    CHECK(type_in("q3_k_s", model, "blk.1.ffn_up.weight", 160, true) == QUANT_Q4_0);
    CHECK(type_in("iq4_xs", model, "blk.1.ffn_up.weight", 160, true) == QUANT_IQ4_NL);
    CHECK(type_in("tq1_0", model, "blk.1.ffn_up.weight", 160, true) == QUANT_Q4_0);
    CHECK(type_in("q4_k_m", model, "blk.1.ffn_up.weight", 100, true) == QUANT_F16);
    CHECK(type_in("q4_0", model, "blk.1.ffn_up.weight", 100, true) == QUANT_F16);
    CHECK(type_in("fp8", model, "blk.1.ffn_up.weight", 100, true) == QUANT_FP8_E4M3);
    CHECK(type_in("q4_0", model, "token_embd.weight", 160, false) ==
          QUANT_Q8_0); // the output; Q6_K does not fit
    CHECK(type_in("q4_0", model, "token_embd.weight", 256, false) == QUANT_Q6_K);
    CHECK(type_in("q4_0", model, "token_embd.weight", 256, true) == QUANT_Q4_0);
    CHECK(type_in("q8_0", model, "token_embd.weight", 256, false) == QUANT_Q8_0);
}

/* Value tensors are numbered among themselves: the first four of a hybrid model may be in any layer. */
TEST(mix_counts_values_among_themselves) {
    enum { N_LAYERS = 24 };
    GgufTensor tensors[N_LAYERS / 4];
    char names[N_LAYERS / 4][32];
    QuantType types[N_LAYERS / 4];
    for (int i = 0; i < N_LAYERS / 4; i++) { // listed from the last layer to the first
        snprintf(names[i], sizeof names[i], "blk.%d.attn_v.weight", N_LAYERS - 1 - 4 * i);
        tensors[i] = (GgufTensor){.name = names[i], .n_dims = 2, .ne = {256, 64, 1, 1}};
    }
    MixWishes none = mix_no_wishes();
    mix_types(mix_find("q4_k_s"), &none, &(MixModel){.n_layer = N_LAYERS}, tensors, N_LAYERS / 4, types,
              NULL);
    for (int i = 0; i < N_LAYERS / 4; i++)
        CHECK(types[i] == (i >= 2 ? QUANT_Q5_K : QUANT_Q4_K), "%s", names[i]);
}
