/* ops_rows: the ops that make a row of some rows: EMBED, NORM, ADD, GLU, SLICE, JOIN, ROUTE, MOE_SUM, SAMPLE. */
#include "ops.h"
#include "rows.h"

#include <assert.h>
#include <math.h>
#include <string.h>

void op_embed(Exec *x, const Batch *b, const Op *op, Scratch *s) {
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

/* The root of the mean square of n values. */
static float length_of(const float *in, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)in[i] * in[i];
    return (float)sqrt(sum / n);
}

static void cut_values(const float *in, int n, float cut, float *out) {
    double mean = 0, squares = 0;
    for (int i = 0; i < n; i++) mean += (double)in[i] / n;
    for (int i = 0; i < n; i++) squares += (in[i] - mean) * (in[i] - mean);
    float least = (float)(mean + cut * sqrt(squares / (n - 1)));
    for (int i = 0; i < n; i++) out[i] = in[i] > least ? in[i] - least : 0;
}

void op_norm(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    int in = op_in(op, 0), out = op_out(op, 0), width = x->plan->regs[in].width;
    int residual = op_operand(op, ROLE_RESIDUAL, 0), like = op_in(op, 1);
    int n = op->norm.head_dim ? op->norm.head_dim : width; // values normalised together
    for (int i; (i = take_items(x, op, 1)) < n_rows(b, op);) {
        float *row = row_begin(x, out, i, s);
        const float *from = input(x, b, op, in, i);
        for (int at = 0; at < width; at += n) {
            NormParams p = norm_at(op->norm, at);
            if (p.cut != 0)
                cut_values(from + at, n, p.cut, row + at);
            else
                x->kernels->norm(&p, from + at, n, row + at);
        }
        if (like != NO_REG) {
            float length = length_of(input(x, b, op, like, i), x->plan->regs[like].width);
            for (int k = 0; k < width; k++) row[k] *= length;
        }
        if (residual != NO_REG) {
            const float *added = input(x, b, op, residual, i);
            for (int k = 0; k < width; k++) row[k] += added[k];
        }
        row_done(x, out, i, row);
    }
}

void op_add(Exec *x, const Batch *b, const Op *op, Scratch *s) {
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

void op_glu(Exec *x, const Batch *b, const Op *op, Scratch *s) {
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

void op_slice(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    int in = op_in(op, 0), out = op_out(op, 0), period = op->slice.period, n = op->slice.n;
    for (int i; (i = take_items(x, op, 1)) < n_rows(b, op);) {
        const float *from = input(x, b, op, in, i) + op->slice.first;
        float *row = row_begin(x, out, i, s);
        for (int k = 0; k < x->plan->regs[out].width / n; k++)
            memcpy(row + k * n, from + k * period, (size_t)n * sizeof *row);
        row_done(x, out, i, row);
    }
}

void op_join(Exec *x, const Batch *b, const Op *op, Scratch *s) {
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

void op_route(Exec *x, const Batch *b, const Op *op, Scratch *s) {
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
        for (int k = 0; k < m->n_used; k++) weights[k] *= m->scale / (m->normalise ? sum : 1);
    }
}

void op_moe_sum(Exec *x, const Batch *b, const Op *op, Scratch *s) {
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

/* ---- the end ------------------------------------------------------------------------------------------- */

void op_sample(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    static const SampleParams best_token = {.top_p = 1, .repeat_penalty = 1};
    int in = op_in(op, 0), n_vocab = x->plan->regs[in].width;
    for (int r; (r = take_items(x, op, 1)) < b->R;) {
        int t = b->out_row[r], n_history = b->position[t] + 1;
        const SampleParams *p = b->sampling ? &b->sampling[r] : &best_token;
        b->sampled[r] =
            sample_token(machine_f32(x, in, r), n_vocab, p, machine_history(x, b->seq[t]), n_history,
                         (uint64_t)n_history, machine_mu(x, b->seq[t]) + b->position[t], s->sample);
    }
}
