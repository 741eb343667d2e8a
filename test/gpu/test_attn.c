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

typedef struct Heads {
    int n_head, n_kv_head, dim[2]; // of K and V
    bool v_in_k;
} Heads;

typedef struct Paged {
    Heads heads;
    int n_seq, n_ctx;
    KvType type;
    size_t bytes, n_entries;
    int32_t *tables;
    float *number[2];       // of K and V, the values of the bytes: [sequence][head][n_ctx][dim]
    CacheView host, device; // the host's memory has what the device's must have
} Paged;

static size_t paged_at(const Paged *c, int part, int seq, int head, int position) {
    return (((size_t)seq * (size_t)c->heads.n_kv_head + (size_t)head) * (size_t)c->n_ctx + (size_t)position) *
           (size_t)c->heads.dim[part];
}

static KvRows paged_rows(const Paged *c, int part, int seq, int head, int position) {
    int32_t page = cache_pages(&c->host, seq)[position / CACHE_PAGE];
    return cache_rows(&c->host, page, (CachePart)part, head);
}

/* The number of the first element of a position's row. */
static size_t paged_element(const Paged *c, int part, int position) {
    return (size_t)(position % CACHE_PAGE * c->host.layer.pitch[part]);
}

/* Reads what the host's memory has of a row. */
static void paged_get(const Paged *c, int part, int seq, int head, int position, float *x) {
    KvRows rows = paged_rows(c, part, seq, head, position);
    for (int i = 0; i < c->heads.dim[part]; i++)
        x[i] = kv_get(c->type, rows, paged_element(c, part, position) + (size_t)i);
}

