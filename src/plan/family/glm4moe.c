/* glm4moe: GLM 4.5 to 4.7: dense layers first, then experts chosen by a sigmoid with a bias, and a shared
 * one.
 *
 * The differences from llama: rotation by halves of a part of each head, norms of heads where the file has
 * them, and post_attention_norm as the norm before the feed-forward block.  The last block of the file
 * guesses further tokens and is not run. */
#include "decoder.h"
#include "family.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    d.ffn_norm = "post_attention_norm";
    if (builder_has(b, "blk.0.attn_q_norm.weight")) d.attention.qk_norm = QK_NORM_HEADS;
    d.experts = read_experts(b, ROUTE_SIGMOID, false);
    emit_decoder(b, &d);
}

static const Shape shapes[] = {
    {"glm-4.5-air",
     46,
     4096,
     96,
     8,
     128,
     10944,
     151552,
     1e6f,
     {"output.weight", "attn_q.bias", "attn_k.bias", "attn_v.bias", "exp_probs_b.bias"},
     "rope.dimension_count=64 expert_count=128 expert_used_count=8 expert_feed_forward_length=1408 "
     "expert_shared_count=1 expert_gating_func=2 expert_weights_norm=true expert_weights_scale=1.0 "
     "leading_dense_block_count=1"},
    {0},
};

static const ModelSize sizes[] = {{"106B.A12B", 46, 0, 0, 0}, {"355B.A32B", 92, 0, 0, 0}, {0}};

const Family family_glm4moe = {"glm4moe", emit, shapes, sizes};
