/* apertus: Apertus.
 *
 * The differences from llama: norms of the heads of q and k; rotation by halves, with factors; a feed-forward block of
 * xIELU without a gate.  The numbers of xIELU are lists of a value per layer, in keys that lack the architecture's
 * prefix; its alphas pass softplus, and beta is added to the one of negative inputs. */
#include "decoder.h"
#include "family.h"
#include "read.h"

#include <math.h>

static float number(PlanBuilder *b, const char *name) {
    Keys keys = b->keys;
    keys.arch = "xielu";
    float value = keys_float_of_layer(&keys, name, b->layer, -100, 100);
    b->keys.ok = keys.ok;
    return value;
}

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    read_rope_factors(b, &d.attention.attn.rope);
    d.attention.qk_norm = QK_NORM_HEADS;
    d.ffn = (FfnBlock){.kind = FFN_PLAIN, .glu.act = ACT_XIELU};
    int x = decoder_embed(b, &d);
    while (builder_next_layer(b)) {
        GluParams *glu = &d.ffn.glu;
        glu->beta = number(b, "beta");
        glu->eps = number(b, "eps");
        glu->alpha_p = log1pf(expf(number(b, "alpha_p")));
        glu->alpha_n = glu->beta + log1pf(expf(number(b, "alpha_n")));
        x = decoder_layer(b, x, &d);
    }
    decoder_output(b, x, &d);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"apertus-8b", 32, 4096, 32, 8, 128, 21504, 131072, 1.2e7f,
     .optional = {"output.weight", "rope_freqs.weight"},
     .keys = ".xielu.alpha_p=0.8 .xielu.alpha_n=0.8 .xielu.beta=0.5 .xielu.eps=-0.000001"},
    {0},
};

static const ModelSize sizes[] = {{"8B", 32, 0, 0, 0}, {"70B", 80, 0, 0, 0}, {0}};

const Family family_apertus = {"apertus", emit, shapes, sizes};
