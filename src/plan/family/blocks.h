/* blocks: the parts that most families are made of, with the tensor names of most files.
 *
 * A block reads a register of the residual stream's width and returns one; norms before it and the residual
 * behind it are the family's.  Optional biases are taken where the file has them. */
#ifndef ZGEN_PLAN_BLOCKS_H
#define ZGEN_PLAN_BLOCKS_H

#include "../builder.h"

/* The RMS norm of the row with the weight blk.N.NAME.weight. */
int block_norm(PlanBuilder *b, const char *name, int in, float eps);

/* Q, K and V, norms of q and k, rotation, cache, attention, output.  attn.rope is how q and k are rotated
 * (none where its n_rot is 0); its head counts follow from attn's.  is_last: behind this attention only the
 * wanted rows are computed. */
typedef struct AttentionBlock {
    AttnParams attn;
    NormParams q_norm,
        k_norm; // of each head (head_dim) or of all heads together (0); none where weight is NULL
    bool is_last;
} AttentionBlock;
int block_attention(PlanBuilder *b, int in, const AttentionBlock *o);

/* down(act(gate in) * up in) */
typedef struct FfnBlock {
    int n_ff;
    Activation act;
} FfnBlock;
int block_ffn(PlanBuilder *b, int in, const FfnBlock *o);

/* The same by the chosen experts of each row, summed with the router's weights. */
typedef struct ExpertBlock {
    int n_ff;
    Activation act;
    MoeParams moe;
} ExpertBlock;
int block_experts(PlanBuilder *b, int in, const ExpertBlock *o);

/* norm, logits, sample; the embedding is the output matrix where the file has no other. */
void block_output(PlanBuilder *b, int x, const Weight *embd, float eps);

#endif
