/* mixers: the blocks that a layer may have in place of attention: those with a state of fixed size.
 *
 * As the blocks of blocks.h they read a register of the residual stream's width and return one, and in the last
 * layer only the wanted rows are computed behind the op with the state.  `norm` is the kind of the model's norms. */
#ifndef ZGEN_PLAN_MIXERS_H
#define ZGEN_PLAN_MIXERS_H

#include "../builder.h"

/* Whether the layer has attention: attention.head_count_kv is not 0. */
bool read_has_attention(PlanBuilder *b);

/* The convolution of each column over the latest n_tap rows, with blk.N.NAME.weight [n_tap, width] and, where
 * there is one, the bias beside it. */
int block_conv(PlanBuilder *b, const char *name, int in, int n_tap, Activation act);

/* LFM2's: B, C, x = in_proj(in);  out_proj(C * conv(B * x)) */
int block_short_conv(PlanBuilder *b, int in);

/* Mamba 2: z, xBC, dt = ssm_in(in);  x, B, C = silu(conv(xBC));  y = scan(x, B, C, dt)
 *          ssm_out(norm of each group of y * silu(z)), the norm where the file has ssm_norm */
int block_mamba2(PlanBuilder *b, int in, NormParams norm);

/* The gated delta net: q, k, v = silu(conv(attn_qkv(in)));  z = attn_gate(in);  y = delta(q, k, v, decay, beta)
 *                      ssm_out(norm of each head of y * silu(z))
 * Decay and beta are ssm_alpha(in) and ssm_beta(in), or ssm_ba(in), where the betas of a key head's value heads are
 * before their decays.  k_tiled: as in DeltaParams. */
int block_delta_net(PlanBuilder *b, int in, NormParams norm, bool k_tiled);

#endif
