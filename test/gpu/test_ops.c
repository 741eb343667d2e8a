/* ops: the kernels beside the products, one by one, against formulas in double.
 *
 * Buffers lie between guard bands and are NaN where nothing was written.  Limits follow from the arithmetic:
 * f32 sums 1e-12, scores of two f16 (22 bits) 1e-9, matrix units on f16 1e-5; the sampler must choose the
 * same tokens as the host's. */
#include "device.h"
#include "gpu.h"
#include "tiny.h"
#include "../../src/base/float.h"

static int stride_of(int width) {
    return (width + 15) / 16 * 16;
}

static float *floats_new(size_t n, uint64_t *state) {
    float *v = mem_new(n, sizeof *v);
    for (size_t i = 0; i < n; i++) v[i] = tiny_float(state);
    return v;
}

/* n rows of a register. */
static float *rows_new(int n, int width, uint64_t *state) {
    return floats_new((size_t)n * (size_t)stride_of(width), state);
}

static size_t rows_bytes(int n, int width) {
    return (size_t)n * (size_t)stride_of(width) * sizeof(float);
}

/* NMSE of the first `width` of each row. */
static double rows_nmse(const float *got, const double *expected, int n, int width) {
    double error = 0, power = 0;
    for (int r = 0; r < n; r++)
        for (int i = 0; i < width; i++) {
            double e = expected[(size_t)r * (size_t)width + (size_t)i],
                   d = got[(size_t)r * (size_t)stride_of(width) + (size_t)i] - e;
            error += d * d, power += e * e;
        }
    return error / power;
}

static const int widths[] = {16, 64, 100, 256, 331, 4096, 17000};
enum { N_WIDTHS = sizeof widths / sizeof *widths };

/* ---- Rows ---- */

/* An op's operands are columns of wider registers: each row of `width` floats has others before and behind
 * it, and a register has a few rows more than the op reads. */
enum { COLUMN = 5, MORE_COLUMNS = 27, MORE_ROWS = 3 };

typedef struct Input {
    float *rows; // [n][width]: what the op reads
    RegRows device;
} Input;

static int register_stride(int width) {
    return width + MORE_COLUMNS;
}

/* The rows[n][width], in another order in the register where mapped; the other columns are NaN. */
static Input input_of(float *rows, int n, int width, bool mapped) {
    int n_rows = n + MORE_ROWS, stride = register_stride(width);
    size_t elements = (size_t)n_rows * (size_t)stride;
    float *all = mem_new(elements, sizeof *all);
    int *map = mem_new((size_t)n, sizeof *map);
    Input o = {rows, {.stride = stride}};
    for (size_t i = 0; i < elements; i++) all[i] = NAN;
    for (int r = 0; r < n; r++) {
        map[r] = mapped ? n_rows - 1 - r : r;
        memcpy(all + (size_t)map[r] * (size_t)stride + COLUMN, rows + (size_t)r * (size_t)width,
               (size_t)width * sizeof *all);
    }
    o.device.data = (float *)device_new(all, elements * sizeof *all) + COLUMN;
    if (mapped) o.device.map = device_new(map, (size_t)n * sizeof *map);
    free(all), free(map);
    return o;
}

static Input input_new(int n, int width, bool mapped, uint64_t *state) {
    return input_of(floats_new((size_t)n * (size_t)width, state), n, width, mapped);
}

/* n rows to be written. */
static RegRows output_new(int n, int width) {
    size_t bytes = (size_t)n * (size_t)register_stride(width) * sizeof(float);
    return (RegRows){(float *)device_new(NULL, bytes) + COLUMN, register_stride(width), NULL};
}

/* What was written, [n][width]; nothing may have been written to the other columns. */
static float *output_read(RegRows out, int n, int width, const char *name) {
    size_t stride = (size_t)out.stride;
    float *all = mem_new((size_t)n * stride, sizeof *all),
          *rows = mem_new((size_t)n * (size_t)width, sizeof *rows);
    device_read(all, out.data - COLUMN, (size_t)n * stride * sizeof *all);
    int n_touched = 0;
    for (int r = 0; r < n; r++)
        for (int i = 0; i < (int)stride; i++) {
            int column = i - COLUMN;
            float x = all[(size_t)r * stride + (size_t)i];
            if (column >= 0 && column < width)
                rows[(size_t)r * (size_t)width + (size_t)column] = x;
            else
                n_touched += !isnan(x);
        }
    CHECK(n_touched == 0, "%s of %d x %d: %d elements outside of the output's columns are written", name, n,
          width, n_touched);
    free(all);
    return rows;
}

static void output_check(RegRows out, int n, int width, const double *expected, const char *name) {
    float *got = output_read(out, n, width, name);
    double error = 0, power = 0;
    for (size_t i = 0; i < (size_t)n * (size_t)width; i++) {
        double d = got[i] - expected[i];
        error += d * d;
        power += expected[i] * expected[i];
    }
    CHECK(error <= 1e-12 * power, "%s of %d x %d: NMSE %.3g", name, n, width, error / power);
    free(got);
}

