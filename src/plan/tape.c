/* tape: see tape.h. */
#include "tape.h"

int plan_base(const Plan *p, int reg) {
    return p->regs[reg].base == NO_REG ? reg : p->regs[reg].base;
}

bool plan_overlap(const Plan *p, int a, int b) {
    if (plan_base(p, a) != plan_base(p, b)) return false;
    const Reg *x = &p->regs[a], *y = &p->regs[b];
    return x->column < y->column + y->width && y->column < x->column + x->width;
}

size_t plan_row_bytes(const Plan *p, int reg, Form form) {
    int width = p->regs[plan_base(p, reg)].width;
    return form == FORM_F32 ? ((size_t)width * sizeof(float) + 63) / 64 * 64 : p->config.can.q8_bytes(width);
}
