/* blocks: the parts that layers of most families are made of, with the tensor names of most files.
 *
 * A block reads a register of the residual stream's width and returns one; norms before it and the residual
 * behind it are the decoder's.  Biases are taken where the file has them. */
#ifndef ZGEN_PLAN_BLOCKS_H
#define ZGEN_PLAN_BLOCKS_H

#include "../builder.h"

/* The product of `in` with blk.N.NAME.weight [n_in, n_out], plus blk.N.NAME.bias; named after it. */
int block_product(PlanBuilder *b, const char *name, int in, int n_in, int n_out);

/* The same with some rows of a tensor blk.N.TENSOR that holds several matrices, and with their part of its
 * bias. */
int block_part(PlanBuilder *b, const char *name, const char *tensor, int in, MatrixShape part);

/* A norm with the weight (and the bias) blk.N.NAME: of the whole row, or of heads where kind.head_dim says so;
 * kind has neither weight nor bias. */
int block_norm(PlanBuilder *b, const char *name, int in, NormParams kind);

/* Norms of q and k, with the tensors attn_q_norm and attn_k_norm. */
typedef enum QkNorm {
    QK_NORM_NONE,
    QK_NORM_HEADS, // each head by itself, all with the same weights
    QK_NORM_EACH,  // each head by itself, with weights of its own
    QK_NORM_ROW,   // all heads together
    QK_NORM_PLAIN, // each head by itself, without weights
} QkNorm;

/* Q, K and V (three tensors, or one attn_qkv), norms of q and k, rotation, cache, attention, output.  In the last layer only the wanted rows
 * are computed behind the attention. */
typedef struct AttentionBlock {
    AttnParams attn; // counts, widths and scale where they are 0: those of read_attention; rope: how q and k
                     // are rotated, not at all where its n_rot is 0
    QkNorm qk_norm;
    bool qk_norm_last; // behind the rotation, not before it
    bool v_is_k;       // v is the product k, before norms and rotation
    bool v_norm;       // heads of v are normalised, without weights
    bool has_gate;     // attn_q makes a gate behind each head of q: out is multiplied by its sigmoid
    bool has_sinks;    // attn_sinks, where the file has them
    bool head_gate;    // each head of the result is multiplied by sigmoid(attn_gate in), one number
    int kv_back;       // keys and values are those of so many layers before; 0: the layer's own
} AttentionBlock;
int block_attention(PlanBuilder *b, int in, const AttentionBlock *o, NormParams norm);

/* down(act(gate in) * up in), or down(act(up in)). */
typedef enum FfnKind {
    FFN_GATED,
    FFN_FUSED, // gate and up are in one tensor, ffn_up
    FFN_PLAIN, // no gate
} FfnKind;
typedef struct FfnBlock {
    FfnKind kind;
    int n_ff;  // 0: feed_forward_length
    float cut; // not 0: of the gate only values so many deviations above the mean are left
    GluParams glu;
} FfnBlock;
int block_ffn(PlanBuilder *b, int in, const FfnBlock *o);

/* Inputs of layers: p = (norm(project(x)) + embedding of the token) / sqrt(2), of which each layer has n columns;
 * and a layer's norm(proj(gelu(gate(x)) * p)). */
int block_layer_inputs(PlanBuilder *b, int x, int n, NormParams norm);
int block_layer_input(PlanBuilder *b, int x, int inputs, int n, NormParams norm);

#endif
