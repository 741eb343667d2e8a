/* ernie4_5: ERNIE 4.5, dense: the tape of llama. */
#include "decoder.h"
#include "family.h"

static void emit(PlanBuilder *b) {
    Decoder d = read_decoder(b, false, ROPE_ADJACENT);
    emit_decoder(b, &d);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"ernie-4.5-0.3b", 18, 1024, 16, 2, 128, 3072, 103424, 5e5f, .optional = {NULL}},
    {0},
};

static const ModelSize sizes[] = {{"0.3B", 18, 0, 0, 0}, {0}};

const Family family_ernie4_5 = {"ernie4_5", emit, shapes, sizes};
