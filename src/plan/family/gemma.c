/* gemma: Gemma 1 (gemma), 2 (gemma2) and 3 (gemma3).
 *
 * The differences from llama: the embedding times sqrt(n_embd), GELU by tanh, rotation by halves, heads wider than
 * n_embd / n_head, the embedding again as the output.  The +1 of the weights of norms is in the file.
 *
 * gemma2: norms behind attention and feed-forward, too; a window on every second layer; softcaps of scores and of
 * logits; another factor of scores in the 27B, which has 46 layers.
 *
 * gemma3: as gemma2, but norms of the heads of q and k; a window on five of six layers, where the rotation has a base
 * of its own and is not scaled; no softcaps; the other factor of scores in the 27B of 62 layers. */
#include "decoder.h"
#include "family.h"
#include "read.h"

#include <math.h>

static Decoder read(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    d.embed_scale = sqrtf((float)b->plan->hparams.n_embd);
    d.ffn.glu.act = ACT_GELU;
    return d;
}

static Decoder read_with_post_norms(PlanBuilder *b, float logit_softcap) {
    Decoder d = read(b);
    d.attn_post_norm = "post_attention_norm";
    d.ffn_post_norm = "post_ffw_norm";
    d.logit_softcap = read_factor(b, "final_logit_softcapping", logit_softcap);
    return d;
}

static void emit(PlanBuilder *b) {
    Decoder d = read(b);
    emit_decoder(b, &d);
}

static void emit_2(PlanBuilder *b) {
    Decoder d = read_with_post_norms(b, 30);
    AttnParams *attn = &d.attention.attn;
    attn->softcap = read_factor(b, "attn_logit_softcapping", 50);
    int window = read_window(b, 4096), x = decoder_embed(b, &d);
    while (builder_next_layer(b)) {
        attn->window = read_is_local(b, 2) ? window : 0;
        attn->scale = b->plan->hparams.n_layer == 46 ? read_embd_scale(b) : 0;
        x = decoder_layer(b, x, &d);
    }
    decoder_output(b, x, &d);
}

static void emit_3(PlanBuilder *b) {
    Decoder d = read_with_post_norms(b, 0);
    AttnParams *attn = &d.attention.attn;
    d.attention.qk_norm = QK_NORM_HEADS;
    RopeParams global = attn->rope, local = read_rope_local(b, &global, 10000);
    int window = read_window(b, 0), x = decoder_embed(b, &d);
    while (builder_next_layer(b)) {
        bool is_local = window > 0 && read_is_local(b, 6);
        attn->window = is_local ? window : 0;
        attn->rope = is_local ? local : global;
        attn->scale = b->plan->hparams.n_layer == 62 ? read_embd_scale(b) : 0;
        x = decoder_layer(b, x, &d);
    }
    decoder_output(b, x, &d);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"gemma-2b", 18, 2048, 8, 1, 256, 16384, 256000, 1e4f, .optional = {NULL}},
    {"gemma-7b", 28, 3072, 16, 16, 256, 24576, 256000, 1e4f, .optional = {NULL}},
    {0},
};

static const Shape shapes_2[] = {
    {"gemma-2-2b", 26, 2304, 8, 4, 256, 9216, 256000, 1e4f, .optional = {NULL}},
    {"gemma-2-9b", 42, 3584, 16, 8, 256, 14336, 256000, 1e4f, .optional = {NULL}},
    {"gemma-2-27b", 46, 4608, 32, 16, 128, 36864, 256000, 1e4f, .optional = {NULL}},
    {0},
};

static const Shape shapes_3[] = {
    {"gemma-3-270m", 18, 640, 4, 1, 256, 2048, 262144, 1e6f, .optional = {NULL},
     .keys = "attention.sliding_window=512"},
    {"gemma-3-1b", 26, 1152, 4, 1, 256, 6912, 262144, 1e6f, .optional = {NULL},
     .keys = "attention.sliding_window=512"},
    {"gemma-3-4b", 34, 2560, 8, 4, 256, 10240, 262144, 1e6f, .optional = {NULL},
     .keys = "attention.sliding_window=1024 rope.scaling.type=linear rope.scaling.factor=8.0"},
    {"gemma-3-27b", 62, 5376, 32, 16, 128, 21504, 262144, 1e6f, .optional = {NULL},
     .keys = "attention.sliding_window=1024 rope.scaling.type=linear rope.scaling.factor=8.0"},
    {0},
};

static const ModelSize sizes[] = {{"2B", 18, 0, 0, 0}, {"7B", 28, 0, 0, 0}, {0}};

static const ModelSize sizes_2[] = {{"2B", 26, 0, 0, 0}, {"9B", 42, 0, 0, 0}, {"27B", 46, 0, 0, 0}, {0}};

static const ModelSize sizes_3[] = {{"270M", 18, 0, 0, 0},
                                    {"1B", 26, 0, 0, 0},
                                    {"8B", 32, 0, 0, 0},
                                    {"4B", 34, 0, 0, 0},
                                    {"12B", 48, 0, 0, 0},
                                    {"27B", 62, 0, 0, 0},
                                    {0}};

const Family family_gemma = {"gemma", emit, shapes, sizes};
const Family family_gemma2 = {"gemma2", emit_2, shapes_2, sizes_2};
const Family family_gemma3 = {"gemma3", emit_3, shapes_3, sizes_3};
