/* The tensors of a model that is still to be made: those that its family requests over the metadata alone. */
#include "check.h"
#include "../../src/base/mem.h"
#include "../../src/gguf/write.h"
#include "../../src/plan/plan.h"
#include "../../src/plan/family/family.h"
#include "../../src/run/engine.h"
#include "../../src/run/synth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A model of two layers; n_expert = 0: dense, n_vocab = 0: the key is left out. */
static Gguf *metadata(int n_expert, int n_vocab, Buf *bytes) {
    const struct {
        const char *key;
        int value;
    } keys[] = {
        {"llama.block_count", 2},
        {"llama.embedding_length", 64},
        {"llama.context_length", 128},
        {"llama.feed_forward_length", 96},
        {"llama.attention.head_count", 4},
        {"llama.attention.head_count_kv", 2},
        {"llama.vocab_size", n_vocab},
        {"llama.expert_count", n_expert},
        {"llama.expert_used_count", n_expert / 2},
    };
    GgufWriter w = {0};
    gguf_write_string(&w, "general.architecture", "llama");
    gguf_write_f32(&w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (keys[i].value) gguf_write_u32(&w, keys[i].key, (uint32_t)keys[i].value);
    gguf_write_header(&w, bytes);
    Gguf *g = NULL;
    Err e;
    CHECK(gguf_open_bytes(bytes->data, bytes->n, "metadata", &g, &e), "%s", e.text);
    return g;
}

/* "name[dims] ..." of the tensors, those of layer 1 left out; NULL if they are refused. */
static char *list(int n_expert, int n_vocab, const char *const *optional, Err *e) {
    Buf bytes = {0}, out = {0};
    Gguf *g = metadata(n_expert, n_vocab, &bytes);
    int n = 0;
    GgufTensor *tensors = plan_tensors(g, optional, &n, e);
    for (int i = 0; i < n; i++) {
        const GgufTensor *t = &tensors[i];
        if (strncmp(t->name, "blk.1.", 6) != 0) {
            buf_printf(&out, "%.*s", (int)(strlen(t->name) - strlen(".weight")), t->name);
            for (int d = 0; d < t->n_dims; d++) buf_printf(&out, "%c%d", d ? ',' : ' ', (int)t->ne[d]);
            buf_printf(&out, "\n");
        }
        free(t->name);
    }
    free(tensors);
    gguf_close(g);
    buf_free(&bytes);
    return out.data;
}

static void check_list(int n_expert, const char *const *optional, const char *expected) {
    Err e;
    char *got = list(n_expert, 300, optional, &e);
    CHECK(got && strcmp(got, expected) == 0, "got\n%s\nexpected\n%s", got ? got : e.text, expected);
    free(got);
}

TEST(synth_tensors_are_those_of_the_tape) {
    const char *const none[] = {NULL}, *const some[] = {"output.weight", "ffn_gate_inp.weight", NULL};
    check_list(0, none,
               "token_embd 64,300\n"
               "blk.0.attn_norm 64\nblk.0.attn_q 64,64\nblk.0.attn_k 64,32\nblk.0.attn_v 64,32\n"
               "blk.0.attn_output 64,64\n"
               "blk.0.ffn_norm 64\nblk.0.ffn_gate 64,96\nblk.0.ffn_up 64,96\nblk.0.ffn_down 96,64\n"
               "output_norm 64\n");
    check_list(4, some,
               "token_embd 64,300\n"
               "blk.0.attn_norm 64\nblk.0.attn_q 64,64\nblk.0.attn_k 64,32\nblk.0.attn_v 64,32\n"
               "blk.0.attn_output 64,64\n"
               "blk.0.ffn_norm 64\nblk.0.ffn_gate_inp 64,4\nblk.0.ffn_gate_exps 64,96,4\n"
               "blk.0.ffn_up_exps 64,96,4\nblk.0.ffn_down_exps 96,64,4\n"
               "output_norm 64\noutput 64,300\n");
}

TEST(synth_metadata_alone_needs_the_vocabulary_size) {
    const char *const none[] = {NULL};
    Err e = {0};
    CHECK(!list(0, 0, none, &e) && strstr(e.text, "'llama.vocab_size' is missing"), "%s", e.text);
}

TEST(synth_shapes_have_the_labels_of_their_sizes) {
    static const char *const labels[][2] = {
        {"llama-3.2-1b", "1B"},
        {"llama-3.1-8b", "8B"},
        {"mixtral-8x7b", "8x7B"},
        {"qwen3-0.6b", "0.6B"},
        {"qwen3-8b", "8B"},
        {"qwen3-30b-a3b", "30B.A3B"},
        // dense
        {"mistral-small-24b", "13B"},
        {"ministral-3-14b", "14B"},
        {"qwen2.5-0.5b", "1B"},
        {"qwen2.5-7b", "7B"},
        {"gemma-7b", "7B"},
        {"gemma-2-27b", "27B"},
        {"gemma-3-270m", "270M"},
        {"gemma-3-4b", "4B"},
        {"gemma-4-e4b", "E4B"},
        {"gemma-4-26b-a4b", "26B.A4B"},
        {"phi-4", "14B"},
        {"granite-3.3-8b", "3B"},
        {"olmo-3-7b", "7B"},
        {"smollm3-3b", "3B"},
        {"glm-4-9b-0414", "9B"},
        {"seed-oss-36b", "36B"},
        {"ernie-4.5-0.3b", "0.3B"},
        {"exaone-4-32b", "32B"},
        {"hunyuan-1.8b", "1.8B"},
        {"command-r", "35B"},
        {"command-r7b", "8B"},
        {"starcoder2-7b", "7B"},
        {"pythia-1.4b", "1.4B"},
        {"gpt2-xl", "1.5B"},
        {"apertus-8b", "8B"},
        // with experts
        {"gpt-oss-20b", "20B"},
        {"qwen1.5-moe-a2.7b", "A2.7B"},
        {"phi-3.5-moe", "16x3.8B"},
        {"glm-4.5-air", "106B.A12B"},
        {"ling-mini-2.0", "16B.A1B"},
        {"deepseek-v3", "671B"},
        {"mimo-v2-flash", "310B.A15B"},
        {"step-3.5-flash", "196B.A11B"},
        {"llama-4-scout", "17Bx16E (Scout)"},
        {"ernie-4.5-21b-a3b", "21B.A3B"},
        {"olmoe-1b-7b", "A1.7B"},
        {"minimax-m2", "230B.A10B"},
        // with states
        {"qwen3.5-9b", "9B"},
        {"qwen3.5-27b", "27B"},
        {"qwen3.5-35b-a3b", "35B.A3B"},
        {"qwen3-next-80b-a3b", "80B.A3B"},
        {"lfm2-1.2b", "1.2B"},
        {"lfm2-8b-a1b", "8B.A1B"},
        {"granite-4.0-h-tiny", "7B.A1B"},
        {"nemotron-nano-9b-v2", "9B"},
        {"nemotron-3-nano-30b-a3b", "31B.A3.5B"},
        {"mamba2-2.7b", "2.7B"},
        {"falcon-h1-1.5b", "1.5B"},
        {"kimi-linear-48b-a3b", "48B.A3B"},
    };
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++) {
        const Family *family;
        const Shape *s = family_shape(labels[i][0], &family);
        REQUIRE(s, "%s", labels[i][0]);
        Hparams h = {.n_layer = s->n_layer, .n_embd = s->n_embd, .n_vocab = s->n_vocab};
        snprintf(h.arch, sizeof h.arch, "%s", family->arch);
        const char *label = family_size(&h, shape_key(s, "expert_count", 0));
        CHECK(label && strcmp(label, labels[i][1]) == 0, "%s: %s", s->name, label ? label : "none");
    }
}

