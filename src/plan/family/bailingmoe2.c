/* bailingmoe2: Ling 2.0: dense layers first, then experts of the best groups, chosen by a sigmoid with a
 * bias, and a shared one.
 *
 * The differences from llama: q, k and v in one tensor; norms of heads; rotation by halves of a part of
 * each head. expert_shared_feed_forward_length is the width of one shared expert, not of all. */
#include "decoder.h"
#include "family.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    d.attention.qk_norm = QK_NORM_HEADS;
    d.experts = read_experts(b, ROUTE_SIGMOID, false);
    if (keys_has(&b->keys, "expert_shared_feed_forward_length"))
        d.experts.n_shared_ff *= keys_int(&b->keys, "expert_shared_count", 0, 16, 1);
    emit_decoder(b, &d);
}

static const Shape shapes[] = {
    {"ling-mini-2.0",
     20,
     2048,
     16,
     4,
     128,
     5120,
     157184,
     6e5f,
     {"attn_qkv.weight", "output.weight", "exp_probs_b.bias"},
     "rope.dimension_count=64 expert_count=256 expert_used_count=8 expert_feed_forward_length=512 "
     "expert_shared_count=1 expert_gating_func=2 expert_weights_norm=true expert_weights_scale=2.5 "
     "leading_dense_block_count=1 expert_group_count=8 expert_group_used_count=4"},
    {0},
};

static const ModelSize sizes[] = {{"16B.A1B", 20, 0, 0, 0}, {"100B.A6B", 32, 0, 0, 0}, {0}};

const Family family_bailingmoe2 = {"bailingmoe2", emit, shapes, sizes};
