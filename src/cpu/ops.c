/* ops: what each op of the tape does on the CPU, one function per op.
 *
 * A function is called by all threads with the same op and takes items of its work until none are left. Items
 * are rows for the small ops, panels of 16 weight rows for products, (row, KV head) pairs for attention.  An
 * op that writes a row in pieces meets once more before the row is quantised.  Numbers in here are moved and
 * added; whatever touches many of them goes through the kernel table. */
#include "machine.h"
#include "../base/float.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static size_t row_stride(const Exec *x, int reg, int form) {
    const Reg *r = &x->plan->regs[reg];
    return form == FORM_F32 ? ((size_t)r->width * sizeof(float) + 63) / 64 * 64 : act8_bytes(r->width);
}

static uint8_t *row_address(const Exec *x, int reg, int row, int form) {
    const Reg *r = &x->plan->regs[reg];
    int rows_max = r->on_R ? x->config.R_max : x->config.T_max;
    assert(r->forms & (unsigned)form);
    size_t offset = r->offset[form == FORM_F32 ? 0 : 1] * (size_t)rows_max;
    return x->regs[r->on_R] + offset + (size_t)row * row_stride(x, reg, form);
}

float *machine_f32(const Exec *x, int reg, int row) {
    return (float *)(void *)row_address(x, reg, row, FORM_F32);
}

Act8 machine_q8(const Exec *x, int reg, int row) {
    return act8_view(row_address(x, reg, row, FORM_Q8), x->plan->regs[reg].width);
}

static Act8 act8_at(Act8 a, int column) { // column % 32 == 0
    return (Act8){a.q + column, a.d + column / ACT8_GROUP, a.sum + column / ACT8_SUM};
}

/* ---- rows and items ------------------------------------------------------------------------------------ */

static int n_rows(const Exec *x, const Op *op) {
    return op->on_R ? x->batch->R : x->batch->T;
}

/* The row of `reg` that row i of the op reads: an R op picks its rows out of a T register. */
static int source_row(const Exec *x, const Op *op, int reg, int i) {
    return op->on_R && !x->plan->regs[reg].on_R ? x->batch->out_row[i] : i;
}

static const float *input(const Exec *x, const Op *op, int reg, int i) {
    return machine_f32(x, reg, source_row(x, op, reg, i));
}

/* The next `grain` items of op i, or a number beyond its last. */
static int take(Exec *x, const Op *op, int grain) {
    return atomic_fetch_add_explicit(&x->next[op - x->plan->ops], grain, memory_order_relaxed);
}

/* Where to write row i of a register before row_done: in place where it keeps floats. */
static float *row_begin(const Exec *x, int reg, int i, Scratch *s) {
    return x->plan->regs[reg].forms & FORM_F32 ? machine_f32(x, reg, i) : s->row;
}

static void row_done(const Exec *x, int reg, int i, const float *row) {
    if (x->plan->regs[reg].forms & FORM_Q8)
        x->kernels->quantize(row, x->plan->regs[reg].width, machine_q8(x, reg, i));
}

/* After an op that wrote rows in pieces: everybody waits, then the rows are quantised by those who share
 * them. */
static void quantize_written(Exec *x, const Op *op, int reg, int thread) {
    if (!(x->plan->regs[reg].forms & FORM_Q8)) return;
    pool_barrier(x->pool);
    for (int i = thread; i < n_rows(x, op); i += pool_n(x->pool)) row_done(x, reg, i, machine_f32(x, reg, i));
}

/* ---- small ops ----------------------------------------------------------------------------------------- */

static void op_embed(Exec *x, const Op *op, Scratch *s) {
    const Weight *w = op->w[0];
    const QuantTraits *traits = quant_traits(w->type);
    for (int t; (t = take(x, op, 1)) < n_rows(x, op);) {
        int token = x->batch->token[t];
        float *row = row_begin(x, op->out[0], t, s);
        traits->decode(w->data + (size_t)token * w->row_bytes, (size_t)(w->n_in / traits->n_weights), row);
        for (int i = 0; w->scale && i < w->n_in; i++) row[i] *= w->scale[token];
        row_done(x, op->out[0], t, row);
    }
}

