/* tape: the ops of one model and the registers between them; what passes, printer and executors read.
 *
 * A register may be a view: a range of columns of another one, whose memory it shares, so that a product that
 * makes queries, keys and values in one row needs no copy.  A view of a view is not needed and not made. */
#ifndef ZGEN_PLAN_TAPE_H
#define ZGEN_PLAN_TAPE_H

#include "capability.h"
#include "hparams.h"
#include "op.h"

/* The forms in which a register's rows can be kept; an op that writes one writes all its forms.  Ops that
 * write a row in parts (products, attention, routing) always keep the floats too. */
typedef enum Form {
    FORM_F32,
    FORM_Q8, // the shared 8-bit activation, exec/act.h
    N_FORMS
} Form;

typedef struct Reg {
    const char *name; // of the op that writes it
    int layer;
    int width;              // elements per row
    bool on_R;              // R rows, not T
    int base;               // the register of which this one is a view, or NO_REG
    int column;             // of a view: its first column there
    bool has[N_FORMS];      // set by the forms pass; a view's are its base's
    size_t offset[N_FORMS]; // bytes per row before it in the block of its kind (T or R); set by allocate
} Reg;

/* The data that one layer keeps of a sequence. */
typedef enum KvKind {
    KV_ROWS,  // a row of keys and one of values for each position, or for the positions of a window
    KV_STATE, // a state of fixed size that each step replaces (recurrent layers)
    KV_OTHER, // nothing of its own: the layer reads the rows of another layer
} KvKind;

typedef struct KvLayer {
    KvKind kind;
    int n_head;           // KV_ROWS: KV heads
    int k_width, v_width; // KV_ROWS: elements of a row of one head
    bool v_in_k;          // KV_ROWS: V is the first v_width elements of K, and is not stored
    int window;           // KV_ROWS: positions that a row sees, its own included; 0: all
    size_t state_bytes;   // KV_STATE
    int other;            // KV_OTHER: index of a layer of rows before this one
} KvLayer;

/* The user's choices, and the capability of the executor that will run the plan. */
typedef struct PlanConfig {
    Capability can;    // decides which ops are fused
    bool act_f32;      // all products on float activations: exact, for executors that can
    bool keeps_inputs; // of products are registers of floats, too: no product normalises its input
    bool weights_fp8;  // products in FP8 where that is smaller; weights_load must follow
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

/* The register that holds reg's memory: its base, or reg itself. */
int plan_base(const Plan *p, int reg);

/* Whether two registers share memory that both have: the same one, or one a view of columns of the other or
 * both views of common columns. */
bool plan_overlap(const Plan *p, int a, int b);

/* Bytes from row to row of a register in one of its forms, a multiple of 64; a view's are its base's. */
size_t plan_row_bytes(const Plan *p, int reg, Form form);

/* The features that an op of the plan needs: of its code and of each parameter that it has. */
FeatureSet plan_op_features(const Plan *p, const Op *op);

/* Whether the executor of the plan's configuration runs all of it.  false: ERR_MODEL, a sentence that names
 * op, parameter and executor, and the one of `others` (the capabilities of other executors, [n_others]) that
 * would. */
bool plan_supported(const Plan *p, const Capability *const *others, int n_others, Err *e);

#endif