/* Keeps x[dim] on the host; V that is a part of K comes with K. */
static void paged_put(const Paged *c, int part, int seq, int head, int position, const float *x) {
    KvRows rows = paged_rows(c, part, seq, head, position);
    kv_put(c->type, x, c->heads.dim[part], rows, paged_element(c, part, position));
    for (int p = part; p <= (c->heads.v_in_k ? CACHE_V : part); p++)
        paged_get(c, p, seq, head, position, c->number[p] + paged_at(c, p, seq, head, position));
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

/* All positions are random; rows of a page behind the last position are NaN, and so is page 0. */
static void paged_fill(const Paged *c, uint64_t *state) {
    memset(c->host.memory, 0xFF, c->bytes);
    for (int part = CACHE_K; part <= (c->heads.v_in_k ? CACHE_K : CACHE_V); part++)
        for (int s = 0; s < c->n_seq; s++)
            for (int h = 0; h < c->heads.n_kv_head; h++)
                for (int p = 0; p < c->n_ctx; p++) {
                    float x[1024];
                    for (int i = 0; i < c->heads.dim[part]; i++) x[i] = tiny_float(state);
                    paged_put(c, part, s, h, p, x);
                }
}

static Paged paged_new(int n_seq, Heads heads, int n_ctx, KvType type, Order order, uint64_t *state) {
    Paged c = {.heads = heads, .n_seq = n_seq, .n_ctx = n_ctx, .type = type};
    KvLayer layer = {.kind = KV_ROWS,
                     .n_head = heads.n_kv_head,
                     .k_width = heads.dim[CACHE_K],
                     .v_width = heads.dim[CACHE_V],
                     .v_in_k = heads.v_in_k};
    CacheConfig config = {.n_ctx = n_ctx, .n_seq = n_seq, .type = type, .n_step = n_ctx};
    CacheNeed need = cache_need(&layer, 1, &config);
    Cache *cache = cache_open(&layer, 1, &config);
    c.bytes = need.bytes;
    c.n_entries = need.n_entries;
    c.tables = mem_new(c.n_entries, sizeof *c.tables);
    for (int part = CACHE_K; part <= CACHE_V; part++)
        c.number[part] = mem_new(paged_at(&c, part, n_seq, 0, 0), sizeof *c.number[part]);
    c.host = (CacheView){*cache_layer(cache, 0), mem_new(c.bytes, 1), c.tables};
    paged_order(&c, order);
    paged_fill(&c, state);
    cache_close(cache);
    return c;
}

/* Makes the positions before `first` what a window leaves of them: pages are the scrap page, which is NaN, and
 * the rows before `first` in its page are NaN, too. */
static void paged_hide(const Paged *c, int seq, int first) {
    int32_t *pages = c->tables + c->host.layer.table + (size_t)seq * (size_t)c->host.layer.table_pages;
    for (int i = 0; i < first / CACHE_PAGE; i++) pages[i] = 0;
    float x[1024];
    for (int i = 0; i < 1024; i++) x[i] = NAN;
    for (int part = CACHE_K; part <= (c->heads.v_in_k ? CACHE_K : CACHE_V); part++)
        for (int h = 0; h < c->heads.n_kv_head; h++)
            for (int p = first / CACHE_PAGE * CACHE_PAGE; p < first; p++)
                kv_put(c->type, x, c->heads.dim[part], paged_rows(c, part, seq, h, p),
                       paged_element(c, part, p));
}

/* Copies the host's memory and tables to the device. */
static void paged_send(Paged *c) {
    c->device = (CacheView){c->host.layer, device_new(c->host.memory, c->bytes),
                            device_new(c->tables, c->n_entries * sizeof *c->tables)};
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
    int n = *n_far = 0, dim = c->heads.dim[part];
    float got[1024];
    for (int s = 0; s < c->n_seq; s++)
        for (int h = 0; h < c->heads.n_kv_head; h++)
            for (int p = 0; p < c->n_ctx; p++) {
                const float *expected = c->number[part] + paged_at(c, part, s, h, p);
                paged_get(c, part, s, h, p, got);
                for (int i = 0; i < dim; i++) {
                    n += got[i] != expected[i];
                    *n_far += !(fabs((double)got[i] - expected[i]) <= step * fmax(1, fabs(expected[i])));
                }
            }
    return n;
}

/* Whether two caches have the same numbers for each position, wherever their pages lie. */
static bool paged_same(const Paged *a, const Paged *b) {
    bool same = true;
    float x[1024], y[1024];
    for (int part = CACHE_K; part <= CACHE_V; part++)
        for (int s = 0; s < a->n_seq; s++)
            for (int h = 0; h < a->heads.n_kv_head; h++)
                for (int p = 0; p < a->n_ctx; p++) {
                    paged_get(a, part, s, h, p, x);
                    paged_get(b, part, s, h, p, y);
                    same &= memcmp(x, y, (size_t)a->heads.dim[part] * sizeof *x) == 0;
                }
    return same;
}

/* ---- norms, rotation and new rows ---------------------------------------------------------------------- */

typedef struct Prepare { // what is done to heads of q and of new keys
    bool norms;          // of values, too
    int n_rot, first;
    RopePairing pairing;
    float magnitude;
} Prepare;

/* One head, in place. */
static void prepare(const Prepare *p, const float *weight, int dim, const double *frequency, int position,
                    float *x) {
    double y[1024], squares = 0;
    for (int i = 0; i < dim; i++) squares += (double)x[i] * x[i];
    for (int i = 0; i < dim; i++) y[i] = p->norms ? x[i] / sqrt(squares / dim + 1e-5) * weight[i] : x[i];
    int half = p->n_rot / 2;
    for (int i = 0; i < half; i++) {
        int at = p->first + (p->pairing == ROPE_HALVES ? i : 2 * i),
            other = at + (p->pairing == ROPE_HALVES ? half : 1);
        double c = p->magnitude * cos(position * frequency[i]),
               s = p->magnitude * sin(position * frequency[i]), a = y[at], b = y[other];
        y[at] = a * c - b * s;
        y[other] = a * s + b * c;
    }
    for (int i = 0; i < dim; i++) x[i] = (float)y[i];
}

typedef struct NewRows { // of T rows, on the host
    Heads heads;
    Prepare prepare;
    int T, width[3]; // of q, k and v
    float *q, *k, *v, *q_weight, *k_weight, *v_weight;
    double frequency[512];
} NewRows;

static NewRows new_rows(int T, Heads h, Prepare p, uint64_t *state) {
    int k_dim = h.dim[CACHE_K];
    NewRows r = {.heads = h,
                 .prepare = p,
                 .T = T,
                 .width = {h.n_head * k_dim, h.n_kv_head * k_dim, h.n_kv_head * h.dim[CACHE_V]}};
    r.q = floats_new((size_t)T * (size_t)r.width[0], state);
    r.k = floats_new((size_t)T * (size_t)r.width[1], state);
    r.v = floats_new((size_t)T * (size_t)r.width[2], state);
    r.q_weight = floats_new((size_t)k_dim, state);
    r.k_weight = floats_new((size_t)k_dim, state);
    r.v_weight = floats_new((size_t)h.dim[CACHE_V], state);
    for (int i = 0; i < p.n_rot / 2; i++) r.frequency[i] = pow(10000, -2.0 * i / p.n_rot);
    return r;
}

/* Gives the attention what it does to q, and these new rows. */
static void add_rows(const NewRows *r, Attn *a) {
    const Prepare *p = &r->prepare;
    size_t weight_bytes = (size_t)r->heads.dim[CACHE_K] * sizeof(float);
    a->k = register_of(r->k, r->T, r->width[1]);
    if (!r->heads.v_in_k) a->v = register_of(r->v, r->T, r->width[2]);
    if (p->norms) a->q_norm = (HeadNorm){device_new(r->q_weight, weight_bytes), 1e-5f};
    if (p->norms) a->k_norm = (HeadNorm){device_new(r->k_weight, weight_bytes), 1e-5f};
    if (p->norms && !r->heads.v_in_k)
        a->v_norm = (HeadNorm){device_new(r->v_weight, (size_t)r->heads.dim[CACHE_V] * sizeof(float)), 1e-5f};
    if (p->n_rot)
        a->rotation = (Rotation){device_new(r->frequency, sizeof(double) * (size_t)(p->n_rot / 2)), p->n_rot,
                                 p->first, p->pairing, p->magnitude};
}

static void new_rows_free(NewRows *r) {
    free(r->q);
    free(r->k);
    free(r->v);
    free(r->q_weight);
    free(r->k_weight);
    free(r->v_weight);
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

static AttnParams params_of(Heads h) {
    return (AttnParams){.n_head = h.n_head,
                        .n_kv_head = h.n_kv_head,
                        .head_dim = h.dim[CACHE_K],
                        .v_dim = h.dim[CACHE_V],
                        .scale = 0.3f};
}

/* Makes q, and the numbers of the cache, what launch_rope_kvput must make of them. */
static void prepare_rows(const NewRows *r, const Paged *c, const int32_t *seq, const int32_t *position) {
    const Heads *h = &r->heads;
    int k_dim = h->dim[CACHE_K], v_dim = h->dim[CACHE_V];
    for (int t = 0; t < r->T; t++) {
        for (int n = 0; n < h->n_head && seq[t] >= 0; n++)
            prepare(&r->prepare, r->q_weight, k_dim, r->frequency, position[t],
                    r->q + (size_t)t * (size_t)r->width[0] + n * k_dim);
        for (int n = 0; n < h->n_kv_head && seq[t] >= 0; n++) {
            float *k = r->k + (size_t)t * (size_t)r->width[1] + n * k_dim,
                  *v = r->v + (size_t)t * (size_t)r->width[2] + n * v_dim;
            prepare(&r->prepare, r->k_weight, k_dim, r->frequency, position[t], k);
            paged_put(c, CACHE_K, seq[t], n, position[t], k);
            Prepare only_norms = {.norms = r->prepare.norms};
            if (h->v_in_k) continue;
            prepare(&only_norms, r->v_weight, v_dim, NULL, position[t], v);
            paged_put(c, CACHE_V, seq[t], n, position[t], v);
        }
    }
}

/* Row 2 of the batch is padding, which must not be written anywhere. */
static void check_rope(int dim, Prepare p, KvType type, int T) {
    enum { N_SEQ = 4, N_CTX = 700 };
    Heads h = {6, 3, {dim, dim == 576 ? 512 : dim}, .v_in_k = dim == 576};
    uint64_t seed = 5;
    Paged c = paged_new(N_SEQ, h, N_CTX, type, SHUFFLED, &seed);
    NewRows r = new_rows(T, h, p, &seed);
    AttnParams params = params_of(h);
    size_t n_q = (size_t)T * (size_t)r.width[0];
    float *got = mem_new(n_q, sizeof *got);
    int32_t *seq = mem_new((size_t)T, sizeof *seq), *position = mem_new((size_t)T, sizeof *position);
    for (int t = 0; t < T; t++) {
        seq[t] = t == 2 ? -1 : t % N_SEQ;
        position[t] = t == 2 ? 0 : N_CTX - 1 - t;
    }
    paged_send(&c);
    Attn a = {.q = register_of(r.q, T, r.width[0]),
              .params = &params,
              .cache = c.device,
              .seq = device_new(seq, (size_t)T * sizeof *seq),
              .position = device_new(position, (size_t)T * sizeof *position),
              .T = T};
    add_rows(&r, &a);
    device_check(launch_rope_kvput(device_launch(), &a), "rope");
    register_read(a.q, T, r.width[0], got);
    prepare_rows(&r, &c, seq, position);
    if (T > 2) { // padding may be rotated or not
        size_t at = 2 * (size_t)r.width[0];
        memcpy(r.q + at, got + at, (size_t)r.width[0] * sizeof *got);
    }
    double error = nmse(got, r.q, n_q);
    CHECK(error <= 1e-12, "%d of %d rotated from %d, %d rows: NMSE %.3g", p.n_rot, dim, p.first, T, error);
    static const double steps[] = {
        [KV_F16] = 0x1p-10, [KV_F32] = 1e-6, [KV_Q8_0] = 2. / 127, [KV_FP8] = 0x1p-3};
    int n_far, n_far_values = 0, n_keys = T * h.n_kv_head * dim;
    paged_read(&c);
    int n_differ = paged_differ(&c, CACHE_K, steps[type] * (p.norms ? 4 : 1), &n_far);
    if (!h.v_in_k) paged_differ(&c, CACHE_V, p.norms ? steps[type] * 4 : 0, &n_far_values);
    CHECK(n_far == 0 && n_far_values == 0, "%s, %d of %d rotated, %d rows: %d keys and %d values far off",
          kv_type_name(type), p.n_rot, dim, T, n_far, n_far_values);
    bool few = n_differ <= 64 + n_keys / 100; // a tie, a scale's last bit (32 keys) fell the other way
    CHECK(few || type == KV_F32, "%s, %d of %d rotated, %d rows: %d keys differ", kv_type_name(type), p.n_rot,
          dim, T, n_differ);
    device_end("rope");
    new_rows_free(&r);
    free(got);
    free(seq);
    free(position);
    paged_free(&c);
}

/* Norms and rotations with the head dimensions that they are tested with. */
static const struct {
    int dim;
    Prepare p;
} prepared[] = {
    {32, {false, 32, 0, ROPE_ADJACENT, 1}},   {40, {false, 40, 0, ROPE_ADJACENT, 1}},
    {64, {false, 64, 0, ROPE_ADJACENT, 1}},   {64, {false, 48, 0, ROPE_ADJACENT, 1}},
    {80, {false, 80, 0, ROPE_ADJACENT, 1}},   {96, {false, 2, 0, ROPE_ADJACENT, 1}},
    {128, {false, 128, 0, ROPE_ADJACENT, 1}}, {256, {false, 256, 0, ROPE_ADJACENT, 1}},
    {32, {true, 32, 0, ROPE_HALVES, 1}},      {64, {true, 64, 0, ROPE_HALVES, 1.25f}},
    {80, {true, 80, 0, ROPE_HALVES, 1}},      {96, {true, 96, 0, ROPE_HALVES, 1}},
    {128, {true, 128, 0, ROPE_HALVES, 1}},    {256, {true, 256, 0, ROPE_HALVES, 1}},
    {40, {true, 40, 0, ROPE_HALVES, 1}},      {32, {false, 8, 4, ROPE_HALVES, 1.25f}},
    {48, {true, 16, 0, ROPE_HALVES, 1}},      {128, {true, 64, 64, ROPE_ADJACENT, 1}},
    {256, {true, 64, 0, ROPE_HALVES, 1}},     {576, {false, 64, 512, ROPE_ADJACENT, 0.8f}},
    {512, {true, 512, 0, ROPE_HALVES, 1}},    {512, {true, 128, 0, ROPE_HALVES, 1}},
    {128, {true, 0, 0, ROPE_ADJACENT, 1}},    {264, {true, 12, 2, ROPE_HALVES, 1}},
};
enum { N_PREPARED = sizeof prepared / sizeof *prepared };

TEST(gpu_ops_rope_and_cache) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int i = 0; i < N_PREPARED; i++)
        for (int T = 1; T <= (i < 8 ? 513 : 65); T = T == 1 ? 7 : T == 7 ? 65 : T * 8 - 7)
            for (int type = 0; type < KV_N_TYPES; type++)
                if (prepared[i].dim % kv_type_multiple((KvType)type) == 0)
                    check_rope(prepared[i].dim, prepared[i].p, (KvType)type, T);
}

