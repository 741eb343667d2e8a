/* latent: multi-head latent attention (MLA) in its absorbed form.
 *
 * Keys and values of all heads are products of one narrow row c, which the cache holds with a rotated part
 * that all heads share: K = (c, k_pe), V = c.  The matrices of the heads are applied to q and to the result
 * instead:
 *
 *     q_h = (attn_k_b_h q_nope_h, q_pe_h);  out_h = attn_v_b_h attention(q_h, K, V)
 *
 * Files of the time before attn_kv_b was split into attn_k_b and attn_v_b are refused. */
#ifndef ZGEN_PLAN_LATENT_H
#define ZGEN_PLAN_LATENT_H

#include "blocks.h"

typedef struct LatentBlock {
    AttnParams attn; // scale is a factor on 1 / sqrt(key_length_mla); counts and widths are the file's
    RopeParams rope; // n_rot 0: no part is rotated
} LatentBlock;

/* q comes by attn_q, or by attn_q_a, a norm and attn_q_b where the file has these. */
int block_latent_attention(PlanBuilder *b, int in, const LatentBlock *o, NormParams norm);

#endif
