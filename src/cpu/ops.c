/* ops: what each op of the tape does on the CPU, one function per op.
 *
 * A function is called by all threads with the same op and takes items of its work until none are left. Items
 * are rows for the small ops, panels of 16 weight rows for products, (row, KV head) pairs for attention.  An
 * op that writes a row in parts has one more barrier before the row is quantised.  Code here moves and adds
 * single numbers; arithmetic on many numbers goes through the kernel table. */
#include "rows.h"
#include "../base/float.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* Row `row` of the register, or of a view's base. */
static uint8_t *row_address(const Exec *x, int reg, int row, Form form) {
    const Reg *r = &x->plan->regs[reg];
    int rows_max = r->on_R ? x->config.R_max : x->config.T_max;
    assert(r->has[form]);
    return x->regs[r->on_R] + r->offset[form] * (size_t)rows_max +
           (size_t)row * plan_row_bytes(x->plan, reg, form);
}

static Act8 act8_at(Act8 a, int column) { // column % 32 == 0
    return (Act8){a.q + column, a.d + column / ACT8_GROUP, a.sum + column / ACT8_SUM};
}

float *machine_f32(const Exec *x, int reg, int row) {
    return (float *)(void *)row_address(x, reg, row, FORM_F32) + x->plan->regs[reg].column;
}

Act8 machine_q8(const Exec *x, int reg, int row) {
    const Plan *p = x->plan;
    Act8 whole = act8_view(row_address(x, reg, row, FORM_Q8), p->regs[plan_base(p, reg)].width);
    return act8_at(whole, p->regs[reg].column);
}

/* ---- small ops ----------------------------------------------------------------------------------------- */

static void op_embed(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    const Weight *w = op->w[0];
    const QuantTraits *traits = quant_traits(w->type);
    int out = op_out(op, 0);
    for (int t; (t = take_items(x, op, 1)) < n_rows(b, op);) {
        int token = b->token[t];
        float *row = row_begin(x, out, t, s), scale = op->embed.scale;
        traits->decode(w->data + (size_t)token * w->row_bytes, (size_t)(w->n_in / traits->n_weights), row);
        for (int i = 0; w->scale && i < w->n_in; i++) row[i] *= w->scale[token];
        for (int i = 0; scale != 1 && i < w->n_in; i++) row[i] *= scale;
        row_done(x, out, t, row);
    }
}

static void op_norm(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    int in = op_in(op, 0), out = op_out(op, 0), width = x->plan->regs[in].width;
    int n = op->norm.head_dim ? op->norm.head_dim : width; // values normalised together
    for (int i; (i = take_items(x, op, 1)) < n_rows(b, op);) {
        float *row = row_begin(x, out, i, s);
        const float *from = input(x, b, op, in, i);
        for (int at = 0; at < width; at += n)
            x->kernels->rms_norm(from + at, op->norm.weight, n, op->norm.eps, row + at);
        row_done(x, out, i, row);
    }
}

static void op_add(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    int out = op_out(op, 0), width = x->plan->regs[out].width;
    for (int i; (i = take_items(x, op, 1)) < n_rows(b, op);) {
        const float *first = input(x, b, op, op_in(op, 0), i), *second = input(x, b, op, op_in(op, 1), i);
        float *row = row_begin(x, out, i, s);
        for (int k = 0; k < width; k++) row[k] = first[k] + second[k];
        row_done(x, out, i, row);
    }
}

/* By stretches of columns, so that a single row is shared too. */
static void op_glu(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    enum { STRETCH = 1024 };
    int gate = op_in(op, 0), up = op_in(op, 1), out = op_out(op, 0);
    const Reg *reg = &x->plan->regs[out];
    int n_stretches = (reg->width + STRETCH - 1) / STRETCH;
    for (int item; (item = take_items(x, op, 1)) < n_rows(b, op) * n_stretches;) {
        int i = item / n_stretches, column = item % n_stretches * STRETCH;
        int n = reg->width - column < STRETCH ? reg->width - column : STRETCH;
        float *row = row_begin(x, out, i, s) + column;
        x->kernels->glu(op->glu.act, input(x, b, op, gate, i) + column, input(x, b, op, up, i) + column, n,
                        row);
        if (reg->has[FORM_Q8]) x->kernels->quantize(row, n, act8_at(machine_q8(x, out, i), column));
    }
}

