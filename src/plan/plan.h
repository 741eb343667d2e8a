/* plan: one model as a tape, ready for an executor.
 *
 *     Gguf -> hyper-parameters and weights -> family emits ops -> passes -> Plan
 *
 * The passes run once, in this order: fuse (ops into fatter ops, as far as the executor can), place (in which
 * form each register is kept), allocate (register lifetimes into one block of memory).  What each op must
 * move and compute is told by plan_cost; the whole tape prints itself with plan_print, which is also what the
 * tests compare. */
#ifndef ZGEN_PLAN_PLAN_H
#define ZGEN_PLAN_PLAN_H

#include "hparams.h"
#include "op.h"
#include "../base/buf.h"

/* The forms in which a register's rows can be kept; an op that writes one writes all its forms.  Ops that
 * write a row in pieces (products, attention) always keep the floats too. */
enum { FORM_F32 = 1, FORM_Q8 = 2, N_FORMS = 2 }; // Q8: the shared 8-bit activation, exec/act.h

typedef struct Reg {
    const char *name; // of the op that writes it
    int layer;
    int width;              // elements per row
    bool on_R;              // R rows, not T
    unsigned forms;         // set by place
    size_t offset[N_FORMS]; // bytes per row before it in the block of its kind (T or R); set by allocate
} Reg;

typedef struct KvLayer {
    int n_head, head_dim; // K and V alike
} KvLayer;

/* What an executor can run fused and how it lays out rows (exec.h has each executor's), and what the user
 * chose. */
typedef struct PlanConfig {
    bool fuse_segments; // products of one input as one op
    bool fuse_residual; // an ADD behind a product into it
    bool fuse_norm;     // a NORM before a product into it, for widths up to fuse_norm_max
    int fuse_norm_max;
    bool fuse_glu;  // a GLU behind two products into them
    bool fuse_attn; // KVPUT, and ROPE, before an ATTN into it
    bool act_forms; // products read registers in the 8-bit form; otherwise they quantise floats themselves
    size_t (*q8_bytes)(int width); // of a row in the 8-bit form
    bool act_f32;                  // all products on float activations: exact, for executors that can
    bool weights_fp8;              // products in FP8 where that is smaller; weights_load must follow
} PlanConfig;

typedef struct Plan {
    Hparams hparams;
    Weights *weights;
    PlanConfig config;
    Op *ops;
    int n_ops;
    Reg *regs;
    int n_regs;
    KvLayer *kv; // [n_kv]
    int n_kv;
    size_t row_bytes_T, row_bytes_R; // register memory per row of each kind
} Plan;

/* Builds the plan of the model in g, which must outlive it.  NULL: *e (ERR_MODEL; ERR_USAGE where weights_fp8
 * would make nothing smaller). */
Plan *plan_build(const Gguf *g, const PlanConfig *config, Err *e);
void plan_free(Plan *p);

/* The tensors of a model that is still to be made: those that its family asks for over the metadata in g, which
 * has no tensors.  optional: as for weights_record.  Their types are F32; the caller frees them and their names.
 * NULL: *e. */
GgufTensor *plan_tensors(const Gguf *g, const char *const *optional, int *n, Err *e);

/* What an op costs: the bytes it must read or write at least, and its multiply-adds.  kv_element_bytes, here
 * and below: of one number in the cache. */
typedef struct Cost {
    double bytes_fixed; // weights, however many rows
    double bytes_row;   // for each row: embedding row, keys and values written
    double bytes_past;  // for each row and position of its past: keys and values read
    double macs_row, macs_past;
} Cost;
Cost plan_cost(const Plan *p, const Op *op, double kv_element_bytes);
Cost plan_cost_total(const Plan *p, double kv_element_bytes);

/* Bytes of one sequence's keys and values per position. */
size_t plan_kv_bytes(const Plan *p, double kv_element_bytes);

/* The tape as text, a line per op: place, op, name, registers with forms, weights with types and shapes,
 * bytes. */
void plan_print(const Plan *p, double kv_element_bytes, Buf *out);

#endif
