/* falcon-h1: Falcon H1.
 *
 * The differences from llama: each layer is the sum of attention, rotated by halves, and Mamba 2, which read the same
 * norm; the weight of the norm before the feed-forward block is named ffn_norm, without ".weight".  The makers'
 * multipliers are in the file's weights. */
#include "decoder.h"
#include "family.h"
#include "mixers.h"

static int mix(PlanBuilder *b, int in, const Decoder *d) {
    int mamba = block_mamba2(b, in, d->norm);
    b->on_R = false; // attention needs all rows, too
    return emit_add(b, "mix", block_attention(b, in, &d->attention, d->norm), mamba);
}

static int feed_forward(PlanBuilder *b, int in, const Decoder *d) {
    NormParams norm = d->norm;
    norm.weight = builder_vector(b, "blk.%d.ffn_norm", b->plan->hparams.n_embd);
    return block_ffn(b, emit_norm(b, "ffn_norm", in, norm), &d->ffn);
}

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    d.mix = mix;
    d.feed_forward = feed_forward;
    d.ffn_norm = NULL;
    emit_decoder(b, &d);
}

static const Shape shapes[] = {
    {"falcon-h1-1.5b", 24, 2048, 8, 2, 128, 4096, 65536, 1e11f,
     .optional = {"output.weight", "ssm_conv1d.bias"},
     .keys =
         "ssm.conv_kernel=4 ssm.inner_size=3072 ssm.state_size=256 ssm.time_step_rank=48 ssm.group_count=1"},
    {0},
};

static const ModelSize sizes[] = {
    {"0.5B", 36, 0, 0, 0},
    {"1.5B", 24, 0, 0, 0},
    {"1.5B", 66, 0, 0, 0},
    {"3B", 32, 0, 0, 0},
    {"7B", 44, 0, 0, 0},
    {"34B", 72, 0, 0, 0},
    {0},
};

const Family family_falcon_h1 = {"falcon-h1", emit, shapes, sizes};