/* The expert with the largest score among those not in ids[n]; the lower id where scores are equal. */
static int best_expert(const float *score, const float *bias, int n_expert, const int32_t *ids, int n) {
    int best = -1;
    float best_score = 0;
    for (int e = 0; e < n_expert; e++) {
        bool taken = false;
        for (int k = 0; k < n; k++) taken |= ids[k] == e;
        float value = bias ? score[e] + bias[e] : score[e];
        if (taken || (best >= 0 && !(value > best_score))) continue;
        best = e;
        best_score = value;
    }
    return best;
}

/* What the router's choice and weights are made of, [n_expert]. */
static void expert_scores(const MoeParams *m, const float *logits, float *score) {
    float max = logits[0], sum = 0;
    for (int e = 1; e < m->n_expert; e++) max = logits[e] > max ? logits[e] : max;
    for (int e = 0; e < m->n_expert; e++)
        score[e] = m->kind == ROUTE_SIGMOID ? 1 / (1 + expf(-logits[e])) : expf(logits[e] - max);
    for (int e = 0; e < m->n_expert; e++) sum += score[e];
    for (int e = 0; m->kind == ROUTE_SOFTMAX && e < m->n_expert; e++) score[e] /= sum;
}

static void op_route(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    const MoeParams *m = &op->moe;
    int in = op_in(op, 0);
    float *score = s->row;
    for (int i; (i = take_items(x, op, 1)) < n_rows(b, op);) {
        int32_t *ids = (int32_t *)(void *)machine_f32(x, op_out(op, 0), i); // a register's cells hold ids too
        float *weights = machine_f32(x, op_out(op, 1), i), sum = 0;
        expert_scores(m, input(x, b, op, in, i), score);
        for (int k = 0; k < m->n_used; k++) {
            ids[k] = best_expert(score, m->bias, m->n_expert, ids, k);
            weights[k] = score[ids[k]];
            sum += weights[k];
        }
        for (int k = 0; k < m->n_used; k++) weights[k] *= m->scale / (m->normalise ? sum : 1);
    }
}

static void op_moe_sum(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    int out = op_out(op, 0), width = x->plan->regs[out].width, residual = op_operand(op, ROLE_RESIDUAL, 0);
    for (int i; (i = take_items(x, op, 1)) < n_rows(b, op);) {
        const float *in = input(x, b, op, op_in(op, 0), i), *weights = input(x, b, op, op_in(op, 1), i);
        const float *added = residual == NO_REG ? NULL : input(x, b, op, residual, i);
        float *row = row_begin(x, out, i, s);
        for (int k = 0; k < width; k++) {
            float sum = 0;
            for (int slot = 0; slot < op->moe.n_used; slot++) sum += weights[slot] * in[slot * width + k];
            row[k] = added ? sum + added[k] : sum;
        }
        row_done(x, out, i, row);
    }
}

/* ---- rotation and cache -------------------------------------------------------------------------------- */

void machine_rotate(Exec *x, const Batch *b, int thread) {
    for (int r = 0; r < x->n_rotations; r++) {
        const Rotation *rotation = &x->rotations[r];
        size_t n = (size_t)rotation->rope.n_rot / 2;
        for (int t = thread; t < b->T; t += pool_n(x->pool))
            for (size_t i = 0; i < n; i++) {
                double angle = b->position[t] * rotation->frequency[i];
                rotation->cos[(size_t)t * n + i] = (float)cos(angle) * rotation->rope.magnitude;
                rotation->sin[(size_t)t * n + i] = (float)sin(angle) * rotation->rope.magnitude;
            }
    }
}

static void rotate_head(const RopeParams *rope, const float *c, const float *s, float *head) {
    int n = rope->n_rot / 2;
    bool halves = rope->pairing == ROPE_HALVES;
    head += rope->first;
    for (int i = 0; i < n; i++) {
        float *first = head + (halves ? i : 2 * i), *second = halves ? first + n : first + 1;
        float a = *first, b = *second;
        *first = a * c[i] - b * s[i];
        *second = a * s[i] + b * c[i];
    }
}

