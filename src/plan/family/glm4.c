/* glm4: GLM 4 (0414), dense.
 *
 * The differences from llama: rotation of half of each head; norms behind attention and feed-forward, too; gate and up
 * in one tensor; biases of q, k and v. */
#include "decoder.h"
#include "family.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_ADJACENT);
    d.attn_post_norm = "post_attention_norm";
    d.ffn_post_norm = "post_ffw_norm";
    d.ffn.kind = FFN_FUSED;
    emit_decoder(b, &d);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"glm-4-9b-0414", 40, 4096, 32, 2, 128, 13696, 151552, 1e4f, .optional = {"output.weight"},
     .keys = "rope.dimension_count=64"},
    {0},
};

static const ModelSize sizes[] = {{"9B", 40, 0, 0, 0}, {"32B", 61, 0, 0, 0}, {0}};

const Family family_glm4 = {"glm4", emit, shapes, sizes};
