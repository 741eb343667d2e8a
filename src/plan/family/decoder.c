/* decoder: see decoder.h. */
#include "decoder.h"
#include "read.h"

#include <stdio.h>

Decoder read_decoder(PlanBuilder *b, bool centred, RopePairing pairing) {
    Decoder d = {.norm = {.eps = read_eps(b, centred), .centred = centred},
                 .attn_norm = "attn_norm",
                 .ffn_norm = "ffn_norm",
                 .output_norm = "output_norm",
                 .embed_scale = 1,
                 .residual_scale = 1,
                 .layer_scale = 1,
                 .attention_scale = 1,
                 .logit_scale = 1};
    d.attention.attn.rope = read_rope(b, pairing);
    d.ffn.glu.act = ACT_SILU;
    return d;
}

int decoder_embed(PlanBuilder *b, const Decoder *d) {
    const Hparams *h = &b->plan->hparams;
    const Weight *embd = builder_matrix(b, "token_embd.weight", h->n_embd, h->n_vocab);
    return emit_embed(b, "embd", embd, (EmbedParams){.scale = d->embed_scale});
}

static int norm(PlanBuilder *b, const char *name, int in, const Decoder *d) {
    return name ? block_norm(b, name, in, d->norm) : in;
}

static int add(PlanBuilder *b, const char *name, int part, int x, float scale) {
    return emit_add_scaled(b, name, part, x, (AddParams){.a_scale = scale, .scale = 1});
}

static int feed_forward(PlanBuilder *b, int in, const Decoder *d, int *x) {
    if (d->feed_forward) return d->feed_forward(b, in, d);
    return has_experts(b, &d->experts) ? block_experts(b, in, in, &d->experts, x, d->residual_scale)
                                       : block_ffn(b, in, &d->ffn);
}

int decoder_layer(PlanBuilder *b, int x, const Decoder *d) {
    int in = norm(b, d->attn_norm, x, d), before = x;
    int part = d->mix ? d->mix(b, in, d) : block_attention(b, in, &d->attention, d->norm);
    float scale = d->residual_scale;
    x = add(b, "attn_residual", norm(b, d->attn_post_norm, part, d), x, scale * d->attention_scale);
    if (!d->parallel) in = norm(b, d->ffn_norm, x, d);
    if (d->parallel && d->ffn_norm) in = norm(b, d->ffn_norm, before, d);
    part = feed_forward(b, in, d, &x);
    AddParams scales = {.a_scale = scale, .scale = d->layer_scale};
    return emit_add_scaled(b, "ffn_residual", norm(b, d->ffn_post_norm, part, d), x, scales);
}

void decoder_output(PlanBuilder *b, int x, const Decoder *d) {
    const Hparams *h = &b->plan->hparams;
    char weight[64], bias[64];
    b->on_R = true;
    snprintf(weight, sizeof weight, "%s.weight", d->output_norm);
    snprintf(bias, sizeof bias, "%s.bias", d->output_norm);
    NormParams kind = d->norm;
    kind.weight = builder_vector(b, weight, h->n_embd);
    kind.bias = builder_optional_vector(b, bias, h->n_embd);
    x = emit_norm(b, "output_norm", x, kind);
    const char *name = builder_has(b, "output.weight") ? "output.weight" : "token_embd.weight"; // tied
    const Weight *w = builder_matrix(b, name, h->n_embd, h->n_vocab);
    const float *output_bias = builder_optional_vector(b, "output.bias", h->n_vocab);
    emit_sample(b, "sample", emit_logits(b, "output", x, w, output_bias, d->logit_scale, d->logit_softcap));
}

void emit_decoder(PlanBuilder *b, const Decoder *d) {
    int x = decoder_embed(b, d);
    while (builder_next_layer(b)) x = decoder_layer(b, x, d);
    decoder_output(b, x, d);
}
