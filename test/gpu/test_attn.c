/* test_attn: the kernels that write and read the cache, against a computation in double on the host.
 *
 * Pages of a cache lie in any order, rows of registers are columns of wider registers, and memory that a
 * kernel must not read is NaN. */
#include "device.h"
#include "gpu.h"
#include "tiny.h"
#include "../../src/plan/plan.h"

static float *floats_new(size_t n, uint64_t *state) {
    float *x = mem_new(n, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = tiny_float(state);
    return x;
}

/* ---- registers ----------------------------------------------------------------------------------------- */

enum { COLUMN = 8, MORE_COLUMNS = 24 }; // before a row, and in all beside it

static size_t register_bytes(int n, int width) {
    return (size_t)n * (size_t)(width + MORE_COLUMNS) * sizeof(float);
}

/* The rows [n][width] as columns of a register; all NaN where rows is NULL. */
static RegRows register_of(const float *rows, int n, int width) {
    size_t stride = (size_t)(width + MORE_COLUMNS), n_floats = (size_t)n * stride;
    float *all = mem_new(n_floats, sizeof *all);
    for (size_t i = 0; i < n_floats; i++) all[i] = NAN;
    for (int r = 0; rows && r < n; r++)
        memcpy(all + (size_t)r * stride + COLUMN, rows + (size_t)r * (size_t)width,
               (size_t)width * sizeof *all);
    RegRows on_device = {(float *)device_new(all, n_floats * sizeof *all) + COLUMN, (int)stride, NULL};
    free(all);
    return on_device;
}

/* rows[n][width] of a register; nothing may have been written beside them. */
static void register_read(RegRows r, int n, int width, float *rows) {
    size_t stride = (size_t)r.stride;
    float *all = mem_new((size_t)n * stride, sizeof *all);
    int n_touched = 0;
    device_read(all, r.data - COLUMN, register_bytes(n, width));
    for (int t = 0; t < n; t++)
        for (int i = 0; i < (int)stride; i++)
            if (i >= COLUMN && i < COLUMN + width)
                rows[(size_t)t * (size_t)width + (size_t)(i - COLUMN)] = all[(size_t)t * stride + (size_t)i];
            else
                n_touched += !isnan(all[(size_t)t * stride + (size_t)i]);
    CHECK(n_touched == 0, "%d numbers beside the rows are written", n_touched);
    free(all);
}

/* ---- the cache ----------------------------------------------------------------------------------------- */

typedef enum Order { IN_ORDER, SHUFFLED } Order; // of a cache's pages

typedef struct Paged {
    int n_seq, n_head, head_dim, n_ctx;
    KvType type;
    size_t bytes, n_entries;
    int32_t *tables;
    float *number[2];       // of K and V, the values of the bytes: [sequence][head][n_ctx][head_dim]
    CacheView host, device; // the host's memory has what the device's must have
} Paged;

static size_t paged_at(const Paged *c, int seq, int head, int position) {
    return (((size_t)seq * (size_t)c->n_head + (size_t)head) * (size_t)c->n_ctx + (size_t)position) *
           (size_t)c->head_dim;
}

static KvRows paged_rows(const Paged *c, int part, int seq, int head, int position) {
    int32_t page = cache_pages(&c->host, seq)[position / CACHE_PAGE];
    return cache_rows(&c->host, page, (CachePart)part, head);
}

/* Keeps x[head_dim] on the host. */
static void paged_put(const Paged *c, int part, int seq, int head, int position, const float *x) {
    KvRows rows = paged_rows(c, part, seq, head, position);
    size_t n = (size_t)c->head_dim, at = (size_t)(position % CACHE_PAGE) * n;
    kv_put(c->type, x, c->head_dim, rows, at);
    for (size_t i = 0; i < n; i++)
        c->number[part][paged_at(c, seq, head, position) + i] = kv_get(c->type, rows, at + i);
}

static void paged_order(const Paged *c, Order order) {
    uint64_t state = 3;
    int n = (int)c->n_entries;
    for (int i = 0; i < n; i++) c->tables[i] = i + 1;
    for (int i = n - 1; order == SHUFFLED && i > 0; i--) {
        int k = (int)((tiny_float(&state) + 1) / 2 * (float)i);
        int32_t id = c->tables[i];
        c->tables[i] = c->tables[k];
        c->tables[k] = id;
    }
}

/* All positions are random; rows of a page behind the last position are NaN. */
static void paged_fill(const Paged *c, uint64_t *state) {
    memset(c->host.memory, 0xFF, c->bytes);
    for (int part = CACHE_K; part <= CACHE_V; part++)
        for (int s = 0; s < c->n_seq; s++)
            for (int h = 0; h < c->n_head; h++)
                for (int p = 0; p < c->n_ctx; p++) {
                    float x[256];
                    for (int i = 0; i < c->head_dim; i++) x[i] = tiny_float(state);
                    paged_put(c, part, s, h, p, x);
                }
}

static Paged paged_new(int n_seq, int n_head, int head_dim, int n_ctx, KvType type, Order order,
                       uint64_t *state) {
    Paged c = {.n_seq = n_seq, .n_head = n_head, .head_dim = head_dim, .n_ctx = n_ctx, .type = type};
    KvLayer layer = {.kind = KV_ROWS, .n_head = n_head, .k_width = head_dim, .v_width = head_dim};
    CacheConfig config = {.n_ctx = n_ctx, .n_seq = n_seq, .type = type, .n_step = n_ctx};
    CacheNeed need = cache_need(&layer, 1, &config);
    Cache *cache = cache_open(&layer, 1, &config);
    size_t n = paged_at(&c, n_seq, 0, 0);
    c.bytes = need.bytes;
    c.n_entries = need.n_entries;
    c.tables = mem_new(c.n_entries, sizeof *c.tables);
    for (int part = CACHE_K; part <= CACHE_V; part++) c.number[part] = mem_new(n, sizeof *c.number[part]);
    c.host = (CacheView){*cache_layer(cache, 0), mem_new(c.bytes, 1), c.tables};
    paged_order(&c, order);
    paged_fill(&c, state);
    c.device = (CacheView){c.host.layer, device_new(c.host.memory, c.bytes),
                           device_new(c.tables, c.n_entries * sizeof *c.tables)};
    cache_close(cache);
    return c;
}

static void paged_free(Paged *c) {
    free(c->tables);
    free(c->host.memory);
    free(c->number[CACHE_K]);
    free(c->number[CACHE_V]);
}

/* Reads the device's memory into the host's. */
static void paged_read(Paged *c) {
    device_read(c->host.memory, c->device.memory, c->bytes);
}

/* Elements of K or V in the host's memory that are not what `number` has, and of them those that are
 * further away than the rounding of a last bit of f32 can make them: `step`, relative to 1. */
static int paged_differ(const Paged *c, int part, double step, int *n_far) {
    int n = *n_far = 0;
    for (int s = 0; s < c->n_seq; s++)
        for (int h = 0; h < c->n_head; h++)
            for (int p = 0; p < c->n_ctx; p++)
                for (int i = 0; i < c->head_dim; i++) {
                    size_t at = (size_t)(p % CACHE_PAGE * c->head_dim + i);
                    double got = kv_get(c->type, paged_rows(c, part, s, h, p), at),
                           expected = c->number[part][paged_at(c, s, h, p) + (size_t)i];
                    n += got != expected;
                    *n_far += !(fabs(got - expected) <= step * fmax(1, fabs(expected)));
                }
    return n;
}

/* Whether two caches have the same bytes for each position, wherever their pages lie. */
static bool paged_same(const Paged *a, const Paged *b) {
    size_t cells = kv_row_bytes(a->type, a->head_dim),
           n_scales = a->type == KV_Q8_0 ? (size_t)a->head_dim / KV_SCALED : 0;
    bool same = true;
    cells -= n_scales * sizeof(uint16_t);
    for (int part = CACHE_K; part <= CACHE_V; part++)
        for (int s = 0; s < a->n_seq; s++)
            for (int h = 0; h < a->n_head; h++)
                for (int p = 0; p < a->n_ctx; p++) {
                    KvRows x = paged_rows(a, part, s, h, p), y = paged_rows(b, part, s, h, p);
                    size_t row = (size_t)(p % CACHE_PAGE);
                    same &= memcmp(x.cells + row * cells, y.cells + row * cells, cells) == 0;
                    same &= n_scales == 0 || memcmp(x.scales + row * n_scales, y.scales + row * n_scales,
                                                    n_scales * sizeof(uint16_t)) == 0;
                }
    return same;
}

/* ---- rotation and new rows ----------------------------------------------------------------------------- */

/* Rotates pairs (2i, 2i + 1) of one head in place. */
static void rotate(float *x, int n_rot, const double *frequency, int position) {
    for (int i = 0; i < n_rot / 2; i++) {
        double c = cos(position * frequency[i]), s = sin(position * frequency[i]), a = x[2 * i],
               b = x[2 * i + 1];
        x[2 * i] = (float)(a * c - b * s);
        x[2 * i + 1] = (float)(a * s + b * c);
    }
}

static void set_frequencies(double *frequency, int n_rot) {
    for (int i = 0; i < n_rot / 2; i++) frequency[i] = pow(10000, -2.0 * i / n_rot);
}

typedef struct NewRows { // of T rows, on the host
    int T, q_width, kv_width, n_rot;
    float *q, *k, *v;
    double frequency[128];
} NewRows;

static NewRows new_rows(int T, int n_head, int n_kv_head, int head_dim, int n_rot, uint64_t *state) {
    NewRows r = {.T = T, .q_width = n_head * head_dim, .kv_width = n_kv_head * head_dim, .n_rot = n_rot};
    r.q = floats_new((size_t)T * (size_t)r.q_width, state);
    r.k = floats_new((size_t)T * (size_t)r.kv_width, state);
    r.v = floats_new((size_t)T * (size_t)r.kv_width, state);
    set_frequencies(r.frequency, n_rot);
    return r;
}

static NewKv new_kv_of(const NewRows *r) {
    return (NewKv){register_of(r->k, r->T, r->kv_width), register_of(r->v, r->T, r->kv_width),
                   device_new(r->frequency, sizeof(double) * (size_t)(r->n_rot / 2)), r->n_rot};
}

static void new_rows_free(NewRows *r) {
    free(r->q);
    free(r->k);
    free(r->v);
}

static double nmse(const float *got, const float *expected, size_t n) {
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - expected[i];
        error += d * d;
        power += (double)expected[i] * expected[i];
    }
    return error / power;
}

