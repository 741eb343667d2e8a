/* op: the words in which a model is written down.
 *
 * A model is a tape: a list of these instructions over numbered registers.  A register is a buffer [T,
 * width]; T, the number of rows in flight, is chosen by the batch of each run, so that prompt, decoding and
 * many sequences at once are the same program.  Ops marked R run on the R rows of the batch whose logits are
 * wanted: when such an op reads a T register, row r means row batch.out_row[r].
 *
 * Fused forms are parameters of the op that takes its neighbour in: a product may normalise its input first
 * (vector, eps), join two results (glu) and add a residual; attention may rotate queries and new keys (rope)
 * and put these into the cache with their values (in2, in3).  Which of them an executor gets is its plan
 * configuration (plan.h).
 *
 * The list below is the one place where an op is named and explained; names, printer, cost and checks come
 * from it. A family's quirk is a parameter of an op, never a path in an executor. */
#ifndef ZGEN_PLAN_OP_H
#define ZGEN_PLAN_OP_H

#include <stdbool.h>
#include <stdint.h>
#include "weight.h"

/*        op      what it does, for row t; in, in2, in3, out are registers, w, w2, w3 weights */
#define OP_LIST(X)                                                                                           \
    X(EMBED, "out = w[token[t]]")                                                                            \
    X(NORM, "out = in / sqrt(mean(in^2) + eps) * vector")                                                    \
    X(MATMUL, "out_i = w_i in * scale_i + bias_i, for up to three weights; first one + residual")            \
    X(ROPE, "rotate pairs of the first n_rot dimensions of each head of out by angles of position[t]")       \
    X(KVPUT, "K[layer, seq[t], position[t]] = in, V[...] = in2")                                             \
    X(ATTN, "out = softmax(scale * in K^T) V over positions 0..position[t] of seq[t]; first KVPUT in2, in3") \
    X(GLU, "out = silu(in) * in2")                                                                           \
    X(ADD, "out = in + in2")                                                                                 \
    X(ROUTE, "out = ids of the n_used largest of in, out2 = their softmax * scale")                          \
    X(EXPERT, "MATMUL with the weights of the row's experts: slot s of out = w[id_s] in (or slot s of in)")  \
    X(MIX, "out = sum over slots s of weight_s * slot s of in; + residual")                                  \
    X(LOGITS, "out = w in")                                                                                  \
    X(SAMPLE, "sampled[r] = token chosen from in by sampling[r], checked to be finite")

typedef enum OpCode {
#define X(name, text) OP_##name,
    OP_LIST(X)
#undef X
        OP_COUNT
} OpCode;

enum { OP_MAX_SEGMENTS = 3, NO_REG = -1 };

typedef struct Op {
    OpCode code;
    int layer;        // -1 outside the layers
    const char *name; // what the field calls the result: "attn_norm", "ffn_out"
    bool on_R;
    int in, in2, in3; // registers read, or NO_REG; ATTN: q, and the keys and values that it puts
    int residual;     // MATMUL, MIX: register added to the first output, or NO_REG
    int ids;          // EXPERT: register of ROUTE's ids; MIX: of ROUTE's weights
    int n_out;        // registers written
    int out[OP_MAX_SEGMENTS];
    int n_w;                            // matrices: as many as outputs, but two with glu
    const Weight *w[OP_MAX_SEGMENTS];   // EMBED, MATMUL, EXPERT, LOGITS: the matrix of each product [n_w]
    const float *bias[OP_MAX_SEGMENTS]; // MATMUL, EXPERT: [n_out] or [n_expert, n_out], or NULL
    const float *vector; // NORM: weight [width]; ROPE, ATTN: frequency factors [n_rot / 2] or NULL;
                         // MATMUL, LOGITS: weight of the norm applied to in first, or NULL
    float eps;           // of the norm
    bool glu;            // MATMUL, EXPERT: the first two products are joined: out = silu(first) * second
    struct {
        int n_head[2], head_dim, n_rot; // heads of Q and K, both rotated
        float base, scale; // angle_i = position * scale * base^(-2i / n_rot) / vector[i], pairs (2i, 2i + 1)
    } rope;                // ROPE; ATTN: of in and in2, none where n_rot is 0
    struct {
        int n_head, n_kv_head, head_dim, kv_layer;
        float scale;
    } attn; // ATTN, KVPUT
    struct {
        int n_expert, n_used;
        float scale;
    } moe; // ROUTE, EXPERT, MIX
} Op;

const char *op_name(OpCode code);
const char *op_text(OpCode code); // its line in the list

/* True for ops whose weights are multiplied with activations: MATMUL, EXPERT, LOGITS. */
bool op_is_product(const Op *op);

#endif
