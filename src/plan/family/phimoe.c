/* phimoe: Phi-3.5-MoE, as llama.cpp computes it, which is not the published model: RMS norms with a bias
 * stand for LayerNorm, and a softmax over all experts, normalised over the chosen two, for "sparsemixer".
 *
 * The differences from llama with experts: rotation by halves with short or long factors, biases
 * everywhere, on the logits, too. */
#include "decoder.h"
#include "family.h"
#include "read.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    read_rope_factors(b, &d.attention.attn.rope);
    d.experts = read_experts(b, ROUTE_SOFTMAX, true);
    emit_decoder(b, &d);
}

static const Shape shapes[] = {
    {"phi-3.5-moe",
     32,
     4096,
     32,
     8,
     128,
     6400,
     32064,
     1e4f,
     {"output.weight", "output.bias", "attn_norm.bias", "ffn_norm.bias", "output_norm.bias", "attn_q.bias",
      "attn_k.bias", "attn_v.bias", "attn_output.bias", "rope_factors_long.weight"},
     "expert_count=16 expert_used_count=2 rope.scaling.original_context_length=4096 "
     "rope.scaling.attn_factor=1.19"},
    {0},
};

static const ModelSize sizes[] = {{"16x3.8B", 32, 0, 0, 0}, {0}};

const Family family_phimoe = {"phimoe", emit, shapes, sizes};
