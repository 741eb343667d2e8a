/* lfm2: LFM2, dense (lfm2) and with experts behind its first layers (lfm2moe).
 *
 * The differences from llama: layers without key/value heads have a short convolution in place of attention; q and
 * k are normalised by heads, then rotated by halves; the last norm is named token_embd_norm. */
#include "decoder.h"
#include "family.h"
#include "mixers.h"

static int mix(PlanBuilder *b, int in, const Decoder *d) {
    return read_has_attention(b) ? block_attention(b, in, &d->attention, d->norm) : block_short_conv(b, in);
}

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    d.attention.qk_norm = QK_NORM_HEADS;
    d.mix = mix;
    d.output_norm = "token_embd_norm";
    if (keys_has(&b->keys, "expert_count")) d.experts = read_experts(b, ROUTE_SIGMOID, true);
    emit_decoder(b, &d);
}

static const Shape dense_shapes[] = {
    {"lfm2-1.2b", 16, 2048, 32, 8, 64, 8192, 65536, 1e6f, .optional = {NULL},
     .keys = "attention.head_count_kv=0,0,8,0,0,8,0,0,8,0,8,0,8,0,8,0 shortconv.l_cache=3"},
    {0},
};

static const Shape expert_shapes[] = {
    {"lfm2-8b-a1b", 24, 2048, 32, 8, 64, 7168, 65536, 1e6f, .optional = {"exp_probs_b.bias"},
     .keys =
         "attention.head_count_kv=0,0,8,0,0,0,8,0,0,0,8,0,0,0,8,0,0,0,8,0,0,8,0,0 shortconv.l_cache=3 "
         "expert_count=32 expert_used_count=4 expert_feed_forward_length=1792 leading_dense_block_count=2 "
         "expert_gating_func=2"},
    {0},
};

static const ModelSize dense_sizes[] = {
    {"350M", 16, 0, 1024, 0}, {"700M", 16, 0, 1536, 0}, {"1.2B", 16, 0, 2048, 0}, {0}};

static const ModelSize expert_sizes[] = {{"8B.A1B", 24, 0, 0, 0}, {0}};

const Family family_lfm2 = {"lfm2", emit, dense_shapes, dense_sizes};
const Family family_lfm2moe = {"lfm2moe", emit, expert_shapes, expert_sizes};
