/* granite: IBM Granite 3, dense (granite), and Granite 4 H (granitehybrid), dense or with experts.
 *
 * The differences from llama: factors on the embedding, on what each part adds to the residual stream, on scores and
 * on logits (which are divided).  rope.scaling.finetuned = false means no rotation.  Layers of granitehybrid without
 * key/value heads have Mamba 2 in place of attention. */
#include "decoder.h"
#include "family.h"
#include "mixers.h"
#include "read.h"

static Decoder read(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_ADJACENT);
    read_rope_factors(b, &d.attention.attn.rope);
    if (!keys_bool(&b->keys, "rope.scaling.finetuned", true)) d.attention.attn.rope.n_rot = 0;
    keys_need(&b->keys, "logit_scale");
    d.embed_scale = read_factor(b, "embedding_scale", 1);
    d.residual_scale = read_factor(b, "residual_scale", 1);
    d.logit_scale = 1 / read_factor(b, "logit_scale", 1);
    return d;
}

static void emit_dense(PlanBuilder *b) {
    Decoder d = read(b);
    emit_decoder(b, &d);
}

static int mix(PlanBuilder *b, int in, const Decoder *d) {
    return read_has_attention(b) ? block_attention(b, in, &d->attention, d->norm)
                                 : block_mamba2(b, in, d->norm);
}

static void emit_hybrid(PlanBuilder *b) {
    Decoder d = read(b);
    if (keys_int(&b->keys, "expert_count", 0, INT32_MAX, 0)) d.experts = read_experts(b, ROUTE_SOFTMAX, true);
    d.mix = mix;
    emit_decoder(b, &d);
}

/* In the order of the fields of Shape. */
static const Shape dense_shapes[] = {
    {"granite-3.3-2b", 40, 2048, 32, 8, 64, 8192, 49159, 1e7f, .optional = {NULL},
     .keys = "embedding_scale=12.0 residual_scale=0.22 attention.scale=0.015625 logit_scale=8.0"},
    {"granite-3.3-8b", 40, 4096, 32, 8, 128, 12800, 49159, 1e7f, .optional = {NULL},
     .keys = "embedding_scale=12.0 residual_scale=0.22 attention.scale=0.0078125 logit_scale=16.0"},
    {0},
};

/* State size, heads of Mamba 2 and the four factors are inferred. */
static const Shape hybrid_shapes[] = {
    {"granite-4.0-h-tiny", 40, 1536, 12, 4, 128, 512, 100352, 1e4f,
     .optional = {"ssm_norm.weight", "ssm_conv1d.bias"},
     .keys =
         "rope.scaling.finetuned=false attention.head_count_kv=0,0,0,0,0,4,0,0,0,0 ssm.conv_kernel=4 "
         "ssm.inner_size=3072 ssm.state_size=128 ssm.time_step_rank=48 ssm.group_count=1 "
         "embedding_scale=12.0 "
         "residual_scale=0.22 attention.scale=0.0078125 logit_scale=16.0 expert_count=64 expert_used_count=6 "
         "expert_shared_feed_forward_length=1024"},
    {"granite-4.0-h-small", 40, 4096, 32, 8, 128, 768, 100352, 1e4f,
     .optional = {"ssm_norm.weight", "ssm_conv1d.bias"},
     .keys = "rope.scaling.finetuned=false attention.head_count_kv=0,0,0,0,0,8,0,0,0,0 ssm.conv_kernel=4 "
             "ssm.inner_size=8192 ssm.state_size=128 ssm.time_step_rank=128 ssm.group_count=1 "
             "embedding_scale=12.0 "
             "residual_scale=0.22 attention.scale=0.0078125 logit_scale=16.0 expert_count=72 "
             "expert_used_count=10 "
             "expert_shared_feed_forward_length=1536"},
    {0},
};

static const ModelSize dense_sizes[] = {{"3B", 32, 0, 0, 0}, {"3B", 40, 0, 0, 0}, {0}};

static const ModelSize hybrid_sizes[] = {
    {"7B.A1B", 40, 64, 1536, 0}, {"32B.A9B", 40, 72, 4096, 0}, {"3B", 40, 0, 0, 0}, {0}};

const Family family_granite = {"granite", emit_dense, dense_shapes, dense_sizes};
const Family family_granitehybrid = {"granitehybrid", emit_hybrid, hybrid_shapes, hybrid_sizes};
