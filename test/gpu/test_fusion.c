/* fusion: a layer's products, its choice of experts and their sum, or its norms, in one kernel give the bytes
 * of its ops one by one, from epoch to epoch.
 *
 *     x = o in;  logits, gate = router norm(x);  s = act(gate_s norm(x)) * up_s norm(x)
 *     e = the same of the chosen experts;  y = x + sigmoid(gate) * down_s s
 *     z = y + scale * sum of weight * down e;  last = last norm(z)
 *
 *     x = residual + norm(o in);  y = norm(down act(gate norm(x)) * up norm(x))
 *     z = scale * (x + y), or scale * (x + norm(y));  last = last norm(z) */
#include "device.h"
#include "gpu.h"
#include "matrix.h"
#include "tiny.h"

enum { N_IN = 768, WIDTH = 576, N_SHARED = 192, N_FF = 320, N_LAST = 77, N_MOST_USED = 16, EPOCHS = 4 };
#define EPS 1e-5f

typedef struct Layer {
    QuantType type;
    int n_ff;
    bool shared, pair;
    MoeParams moe;
    float sum_scale;
} Layer;

typedef struct Trial {
    Fusion c;
    Product alone[MAX_PRODUCTS]; // the same as ops of their own
    MoeSum sum;
    Norm norm[MAX_KEPT_NORMS];
    Matrix m[2 * MAX_PRODUCTS];
    int n_m;
    uint64_t seed;
} Trial;

/* A matrix of random blocks on the device. */
static ProductSegment segment(Trial *t, QuantType type, int n_in, int n_out, int n_expert, int n_used) {
    Matrix *m = &t->m[t->n_m++];
    *m = matrix_new(type, n_in, n_out, n_expert, &t->seed);
    matrix_upload(m);
    int stride = stride_of(n_out * n_used);
    return (ProductSegment){
        .w = m->device, .out = device_new(NULL, (size_t)stride * sizeof(float)), .out_stride = stride};
}

static Product *add(Trial *t, RegRows in, int from, const float *norm) {
    Product *p = &t->c.p[t->c.n++];
    *p = (Product){
        .in = in, .norm = norm, .norm_eps = EPS, .scale = 1, .from = from, .kept = -1, .gate_from = -1};
    return p;
}

static void add_segment(Product *p, ProductSegment s) {
    p->segment[p->n_segments++] = s;
}

static RegRows out_of(const Product *p, int segment) {
    return (RegRows){p->segment[segment].out, p->segment[segment].out_stride, NULL};
}

static RegRows row_new(int n) {
    return (RegRows){device_new(NULL, (size_t)stride_of(n) * sizeof(float)), stride_of(n), NULL};
}

static Product *add_inner(Trial *t, const Layer *l, int n_out, int n_expert, int n_used, const float *norm) {
    Product *p = add(t, out_of(&t->c.p[0], 0), 0, norm);
    for (int i = 0; i < 1 + l->pair; i++)
        add_segment(p, segment(t, l->type, WIDTH, n_out, n_expert, n_used ? n_used : 1));
    p->act = l->pair ? ACT_SILU : ACT_NONE;
    p->act_alone = l->pair ? ACT_NONE : ACT_RELU2;
    p->same_input = true;
    p->n_used = n_used;
    return p;
}

static void trial_open(Trial *t, const Layer *l, RegRows in) {
    *t = (Trial){.seed = 12};
    Fusion *c = &t->c;
    float *host = floats_new(WIDTH, &t->seed);
    const float *norm = device_new(host, WIDTH * sizeof(float)),
                *other = device_new(host, WIDTH * sizeof(float));
    free(host);
    add_segment(add(t, in, -1, NULL), segment(t, l->type, N_IN, WIDTH, 1, 1));
    Product *router = add(t, out_of(&c->p[0], 0), 0, norm);
    c->router = 1;
    add_segment(router, segment(t, QUANT_F32, WIDTH, l->moe.n_expert, 1, 1));
    if (l->shared) add_segment(router, segment(t, QUANT_F32, WIDTH, 1, 1, 1));
    c->route = (Route){out_of(router, 0), l->moe, row_new(l->moe.n_used), row_new(l->moe.n_used)};
    if (l->shared) add_inner(t, l, N_SHARED, 1, 0, norm);
    add_inner(t, l, l->n_ff, l->moe.n_expert, l->moe.n_used, norm);
    int inner = c->n - 1;
    RegRows residual = out_of(&c->p[0], 0);
    if (l->shared) {
        Product *down = add(t, out_of(&c->p[2], 0), 2, NULL);
        add_segment(down, segment(t, l->type, N_SHARED, WIDTH, 1, 1));
        down->gate = (Gate){out_of(router, 1), false, true};
        down->gate_from = 1;
        down->gate_at = l->moe.n_expert;
        down->residual = residual;
        residual = out_of(down, 0);
    }
    Product *down = add(t, out_of(&c->p[inner], 0), inner, NULL);
    add_segment(down, segment(t, l->type, l->n_ff, WIDTH, l->moe.n_expert, l->moe.n_used));
    down->n_used = l->moe.n_used;
    down->per_slot = true;
    int summed = c->n - 1;
    RegRows z = row_new(WIDTH);
    t->sum = (MoeSum){out_of(down, 0), c->route.weights, l->moe.n_used, WIDTH, l->sum_scale, residual, z};
    add_segment(add(t, z, summed, other), segment(t, l->type, WIDTH, N_LAST, 1, 1));
    for (int i = 0; i < c->n; i++) {
        c->p[i].ids = (const int32_t *)c->route.ids.data;
        t->alone[i] = c->p[i];
        size_t n = 0;
        for (int s = 0; s < c->p[i].n_segments; s++) n += (size_t)c->p[i].segment[s].w.n_out;
        if (i + 1 < c->n)
            c->p[i].flagged = device_zeros(sizeof(FlaggedOutput) + n * N_MOST_USED * sizeof(uint32_t));
    }
    down->summed = true;
    down->sum_scale = l->sum_scale;
    down->residual = residual;
    down->segment[0].out = z.data;
    down->segment[0].out_stride = z.stride;
}