static void op_norm(Exec *x, const Op *op, Scratch *s) {
    for (int i; (i = take(x, op, 1)) < n_rows(x, op);) {
        float *row = row_begin(x, op->out[0], i, s);
        x->kernels->rms_norm(input(x, op, op->in, i), op->vector, x->plan->regs[op->in].width, op->eps, row);
        row_done(x, op->out[0], i, row);
    }
}

static void op_add(Exec *x, const Op *op, Scratch *s) {
    for (int i; (i = take(x, op, 1)) < n_rows(x, op);) {
        const float *a = input(x, op, op->in, i), *b = input(x, op, op->in2, i);
        float *row = row_begin(x, op->out[0], i, s);
        for (int k = 0; k < x->plan->regs[op->out[0]].width; k++) row[k] = a[k] + b[k];
        row_done(x, op->out[0], i, row);
    }
}

/* By stretches of columns, so that a single row is shared too. */
static void op_glu(Exec *x, const Op *op, Scratch *s) {
    enum { STRETCH = 1024 };
    const Reg *out = &x->plan->regs[op->out[0]];
    int n_stretches = (out->width + STRETCH - 1) / STRETCH;
    for (int item; (item = take(x, op, 1)) < n_rows(x, op) * n_stretches;) {
        int i = item / n_stretches, column = item % n_stretches * STRETCH;
        int n = out->width - column < STRETCH ? out->width - column : STRETCH;
        float *row = row_begin(x, op->out[0], i, s) + column;
        x->kernels->silu_mul(input(x, op, op->in, i) + column, input(x, op, op->in2, i) + column, n, row);
        if (out->forms & FORM_Q8) x->kernels->quantize(row, n, act8_at(machine_q8(x, op->out[0], i), column));
    }
}

static void op_route(Exec *x, const Op *op) {
    for (int i; (i = take(x, op, 1)) < n_rows(x, op);) {
        const float *logits = input(x, op, op->in, i);
        int32_t *ids =
            (int32_t *)(void *)machine_f32(x, op->out[0], i); // a register's cells hold ids as well as floats
        float *weights = machine_f32(x, op->out[1], i), sum = 0;
        for (int s = 0; s < op->moe.n_used;
             s++) { // the largest not chosen yet; the lower id where they are equal
            int best = -1;
            for (int e = 0; e < op->moe.n_expert; e++) {
                bool taken = false;
                for (int k = 0; k < s; k++) taken |= ids[k] == e;
                if (!taken && (best < 0 || logits[e] > logits[best])) best = e;
            }
            ids[s] = best;
            weights[s] = expf(logits[best] - logits[ids[0]]);
            sum += weights[s];
        }
        for (int s = 0; s < op->moe.n_used; s++) weights[s] *= op->moe.scale / sum;
    }
}

static void op_mix(Exec *x, const Op *op, Scratch *s) {
    int width = x->plan->regs[op->out[0]].width;
    for (int i; (i = take(x, op, 1)) < n_rows(x, op);) {
        const float *in = input(x, op, op->in, i), *weights = input(x, op, op->ids, i);
        const float *residual = op->residual == NO_REG ? NULL : input(x, op, op->residual, i);
        float *row = row_begin(x, op->out[0], i, s);
        for (int k = 0; k < width; k++) {
            float sum = 0;
            for (int slot = 0; slot < op->moe.n_used; slot++) sum += weights[slot] * in[slot * width + k];
            row[k] = residual ? sum + residual[k] : sum;
        }
        row_done(x, op->out[0], i, row);
    }
}

/* ---- rotation and cache -------------------------------------------------------------------------------- */

