/* weight: matrices that are parts of a tensor, and experts that are tensors each, as old files have them.
 *
 * The same experts in one tensor and apart must give the same bits, converted or not. */
#include "gguf_writer.h"
#include "rig.h"
#include "../../src/gguf/write.h"

#define MODEL "test/data/models/llama-moe-F16.gguf"

enum { N_EXPERT = 4, N_IDS = 9 };

/* Appends the tensors of g, those of experts one by one; without the last of these if `incomplete`, and with
 * `type` for it otherwise. */
static Buf split_experts(const Gguf *g, QuantType type, bool incomplete) {
    GgufWriter w = {0};
    Buf data = {0}, out = {0};
    for (int64_t i = 0; i < gguf_n_keys(g); i++) gguf_write_copy(&w, g, i);
    for (int64_t i = 0; i < gguf_n_tensors(g); i++) {
        const GgufTensor *t = gguf_tensor(g, i);
        const char *exps = strstr(t->name, "_exps.weight");
        int n = exps ? (int)t->ne[2] : 1;
        bool last = exps && strncmp(t->name, "blk.1.ffn_up", 12) == 0;
        for (int x = 0; x < n; x++) {
            char name[64];
            if (exps)
                snprintf(name, sizeof name, "%.*s.%d.weight", (int)(exps - t->name), t->name, x);
            else
                snprintf(name, sizeof name, "%s", t->name);
            if (last && x == n - 1 && incomplete) continue;
            QuantType as = last && x == n - 1 ? type : t->type;
            size_t bytes = (size_t)t->n_bytes / (size_t)n;
            pad(&data, GGUF_ALIGNMENT, 0);
            CHECK(gguf_write_tensor(&w, name, as, exps ? 2 : t->n_dims, t->ne) == data.n);
            put(&data, t->data + (size_t)x * bytes, bytes);
        }
    }
    pad(&data, GGUF_ALIGNMENT, 0);
    gguf_write_header(&w, &out);
    put(&out, data.data, data.n);
    buf_free(&data);
    return out;
}

static Buf split_model(QuantType type, bool incomplete) {
    Gguf *g = NULL;
    Err e;
    Buf out = {0};
    if (gguf_open(MODEL, &g, &e))
        out = split_experts(g, type, incomplete);
    else
        test_fail(__FILE__, __LINE__, "%s", e.text);
    gguf_close(g);
    return out;
}

static float *logits_of(Rig *rig) {
    int32_t ids[N_IDS];
    float *logits = rig_rows(rig, N_IDS);
    rig_ids(rig, 1, ids, N_IDS);
    rig_feed(rig, 0, ids, 0, N_IDS, logits);
    return logits;
}

static void check_apart(bool fp8) {
    Rig whole, apart;
    Gguf *g = NULL;
    Err e;
    Buf bytes = split_model(QUANT_F16, false);
    RigConfig config = {.weights_fp8 = fp8};
    bool ok = rig_open(&whole, MODEL, config);
    if (ok && !(gguf_open_bytes(bytes.data, bytes.n, "split", &g, &e) && rig_build(&apart, g, config, &e))) {
        test_fail(__FILE__, __LINE__, "%s", e.text);
        ok = false;
    }
    if (ok) {
        float *a = logits_of(&whole), *b = logits_of(&apart);
        CHECK(memcmp(a, b, (size_t)N_IDS * (size_t)whole.n_vocab * sizeof *a) == 0);
        CHECK(weights_bytes(whole.plan->weights) == weights_bytes(apart.plan->weights));
        free(a);
        free(b);
        rig_close(&apart);
    }
    rig_close(&whole);
    buf_free(&bytes);
}

TEST(weight_experts_apart_give_the_same_bits) {
    check_apart(false);
    check_apart(true);
}

static void check_refusal(QuantType type, bool incomplete, const char *says) {
    Gguf *g = NULL;
    Err e = {0};
    Buf bytes = split_model(type, incomplete);
    bool opened = gguf_open_bytes(bytes.data, bytes.n, "split", &g, &e);
    Plan *p = opened ? plan_build(g, &(PlanConfig){.can = *cpu_exec.can}, &e) : NULL;
    CHECK(opened && !p && strstr(e.text, says), "%s", e.text);
    plan_free(p);
    gguf_close(g);
    buf_free(&bytes);
}

TEST(weight_refuses_experts_apart_that_differ_or_lack_one) {
    check_refusal(QUANT_F16, true, "'blk.1.ffn_up.3.weight' is missing");
    check_refusal(QUANT_BF16, false, "'blk.1.ffn_up.3.weight' has another type than 'blk.1.ffn_up.0.weight'");
}

/* Rows 8 to 23 of each expert's 32. */
TEST(weight_parts_are_rows_of_each_expert) {
    enum { FIRST = 8, N = 16 };
    Gguf *g = NULL;
    Err e;
    REQUIRE(gguf_open(MODEL, &g, &e));
    Weights *weights = weights_open(g);
    const char *name = "blk.0.ffn_gate_exps.weight";
    const GgufTensor *t = gguf_find_tensor(g, name);
    int n_in = (int)t->ne[0], n_rows = (int)t->ne[1];
    MatrixShape part = {n_in, N, N_EXPERT, FIRST, n_rows};
    const Weight *all = weights_matrix(weights, name, matrix_whole(n_in, n_rows, N_EXPERT), &e),
                 *some = weights_matrix(weights, name, part, &e);
    REQUIRE(all && some);
    CHECK(all != some && some->n_out == N && some->row_bytes == all->row_bytes);
    CHECK(weights_matrix(weights, name, part, &e) == some);
    for (int x = 0; x < N_EXPERT; x++) {
        CHECK(weight_rows(all, x) == t->data + t->n_bytes / N_EXPERT * (size_t)x);
        CHECK(weight_rows(some, x) == weight_rows(all, x) + FIRST * all->row_bytes);
    }
    weights_close(weights);
    gguf_close(g);
}
