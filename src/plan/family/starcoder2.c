/* starcoder2: StarCoder 2.
 *
 * The differences from llama: LayerNorm, rotation by halves, a feed-forward block of GELU (by tanh) without a gate,
 * biases everywhere. */
#include "decoder.h"
#include "family.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, true, ROPE_HALVES);
    d.ffn = (FfnBlock){.kind = FFN_PLAIN, .glu.act = ACT_GELU};
    emit_decoder(b, &d);
}

#define BIASES                                                                                               \
    "_norm.bias", "attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias", "ffn_up.bias",            \
        "ffn_down.bias"

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"starcoder2-3b", 30, 3072, 24, 2, 128, 12288, 49152, 999999.4375f, .optional = {BIASES},
     .keys = "attention.layer_norm_epsilon=0.00001"},
    {"starcoder2-7b", 32, 4608, 36, 4, 128, 18432, 49152, 1e6f, .optional = {BIASES},
     .keys = "attention.layer_norm_epsilon=0.00001"},
    {0},
};

static const ModelSize sizes[] = {{"3B", 30, 0, 0, 0}, {"7B", 32, 0, 0, 0}, {"15B", 40, 0, 0, 0}, {0}};

const Family family_starcoder2 = {"starcoder2", emit, shapes, sizes};