/* Row 2 of the batch is padding, which must not be written anywhere. */
static void check_rope(int head_dim, int n_rot, KvType type, int T) {
    enum { N_HEAD = 6, N_KV = 3, N_SEQ = 4, N_CTX = 700 };
    uint64_t seed = 5;
    Paged c = paged_new(N_SEQ, N_KV, head_dim, N_CTX, type, SHUFFLED, &seed);
    NewRows r = new_rows(T, N_HEAD, N_KV, head_dim, n_rot, &seed);
    size_t n_q = (size_t)T * (size_t)r.q_width;
    float *got = mem_new(n_q, sizeof *got);
    int32_t *seq = mem_new((size_t)T, sizeof *seq), *position = mem_new((size_t)T, sizeof *position);
    for (int t = 0; t < T; t++) {
        seq[t] = t == 2 ? -1 : t % N_SEQ;
        position[t] = t == 2 ? 0 : N_CTX - 1 - t;
    }
    RegRows q = register_of(r.q, T, r.q_width);
    NewKv new_kv = new_kv_of(&r);
    device_check(launch_rope_kvput(device_launch(), q, N_HEAD, &new_kv, &c.device,
                                   device_new(seq, (size_t)T * sizeof *seq),
                                   device_new(position, (size_t)T * sizeof *position), T),
                 "rope");
    register_read(q, T, r.q_width, got);
    for (int t = 0; t < T; t++) {
        float *row = r.q + (size_t)t * (size_t)r.q_width;
        for (int h = 0; h < N_HEAD && seq[t] >= 0; h++)
            rotate(row + h * head_dim, n_rot, r.frequency, position[t]);
        if (seq[t] < 0) // padding may be rotated or not
            memcpy(row, got + (size_t)t * (size_t)r.q_width, (size_t)r.q_width * sizeof *row);
        for (int h = 0; h < N_KV && seq[t] >= 0; h++) {
            size_t from = (size_t)t * (size_t)r.kv_width + (size_t)(h * head_dim);
            rotate(r.k + from, n_rot, r.frequency, position[t]);
            paged_put(&c, CACHE_K, seq[t], h, position[t], r.k + from);
            paged_put(&c, CACHE_V, seq[t], h, position[t], r.v + from);
        }
    }
    double error = nmse(got, r.q, n_q);
    CHECK(error <= 1e-12, "%d of %d rotated, %d rows: NMSE %.3g", n_rot, head_dim, T, error);
    static const double steps[] = {
        [KV_F16] = 0x1p-10, [KV_F32] = 1e-6, [KV_Q8_0] = 2. / 127, [KV_FP8] = 0x1p-3};
    int n_far, n_far_values;
    paged_read(&c);
    int n_differ = paged_differ(&c, CACHE_K, steps[type], &n_far),
        n_values = paged_differ(&c, CACHE_V, 0, &n_far_values);
    CHECK(n_far == 0 && n_values == 0, "%s, %d of %d rotated, %d rows: %d keys far off, %d values differ",
          kv_type_name(type), n_rot, head_dim, T, n_far, n_values);
    bool few =
        n_differ <= 64 + T * N_KV * head_dim / 100; // a tie, a scale's last bit (32 keys) fell the other way
    CHECK(few || type == KV_F32, "%s, %d of %d rotated, %d rows: %d keys differ", kv_type_name(type), n_rot,
          head_dim, T, n_differ);
    device_end("rope");
    new_rows_free(&r);
    free(got);
    free(seq);
    free(position);
    paged_free(&c);
}

