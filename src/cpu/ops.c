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
    const int32_t *index = op->embed.by_position ? b->position : b->token;
    int out = op_out(op, 0);
    for (int t; (t = take_items(x, op, 1)) < n_rows(b, op);) {
        float *row = row_begin(x, out, t, s), scale = op->embed.scale;
        assert(index[t] >= 0 && index[t] < w->n_out);
        traits->decode(w->data + (size_t)index[t] * w->row_bytes, (size_t)(w->n_in / traits->n_weights), row);
        for (int i = 0; w->scale && i < w->n_in; i++) row[i] *= w->scale[index[t]];
        for (int i = 0; scale != 1 && i < w->n_in; i++) row[i] *= scale;
        row_done(x, out, t, row);
    }
}

/* The parameters of the head that begins at column `at`. */
static NormParams norm_at(NormParams p, int at) {
    if (p.per_head && p.weight) p.weight += at;
    if (p.per_head && p.bias) p.bias += at;
    return p;
}

static void op_norm(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    int in = op_in(op, 0), out = op_out(op, 0), width = x->plan->regs[in].width;
    int residual = op_operand(op, ROLE_RESIDUAL, 0);
    int n = op->norm.head_dim ? op->norm.head_dim : width; // values normalised together
    for (int i; (i = take_items(x, op, 1)) < n_rows(b, op);) {
        float *row = row_begin(x, out, i, s);
        const float *from = input(x, b, op, in, i);
        for (int at = 0; at < width; at += n) {
            NormParams p = norm_at(op->norm, at);
            x->kernels->norm(&p, from + at, n, row + at);
        }
        if (residual != NO_REG) {
            const float *added = input(x, b, op, residual, i);
            for (int k = 0; k < width; k++) row[k] += added[k];
        }
        row_done(x, out, i, row);
    }
}

static void op_add(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    int out = op_out(op, 0), width = x->plan->regs[out].width;
    float a_scale = op->add.a_scale, scale = op->add.scale;
    for (int i; (i = take_items(x, op, 1)) < n_rows(b, op);) {
        const float *first = input(x, b, op, op_in(op, 0), i), *second = input(x, b, op, op_in(op, 1), i);
        float *row = row_begin(x, out, i, s);
        for (int k = 0; k < width; k++) row[k] = scale * (a_scale * first[k] + second[k]);
        row_done(x, out, i, row);
    }
}

enum { GLU_COLUMNS = 1024 }; // of a work item: a single row is shared too

/* Columns column..column+n-1 of the gate, each repeated so that it is as wide as the other factor. */
static const float *wide_gate(const float *gate, int repeat, int column, int n, float *room) {
    if (repeat == 1) return gate + column;
    for (int k = 0; k < n; k++) room[k] = gate[(column + k) / repeat];
    return room;
}

static void op_glu(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    int gate = op_in(op, 0), up = op_in(op, 1), out = op_out(op, 0);
    const Reg *reg = &x->plan->regs[out];
    int n_parts = (reg->width + GLU_COLUMNS - 1) / GLU_COLUMNS,
        repeat = reg->width / x->plan->regs[gate].width;
    for (int item; (item = take_items(x, op, 1)) < n_rows(b, op) * n_parts;) {
        int i = item / n_parts, column = item % n_parts * GLU_COLUMNS;
        int n = reg->width - column < GLU_COLUMNS ? reg->width - column : GLU_COLUMNS;
        float *row = row_begin(x, out, i, s) + column, room[GLU_COLUMNS];
        const float *wide = wide_gate(input(x, b, op, gate, i), repeat, column, n, room);
        x->kernels->glu(&op->glu, wide, up == NO_REG ? NULL : input(x, b, op, up, i) + column, n, row);
        if (reg->has[FORM_Q8]) x->kernels->quantize(row, n, act8_at(machine_q8(x, out, i), column));
    }
}

static void op_slice(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    int in = op_in(op, 0), out = op_out(op, 0), period = op->slice.period, n = op->slice.n;
    for (int i; (i = take_items(x, op, 1)) < n_rows(b, op);) {
        const float *from = input(x, b, op, in, i) + op->slice.first;
        float *row = row_begin(x, out, i, s);
        for (int k = 0; k < x->plan->regs[out].width / n; k++)
            memcpy(row + k * n, from + k * period, (size_t)n * sizeof *row);
        row_done(x, out, i, row);
    }
}

static void op_join(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    int out = op_out(op, 0), n_head = op->join.n_head, width = x->plan->regs[out].width / n_head;
    for (int i; (i = take_items(x, op, 1)) < n_rows(b, op);) {
        float *row = row_begin(x, out, i, s), *to = row;
        for (int k = 0, n; k < 2; k++, to += n) { // one input, its columns of every head; then the other
            const float *from = input(x, b, op, op_in(op, k), i);
            n = x->plan->regs[op_in(op, k)].width / n_head;
            for (int h = 0; h < n_head; h++) memcpy(to + h * width, from + h * n, (size_t)n * sizeof *row);
        }
        row_done(x, out, i, row);
    }
}