static void op_rope(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    (void)s;
    const RopeParams *rope = &op->rope;
    const Rotation *rotation = &x->rotations[x->rotation_of[op - x->plan->ops]];
    size_t n = (size_t)rope->n_rot / 2;
    for (int t; (t = take_items(x, op, 1)) < n_rows(b, op);)
        for (int k = 0; k < op_count(op, ROLE_BOTH); k++) {
            float *heads = machine_f32(x, op_operand(op, ROLE_BOTH, k), t);
            for (int h = 0; h < rope->n_head[k]; h++)
                rotate_head(rope, rotation->cos + (size_t)t * n, rotation->sin + (size_t)t * n,
                            heads + h * rope->head_dim);
        }
}

/* Keeps row t of the batch as K or V. */
static void put_row(const Exec *x, const Batch *b, const CacheView *cache, int t, CachePart part,
                    const float *in) {
    const CacheLayer *l = &cache->layer;
    int position = b->position[t], width = l->width[part];
    int32_t page = cache_pages(cache, b->seq[t])[position / CACHE_PAGE];
    size_t at = (size_t)(position % CACHE_PAGE) * (size_t)l->pitch[part];
    for (int h = 0; h < l->n_head; h++, in += width) {
        KvRows rows = cache_rows(cache, page, part, h);
        if (l->type == KV_F16)
            x->kernels->to_f16(in, width, (uint16_t *)(void *)rows.cells + at);
        else
            kv_put(l->type, in, width, rows, at);
    }
}

static void op_kvput(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    (void)s;
    CacheView cache = cache_view(x, op);
    for (int t; (t = take_items(x, op, 1)) < n_rows(b, op);) {
        put_row(x, b, &cache, t, CACHE_K, machine_f32(x, op_in(op, 0), t));
        if (!cache_v_in_k(&cache.layer)) put_row(x, b, &cache, t, CACHE_V, machine_f32(x, op_in(op, 1), t));
    }
}