TEST(gpu_ops_rope_and_cache) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int dims[][2] = {{32, 32}, {40, 40}, {64, 64},   {64, 48},
                                  {80, 80}, {96, 2},  {128, 128}, {256, 256}};
    for (int i = 0; i < 8; i++)
        for (int T = 1; T <= 513; T = T == 1 ? 7 : T == 7 ? 65 : T * 8 - 7) {
            for (int type = 0; type < KV_N_TYPES; type++)
                if (dims[i][0] % kv_type_multiple((KvType)type) == 0)
                    check_rope(dims[i][0], dims[i][1], (KvType)type, T);
        }
}

/* ---- attention ----------------------------------------------------------------------------------------- */

static void attend(const Paged *c, const float *q, int kv_head, float scale, int seq, int position,
                   double *out) {
    double *score = mem_new((size_t)position + 1, sizeof *score), most = -INFINITY, sum = 0;
    for (int p = 0; p <= position; p++) {
        const float *k = c->number[CACHE_K] + paged_at(c, seq, kv_head, p);
        for (int i = 0; i < c->head_dim; i++) score[p] += (double)q[i] * k[i];
        most = fmax(most, score[p] *= scale);
    }
    for (int i = 0; i < c->head_dim; i++) out[i] = 0;
    for (int p = 0; p <= position; p++) {
        const float *v = c->number[CACHE_V] + paged_at(c, seq, kv_head, p);
        double weight = exp(score[p] - most);
        sum += weight;
        for (int i = 0; i < c->head_dim; i++) out[i] += weight * v[i];
    }
    for (int i = 0; i < c->head_dim; i++) out[i] /= sum;
    free(score);
}

