/* scalar: the oracle.
 *
 * Plain loops that define each kernel of kernels.h, over the decoders of quant.h and the definitions of
 * act.h.  Every fast table is compared with this one, which must stay simple.  It alone takes float
 * activations for every type, which makes it the reference for whole models too. */
#include "../base/float.h"
#include "kernels.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static bool supported(void) {
    return true;
}

static void matmul_q8(const Panel *w, const Act8 *x, int T, float *y) {
    const QuantTraits *traits = quant_traits(w->type);
    for (int t = 0; t < T; t++)
        for (int r = 0; r < w->n_rows; r++)
            y[t * PANEL_ROWS + r] = act8_dot(traits, w->rows + (size_t)r * w->row_bytes, w->n_in, x[t]);
}

#ifdef __x86_64__ // without the fma instruction fmaf is a call into libm: the same bits, three times slower
static void matmul_f32(const Panel *w, const float *const *x, int T, float *y)
    __attribute__((target_clones("fma", "default")));
#endif

static void matmul_f32(const Panel *w, const float *const *x, int T, float *y) {
    const QuantTraits *traits = quant_traits(w->type);
    assert(traits->decode && w->n_in % traits->n_weights == 0);
    float values[QUANT_MAX_WEIGHTS];
    memset(y, 0, sizeof(float) * (size_t)T * PANEL_ROWS);
    for (int r = 0; r < w->n_rows; r++) {
        const uint8_t *block = w->rows + (size_t)r * w->row_bytes;
        for (int k = 0; k < w->n_in; k += traits->n_weights, block += traits->n_bytes) {
            traits->decode(block, 1, values);
            for (int t = 0; t < T; t++) {
                float acc = y[t * PANEL_ROWS + r];
                for (int i = 0; i < traits->n_weights; i++) acc = fmaf(values[i], x[t][k + i], acc);
                y[t * PANEL_ROWS + r] = acc;
            }
        }
    }
}

static void norm(const NormParams *p, const float *x, int n, float *out) {
    double mean = 0, sum = 0;
    for (int i = 0; p->centred && i < n; i++) mean += (double)x[i] / n;
    for (int i = 0; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
    float scale = (float)(1 / sqrt(sum / n + (double)p->eps));
    for (int i = 0; i < n; i++) {
        out[i] = (float)(x[i] - mean) * scale * (p->weight ? p->weight[i] : 1);
        if (p->bias) out[i] += p->bias[i];
    }
}

/* These two keep a NaN, which fminf would drop. */
static float at_most(float x, float limit) {
    return x > limit ? limit : x;
}
static float clip(float x, float limit) {
    return x < -limit ? -limit : at_most(x, limit);
}

static float xielu(const GluParams *p, float x) {
    float curve = x > 0 ? p->alpha_p * x * x : p->alpha_n * (expm1f(at_most(x, p->eps)) - x);
    return curve + p->beta * x;
}

/* gelu by tanh, x/2 (1 + tanh(u)), is x sigmoid(2u). */
static float activate(const GluParams *p, float x) {
    switch (p->act) {
    case ACT_SILU:
        return x / (1 + expf(-x));
    case ACT_GELU:
        return x / (1 + expf(-1.5957691f * (x + 0.044715f * x * x * x)));
    case ACT_RELU2:
        return x < 0 ? 0 : x * x;
    case ACT_SIGMOID:
        return 1 / (1 + expf(-x));
    case ACT_SWIGLU_OAI:
        return at_most(x, 7) / (1 + expf(-1.702f * at_most(x, 7)));
    case ACT_CLAMPED:
        return at_most(x / (1 + expf(-x)), p->limit);
    case ACT_XIELU:
        return xielu(p, x);
    default:
        return x;
    }
}

/* What the activated gate is multiplied with. */
static float factor(const GluParams *p, float up) {
    if (p->act == ACT_SWIGLU_OAI) return clip(up, 7) + 1;
    return p->act == ACT_CLAMPED ? clip(up, p->limit) : up;
}

static void glu(const GluParams *p, const float *gate, const float *up, int n, float *out) {
    for (int i = 0; i < n; i++) out[i] = activate(p, gate[i]) * (up ? factor(p, up[i]) : 1);
}

static void softcap(float cap, const float *x, int n, float *out) {
    for (int i = 0; i < n; i++) out[i] = cap * tanhf(x[i] / cap);
}

static void to_f16(const float *x, int n, uint16_t *out) {
    for (int i = 0; i < n; i++) out[i] = f32_to_f16(x[i]);
}

/* Over x[n] and the sink, whose own share is dropped; NULL: none. */
static void softmax(float *x, int n, const float *sink) {
    float max = sink ? *sink : x[0];
    for (int i = 0; i < n; i++) max = fmaxf(max, x[i]);
    float sum = sink ? expf(*sink - max) : 0;
    for (int i = 0; i < n; i++) sum += x[i] = expf(x[i] - max);
    for (int i = 0; i < n; i++) x[i] /= sum;
}

/* Element d of the K or V that the i-th position seen has. */
static float seen(const AttnJob *job, CachePart part, int i, int d) {
    const CacheLayer *l = &job->cache->layer;
    int position = job->first + i;
    KvRows rows = cache_rows(job->cache, job->pages[position / CACHE_PAGE], part, job->head);
    return kv_get(l->type, rows, (size_t)(position % CACHE_PAGE * l->pitch[part] + d));
}

static void attn(const AttnJob *job) {
    int k_width = job->cache->layer.width[CACHE_K], v_width = job->cache->layer.width[CACHE_V];
    for (int h = 0; h < job->n_q; h++) {
        const float *q = job->q + (size_t)h * (size_t)k_width;
        float *scores = job->scores + (size_t)h * (size_t)job->n_pos,
              *out = job->out + (size_t)h * (size_t)v_width;
        for (int i = 0; i < job->n_pos; i++) {
            float sum = 0;
            for (int d = 0; d < k_width; d++) sum += q[d] * seen(job, CACHE_K, i, d);
            scores[i] = sum * job->scale;
        }
        if (job->softcap != 0) softcap(job->softcap, scores, job->n_pos, scores);
        softmax(scores, job->n_pos, job->sinks ? &job->sinks[h] : NULL);
        memset(out, 0, (size_t)v_width * sizeof *out);
        for (int i = 0; i < job->n_pos; i++)
            for (int d = 0; d < v_width; d++) out[d] += scores[i] * seen(job, CACHE_V, i, d);
    }
}

static void state_recall(const StateJob *job) {
    memset(job->out, 0, (size_t)job->width * sizeof *job->out);
    for (int i = 0; i < job->n; i++)
        for (int c = 0; c < job->width; c++)
            job->out[c] += job->key[i] * (job->decay[i] * job->from[i * job->width + c]);
}

static void state_update(const StateJob *job) {
    memset(job->out, 0, (size_t)job->width * sizeof *job->out);
    for (int i = 0; i < job->n; i++)
        for (int c = 0; c < job->width; c++) {
            float *to = &job->to[i * job->width + c];
            *to = job->decay[i] * job->from[i * job->width + c] + job->key[i] * job->value[c];
            job->out[c] += job->query[i] * *to;
        }
}

const Kernels kernels_scalar = {
    .name = "scalar",
    .supported = supported,
    .any_act = true,
    .matmul_q8 = matmul_q8,
    .matmul_f32 = matmul_f32,
    .quantize = act8_quantize,
    .norm = norm,
    .glu = glu,
    .softcap = softcap,
    .to_f16 = to_f16,
    .attn = attn,
    .state_recall = state_recall,
    .state_update = state_update,
};
