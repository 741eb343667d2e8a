/* tiny: see tiny.h. */
#include "tiny.h"
#include "../../src/base/float.h"
#include "../../src/base/mem.h"
#include "../../src/gguf/write.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The byte offsets of a block's f16 scale and minimum (NONE: the type has none), and their values for weights
 * of standard deviation 1; a minimum subtracts the mean of the integers. */
enum { NONE = -1 };
static const struct Scaling {
    QuantType type;
    int scale_at, min_at;
    float scale, min;
} scalings[] = {
    {QUANT_Q4_0, 0, NONE, 1 / 4.6f, 0},
    {QUANT_Q4_1, 0, 2, 1 / 4.6f, -7.5f / 4.6f},
    {QUANT_Q5_0, 0, NONE, 1 / 9.2f, 0},
    {QUANT_Q5_1, 0, 2, 1 / 9.2f, -15.5f / 9.2f},
    {QUANT_Q8_0, 0, NONE, 1 / 74.0f, 0},
    {QUANT_Q2_K, 80, 82, 1 / 16.0f, 1.5f / 16},
    {QUANT_Q3_K, 108, NONE, 1 / 42.0f, 0},
    {QUANT_Q4_K, 0, 2, 1 / 260.0f, 7.5f / 260},
    {QUANT_Q5_K, 0, 2, 1 / 530.0f, 15.5f / 530},
    {QUANT_Q6_K, 208, NONE, 1 / 1370.0f, 0},
    {QUANT_IQ4_NL, 0, NONE, 1 / 65.0f, 0},
    {QUANT_IQ4_XS, 0, NONE, 1 / 1200.0f, 0},
    {QUANT_IQ1_S, 0, NONE, 1 / 7.2f, 0},
    {QUANT_IQ2_XXS, 0, NONE, 1 / 53.0f, 0},
    {QUANT_IQ2_XS, 0, NONE, 1 / 56.0f, 0},
    {QUANT_IQ2_S, 0, NONE, 1 / 56.0f, 0},
    {QUANT_IQ3_XXS, 0, NONE, 1 / 143.0f, 0},
    {QUANT_IQ3_S, 0, NONE, 1 / 141.0f, 0},
    {QUANT_TQ1_0, 52, NONE, 1 / 0.82f, 0},
    {QUANT_TQ2_0, 64, NONE, 1 / 1.22f, 0},
    {QUANT_Q1_0, 0, NONE, 1, 0},
    {QUANT_Q2_0, 0, NONE, 1 / 1.22f, 0},
};

const QuantType tiny_types[] = {QUANT_F32,     QUANT_F16,    QUANT_BF16,  QUANT_FP8_E4M3, QUANT_Q4_0,
                                QUANT_Q4_1,    QUANT_Q5_0,   QUANT_Q5_1,  QUANT_Q8_0,     QUANT_Q2_K,
                                QUANT_Q3_K,    QUANT_Q4_K,   QUANT_Q5_K,  QUANT_Q6_K,     QUANT_IQ4_NL,
                                QUANT_IQ4_XS,  QUANT_MXFP4,  QUANT_NVFP4, QUANT_IQ1_S,    QUANT_IQ1_M,
                                QUANT_IQ2_XXS, QUANT_IQ2_XS, QUANT_IQ2_S, QUANT_IQ3_XXS,  QUANT_IQ3_S,
                                QUANT_TQ1_0,   QUANT_TQ2_0,  QUANT_Q1_0,  QUANT_Q2_0};
const int tiny_n_types = sizeof tiny_types / sizeof *tiny_types;