typedef struct Heads {
    int n_head, n_kv_head, head_dim;
} Heads;

typedef struct Rows {
    int T;
    int32_t seq[80], position[80];
} Rows;

static int width_of(Heads h) {
    return h.n_head * h.head_dim;
}

/* Attention of the rows of q [T][width_of(h)], as it is launched; to where it is written. */
static Attn attn_of(const Paged *c, Heads h, const Rows *rows, const float *q) {
    const Launch *l = device_launch();
    return (Attn){.q = register_of(q, rows->T, width_of(h)),
                  .out = register_of(NULL, rows->T, width_of(h)),
                  .n_head = h.n_head,
                  .scale = 0.3f,
                  .cache = c->device,
                  .seq = device_new(rows->seq, sizeof rows->seq),
                  .position = device_new(rows->position, sizeof rows->position),
                  .T = rows->T,
                  .scratch = device_zeros(attn_scratch_bytes(rows->T, h.n_head, h.head_dim, l->n_sm))};
}

static void launch(const Attn *a, bool decode) {
    const Launch *l = device_launch();
    device_check(decode ? launch_attn_decode(l, a) : launch_attn_prompt(l, a), "attention");
}

/* Launches over the rows. */
static void launch_rows(const Paged *c, Heads h, const Rows *rows, const float *q, bool decode, float *got) {
    Attn a = attn_of(c, h, rows, q);
    for (int again = 0; again < 2; again++) launch(&a, decode); // the scratch is left as it was found
    register_read(a.out, rows->T, width_of(h), got);
}

