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
    X(EMBED, "out = scale * w[token[t]], or of w[position[t]]")                                              \
    X(NORM, "out = in / sqrt(mean(in^2) + eps) * weight + bias, over the row or each head; * rms(like)")     \
    X(MATMUL, "out_i = w_i in * scale_i + bias_i, for up to four weights; scale * first one + residual")     \
    X(ROPE, "rotate n_rot dimensions of each head of q and k by angles of position[t]")                      \
    X(KVPUT, "K[cache, seq[t], position[t]] = k, V[...] = v")                                                \
    X(ATTN, "out = softmax(scale * q K^T) V over the positions of seq[t] up to position[t]")                 \
    X(GLU, "out = act(gate) * up, or act(gate); one gate for several columns where it is narrower")          \
    X(ADD, "out = scale * (a_scale * a + b)")                                                                \
    X(SLICE, "out = of each `period` columns of in, the n from `first` on")                                  \
    X(JOIN, "out = for each head: its columns of a, then its columns of b")                                  \
    X(CONV,                                                                                                  \
      "out = act(sum over taps k of weight[k] * in[t - n_tap + 1 + k] + bias), per column; "                 \
      "in: the product of its inputs")                                                                       \
    X(SCAN, "per head: S = S exp(dt a) + dt x B^T; out = S C + d x; dt = softplus(dt + bias) (Mamba 2)")     \
    X(DELTA, "per head: S = g S; S += k (beta (v - k^T S)); out = scale q^T S (gated delta rule)")           \
    X(ROUTE, "ids = the n_used experts of the largest scores, weights = these scores, normalised * scale")   \
    X(EXPERT, "MATMUL with the weights of the row's experts: slot s of out = w[id_s] in (or slot s of in)")  \
    X(MOE_SUM, "out = scale * sum over slots s of weight_s * slot s of in; + residual")                      \
    X(LOGITS, "out = softcap(scale * w in)")                                                                 \
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
    ROLE_RESIDUAL, // MATMUL, MOE_SUM, NORM: read and added to the first output
    ROLE_GATE, // NORM, CONV, SCAN, MATMUL (also one column): read; the output is multiplied by its activation,
               // Op.gate, before a residual is added
    ROLE_IDS,  // EXPERT: read, the ids of the row's experts
    ROLE_CACHE, // KVPUT, ATTN, CONV, SCAN, DELTA: no register but a layer of the cache, an index into
                // Plan.kv
} Role;

typedef struct Operand {
    Role role;
    int reg;
} Operand;

enum { OP_MAX_SEGMENTS = 4, OP_MAX_OPERANDS = 8, NO_REG = -1 };

/* ---- parameters ---- */

typedef struct EmbedParams {
    float scale;
    bool by_position; // the row of the position, not of the token
} EmbedParams;

typedef struct NormParams {
    bool centred;        // the mean is subtracted first (LayerNorm)
    const float *weight; // [width], or [head_dim]; NULL: all 1; in a product NULL: its input is as it is
    const float *bias;   // as weight, or NULL
    float eps;
    int head_dim;  // heads of so many values are normalised each by itself; 0: the whole row
    bool per_head; // weight and bias are [width]: each head has its own
    float cut;     // NORM, not 0: out = max(0, in - mean - cut * deviation), with n - 1, and nothing else
} NormParams;

typedef enum Activation {
    ACT_NONE,
    ACT_SILU,
    ACT_GELU,  // by tanh
    ACT_RELU2, // max(x, 0)^2
    ACT_SIGMOID,
    ACT_SWIGLU_OAI, // of gpt-oss: g = min(gate, 7); out = g * sigmoid(1.702 g) * (clip(up, -7, 7) + 1)
    ACT_CLAMPED,    // min(silu(gate), limit) * clip(up, -limit, limit)
    ACT_XIELU,      // x > 0: alpha_p x^2 + beta x; else alpha_n (expm1(min(x, eps)) - x) + beta x
    ACT_COUNT
} Activation;
const char *activation_name(Activation a);

typedef struct GluParams {
    Activation act;
    float limit;                       // CLAMPED
    float alpha_p, alpha_n, beta, eps; // XIELU
} GluParams;

typedef struct AddParams {
    float a_scale, scale;
} AddParams;

typedef struct SliceParams {
    int period, first, n;
} SliceParams;

typedef struct JoinParams {
    int n_head;
} JoinParams;

/* The angle of pair i is position * scale * base^(-2i / n_rot) / factors[i]; with YaRN a mixture of that and
 * of the angle without scale, by exec_rope_frequencies. */
typedef enum RopePairing {
    ROPE_ADJACENT, // dimensions 2i and 2i + 1
    ROPE_HALVES,   // dimensions i and i + n_rot / 2
} RopePairing;

typedef struct RopeParams {
    int n_head[2], head_dim; // heads of q and of k; the second is 0 where only q is rotated
    int n_rot;               // dimensions of a head that are rotated, even; 0 in ATTN: none
    int first;               // the first of these
    RopePairing pairing;
    float base, scale;
    float magnitude;           // cosine and sine are multiplied by it
    const float *factors;      // [n_rot / 2], or NULL: all 1
    const float *long_factors; // the same for contexts longer than long_context, or NULL
    int long_context;
    int yarn_context;           // positions of the training before YaRN; 0: no YaRN
    float yarn_fast, yarn_slow; // rotations in yarn_context from which, and below which, angles are scaled
    float yarn_mix;             // share of the angle without scale in fast pairs, normally 1
} RopeParams;

