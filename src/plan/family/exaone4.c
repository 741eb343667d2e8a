/* exaone4: EXAONE 4.
 *
 * The differences from llama: norms behind attention and feed-forward in place of those before them; norms of the heads
 * of q and k; rotation by halves.  As in llama.cpp, a model of 64 layers, and only such a model, has windows on three
 * of four layers, whatever the file's pattern says, and rotates only there. */
#include "decoder.h"
#include "family.h"
#include "read.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    AttnParams *attn = &d.attention.attn;
    read_rope_factors(b, &attn->rope);
    d.attn_norm = d.ffn_norm = NULL;
    d.attn_post_norm = "post_attention_norm";
    d.ffn_post_norm = "post_ffw_norm";
    d.attention.qk_norm = QK_NORM_HEADS;
    RopeParams rope = attn->rope;
    int window = b->plan->hparams.n_layer == 64 ? read_window(b, 4096) : 0, x = decoder_embed(b, &d);
    while (builder_next_layer(b)) {
        bool is_global = window > 0 && b->layer % 4 == 3;
        attn->window = is_global ? 0 : window;
        attn->rope = is_global ? (RopeParams){0} : rope;
        x = decoder_layer(b, x, &d);
    }
    decoder_output(b, x, &d);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"exaone-4-1.2b", 30, 2048, 32, 8, 64, 4096, 102400, 1e6f, .optional = {NULL}},
    {"exaone-4-32b", 64, 5120, 40, 8, 128, 27392, 102400, 1e6f, .optional = {"output.weight"},
     .keys = "attention.sliding_window=4096"},
    {0},
};

static const ModelSize sizes[] = {{"1.2B", 30, 0, 0, 0}, {"32B", 64, 0, 0, 0}, {0}};

const Family family_exaone4 = {"exaone4", emit, shapes, sizes};