static void check_attn(Heads h, KvType type, const Rows *rows, int n_seq, int n_ctx, bool decode,
                       double limit) {
    uint64_t seed = 6;
    size_t width = (size_t)width_of(h);
    Paged c = paged_new(n_seq, h.n_kv_head, h.head_dim, n_ctx, type, SHUFFLED, &seed);
    float *q = floats_new((size_t)rows->T * width, &seed),
          *got = mem_new((size_t)rows->T * width, sizeof *got), *one = mem_new(width, sizeof *one);
    double *expected = mem_new((size_t)h.head_dim, sizeof *expected), error = 0, power = 0;
    launch_rows(&c, h, rows, q, decode, got);
    for (int t = 0; t < rows->T; t++)
        for (int n = 0; n < h.n_head && rows->seq[t] >= 0; n++) {
            size_t at = (size_t)t * width + (size_t)(n * h.head_dim);
            attend(&c, q + at, n / (h.n_head / h.n_kv_head), 0.3f, rows->seq[t], rows->position[t], expected);
            for (int i = 0; i < h.head_dim; i++) {
                double d = got[at + (size_t)i] - expected[i];
                error += d * d;
                power += expected[i] * expected[i];
            }
        }
    CHECK(error <= limit * power, "%d heads on %d of %d, %d rows, %s: NMSE %.3g of %.3g", h.n_head,
          h.n_kv_head, h.head_dim, rows->T, kv_type_name(type), error / power, limit);
    int last = rows->T - 1;
    Rows alone = {1, {rows->seq[last]}, {rows->position[last]}};
    if (decode && rows->seq[last] >= 0) {
        launch_rows(&c, h, &alone, q + (size_t)last * width, true, one);
        CHECK(memcmp(one, got + (size_t)last * width, width * sizeof *one) == 0,
              "%d rows of %d heads: not the bytes of one alone", rows->T, h.n_head);
    }
    device_end("attention");
    free(q);
    free(got);
    free(one);
    free(expected);
    paged_free(&c);
}

/* Every type of cache that such heads can have. */
static void check_types(Heads h, const Rows *rows, int n_seq, int n_ctx, bool decode, double limit) {
    for (int type = 0; type < KV_N_TYPES; type++)
        if (h.head_dim % kv_type_multiple((KvType)type) == 0)
            check_attn(h, (KvType)type, rows, n_seq, n_ctx, decode, limit);
}

static const Heads heads[] = {{4, 2, 32},  {3, 3, 40},   {8, 2, 64},  {9, 1, 64},  {6, 2, 80}, {4, 1, 96},
                              {8, 1, 128}, {32, 8, 128}, {2, 2, 136}, {4, 2, 160}, {4, 2, 256}};
enum { N_HEADS = sizeof heads / sizeof *heads };

static Rows single_rows(int T) {
    Rows rows = {.T = T};
    for (int t = 0; t < T; t++) {
        rows.seq[t] = t % 7 == 3 ? -1 : t % 4;
        rows.position[t] = (t * 197 + 699) % 700;
    }
    return rows;
}

static Rows prompt_rows(int T, int first) {
    Rows rows = {.T = T};
    for (int t = 0; t < T; t++) {
        rows.seq[t] = 2;
        rows.position[t] = first + t;
    }
    return rows;
}

TEST(gpu_ops_attention_of_single_rows) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int sizes[] = {1, 2, 5, 17, 64, 80};
    for (int i = 0; i < N_HEADS; i++)
        for (int k = 0; k < 6; k++) {
            Rows rows = single_rows(sizes[k]);
            check_types(heads[i], &rows, 4, 700, true, 1e-9);
        }
}

/* The results of rows that are the newest of their sequences, and the cache behind them: with new K and V
 * rows put there before, or on the way. */