static void check_norm(int width, int n, bool mapped) {
    uint64_t seed = 1;
    Input in = input_new(n, width, mapped, &seed);
    float *weight = floats_new((size_t)width, &seed);
    double *expected = mem_new((size_t)n * (size_t)width, sizeof *expected);
    for (int r = 0; r < n; r++) {
        const float *x = in.rows + (size_t)r * (size_t)width;
        double sum = 0;
        for (int i = 0; i < width; i++) sum += (double)x[i] * x[i];
        for (int i = 0; i < width; i++)
            expected[(size_t)r * (size_t)width + (size_t)i] = x[i] / sqrt(sum / width + 1e-5) * weight[i];
    }
    RegRows out = output_new(n, width);
    device_check(launch_norm(device_launch(), in.device, device_new(weight, (size_t)width * sizeof *weight),
                             width, 1e-5f, n, out),
                 "norm");
    output_check(out, n, width, expected, "norm");
    device_end("norm");
    free(in.rows), free(weight), free(expected);
}

TEST(gpu_ops_norm) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int i = 0; i < N_WIDTHS; i++)
        for (int n = 1; n <= 65; n += 32) check_norm(widths[i], n, n > 1);
}

/* ADD for ACT_NONE, else GLU.  Each input has a map of its own, or none. */
static void check_pairs(int width, int n, Activation act, bool a_mapped, bool b_mapped) {
    uint64_t seed = 2;
    Input a = input_new(n, width, a_mapped, &seed), b = input_new(n, width, b_mapped, &seed);
    double *expected = mem_new((size_t)n * (size_t)width, sizeof *expected);
    for (size_t i = 0; i < (size_t)n * (size_t)width; i++) {
        double x = a.rows[i], y = b.rows[i];
        if (act == ACT_NONE)
            expected[i] = x + y;
        else
            expected[i] =
                y * (act == ACT_GELU ? x / 2 * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)))
                                     : x / (1 + exp(-x)));
    }
    RegRows out = output_new(n, width);
    const Launch *l = device_launch();
    device_check(act ? launch_glu(l, act, a.device, b.device, width, n, out)
                     : launch_add(l, a.device, b.device, width, n, out),
                 act ? activation_name(act) : "add");
    output_check(out, n, width, expected, act ? activation_name(act) : "add");
    device_end("a pair");
    free(a.rows), free(b.rows), free(expected);
}

TEST(gpu_ops_add_and_glu) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int i = 0; i < N_WIDTHS; i++)
        for (int n = 1; n <= 513; n += 256)
            for (int act = ACT_NONE; act < ACT_COUNT; act++)
                for (int maps = 0; maps < 4; maps++)
                    check_pairs(widths[i], n, (Activation)act, maps & 1, maps & 2);
}

/* ---- Experts ---- */

/* The n_used largest, the lower id of two equal ones first, and the softmax of those. */
static void route(const float *logits, int n_expert, int n_used, float factor, int *ids, double *weights) {
    double sum = 0;
    for (int s = 0; s < n_used; s++) {
        ids[s] = -1;
        for (int e = 0; e < n_expert; e++) {
            bool taken = false;
            for (int k = 0; k < s; k++) taken = taken || ids[k] == e;
            if (!taken && (ids[s] < 0 || logits[e] > logits[ids[s]])) ids[s] = e;
        }
        sum += weights[s] = exp((double)logits[ids[s]] - logits[ids[0]]);
    }
    for (int s = 0; s < n_used; s++) weights[s] *= factor / sum;
}

static void check_route(int n_expert, int n_used, int n, bool mapped) {
    uint64_t seed = 3;
    int chosen[64];
    double shares[64];
    float *values = floats_new((size_t)(n * n_expert), &seed);
    for (int r = 0; r < n; r += 3) // equal ones among the largest
        for (int e = 1; e < n_expert; e += 2) values[r * n_expert + e] = 1.5f;
    Input logits = input_of(values, n, n_expert, mapped);
    RegRows ids = output_new(n, n_used), weights = output_new(n, n_used);
    Route op = {logits.device, n_expert, n_used, 2.5f, ids, weights};
    device_check(launch_route(device_launch(), &op, n), "route");
    float *got_ids = output_read(ids, n, n_used, "route"), *got = output_read(weights, n, n_used, "route");
    for (int r = 0; r < n; r++) {
        route(logits.rows + r * n_expert, n_expert, n_used, 2.5f, chosen, shares);
        for (int s = 0; s < n_used; s++) {
            int32_t id;
            memcpy(&id, &got_ids[r * n_used + s], sizeof id);
            CHECK(id == chosen[s], "%d of %d, row %d: slot %d is %d, not %d", n_used, n_expert, r, s, id,
                  chosen[s]);
            CHECK(fabs(got[r * n_used + s] - shares[s]) <= 2e-6, "%d of %d, row %d: weight %d", n_used,
                  n_expert, r, s);
        }
    }
    device_end("route");
    free(logits.rows), free(got_ids), free(got);
}

