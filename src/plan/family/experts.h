/* experts: the feed-forward block of a row's chosen experts. */
#ifndef ZGEN_PLAN_EXPERTS_H
#define ZGEN_PLAN_EXPERTS_H

#include "../builder.h"

/* down(act(gate in) * up in) by each chosen expert of the row, summed with the router's weights. */
typedef struct ExpertBlock {
    int n_ff;
    Activation act;
    MoeParams moe;
} ExpertBlock;
int block_experts(PlanBuilder *b, int in, const ExpertBlock *o);

/* Experts with a softmax router and the activation silu.  n_ff: their width where the file has no
 * expert_feed_forward_length; 0: it must have one.  n_expert is 0 where the file has no experts. */
ExpertBlock read_experts(PlanBuilder *b, int n_ff);

#endif