static void attend_newest(Paged *c, Heads h, const Rows *rows, bool on_the_way, float *got) {
    uint64_t seed = 7;
    NewRows r = new_rows(rows->T, h.n_head, h.n_kv_head, h.head_dim, h.head_dim / 4 * 2, &seed);
    NewKv new_kv = new_kv_of(&r);
    Attn a = attn_of(c, h, rows, r.q);
    if (on_the_way)
        a.new_kv = &new_kv;
    else
        device_check(launch_rope_kvput(device_launch(), a.q, h.n_head, &new_kv, &c->device, a.seq, a.position,
                                       rows->T),
                     "rope");
    launch(&a, true);
    register_read(a.out, rows->T, width_of(h), got);
    paged_read(c);
    device_end("attention");
    new_rows_free(&r);
}

/* Put before or on the way, in pages in order or not: the same bytes. */
static void check_newest(Heads h, KvType type, const Rows *rows, int n_ctx) {
    size_t width = (size_t)width_of(h);
    Paged cache[3];
    float *got[3];
    for (int i = 0; i < 3; i++) {
        uint64_t seed = 6;
        cache[i] =
            paged_new(rows->T, h.n_kv_head, h.head_dim, n_ctx, type, i == 2 ? IN_ORDER : SHUFFLED, &seed);
        attend_newest(&cache[i], h, rows, i > 0, got[i] = mem_new((size_t)rows->T * width, sizeof **got));
    }
    for (int i = 0; i < 2; i++) {
        bool same = true;
        for (int t = 0; t < rows->T; t++)
            same &= rows->seq[t] < 0 || memcmp(got[i] + (size_t)t * width, got[i + 1] + (size_t)t * width,
                                               width * sizeof **got) == 0;
        CHECK(same, "%d heads on %d of %d, %d rows, %s: other bytes %s", h.n_head, h.n_kv_head, h.head_dim,
              rows->T, kv_type_name(type), i == 0 ? "on the way" : "in pages in order");
    }
    CHECK(memcmp(cache[0].host.memory, cache[1].host.memory, cache[0].bytes) == 0 &&
              paged_same(&cache[1], &cache[2]),
          "%d heads on %d of %d, %d rows, %s: another cache", h.n_head, h.n_kv_head, h.head_dim, rows->T,
          kv_type_name(type));
    for (int i = 0; i < 3; i++) {
        paged_free(&cache[i]);
        free(got[i]);
    }
}

TEST(gpu_ops_attention_of_newest_rows) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int positions[] = {699, 0, 1, 15, 16, 17, 63, 64, 127, 128, 129, 255};
    static const struct { int n_rows, n_ctx; } sizes[] = {{1, 700}, {9, 300}, {70, 40}};
    for (int i = 0; i < N_HEADS; i++)
        for (int n = 0; n < 3; n++) {
            Rows rows = {.T = sizes[n].n_rows};
            for (int t = 0; t < rows.T; t++) {
                rows.seq[t] = t == 5 ? -1 : rows.T - 1 - t;
                rows.position[t] = positions[(i + t) % 12] % sizes[n].n_ctx;
            }
            for (int type = 0; type < KV_N_TYPES; type++)
                if (heads[i].head_dim % kv_type_multiple((KvType)type) == 0)
                    check_newest(heads[i], (KvType)type, &rows, sizes[n].n_ctx);
        }
}

/* The last case has so many heads that a warp reads more pages than it holds ids of at once. */
TEST(gpu_ops_attention_over_a_long_past) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    Rows rows = {2, {1, 3}, {9000, 40}}, one = {1, {0}, {9000}};
    check_types((Heads){8, 2, 128}, &rows, 4, 9001, true, 1e-9);
    check_types((Heads){8, 2, 64}, &rows, 4, 9001, true, 1e-9);
    check_types((Heads){128, 128, 32}, &one, 1, 9001, true, 1e-9);
}

TEST(gpu_ops_attention_of_prompts) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int sizes[] = {1, 16, 17, 33, 64, 65, 80}, befores[] = {0, 1, 100};
    for (int i = 0; i < N_HEADS; i++)
        for (int k = 0; k < 7; k++) {
            Rows rows = prompt_rows(sizes[k], befores[k % 3]);
            check_types(heads[i], &rows, 4, 165, false, 1e-5);
        }
}

