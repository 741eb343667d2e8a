/* decoder: the tape of most families, of which a family states the differences.
 *
 *     x = embed_scale * embedding
 *     per layer:  x += residual_scale * post_norm(attention(norm(x)))
 *                 x += residual_scale * post_norm(feed_forward(norm(x))); with a shared expert twice
 *     logits = softcap(logit_scale * output(norm(x)))
 *
 * A family calls read_decoder, which returns the tape of llama, sets the fields in which it differs, and calls
 * emit_decoder.  Where layers differ from each other, it writes the loop itself and sets the fields before
 * each decoder_layer:
 *
 *     int x = decoder_embed(b, &d);
 *     while (builder_next_layer(b)) {
 *         d.attention.attn.window = read_is_local(b, 6) ? window : 0;
 *         x = decoder_layer(b, x, &d);
 *     }
 *     decoder_output(b, x, &d);
 */
#ifndef ZGEN_PLAN_DECODER_H
#define ZGEN_PLAN_DECODER_H

#include "experts.h"

typedef struct Decoder Decoder;
struct Decoder {
    NormParams norm; // kind of all norms; their weights have the names below, NULL: there is no such norm
    const char *attn_norm, *attn_post_norm, *ffn_norm, *ffn_post_norm, *output_norm;
    bool parallel; // the feed-forward block reads the x that attention reads: under ffn_norm, or under
                   // attn_norm where ffn_norm is NULL
    float embed_scale, residual_scale, logit_scale;
    float attention_scale; // of attention's part of the residual stream, besides residual_scale
    float layer_scale;     // of x behind the layer
    float logit_softcap;   // 0: none
    AttentionBlock attention;
    FfnBlock ffn;
    ExpertBlock experts; // in place of the FFN block, in the layers that have them
    int (*mix)(PlanBuilder *b, int in, const Decoder *d);          // in place of attention, or NULL
    int (*feed_forward)(PlanBuilder *b, int in, const Decoder *d); // in place of the FFN block, or NULL
};

/* What llama has: norms attn_norm, ffn_norm and output_norm, silu, factors of 1, no window.  centred: all
 * norms are LayerNorm, not RMS norms. */
Decoder read_decoder(PlanBuilder *b, bool centred, RopePairing pairing);

void emit_decoder(PlanBuilder *b, const Decoder *d);

/* Its parts: the residual stream x, a layer's part of it, and norm, logits and sample behind the last. */
int decoder_embed(PlanBuilder *b, const Decoder *d);
int decoder_layer(PlanBuilder *b, int x, const Decoder *d);
void decoder_output(PlanBuilder *b, int x, const Decoder *d);

#endif