/* ROPE as an op of its own: any dimensions. */
TEST(gpu_ops_rope_alone) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    enum { T = 37, N_HEAD = 5, DIM = 48 };
    static const Prepare cases[] = {{false, 48, 0, ROPE_ADJACENT, 1},
                                    {false, 48, 0, ROPE_HALVES, 1.5f},
                                    {false, 6, 3, ROPE_HALVES, 1},
                                    {false, 10, 5, ROPE_ADJACENT, 1},
                                    {false, 2, 46, ROPE_HALVES, 0.75f}};
    int32_t position[T];
    for (int t = 0; t < T; t++) position[t] = 5000 * t;
    for (int i = 0; i < 5; i++) {
        uint64_t seed = 10;
        NewRows r = new_rows(T, (Heads){N_HEAD, 1, {DIM, DIM}, false}, cases[i], &seed);
        float *got = mem_new(T * N_HEAD * DIM, sizeof *got);
        RegRows q = register_of(r.q, T, N_HEAD * DIM);
        Rotation rotation = {device_new(r.frequency, sizeof r.frequency), cases[i].n_rot, cases[i].first,
                             cases[i].pairing, cases[i].magnitude};
        device_check(
            launch_rope(device_launch(), q, N_HEAD, DIM, &rotation, device_new(position, sizeof position), T),
            "rope");
        register_read(q, T, N_HEAD * DIM, got);
        for (int t = 0; t < T; t++)
            for (int n = 0; n < N_HEAD; n++)
                prepare(&cases[i], NULL, DIM, r.frequency, position[t], r.q + (t * N_HEAD + n) * DIM);
        double error = nmse(got, r.q, T * N_HEAD * DIM);
        CHECK(error <= 1e-12, "case %d: NMSE %.3g", i, error);
        device_end("rope");
        new_rows_free(&r);
        free(got);
    }
}

