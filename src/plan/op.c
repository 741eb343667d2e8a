/* op: see op.h. */
#include "op.h"

#include <assert.h>
#include <stddef.h>

const char *op_name(OpCode code) {
    static const char *const names[] = {
#define X(name, text) #name,
        OP_LIST(X)
#undef X
    };
    return names[code];
}

const char *op_text(OpCode code) {
    static const char *const texts[] = {
#define X(name, text) text,
        OP_LIST(X)
#undef X
    };
    return texts[code];
}

const char *activation_name(Activation a) {
    static const char *const names[ACT_COUNT] = {"none",    "silu",       "gelu",    "relu2",
                                                 "sigmoid", "swiglu_oai", "clamped", "xielu"};
    return names[a];
}

bool op_is_product(const Op *op) {
    return op->code == OP_MATMUL || op->code == OP_EXPERT || op->code == OP_LOGITS;
}

bool op_writes_parts(const Op *op) {
    return op_is_product(op) || op->code == OP_ATTN || op->code == OP_ROUTE || op->code == OP_CONV ||
           op->code == OP_SCAN || op->code == OP_DELTA;
}

StateShape op_state_shape(const Op *op) {
    if (op->code == OP_SCAN) return (StateShape){op->scan.n_head, op->scan.n_state, op->scan.head_dim};
    if (op->code == OP_DELTA) return (StateShape){op->delta.n_head, op->delta.k_dim, op->delta.v_dim};
    return (StateShape){0};
}

static int find(const Op *op, Role role, int nth) {
    for (int i = 0; i < op->n_operands; i++)
        if (op->operand[i].role == role && nth-- == 0) return i;
    return -1;
}

int op_operand(const Op *op, Role role, int nth) {
    int i = find(op, role, nth);
    return i < 0 ? NO_REG : op->operand[i].reg;
}

int op_count(const Op *op, Role role) {
    int n = 0;
    for (int i = 0; i < op->n_operands; i++) n += op->operand[i].role == role;
    return n;
}

bool role_reads(Role role) {
    return role != ROLE_WRITE && role != ROLE_CACHE;
}

bool role_writes(Role role) {
    return role == ROLE_WRITE || role == ROLE_BOTH;
}

void op_add_operand(Op *op, Role role, int reg) {
    if (reg == NO_REG) return;
    assert(op->n_operands < OP_MAX_OPERANDS);
    op->operand[op->n_operands++] = (Operand){role, reg};
}

void op_replace_operand(Op *op, Role role, int nth, int reg) {
    op->operand[find(op, role, nth)].reg = reg;
}

const RopeParams *op_rotation(const Op *op) {
    if (op->code == OP_ROPE) return &op->rope;
    return op->code == OP_ATTN && op->attn.rope.n_rot > 0 ? &op->attn.rope : NULL;
}
