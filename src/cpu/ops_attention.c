/* ops_attention: rotation, the cache of keys and values, and attention: ROPE, KVPUT, ATTN.
 *
 * The angles of a batch are computed once, for all ROPE ops with equal parameters. */
#include "ops.h"
#include "rows.h"

#include <math.h>

void machine_rotate(Exec *x, const Batch *b) {
    for (int t; (t = atomic_fetch_add_explicit(&x->next_rotation, 1, memory_order_relaxed)) < b->T;)
        for (int r = 0; r < x->n_rotations; r++) {
            const Rotation *rotation = &x->rotations[r];
            size_t n = (size_t)rotation->rope.n_rot / 2;
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
void op_rope(Exec *x, const Batch *b, const Op *op, Scratch *s) {
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

void op_kvput(Exec *x, const Batch *b, const Op *op, Scratch *s) {
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

/* Heads first.. of the KV head h, for row i. */
static void attend(Exec *x, const Batch *b, const Op *op, const CacheView *cache, int i, int h, int first,
                   float *scores) {
    const AttnParams *a = &op->attn;
    int group = a->n_head / a->n_kv_head, position = b->position[i], seen = first_seen(a, position);
    size_t head = (size_t)(h * group + first);
    AttnJob job = {.q = input(x, b, op, op_in(op, 0), i) + head * (size_t)cache->layer.width[CACHE_K],
                   .n_q = group - first < ATTN_HEADS ? group - first : ATTN_HEADS,
                   .cache = cache,
                   .pages = cache_pages(cache, b->seq[i]),
                   .head = h,
                   .first = seen,
                   .n_pos = position + 1 - seen,
                   .scale = score_scale(a, position),
                   .softcap = a->softcap,
                   .sinks = a->sinks ? a->sinks + head : NULL,
                   .scores = scores,
                   .out = machine_f32(x, op_out(op, 0), i) + head * (size_t)cache->layer.width[CACHE_V]};
    x->kernels->attn(&job);
}

void op_attn(Exec *x, const Batch *b, const Op *op, Scratch *s) {
    CacheView cache = cache_view(x, op);
    int n_kv_head = op->attn.n_kv_head, group = op->attn.n_head / n_kv_head;
    int n_parts = (group + ATTN_HEADS - 1) / ATTN_HEADS;
    for (int item; (item = take_items(x, op, 1)) < n_rows(b, op) * n_kv_head * n_parts;) {
        int row_head = item / n_parts;
        attend(x, b, op, &cache, row_head / n_kv_head, row_head % n_kv_head, item % n_parts * ATTN_HEADS,
               s->scores);
    }
}
