/* phi3: Phi 3, 3.5 and 4.
 *
 * The differences from llama: q, k and v in one tensor, and gate and up; rotation by halves, of a part of the head in
 * some models; short and long factors of its angles, chosen by the size of the context.  As in llama.cpp,
 * attention.sliding_window is not read: the models see all positions, where their makers have windows of 2048 and more. */
#include "decoder.h"
#include "family.h"
#include "read.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    read_rope_factors(b, &d.attention.attn.rope);
    d.ffn.kind = FFN_FUSED;
    emit_decoder(b, &d);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"phi-3-mini-4k", 32, 3072, 32, 32, 96, 8192, 32064, 1e4f,
     .optional = {"attn_qkv.weight", "output.weight"}},
    {"phi-4-mini", 32, 3072, 24, 8, 128, 8192, 200064, 1e4f,
     .optional = {"attn_qkv.weight", "rope_factors_long.weight"},
     .keys =
         "rope.dimension_count=96 rope.scaling.original_context_length=4096 rope.scaling.attn_factor=1.19"},
    {"phi-4", 40, 5120, 40, 10, 128, 17920, 100352, 2.5e5f, .optional = {"attn_qkv.weight", "output.weight"}},
    {0},
};

static const ModelSize sizes[] = {{"1B", 24, 0, 0, 0}, {"3B", 32, 0, 0, 0}, {"14B", 40, 0, 0, 0}, {0}};

const Family family_phi3 = {"phi3", emit, shapes, sizes};
