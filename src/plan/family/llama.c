/* llama: Llama 1 to 3, Mistral, Mixtral, SmolLM and the many others that declare this architecture.
 *
 *     x = embed
 *     per layer:  h = norm(x);  q, k, v = h;  rotate q, k;  put k, v;  x += output(attention(q))
 *                 h = norm(x);  x += down(silu(gate h) * up h), dense or by experts
 *     logits = output(norm(x)), where output is the embedding again when the file has none
 *
 * Optional: biases on every product, rotary frequency factors, heads wider than n_embd / n_head, experts.  As in
 * llama.cpp, attention.sliding_window is not read: Mistral 7B 0.1, which has one, sees all positions.
 *
 * mistral3 (Ministral 3) is the same with scores that grow with the position of the query. */
#include "decoder.h"
#include "family.h"
#include "read.h"

static Decoder read(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_ADJACENT);
    read_rope_factors(b, &d.attention.attn.rope);
    if (keys_int(&b->keys, "expert_count", 0, INT32_MAX, 0)) d.experts = read_experts(b, ROUTE_SOFTMAX, true);
    return d;
}

static void emit(PlanBuilder *b) {
    Decoder d = read(b);
    emit_decoder(b, &d);
}

static void emit_mistral3(PlanBuilder *b) {
    Decoder d = read(b);
    AttnParams *attn = &d.attention.attn;
    attn->temperature = read_factor(b, "attention.temperature_scale", 0);
    attn->temperature_length = read_original_context(b);
    emit_decoder(b, &d);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"llama-3.2-1b", 16, 2048, 32, 8, 64, 8192, 128256, 5e5f, .optional = {NULL}},
    {"llama-3.2-3b", 28, 3072, 24, 8, 128, 8192, 128256, 5e5f, .optional = {NULL}},
    {"llama-3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256, 5e5f, .optional = {"output.weight"}},
    {"llama-3.1-70b", 80, 8192, 64, 8, 128, 28672, 128256, 5e5f, .optional = {"output.weight"}},
    {"mistral-7b", 32, 4096, 32, 8, 128, 14336, 32768, 1e6f, .optional = {"output.weight"}},
    {"mistral-small-24b", 40, 5120, 32, 8, 128, 32768, 131072, 1e8f, .optional = {"output.weight"}},
    {"mixtral-8x7b", 32, 4096, 32, 8, 128, 14336, 32000, 1e6f, .optional = {"output.weight"},
     .keys = "expert_count=8 expert_used_count=2 expert_feed_forward_length=14336"},
    {0},
};

static const Shape mistral3_shapes[] = {
    {"ministral-3-14b", 40, 5120, 32, 8, 128, 16384, 131072, 1e9f, .optional = {"output.weight"},
     .keys = "rope.scaling.type=yarn rope.scaling.factor=16.0 rope.scaling.original_context_length=16384 "
             "rope.scaling.yarn_log_multiplier=1.0 attention.temperature_scale=0.1"},
    {0},
};

static const ModelSize sizes[] = {
    {"8x7B", 32, 8, 0, 0}, {"8x22B", 56, 8, 0, 0},  {"1B", 16, 0, 0, 0},
    {"1B", 22, 0, 0, 0},   {"3B", 26, 0, 0, 0},     {"3B", 28, 0, 0, 0},
    {"256M", 30, 0, 0, 0}, {"7B", 32, 0, 0, 40000}, {"8B", 32, 0, 0, 0},
    {"8B", 36, 0, 0, 0},   {"13B", 40, 0, 0, 0},    {"34B", 48, 0, 0, 0},
    {"30B", 60, 0, 0, 0},  {"70B", 80, 0, 0, 0},    {0},
};

static const ModelSize mistral3_sizes[] = {
    {"3B", 26, 0, 0, 0},
    {"8B", 34, 0, 0, 0},
    {"14B", 40, 0, 0, 0},
    {0},
};

const Family family_mistral3 = {"mistral3", emit_mistral3, mistral3_shapes, mistral3_sizes};
const Family family_llama = {"llama", emit, shapes, sizes};