void machine_rotate(Exec *x, int thread) {
    for (int r = 0; r < x->n_rotations; r++) {
        const Rotation *rotation = &x->rotations[r];
        for (int t = thread; t < x->batch->T; t += pool_n(x->pool))
            for (int i = 0; i < rotation->n_pairs; i++) {
                double angle = x->batch->position[t] * rotation->frequency[i];
                rotation->cos[(size_t)t * (size_t)rotation->n_pairs + (size_t)i] = (float)cos(angle);
                rotation->sin[(size_t)t * (size_t)rotation->n_pairs + (size_t)i] = (float)sin(angle);
            }
    }
}

static void op_rope(Exec *x, const Op *op) {
    const Rotation *rotation = &x->rotations[x->rotation_of[op - x->plan->ops]];
    int n = rotation->n_pairs;
    for (int t; (t = take(x, op, 1)) < n_rows(x, op);) {
        const float *c = rotation->cos + (size_t)t * (size_t)n, *s = rotation->sin + (size_t)t * (size_t)n;
        for (int k = 0; k < op->n_out; k++) {
            float *head = machine_f32(x, op->out[k], t);
            for (int h = 0; h < op->rope.n_head[k]; h++, head += op->rope.head_dim)
                for (int i = 0; i < n; i++) {
                    float a = head[2 * i], b = head[2 * i + 1];
                    head[2 * i] = a * c[i] - b * s[i];
                    head[2 * i + 1] = a * s[i] + b * c[i];
                }
        }
    }
}

/* Keys (which = 0) or values (1) of one head of one sequence. */
static KvHistory kv_head(const Exec *x, const Op *op, int which, int seq, int head) {
    KvType type = x->config.kv_type;
    size_t positions = kv_positions(x->config.n_ctx), heads = (size_t)op->attn.n_kv_head;
    size_t head_bytes = positions * kv_row_bytes(type, op->attn.head_dim);
    size_t layer_bytes = (size_t)x->config.n_seq * heads * head_bytes;
    uint8_t *base = x->kv + x->kv_offset[op->attn.kv_layer] + (size_t)which * layer_bytes +
                    ((size_t)seq * heads + (size_t)head) * head_bytes;
    return kv_history(type, base, positions, op->attn.head_dim);
}

static void op_kvput(Exec *x, const Op *op) {
    int d = op->attn.head_dim;
    for (int t; (t = take(x, op, 1)) < n_rows(x, op);)
        for (int which = 0; which < 2; which++) {
            const float *in = machine_f32(x, which ? op->in2 : op->in, t);
            for (int h = 0; h < op->attn.n_kv_head; h++, in += d) {
                KvHistory history = kv_head(x, op, which, x->batch->seq[t], h);
                size_t position = (size_t)x->batch->position[t];
                if (x->config.kv_type == KV_F16)
                    x->kernels->to_f16(in, d, (uint16_t *)(void *)history.cells + position * (size_t)d);
                else
                    kv_put(x->config.kv_type, in, d, history, position);
            }
        }
}

static void op_attn(Exec *x, const Op *op, Scratch *s) {
    int group = op->attn.n_head / op->attn.n_kv_head;
    for (int item; (item = take(x, op, 1)) < n_rows(x, op) * op->attn.n_kv_head;) {
        int i = item / op->attn.n_kv_head, h = item % op->attn.n_kv_head;
        int t = op->on_R ? x->batch->out_row[i] : i;
        size_t column = (size_t)(h * group * op->attn.head_dim);
        AttnJob job = {.q = input(x, op, op->in, i) + column,
                       .n_q = group,
                       .head_dim = op->attn.head_dim,
                       .kv_type = x->config.kv_type,
                       .k = kv_head(x, op, 0, x->batch->seq[t], h),
                       .v = kv_head(x, op, 1, x->batch->seq[t], h),
                       .n_pos = x->batch->position[t] + 1,
                       .scale = op->attn.scale,
                       .scores = s->scores,
                       .out = machine_f32(x, op->out[0], i) + column};
        x->kernels->attn(&job);
    }
}

/* ---- products ------------------------------------------------------------------------------------------ */

