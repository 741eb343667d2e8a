/* gpt-oss: experts in every layer, biases on every product, one more score per head (a sink), and every
 * second layer sees a window.
 *
 * The differences from llama: rotation by halves with YaRN, post_attention_norm before the feed-forward
 * block, and the activation swiglu_oai.  The weights of the chosen experts are a softmax over their logits
 * alone, which is that over all, normalised. */
#include "decoder.h"
#include "family.h"
#include "read.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    int window = read_window(b, -1);
    d.ffn_norm = "post_attention_norm";
    d.attention.has_sinks = true;
    d.experts = read_experts(b, ROUTE_SOFTMAX, true);
    d.experts.glu.act = ACT_SWIGLU_OAI;
    int x = decoder_embed(b, &d);
    while (builder_next_layer(b)) {
        d.attention.attn.window = read_is_local(b, 2) ? window : 0;
        x = decoder_layer(b, x, &d);
    }
    decoder_output(b, x, &d);
}

#define OPTIONAL                                                                                             \
    {                                                                                                        \
        "output.weight", "attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias",                    \
            "attn_sinks.weight", "ffn_gate_inp.bias", "ffn_gate_exps.bias", "ffn_up_exps.bias",              \
            "ffn_down_exps.bias"                                                                             \
    }
#define KEYS                                                                                                 \
    " expert_used_count=4 expert_feed_forward_length=2880 attention.sliding_window=128 "                     \
    "rope.scaling.type=yarn rope.scaling.factor=32.0 rope.scaling.original_context_length=4096"

static const Shape shapes[] = {
    {"gpt-oss-20b", 24, 2880, 64, 8, 64, 2880, 201088, 150000, OPTIONAL, "expert_count=32" KEYS},
    {"gpt-oss-120b", 36, 2880, 64, 8, 64, 2880, 201088, 150000, OPTIONAL, "expert_count=128" KEYS},
    {0},
};

static const ModelSize sizes[] = {{"20B", 24, 0, 0, 0}, {"120B", 36, 0, 0, 0}, {0}};

const Family family_gpt_oss = {"gpt-oss", emit, shapes, sizes};
