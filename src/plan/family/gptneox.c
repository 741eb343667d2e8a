/* gptneox: GPT-NeoX, Pythia.
 *
 * The differences from llama: LayerNorm; q, k and v in one tensor; rotation by halves of a part of each head; a
 * feed-forward block of GELU (by tanh) without a gate, which reads its own norm of the x that attention reads, unless
 * use_parallel_residual is false; biases everywhere. */
#include "decoder.h"
#include "family.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, true, ROPE_HALVES);
    d.parallel = keys_bool(&b->keys, "use_parallel_residual", true);
    d.ffn = (FfnBlock){.kind = FFN_PLAIN, .glu.act = ACT_GELU};
    emit_decoder(b, &d);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"pythia-1.4b", 24, 2048, 16, 16, 128, 8192, 50304, 1e4f,
     .optional = {"attn_qkv.weight", "attn_qkv.bias", "attn_output.bias", "ffn_up.bias", "ffn_down.bias",
                  "_norm.bias", "output.weight"},
     .keys = "rope.dimension_count=32 attention.layer_norm_epsilon=0.00001 use_parallel_residual=true"},
    {0},
};

static const ModelSize sizes[] = {
    {"1.4B", 24, 0, 2048, 0}, {"410M", 24, 0, 0, 0}, {"1B", 16, 0, 0, 0},  {"2.8B", 32, 0, 2560, 0},
    {"6.9B", 32, 0, 0, 0},    {"12B", 36, 0, 0, 0},  {"20B", 44, 0, 0, 0}, {0},
};

const Family family_gptneox = {"gptneox", emit, shapes, sizes};
