/* granite: IBM Granite 3, dense.
 *
 * The differences from llama: factors on the embedding, on what each part adds to the residual stream, on scores and
 * on logits (which are divided).  rope.scaling.finetuned = false means no rotation. */
#include "decoder.h"
#include "family.h"
#include "read.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_ADJACENT);
    read_rope_factors(b, &d.attention.attn.rope);
    if (!keys_bool(&b->keys, "rope.scaling.finetuned", true)) d.attention.attn.rope.n_rot = 0;
    keys_need(&b->keys, "logit_scale");
    d.embed_scale = read_factor(b, "embedding_scale", 1);
    d.residual_scale = read_factor(b, "residual_scale", 1);
    d.logit_scale = 1 / read_factor(b, "logit_scale", 1);
    emit_decoder(b, &d);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"granite-3.3-2b", 40, 2048, 32, 8, 64, 8192, 49159, 1e7f, .optional = {NULL},
     .keys = "embedding_scale=12.0 residual_scale=0.22 attention.scale=0.015625 logit_scale=8.0"},
    {"granite-3.3-8b", 40, 4096, 32, 8, 128, 12800, 49159, 1e7f, .optional = {NULL},
     .keys = "embedding_scale=12.0 residual_scale=0.22 attention.scale=0.0078125 logit_scale=16.0"},
    {0},
};

static const ModelSize sizes[] = {{"3B", 32, 0, 0, 0}, {"3B", 40, 0, 0, 0}, {0}};

const Family family_granite = {"granite", emit, shapes, sizes};
