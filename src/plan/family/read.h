/* read: the metadata keys that most families have, under the names of most files.
 *
 * Numbers that may differ between layers are read for the builder's layer.  Ranges are checked here; a
 * failure is kept in the builder, and the values that are returned behind it are harmless. */
#ifndef ZGEN_PLAN_READ_H
#define ZGEN_PLAN_READ_H

#include "blocks.h"

/* attention.layer_norm_rms_epsilon, which must be there. */
float read_eps(PlanBuilder *b);

/* The rotation of all layers, of whole heads unless rope.dimension_count is less; scaling none or linear. */
RopeParams read_rope(PlanBuilder *b, RopePairing pairing);

/* Counts, width and score scale of the layer's attention heads; attention.head_count must be there. */
AttnParams read_attention(PlanBuilder *b, RopeParams rope);

/* feed_forward_length, which must be there: the width of the layer's dense feed-forward block. */
int read_ff(PlanBuilder *b);

/* Experts with a softmax router and the activation silu.  n_ff: their width where the file has no
 * expert_feed_forward_length; 0: it must have one.  n_expert is 0 where the file has no experts. */
ExpertBlock read_experts(PlanBuilder *b, int n_ff);

#endif
