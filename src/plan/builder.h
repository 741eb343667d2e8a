/* builder: what a family writes its tape with: its keys and weights by name, and the ops one after another.
 *
 * Each emit function appends one op and returns the register it writes.  Failures (a missing tensor, a key
 * out of range) are kept in the builder and end everything at its close, so that a family reads as a list of
 * what happens, not of what can go wrong; registers returned after a failure are harmless. */
#ifndef ZGEN_PLAN_BUILDER_H
#define ZGEN_PLAN_BUILDER_H

#include "keys.h"
#include "tape.h"

typedef struct PlanBuilder {
    Plan *plan;
    Keys keys;      // the file's, under the family's architecture; its ok is the builder's too
    int last_mixer; // the last layer with attention or a state; a family whose last layers have none sets it
    int layer;      // of what is emitted now, -1 outside
    bool on_R;      // set behind the last attention, where only the wanted rows are computed
    int op_capacity, reg_capacity;
} PlanBuilder;

/* Lets `emit` write the tape of the plan, whose hyper-parameters are read.  false: *e; a tensor that the
 * family did not take is an error too. */
bool builder_emit(Plan *p, const Gguf *g, void (*emit)(PlanBuilder *b), Err *e);

/* Goes to the first layer, to the next, and behind the last, where it returns false: `while` writes them. */
bool builder_next_layer(PlanBuilder *b);

/* Whether no layer behind this one needs all rows, so that behind its attention the wanted ones are enough. */
bool builder_is_last_mixer(const PlanBuilder *b);

/* Weights by name, in which "%d" is replaced by the builder's layer.  A missing or misshapen one is a
 * failure; the optional ones return NULL where the file has none. */
const Weight *builder_matrix(PlanBuilder *b, const char *name, int n_in, int n_out);
const Weight *builder_experts(PlanBuilder *b, const char *name, int n_in, int n_out, int n_expert);
const Weight *builder_part(PlanBuilder *b, const char *name, MatrixShape shape);
const float *builder_vector(PlanBuilder *b, const char *name, int n);
const float *builder_optional_vector(PlanBuilder *b, const char *name, int n);
const float *builder_vectors(PlanBuilder *b, const char *name, int n, int n_rows);          // [n, n_rows]
const float *builder_optional_vectors(PlanBuilder *b, const char *name, int n, int n_rows); // [n, n_rows]
bool builder_has(PlanBuilder *b, const char *name);
void builder_leave(PlanBuilder *b, const char *name); // a tensor that the file may have, and no op reads

int emit_view(PlanBuilder *b, const char *name, int reg, int column, int width); // no op: columns of reg
int emit_embed(PlanBuilder *b, const char *name, const Weight *w, EmbedParams embed);
int emit_norm(PlanBuilder *b, const char *name, int in, NormParams norm);
int emit_norm_like(PlanBuilder *b, const char *name, int in, int like,
                   NormParams norm); // * rms of like's row
int emit_matmul(PlanBuilder *b, const char *name, int in, const Weight *w, const float *bias);
int emit_matmul_scaled(PlanBuilder *b, const char *name, int in, const Weight *w, const float *bias,
                       float scale);
void emit_rope(PlanBuilder *b, const char *name, int q, int k, RopeParams rope); // in place; k may be NO_REG
/* Returns the cache's layer, which several attentions may read.  v NO_REG: V is the first v_dim of K. */
int emit_kvput(PlanBuilder *b, const char *name, int k, int v, AttnParams attn);
int emit_attn(PlanBuilder *b, const char *name, int q, int cache, AttnParams attn);
int emit_glu(PlanBuilder *b, const char *name, int gate, int up, GluParams glu); // gate NO_REG: act(up)
int emit_add(PlanBuilder *b, const char *name, int a, int c);
int emit_add_scaled(PlanBuilder *b, const char *name, int a, int c, AddParams add);
int emit_slice(PlanBuilder *b, const char *name, int in, SliceParams slice);
int emit_join(PlanBuilder *b, const char *name, int a, int c, int n_head);
/* These three have a layer of the cache of their own, for the state that goes from row to row. */
int emit_conv(PlanBuilder *b, const char *name, int in, ConvParams conv);
int emit_scan(PlanBuilder *b, const char *name, int x, int state_in, int state_out, int dt, ScanParams scan);
int emit_delta(PlanBuilder *b, const char *name, int q, int k, int v, int decay, int beta, DeltaParams delta);
int emit_route(PlanBuilder *b, const char *name, int logits, MoeParams moe, int *weights); // returns ids
/* ids NO_REG: slot s has matrix s. */
int emit_expert(PlanBuilder *b, const char *name, int in, int ids, const Weight *w, const float *bias,
                MoeParams moe);
int emit_moe_sum(PlanBuilder *b, const char *name, int in, int weights, MoeParams moe);
int emit_logits(PlanBuilder *b, const char *name, int in, const Weight *w, const float *bias, float scale,
                float softcap);
void emit_sample(PlanBuilder *b, const char *name, int logits);

#endif
