/* deepseek2: DeepSeek V2, V3, R1, Kimi K2 and others with latent attention: dense layers first, then
 * experts, in groups where the file says so, and shared ones.
 *
 * The differences from llama: block_latent_attention; the kind of router is the file's (softmax where it
 * does not say); with YaRN, cosine and sine are not magnified, but scores are multiplied by (1 +
 * yarn_log_multiplier * ln factor)^2. */
#include "decoder.h"
#include "family.h"
#include "latent.h"
#include "read.h"

#include <math.h>

static int mix(PlanBuilder *b, int in, const Decoder *d) {
    LatentBlock o = {.attn = {.scale = 1}, .rope = d->attention.attn.rope};
    float magnitude = keys_float(&b->keys, "rope.scaling.attn_factor", 1e-3f, 1e3f, 1.0f);
    o.rope.magnitude = magnitude;
    if (o.rope.yarn_context) {
        magnitude *= 1 + read_factor(b, "rope.scaling.yarn_log_multiplier", 0) * logf(1 / o.rope.scale);
        o.attn.scale = magnitude * magnitude;
    }
    return block_latent_attention(b, in, &o, d->norm);
}

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_ADJACENT);
    if (read_factor(b, "attention.temperature_scale", 0) != 0)
        keys_fail(&b->keys, "'deepseek2.attention.temperature_scale' is not supported; expected 0 or none");
    d.experts = read_experts(b, ROUTE_SOFTMAX, false);
    d.mix = mix;
    emit_decoder(b, &d);
}

#define LATENT                                                                                               \
    " attention.head_count_kv=1 attention.kv_lora_rank=512 attention.key_length=576 "                        \
    "attention.value_length=512 attention.key_length_mla=192 attention.value_length_mla=128 "                \
    "rope.dimension_count=64 rope.scaling.type=yarn rope.scaling.factor=40.0 "                               \
    "rope.scaling.original_context_length=4096"

static const Shape shapes[] = {
    {"deepseek-v2-lite",
     27,
     2048,
     16,
     1,
     576,
     10944,
     102400,
     1e4f,
     {"output.weight"},
     "expert_count=64 expert_used_count=6 expert_feed_forward_length=1408 expert_shared_count=2 "
     "leading_dense_block_count=1 rope.scaling.yarn_log_multiplier=0.0707" LATENT},
    {"deepseek-v3",
     61,
     7168,
     128,
     1,
     576,
     18432,
     129280,
     1e4f,
     {"output.weight", "attn_q_a.weight", "exp_probs_b.bias"},
     "expert_count=256 expert_used_count=8 expert_feed_forward_length=2048 expert_shared_count=1 "
     "leading_dense_block_count=3 expert_gating_func=2 expert_weights_norm=true expert_weights_scale=2.5 "
     "expert_group_count=8 expert_group_used_count=4 attention.q_lora_rank=1536 "
     "rope.scaling.yarn_log_multiplier=0.1" LATENT},
    {0},
};

static const ModelSize sizes[] = {{"16B", 27, 0, 0, 0}, {"236B", 60, 0, 0, 0}, {"671B", 61, 0, 0, 0}, {0}};

const Family family_deepseek2 = {"deepseek2", emit, shapes, sizes};
