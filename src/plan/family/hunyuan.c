/* hunyuan: Hunyuan, dense.
 *
 * The differences from llama: rotation by halves, and norms of the heads of q and k behind it. */
#include "decoder.h"
#include "family.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    d.attention.qk_norm = QK_NORM_HEADS;
    d.attention.qk_norm_last = true;
    emit_decoder(b, &d);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"hunyuan-1.8b", 32, 2048, 16, 4, 128, 6144, 120818, 1e4f, .optional = {NULL}},
    {"hunyuan-7b", 32, 4096, 32, 8, 128, 14336, 128167, 1e4f, .optional = {NULL}},
    {0},
};

static const ModelSize sizes[] = {
    {"0.5B", 24, 0, 1024, 0}, {"1.8B", 32, 0, 2048, 0}, {"4B", 36, 0, 0, 0}, {"7B", 32, 0, 0, 0}, {0},
};

const Family family_hunyuan_dense = {"hunyuan-dense", emit, shapes, sizes};
