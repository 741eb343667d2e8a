/* capability: what an executor can run, and the refusal of what it cannot.
 *
 * Each op and each parameter that an executor may lack is a feature: a bit, made from OP_LIST and from the
 * list below, which also has the condition under which an op needs it.  An executor states the features that
 * it runs and its limits; the fuse pass makes nothing that the executor cannot run; plan_supported refuses
 * the rest by name, before anything is read or uploaded.  So no parameter can be ignored: a new parameter
 * needs a line here. */
#ifndef ZGEN_PLAN_CAPABILITY_H
#define ZGEN_PLAN_CAPABILITY_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include "op.h"

/*    feature          what a message calls it, and when an op has it (norm, rope, attn, moe: its parameters,
 *                     or NULL; act: the activation of GLU or of a product; view: an operand is a view) */
#define PARAMETER_LIST(X)                                                                                    \
    X(VIEW, "registers that are columns of others", view)                                                    \
    X(EMBED_SCALE, "a factor on embeddings", op->code == OP_EMBED && op->embed.scale != 1)                   \
    X(EMBED_POSITION, "learned positions", op->code == OP_EMBED && op->embed.by_position)                    \
    X(NORM_HEADS, "norms of single heads", norm && norm->head_dim > 0)                                       \
    X(NORM_PER_HEAD, "norms of heads with weights of their own", norm && norm->per_head)                     \
    X(NORM_CENTRED, "norms that subtract the mean", norm && norm->centred)                                   \
    X(NORM_BIAS, "norms with a bias", norm && norm->bias)                                                    \
    X(NORM_PLAIN, "norms without a weight", norm && !norm->weight)                                           \
    X(NORM_LIKE, "norms to the length of another row", op->code == OP_NORM && op_count(op, ROLE_READ) > 1)   \
    X(NORM_CUT, "values cut by their deviation", norm && norm->cut != 0)                                     \
    X(NORM_RESIDUAL, "a residual added by a norm", op->code == OP_NORM && op_count(op, ROLE_RESIDUAL) > 0)   \
    X(NORM_SCALE, "a factor on a norm with its residual", op->code == OP_NORM && op->sum_scale != 1)         \
    X(SEGMENTS, "several products in one op", op_is_product(op) && op_count(op, ROLE_WRITE) > 1)             \
    X(FUSED_RESIDUAL, "a residual added by the op before",                                                   \
      op->code != OP_NORM && op_count(op, ROLE_RESIDUAL) > 0)                                                \
    X(FUSED_GATE, "a gate multiplied by the op before", op_count(op, ROLE_GATE) > 0)                         \
    X(CONV_PRODUCT, "convolutions of a product", op->code == OP_CONV && op_count(op, ROLE_READ) > 1)         \
    X(FUSED_NORM, "a norm within a product", norm && op->code != OP_NORM)                                    \
    X(FUSED_NORM_OTHER, "a norm within a product other than the RMS norm of a row",                          \
      norm && op->code != OP_NORM && (norm->head_dim > 0 || norm->centred || norm->bias))                    \
    X(FUSED_ACT, "an activation within a product", op_is_product(op) && act != ACT_NONE)                     \
    X(FUSED_KVPUT, "keys and values put by attention", op->code == OP_ATTN && op_count(op, ROLE_READ) > 1)   \
    X(FUSED_ROPE, "rotation within attention", op->code == OP_ATTN && rope)                                  \
    X(FUSED_HEAD_NORMS, "norms of heads within attention",                                                   \
      op->code == OP_ATTN &&                                                                                 \
          op->attn.q_norm.head_dim + op->attn.k_norm.head_dim + op->attn.v_norm.head_dim > 0)                \
    X(BIAS, "biases of products", bias && op->code != OP_EXPERT)                                             \
    X(EXPERT_BIAS, "biases of experts", bias && op->code == OP_EXPERT)                                       \
    X(EXPERT_FIXED, "a matrix for each slot", op->code == OP_EXPERT && op_count(op, ROLE_IDS) == 0)          \
    X(PRODUCT_SCALE, "a factor on products", op_is_product(op) && op->product.scale != 1)                    \
    X(LOGITS_SOFTCAP, "logits with a softcap", op->code == OP_LOGITS && op->product.softcap != 0)            \
    X(ADD_SCALE, "sums with factors", op->code == OP_ADD && (op->add.a_scale != 1 || op->add.scale != 1))    \
    X(ACT_SILU, "the activation silu", act == ACT_SILU)                                                      \
    X(ACT_GELU, "the activation gelu", act == ACT_GELU)                                                      \
    X(ACT_RELU2, "the activation relu2", act == ACT_RELU2)                                                   \
    X(ACT_SIGMOID, "the activation sigmoid", act == ACT_SIGMOID)                                             \
    X(ACT_SWIGLU_OAI, "the activation swiglu_oai", act == ACT_SWIGLU_OAI)                                    \
    X(ACT_CLAMPED, "the activation clamped", act == ACT_CLAMPED)                                             \
    X(ACT_XIELU, "the activation xielu", act == ACT_XIELU)                                                   \
    X(ACT_PRODUCT, "products of columns", op->code == OP_GLU && act == ACT_NONE)                             \
    X(ACT_ALONE, "activations without a factor", op->code == OP_GLU && op_count(op, ROLE_READ) == 1)         \
    X(GATE_NARROW, "gates of several columns", gate_narrow)                                                  \
    X(ROPE_HALVES, "rotation of halves", rope && rope->pairing == ROPE_HALVES)                               \
    X(ROPE_FIRST, "rotation behind the first dimensions", rope && rope->first > 0)                           \
    X(ROPE_MAGNITUDE, "rotation with a magnitude", rope && rope->magnitude != 1)                             \
    X(ATTN_WINDOW, "attention in a window", attn && attn->window > 0)                                        \
    X(ATTN_CHUNK, "attention in chunks", attn && attn->chunk > 0)                                            \
    X(ATTN_SOFTCAP, "attention with a softcap", attn && attn->softcap != 0)                                  \
    X(ATTN_SINKS, "attention with sinks", attn && attn->sinks)                                               \
    X(ATTN_TEMPERATURE, "attention with a temperature", attn && attn->temperature != 0)                      \
    X(ATTN_VALUE_DIM, "values of another width than keys", attn && attn->v_dim != attn->head_dim)            \
    X(ATTN_WANTED, "attention of the wanted rows only", attn && op->on_R)                                    \
    X(MOE_SUM_SCALE, "a factor on the sum of experts", op->code == OP_MOE_SUM && moe->scale != 1)            \
    X(ROUTE_SIGMOID, "experts chosen by a sigmoid", op->code == OP_ROUTE && moe->kind == ROUTE_SIGMOID)      \
    X(ROUTE_BIAS, "experts chosen with a bias", op->code == OP_ROUTE && moe->bias)                           \
    X(ROUTE_GROUPS, "experts chosen in groups", op->code == OP_ROUTE && moe->n_group > 1)                    \
    X(ROUTE_RAW, "weights of experts that are not normalised", op->code == OP_ROUTE && !moe->normalise)