/* The norm of `in`, plus kept row `add`, whose register is `residual`, where that is not -1. */
static RegRows add_norm(Trial *t, KeptNorm norm, RegRows in, RegRows residual) {
    KeptRows *kept = &t->c.kept;
    RegRows out = row_new(WIDTH);
    norm.eps = EPS;
    norm.before = (int8_t)t->c.n;
    norm.out = out.data;
    t->norm[kept->n_norms] = (Norm){
        .in = in, .out = out, .weight = norm.weight, .eps = EPS, .sum_scale = norm.scale, .width = WIDTH};
    if (norm.add >= 0) t->norm[kept->n_norms].residual = residual;
    kept->norm[kept->n_norms++] = norm;
    return out;
}

/* The products of a layer with norms behind its blocks: those of a pair, or of one matrix and a wide gate;
 * the second norm in one step, or of a row that is kept, too. */
static void norms_open(Trial *t, QuantType type, bool gated, bool two, RegRows in, RegRows residual) {
    *t = (Trial){.seed = 21};
    Fusion *c = &t->c;
    c->router = -1;
    float *host = floats_new(WIDTH, &t->seed);
    const float *weight = device_new(host, WIDTH * sizeof(float));
    free(host);
    c->kept = (KeptRows){.first_kept = residual, .n_kept = 1 + two, .kept_width = WIDTH};
    add_segment(add(t, in, -1, NULL), segment(t, type, N_IN, WIDTH, 1, 1));
    RegRows x = add_norm(t, (KeptNorm){weight, .scale = 1, .from = 0, .kept = -1, .add = 0, .to = 0},
                         out_of(&c->p[0], 0), residual);
    Product *inner = add(t, x, -1, weight);
    inner->kept = 0;
    for (int i = 0; i < 2 - gated; i++) add_segment(inner, segment(t, type, WIDTH, N_FF, 1, 1));
    *(gated ? &inner->act_alone : &inner->act) = ACT_GELU;
    float *gates = floats_new(N_FF, &t->seed);
    if (gated)
        inner->gate = (Gate){{device_new(gates, N_FF * sizeof(float)), stride_of(N_FF), NULL}, true, false};
    free(gates);
    add_segment(add(t, out_of(&c->p[1], 0), 1, NULL), segment(t, type, N_FF, WIDTH, 1, 1));
    RegRows z = out_of(&c->p[2], 0);
    KeptNorm last = {weight, .scale = 0.75f, .from = 2, .kept = -1, .add = 0, .to = 0};
    if (two) {
        z = add_norm(t, (KeptNorm){weight, .scale = 1, .from = 2, .kept = -1, .add = -1, .to = 1}, z, x);
        last.from = -1;
        last.kept = 1;
    }
    z = add_norm(t, last, z, x);
    Product *end = add(t, z, -1, weight);
    end->kept = 0;
    add_segment(end, segment(t, type, WIDTH, N_LAST, 1, 1));
    for (int i = 0; i < c->n; i++) {
        t->alone[i] = c->p[i];
        if (i + 1 < c->n)
            c->p[i].flagged =
                device_zeros(sizeof(FlaggedOutput) + (size_t)c->p[i].segment[0].w.n_out * sizeof(uint32_t));
    }
}

static void run_alone(const Trial *t) {
    const Launch *l = device_launch();
    for (int i = 0; i < t->c.n; i++) {
        for (int k = 0; k < t->c.kept.n_norms; k++)
            if (t->c.kept.norm[k].before == i) device_check(launch_norm(l, &t->norm[k], 1), "norm");
        device_check(launch_products(l, &t->alone[i], 1, device_scratch()), "one by one");
        if (i == t->c.router) device_check(launch_route(l, &t->c.route, 1), "route");
        if (t->c.p[i].summed) device_check(launch_moe_sum(l, &t->sum, 1), "sum");
    }
}

