/* minimax-m2: MiniMax M2: experts in every layer, chosen by a sigmoid with a bias, weights normalised.
 *
 * The differences from llama: rotation by halves of a part of each head; q and k are normalised over all
 * heads together. */
#include "decoder.h"
#include "family.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    d.attention.qk_norm = QK_NORM_ROW;
    d.experts = read_experts(b, ROUTE_SIGMOID, true);
    emit_decoder(b, &d);
}

static const Shape shapes[] = {
    {"minimax-m2",
     62,
     3072,
     48,
     8,
     128,
     1536,
     200064,
     5e6f,
     {"output.weight", "exp_probs_b.bias"},
     "rope.dimension_count=64 expert_count=256 expert_used_count=8 expert_feed_forward_length=1536 "
     "expert_gating_func=2"},
    {0},
};

static const ModelSize sizes[] = {{"230B.A10B", 62, 0, 0, 0}, {0}};

const Family family_minimax_m2 = {"minimax-m2", emit, shapes, sizes};