/* ---- attention ----------------------------------------------------------------------------------------- */

static const float sinks[128] = {0.5f, -1, 2, 0.25f, -3, 1, 0, 3};

static int first_seen(const AttnParams *p, int position) {
    int first = p->window && position >= p->window ? position + 1 - p->window : 0;
    int chunk = p->chunk ? position - position % p->chunk : 0;
    return first > chunk ? first : chunk;
}

static void attend(const Paged *c, const AttnParams *p, const float *q, int head, int seq, int position,
                   double *out) {
    int kv_head = head / (p->n_head / p->n_kv_head), first = first_seen(p, position);
    double *score = mem_new((size_t)position + 1, sizeof *score), most = -INFINITY, sum = 0, scale = p->scale;
    if (p->temperature != 0)
        scale *= 1 + p->temperature * log(1 + (position + p->temperature_first) / p->temperature_length);
    if (p->sinks) most = p->sinks[head];
    for (int i = first; i <= position; i++) {
        const float *k = c->number[CACHE_K] + paged_at(c, CACHE_K, seq, kv_head, i);
        for (int d = 0; d < p->head_dim; d++) score[i] += (double)q[d] * k[d];
        score[i] *= scale;
        if (p->softcap != 0) score[i] = p->softcap * tanh(score[i] / p->softcap);
        most = fmax(most, score[i]);
    }
    if (p->sinks) sum = exp(p->sinks[head] - most);
    for (int d = 0; d < p->v_dim; d++) out[d] = 0;
    for (int i = first; i <= position; i++) {
        const float *v = c->number[CACHE_V] + paged_at(c, CACHE_V, seq, kv_head, i);
        double weight = exp(score[i] - most);
        sum += weight;
        for (int d = 0; d < p->v_dim; d++) out[d] += weight * v[d];
    }
    for (int d = 0; d < p->v_dim; d++) out[d] /= sum;
    free(score);
}

