/* mixers: see mixers.h. */
#include "mixers.h"
#include "blocks.h"

#include <math.h>
#include <stdio.h>

enum { NAME = 64 };

bool read_has_attention(PlanBuilder *b) {
    return keys_of_layer(&b->keys, "attention.head_count_kv", b->layer, 0, 1 << 16, 1) > 0;
}

int block_conv(PlanBuilder *b, const char *name, int in, int n_tap, Activation act) {
    char weight[NAME], bias[NAME];
    int width = b->plan->regs[in].width;
    snprintf(weight, sizeof weight, "blk.%%d.%s.weight", name);
    snprintf(bias, sizeof bias, "blk.%%d.%s.bias", name);
    return emit_conv(b, name, in,
                     (ConvParams){.n_tap = n_tap,
                                  .weight = builder_vectors(b, weight, n_tap, width),
                                  .bias = builder_optional_vector(b, bias, width),
                                  .act = act});
}

int block_short_conv(PlanBuilder *b, int in) {
    static const char *const names[] = {"conv_b", "conv_c", "conv_x"};
    int n = b->plan->hparams.n_embd, parts[3];
    keys_need(&b->keys, "shortconv.l_cache");
    int n_tap = keys_int(&b->keys, "shortconv.l_cache", 2, CONV_MAX_TAPS, 2);
    for (int i = 0; i < 3; i++)
        parts[i] = block_part(b, names[i], "shortconv.in_proj", in,
                              (MatrixShape){n, n, 1, .first = i * n, .n_rows = 3 * n});
    GluParams product = {.act = ACT_NONE};
    int x = emit_glu(b, "conv_in", parts[0], parts[2], product);
    x = block_conv(b, "shortconv.conv", x, n_tap, ACT_NONE);
    b->on_R |= builder_is_last_mixer(b);
    return block_product(b, "shortconv.out_proj", emit_glu(b, "conv_out", parts[1], x, product), n, n);
}

/* ---- state spaces -------------------------------------------------------------------------------------- */

typedef struct Ssm {
    int n_tap, n_inner, n_state, n_head, n_group;
} Ssm;

static int need(PlanBuilder *b, const char *name, int min, int max) {
    keys_need(&b->keys, name);
    return keys_int(&b->keys, name, min, max, min);
}

static Ssm read_ssm(PlanBuilder *b) {
    Ssm s = {.n_tap = need(b, "ssm.conv_kernel", 2, CONV_MAX_TAPS),
             .n_inner = need(b, "ssm.inner_size", 1, 1 << 24),
             .n_state = need(b, "ssm.state_size", 1, 1024),
             .n_head = need(b, "ssm.time_step_rank", 1, 1 << 16),
             .n_group = need(b, "ssm.group_count", 1, 1 << 16)};
    if (s.n_inner % s.n_head != 0 || s.n_head % s.n_group != 0)
        keys_fail(&b->keys, "an inner size of %d, %d heads and %d groups do not divide each other", s.n_inner,
                  s.n_head, s.n_group);
    return b->keys.ok ? s : (Ssm){2, 1, 1, 1, 1};
}

int block_mamba2(PlanBuilder *b, int in, NormParams norm) {
    Ssm s = read_ssm(b);
    int n_embd = b->plan->hparams.n_embd, n = s.n_inner, n_bc = s.n_group * s.n_state;
    int n_conv = n + 2 * n_bc, n_all = n + n_conv + s.n_head;
    int z = block_part(b, "ssm_z", "ssm_in", in, (MatrixShape){n_embd, n, 1, 0, n_all});
    int x = block_part(b, "ssm_xbc", "ssm_in", in, (MatrixShape){n_embd, n_conv, 1, n, n_all});
    int dt = block_part(b, "ssm_dt", "ssm_in", in, (MatrixShape){n_embd, s.n_head, 1, n + n_conv, n_all});
    x = block_conv(b, "ssm_conv1d", x, s.n_tap, ACT_SILU);
    int bs = emit_view(b, "ssm_b", x, n, n_bc), cs = emit_view(b, "ssm_c", x, n + n_bc, n_bc);
    ScanParams scan = {.n_head = s.n_head,
                       .head_dim = n / s.n_head,
                       .n_state = s.n_state,
                       .n_group = s.n_group,
                       .a = builder_vector(b, "blk.%d.ssm_a", s.n_head),
                       .d = builder_vector(b, "blk.%d.ssm_d", s.n_head),
                       .dt_bias = builder_vector(b, "blk.%d.ssm_dt.bias", s.n_head)};
    int y = emit_scan(b, "ssm_scan", emit_view(b, "ssm_x", x, 0, n), bs, cs, dt, scan);
    b->on_R |= builder_is_last_mixer(b);
    y = emit_glu(b, "ssm_gated", z, y, (GluParams){.act = ACT_SILU});
    if (builder_has(b, "blk.%d.ssm_norm.weight")) {
        norm.head_dim = s.n_group > 1 ? n / s.n_group : 0;
        norm.per_head = s.n_group > 1;
        y = block_norm(b, "ssm_norm", y, norm);
    }
    return block_product(b, "ssm_out", y, n, n_embd);
}

/* ---- the delta rule ------------------------------------------------------------------------------------ */

static void decay_and_beta(PlanBuilder *b, int in, const Ssm *s, int *decay, int *beta) {
    int n_embd = b->plan->hparams.n_embd, n = s->n_head / s->n_group;
    if (builder_has(b, "blk.%d.ssm_ba.weight")) {
        int both = block_product(b, "ssm_ba", in, n_embd, 2 * s->n_head);
        *beta = emit_slice(b, "ssm_beta", both, (SliceParams){2 * n, 0, n});
        *decay = emit_slice(b, "ssm_alpha", both, (SliceParams){2 * n, n, n});
    } else {
        *beta = block_product(b, "ssm_beta", in, n_embd, s->n_head);
        *decay = block_product(b, "ssm_alpha", in, n_embd, s->n_head);
    }
}

int block_delta_net(PlanBuilder *b, int in, NormParams norm, bool k_tiled) {
    Ssm s = read_ssm(b);
    int n_embd = b->plan->hparams.n_embd, n = s.n_inner, n_k = s.n_group * s.n_state, decay, beta;
    int qkv = block_product(b, "attn_qkv", in, n_embd, 2 * n_k + n);
    int z = block_product(b, "attn_gate", in, n_embd, n);
    decay_and_beta(b, in, &s, &decay, &beta);
    qkv = block_conv(b, "ssm_conv1d", qkv, s.n_tap, ACT_SILU);
    int q = emit_view(b, "ssm_q", qkv, 0, n_k), k = emit_view(b, "ssm_k", qkv, n_k, n_k);
    DeltaParams delta = {.n_head = s.n_head,
                         .v_dim = n / s.n_head,
                         .n_k_head = s.n_group,
                         .k_dim = s.n_state,
                         .k_tiled = k_tiled,
                         .a = builder_vector(b, "blk.%d.ssm_a", s.n_head),
                         .dt_bias = builder_vector(b, "blk.%d.ssm_dt.bias", s.n_head),
                         .scale = 1 / sqrtf((float)s.n_state),
                         .eps = norm.eps};
    int y = emit_delta(b, "ssm_delta", q, k, emit_view(b, "ssm_v", qkv, 2 * n_k, n), decay, beta, delta);
    b->on_R |= builder_is_last_mixer(b);
    norm.head_dim = delta.v_dim;
    y = emit_glu(b, "ssm_gated", z, block_norm(b, "ssm_norm", y, norm), (GluParams){.act = ACT_SILU});
    return block_product(b, "ssm_out", y, n, n_embd);
}
