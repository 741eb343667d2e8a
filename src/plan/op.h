/* op: the instructions of the tape, in which a model is described.
 *
 * A model is a tape: a list of ops over numbered registers.  A register is a buffer [T, width]; T, the number
 * of rows in flight, is chosen by the batch of each run, so that prompts, decoding and many sequences at once
 * are the same program.  Ops marked on_R run on the R rows of the batch whose logits are wanted: where such
 * an op reads a register of T rows, its row r is row batch.out_row[r] of that register.
 *
 * An op lists what it works on once: `operand` holds each register with its role, and passes, printer,
 * lifetimes and tests read that array.  Its parameters are the member of the union that its code selects.
 * Fused forms are parameters of the op that takes in its neighbour: a product may normalise its input first,
 * join two results (act) and add a residual; attention may rotate queries and new keys and put these into the
 * cache with their values.
 *
 * OP_LIST is the one place where an op is named and explained.  A parameter that an executor may lack is
 * named in capability.h.  A family's quirk is a parameter of an op, never a path in an executor. */
#ifndef ZGEN_PLAN_OP_H
#define ZGEN_PLAN_OP_H

#include <stdbool.h>
#include <stdint.h>
#include "weight.h"

/*    op       what it does for row t; its registers in the order of their role: reads, writes, both */
#define OP_LIST(X)                                                                                           \
    X(EMBED, "out = scale * w[token[t]]")                                                                    \
    X(NORM, "out = in / sqrt(mean(in^2) + eps) * weight, over the row or over each head of it")              \
    X(MATMUL, "out_i = w_i in * scale_i + bias_i, for up to three weights; first one + residual")            \
    X(ROPE, "rotate n_rot dimensions of each head of q and k by angles of position[t]")                      \
    X(KVPUT, "K[cache, seq[t], position[t]] = k, V[...] = v")                                                \
    X(ATTN, "out = softmax(scale * q K^T) V over the positions of seq[t] up to position[t]")                 \
    X(GLU, "out = act(gate) * up")                                                                           \
    X(ADD, "out = a + b")                                                                                    \
    X(ROUTE, "ids = the n_used experts with the largest logits, weights = their softmax * scale")            \
    X(EXPERT, "MATMUL with the weights of the row's experts: slot s of out = w[id_s] in (or slot s of in)")  \
    X(MOE_SUM, "out = sum over slots s of weight_s * slot s of in; + residual")                              \
    X(LOGITS, "out = w in")                                                                                  \
    X(SAMPLE, "sampled[r] = token chosen from in by sampling[r], checked to be finite")

typedef enum OpCode {
#define X(name, text) OP_##name,
    OP_LIST(X)
#undef X
        OP_COUNT
} OpCode;

/* ---- operands ---- */

typedef enum Role {
    ROLE_READ,
    ROLE_WRITE,
    ROLE_BOTH,     // changed in place
    ROLE_RESIDUAL, // MATMUL, MOE_SUM: read and added to the first output
    ROLE_IDS,      // EXPERT: read, the ids of the row's experts
    ROLE_CACHE,    // KVPUT, ATTN: not a register but a layer of the cache, an index into Plan.kv
} Role;

typedef struct Operand {
    Role role;
    int reg;
} Operand;

enum { OP_MAX_SEGMENTS = 3, OP_MAX_OPERANDS = 8, NO_REG = -1 };

/* ---- parameters ---- */

typedef enum Activation { ACT_NONE, ACT_SILU, ACT_GELU, ACT_COUNT } Activation; // GELU: by tanh
const char *activation_name(Activation a);

typedef struct NormParams {
    const float *weight; // [width], or [head_dim]; NULL in a product: its input is taken as it is
    float eps;
    int head_dim; // heads of so many values are normalised each by itself; 0: the whole row
} NormParams;

