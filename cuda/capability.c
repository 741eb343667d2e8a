/* capability: what the GPU executor runs.  In C and in every build, so that the tape of a GPU can be printed
 * and a model refused where there is neither a GPU nor a CUDA compiler. */
#include "cuda.h"

/* fused_norm_max: the row that a product kernel keeps in registers.  fused_rope_multiple: attention has
 * dimensions in pairs.  n_head_max: counters of work items per row of attention.
 * n_expert_max: MAX_EXPERTS. */
const Capability cuda_capability = {
    .name = "cuda",
    .features = FEATURE_BIT(OP_EMBED) | FEATURE_BIT(OP_NORM) | FEATURE_BIT(OP_MATMUL) | FEATURE_BIT(OP_ATTN) |
                FEATURE_BIT(OP_GLU) | FEATURE_BIT(OP_ADD) | FEATURE_BIT(OP_SLICE) | FEATURE_BIT(OP_JOIN) |
                FEATURE_BIT(OP_CONV) | FEATURE_BIT(OP_SCAN) | FEATURE_BIT(OP_DELTA) | FEATURE_BIT(OP_ROUTE) |
                FEATURE_BIT(OP_EXPERT) | FEATURE_BIT(OP_MOE_SUM) | FEATURE_BIT(MOE_SUM_SCALE) |
                FEATURE_BIT(OP_LOGITS) | FEATURE_BIT(OP_SAMPLE) | FEATURE_BIT(EMBED_SCALE) |
                FEATURE_BIT(EMBED_POSITION) | FEATURE_BIT(ADD_SCALE) | FEATURE_BIT(VIEW) |
                FEATURE_BIT(SEGMENTS) | FEATURE_BIT(FUSED_RESIDUAL) | FEATURE_BIT(FUSED_NORM) |
                FEATURE_BIT(FUSED_ACT) | FEATURE_BIT(FUSED_KVPUT) | FEATURE_BIT(FUSED_ROPE) |
                FEATURE_BIT(BIAS) | FEATURE_BIT(EXPERT_BIAS) | FEATURE_BIT(ACT_SILU) | FEATURE_BIT(ACT_GELU) |
                FEATURE_BIT(ACT_RELU2) | FEATURE_BIT(ACT_SIGMOID) | FEATURE_BIT(ACT_SWIGLU_OAI) |
                FEATURE_BIT(ACT_CLAMPED) | FEATURE_BIT(ACT_XIELU) | FEATURE_BIT(ACT_PRODUCT) |
                FEATURE_BIT(ACT_ALONE) | FEATURE_BIT(GATE_NARROW) | FEATURE_BIT(EXPERT_FIXED) |
                FEATURE_BIT(PRODUCT_SCALE) | FEATURE_BIT(LOGITS_SOFTCAP) | FEATURE_BIT(ROUTE_SIGMOID) |
                FEATURE_BIT(ROUTE_BIAS) | FEATURE_BIT(ROUTE_GROUPS) | FEATURE_BIT(ROUTE_RAW) |
                FEATURE_BIT(OP_ROPE) | FEATURE_BIT(OP_KVPUT) | FEATURE_BIT(NORM_HEADS) |
                FEATURE_BIT(NORM_PER_HEAD) | FEATURE_BIT(NORM_CENTRED) | FEATURE_BIT(NORM_BIAS) |
                FEATURE_BIT(NORM_PLAIN) | FEATURE_BIT(NORM_RESIDUAL) | FEATURE_BIT(NORM_SCALE) |
                FEATURE_BIT(FUSED_HEAD_NORMS) | FEATURE_BIT(ROPE_HALVES) | FEATURE_BIT(ROPE_FIRST) |
                FEATURE_BIT(ROPE_MAGNITUDE) | FEATURE_BIT(ATTN_WINDOW) | FEATURE_BIT(ATTN_CHUNK) |
                FEATURE_BIT(ATTN_SOFTCAP) | FEATURE_BIT(ATTN_SINKS) | FEATURE_BIT(ATTN_TEMPERATURE) |
                FEATURE_BIT(ATTN_VALUE_DIM) | FEATURE_BIT(FUSED_GATE) | FEATURE_BIT(CONV_PRODUCT),
    .head_dim_min = 8,
    .head_dim_max = 576,
    .head_dim_multiple = 8,
    .v_dim_max = 512,
    .n_head_max = 1024,
    .fused_norm_max = 8192,
    .fused_rope_multiple = 2,
    .n_vocab_max = MAX_VOCAB,
    .late_ops = 5,
    .n_expert_max = 1024,
    .state_rows_max = 256,
    .view_multiple = 4,
};