uint64_t tiny_random(uint64_t *state) { // splitmix64
    uint64_t x = *state += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

double tiny_activation(const GluParams *p, double x) {
    double sigmoid = 1 / (1 + exp(-x)), beta = (double)p->beta;
    switch (p->act) {
    case ACT_NONE:
        return x;
    case ACT_SILU:
        return x * sigmoid;
    case ACT_GELU:
        return x / 2 * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ACT_RELU2:
        return fmax(x, 0) * fmax(x, 0);
    case ACT_SIGMOID:
        return sigmoid;
    case ACT_XIELU:
        return x > 0 ? (double)p->alpha_p * x * x + beta * x
                     : (double)p->alpha_n * (expm1(fmin(x, (double)p->eps)) - x) + beta * x;
    case ACT_SWIGLU_OAI: // not alone
    case ACT_CLAMPED:
    case ACT_COUNT:
        break;
    }
    return NAN;
}

double tiny_gated(const GluParams *p, double gate, double up) {
    double limit = (double)p->limit, g = fmin(gate, 7);
    if (p->act == ACT_SWIGLU_OAI) return g / (1 + exp(-1.702 * g)) * (fmin(fmax(up, -7), 7) + 1);
    if (p->act == ACT_CLAMPED) return fmin(gate / (1 + exp(-gate)), limit) * fmin(fmax(up, -limit), limit);
    return tiny_activation(p, gate) * up;
}

float tiny_float(uint64_t *state) {
    return (float)(int64_t)(tiny_random(state) >> 40) / 0x1p23f - 1;
}

static void put_f16(uint8_t *at, float value, uint64_t *state) {
    uint16_t h = f32_to_f16(value * TINY_STD * (1 + 0.25f * tiny_float(state)));
    memcpy(at, &h, sizeof h);
}

static void set_scales(QuantType type, uint8_t *block, uint64_t *state) {
    for (size_t i = 0; i < sizeof scalings / sizeof *scalings; i++) {
        if (scalings[i].type != type) continue;
        put_f16(block + scalings[i].scale_at, scalings[i].scale, state);
        if (scalings[i].min_at != NONE) put_f16(block + scalings[i].min_at, scalings[i].min, state);
    }
    if (type == QUANT_IQ1_M) { // an f16 in the high bits of four numbers
        uint8_t half[2];
        put_f16(half, 1 / 7.2f, state);
        for (int i = 0; i < 4; i++)
            block[49 + 2 * i] = (uint8_t)((block[49 + 2 * i] & 15) | (half[i / 2] >> i % 2 * 4 & 15) << 4);
    }
    if (type == QUANT_MXFP4)
        block[0] = (uint8_t)(119 + tiny_random(state) % 4); // 2^-8 .. 2^-5, halved, times 6
    for (int i = 0; type == QUANT_NVFP4 && i < 4; i++) block[i] = (uint8_t)(0x04 + tiny_random(state) % 8);
}

static void set_float(QuantType type, uint8_t *at, uint64_t *state) {
    float value = tiny_float(state) * TINY_STD * 1.7f;
    uint16_t h = f32_to_f16(value);
    if (type == QUANT_F32) memcpy(at, &value, sizeof value);
    if (type == QUANT_F16) memcpy(at, &h, sizeof h);
    if (type == QUANT_BF16) memcpy(at, (uint8_t *)&value + 2, 2);
    if (type == QUANT_FP8_E4M3) *at = (uint8_t)((*at & 0x87) | (2 + *at / 8 % 3) << 3); // 2^-5 .. 2^-3
}

void tiny_blocks(QuantType type, void *out, size_t n_blocks, uint64_t *state) {
    const QuantTraits *traits = quant_traits(type);
    uint8_t *bytes = out;
    for (size_t i = 0; i < n_blocks * traits->n_bytes; i++) bytes[i] = (uint8_t)(tiny_random(state) >> 56);
    for (size_t b = 0; b < n_blocks; b++)
        if (traits->n_weights == 1)
            set_float(type, bytes + b * traits->n_bytes, state);
        else
            set_scales(type, bytes + b * traits->n_bytes, state);
}

/* ---- models ---- */

typedef struct ModelWriter {
    const Tiny *t;
    GgufWriter w;
    uint64_t state;
    Buf data;
    uint64_t output; // offset of the output matrix in data
} ModelWriter;

static void *add_tensor(ModelWriter *m, const char *name, QuantType type, int64_t n_in, int64_t n_out,
                        int64_t n_expert) {
    QuantType stored = type == QUANT_FP8_E4M3 ? QUANT_I8 : type;
    uint64_t at = gguf_write_tensor(&m->w, name, stored,
                                    n_expert > 1 ? 3
                                    : n_out > 1  ? 2
                                                 : 1,
                                    (const int64_t[]){n_in, n_out, n_expert});
    size_t more = m->w.data_bytes - m->data.n;
    void *zeros = mem_new(more, 1);
    buf_add(&m->data, zeros, more);
    free(zeros);
    if (strcmp(name, "output.weight") == 0) m->output = at;
    return m->data.data + at;
}

static void add_floats(ModelWriter *m, const char *name, int64_t n, float mean, float spread) {
    float *v = add_tensor(m, name, QUANT_F32, n, 1, 1);
    for (int64_t i = 0; i < n; i++) v[i] = mean + spread * tiny_float(&m->state);
}

/* layer -1: outside the layers. */
static void add(ModelWriter *m, int layer, const char *name, QuantType type, int64_t n_in, int64_t n_out,
                int64_t n_expert) {
    char full[64], stem[48] = "";
    if (layer >= 0) snprintf(stem, sizeof stem, "blk.%d.", layer);
    snprintf(full, sizeof full, "%s%s.weight", stem, name);
    if (n_out == 1) {
        add_floats(m, full, n_in, 1, 0.1f); // a norm
        return;
    }
    void *blocks = add_tensor(m, full, type, n_in, n_out, n_expert);
    tiny_blocks(type, blocks, (size_t)(n_in * n_out * n_expert / quant_traits(type)->n_weights), &m->state);
    snprintf(full, sizeof full, "%s%s.scale", stem, name);
    if (type == QUANT_FP8_E4M3) add_floats(m, full, n_out * n_expert, 1, 0.25f);
}

static void add_tensors(ModelWriter *m) {
    const Tiny *t = m->t;
    int64_t d = t->n_embd, q = t->n_head * t->head_dim, kv = t->n_kv_head * t->head_dim, e = t->n_expert;
    add(m, -1, "token_embd", t->type, d, t->n_vocab, 1);
    for (int i = 0; i < t->n_layer; i++) {
        add(m, i, "attn_norm", t->type, d, 1, 1);
        add(m, i, "attn_q", t->type, d, q, 1);
        add(m, i, "attn_k", t->type, d, kv, 1);
        add(m, i, "attn_v", t->type, d, kv, 1);
        add(m, i, "attn_output", t->type, q, d, 1);
        add(m, i, "ffn_norm", t->type, d, 1, 1);
        if (e) add(m, i, "ffn_gate_inp", QUANT_F32, d, e, 1);
        add(m, i, e ? "ffn_gate_exps" : "ffn_gate", t->type, d, t->n_ff, e ? e : 1);
        add(m, i, e ? "ffn_up_exps" : "ffn_up", t->type, d, t->n_ff, e ? e : 1);
        add(m, i, e ? "ffn_down_exps" : "ffn_down", t->type, t->n_ff, d, e ? e : 1);
    }
    add(m, -1, "output_norm", t->type, d, 1, 1);
    add(m, -1, "output", t->type, d, t->n_vocab, 1);
}

static void add_keys(ModelWriter *m) {
    const Tiny *t = m->t;
    const struct {
        const char *name;
        int value;
    } ints[] = {{"llama.block_count", t->n_layer},           {"llama.context_length", 1024},
                {"llama.embedding_length", t->n_embd},       {"llama.feed_forward_length", t->n_ff},
                {"llama.attention.head_count", t->n_head},   {"llama.attention.head_count_kv", t->n_kv_head},
                {"llama.attention.key_length", t->head_dim}, {"llama.attention.value_length", t->head_dim},
                {"llama.rope.dimension_count", t->head_dim}, {"llama.expert_count", t->n_expert},
                {"llama.expert_used_count", t->n_used}};
    gguf_write_string(&m->w, "general.architecture", "llama");
    if (t->type == QUANT_FP8_E4M3) gguf_write_string(&m->w, "zgen.fp8.format", "e4m3");
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        if (ints[i].value) gguf_write_u32(&m->w, ints[i].name, (uint32_t)ints[i].value);
    gguf_write_f32(&m->w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
}

Buf tiny_model(const Tiny *t, size_t *output) {
    ModelWriter m = {.t = t, .state = t->seed};
    Buf file = {0};
    add_keys(&m);
    add_tensors(&m);
    gguf_write_header(&m.w, &file);
    if (output) *output = file.n + m.output;
    buf_add(&file, m.data.data, m.data.n);
    buf_free(&m.data);
    return file;
}
