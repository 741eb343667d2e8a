/* gemma3: Gemma 3.
 *
 * The differences from gemma2: norms of the heads of q and k; a window on five of six layers, where the rotation has
 * a base of its own and is not scaled; no softcaps; the other factor of scores in the 27B of 62 layers. */
#include "decoder.h"
#include "family.h"
#include "read.h"

#include <math.h>

static void emit(PlanBuilder *b) {
    const Hparams *h = &b->plan->hparams;
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    AttnParams *attn = &d.attention.attn;
    d.embed_scale = sqrtf((float)h->n_embd);
    d.ffn.glu.act = ACT_GELU;
    d.attn_post_norm = "post_attention_norm";
    d.ffn_post_norm = "post_ffw_norm";
    d.logit_softcap = read_factor(b, "final_logit_softcapping", 0);
    d.attention.qk_norm = QK_NORM_HEADS;
    RopeParams global = attn->rope, local = read_rope_local(b, &global, 10000);
    int window = read_window(b, 0), x = decoder_embed(b, &d);
    while (builder_next_layer(b)) {
        bool is_local = window > 0 && read_is_local(b, 6);
        attn->window = is_local ? window : 0;
        attn->rope = is_local ? local : global;
        attn->scale = h->n_layer == 62 ? read_embd_scale(b) : 0;
        x = decoder_layer(b, x, &d);
    }
    decoder_output(b, x, &d);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
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

static const ModelSize sizes[] = {{"270M", 18, 0, 0, 0},
                                  {"1B", 26, 0, 0, 0},
                                  {"8B", 32, 0, 0, 0},
                                  {"4B", 34, 0, 0, 0},
                                  {"12B", 48, 0, 0, 0},
                                  {"27B", 62, 0, 0, 0},
                                  {0}};

const Family family_gemma3 = {"gemma3", emit, shapes, sizes};