static void op_attn(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    CacheView cache = cache_view(x, op);
    const CacheLayer *l = &cache.layer;
    int group = op->attn.n_head / op->attn.n_kv_head, window = op->attn.window;
    for (int item; (item = take_items(x, op, 1)) < n_rows(b, op) * op->attn.n_kv_head;) {
        int i = item / op->attn.n_kv_head, h = item % op->attn.n_kv_head;
        int end = b->position[i] + 1, first = window && end > window ? end - window : 0;
        AttnJob job = {.q = input(x, b, op, op_in(op, 0), i) + (size_t)(h * group * l->width[CACHE_K]),
                       .n_q = group,
                       .cache = &cache,
                       .pages = cache_pages(&cache, b->seq[i]),
                       .head = h,
                       .first = first,
                       .n_pos = end - first,
                       .scale = op->attn.scale,
                       .softcap = op->attn.softcap,
                       .sinks = op->attn.sinks ? op->attn.sinks + h * group : NULL,
                       .scores = s->scores,
                       .out = machine_f32(x, op_out(op, 0), i) + (size_t)(h * group * l->width[CACHE_V])};
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
                 .rows = weight_rows(w, p->expert) + (size_t)row0 * w->row_bytes,
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

static void op_matmul(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    int total = 0, in = op_in(op, 0), residual = op_operand(op, ROLE_RESIDUAL, 0);
    for (int k = 0; k < op->n_w; k++) total += n_panels(op->w[k]);
    int gathered = -1; // the segment whose rows are in s
    Product product = {.n = n_rows(b, op)};
    if (product.n == 0) return; // no logits wanted
    for (int first, grain = panel_grain(x, total); (first = take_items(x, op, grain)) < total;)
        for (int item = first; item < first + grain && item < total; item++) {
            int k = 0, panel = item;
            while (panel >= n_panels(op->w[k])) panel -= n_panels(op->w[k++]);
            if (k != gathered) {
                product.w = op->w[k];
                product.bias = op->bias[k];
                gathered = k;
                for (int i = 0; i < product.n; i++) {
                    gather(x, s, i, product.w, in, source_row(x, b, op, in, i), 0);
                    s->out[i] = machine_f32(x, op_out(op, k), i);
                    s->residual[i] = residual == NO_REG || k ? NULL : input(x, b, op, residual, i);
                }
            }
            multiply_panel(x, &product, panel, s);
        }
}

/* Sorts the (row, slot) pairs of the batch by expert: pairs of expert e are s->pair[s->start[e] .. s->start[e
 * + 1]). */
static void sort_by_expert(const Exec *x, const Batch *b, const Op *op, Scratch *s) {
    int n_used = op->product.moe.n_used, n_expert = op->product.moe.n_expert;
    int ids_reg = op_operand(op, ROLE_IDS, 0);
    memset(s->start, 0, (size_t)(n_expert + 1) * sizeof *s->start);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < n_rows(b, op); i++) {
            const int32_t *ids = (const int32_t *)(const void *)input(x, b, op, ids_reg, i);
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

static void gather_expert(const Exec *x, const Batch *b, const Op *op, int k, int e, Scratch *s) {
    const Weight *w = op->w[k];
    int in = op_in(op, 0), out = op_out(op, k), n_used = op->product.moe.n_used;
    bool per_slot = x->plan->regs[in].width != w->n_in; // else all slots read the same row
    for (int n = 0; n < s->start[e + 1] - s->start[e]; n++) {
        int i = s->pair[s->start[e] + n] / n_used, slot = s->pair[s->start[e] + n] % n_used;
        gather(x, s, n, w, in, source_row(x, b, op, in, i), per_slot ? slot * w->n_in : 0);
        s->out[n] = machine_f32(x, out, i) + (size_t)slot * (size_t)w->n_out;
        s->residual[n] = NULL;
    }
}

static void op_expert(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    sort_by_expert(x, b, op, s);
    int item = 0, taken = take_items(x, op, 1); // items in order: segment, expert that has rows, panel
    for (int k = 0; k < op->n_w; k++)
        for (int e = 0; e < op->product.moe.n_expert; e++) {
            const Weight *w = op->w[k];
            Product product = {w, e, op->bias[k] ? op->bias[k] + (size_t)e * (size_t)w->n_out : NULL,
                               s->start[e + 1] - s->start[e]};
            int panels = product.n ? n_panels(w) : 0;
            if (taken < item + panels) gather_expert(x, b, op, k, e, s);
            for (; taken < item + panels; taken = take_items(x, op, 1))
                multiply_panel(x, &product, taken - item, s);
            item += panels;
        }
}

/* ---- the end ------------------------------------------------------------------------------------------- */

static void op_sample(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    static const SampleParams best_token = {.top_p = 1, .repeat_penalty = 1};
    int in = op_in(op, 0), n_vocab = x->plan->regs[in].width;
    for (int r; (r = take_items(x, op, 1)) < b->R;) {
        int t = b->out_row[r], n_history = b->position[t] + 1;
        const SampleParams *p = b->sampling ? &b->sampling[r] : &best_token;
        b->sampled[r] = sample_token(machine_f32(x, in, r), n_vocab, p, machine_history(x, b->seq[t]),
                                     n_history, (uint64_t)n_history, s->sample);
    }
}

/* After an op that wrote rows in parts: a barrier, then each thread quantises some of the rows. */
static void quantize_written(Exec *x, const Batch *b, const Op *op, int reg, int thread) {
    if (!x->plan->regs[reg].has[FORM_Q8]) return;
    pool_barrier(x->pool);
    for (int i = thread; i < n_rows(b, op); i += pool_n(x->pool)) row_done(x, reg, i, machine_f32(x, reg, i));
}

void machine_op(Exec *x, const Batch *b, int i, int thread) {
    static void (*const run[OP_COUNT])(Exec *, const Batch *, const Op *, Scratch *) = {
        [OP_EMBED] = op_embed,   [OP_NORM] = op_norm,     [OP_MATMUL] = op_matmul,   [OP_ROPE] = op_rope,
        [OP_KVPUT] = op_kvput,   [OP_ATTN] = op_attn,     [OP_GLU] = op_glu,         [OP_ADD] = op_add,
        [OP_ROUTE] = op_route,   [OP_EXPERT] = op_expert, [OP_MOE_SUM] = op_moe_sum, [OP_LOGITS] = op_matmul,
        [OP_SAMPLE] = op_sample, [OP_CONV] = op_conv,     [OP_SCAN] = op_scan,       [OP_DELTA] = op_delta,
    };
    const Op *op = &x->plan->ops[i];
    assert(run[op->code] && "an op of the capability has its function");
    run[op->code](x, b, op, &x->scratch[thread]);
    if (op_writes_parts(op))
        for (int k = 0; k < op_count(op, ROLE_WRITE); k++) quantize_written(x, b, op, op_out(op, k), thread);
}
