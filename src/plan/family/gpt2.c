/* gpt2: GPT-2.
 *
 * The differences from llama: learned positions, which are added to the embedding, in place of rotation; LayerNorm; q, k
 * and v in one tensor; a feed-forward block of GELU (by tanh) without a gate; biases everywhere. */
#include "decoder.h"
#include "family.h"

static void emit(PlanBuilder *b) {
    const Hparams *h = &b->plan->hparams;
    Decoder d = read_decoder(b, true, ROPE_HALVES);
    d.attention.attn.rope.n_rot = 0;
    d.ffn = (FfnBlock){.kind = FFN_PLAIN, .glu.act = ACT_GELU};
    const Weight *w = builder_matrix(b, "position_embd.weight", h->n_embd, h->n_ctx_train);
    int positions = emit_embed(b, "position_embd", w, (EmbedParams){.scale = 1, .by_position = true});
    int x = emit_add(b, "embd_sum", decoder_embed(b, &d), positions);
    while (builder_next_layer(b)) x = decoder_layer(b, x, &d);
    decoder_output(b, x, &d);
}

#define OPTIONAL                                                                                             \
    "attn_qkv.weight", "attn_qkv.bias", "attn_output.bias", "ffn_up.bias", "ffn_down.bias", "_norm.bias"
#define KEYS "context_length=1024 attention.layer_norm_epsilon=0.00001"

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"gpt2", 12, 768, 12, 12, 64, 3072, 50257, 1e4f, .optional = {OPTIONAL}, .keys = KEYS},
    {"gpt2-xl", 48, 1600, 25, 25, 64, 6400, 50257, 1e4f, .optional = {OPTIONAL}, .keys = KEYS},
    {0},
};

static const ModelSize sizes[] = {
    {"0.1B", 12, 0, 0, 0}, {"0.4B", 24, 0, 0, 0}, {"0.8B", 36, 0, 0, 0}, {"1.5B", 48, 0, 0, 0}, {0},
};

const Family family_gpt2 = {"gpt2", emit, shapes, sizes};
