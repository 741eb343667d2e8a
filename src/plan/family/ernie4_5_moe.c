/* ernie4_5-moe: ERNIE 4.5 with experts: dense layers first, then experts and shared ones.
 *
 * The difference from llama with experts: a bias is added to the softmax for the choice alone; weights are
 * the chosen probabilities without it, normalised. */
#include "decoder.h"
#include "family.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_ADJACENT);
    d.experts = read_experts(b, ROUTE_SOFTMAX, true);
    emit_decoder(b, &d);
}

static const Shape shapes[] = {
    {"ernie-4.5-21b-a3b",
     28,
     2560,
     20,
     4,
     128,
     12288,
     103424,
     5e5f,
     {"exp_probs_b.bias"},
     "expert_count=64 expert_used_count=6 expert_feed_forward_length=1536 expert_shared_count=2 "
     "expert_shared_feed_forward_length=3072 leading_dense_block_count=1 interleave_moe_layer_step=1"},
    {0},
};

static const ModelSize sizes[] = {{"21B.A3B", 28, 0, 0, 0}, {"300B.A47B", 54, 0, 0, 0}, {0}};

const Family family_ernie4_5_moe = {"ernie4_5-moe", emit, shapes, sizes};