TEST(gpu_ops_route) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int cases[][2] = {{2, 1}, {4, 2}, {8, 8}, {31, 3}, {128, 8}, {257, 10}};
    for (int i = 0; i < 6; i++)
        for (int n = 1; n <= 65; n += 32) check_route(cases[i][0], cases[i][1], n, n > 1);
}

static void check_moe_sum(int width, int n_used, int n, bool residual) {
    uint64_t seed = 4;
    bool mapped = n > 1;
    Input in = input_new(n, width * n_used, false, &seed), weights = input_new(n, n_used, mapped, &seed),
          more = input_new(n, width, mapped, &seed);
    double *expected = mem_new((size_t)n * (size_t)width, sizeof *expected);
    for (int r = 0; r < n; r++)
        for (int i = 0; i < width; i++) {
            size_t at = (size_t)r * (size_t)width + (size_t)i;
            double sum = residual ? more.rows[at] : 0;
            for (int s = 0; s < n_used; s++)
                sum += (double)weights.rows[r * n_used + s] *
                       in.rows[(size_t)(r * n_used + s) * (size_t)width + (size_t)i];
            expected[at] = sum;
        }
    MoeSum op = {in.device,           weights.device, n_used, width, residual ? more.device : (RegRows){0},
                 output_new(n, width)};
    device_check(launch_moe_sum(device_launch(), &op, n), "moe_sum");
    output_check(op.out, n, width, expected, "moe_sum");
    device_end("moe_sum");
    free(in.rows), free(weights.rows), free(more.rows), free(expected);
}

TEST(gpu_ops_moe_sum) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    for (int i = 0; i < N_WIDTHS - 1; i++)
        for (int n = 1; n <= 65; n += 32) check_moe_sum(widths[i], 1 + n % 7, n, n > 1);
}

/* ---- The cache ---- */

typedef struct Cache {
    int n_seq, n_head, head_dim, n_ctx;
    KvType type;
    size_t bytes;     // of K or V
    uint8_t *k, *v;   // as the device keeps them
    float *key, *val; // what that says: [sequence][head][n_ctx][head_dim]
    DeviceKv device;
} Cache;

static size_t cache_at(const Cache *c, int seq, int head, int position) {
    return (((size_t)seq * (size_t)c->n_head + (size_t)head) * (size_t)c->n_ctx + (size_t)position) *
           (size_t)c->head_dim;
}

static KvHistory cache_history(const Cache *c, uint8_t *cache, int seq, int head) {
    size_t positions = kv_positions(c->n_ctx), number = (size_t)seq * (size_t)c->n_head + (size_t)head;
    return kv_history(c->type, cache + number * positions * kv_row_bytes(c->type, c->head_dim), positions,
                      c->head_dim);
}

/* Keeps x[head_dim] on the host; values[head_dim] become what is kept. */
static void cache_put(const Cache *c, uint8_t *cache, float *values, int seq, int head, int position,
                      const float *x) {
    KvHistory h = cache_history(c, cache, seq, head);
    size_t n = (size_t)c->head_dim, to = cache_at(c, seq, head, position);
    kv_put(c->type, x, c->head_dim, h, (size_t)position);
    for (size_t i = 0; i < n; i++) values[to + i] = kv_get(c->type, h, (size_t)position * n + i);
}

/* All positions are random; what a history has room for beyond n_ctx is NaN. */
static void cache_fill(const Cache *c, uint8_t *cache, float *values, uint64_t *state) {
    memset(cache, 0xFF, c->bytes);
    for (int s = 0; s < c->n_seq; s++)
        for (int h = 0; h < c->n_head; h++)
            for (int p = 0; p < c->n_ctx; p++) {
                float x[256];
                for (int i = 0; i < c->head_dim; i++) x[i] = tiny_float(state);
                cache_put(c, cache, values, s, h, p, x);
            }
}

static Cache cache_new(int n_seq, int n_head, int head_dim, int n_ctx, KvType type, uint64_t *state) {
    Cache c = {.n_seq = n_seq, .n_head = n_head, .head_dim = head_dim, .n_ctx = n_ctx, .type = type};
    size_t heads = (size_t)n_seq * (size_t)n_head, n = cache_at(&c, n_seq, 0, 0);
    c.bytes = heads * kv_positions(n_ctx) * kv_row_bytes(type, head_dim);
    c.k = mem_new(c.bytes, 1), c.v = mem_new(c.bytes, 1);
    c.key = mem_new(n, sizeof *c.key), c.val = mem_new(n, sizeof *c.val);
    cache_fill(&c, c.k, c.key, state), cache_fill(&c, c.v, c.val, state);
    c.device = (DeviceKv){
        device_new(c.k, c.bytes), device_new(c.v, c.bytes), type, (int)kv_positions(n_ctx), n_head, head_dim};
    return c;
}