typedef struct Rows {
    int T;
    int32_t seq[80], position[80];
} Rows;

/* Attention of the rows of q [T][n_head * head_dim], as it is launched; to where it is written. */
static Attn attn_of(const Paged *c, const AttnParams *p, const Rows *rows, const float *q) {
    const Launch *l = device_launch();
    size_t scratch = attn_scratch_bytes(rows->T, p, c->heads.v_in_k, l->n_sm);
    AttnPiece pieces[80];
    int n_pieces = 0;
    for (int t = 0; t < rows->T; t++) {
        bool follows =
            t > 0 && rows->seq[t] == rows->seq[t - 1] && rows->position[t] == rows->position[t - 1] + 1;
        if (!follows) pieces[n_pieces++] = (AttnPiece){t, 0};
        pieces[n_pieces - 1].n++;
    }
    return (Attn){.q = register_of(q, rows->T, p->n_head * p->head_dim),
                  .out = register_of(NULL, rows->T, p->n_head * p->v_dim),
                  .params = p,
                  .sinks = p->sinks ? device_new(p->sinks, (size_t)p->n_head * sizeof *p->sinks) : NULL,
                  .cache = c->device,
                  .seq = device_new(rows->seq, sizeof rows->seq),
                  .position = device_new(rows->position, sizeof rows->position),
                  .T = rows->T,
                  .piece = device_new(pieces, sizeof pieces),
                  .n_pieces = n_pieces,
                  .scratch = device_zeros(scratch)};
}

static void launch(const Attn *a, bool decode) {
    const Launch *l = device_launch();
    device_check(decode ? launch_attn_decode(l, a) : launch_attn_prompt(l, a), "attention");
}

/* Launches over the rows. */
static void launch_rows(const Paged *c, const AttnParams *p, const Rows *rows, const float *q, bool decode,
                        float *got) {
    Attn a = attn_of(c, p, rows, q);
    for (int again = 0; again < 2; again++) launch(&a, decode); // the scratch is left as it was found
    register_read(a.out, rows->T, p->n_head * p->v_dim, got);
}

/* Hides from the device what no row sees, which differs from sequence to sequence. */
static void hide_unseen(const Paged *c, const AttnParams *p, const Rows *rows) {
    for (int s = 0; s < c->n_seq; s++) {
        int first = c->n_ctx;
        for (int t = 0; t < rows->T; t++)
            if (rows->seq[t] == s && first_seen(p, rows->position[t]) < first)
                first = first_seen(p, rows->position[t]);
        if (first < c->n_ctx) paged_hide(c, s, first);
    }
}

static double attn_error(const Paged *c, const AttnParams *p, const Rows *rows, const float *q,
                         const float *got) {
    double expected[1024], error = 0, power = 0;
    for (int t = 0; t < rows->T; t++)
        for (int n = 0; n < p->n_head && rows->seq[t] >= 0; n++) {
            size_t head = (size_t)(t * p->n_head + n);
            attend(c, p, q + head * (size_t)p->head_dim, n, rows->seq[t], rows->position[t], expected);
            for (int i = 0; i < p->v_dim; i++) {
                double d = got[head * (size_t)p->v_dim + (size_t)i] - expected[i];
                error += d * d;
                power += expected[i] * expected[i];
            }
        }
    return error / power;
}

