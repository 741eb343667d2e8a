/* emit: the pen with which a family writes its tape.
 *
 * Each function appends one op and returns the register it writes.  Failures (a missing tensor) are
 * remembered in the pen and end everything at its close, so that a family reads as a list of what happens,
 * not of what can go wrong; registers returned after a failure are harmless. */
#ifndef ZGEN_PLAN_EMIT_H
#define ZGEN_PLAN_EMIT_H

#include "plan.h"

typedef struct Pen {
    Plan *plan;
    Err *e;
    bool ok;
    int layer; // of what is emitted now, -1 outside
    bool on_R; // set behind the last attention, where only the wanted rows go on
    int op_capacity, reg_capacity;
} Pen;

/* Weights by name; "%d" in it stands for the pen's layer.  The optional ones return NULL where the file has
 * none. */
const Weight *pen_matrix(Pen *p, const char *name, int n_in, int n_out);
const Weight *pen_experts(Pen *p, const char *name, int n_in, int n_out);
const float *pen_vector(Pen *p, const char *name, int n);
const float *pen_optional_vector(Pen *p, const char *name, int n);
bool pen_has(Pen *p, const char *name);

int emit_embed(Pen *p, const Weight *w);
int emit_norm(Pen *p, const char *name, int in, const float *weight);
int emit_matmul(Pen *p, const char *name, int in, const Weight *w, const float *bias);
void emit_rope(Pen *p, const char *name, int q, int k, const float *factors); // both in place
void emit_kvput(Pen *p, const char *name, int k, int v);
int emit_attn(Pen *p, const char *name, int q);
int emit_glu(Pen *p, const char *name, int gate, int up);
int emit_add(Pen *p, const char *name, int a, int b);
int emit_route(Pen *p, const char *name, int logits, int *weights); // returns ids
int emit_expert(Pen *p, const char *name, int in, int ids, const Weight *w);
int emit_mix(Pen *p, const char *name, int in, int weights);
int emit_logits(Pen *p, const char *name, int in, const Weight *w);
void emit_sample(Pen *p, const char *name, int logits);

#endif
