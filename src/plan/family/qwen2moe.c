/* qwen2moe: Qwen 1.5 and Qwen2 with experts, whose weights are not normalised, and a shared one with a gate.
 *
 * The differences from llama: rotation by halves, biases of q, k and v. */
#include "decoder.h"
#include "family.h"
#include "read.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    d.experts = read_experts(b, ROUTE_SOFTMAX, false);
    if (d.experts.n_shared_ff == 0) // of files without a key for it
        d.experts.n_shared_ff = keys_int(&b->keys, "feed_forward_length", 1, READ_MAX_FF, 1);
    emit_decoder(b, &d);
}

static const Shape shapes[] = {
    {"qwen1.5-moe-a2.7b",
     24,
     2048,
     16,
     16,
     128,
     5632,
     151936,
     1e6f,
     {"output.weight", "attn_q.bias", "attn_k.bias", "attn_v.bias", "ffn_gate_inp_shexp.weight"},
     "expert_count=60 expert_used_count=4 expert_feed_forward_length=1408 "
     "expert_shared_feed_forward_length=5632"},
    {0},
};

static const ModelSize sizes[] = {{"A2.7B", 24, 0, 0, 0}, {"57B.A14B", 28, 0, 0, 0}, {0}};

const Family family_qwen2moe = {"qwen2moe", emit, shapes, sizes};