typedef enum Feature {
#define X(name, text) FEATURE_OP_##name,
    OP_LIST(X)
#undef X
#define X(name, text, when) FEATURE_##name,
        PARAMETER_LIST(X)
#undef X
            FEATURE_COUNT
} Feature;
static_assert(FEATURE_COUNT <= 128, "a feature is a bit of a FeatureSet");

__extension__ typedef unsigned __int128 FeatureSet;
#define FEATURE_BIT(name) ((FeatureSet)1 << FEATURE_##name)

typedef struct Capability {
    const char *name; // of the executor, as --device takes it; NULL: no limits, nothing fused
    FeatureSet features;
    int head_dim_min, head_dim_max, head_dim_multiple; // of attention, of its keys and values
    int v_dim_max;                                     // of attention's values
    int n_head_max;
    int fused_norm_max;      // width of a norm within a product
    int fused_rope_multiple; // of the first dimension, and of half of those, that attention rotates
    int n_vocab_max;
    int late_ops;      // ops behind which an op may still read its residual or gate
    int view_multiple; // columns at which views begin and end
    int n_expert_max;
    int state_rows_max;            // StateShape.n
    size_t (*q8_bytes)(int width); // of a row in the 8-bit form; NULL: products quantise floats themselves
    int q8_multiple;               // of the width of such a row, and of columns within it
} Capability;

const char *feature_text(Feature f); // of an op: its name

#endif
