/* llama4: Llama 4.
 *
 * The differences from llama: three of four layers see the positions of their chunk of 8192, and normalise
 * heads of q and k without weights behind the rotation (not in the model of 128 experts); each fourth sees
 * all, does not rotate, and multiplies scores by a temperature that grows with the position.  Experts on
 * every nth layer: one of them is chosen, its weight (a sigmoid) multiplies its input, and there is a
 * shared one.  As in llama.cpp, the length of chunks and the temperature are not the file's. */
#include "decoder.h"
#include "family.h"
#include "read.h"

static void emit(PlanBuilder *b) {
    enum { CHUNK = 8192, PERIOD = 4 };
    Decoder d = read_decoder(b, false, ROPE_ADJACENT);
    AttnParams *attn = &d.attention.attn;
    read_rope_factors(b, &attn->rope);
    d.experts = read_experts(b, ROUTE_SIGMOID, false);
    d.experts.weighed_input = true;
    d.experts.n_shared_ff = keys_int(&b->keys, "expert_feed_forward_length", 1, READ_MAX_FF, 1);
    d.attention.qk_norm_last = true;
    const RopeParams rope = attn->rope;
    int x = decoder_embed(b, &d);
    while (builder_next_layer(b)) {
        bool is_local = read_is_local(b, PERIOD), rotates = b->layer % PERIOD < PERIOD - 1;
        attn->chunk = is_local ? CHUNK : 0;
        attn->rope = rotates ? rope : (RopeParams){0};
        attn->temperature = rotates ? 0 : 0.1f;
        attn->temperature_first = 1;
        attn->temperature_length = CHUNK;
        d.attention.qk_norm = rotates && d.experts.moe.n_expert != 128 ? QK_NORM_PLAIN : QK_NORM_NONE;
        x = decoder_layer(b, x, &d);
    }
    decoder_output(b, x, &d);
}

static const Shape shapes[] = {
    {"llama-4-scout",
     48,
     5120,
     40,
     8,
     128,
     16384,
     202048,
     5e5f,
     {"output.weight", "rope_freqs.weight"},
     "expert_count=16 expert_used_count=1 expert_feed_forward_length=8192 interleave_moe_layer_step=1"},
    {"llama-4-maverick",
     48,
     5120,
     40,
     8,
     128,
     16384,
     202048,
     5e5f,
     {"output.weight"},
     "expert_count=128 expert_used_count=1 expert_feed_forward_length=8192 interleave_moe_layer_step=2"},
    {0},
};

static const ModelSize sizes[] = {
    {"17Bx16E (Scout)", 48, 16, 0, 0}, {"17Bx128E (Maverick)", 48, 128, 0, 0}, {0}};

const Family family_llama4 = {"llama4", emit, shapes, sizes};
