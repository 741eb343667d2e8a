/* step35: Step 3.5: dense layers first, then experts chosen by a sigmoid with a bias, and a shared one.
 *
 * The differences from llama: norms of heads; rotation by halves; a gate for each head, sigmoid(attn_gate
 * in), on what attention gives; numbers of heads of each layer.  Layers with a window have a base of their
 * own and rotate whole heads; the others rotate a half of that, and only there the factors of angles count.
 * Activations of some layers are clamped: min(silu(gate), limit) * clip(up, -limit, limit). */
#include "decoder.h"
#include "family.h"
#include "read.h"

/* A limit of 0 means none. */
static GluParams read_glu(PlanBuilder *b, const char *name) {
    float limit = keys_has(&b->keys, name) ? keys_float_of_layer(&b->keys, name, b->layer, 0, 1e6f) : 0;
    return (GluParams){.act = limit > 0 ? ACT_CLAMPED : ACT_SILU, .limit = limit};
}

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    AttnParams *attn = &d.attention.attn;
    if (builder_has(b, "blk.0.attn_q_norm.weight")) d.attention.qk_norm = QK_NORM_HEADS;
    d.attention.head_gate = builder_has(b, "blk.0.attn_gate.weight");
    d.experts = read_experts(b, ROUTE_SIGMOID, false);
    const RopeParams local = read_rope_local(b, &attn->rope, 10000);
    RopeParams global = attn->rope;
    read_rope_factors(b, &global); // as many as a whole head has
    global.n_rot /= 2;
    int window = read_window(b, -1), x = decoder_embed(b, &d);
    while (builder_next_layer(b)) {
        bool is_local = keys_of_layer(&b->keys, "attention.sliding_window_pattern", b->layer, 0, 1, 0);
        attn->window = is_local ? window : 0;
        attn->rope = is_local ? local : global;
        d.experts.glu = read_glu(b, "swiglu_clamp_exp");
        d.experts.shared_glu = read_glu(b, "swiglu_clamp_shexp");
        x = decoder_layer(b, x, &d);
    }
    decoder_output(b, x, &d);
}

static const Shape shapes[] = {
    {"step-3.5-flash",
     45,
     4096,
     64,
     8,
     128,
     11264,
     128896,
     5e6f,
     {"output.weight", "exp_probs_b.bias", "attn_q_norm.weight", "attn_gate.weight", "rope_freqs.weight"},
     "attention.head_count=64,96,96,96 attention.sliding_window_pattern=false,true,true,true "
     "attention.sliding_window=512 rope.freq_base_swa=10000.0 expert_count=288 expert_used_count=8 "
     "expert_feed_forward_length=1280 expert_shared_feed_forward_length=1280 expert_gating_func=2 "
     "expert_weights_norm=true expert_weights_scale=3.0 leading_dense_block_count=3"},
    {0},
};

static const ModelSize sizes[] = {{"196B.A11B", 45, 0, 0, 0}, {0}};

const Family family_step35 = {"step35", emit, shapes, sizes};
