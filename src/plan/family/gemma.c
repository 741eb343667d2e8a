/* gemma: Gemma 1.
 *
 * The differences from llama: the embedding times sqrt(n_embd), GELU by tanh, rotation by halves, heads wider than
 * n_embd / n_head, the embedding again as the output.  The +1 of the weights of norms is in the file. */
#include "decoder.h"
#include "family.h"

#include <math.h>

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    d.embed_scale = sqrtf((float)b->plan->hparams.n_embd);
    d.ffn.glu.act = ACT_GELU;
    emit_decoder(b, &d);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"gemma-2b", 18, 2048, 8, 1, 256, 16384, 256000, 1e4f, .optional = {NULL}},
    {"gemma-7b", 28, 3072, 16, 16, 256, 24576, 256000, 1e4f, .optional = {NULL}},
    {0},
};

static const ModelSize sizes[] = {{"2B", 18, 0, 0, 0}, {"7B", 28, 0, 0, 0}, {0}};

const Family family_gemma = {"gemma", emit, shapes, sizes};
