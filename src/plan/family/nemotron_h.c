/* nemotron_h: Nemotron H, dense (nemotron_h) and with experts (nemotron_h_moe).
 *
 *     x = embed
 *     per layer:  x += mamba2(norm(x)), attention(norm(x)) without rotation, or down(relu2(up(norm(x)))),
 *                 dense, or by experts and a shared one
 *     logits = output(norm(x))
 *
 * A layer with a feed-forward width is a feed-forward block, one with key/value heads is attention, one
 * with neither is Mamba 2.  Experts may be narrower than the row: then a product before them and one behind
 * change the width, while the router reads the whole row. */
#include "decoder.h"
#include "family.h"
#include "mixers.h"
#include "read.h"

static bool has_feed_forward(PlanBuilder *b, int layer) {
    return keys_of_layer(&b->keys, "feed_forward_length", layer, 0, READ_MAX_FF, 0) > 0;
}

/* Experts, of which the chosen ones may be narrower than the row. */
static int experts(PlanBuilder *b, int in, const ExpertBlock *o, int *x) {
    if (!builder_has(b, "blk.%d.ffn_latent_down.weight")) return block_experts(b, in, in, o, x, 1);
    int n_embd = b->plan->hparams.n_embd,
        n_latent = keys_int(&b->keys, "moe_latent_size", 1, 1 << 20, n_embd);
    int narrow = block_product(b, "ffn_latent_down", in, n_embd, n_latent);
    return block_product(b, "ffn_latent_up", block_experts(b, in, narrow, o, x, 1), n_latent, n_embd);
}

static int part(PlanBuilder *b, int in, const Decoder *d, int *x) {
    if (!has_feed_forward(b, b->layer))
        return read_has_attention(b) ? block_attention(b, in, &d->attention, d->norm)
                                     : block_mamba2(b, in, d->norm);
    return d->experts.moe.n_expert ? experts(b, in, &d->experts, x) : block_ffn(b, in, &d->ffn);
}

static void emit_layers(PlanBuilder *b, const Decoder *d) {
    while (has_feed_forward(b, b->last_mixer) && b->last_mixer > 0) b->last_mixer--;
    int x = decoder_embed(b, d);
    while (builder_next_layer(b)) {
        int out = part(b, block_norm(b, "attn_norm", x, d->norm), d, &x);
        x = emit_add(b, "residual", out, x);
    }
    decoder_output(b, x, d);
}

static Decoder read(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    d.attention.attn.rope.n_rot = 0;
    d.ffn = (FfnBlock){.kind = FFN_PLAIN, .glu.act = ACT_RELU2};
    return d;
}

static void emit_dense(PlanBuilder *b) {
    Decoder d = read(b);
    emit_layers(b, &d);
}

static void emit_experts(PlanBuilder *b) {
    Decoder d = read(b);
    d.experts = read_experts(b, ROUTE_SIGMOID, true);
    d.experts.kind = FFN_PLAIN;
    d.experts.glu.act = d.experts.shared_glu.act = ACT_RELU2;
    emit_layers(b, &d);
}

static const Shape dense_shapes[] = {
    {"nemotron-nano-9b-v2", 56, 4480, 40, 8, 128, 15680, 131072, 1e4f,
     .optional = {"output.weight", "ssm_norm.weight", "ssm_conv1d.bias"},
     .keys =
         "ssm.conv_kernel=4 ssm.inner_size=10240 ssm.state_size=128 ssm.time_step_rank=128 ssm.group_count=8 "
         "attention.head_count_kv=0,0,0,0,0,0,0,8 feed_forward_length=0,15680,0,15680,0,15680,15680,0"},
    {0},
};

static const Shape expert_shapes[] = {
    {"nemotron-3-nano-30b-a3b", 52, 2688, 32, 2, 128, 1856, 131072, 1e4f,
     .optional = {"output.weight", "ssm_norm.weight", "ssm_conv1d.bias", "exp_probs_b.bias"},
     .keys =
         "ssm.conv_kernel=4 ssm.inner_size=4096 ssm.state_size=128 ssm.time_step_rank=64 ssm.group_count=8 "
         "attention.head_count_kv=0,0,0,0,0,2,0,0,0,0,0,0,2,0,0,0,0,0,0,2,0,0,0,0,0,0,2,0,0,0,0,0,0,2,0,0,0,"
         "0,0,0,0,0,2,0,0,0,0,0,0,0,0,0 "
         "feed_forward_length=0,1856,0,1856,0,0,1856,0,1856,0,1856,0,0,1856,0,1856,0,1856,0,0,1856,0,1856,0,"
         "1856,0,0,1856,0,1856,0,1856,0,0,1856,0,1856,0,1856,0,1856,0,0,1856,0,1856,0,1856,0,1856,0,1856 "
         "expert_count=128 expert_used_count=6 expert_feed_forward_length=1856 "
         "expert_shared_feed_forward_length=3712 expert_weights_scale=2.5"},
    {0},
};

static const ModelSize dense_sizes[] = {{"8B", 52, 0, 0, 0}, {"9B", 56, 0, 0, 0}, {"12B", 62, 0, 0, 0}, {0}};
static const ModelSize expert_sizes[] = {{"31B.A3.5B", 52, 0, 0, 0}, {0}};

const Family family_nemotron_h = {"nemotron_h", emit_dense, dense_shapes, dense_sizes};
const Family family_nemotron_h_moe = {"nemotron_h_moe", emit_experts, expert_shapes, expert_sizes};
