/* olmoe: OLMoE: experts in every layer, whose weights are not normalised.
 *
 * The differences from llama: rotation by halves; q and k are normalised over all heads together. */
#include "decoder.h"
#include "family.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    d.attention.qk_norm = QK_NORM_ROW;
    d.experts = read_experts(b, ROUTE_SOFTMAX, false);
    emit_decoder(b, &d);
}

static const Shape shapes[] = {
    {"olmoe-1b-7b",
     16,
     2048,
     16,
     16,
     128,
     1024,
     50304,
     1e4f,
     {"output.weight"},
     "expert_count=64 expert_used_count=8"},
    {0},
};

static const ModelSize sizes[] = {{"A1.7B", 16, 0, 0, 0}, {0}};

const Family family_olmoe = {"olmoe", emit, shapes, sizes};