typedef struct AttnParams {
    int n_head, n_kv_head, head_dim;
    int v_dim;          // dimensions of a head of V and of out; emit functions make 0 head_dim
    float scale;        // of the scores
    int window;         // positions that a row sees, its own included; 0: all
    int chunk;          // a row sees positions from the last multiple of it on; 0: all
    float softcap;      // scores become softcap * tanh(score / softcap); 0: as they are
    const float *sinks; // [n_head] one more score per head, without a value, or NULL
    float temperature;  // scores are multiplied by 1 + temperature * ln(1 + floor((position +
    int temperature_first, temperature_length; // first) / length)); 0: they are not
    NormParams q_norm, k_norm, v_norm;         // ATTN: RMS norms of heads of q, of new keys and values, none
                                               // where head_dim is 0;
    RopeParams rope;                           // then the rotation of q and keys
} AttnParams;

enum { CONV_MAX_TAPS = 8 };

typedef struct ConvParams {
    int n_tap;           // 2..CONV_MAX_TAPS
    const float *weight; // [width][n_tap]
    const float *bias;   // [width] or NULL
    Activation act;      // NONE, SILU
} ConvParams;

typedef struct ScanParams {
    int n_head, head_dim; // of x and out
    int n_state, n_group; // B and C: [n_group][n_state], of group h * n_group / n_head
    const float *a, *d;   // [n_head], a < 0
    const float *dt_bias; // [n_head] or NULL
} ScanParams;

/* g = exp(a * softplus(decay + dt_bias)), beta = sigmoid(beta); q and k are divided by their lengths. */
typedef struct DeltaParams {
    int n_head, v_dim;    // of v and out
    int n_k_head, k_dim;  // of q and k
    bool k_tiled;         // head h reads key head h % n_k_head, not h / (n_head / n_k_head)
    bool per_channel;     // decay is [n_head][k_dim], and dt_bias; otherwise [n_head]
    const float *a;       // [n_head]
    const float *dt_bias; // [n_head] or [n_head][k_dim]
    float scale, eps;     // eps: smallest length of q and k
} DeltaParams;

typedef enum RouteKind {
    ROUTE_SOFTMAX, // scores: softmax over all experts
    ROUTE_SIGMOID, // scores: sigmoid of each logit
} RouteKind;

typedef struct MoeParams {
    int n_expert, n_used;
    RouteKind kind;
    const float *bias;         // ROUTE: [n_expert] added to the scores for the choice only, or NULL
    int n_group, n_group_used; // ROUTE: experts of the best groups only; a group's score is the sum of its
                               // two best biased scores; n_group 0 or 1: no groups
    bool normalise;            // ROUTE: weights are divided by their sum
    float scale;               // ROUTE: of the weights; MOE_SUM: of the sum
} MoeParams;

typedef struct ProductParams {
    NormParams norm; // MATMUL, LOGITS: of the input, before the product
    Activation act;  // MATMUL, EXPERT: of two weights and one output: out = act(first) * second; of one
                     // weight: out = act(first)
    float scale;     // MATMUL, LOGITS: of the result, with its bias
    float softcap;   // LOGITS: result becomes softcap * tanh(result / softcap); 0: as it is
    MoeParams moe;   // EXPERT; without an operand of ids slot s has matrix s
} ProductParams;

typedef struct Op {
    OpCode code;
    int layer;        // -1 outside the layers
    const char *name; // what the field calls the result: "attn_norm", "ffn_out"
    bool on_R;
    int n_operands;
    Operand operand[OP_MAX_OPERANDS];
    Activation gate;                    // of an operand of ROLE_GATE; one without numbers
    float sum_scale;                    // NORM: of the result with its residual
    int n_w;                            // matrices: as many as outputs, but two of an activation of a pair
    const Weight *w[OP_MAX_SEGMENTS];   // EMBED, MATMUL, EXPERT, LOGITS
    const float *bias[OP_MAX_SEGMENTS]; // MATMUL, EXPERT: [n_out] or [n_expert, n_out], or NULL
    union {
        EmbedParams embed;
        NormParams norm;
        ProductParams product; // MATMUL, EXPERT, LOGITS
        RopeParams rope;
        AttnParams attn; // KVPUT, ATTN
        GluParams glu;
        AddParams add;
        SliceParams slice;
        JoinParams join;
        ConvParams conv;
        ScanParams scan;
        DeltaParams delta;
        MoeParams moe; // ROUTE, MOE_SUM
    };
} Op;

const char *op_name(OpCode code);
const char *op_text(OpCode code); // its line in the list

/* True for ops whose weights are multiplied with activations: MATMUL, EXPERT, LOGITS. */
bool op_is_product(const Op *op);

/* True for ops that write a row in several parts, so that it is whole only behind them: products, ATTN, ROUTE,
 * and those with a state. */
bool op_writes_parts(const Op *op);

/* The state of one head of SCAN or DELTA is a matrix [n][width]; n_head 0: the op has no such state. */
typedef struct StateShape {
    int n_head, n, width;
} StateShape;
StateShape op_state_shape(const Op *op);

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
