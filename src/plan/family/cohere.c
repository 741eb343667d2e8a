/* cohere: Command R (command-r), and Command R7B and A (cohere2), which have windows.
 *
 * The differences from llama: LayerNorm without bias; attention and feed-forward block read the same norm of x; a factor
 * on the logits.  command-r: norms of the heads of q and k, each with weights of its own, in models of 64 layers.
 * cohere2: a window on three of four layers, and rotation only there. */
#include "decoder.h"
#include "family.h"
#include "read.h"

static Decoder read(PlanBuilder *b) {
    Decoder d = read_decoder(b, true, ROPE_ADJACENT);
    d.ffn_norm = NULL;
    d.parallel = true;
    keys_need(&b->keys, "logit_scale");
    d.logit_scale = read_factor(b, "logit_scale", 1);
    return d;
}

static void emit_command_r(PlanBuilder *b) {
    Decoder d = read(b);
    if (b->plan->hparams.n_layer >= 64) d.attention.qk_norm = QK_NORM_EACH;
    emit_decoder(b, &d);
}

static void emit_cohere2(PlanBuilder *b) {
    Decoder d = read(b);
    RopeParams rope = d.attention.attn.rope;
    int window = read_window(b, -1), x = decoder_embed(b, &d);
    while (builder_next_layer(b)) {
        bool is_local = read_is_local(b, 4);
        d.attention.attn.window = is_local ? window : 0;
        d.attention.attn.rope = is_local ? rope : (RopeParams){0};
        x = decoder_layer(b, x, &d);
    }
    decoder_output(b, x, &d);
}

/* In the order of the fields of Shape. */
static const Shape command_r_shapes[] = {
    {"command-r", 40, 8192, 64, 64, 128, 22528, 256000, 8e6f, .optional = {NULL},
     .keys = "logit_scale=0.0625 attention.layer_norm_epsilon=0.00001"},
    {0},
};

static const Shape cohere2_shapes[] = {
    {"command-r7b", 32, 4096, 32, 8, 128, 14336, 256000, 5e4f, .optional = {NULL},
     .keys = "logit_scale=0.25 attention.layer_norm_epsilon=0.00001 attention.sliding_window=4096"},
    {0},
};

static const ModelSize command_r_sizes[] = {{"35B", 40, 0, 0, 0}, {"104B", 64, 0, 0, 0}, {0}};
static const ModelSize cohere2_sizes[] = {{"8B", 32, 0, 0, 0}, {"111B", 64, 0, 0, 0}, {0}};

const Family family_command_r = {"command-r", emit_command_r, command_r_shapes, command_r_sizes};
const Family family_cohere2 = {"cohere2", emit_cohere2, cohere2_shapes, cohere2_sizes};
