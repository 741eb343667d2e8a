/* qwen3: Qwen3, dense (qwen3) and with experts in every layer (qwen3moe).
 *
 * The differences from llama: the norms of heads, which every layer must have, and rotation by halves. */
#include "decoder.h"
#include "family.h"

static Decoder read(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    d.attention.qk_norm = QK_NORM_HEADS;
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

/* In the order of the fields of Shape. */
static const Shape dense_shapes[] = {
    {"qwen3-0.6b", 28, 1024, 16, 8, 128, 3072, 151936, 1e6f, .optional = {NULL}},
    {"qwen3-8b", 36, 4096, 32, 8, 128, 12288, 151936, 1e6f, .optional = {"output.weight"}},
    {0},
};

static const Shape expert_shapes[] = {
    {"qwen3-30b-a3b", 48, 2048, 32, 4, 128, 6144, 151936, 1e6f, .optional = {"output.weight"},
     .keys = "expert_count=128 expert_used_count=8 expert_feed_forward_length=768"},
    {0},
};

static const ModelSize dense_sizes[] = {
    {"0.6B", 28, 0, 1024, 0},
    {"1.7B", 28, 0, 0, 0},
    {"4B", 36, 0, 2560, 0},
    {"8B", 36, 0, 0, 0},
    {"14B", 40, 0, 0, 0},
    {"32B", 64, 0, 0, 0},
    {0},
};

static const ModelSize expert_sizes[] = {{"30B.A3B", 48, 0, 0, 0}, {"235B.A22B", 94, 0, 0, 0}, {0}};

const Family family_qwen3 = {"qwen3", emit_dense, dense_shapes, dense_sizes};
const Family family_qwen3moe = {"qwen3moe", emit_experts, expert_shapes, expert_sizes};