/* The angle of pair i is position * scale * base^(-2i / n_rot) / factors[i]. */
typedef enum RopePairing {
    ROPE_ADJACENT, // dimensions 2i and 2i + 1
    ROPE_HALVES,   // dimensions i and i + n_rot / 2
} RopePairing;

typedef struct RopeParams {
    int n_head[2], head_dim; // heads of q and of k
    int n_rot;               // dimensions of a head that are rotated, even; 0 in ATTN: none
    int first;               // the first of these
    RopePairing pairing;
    float base, scale;
    float magnitude;      // cosine and sine are multiplied by it
    const float *factors; // [n_rot / 2], or NULL: all 1
} RopeParams;

typedef struct AttnParams {
    int n_head, n_kv_head, head_dim;
    float scale;        // of the scores
    int window;         // positions that a row sees, its own included; 0: all
    float softcap;      // scores become softcap * tanh(score / softcap); 0: as they are
    const float *sinks; // [n_head] one more score per head, without a value, or NULL
    RopeParams rope;    // ATTN: of q and the new keys, which it puts into the cache
} AttnParams;

typedef enum RouteKind {
    ROUTE_SOFTMAX, // weights: softmax over the chosen experts
    ROUTE_SIGMOID, // weights: sigmoid of each chosen logit, divided by their sum
} RouteKind;

typedef struct MoeParams {
    int n_expert, n_used;
    RouteKind kind;
    const float *bias; // ROUTE: [n_expert] added for the choice only, or NULL
    float scale;       // ROUTE: of the weights
} MoeParams;

typedef struct ProductParams {
    NormParams norm; // MATMUL, LOGITS: of the input, before the product
    Activation act;  // MATMUL, EXPERT: not NONE: out = act(first) * second, for two weights and one output
    MoeParams moe;   // EXPERT
} ProductParams;

typedef struct Op {
    OpCode code;
    int layer;        // -1 outside the layers
    const char *name; // what the field calls the result: "attn_norm", "ffn_out"
    bool on_R;
    int n_operands;
    Operand operand[OP_MAX_OPERANDS];
    int n_w;                            // matrices: as many as outputs, but two with an activation
    const Weight *w[OP_MAX_SEGMENTS];   // EMBED, MATMUL, EXPERT, LOGITS
    const float *bias[OP_MAX_SEGMENTS]; // MATMUL, EXPERT: [n_out] or [n_expert, n_out], or NULL
    union {
        float embed_scale;     // EMBED
        NormParams norm;       // NORM
        ProductParams product; // MATMUL, EXPERT, LOGITS
        RopeParams rope;       // ROPE
        AttnParams attn;       // KVPUT, ATTN
        Activation act;        // GLU
        MoeParams moe;         // ROUTE, MOE_SUM
    };
} Op;

const char *op_name(OpCode code);
const char *op_text(OpCode code); // its line in the list

/* True for ops whose weights are multiplied with activations: MATMUL, EXPERT, LOGITS. */
bool op_is_product(const Op *op);

/* The register (of ROLE_CACHE the layer of the cache) of the nth operand with that role, or NO_REG. */
int op_operand(const Op *op, Role role, int nth);
int op_count(const Op *op, Role role); // operands with that role

/* The most frequent ones: reads, and writes; in-place operands are no reads here. */
static inline int op_in(const Op *op, int nth) {
    return op_operand(op, ROLE_READ, nth);
}
static inline int op_out(const Op *op, int nth) {
    return op_operand(op, ROLE_WRITE, nth);
}

/* Whether the value that an operand had before the op matters, and whether the op changes it. */
bool role_reads(Role role);
bool role_writes(Role role);

void op_add_operand(Op *op, Role role, int reg); // behind the others; NO_REG adds nothing
void op_replace_operand(Op *op, Role role, int nth, int reg);

/* How q and new keys are rotated, by ROPE or within ATTN; NULL where nothing is. */
const RopeParams *op_rotation(const Op *op);

#endif