static void check_attn(Heads h, AttnParams p, KvType type, const Rows *rows, int n_seq, int n_ctx,
                       bool decode, double limit) {
    uint64_t seed = 6;
    size_t width = (size_t)(p.n_head * p.v_dim);
    Paged c = paged_new(n_seq, h, n_ctx, type, SHUFFLED, &seed);
    hide_unseen(&c, &p, rows);
    paged_send(&c);
    float *q = floats_new((size_t)(rows->T * p.n_head * p.head_dim), &seed),
          *got = mem_new((size_t)rows->T * width, sizeof *got), *one = mem_new(width, sizeof *one);
    launch_rows(&c, &p, rows, q, decode, got);
    double error = attn_error(&c, &p, rows, q, got);
    CHECK(error <= limit,
          "%d heads on %d of %d and %d, window %d, chunk %d, softcap %g, temperature %g%s, %d rows, %s: NMSE "
          "%.3g of %.3g",
          h.n_head, h.n_kv_head, p.head_dim, p.v_dim, p.window, p.chunk, (double)p.softcap,
          (double)p.temperature, p.sinks ? ", sinks" : "", rows->T, kv_type_name(type), error, limit);
    int last = rows->T - 1;
    Rows alone = {1, {rows->seq[last]}, {rows->position[last]}};
    if (decode && rows->seq[last] >= 0) {
        launch_rows(&c, &p, &alone, q + last * p.n_head * p.head_dim, true, one);
        CHECK(memcmp(one, got + (size_t)last * width, width * sizeof *one) == 0,
              "%d rows of %d heads: not the bytes of one alone", rows->T, h.n_head);
    }
    device_end("attention");
    free(q);
    free(got);
    free(one);
    paged_free(&c);
}

static bool type_fits(Heads h, int type) {
    int multiple = kv_type_multiple((KvType)type);
    return h.dim[CACHE_K] % multiple == 0 && h.dim[CACHE_V] % multiple == 0;
}

/* Every type of cache that such heads can have. */
static void check_types(Heads h, AttnParams p, const Rows *rows, int n_seq, int n_ctx, bool decode,
                        double limit) {
    for (int type = 0; type < KV_N_TYPES; type++)
        if (type_fits(h, type)) check_attn(h, p, (KvType)type, rows, n_seq, n_ctx, decode, limit);
}

static const Heads heads[] = {
    {4, 2, {32, 32}, false},   {3, 3, {40, 40}, false},    {8, 2, {64, 64}, false},
    {9, 1, {64, 64}, false},   {6, 2, {80, 80}, false},    {4, 1, {96, 96}, false},
    {8, 1, {128, 128}, false}, {32, 8, {128, 128}, false}, {2, 2, {136, 136}, false},
    {4, 2, {160, 160}, false}, {4, 2, {256, 256}, false},  {4, 2, {48, 32}, false},
    {2, 1, {192, 128}, false}, {4, 2, {64, 96}, false},    {4, 1, {512, 512}, false},
    {2, 2, {264, 328}, false}, {9, 1, {576, 512}, true},   {2, 1, {48, 32}, true},
    {3, 1, {128, 96}, true},
};
enum { N_HEADS = sizeof heads / sizeof *heads, WIDE = 14 }; // from heads[WIDE] on instances are large

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
        for (int k = 0; k < (i < WIDE ? 6 : 4); k++) {
            Rows rows = single_rows(sizes[k]);
            check_types(heads[i], params_of(heads[i]), &rows, 4, 700, true, 1e-9);
        }
}

/* Masks and changes of scores, each alone and together. */
static void set_variant(AttnParams *p, int i) {
    static const struct {
        int window, chunk;
        float softcap;
        bool sinks;
        float temperature;
    } variants[] = {
        {1, 0, 0, false, 0},    {16, 0, 0, false, 0},    {65, 0, 0, false, 0},   {640, 0, 0, false, 0},
        {0, 64, 0, false, 0},   {0, 37, 0, false, 0},    {0, 0, 0.8f, false, 0}, {0, 0, 0, true, 0},
        {0, 0, 0, false, 0.4f}, {129, 0, 2, true, 0.2f}, {20, 100, 0, true, 0},
    };
    p->window = variants[i].window;
    p->chunk = variants[i].chunk;
    p->softcap = variants[i].softcap;
    p->sinks = variants[i].sinks ? sinks : NULL;
    p->temperature = variants[i].temperature;
    p->temperature_first = 1;
    p->temperature_length = 32;
}
enum { N_VARIANTS = 11 };