/* One weight matrix (or one expert's) against n gathered rows: which inputs, which outputs. */
typedef struct Product {
    const Weight *w;
    int expert;
    const float *bias; // of this expert, or NULL
    int n;             // gathered in s->q8 or s->f32, s->out, s->residual
} Product;

static bool wants_q8(const Exec *x, const Weight *w) {
    return quant_traits(w->type)->act == QUANT_ACT_Q8 && !x->plan->config.act_f32;
}

static void multiply_panel(const Exec *x, const Product *p, int panel, Scratch *s) {
    const Weight *w = p->w;
    int row0 = panel * PANEL_ROWS, rows = w->n_out - row0 < PANEL_ROWS ? w->n_out - row0 : PANEL_ROWS;
    size_t first = (size_t)p->expert * (size_t)w->n_out + (size_t)row0;
    Panel job = {.type = w->type,
                 .rows = w->data + first * w->row_bytes,
                 .row_bytes = w->row_bytes,
                 .n_rows = rows,
                 .n_in = w->n_in};
    if (wants_q8(x, w))
        x->kernels->matmul_q8(&job, s->q8, p->n, s->y);
    else
        x->kernels->matmul_f32(&job, s->f32, p->n, s->y);
    for (int i = 0; i < p->n; i++) {
        const float *y = s->y + (size_t)i * PANEL_ROWS, *residual = s->residual[i];
        float *out = s->out[i] + row0;
        for (int r = 0; r < rows; r++) {
            float value = w->scale ? y[r] * w->scale[first + (size_t)r] : y[r];
            if (p->bias) value += p->bias[row0 + r];
            out[r] = residual ? residual[row0 + r] + value : value;
        }
    }
}

static void gather(const Exec *x, Scratch *s, int n, const Weight *w, int reg, int row, int column) {
    if (wants_q8(x, w))
        s->q8[n] = act8_at(machine_q8(x, reg, row), column);
    else
        s->f32[n] = machine_f32(x, reg, row) + column;
}

static int n_panels(const Weight *w) {
    return (w->n_out + PANEL_ROWS - 1) / PANEL_ROWS;
}

/* Panels to take at once: long stretches read memory best, several per thread balance the end. */
static int panel_grain(const Exec *x, int total) {
    int grain = total / (pool_n(x->pool) * 8);
    return grain < 1 ? 1 : grain > 16 ? 16 : grain;
}

static void op_matmul(Exec *x, const Op *op, Scratch *s) {
    int total = 0;
    for (int k = 0; k < op->n_out; k++) total += n_panels(op->w[k]);
    int gathered = -1; // the segment whose rows are in s
    Product product = {.n = n_rows(x, op)};
    if (product.n == 0) return; // no logits wanted
    for (int first, grain = panel_grain(x, total); (first = take(x, op, grain)) < total;)
        for (int item = first; item < first + grain && item < total; item++) {
            int k = 0, panel = item;
            while (panel >= n_panels(op->w[k])) panel -= n_panels(op->w[k++]);
            if (k != gathered) {
                product.w = op->w[k], product.bias = op->bias[k], gathered = k;
                for (int i = 0; i < product.n; i++) {
                    gather(x, s, i, product.w, op->in, source_row(x, op, op->in, i), 0);
                    s->out[i] = machine_f32(x, op->out[k], i);
                    s->residual[i] = op->residual == NO_REG || k ? NULL : input(x, op, op->residual, i);
                }
            }
            multiply_panel(x, &product, panel, s);
        }
}

/* Sorts the (row, slot) pairs of the batch by expert: pairs of expert e are s->pair[s->start[e] .. s->start[e
 * + 1]). */
