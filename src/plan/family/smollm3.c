/* smollm3: SmolLM 3.
 *
 * The difference from llama: no rotation on every fourth layer. */
#include "decoder.h"
#include "family.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_ADJACENT);
    RopeParams rope = d.attention.attn.rope;
    int x = decoder_embed(b, &d);
    while (builder_next_layer(b)) {
        d.attention.attn.rope = b->layer % 4 < 3 ? rope : (RopeParams){0};
        x = decoder_layer(b, x, &d);
    }
    decoder_output(b, x, &d);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"smollm3-3b", 36, 2048, 16, 4, 128, 11008, 128256, 5e6f, .optional = {NULL}},
    {0},
};

static const ModelSize sizes[] = {{"3B", 36, 0, 0, 0}, {0}};

const Family family_smollm3 = {"smollm3", emit, shapes, sizes};