TEST(gpu_ops_attention_in_windows_and_with_changed_scores) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int befores[] = {0, 1, 63, 100, 255};
    for (int v = 0; v < N_VARIANTS; v++)
        for (int i = v % 2; i < N_HEADS; i += 2) {
            AttnParams p = params_of(heads[i]);
            set_variant(&p, v);
            Rows single = single_rows(i < WIDE ? 17 : 5), prompt = prompt_rows(80 - i, befores[(v + i) % 5]);
            check_types(heads[i], p, &single, 4, 700, true, 1e-9);
            check_types(heads[i], p, &prompt, 4, 335, false, 1e-5);
        }
}

/* The results of rows that are the newest of their sequences, and the cache behind them: with new K and V
 * rows put there before, or on the way. */
static void attend_newest(Paged *c, const AttnParams *p, Prepare prepare, const Rows *rows, bool on_the_way,
                          float *got) {
    uint64_t seed = 7;
    NewRows r = new_rows(rows->T, c->heads, prepare, &seed);
    paged_send(c);
    Attn a = attn_of(c, p, rows, r.q);
    add_rows(&r, &a);
    if (!on_the_way) {
        device_check(launch_rope_kvput(device_launch(), &a), "rope");
        a = attn_prepared(a);
    }
    launch(&a, true);
    register_read(a.out, rows->T, p->n_head * p->v_dim, got);
    paged_read(c);
    device_end("attention");
    new_rows_free(&r);
}

/* Put before or on the way, in pages in order or not: the same bytes. */
static void check_newest(Heads h, AttnParams p, Prepare prepare, KvType type, const Rows *rows, int n_ctx) {
    size_t width = (size_t)(p.n_head * p.v_dim);
    Paged cache[3];
    float *got[3];
    for (int i = 0; i < 3; i++) {
        uint64_t seed = 6;
        cache[i] = paged_new(rows->T, h, n_ctx, type, i == 2 ? IN_ORDER : SHUFFLED, &seed);
        got[i] = mem_new((size_t)rows->T * width, sizeof **got);
        attend_newest(&cache[i], &p, prepare, rows, i > 0, got[i]);
    }
    for (int i = 0; i < 2; i++) {
        bool same = true;
        for (int t = 0; t < rows->T; t++)
            same &= rows->seq[t] < 0 || memcmp(got[i] + (size_t)t * width, got[i + 1] + (size_t)t * width,
                                               width * sizeof **got) == 0;
        CHECK(same, "%d heads on %d of %d, %d rotated, %d rows, %s: other bytes %s", h.n_head, h.n_kv_head,
              p.head_dim, prepare.n_rot, rows->T, kv_type_name(type),
              i == 0 ? "on the way" : "in pages in order");
    }
    CHECK(memcmp(cache[0].host.memory, cache[1].host.memory, cache[0].bytes) == 0 &&
              paged_same(&cache[1], &cache[2]),
          "%d heads on %d of %d, %d rotated, %d rows, %s: another cache", h.n_head, h.n_kv_head, p.head_dim,
          prepare.n_rot, rows->T, kv_type_name(type));
    for (int i = 0; i < 3; i++) {
        paged_free(&cache[i]);
        free(got[i]);
    }
}

/* Row 5 is padding. */
static Rows newest_rows(int T, int n_ctx, int seed) {
    static const int positions[] = {699, 0, 1, 15, 16, 17, 63, 64, 127, 128, 129, 255};
    Rows rows = {.T = T};
    for (int t = 0; t < T; t++) {
        rows.seq[t] = t == 5 ? -1 : T - 1 - t;
        rows.position[t] = positions[(seed + t) % 12] % n_ctx;
    }
    return rows;
}

TEST(gpu_ops_attention_of_newest_rows) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const struct { int n_rows, n_ctx; } sizes[] = {{1, 700}, {9, 300}, {70, 40}};
    for (int i = 0; i < N_HEADS; i++)
        for (int n = 0; n < 3; n++) {
            Rows rows = newest_rows(sizes[n].n_rows, sizes[n].n_ctx, i);
            Prepare p = {.n_rot = heads[i].dim[CACHE_K] / 4 * 2, .pairing = ROPE_ADJACENT, .magnitude = 1};
            for (int type = 0; type < KV_N_TYPES; type++)
                if (type_fits(heads[i], type))
                    check_newest(heads[i], params_of(heads[i]), p, (KvType)type, &rows, sizes[n].n_ctx);
        }
}

TEST(gpu_ops_attention_of_newest_rows_with_norms_and_any_rotation) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    Rows rows = newest_rows(9, 300, 4);
    for (int i = 0; i < N_PREPARED; i++) {
        int dim = prepared[i].dim;
        Heads h = {10, 2, {dim, dim == 576 ? 512 : dim}, .v_in_k = dim == 576};
        for (int v = -1; v < N_VARIANTS; v += 5) {
            AttnParams p = params_of(h);
            if (v >= 0) set_variant(&p, v);
            for (int type = 0; type < KV_N_TYPES; type++)
                if (type_fits(h, type)) check_newest(h, p, prepared[i].p, (KvType)type, &rows, 300);
        }
    }
}

