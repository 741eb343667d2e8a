/* ops_state: the ops whose layer keeps a state of fixed size: CONV, SCAN and DELTA.
 *
 * A state belongs to one sequence, so that the rows of a sequence are computed one behind the other; what threads
 * share are parts of the state that do not depend on each other: heads, and columns of a convolution.  An item of
 * work is one part of one sequence with all its rows in the batch.  The state before the first row, behind n
 * positions, is checkpoint n of the cache; that behind the last row is written to the checkpoint of its length,
 * which may be the same page.  Row after row does the same arithmetic in prompts and in decoding, to the bit.
 *
 * The one trick: SCAN is DELTA without the correction.  Both are S = decay S + key value^T, out = query^T S, on a
 * state whose columns are the lanes of vectors. */
#include "ops.h"
#include "rows.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* ---- chains and parts ---------------------------------------------------------------------------------- */

void machine_chain_rows(Exec *x, const Batch *b) {
    RowChains *c = &x->chains;
    for (int seq = 0; seq < x->config.n_seq; seq++) c->number[seq] = -1;
    c->n = 0;
    for (int t = 0; t < b->T; t++) {
        int *number = &c->number[b->seq[t]];
        if (*number < 0) {
            *number = c->n++;
            c->first[*number] = t;
        } else {
            assert(b->position[t] == b->position[c->last[*number]] + 1); // a state cannot leave one out
            c->next[c->last[*number]] = t;
        }
        c->last[*number] = t;
        c->next[t] = -1;
    }
}

typedef struct Part {
    int number;        // of n_parts
    int first;         // row of the batch; the others follow in the chain
    const float *from; // the whole state before the first row; NULL: zeros
    float *to;         // the whole state behind the last row
} Part;

/* The state of a sequence behind n positions. */
static float *checkpoint(const CacheView *cache, int seq, int n) {
    int32_t page = cache_pages(cache, seq)[n % cache->layer.table_pages];
    return (float *)(void *)cache_page(cache, page);
}

static bool take_part(Exec *x, const Batch *b, const Op *op, int n_parts, Part *out) {
    CacheView cache = cache_view(x, op);
    int item = take_items(x, op, 1), chain = item / n_parts;
    assert(!op->on_R); // the state needs all rows
    if (chain >= x->chains.n) return false;
    int first = x->chains.first[chain], last = x->chains.last[chain], seq = b->seq[first];
    *out = (Part){.number = item % n_parts, .first = first};
    if (b->position[first] > 0) out->from = checkpoint(&cache, seq, b->position[first]);
    out->to = checkpoint(&cache, seq, b->position[last] + 1);
    return true;
}

/* ---- CONV ---------------------------------------------------------------------------------------------- */

enum { STRETCH = 256 }; // columns of a part

/* One row of n columns from number c on; tap[k]: the inputs of tap k. */
static void convolve(const ConvParams *p, int c, int n, const float *const *tap, float *out) {
    const float *weight = p->weight + (size_t)c * (size_t)p->n_tap;
    for (int i = 0; i < n; i++, weight += p->n_tap) {
        float sum = 0;
        for (int k = 0; k < p->n_tap; k++) sum += weight[k] * tap[k][i];
        out[i] = p->bias ? sum + p->bias[c + i] : sum;
    }
}

/* The state is the latest n_tap - 1 inputs, [n_tap - 1][width]. */
void op_conv(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    static const float zeros[STRETCH];
    const ConvParams *p = &op->conv;
    int in = op_in(op, 0), out = op_out(op, 0), width = x->plan->regs[in].width, n_kept = p->n_tap - 1;
    (void)s;
    for (Part part; take_part(x, b, op, (width + STRETCH - 1) / STRETCH, &part);) {
        int c = part.number * STRETCH, n = width - c < STRETCH ? width - c : STRETCH;
        const float *tap[CONV_MAX_TAPS];
        for (int k = 0; k < n_kept; k++) tap[k] = part.from ? part.from + k * width + c : zeros;
        for (int t = part.first; t >= 0; t = x->chains.next[t]) {
            tap[n_kept] = machine_f32(x, in, t) + c;
            float *row = machine_f32(x, out, t) + c;
            convolve(p, c, n, tap, row);
            if (p->act != ACT_NONE) x->kernels->glu(&(GluParams){.act = p->act}, row, NULL, n, row);
            memmove(tap, tap + 1, (size_t)n_kept * sizeof *tap);
        }
        // in one page, a row that is read lies behind the one that is written
        for (int k = 0; k < n_kept; k++) memcpy(part.to + k * width + c, tap[k], (size_t)n * sizeof(float));
    }
}

