/* qwen35: Qwen3.5 and its successors, dense (qwen35) and with experts (qwen35moe), and Qwen3-Next (qwen3next).
 *
 * The differences from qwen3: only the last layer of each full_attention_interval has attention, the others a gated
 * delta net; attn_q makes a gate behind each head of q, by whose sigmoid attention is multiplied; the norm before the
 * feed-forward block is named post_attention_norm; a shared expert with a gate.  Value head h of the delta net reads
 * key head h % n_k_head, in qwen3next h / (n_head / n_k_head).  Rotation in sections is that by halves, as long as
 * positions are those of text. */
#include "decoder.h"
#include "family.h"
#include "mixers.h"

static int mix(PlanBuilder *b, int in, const Decoder *d, bool k_tiled) {
    int interval = keys_int(&b->keys, "full_attention_interval", 1, MAX_LAYERS, 4);
    if ((b->layer + 1) % interval == 0) return block_attention(b, in, &d->attention, d->norm);
    return block_delta_net(b, in, d->norm, k_tiled);
}

static int mix_tiled(PlanBuilder *b, int in, const Decoder *d) {
    return mix(b, in, d, true);
}

static int mix_grouped(PlanBuilder *b, int in, const Decoder *d) {
    return mix(b, in, d, false);
}

static Decoder read(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    d.attention.qk_norm = QK_NORM_HEADS;
    d.attention.has_gate = true;
    d.mix = mix_tiled;
    d.ffn_norm = "post_attention_norm";
    return d;
}

static void emit_dense(PlanBuilder *b) {
    Decoder d = read(b);
    emit_decoder(b, &d);
}

static void emit_experts(PlanBuilder *b) {
    Decoder d = read(b);
    d.experts = read_experts(b, ROUTE_SOFTMAX, true);
    emit_decoder(b, &d);
}

static void emit_next(PlanBuilder *b) {
    Decoder d = read(b);
    d.experts = read_experts(b, ROUTE_SOFTMAX, true);
    d.mix = mix_grouped;
    emit_decoder(b, &d);
}

static const Shape dense_shapes[] = {
    {"qwen3.5-9b", 32, 4096, 16, 4, 256, 12288, 248320, 1e7f, .optional = {"output.weight"},
     .keys = "rope.dimension_count=64 ssm.conv_kernel=4 ssm.inner_size=4096 ssm.state_size=128 "
             "ssm.time_step_rank=32 ssm.group_count=16"},
    {"qwen3.5-27b", 64, 5120, 24, 4, 256, 17408, 248320, 1e7f, .optional = {"output.weight"},
     .keys = "rope.dimension_count=64 ssm.conv_kernel=4 ssm.inner_size=6144 ssm.state_size=128 "
             "ssm.time_step_rank=48 ssm.group_count=16"},
    {0},
};

static const Shape expert_shapes[] = {
    {"qwen3.5-35b-a3b", 40, 2048, 16, 2, 256, 512, 248320, 1e7f,
     .optional = {"output.weight", "ffn_gate_inp_shexp.weight"},
     .keys = "rope.dimension_count=64 ssm.conv_kernel=4 ssm.inner_size=4096 ssm.state_size=128 "
             "ssm.time_step_rank=32 ssm.group_count=16 expert_count=256 expert_used_count=8 "
             "expert_feed_forward_length=512 expert_shared_feed_forward_length=512"},
    {0},
};

static const Shape next_shapes[] = {
    {"qwen3-next-80b-a3b", 48, 2048, 16, 2, 256, 512, 151936, 1e7f,
     .optional = {"output.weight", "ffn_gate_inp_shexp.weight", "ssm_ba.weight"},
     .keys = "rope.dimension_count=64 ssm.conv_kernel=4 ssm.inner_size=4096 ssm.state_size=128 "
             "ssm.time_step_rank=32 ssm.group_count=16 expert_count=512 expert_used_count=10 "
             "expert_feed_forward_length=512 expert_shared_feed_forward_length=512"},
    {0},
};

static const ModelSize dense_sizes[] = {
    {"0.8B", 24, 0, 1024, 0}, {"2B", 24, 0, 0, 0},  {"4B", 32, 0, 2560, 0},
    {"9B", 32, 0, 0, 0},      {"27B", 64, 0, 0, 0}, {0},
};

static const ModelSize expert_sizes[] = {
    {"35B.A3B", 40, 0, 0, 0}, {"122B.A10B", 48, 0, 0, 0}, {"397B.A17B", 60, 0, 0, 0}, {0}};
static const ModelSize next_sizes[] = {{"80B.A3B", 48, 0, 0, 0}, {0}};

const Family family_qwen35 = {"qwen35", emit_dense, dense_shapes, dense_sizes};
const Family family_qwen35moe = {"qwen35moe", emit_experts, expert_shapes, expert_sizes};
const Family family_qwen3next = {"qwen3next", emit_next, next_shapes, next_sizes};
