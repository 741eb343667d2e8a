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

/* The factors of its angles, where the file has any: rope_freqs, or rope_factors_short and _long, of which the
 * context chooses. */
void read_rope_factors(PlanBuilder *b, RopeParams *rope);

/* The rotation of layers with a window: not scaled, of the base rope.freq_base_swa (10000 if absent). */
RopeParams read_rope_local(PlanBuilder *b, const RopeParams *rope);

/* Sets what is 0: counts and widths of the layer's attention heads, and the factor of scores. */
void read_attention(PlanBuilder *b, AttnParams *attn);

/* attention.sliding_window, in positions, the row's own included. */
int read_window(PlanBuilder *b);

/* Whether the layer has a window where the last one of each `period` layers has none.  The file's
 * attention.sliding_window_pattern replaces the period if it is a number. */
bool read_is_local(PlanBuilder *b, int period);

/* A number of the file, or what it is without. */
float read_factor(PlanBuilder *b, const char *name, float fallback);

/* feed_forward_length, which must be there: the width of the layer's dense feed-forward block. */
int read_ff(PlanBuilder *b);

enum { READ_MAX_FF = INT32_MAX / 4 }; // of all widths of feed-forward blocks

#endif
