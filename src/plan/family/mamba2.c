/* mamba2: Mamba 2: no attention and no feed-forward blocks.
 *
 *     x = embed
 *     per layer:  x += mamba2(norm(x))
 *     logits = output(norm(x)), where output is the embedding again when the file has none */
#include "decoder.h"
#include "family.h"
#include "mixers.h"
#include "read.h"

static void emit(PlanBuilder *b) {
    Decoder d = {
        .norm.eps = read_eps(b, false), .output_norm = "output_norm", .embed_scale = 1, .logit_scale = 1};
    int x = decoder_embed(b, &d);
    while (builder_next_layer(b))
        x = emit_add(b, "ssm_residual", block_mamba2(b, block_norm(b, "attn_norm", x, d.norm), d.norm), x);
    decoder_output(b, x, &d);
}

static const Shape shapes[] = {
    {"mamba2-2.7b", 64, 2560, 1, 1, 64, 1, 50288, 1e4f, .optional = {"ssm_norm.weight", "ssm_conv1d.bias"},
     .keys =
         "ssm.conv_kernel=4 ssm.inner_size=5120 ssm.state_size=128 ssm.time_step_rank=80 ssm.group_count=1"},
    {0},
};

static const ModelSize sizes[] = {
    {"130M", 24, 0, 0, 0},
    {"370M", 48, 0, 1024, 0},
    {"780M", 48, 0, 1536, 0},
    {"1.3B", 48, 0, 0, 0},
    {"2.7B", 64, 0, 2560, 0},
    {"7B", 64, 0, 4096, 0},
    {0},
};

const Family family_mamba2 = {"mamba2", emit, shapes, sizes};
