/* read: the metadata keys that most families have, under the names of most files.
 *
 * Numbers that may differ between layers are read for the builder's layer.  Ranges are checked here; a
 * failure is kept in the builder, and the values that are returned behind it are harmless. */
#ifndef ZGEN_PLAN_READ_H
#define ZGEN_PLAN_READ_H

#include "../builder.h"

/* attention.layer_norm_rms_epsilon, or layer_norm_epsilon of norms that subtract the mean; must be there. */
float read_eps(PlanBuilder *b, bool centred);

/* The rotation of all layers, of whole heads unless rope.dimension_count is less, without factors. */
RopeParams read_rope(PlanBuilder *b, RopePairing pairing);

/* rope.scaling.original_context_length, or the context of the training: the positions before any scaling. */
int read_original_context(PlanBuilder *b);

/* The factors of its angles, where the file has any: rope_freqs, or rope_factors_short and _long, of which the
 * context chooses. */
void read_rope_factors(PlanBuilder *b, RopeParams *rope);

/* The rotation of layers with a window: without scaling and factors, of rope.freq_base_swa, or of `base`. */
RopeParams read_rope_local(PlanBuilder *b, const RopeParams *rope, float base);

/* Sets what is 0: counts and widths of the layer's attention heads, and the factor of scores. */
void read_attention(PlanBuilder *b, AttnParams *attn);

/* The width of heads in layers with a window: attention.key_length_swa, or that of the others. */
int read_local_head_dim(PlanBuilder *b);

/* 1 / sqrt(n_embd / n_head), the factor of scores of models whose heads are narrower than that. */
float read_embd_scale(PlanBuilder *b);

/* attention.sliding_window, in positions, the row's own included; 0: none.  missing: what it is without the key,
 * or -1: the key must be there. */
int read_window(PlanBuilder *b, int missing);

/* Whether the layer has a window where the last one of each `period` layers has none.  The file's
 * attention.sliding_window_pattern replaces the period if it is a number. */
bool read_is_local(PlanBuilder *b, int period);

/* A factor or a limit of the file; fallback where there is none, or 0. */
float read_factor(PlanBuilder *b, const char *name, float fallback);

/* feed_forward_length, which must be there: the width of the layer's dense feed-forward block. */
int read_ff(PlanBuilder *b);

enum { READ_MAX_FF = INT32_MAX / 4 }; // of all widths of feed-forward blocks

#endif
