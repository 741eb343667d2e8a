/* plan: one model as a tape, ready for an executor.
 *
 *     Gguf -> hyper-parameters and weights -> family emits ops -> passes -> Plan
 *
 * The passes run once, in this order: fuse (several ops into one, as far as the executor runs it), copy views
 * (those that their reader cannot read where they are), forms (in which form each register is kept), allocate
 * (register lifetimes into one block of memory).  plan_cost gives the bytes and multiply-adds of each op;
 * plan_print writes the whole tape as text, which is also what the tests compare. */
#ifndef ZGEN_PLAN_PLAN_H
#define ZGEN_PLAN_PLAN_H

#include "tape.h"
#include "../base/buf.h"

/* Whether g is a language model of a known architecture, with tensors.  false: ERR_MODEL, what it is instead. */
bool plan_check_file(const Gguf *g, Err *e);

/* Builds the plan of the model in g, which must outlive it.  NULL: *e (ERR_MODEL; ERR_USAGE where weights_fp8
 * would make nothing smaller).  Whether the executor can run it is plan_supported's answer. */
Plan *plan_build(const Gguf *g, const PlanConfig *config, Err *e);
void plan_free(Plan *p);

/* The tensors of a model that is still to be made: those that its family requests over the metadata in g,
 * which has no tensors.  optional: as for weights_record.  Their types are F32; the caller frees them and
 * their names. NULL: *e. */
GgufTensor *plan_tensors(const Gguf *g, const char *const *optional, int *n, Err *e);

/* The cost of an op for n_rows rows of one sequence that follow n_past others, in one run: the bytes that it
 * must read or write at least, and its multiply-adds.  kv_element_bytes, here and below: of one number in the
 * cache. */
typedef struct Cost {
    double bytes_fixed; // weights, however many rows
    double bytes_rows;  // embedding rows; keys and values written, those of the past read once; states read
                        // and written once
    double macs;
} Cost;
Cost plan_cost(const Plan *p, const Op *op, double kv_element_bytes, double n_past, double n_rows);
Cost plan_cost_total(const Plan *p, double kv_element_bytes, double n_past, double n_rows);

/* Among how many experts a router chooses; 0: the model is dense. */
int plan_n_expert(const Plan *p);

/* The tape as text, a line per op: number, layer, op, name, registers with forms, weights with types and
 * shapes, parameters, bytes. */
void plan_print(const Plan *p, double kv_element_bytes, Buf *out);

#endif