/* ---- SCAN and DELTA ------------------------------------------------------------------------------------ */

size_t machine_state_floats(const Op *op) {
    StateShape s = op_state_shape(op);
    return 3 * (size_t)s.n + 2 * (size_t)s.width;
}

/* What changes from row to row, in a thread's scratch. */
typedef struct Vectors {
    float *decay, *key, *query, *value, *recalled;
} Vectors;

static Vectors vectors_of(StateShape shape, Scratch *s) {
    float *value = s->state + 3 * shape.n;
    return (Vectors){s->state, s->state + shape.n, s->state + 2 * shape.n, value, value + shape.width};
}

static StateJob job_of(StateShape shape, const Part *part, const Vectors *v) {
    size_t size = (size_t)shape.n * (size_t)shape.width, at = (size_t)part->number * size;
    float *to = part->to + at;
    if (!part->from) memset(to, 0, size * sizeof *to);
    return (StateJob){.n = shape.n,
                      .width = shape.width,
                      .from = part->from ? part->from + at : to,
                      .to = to,
                      .decay = v->decay,
                      .key = v->key,
                      .query = v->query,
                      .value = v->value};
}

static float softplus(float x) {
    return x > 20 ? x : log1pf(expf(x));
}

void op_scan(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    const ScanParams *p = &op->scan;
    StateShape shape = op_state_shape(op);
    Vectors v = vectors_of(shape, s);
    for (Part part; take_part(x, b, op, p->n_head, &part);) {
        int h = part.number, group = h / (p->n_head / p->n_group);
        StateJob job = job_of(shape, &part, &v);
        for (int t = part.first; t >= 0; t = x->chains.next[t], job.from = job.to) {
            const float *in = machine_f32(x, op_in(op, 0), t) + h * p->head_dim;
            float bias = p->dt_bias ? p->dt_bias[h] : 0;
            float dt = softplus(machine_f32(x, op_in(op, 3), t)[h] + bias), decay = expf(dt * p->a[h]);
            for (int i = 0; i < shape.n; i++) v.decay[i] = decay;
            for (int c = 0; c < shape.width; c++) v.value[c] = dt * in[c];
            job.key = machine_f32(x, op_in(op, 1), t) + group * p->n_state;
            job.query = machine_f32(x, op_in(op, 2), t) + group * p->n_state;
            job.out = machine_f32(x, op_out(op, 0), t) + h * p->head_dim;
            x->kernels->state_update(&job);
            for (int c = 0; c < shape.width; c++) job.out[c] += p->d[h] * in[c];
        }
    }
}

/* out = scale * in / its length, which is at least eps. */
static void normalise(const float *in, int n, float eps, float scale, float *out) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)in[i] * (double)in[i];
    float length = (float)sqrt(sum), factor = scale / (length > eps ? length : eps);
    for (int i = 0; i < n; i++) out[i] = in[i] * factor;
}

/* The factors of head h by which the state decays, [k_dim]. */
static void decay_of(const DeltaParams *p, const float *in, int h, float *out) {
    for (int i = 0; i < p->k_dim; i++) {
        int at = p->per_channel ? h * p->k_dim + i : h;
        out[i] = p->per_channel || i == 0 ? expf(p->a[h] * softplus(in[at] + p->dt_bias[at])) : out[0];
    }
}

void op_delta(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    const DeltaParams *p = &op->delta;
    StateShape shape = op_state_shape(op);
    Vectors v = vectors_of(shape, s);
    for (Part part; take_part(x, b, op, p->n_head, &part);) {
        int h = part.number, key_head = p->k_tiled ? h % p->n_k_head : h / (p->n_head / p->n_k_head);
        StateJob job = job_of(shape, &part, &v);
        for (int t = part.first; t >= 0; t = x->chains.next[t], job.from = job.to) {
            const float *value = machine_f32(x, op_in(op, 2), t) + h * p->v_dim;
            normalise(machine_f32(x, op_in(op, 0), t) + key_head * p->k_dim, p->k_dim, p->eps, p->scale,
                      v.query);
            normalise(machine_f32(x, op_in(op, 1), t) + key_head * p->k_dim, p->k_dim, p->eps, 1, v.key);
            decay_of(p, machine_f32(x, op_in(op, 3), t), h, v.decay);
            float beta = 1 / (1 + expf(-machine_f32(x, op_in(op, 4), t)[h]));
            job.out = v.recalled;
            x->kernels->state_recall(&job);
            for (int c = 0; c < p->v_dim; c++) v.value[c] = beta * (value[c] - v.recalled[c]);
            job.out = machine_f32(x, op_out(op, 0), t) + h * p->v_dim;
            x->kernels->state_update(&job);
        }
    }
}
