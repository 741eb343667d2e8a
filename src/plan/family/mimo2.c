/* mimo2: MiMo V2: dense layers first, then experts chosen by a sigmoid with a bias.
 *
 * The differences from llama: rotation by halves of a part of each head; keys wider than values; layers
 * with a window have a base, a number of key/value heads and sinks of their own; what attention gives is
 * multiplied by a factor. As in llama.cpp the window counts the row's own position. */
#include "decoder.h"
#include "family.h"
#include "read.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    AttnParams *attn = &d.attention.attn;
    d.attention.has_sinks = true;
    d.attention_scale = read_factor(b, "attention.value_scale", 1);
    d.experts = read_experts(b, ROUTE_SIGMOID, true);
    const RopeParams global = attn->rope, local = read_rope_local(b, &global, 10000);
    int window = read_window(b, -1), x = decoder_embed(b, &d);
    while (builder_next_layer(b)) {
        bool is_local = keys_of_layer(&b->keys, "attention.sliding_window_pattern", b->layer, 0, 1, 0);
        attn->window = is_local ? window : 0;
        attn->rope = is_local ? local : global;
        x = decoder_layer(b, x, &d);
    }
    decoder_output(b, x, &d);
}

static const Shape shapes[] = {
    {"mimo-v2-flash",
     48,
     4096,
     64,
     4,
     192,
     16384,
     152576,
     5e6f,
     {"output.weight", "exp_probs_b.bias", "attn_sinks.weight"},
     "attention.head_count_kv=4,8,8,8,8 attention.value_length=128 rope.dimension_count=64 "
     "rope.freq_base_swa=10000.0 attention.sliding_window=128 attention.sliding_window_pattern=0,1,1,1,1 "
     "attention.value_scale=0.707 expert_count=256 expert_used_count=8 expert_feed_forward_length=2048 "
     "expert_gating_func=2 expert_weights_norm=true leading_dense_block_count=1"},
    {0},
};

static const ModelSize sizes[] = {{"310B.A15B", 48, 0, 0, 0}, {0}};

const Family family_mimo2 = {"mimo2", emit, shapes, sizes};
