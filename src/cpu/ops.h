/* ops: the functions of the ops, by the files that have them; see ops.c for how they are called. */
#ifndef ZGEN_CPU_OPS_H
#define ZGEN_CPU_OPS_H

#include "machine.h"

/* ops_rows.c */
void op_embed(Exec *x, const Batch *b, const Op *op, Scratch *s);
void op_norm(Exec *x, const Batch *b, const Op *op, Scratch *s);
void op_add(Exec *x, const Batch *b, const Op *op, Scratch *s);
void op_glu(Exec *x, const Batch *b, const Op *op, Scratch *s);
void op_slice(Exec *x, const Batch *b, const Op *op, Scratch *s);
void op_join(Exec *x, const Batch *b, const Op *op, Scratch *s);
void op_route(Exec *x, const Batch *b, const Op *op, Scratch *s);
void op_moe_sum(Exec *x, const Batch *b, const Op *op, Scratch *s);
void op_sample(Exec *x, const Batch *b, const Op *op, Scratch *s);

/* ops_products.c; LOGITS is a MATMUL */
void op_matmul(Exec *x, const Batch *b, const Op *op, Scratch *s);
void op_expert(Exec *x, const Batch *b, const Op *op, Scratch *s);

/* ops_attention.c */
void op_rope(Exec *x, const Batch *b, const Op *op, Scratch *s);
void op_kvput(Exec *x, const Batch *b, const Op *op, Scratch *s);
void op_attn(Exec *x, const Batch *b, const Op *op, Scratch *s);

/* ops_state.c */
void op_conv(Exec *x, const Batch *b, const Op *op, Scratch *s);
void op_scan(Exec *x, const Batch *b, const Op *op, Scratch *s);
void op_delta(Exec *x, const Batch *b, const Op *op, Scratch *s);

#endif