/* Attention of the rows over the same cache in two orders of pages: the same bytes. */
static void check_order(Heads h, KvType type, const Rows *rows, int n_ctx, bool decode) {
    size_t n = (size_t)rows->T * (size_t)width_of(h);
    float *got[2];
    for (int order = IN_ORDER; order <= SHUFFLED; order++) {
        uint64_t seed = 8;
        Paged c = paged_new(4, h.n_kv_head, h.head_dim, n_ctx, type, (Order)order, &seed);
        float *q = floats_new(n, &seed);
        got[order] = mem_new(n, sizeof **got);
        launch_rows(&c, h, rows, q, decode, got[order]);
        device_end("attention");
        free(q);
        paged_free(&c);
    }
    for (int t = 0; t < rows->T; t++) {
        size_t width = (size_t)width_of(h), at = (size_t)t * width;
        CHECK(rows->seq[t] < 0 || memcmp(got[0] + at, got[1] + at, width * sizeof **got) == 0,
              "%d heads on %d of %d, %s, row %d of %d: other bytes in shuffled pages", h.n_head, h.n_kv_head,
              h.head_dim, kv_type_name(type), t, rows->T);
    }
    free(got[0]);
    free(got[1]);
}

/* The same of rotation and new rows, which go to the same positions. */
static void check_rope_order(int head_dim, KvType type) {
    enum { N_HEAD = 6, N_KV = 3 };
    Rows rows = single_rows(80);
    Paged c[2];
    float *q[2];
    for (int order = IN_ORDER; order <= SHUFFLED; order++) {
        uint64_t seed = 9;
        c[order] = paged_new(4, N_KV, head_dim, 700, type, (Order)order, &seed);
        NewRows r = new_rows(rows.T, N_HEAD, N_KV, head_dim, head_dim, &seed);
        NewKv new_kv = new_kv_of(&r);
        RegRows on_device = register_of(r.q, rows.T, r.q_width);
        device_check(launch_rope_kvput(device_launch(), on_device, N_HEAD, &new_kv, &c[order].device,
                                       device_new(rows.seq, sizeof rows.seq),
                                       device_new(rows.position, sizeof rows.position), rows.T),
                     "rope");
        register_read(on_device, rows.T, r.q_width, r.q);
        q[order] = r.q;
        r.q = NULL;
        paged_read(&c[order]);
        device_end("rope");
        new_rows_free(&r);
    }
    CHECK(memcmp(q[0], q[1], (size_t)(rows.T * N_HEAD * head_dim) * sizeof **q) == 0, "queries of %d",
          head_dim);
    CHECK(paged_same(&c[0], &c[1]), "%s of %d: other bytes in shuffled pages", kv_type_name(type), head_dim);
    for (int i = 0; i < 2; i++) {
        paged_free(&c[i]);
        free(q[i]);
    }
}

TEST(gpu_ops_pages_in_any_order) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    Rows single = single_rows(17), prompt = prompt_rows(80, 85);
    for (int i = 0; i < N_HEADS; i++)
        for (int type = 0; type < KV_N_TYPES; type++) {
            if (heads[i].head_dim % kv_type_multiple((KvType)type)) continue;
            check_order(heads[i], (KvType)type, &single, 700, true);
            check_order(heads[i], (KvType)type, &prompt, 165, false);
            check_rope_order(heads[i].head_dim, (KvType)type);
        }
}

/* Ids arrive where they belong, more than one launch carries too. */
TEST(gpu_ops_page_ids) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    enum { N = 3000 };
    int32_t ids[N], tables[N];
    for (int i = 0; i < N; i++) ids[i] = 7 * i + 1;
    static const int stretches[][2] = {{0, 1}, {1, 512}, {513, 513}, {1100, 1900}};
    int32_t *device = device_zeros(sizeof tables);
    for (int i = 0; i < 4; i++)
        device_check(launch_page_ids(device_launch(), device, (size_t)stretches[i][0], ids + stretches[i][0],
                                     stretches[i][1]),
                     "page ids");
    device_read(tables, device, sizeof tables);
    for (int i = 0; i < N; i++)
        CHECK(tables[i] == (i < 1026 || i >= 1100 ? ids[i] : 0), "entry %d is %d", i, tables[i]);
    device_end("page ids");
}