static void cache_free(Cache *c) {
    free(c->k), free(c->v), free(c->key), free(c->val);
}

/* Keys of the device that are not to the bit what the host has, and of them those that are further away than
 * the rounding of a last bit of f32 can make them: `step`, relative to 1. */
static int keys_differ(const Cache *c, double step, int *n_far) {
    uint8_t *bytes = mem_new(c->bytes, 1);
    int n = *n_far = 0;
    device_read(bytes, c->device.k, c->bytes);
    for (int s = 0; s < c->n_seq; s++)
        for (int h = 0; h < c->n_head; h++) {
            KvHistory history = cache_history(c, bytes, s, h);
            for (size_t i = 0; i < (size_t)c->n_ctx * (size_t)c->head_dim; i++) {
                double got = kv_get(c->type, history, i), expected = c->key[cache_at(c, s, h, 0) + i];
                n += got != expected;
                *n_far += !(fabs(got - expected) <= step * fmax(1, fabs(expected)));
            }
        }
    free(bytes);
    return n;
}

static bool values_equal(const Cache *c) {
    uint8_t *bytes = mem_new(c->bytes, 1);
    device_read(bytes, c->device.v, c->bytes);
    bool equal = memcmp(bytes, c->v, c->bytes) == 0;
    free(bytes);
    return equal;
}

/* Rotates pairs (2i, 2i + 1) of one head in place. */
static void rotate(float *x, int n_rot, const double *frequency, int position) {
    for (int i = 0; i < n_rot / 2; i++) {
        double c = cos(position * frequency[i]), s = sin(position * frequency[i]), a = x[2 * i],
               b = x[2 * i + 1];
        x[2 * i] = (float)(a * c - b * s), x[2 * i + 1] = (float)(a * s + b * c);
    }
}

/* Row 2 of the batch is padding, which must not be written anywhere. */
static void check_rope(int head_dim, int n_rot, KvType type, int T) {
    enum { N_HEAD = 6, N_KV = 3, N_SEQ = 4, N_CTX = 700 };
    uint64_t seed = 5;
    Cache c = cache_new(N_SEQ, N_KV, head_dim, N_CTX, type, &seed);
    int q_width = N_HEAD * head_dim, kv_width = N_KV * head_dim;
    float *q = rows_new(T, q_width, &seed), *k = rows_new(T, kv_width, &seed),
          *v = rows_new(T, kv_width, &seed);
    float *got = rows_new(T, q_width, &seed);
    double *expected = mem_new((size_t)T * (size_t)q_width, sizeof *expected), frequency[128];
    int32_t *seq = mem_new((size_t)T, sizeof *seq), *position = mem_new((size_t)T, sizeof *position);
    for (int i = 0; i < n_rot / 2; i++) frequency[i] = pow(10000, -2.0 * i / n_rot);
    for (int t = 0; t < T; t++) seq[t] = t == 2 ? -1 : t % N_SEQ, position[t] = t == 2 ? 0 : N_CTX - 1 - t;
    float *device_q = device_new(q, rows_bytes(T, q_width));
    NewKv fresh = {device_new(k, rows_bytes(T, kv_width)), device_new(v, rows_bytes(T, kv_width)),
                   device_new(frequency, sizeof(double) * (size_t)(n_rot / 2)), n_rot};
    device_check(launch_rope_kvput(device_launch(), device_q, N_HEAD, &fresh, &c.device,
                                   device_new(seq, (size_t)T * sizeof *seq),
                                   device_new(position, (size_t)T * sizeof *position), T),
                 "rope");
    for (int t = 0; t < T; t++) {
        for (int h = 0; h < N_HEAD; h++) {
            float *x = q + (size_t)t * (size_t)stride_of(q_width) + h * head_dim;
            if (seq[t] >= 0) rotate(x, n_rot, frequency, position[t]);
            for (int i = 0; i < head_dim; i++)
                expected[(size_t)t * (size_t)q_width + (size_t)(h * head_dim + i)] = x[i];
        }
        for (int h = 0; h < N_KV && seq[t] >= 0; h++) {
            size_t from = (size_t)t * (size_t)stride_of(kv_width) + (size_t)(h * head_dim);
            rotate(k + from, n_rot, frequency, position[t]);
            cache_put(&c, c.k, c.key, seq[t], h, position[t], k + from);
            cache_put(&c, c.v, c.val, seq[t], h, position[t], v + from);
        }
    }
    device_read(got, device_q, rows_bytes(T, q_width));
    for (int i = 0; T > 2 && i < q_width; i++) // nobody reads padding: rotated or not
        expected[(size_t)2 * (size_t)q_width + (size_t)i] = got[2 * stride_of(q_width) + i];
    double nmse = rows_nmse(got, expected, T, q_width);
    CHECK(nmse <= 1e-12, "%d of %d rotated, %d rows: NMSE %.3g", n_rot, head_dim, T, nmse);
    static const double steps[] = {
        [KV_F16] = 0x1p-10, [KV_F32] = 1e-6, [KV_Q8_0] = 2. / 127, [KV_FP8] = 0x1p-3};
    int n_far, n_differ = keys_differ(&c, steps[type], &n_far);
    CHECK(n_far == 0 && values_equal(&c), "%s, %d of %d rotated, %d rows: %d keys far off, values %s",
          kv_type_name(type), n_rot, head_dim, T, n_far, values_equal(&c) ? "equal" : "differ");
    bool few =
        n_differ <= 64 + T * N_KV * head_dim / 100; // a tie, a scale's last bit (32 keys) fell the other way
    CHECK(few || type == KV_F32, "%s, %d of %d rotated, %d rows: %d keys differ", kv_type_name(type), n_rot,
          head_dim, T, n_differ);
    device_end("rope");
    free(q), free(k), free(v), free(got), free(expected), free(seq), free(position);
    cache_free(&c);
}