TEST(synth_refuses_unknown_names) {
    SynthImage image;
    Err e = {0};
    CHECK(!synth_make("llama-9", "q4_0", 1, 1, 1, &image, &e) && e.code == ERR_USAGE, "%s", e.text);
    CHECK(strstr(e.text, "no shape 'llama-9'") && strstr(e.text, "llama-3.2-1b"), "%s", e.text);
    CHECK(!synth_make("llama-3.2-1b", "q4_9", 1, 1, 1, &image, &e) && e.code == ERR_USAGE, "%s", e.text);
    CHECK(strstr(e.text, "no mix 'q4_9'"), "%s", e.text);
}

/* Memory and tape are known while the blocks are still zeros. */
TEST(synth_is_prepared_before_it_is_filled) {
    SynthImage image;
    Model model;
    Engine *engine;
    Err e = {0};
    EngineConfig config = {.device = DEVICE_CPU, .n_ctx = 64, .n_seq = 1, .n_threads = 1, .isa = "auto"};
    REQUIRE(synth_open("qwen3-0.6b", "q8_0", 2, 1, &image, &e), "%s", e.text);
    REQUIRE(model_open_bytes(image.data, image.n, "shape", &model, &e), "%s", e.text);
    CHECK(engine_prepare(&model, &config, &engine, &e), "%s", e.text);
    engine_close(engine);
    model_close(&model);
    synth_free(&image);
}
