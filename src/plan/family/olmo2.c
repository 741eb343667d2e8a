/* olmo2: OLMo 2, and OLMo 3, which has windows.
 *
 * The differences from llama: norms behind attention and feed-forward in place of those before them; norms of q and of
 * k over all heads together; rotation by halves.  With a window: on three of four layers, whose rotation is not
 * scaled. */
#include "decoder.h"
#include "family.h"
#include "read.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    AttnParams *attn = &d.attention.attn;
    d.attn_norm = d.ffn_norm = NULL;
    d.attn_post_norm = "post_attention_norm";
    d.ffn_post_norm = "post_ffw_norm";
    d.attention.qk_norm = QK_NORM_ROW;
    RopeParams global = attn->rope, local = read_rope_local(b, &global, global.base);
    int window = read_window(b, 0), x = decoder_embed(b, &d);
    while (builder_next_layer(b)) {
        bool is_local = window > 0 && read_is_local(b, 4);
        attn->window = is_local ? window : 0;
        attn->rope = is_local ? local : global;
        x = decoder_layer(b, x, &d);
    }
    decoder_output(b, x, &d);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"olmo-2-7b", 32, 4096, 32, 32, 128, 11008, 100352, 5e5f, .optional = {"output.weight"}},
    {"olmo-3-7b", 32, 4096, 32, 32, 128, 11008, 100278, 5e5f, .optional = {"output.weight"},
     .keys = "attention.sliding_window=4096"},
    {0},
};

static const ModelSize sizes[] = {
    {"1B", 16, 0, 0, 0}, {"7B", 32, 0, 0, 0}, {"13B", 40, 0, 0, 0}, {"32B", 64, 0, 0, 0}, {0},
};

const Family family_olmo2 = {"olmo2", emit, shapes, sizes};