TEST(gpu_ops_rope_and_cache) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int dims[][2] = {{32, 32}, {40, 40}, {64, 64},   {64, 48},
                                  {80, 80}, {96, 2},  {128, 128}, {256, 256}};
    for (int i = 0; i < 8; i++)
        for (int T = 1; T <= 513; T = T == 1 ? 7 : T == 7 ? 65 : T * 8 - 7) {
            for (int type = 0; type < KV_N_TYPES; type++)
                if (dims[i][0] % kv_type_unit((KvType)type) == 0)
                    check_rope(dims[i][0], dims[i][1], (KvType)type, T);
        }
}

/* ---- Attention ---- */

static void attend(const Cache *c, const float *q, int kv_head, float scale, int seq, int position,
                   double *out) {
    double *score = mem_new((size_t)position + 1, sizeof *score), most = -INFINITY, sum = 0;
    for (int p = 0; p <= position; p++) {
        const float *k = c->key + cache_at(c, seq, kv_head, p);
        for (int i = 0; i < c->head_dim; i++) score[p] += (double)q[i] * k[i];
        most = fmax(most, score[p] *= scale);
    }
    for (int i = 0; i < c->head_dim; i++) out[i] = 0;
    for (int p = 0; p <= position; p++) {
        const float *v = c->val + cache_at(c, seq, kv_head, p);
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

/* Launches over the rows, which read q from its first row on. */
static void launch_rows(const Cache *c, Heads h, const Rows *rows, const float *q, bool decode, float *got) {
    size_t width = (size_t)stride_of(h.n_head * h.head_dim), bytes = (size_t)rows->T * width * sizeof(float);
    const Launch *l = device_launch();
    float *out = device_new(NULL, bytes);
    void *scratch = device_zeros(attn_scratch_bytes(rows->T, h.n_head, h.head_dim, l->n_sm));
    for (int again = 0; again < 2; again++) // the scratch is left as it was found
        device_check(launch_attn(l, device_new(q, bytes), h.n_head, NULL, &c->device, 0.3f,
                                 device_new(rows->seq, sizeof rows->seq),
                                 device_new(rows->position, sizeof rows->position), rows->T, decode, out,
                                 scratch),
                     "attention");
    device_read(got, out, bytes);
}

static void check_attn(Heads h, KvType type, const Rows *rows, int n_ctx, bool decode, double limit) {
    uint64_t seed = 6;
    size_t width = (size_t)stride_of(h.n_head * h.head_dim);
    Cache c = cache_new(4, h.n_kv_head, h.head_dim, n_ctx, type, &seed);
    float *q = floats_new((size_t)rows->T * width, &seed),
          *got = mem_new((size_t)rows->T * width, sizeof *got), *one = mem_new(width, sizeof *one);
    double *expected = mem_new((size_t)h.head_dim, sizeof *expected), error = 0, power = 0;
    launch_rows(&c, h, rows, q, decode, got);
    for (int t = 0; t < rows->T; t++)
        for (int n = 0; n < h.n_head && rows->seq[t] >= 0; n++) {
            size_t at = (size_t)t * width + (size_t)(n * h.head_dim);
            attend(&c, q + at, n / (h.n_head / h.n_kv_head), 0.3f, rows->seq[t], rows->position[t], expected);
            for (int i = 0; i < h.head_dim; i++)
                error += (got[at + (size_t)i] - expected[i]) * (got[at + (size_t)i] - expected[i]),
                    power += expected[i] * expected[i];
        }
    CHECK(error <= limit * power, "%d heads on %d of %d, %d rows, %s: NMSE %.3g of %.3g", h.n_head,
          h.n_kv_head, h.head_dim, rows->T, kv_type_name(type), error / power, limit);
    int last = rows->T - 1;
    Rows alone = {1, {rows->seq[last]}, {rows->position[last]}};
    if (decode && rows->seq[last] >= 0) {
        launch_rows(&c, h, &alone, q + (size_t)last * width, true, one);
        CHECK(memcmp(one, got + (size_t)last * width, (size_t)(h.n_head * h.head_dim) * sizeof *one) == 0,
              "%d rows of %d heads: not the bytes of one alone", rows->T, h.n_head);
    }
    device_end("attention");
    free(q), free(got), free(one), free(expected);
    cache_free(&c);
}

/* Every type of cache that such heads can have. */
static void check_types(Heads h, const Rows *rows, int n_ctx, bool decode, double limit) {
    for (int type = 0; type < KV_N_TYPES; type++)
        if (h.head_dim % kv_type_unit((KvType)type) == 0)
            check_attn(h, (KvType)type, rows, n_ctx, decode, limit);
}

static const Heads heads[] = {{4, 2, 32},  {3, 3, 40},   {8, 2, 64},  {9, 1, 64},  {6, 2, 80}, {4, 1, 96},
                              {8, 1, 128}, {32, 8, 128}, {2, 2, 136}, {4, 2, 160}, {4, 2, 256}};
enum { N_HEADS = sizeof heads / sizeof *heads };

TEST(gpu_ops_attention_of_single_rows) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int sizes[] = {1, 2, 5, 17, 64, 80};
    for (int i = 0; i < N_HEADS; i++)
        for (int k = 0; k < 6; k++) {
            Rows rows = {.T = sizes[k]};
            for (int t = 0; t < rows.T; t++)
                rows.seq[t] = t % 7 == 3 ? -1 : t % 4, rows.position[t] = (t * 197 + 699) % 700;
            check_types(heads[i], &rows, 700, true, 1e-9);
        }
}

/* What rows that are the newest of their sequences give and leave in the cache: with keys and values put
 * there before, or on the way. */
static void attend_newest(Cache *c, Heads h, const Rows *rows, bool on_the_way, float *got) {
    uint64_t seed = 7;
    int q_width = h.n_head * h.head_dim, kv_width = h.n_kv_head * h.head_dim, n_rot = h.head_dim / 4 * 2;
    size_t bytes = rows_bytes(rows->T, q_width);
    float *q = rows_new(rows->T, q_width, &seed), *k = rows_new(rows->T, kv_width, &seed),
          *v = rows_new(rows->T, kv_width, &seed);
    double frequency[128];
    for (int i = 0; i < n_rot / 2; i++) frequency[i] = pow(10000, -2.0 * i / n_rot);
    NewKv fresh = {device_new(k, rows_bytes(rows->T, kv_width)), device_new(v, rows_bytes(rows->T, kv_width)),
                   device_new(frequency, sizeof(double) * (size_t)(n_rot / 2)), n_rot};
    const Launch *l = device_launch();
    float *device_q = device_new(q, bytes), *out = device_new(NULL, bytes);
    int32_t *seq = device_new(rows->seq, sizeof rows->seq),
            *position = device_new(rows->position, sizeof rows->position);
    void *scratch = device_zeros(attn_scratch_bytes(rows->T, h.n_head, h.head_dim, l->n_sm));
    if (!on_the_way)
        device_check(launch_rope_kvput(l, device_q, h.n_head, &fresh, &c->device, seq, position, rows->T),
                     "rope");
    device_check(launch_attn(l, device_q, h.n_head, on_the_way ? &fresh : NULL, &c->device, 0.3f, seq,
                             position, rows->T, true, out, scratch),
                 "attention");
    device_read(got, out, bytes);
    device_read(c->k, c->device.k, c->bytes), device_read(c->v, c->device.v, c->bytes);
    device_end("attention");
    free(q), free(k), free(v);
}

static void check_newest(Heads h, KvType type, const Rows *rows, int n_ctx) {
    size_t bytes = rows_bytes(rows->T, h.n_head * h.head_dim);
    Cache cache[2];
    float *got[2];
    for (int i = 0; i < 2; i++) {
        uint64_t seed = 6;
        cache[i] = cache_new(rows->T, h.n_kv_head, h.head_dim, n_ctx, type, &seed);
        attend_newest(&cache[i], h, rows, i, got[i] = mem_new(bytes, 1));
    }
    bool same = true;
    for (int t = 0; t < rows->T; t++) {
        size_t at = (size_t)t * (size_t)stride_of(h.n_head * h.head_dim);
        if (rows->seq[t] >= 0)
            same &= memcmp(got[0] + at, got[1] + at, (size_t)(h.n_head * h.head_dim) * sizeof **got) == 0;
    }
    CHECK(same, "%d heads on %d of %d, %d rows, %s: other bytes on the way", h.n_head, h.n_kv_head,
          h.head_dim, rows->T, kv_type_name(type));
    CHECK(memcmp(cache[0].k, cache[1].k, cache[0].bytes) == 0 &&
              memcmp(cache[0].v, cache[1].v, cache[0].bytes) == 0,
          "%d heads on %d of %d, %d rows, %s: another cache", h.n_head, h.n_kv_head, h.head_dim, rows->T,
          kv_type_name(type));
    for (int i = 0; i < 2; i++) cache_free(&cache[i]), free(got[i]);
}

TEST(gpu_ops_attention_of_newest_rows) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int positions[] = {699, 0, 1, 15, 16, 17, 63, 64, 127, 128, 129, 255};
    static const struct { int n_rows, n_ctx; } sizes[] = {{1, 700}, {9, 300}, {70, 40}};
    for (int i = 0; i < N_HEADS; i++)
        for (int n = 0; n < 3; n++) {
            Rows rows = {.T = sizes[n].n_rows};
            for (int t = 0; t < rows.T; t++)
                rows.seq[t] = t == 5 ? -1 : rows.T - 1 - t,
                rows.position[t] = positions[(i + t) % 12] % sizes[n].n_ctx;
            for (int type = 0; type < KV_N_TYPES; type++)
                if (heads[i].head_dim % kv_type_unit((KvType)type) == 0)
                    check_newest(heads[i], (KvType)type, &rows, sizes[n].n_ctx);
        }
}

