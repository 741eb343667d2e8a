/* gemma2: Gemma 2.
 *
 * The differences from gemma: norms behind attention and feed-forward, too; a window on every second layer;
 * softcaps of scores and of logits; another factor of scores in the 27B, which has 46 layers. */
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
    d.logit_softcap = read_factor(b, "final_logit_softcapping", 30);
    attn->softcap = read_factor(b, "attn_logit_softcapping", 50);
    int window = read_window(b, 4096), x = decoder_embed(b, &d);
    while (builder_next_layer(b)) {
        attn->window = read_is_local(b, 2) ? window : 0;
        attn->scale = h->n_layer == 46 ? read_embd_scale(b) : 0;
        x = decoder_layer(b, x, &d);
    }
    decoder_output(b, x, &d);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"gemma-2-2b", 26, 2304, 8, 4, 256, 9216, 256000, 1e4f, .optional = {NULL}},
    {"gemma-2-9b", 42, 3584, 16, 8, 256, 14336, 256000, 1e4f, .optional = {NULL}},
    {"gemma-2-27b", 46, 4608, 32, 16, 128, 36864, 256000, 1e4f, .optional = {NULL}},
    {0},
};

static const ModelSize sizes[] = {{"2B", 26, 0, 0, 0}, {"9B", 42, 0, 0, 0}, {"27B", 46, 0, 0, 0}, {0}};

const Family family_gemma2 = {"gemma2", emit, shapes, sizes};
