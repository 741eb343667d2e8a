/* seed_oss: Seed-OSS.
 *
 * The differences from llama: rotation by halves, biases of q, k and v, and the name of the norm before the
 * feed-forward block: post_attention_norm. */
#include "decoder.h"
#include "family.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    d.ffn_norm = "post_attention_norm";
    emit_decoder(b, &d);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"seed-oss-36b", 64, 5120, 80, 8, 128, 27648, 155136, 1e7f,
     .optional = {"attn_q.bias", "attn_k.bias", "attn_v.bias", "output.weight"}},
    {0},
};

static const ModelSize sizes[] = {{"36B", 64, 0, 0, 0}, {0}};

const Family family_seed_oss = {"seed_oss", emit, shapes, sizes};