TEST(gpu_ops_attention_over_a_long_past) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    Rows rows = {2, {1, 3}, {9000, 40}};
    check_types((Heads){8, 2, 128}, &rows, 9001, true, 1e-9);
    check_types((Heads){8, 2, 64}, &rows, 9001, true, 1e-9);
}

TEST(gpu_ops_attention_of_prompts) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const int sizes[] = {1, 16, 17, 33, 64, 65, 80}, befores[] = {0, 1, 100};
    for (int i = 0; i < N_HEADS; i++)
        for (int k = 0; k < 7; k++) {
            Rows rows = {.T = sizes[k]};
            for (int t = 0; t < rows.T; t++) rows.seq[t] = 2, rows.position[t] = befores[k % 3] + t;
            check_types(heads[i], &rows, 165, false, 1e-5);
        }
}

/* ---- The sampler ---- */

enum { N_VOCAB = 1003, R = 50, N_LAUNCHES = 2000, HISTORY = 40 }; // 100,000 rows

typedef struct Sampling { // on the device, with the host's view of what changes
    SampleStep step;
    DeviceSampler samplers[R];
    int32_t history[R][HISTORY + 1];
    float logits[R][1008];
    int32_t position[R];
    void *device_logits, *device_history;
    uint32_t *device_banned;
    RingEntry *ring;
} Sampling;

