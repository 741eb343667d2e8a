/* kimi-linear: Kimi Linear.
 *
 * The differences from llama: layers without key/value heads have a delta rule whose decay is one of each channel of
 * the key, with a convolution for each of q, k and v, and a gate by sigmoid; the others have latent attention without
 * rotation; experts behind the first layers, and a shared one. */
#include "decoder.h"
#include "family.h"
#include "latent.h"
#include "mixers.h"

#include <math.h>

static int delta_attention(PlanBuilder *b, int in, NormParams norm) {
    Keys *k = &b->keys;
    keys_need(k, "kda.head_dim");
    keys_need(k, "ssm.conv_kernel");
    int n_embd = b->plan->hparams.n_embd,
        n_head = keys_of_layer(k, "attention.head_count", b->layer, 1, 1 << 16, 1);
    int width = keys_int(k, "kda.head_dim", 1, 1024, 1), n = n_head * width;
    int n_tap = keys_int(k, "ssm.conv_kernel", 2, CONV_MAX_TAPS, 2);
    int q = block_product(b, "attn_q", in, n_embd, n);
    int key = block_product(b, "attn_k", in, n_embd, n);
    int v = block_product(b, "attn_v", in, n_embd, n);
    int beta = block_product(b, "ssm_beta", in, n_embd, n_head);
    int decay = block_product(b, "ssm_f_a", in, n_embd, width),
        gate = block_product(b, "ssm_g_a", in, n_embd, width);
    decay = block_product(b, "ssm_f_b", decay, width, n);
    gate = block_product(b, "ssm_g_b", gate, width, n);
    q = block_conv(b, "ssm_conv1d_q", q, n_tap, ACT_SILU);
    key = block_conv(b, "ssm_conv1d_k", key, n_tap, ACT_SILU);
    v = block_conv(b, "ssm_conv1d_v", v, n_tap, ACT_SILU);
    DeltaParams delta = {.n_head = n_head,
                         .v_dim = width,
                         .n_k_head = n_head,
                         .k_dim = width,
                         .per_channel = true,
                         .a = builder_vector(b, "blk.%d.ssm_a", n_head),
                         .dt_bias = builder_vector(b, "blk.%d.ssm_dt.bias", n),
                         .scale = 1 / sqrtf((float)width),
                         .eps = norm.eps};
    int y = emit_delta(b, "ssm_delta", q, key, v, decay, beta, delta);
    b->on_R |= builder_is_last_mixer(b);
    norm.head_dim = width;
    y = emit_glu(b, "ssm_gated", gate, block_norm(b, "ssm_norm", y, norm), (GluParams){.act = ACT_SIGMOID});
    return block_product(b, "attn_output", y, n, n_embd);
}

static int mix(PlanBuilder *b, int in, const Decoder *d) {
    if (!read_has_attention(b)) return delta_attention(b, in, d->norm);
    return block_latent_attention(b, in, &(LatentBlock){.attn.scale = 1}, d->norm);
}

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_ADJACENT);
    d.experts = read_experts(b, ROUTE_SIGMOID, true);
    d.mix = mix;
    emit_decoder(b, &d);
}

static const Shape shapes[] = {
    {"kimi-linear-48b-a3b", 27, 2304, 32, 1, 576, 9216, 163840, 1e4f,
     .optional = {"output.weight", "exp_probs_b.bias"},
     .keys =
         "attention.head_count_kv=0,0,0,1,0,0,0,1,0,0,0,1,0,0,0,1,0,0,0,1,0,0,0,1,0,0,1 "
         "attention.kv_lora_rank=512 attention.key_length_mla=192 attention.value_length_mla=128 "
         "rope.dimension_count=64 ssm.conv_kernel=4 kda.head_dim=128 expert_count=256 expert_used_count=8 "
         "expert_feed_forward_length=1024 expert_shared_count=1 expert_weights_scale=2.446 "
         "leading_dense_block_count=1"},
    {0},
};

static const ModelSize sizes[] = {{"48B.A3B", 27, 0, 0, 0}, {0}};

const Family family_kimi_linear = {"kimi-linear", emit, shapes, sizes};