static void sort_by_expert(const Exec *x, const Op *op, Scratch *s) {
    int n_used = op->moe.n_used, n_expert = op->moe.n_expert;
    memset(s->start, 0, (size_t)(n_expert + 1) * sizeof *s->start);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < n_rows(x, op); i++) {
            const int32_t *ids = (const int32_t *)(const void *)input(x, op, op->ids, i);
            for (int slot = 0; slot < n_used; slot++)
                if (pass == 0)
                    s->start[ids[slot] + 1]++;
                else
                    s->pair[s->start[ids[slot]]++] = i * n_used + slot;
        }
        for (int e = 0; pass == 0 && e < n_expert; e++) s->start[e + 1] += s->start[e];
    }
    memmove(s->start + 1, s->start,
            (size_t)n_expert * sizeof *s->start); // filling moved each start to its end
    s->start[0] = 0;
}

static void gather_expert(const Exec *x, const Op *op, int k, int e, Scratch *s) {
    const Weight *w = op->w[k];
    bool per_slot = x->plan->regs[op->in].width != w->n_in; // else all slots read the same row
    for (int n = 0; n < s->start[e + 1] - s->start[e]; n++) {
        int i = s->pair[s->start[e] + n] / op->moe.n_used, slot = s->pair[s->start[e] + n] % op->moe.n_used;
        gather(x, s, n, w, op->in, source_row(x, op, op->in, i), per_slot ? slot * w->n_in : 0);
        s->out[n] = machine_f32(x, op->out[k], i) + (size_t)slot * (size_t)w->n_out;
        s->residual[n] = NULL;
    }
}

static void op_expert(Exec *x, const Op *op, Scratch *s) {
    sort_by_expert(x, op, s);
    int item = 0, taken = take(x, op, 1); // items in order: segment, expert that has rows, panel
    for (int k = 0; k < op->n_out; k++)
        for (int e = 0; e < op->moe.n_expert; e++) {
            const Weight *w = op->w[k];
            Product product = {w, e, op->bias[k] ? op->bias[k] + (size_t)e * (size_t)w->n_out : NULL,
                               s->start[e + 1] - s->start[e]};
            int panels = product.n ? n_panels(w) : 0;
            if (taken < item + panels) gather_expert(x, op, k, e, s);
            for (; taken < item + panels; taken = take(x, op, 1))
                multiply_panel(x, &product, taken - item, s);
            item += panels;
        }
}

/* ---- the end ------------------------------------------------------------------------------------------- */

static void op_sample(Exec *x, const Op *op, Scratch *s) {
    const Batch *b = x->batch;
    int n_vocab = x->plan->regs[op->in].width;
    for (int r; (r = take(x, op, 1)) < b->R;) {
        const float *logits = machine_f32(x, op->in, r);
        const SampleRow *row = b->sampling ? &b->sampling[r] : NULL;
        if (!row)
            b->sampled[r] = sample_finite(logits, n_vocab) ? 0 : -1;
        else
            b->sampled[r] = sample_token(logits, n_vocab, &row->params, row->history, row->n_history,
                                         row->position, s->sample);
    }
}

void machine_op(Exec *x, int i, int thread) {
    const Op *op = &x->plan->ops[i];
    Scratch *s = &x->scratch[thread];
    switch (op->code) {
    case OP_EMBED:
        op_embed(x, op, s);
        break;
    case OP_NORM:
        op_norm(x, op, s);
        break;
    case OP_MATMUL:
    case OP_LOGITS:
        op_matmul(x, op, s);
        break;
    case OP_ROPE:
        op_rope(x, op);
        break;
    case OP_KVPUT:
        op_kvput(x, op);
        break;
    case OP_ATTN:
        op_attn(x, op, s);
        break;
    case OP_GLU:
        op_glu(x, op, s);
        break;
    case OP_ADD:
        op_add(x, op, s);
        break;
    case OP_ROUTE:
        op_route(x, op);
        break;
    case OP_EXPERT:
        op_expert(x, op, s);
        break;
    case OP_MIX:
        op_mix(x, op, s);
        break;
    case OP_SAMPLE:
        op_sample(x, op, s);
        break;
    case OP_COUNT:
        assert(false);
    }
    if (op_is_product(op) || op->code == OP_ATTN)
        for (int k = 0; k < op->n_out; k++) quantize_written(x, op, op->out[k], thread);
}
