/* experts: the feed-forward blocks of families with experts.
 *
 *     chosen: sum over the row's chosen experts of weight * down(act(gate in) * up in)
 *     shared: the same of one expert that every row has, perhaps times sigmoid(gate in)
 *
 * Both are added to the residual stream.  Parts that only some files have are taken where these have
 * the tensors: biases of the router's logits, of the choice and of the experts' products; gate and up in one
 * tensor; the gate of the shared expert. */
#ifndef ZGEN_PLAN_EXPERTS_H
#define ZGEN_PLAN_EXPERTS_H

#include "blocks.h"

typedef struct ExpertBlock {
    MoeParams moe; // n_expert 0: no layer has experts
    FfnKind kind;
    GluParams glu, shared_glu;
    int n_ff;               // of an expert; 0: expert_feed_forward_length, or feed_forward_length without it
    int n_shared_ff;        // of the shared expert; 0: there is none
    float router_scale;     // of the router's logits; 0: 1
    bool weighed_input;     // weights multiply the input of the one chosen expert, not its output
    int n_dense, every_nth; // layers with experts: of each every_nth the last one, n_dense and later ones
} ExpertBlock;

/* Counts, scale, groups, shared expert and layers from the keys of most files, with the activation silu.
 * kind and normalise are what the family has where the file lacks expert_gating_func and
 * expert_weights_norm.  A file without experts is refused. */
ExpertBlock read_experts(PlanBuilder *b, RouteKind kind, bool normalise);

/* Whether the builder's layer has experts in place of the dense feed-forward block. */
bool has_experts(const PlanBuilder *b, const ExpertBlock *o);

/* The sum of the chosen experts, which read chosen_in and are as wide; the router and the shared expert
 * read in. What the shared expert gives, if there is one, is added to *x times `scale`.  Products come in
 * an order in which none reads what the one before it gives, as far as that is possible. */
int block_experts(PlanBuilder *b, int in, int chosen_in, const ExpertBlock *o, int *x, float scale);

#endif