static const int32_t banned[] = {0, 2, 500, 1002};

static void sampling_open(Sampling *s) {
    enum { WORDS = (N_VOCAB + 31) / 32 };
    int32_t seq[R], none[R] = {0};
    for (int r = 0; r < R; r++) seq[r] = r;
    s->device_logits = device_new(NULL, sizeof s->logits);
    s->device_history = device_new(NULL, sizeof s->history);
    s->device_banned = device_new(NULL, WORDS * sizeof(uint32_t));
    device_check(launch_ban(device_launch(), s->device_banned, WORDS, banned, 4), "bans");
    device_check(cudaMallocHost((void **)&s->ring, 4 * R * sizeof *s->ring), "pinned memory");
    memset(s->ring, 0, 4 * R * sizeof *s->ring);
    s->step = (SampleStep){.logits = s->device_logits,
                           .n_vocab = N_VOCAB,
                           .R = R,
                           .rows = {.token = device_new(none, sizeof none),
                                    .seq = device_new(seq, sizeof seq),
                                    .position = device_new(none, sizeof none),
                                    .sampler = device_new(NULL, sizeof s->samplers)},
                           .loop = true,
                           .history = {s->device_history, HISTORY + 1},
                           .step = device_zeros(sizeof(uint32_t)),
                           .ring = s->ring,
                           .ring_steps = 4,
                           .ring_rows = R,
                           .scratch = device_zeros(sample_device_scratch_bytes(R, N_VOCAB))};
}

/* Rows of different kinds: smooth, steep, of few distinct values, and some that cannot be chosen from. */
static void draw_logits(Sampling *s, uint64_t *state) {
    for (int r = 0; r < R; r++) {
        int kind = (int)(tiny_random(state) % 16);
        float spread = kind < 8 ? 3 : kind < 12 ? 40 : 0.5f;
        for (int i = 0; i < N_VOCAB; i++) {
            float v = spread * (tiny_float(state) + tiny_float(state));
            s->logits[r][i] = kind == 13 ? rintf(v * 4) : kind == 14 && i % 3 ? -INFINITY : v;
        }
        if (kind == 15 && tiny_random(state) % 8 == 0)
            s->logits[r][tiny_random(state) % N_VOCAB] = r % 2 ? NAN : INFINITY;
        for (int i = 0; i < HISTORY; i++)
            s->history[r][i] = (int32_t)(tiny_random(state) % (i % 2 ? N_VOCAB : 20));
    }
}

