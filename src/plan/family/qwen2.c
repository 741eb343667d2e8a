/* qwen2: Qwen 1.5, 2 and 2.5.
 *
 * The differences from llama: biases of q, k and v, and rotation by halves. */
#include "decoder.h"
#include "family.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    emit_decoder(b, &d);
}

#define BIASES "attn_q.bias", "attn_k.bias", "attn_v.bias"

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"qwen2.5-0.5b", 24, 896, 14, 2, 64, 4864, 151936, 1e6f, .optional = {BIASES}},
    {"qwen2.5-7b", 28, 3584, 28, 4, 128, 18944, 152064, 1e6f, .optional = {BIASES, "output.weight"}},
    {0},
};

static const ModelSize sizes[] = {
    {"0.5B", 24, 0, 1024, 0},

    {"1B", 24, 0, 0, 0},
    {"1.5B", 28, 0, 1536, 0},
    {"7B", 28, 0, 0, 0},
    {"7B", 32, 0, 0, 0},
    {"3B", 36, 0, 0, 0},
    {"4B", 40, 0, 2560, 0},
    {"13B", 40, 0, 0, 0},
    {"14B", 48, 0, 0, 0},
    {"32B", 64, 0, 0, 0},
    {"70B", 80, 0, 0, 0},
    {0},
};

const Family family_qwen2 = {"qwen2", emit, shapes, sizes};