static void check_layer(Layer l) {
    Trial t;
    uint64_t seed = 5;
    float *bias = floats_new((size_t)l.moe.n_expert, &seed), got[2][N_LAST];
    int ids[2][N_MOST_USED];
    if (l.moe.kind == ROUTE_SIGMOID) l.moe.bias = device_new(bias, (size_t)l.moe.n_expert * sizeof(float));
    RegRows in = row_new(N_IN);
    trial_open(&t, &l, in);
    const Product *last = &t.c.p[t.c.n - 1];
    char name[120];
    snprintf(name, sizeof name, "%s, %d of %d experts of %d%s%s", quant_traits(l.type)->name, l.moe.n_used,
             l.moe.n_expert, l.n_ff, l.shared ? ", shared" : "", l.pair ? "" : ", one matrix");
    CHECK(fusion_fits(device_launch(), &t.c), "%s: no fusion", name);
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        float *x = floats_new(N_IN, &seed);
        device_check(cudaMemcpy(in.data, x, N_IN * sizeof(float), cudaMemcpyHostToDevice), "input");
        for (int way = 0; way < 2; way++) {
            device_check(cudaMemset(last->segment[0].out, 0xFF, sizeof got[0]), "clearing");
            if (way)
                device_check(launch_fusion(device_launch(), &t.c), "a fusion");
            else
                run_alone(&t);
            device_read(got[way], last->segment[0].out, sizeof got[0]);
            device_read(ids[way], t.c.route.ids.data, (size_t)l.moe.n_used * sizeof(int));
        }
        CHECK(memcmp(ids[0], ids[1], (size_t)l.moe.n_used * sizeof(int)) == 0, "%s, epoch %d: other experts",
              name, epoch);
        CHECK(memcmp(got[0], got[1], sizeof got[0]) == 0,
              "%s, epoch %d: one kernel gives other bytes: %g for %g", name, epoch, (double)got[1][0],
              (double)got[0][0]);
        free(x);
    }
    device_end(name);
    for (int i = 0; i < t.n_m; i++) matrix_free(&t.m[i]);
    free(bias);
}

static void check_norms(QuantType type, bool gated, bool two) {
    Trial t;
    uint64_t seed = 6;
    float got[2][N_LAST], z[2][WIDTH];
    RegRows in = row_new(N_IN), residual = row_new(WIDTH);
    norms_open(&t, type, gated, two, in, residual);
    const Product *last = &t.c.p[t.c.n - 1];
    char name[120];
    snprintf(name, sizeof name, "%s, norms%s%s", quant_traits(type)->name, gated ? ", a gate" : "",
             two ? ", of a kept row" : "");
    CHECK(fusion_fits(device_launch(), &t.c), "%s: no fusion", name);
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        float *x = floats_new(N_IN, &seed), *r = floats_new(WIDTH, &seed);
        device_check(cudaMemcpy(in.data, x, N_IN * sizeof(float), cudaMemcpyHostToDevice), "input");
        device_check(cudaMemcpy(residual.data, r, WIDTH * sizeof(float), cudaMemcpyHostToDevice), "residual");
        for (int way = 0; way < 2; way++) {
            device_check(cudaMemset(last->segment[0].out, 0xFF, sizeof got[0]), "clearing");
            device_check(cudaMemset(last->in.data, 0xFF, sizeof z[0]), "clearing");
            if (way)
                device_check(launch_fusion(device_launch(), &t.c), "a fusion");
            else
                run_alone(&t);
            device_read(got[way], last->segment[0].out, sizeof got[0]);
            device_read(z[way], last->in.data, sizeof z[0]);
        }
        CHECK(memcmp(z[0], z[1], sizeof z[0]) == 0, "%s, epoch %d: another sum: %g for %g", name, epoch,
              (double)z[1][0], (double)z[0][0]);
        CHECK(memcmp(got[0], got[1], sizeof got[0]) == 0,
              "%s, epoch %d: one kernel gives other bytes: %g for %g", name, epoch, (double)got[1][0],
              (double)got[0][0]);
        free(x);
        free(r);
    }
    device_end(name);
    for (int i = 0; i < t.n_m; i++) matrix_free(&t.m[i]);
}

TEST(gpu_fusion_of_norms) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const QuantType types[] = {QUANT_Q4_0, QUANT_Q8_0, QUANT_Q5_0, QUANT_F16};
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 4; k++) check_norms(types[i], k % 2, k / 2);
}

TEST(gpu_fusion_of_experts) {
    const char *why = gpu_missing();
    if (why) SKIP(why);
    static const QuantType types[] = {QUANT_Q4_0, QUANT_Q8_0, QUANT_MXFP4, QUANT_F16, QUANT_BF16};
    static const int used[] = {1, 2, 6, 8, 16};
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 5; k++)
            for (int shared = 0; shared < 2; shared++) {
                MoeParams moe = {.n_expert = 16 + 120 * (k % 2), .n_used = used[k], .scale = 1.5f};
                moe.kind = i % 2 ? ROUTE_SIGMOID : ROUTE_SOFTMAX;
                moe.normalise = k % 2;
                if (k == 3) {
                    moe.n_group = 8;
                    moe.n_group_used = 4;
                }
                check_layer((Layer){types[i], 96 + 160 * (k % 3), shared, i != 1, moe, shared ? 0.5f : 1});
            }
}