/* The last case has so many heads that a warp reads more pages than it holds ids of at once; with a window it
 * reads the last of them only. */
TEST(gpu_ops_attention_over_a_long_past) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const Heads cases[] = {
        {8, 2, {128, 128}, false}, {8, 2, {64, 64}, false}, {128, 128, {32, 32}, false}};
    Rows rows = {2, {1, 3}, {9000, 40}}, one = {1, {0}, {9000}};
    for (int i = 0; i < 6; i++) {
        AttnParams p = params_of(cases[i / 2]);
        p.window = i % 2 ? 1000 : 0;
        check_types(cases[i / 2], p, i < 4 ? &rows : &one, 4, 9001, true, 1e-9);
    }
}

TEST(gpu_ops_attention_of_prompts) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int sizes[] = {1, 16, 17, 33, 64, 65, 80}, befores[] = {0, 1, 100};
    for (int i = 0; i < N_HEADS; i++)
        for (int k = 0; k < 7; k++) {
            Rows rows = prompt_rows(sizes[k], befores[k % 3]);
            check_types(heads[i], params_of(heads[i]), &rows, 4, 182, false, 1e-5);
        }
}

/* Pieces of several sequences in one launch, more than a warp has lanes. */
TEST(gpu_ops_attention_of_many_prompts) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int i = 0; i < N_HEADS; i++)
        for (int n = 1; n <= 40; n += 13) { // rows of a piece
            Rows rows = {.T = 80};
            for (int t = 0; t < rows.T; t++) {
                int piece = t / n;
                rows.seq[t] = piece % 3;
                rows.position[t] = (piece * 37) % 100 + t % n;
            }
            check_types(heads[i], params_of(heads[i]), &rows, 4, 182, false, 1e-5);
        }
}

/* The results of the last rows of a prompt do not depend on where it is cut: the same bytes. */
TEST(gpu_ops_attention_of_prompts_cut_anywhere) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    enum { N = 80, LAST = 20 };
    for (int i = 0; i < N_HEADS; i++)
        for (int v = -1; v < N_VARIANTS; v += 2) {
            uint64_t seed = 11;
            AttnParams p = params_of(heads[i]);
            if (v >= 0) set_variant(&p, v);
            Rows whole = prompt_rows(N, 90), last = prompt_rows(LAST, 90 + N - LAST);
            size_t width = (size_t)(p.n_head * p.v_dim), q_width = (size_t)(p.n_head * p.head_dim);
            Paged c = paged_new(4, heads[i], 170, KV_F16, SHUFFLED, &seed);
            paged_send(&c);
            float *q = floats_new(N * q_width, &seed), *all = mem_new(N * width, sizeof *all),
                  *end = mem_new(LAST * width, sizeof *end);
            launch_rows(&c, &p, &whole, q, false, all);
            launch_rows(&c, &p, &last, q + (N - LAST) * q_width, false, end);
            CHECK(memcmp(end, all + (N - LAST) * width, LAST * width * sizeof *end) == 0,
                  "%d heads of %d, variant %d: other bytes", p.n_head, p.head_dim, v);
            device_end("attention");
            free(q);
            free(all);
            free(end);
            paged_free(&c);
        }
}

/* Attention of the rows over the same cache in two orders of pages: the same bytes. */
static void check_order(Heads h, KvType type, const Rows *rows, int n_ctx, bool decode) {
    AttnParams p = params_of(h);
    size_t width = (size_t)(p.n_head * p.v_dim);
    float *got[2];
    for (int order = IN_ORDER; order <= SHUFFLED; order++) {
        uint64_t seed = 8;
        Paged c = paged_new(4, h, n_ctx, type, (Order)order, &seed);
        paged_send(&c);
        float *q = floats_new((size_t)(rows->T * p.n_head * p.head_dim), &seed);
        got[order] = mem_new((size_t)rows->T * width, sizeof **got);
        launch_rows(&c, &p, rows, q, decode, got[order]);
        device_end("attention");
        free(q);
        paged_free(&c);
    }
    for (int t = 0; t < rows->T; t++) {
        size_t at = (size_t)t * width;
        CHECK(rows->seq[t] < 0 || memcmp(got[0] + at, got[1] + at, width * sizeof **got) == 0,
              "%d heads on %d of %d, %s, row %d of %d: other bytes in shuffled pages", h.n_head, h.n_kv_head,
              p.head_dim, kv_type_name(type), t, rows->T);
    }
    free(got[0]);
    free(got[1]);
}

TEST(gpu_ops_pages_in_any_order) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    Rows single = single_rows(17), prompt = prompt_rows(80, 85);
    for (int i = 0; i < N_HEADS; i++)
        for (int type = 0; type < KV_N_TYPES; type++) {
            if (!type_fits(heads[i], type)) continue;
            check_order(heads[i], (KvType)type, &single, 700, true);
            check_order(heads[i], (KvType)type, &prompt, 165, false);
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