/* ---- experts ------------------------------------------------------------------------------------------- */

/* The scores that the weights of the experts are made of, [n_expert]. */
static void expert_scores(const MoeParams *m, const float *logits, float *score) {
    float max = logits[0], sum = 0;
    for (int e = 1; e < m->n_expert; e++) max = logits[e] > max ? logits[e] : max;
    for (int e = 0; e < m->n_expert; e++)
        score[e] = m->kind == ROUTE_SIGMOID ? 1 / (1 + expf(-logits[e])) : expf(logits[e] - max);
    for (int e = 0; e < m->n_expert; e++) sum += score[e];
    for (int e = 0; m->kind == ROUTE_SOFTMAX && e < m->n_expert; e++) score[e] /= sum;
}

/* The index of the next largest value behind the index `last` in falling order, the lower index first where
 * values are equal; last -1: of the largest.  NaN is none of them. */
static int next_largest(const float *value, int n, int last) {
    int best = -1;
    for (int i = 0; i < n; i++) {
        bool behind = last < 0 || value[i] < value[last] || (value[i] == value[last] && i > last);
        if (behind && (best < 0 || value[i] > value[best])) best = i;
    }
    return best;
}

/* Leaves only the experts of the best groups to be chosen, by the sum of the two best of each. */
static void choose_groups(const MoeParams *m, float *choice, float *group_score) {
    int n = m->n_expert / m->n_group, chosen = -1;
    for (int g = 0; g < m->n_group; g++) {
        const float *of = choice + g * n;
        int first = next_largest(of, n, -1), second = next_largest(of, n, first);
        group_score[g] = of[first] + (second < 0 ? 0 : of[second]);
        if (isnan(group_score[g])) group_score[g] = -INFINITY;
    }
    for (int k = 0; k < m->n_group_used; k++) chosen = next_largest(group_score, m->n_group, chosen);
    for (int g = 0; g < m->n_group; g++) {
        bool used =
            group_score[g] > group_score[chosen] || (group_score[g] == group_score[chosen] && g <= chosen);
        for (int e = g * n; !used && e < (g + 1) * n; e++) choice[e] = -INFINITY;
    }
}