static void sampling_send(Sampling *s, const SampleParams *p, bool ban, uint64_t seed) {
    for (int r = 0; r < R; r++) {
        s->samplers[r] = (DeviceSampler){*p, ban ? s->device_banned : NULL};
        s->samplers[r].params.seed += seed * R + (uint64_t)r;
        s->position[r] = (r * 7 + (int)(seed % HISTORY)) % HISTORY;
    }
    const DeviceRows *rows = &s->step.rows;
    device_check(cudaMemcpy(rows->sampler, s->samplers, sizeof s->samplers, cudaMemcpyHostToDevice),
                 "samplers");
    device_check(cudaMemcpy(rows->position, s->position, sizeof s->position, cudaMemcpyHostToDevice),
                 "positions");
    device_check(cudaMemcpy(s->device_history, s->history, sizeof s->history, cudaMemcpyHostToDevice),
                 "history");
    device_check(cudaMemcpy(s->device_logits, s->logits, sizeof s->logits, cudaMemcpyHostToDevice), "logits");
    device_check(cudaDeviceSynchronize(), "logits"); // a copy returns before its last bytes have come
}

/* One launch against the host's sampler.  The number of rows that differ. */
static int sampling_check(Sampling *s, uint32_t step, const SampleParams *p, bool ban, void *scratch) {
    int n_wrong = 0;
    device_check(launch_sample(device_launch(), &s->step), "sample");
    device_check(cudaStreamSynchronize(device_launch()->stream), "sample");
    for (int r = 0; r < R; r++) {
        SampleParams mine = *p;
        mine.seed = s->samplers[r].params.seed;
        if (ban) mine.banned = banned, mine.n_banned = 4;
        int n = s->position[r] + 1,
            token = sample_token(s->logits[r], N_VOCAB, &mine, s->history[r], n, (uint64_t)n, scratch);
        const RingEntry *entry = &s->ring[(step - 1) % 4 * R + (uint32_t)r];
        n_wrong += entry->token != token || entry->step != step;
    }
    return n_wrong;
}

static void check_option(const SampleParams *p, bool ban, const char *name) {
    Sampling *s = mem_new(1, sizeof *s);
    void *scratch = mem_new(sample_scratch_bytes(N_VOCAB), 1);
    uint64_t state = 8;
    int n_wrong = 0;
    sampling_open(s);
    for (uint32_t step = 1; step <= N_LAUNCHES; step++) {
        draw_logits(s, &state);
        sampling_send(s, p, ban, step);
        n_wrong += sampling_check(s, step, p, ban, scratch);
    }
    CHECK(n_wrong == 0, "%s: %d of %d rows are not the host's", name, n_wrong, R * N_LAUNCHES);
    device_end("sampler");
    cudaFreeHost(s->ring);
    free(scratch), free(s);
}

TEST(gpu_ops_sampler_is_the_hosts) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const struct {
        const char *name;
        SampleParams p;
        bool ban;
    } options[] = {
        {"greedy", {.top_p = 1, .repeat_penalty = 1}, false},
        {"blind", {.blind = true, .seed = 9}, false},
        {"blind, bans", {.blind = true, .seed = 9}, true},
        {"temperature", {.temp = 0.8f, .top_p = 1, .repeat_penalty = 1, .seed = 1}, false},
        {"top-k", {.temp = 1, .top_p = 1, .repeat_penalty = 1, .top_k = 40, .seed = 2}, false},
        {"top-p", {.temp = 1, .top_p = 0.9f, .repeat_penalty = 1, .seed = 3}, false},
        {"min-p", {.temp = 1.5f, .top_p = 1, .min_p = 0.1f, .repeat_penalty = 1, .seed = 4}, false},
        {"repeat penalty",
         {.temp = 1, .top_p = 1, .repeat_penalty = 1.3f, .repeat_last_n = 16, .seed = 5},
         false},
        {"presence and frequency",
         {.temp = 1,
          .top_p = 1,
          .repeat_penalty = 1,
          .presence_penalty = 0.7f,
          .frequency_penalty = 0.3f,
          .repeat_last_n = -1,
          .seed = 6},
         false},
        {"bans", {.temp = 1, .top_p = 1, .repeat_penalty = 1, .seed = 7}, true},
        {"greedy, penalised",
         {.top_p = 1, .repeat_penalty = 1.2f, .frequency_penalty = 0.5f, .repeat_last_n = 32},
         true},
        {"all",
         {.temp = 0.8f,
          .top_p = 0.95f,
          .min_p = 0.05f,
          .repeat_penalty = 1.1f,
          .presence_penalty = 0.1f,
          .frequency_penalty = 0.1f,
          .top_k = 100,
          .repeat_last_n = 64,
          .seed = 8},
         true},
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        check_option(&options[i].p, options[i].ban, options[i].name);
}