static void op_route(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    const MoeParams *m = &op->moe;
    float *score = s->score, *choice = score + m->n_expert, *group_score = choice + m->n_expert;
    for (int i; (i = take_items(x, op, 1)) < n_rows(b, op);) {
        int32_t *ids = (int32_t *)(void *)machine_f32(x, op_out(op, 0), i); // a register's cells hold ids too
        float *weights = machine_f32(x, op_out(op, 1), i), sum = 0;
        expert_scores(m, input(x, b, op, op_in(op, 0), i), score);
        for (int e = 0; e < m->n_expert; e++) {
            choice[e] = m->bias ? score[e] + m->bias[e] : score[e];
            if (isnan(choice[e])) choice[e] = -INFINITY; // so that there are n_used to choose
        }
        if (m->n_group > 1) choose_groups(m, choice, group_score);
        for (int k = 0; k < m->n_used; k++) {
            ids[k] = next_largest(choice, m->n_expert, k ? ids[k - 1] : -1);
            weights[k] = score[ids[k]];
            sum += weights[k];
        }
        for (int k = 0; k < m->n_used; k++) {
            weights[k] *= m->scale / (m->normalise ? sum : 1);
            if (m->expert_scale) weights[k] *= m->expert_scale[ids[k]];
        }
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

/* Heads may be a view: the whole row of its base is quantised again. */
static void op_rope(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    (void)s;
    const RopeParams *rope = &op->rope;
    const Rotation *rotation = &x->rotations[x->rotation_of[op - x->plan->ops]];
    size_t n = (size_t)rope->n_rot / 2;
    for (int t; (t = take_items(x, op, 1)) < n_rows(b, op);)
        for (int k = 0; k < op_count(op, ROLE_BOTH); k++) {
            int reg = op_operand(op, ROLE_BOTH, k), base = plan_base(x->plan, reg);
            float *heads = machine_f32(x, reg, t);
            for (int h = 0; h < rope->n_head[k]; h++)
                rotate_head(rope, rotation->cos + (size_t)t * n, rotation->sin + (size_t)t * n,
                            heads + h * rope->head_dim);
            row_done(x, base, t, machine_f32(x, base, t));
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

/* The first position that the row at `position` sees. */
static int first_seen(const AttnParams *a, int position) {
    int window = a->window && position >= a->window ? position - a->window + 1 : 0;
    int chunk = a->chunk ? position / a->chunk * a->chunk : 0;
    return window > chunk ? window : chunk;
}

static float score_scale(const AttnParams *a, int position) {
    if (a->temperature == 0) return a->scale;
    float length = floorf((float)(position + a->temperature_first) / (float)a->temperature_length);
    return a->scale * (1 + a->temperature * logf(1 + length));
}

static void op_attn(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    CacheView cache = cache_view(x, op);
    const CacheLayer *l = &cache.layer;
    int group = op->attn.n_head / op->attn.n_kv_head;
    for (int item; (item = take_items(x, op, 1)) < n_rows(b, op) * op->attn.n_kv_head;) {
        int i = item / op->attn.n_kv_head, h = item % op->attn.n_kv_head;
        int position = b->position[i], first = first_seen(&op->attn, position);
        AttnJob job = {.q = input(x, b, op, op_in(op, 0), i) + (size_t)(h * group * l->width[CACHE_K]),
                       .n_q = group,
                       .cache = &cache,
                       .pages = cache_pages(&cache, b->seq[i]),
                       .head = h,
                       .first = first,
                       .n_pos = position + 1 - first,
                       .scale = score_scale(&op->attn, position),
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
    const float *bias;    // of this expert, or NULL
    float scale, softcap; // as in ProductParams
    int n;                // gathered in s->q8 or s->f32, s->out, s->residual
} Product;

static bool wants_q8(const Exec *x, const Weight *w) {
    return quant_traits(w->type)->act == QUANT_ACT_Q8 && !x->plan->config.act_f32;
}

/* scale * (y * scale of the row + bias), with the softcap; y: [PANEL_ROWS], the results of one input. */
static void finish_panel(const Exec *x, const Product *p, int row0, int rows, float *y) {
    const Weight *w = p->w;
    const float *scale = w->scale ? w->scale + (size_t)p->expert * (size_t)w->n_out + row0 : NULL;
    for (int r = 0; scale && r < rows; r++) y[r] *= scale[r];
    for (int r = 0; p->bias && r < rows; r++) y[r] += p->bias[row0 + r];
    for (int r = 0; p->scale != 1 && r < rows; r++) y[r] *= p->scale;
    if (p->softcap != 0) x->kernels->softcap(p->softcap, y, rows, y);
}

static void multiply_panel(const Exec *x, const Product *p, int panel, Scratch *s) {
    const Weight *w = p->w;
    int row0 = panel * PANEL_ROWS, rows = w->n_out - row0 < PANEL_ROWS ? w->n_out - row0 : PANEL_ROWS;
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
        float *y = s->y + (size_t)i * PANEL_ROWS, *out = s->out[i] + row0;
        const float *residual = s->residual[i];
        finish_panel(x, p, row0, rows, y);
        for (int r = 0; r < rows; r++) out[r] = residual ? residual[row0 + r] + y[r] : y[r];
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
    Product product = {.n = n_rows(b, op), .scale = op->product.scale, .softcap = op->product.softcap};
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

/* The experts of row i, by slot; NULL: slot s has matrix s. */
static const int32_t *row_experts(const Exec *x, const Batch *b, const Op *op, int i) {
    int reg = op_operand(op, ROLE_IDS, 0);
    return reg == NO_REG ? NULL : (const int32_t *)(const void *)input(x, b, op, reg, i);
}

/* Sorts the (row, slot) pairs of the batch by expert: pairs of expert e are s->pair[s->start[e] .. s->start[e
 * + 1]). */
static void sort_by_expert(const Exec *x, const Batch *b, const Op *op, Scratch *s) {
    int n_used = op->product.moe.n_used, n_expert = op->product.moe.n_expert;
    memset(s->start, 0, (size_t)(n_expert + 1) * sizeof *s->start);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < n_rows(b, op); i++) {
            const int32_t *ids = row_experts(x, b, op, i);
            for (int slot = 0; slot < n_used; slot++) {
                int e = ids ? ids[slot] : slot;
                if (pass == 0)
                    s->start[e + 1]++;
                else
                    s->pair[s->start[e]++] = i * n_used + slot;
            }
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
            Product product = {.w = w,
                               .expert = e,
                               .bias = op->bias[k] ? op->bias[k] + (size_t)e * (size_t)w->n_out : NULL,
                               .scale = op->product.scale,
                               .n = s->start[e + 1] - s->start[e]};
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
        [OP_EMBED] = op_embed,     [OP_NORM] = op_norm,     [OP_MATMUL] = op_matmul, [OP_ROPE] = op_rope,
        [OP_KVPUT] = op_kvput,     [OP_ATTN] = op_attn,     [OP_GLU] = op_glu,       [OP_ADD] = op_add,
        [OP_SLICE] = op_slice,     [OP_JOIN] = op_join,     [OP_ROUTE] = op_route,   [OP_EXPERT] = op_expert,
        [OP_MOE_SUM] = op_moe_sum, [OP_LOGITS] = op_matmul, [OP_SAMPLE] = op_sample, [OP_CONV] = op_conv,
        [OP_SCAN] = op_scan,       [OP_DELTA] = op_delta,
    };
    const Op *op = &x->plan->ops[i];
    assert(run[op->code] && "an op of the capability has its function");
    run[op->code](x, b, op, &x->scratch[thread]);
    if (op_writes_parts(op))
        for (int k = 0; k < op_count(op, ROLE_WRITE); k++) quantize_written(x, b, op, op_out(op, k), thread);
}
