/* synth: see synth.h.
 *
 * Weights are random bytes with the scales of each block set so that a weight's standard deviation is about
 * that of a trained model; activations then neither die nor explode over many layers. */
#include "synth.h"
#include "mix.h"
#include "../base/float.h"
#include "../base/mem.h"
#include "../base/pool.h"
#include "../gguf/file_type.h"
#include "../gguf/write.h"
#include "../plan/weight.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Shape {
    const char *name, *arch;
    int n_layer, n_embd, n_head, n_kv_head, head_dim, n_ff, n_vocab;
    bool tied;
    float rope_base;
    int window; // gemma3
    int n_expert, n_expert_used, n_ff_expert;
} Shape;

static const Shape shapes[] = {
    {"llama-3.2-1b", "llama", 16, 2048, 32, 8, 64, 8192, 128256, true, 5e5f, 0, 0, 0, 0},
    {"llama-3.2-3b", "llama", 28, 3072, 24, 8, 128, 8192, 128256, true, 5e5f, 0, 0, 0, 0},
    {"llama-3.1-8b", "llama", 32, 4096, 32, 8, 128, 14336, 128256, false, 5e5f, 0, 0, 0, 0},
    {"llama-3.1-70b", "llama", 80, 8192, 64, 8, 128, 28672, 128256, false, 5e5f, 0, 0, 0, 0},
    {"mistral-7b", "llama", 32, 4096, 32, 8, 128, 14336, 32768, false, 1e6f, 0, 0, 0, 0},
    {"mixtral-8x7b", "llama", 32, 4096, 32, 8, 128, 14336, 32000, false, 1e6f, 0, 8, 2, 14336},
    {"qwen3-0.6b", "qwen3", 28, 1024, 16, 8, 128, 3072, 151936, true, 1e6f, 0, 0, 0, 0},
    {"qwen3-8b", "qwen3", 36, 4096, 32, 8, 128, 12288, 151936, false, 1e6f, 0, 0, 0, 0},
    {"gemma-3-1b", "gemma3", 26, 1152, 4, 1, 256, 6912, 262144, true, 1e6f, 512, 0, 0, 0},
    {"qwen3-30b-a3b", "qwen3moe", 48, 2048, 32, 4, 128, 6144, 151936, false, 1e6f, 0, 128, 8, 768},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

void synth_list(Buf *out) {
    buf_printf(out, "shapes:");
    for (int i = 0; i < N_SHAPES; i++) buf_printf(out, " %s", shapes[i].name);
    buf_printf(out, "; mixes: ");
    mix_list(out);
}

void synth_print(Buf *out) {
    buf_printf(out, "%-16s %-8s %6s %6s %7s %7s\n", "shape", "family", "layers", "width", "experts",
               "tokens");
    for (int i = 0; i < N_SHAPES; i++) {
        const Shape *s = &shapes[i];
        buf_printf(out, "%-16s %-8s %6d %6d %7d %7d\n", s->name, s->arch, s->n_layer, s->n_embd, s->n_expert,
                   s->n_vocab);
    }
    buf_printf(out, "\nmixes: ");
    mix_list(out);
    buf_printf(out, "\n");
}

/* ---- tensors ------------------------------------------------------------------------------------------- */

typedef struct Making {
    const Shape *s;
    const Mix *mix;
    int n_layer;
    GgufTensor *tensors; // [n_tensors]
    int n_tensors;
    QuantType *types;
    uint64_t *offsets; // of their data behind the header
    GgufWriter w;
} Making;

static void add_named(Making *m, const char *name, int64_t n_in, int64_t n_out, int64_t n_expert) {
    m->tensors = mem_resize(m->tensors, (size_t)(m->n_tensors + 1) * sizeof *m->tensors);
    m->tensors[m->n_tensors++] = (GgufTensor){.name = mem_string(name),
                                              .type = QUANT_F32,
                                              .n_dims = n_expert > 1 ? 3
                                                        : n_out > 1  ? 2
                                                                     : 1,
                                              .ne = {n_in, n_out, n_expert, 1}};
}

static void add(Making *m, int layer, const char *name, int64_t n_in, int64_t n_out, int64_t n_expert) {
    char full[64];
    if (layer >= 0)
        snprintf(full, sizeof full, "blk.%d.%s.weight", layer, name);
    else
        snprintf(full, sizeof full, "%s.weight", name);
    add_named(m, full, n_in, n_out, n_expert);
}

static void add_layer(Making *m, int i) {
    const Shape *s = m->s;
    int64_t d = s->n_embd, q = s->n_head * s->head_dim, kv = s->n_kv_head * s->head_dim, e = s->n_expert;
    add(m, i, "attn_norm", d, 1, 1);
    add(m, i, "attn_q", d, q, 1);
    add(m, i, "attn_k", d, kv, 1);
    add(m, i, "attn_v", d, kv, 1);
    add(m, i, "attn_output", q, d, 1);
    if (strcmp(s->arch, "llama") != 0) {
        add(m, i, "attn_q_norm", s->head_dim, 1, 1);
        add(m, i, "attn_k_norm", s->head_dim, 1, 1);
    }
    if (s->window) {
        add(m, i, "post_attention_norm", d, 1, 1);
        add(m, i, "post_ffw_norm", d, 1, 1);
    }
    add(m, i, "ffn_norm", d, 1, 1);
    if (e) add(m, i, "ffn_gate_inp", d, e, 1);
    int64_t ff = e ? s->n_ff_expert : s->n_ff, n = e ? e : 1;
    add(m, i, e ? "ffn_gate_exps" : "ffn_gate", d, ff, n);
    add(m, i, e ? "ffn_up_exps" : "ffn_up", d, ff, n);
    add(m, i, e ? "ffn_down_exps" : "ffn_down", ff, d, n);
}

static void add_tensors(Making *m) {
    const Shape *s = m->s;
    add(m, -1, "token_embd", s->n_embd, s->n_vocab, 1);
    for (int i = 0; i < m->n_layer; i++) add_layer(m, i);
    add(m, -1, "output_norm", s->n_embd, 1, 1);
    if (!s->tied) add(m, -1, "output", s->n_embd, s->n_vocab, 1);
}

/* The rows of an FP8 matrix have scales. */
static void add_scales(Making *m) {
    for (int i = 0, n = m->n_tensors; m->mix->most == QUANT_FP8_E4M3 && i < n; i++) {
        char name[WEIGHT_NAME];
        const GgufTensor t = m->tensors[i];
        if (m->types[i] == QUANT_FP8_E4M3)
            add_named(m, weight_scale_name(t.name, name), t.ne[1] * t.ne[2], 1, 1);
    }
}

/* Gives every tensor its type and its place. */
static void place_tensors(Making *m) {
    MixModel model = {.n_layer = m->n_layer, .n_expert = m->s->n_expert};
    model.is_70b = m->n_layer == 80 && m->s->n_head != m->s->n_kv_head;
    size_t n = (size_t)m->n_tensors;
    m->types = mem_new(2 * n, sizeof *m->types); // QUANT_F32 for scales
    m->offsets = mem_new(2 * n, sizeof *m->offsets);
    mix_types(m->mix, &model, m->tensors, m->n_tensors, m->types);
    add_scales(m);
    for (int i = 0; i < m->n_tensors; i++) {
        const GgufTensor *t = &m->tensors[i];
        m->offsets[i] = gguf_write_tensor(&m->w, t->name, m->types[i], t->n_dims, t->ne);
    }
}

/* ---- metadata ------------------------------------------------------------------------------------------ */

static void add_keys(Making *m) {
    const Shape *s = m->s;
    const struct {
        const char *name;
        int value;
    } ints[] = {{"block_count", m->n_layer},
                {"context_length", 131072},
                {"embedding_length", s->n_embd},
                {"feed_forward_length", s->n_ff},
                {"attention.head_count", s->n_head},
                {"attention.head_count_kv", s->n_kv_head},
                {"attention.key_length", s->head_dim},
                {"attention.value_length", s->head_dim},
                {"rope.dimension_count", s->head_dim},
                {"vocab_size", s->n_vocab},
                {"attention.sliding_window", s->window},
                {"expert_count", s->n_expert},
                {"expert_used_count", s->n_expert_used},
                {"expert_feed_forward_length", s->n_ff_expert}};
    char key[96];
    gguf_write_string(&m->w, "general.architecture", s->arch);
    snprintf(key, sizeof key, "synthetic %s %s", s->name, m->mix->name);
    gguf_write_string(&m->w, "general.name", key);
    int file_type = file_type_number(m->mix->name);
    if (file_type >= 0) gguf_write_u32(&m->w, "general.file_type", (uint32_t)file_type);
    if (m->mix->most == QUANT_FP8_E4M3) gguf_write_string(&m->w, "zgen.fp8.format", "e4m3");
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        if (ints[i].value == 0) continue;
        snprintf(key, sizeof key, "%s.%s", s->arch, ints[i].name);
        gguf_write_u32(&m->w, key, (uint32_t)ints[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", s->arch);
    gguf_write_f32(&m->w, key, 1e-5f);
    snprintf(key, sizeof key, "%s.rope.freq_base", s->arch);
    gguf_write_f32(&m->w, key, s->rope_base);
}

/* A working vocabulary of the SentencePiece kind: specials, bytes, then fillers. */
static void add_vocabulary(Making *m) {
    int n = m->s->n_vocab;
    char text[32];
    gguf_write_string(&m->w, "tokenizer.ggml.model", "llama");
    Buf *tokens = gguf_write_array(&m->w, "tokenizer.ggml.tokens", GGUF_ARRAY_STRING, (uint64_t)n);
    static const char *const specials[] = {"<unk>", "<s>", "</s>"};
    for (int i = 0; i < n; i++) {
        int length = i < 3     ? snprintf(text, sizeof text, "%s", specials[i])
                     : i < 259 ? snprintf(text, sizeof text, "<0x%02X>", (unsigned)(i - 3))
                               : snprintf(text, sizeof text, "\xE2\x96\x81w%d", i - 259);
        gguf_write_element(tokens, text, (size_t)length);
    }
    Buf *scores = gguf_write_array(&m->w, "tokenizer.ggml.scores", GGUF_ARRAY_F32, (uint64_t)n);
    for (int i = 0; i < n; i++) buf_add(scores, &(float){i < 259 ? 0.0f : -(float)(i - 259)}, sizeof(float));
    Buf *types = gguf_write_array(&m->w, "tokenizer.ggml.token_type", GGUF_ARRAY_I32, (uint64_t)n);
    for (int i = 0; i < n; i++)
        buf_add(types, &(int32_t){i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1}, sizeof(int32_t));
    gguf_write_u32(&m->w, "tokenizer.ggml.bos_token_id", 1);
    gguf_write_u32(&m->w, "tokenizer.ggml.eos_token_id", 2);
}

/* ---- weights ------------------------------------------------------------------------------------------- */

static uint64_t mix64(uint64_t x) { // splitmix64's finisher
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static void put_f16(uint8_t *at, float value, uint64_t chance) {
    uint16_t h = f32_to_f16(value * (0.75f + 0.5f * (float)(chance & 0xFFFF) / 65536.0f));
    memcpy(at, &h, sizeof h);
}

static const float STD = 0.02f; // of every weight matrix

/* Random bytes are in place; the scales are set. */
static void set_scales(QuantType type, uint8_t *block, uint64_t chance) {
    switch (type) {
    case QUANT_F16:
        put_f16(block, (chance >> 32 & 1 ? STD : -STD), chance);
        break;
    case QUANT_BF16:
        block[1] = (uint8_t)(0x3C | (block[1] & 0x80));
        break; // 2^-7 .. 2^-6
    case QUANT_FP8_E4M3:
        *block = (uint8_t)(0x30 | (*block & 0x8F));
        break; // 0.5 .. 2, with a scale of STD
    case QUANT_Q4_0:
        put_f16(((BlockQ4_0 *)(void *)block)->d, STD / 4.6f, chance);
        break;
    case QUANT_Q4_1:
        put_f16(((BlockQ4_1 *)(void *)block)->d, STD / 4.6f, chance);
        put_f16(((BlockQ4_1 *)(void *)block)->m, -STD * 7.5f / 4.6f, chance);
        break;
    case QUANT_Q5_0:
        put_f16(((BlockQ5_0 *)(void *)block)->d, STD / 9.2f, chance);
        break;
    case QUANT_Q5_1:
        put_f16(((BlockQ5_1 *)(void *)block)->d, STD / 9.2f, chance);
        put_f16(((BlockQ5_1 *)(void *)block)->m, -STD * 15.5f / 9.2f, chance);
        break;
    case QUANT_Q8_0:
        put_f16(((BlockQ8_0 *)(void *)block)->d, STD / 74, chance);
        break;
    case QUANT_Q4_K:
        put_f16(((BlockQ4_K *)(void *)block)->d, STD / (36 * 15 * 0.31f), chance);
        put_f16(((BlockQ4_K *)(void *)block)->dmin, STD / (36 * 0.62f), chance >> 16);
        break;
    case QUANT_Q5_K:
        put_f16(((BlockQ5_K *)(void *)block)->d, STD / (36 * 31 * 0.31f), chance);
        put_f16(((BlockQ5_K *)(void *)block)->dmin, STD / (36 * 0.62f), chance >> 16);
        break;
    case QUANT_Q6_K:
        put_f16(((BlockQ6_K *)(void *)block)->d, STD / (74 * 18.5f), chance);
        break;
    default:
        break;
    }
}

typedef struct Filling {
    const Making *m;
    uint8_t *data;
    uint64_t seed;
    atomic_int next; // tensor
} Filling;

/* Norms are ones, scales the deviation, the rest is random. */
static void fill_floats(const char *name, uint64_t base, size_t n, uint8_t *data) {
    bool is_norm = strstr(name, "_norm."), is_scale = strstr(name, ".scale");
    for (size_t i = 0; i < n; i++) {
        float random = STD * ((float)(mix64(base + i) & 0xFFFF) / 32768.0f - 1.0f);
        memcpy(data + 4 * i, &(float){is_norm ? 1 : is_scale ? STD : random}, sizeof(float));
    }
}

static void fill_tensor(const Filling *f, int i) {
    const GgufTensor *t = &f->m->tensors[i];
    QuantType type = f->m->types[i];
    const QuantTraits *traits = quant_traits(type);
    uint8_t *data = f->data + f->m->offsets[i];
    size_t n_blocks = (size_t)(t->ne[0] * t->ne[1] * t->ne[2]) / (size_t)traits->n_weights,
           n = n_blocks * traits->n_bytes;
    uint64_t base = f->seed * 0x100000001B3u + ((uint64_t)i << 40);
    if (type == QUANT_F32) {
        fill_floats(t->name, base, n_blocks, data);
        return;
    }
    for (size_t k = 0; k < n; k += 8) {
        uint64_t r = mix64(base + k / 8);
        memcpy(data + k, &r, n - k < 8 ? n - k : 8);
    }
    for (size_t b = 0; b < n_blocks; b++) set_scales(type, data + b * traits->n_bytes, mix64(~base + b));
}

static void fill(void *arg, int thread) {
    Filling *f = arg;
    (void)thread;
    for (int i; (i = atomic_fetch_add(&f->next, 1)) < f->m->n_tensors;) fill_tensor(f, i);
}

static const Shape *find_shape(const char *name) {
    for (int i = 0; i < N_SHAPES; i++)
        if (strcmp(shapes[i].name, name) == 0) return &shapes[i];
    return NULL;
}

bool synth_make(const char *shape, const char *mix, int n_layers, uint64_t seed, int n_threads,
                SynthImage *out, Err *e) {
    Making m = {.s = find_shape(shape), .mix = mix_find(mix)};
    if (!m.s || !m.mix) {
        Buf known = {0};
        synth_list(&known);
        err_set(e, ERR_USAGE, "there is no %s '%s' to make; %s", m.s ? "mix" : "shape", m.s ? mix : shape,
                known.data);
        buf_free(&known);
        return false;
    }
    m.n_layer = n_layers > 0 ? n_layers : m.s->n_layer;
    add_keys(&m);
    add_vocabulary(&m);
    add_tensors(&m);
    place_tensors(&m);
    Buf header = {0};
    uint64_t data_bytes = m.w.data_bytes;
    gguf_write_header(&m.w, &header);
    out->n = header.n + data_bytes;
    out->data = mem_try(out->n);
    bool ok = out->data || err_set(e, ERR_MEMORY, "a model of %.1f GB does not fit into memory; try --layers",
                                   (double)out->n / 1e9);
    if (ok) {
        memcpy(out->data, header.data, header.n);
        Filling f = {.m = &m, .data = out->data + header.n, .seed = seed};
        Pool *pool = pool_open(n_threads);
        pool_run(pool, fill, &f);
        pool_close(pool);
    }
    buf_free(&header);
    for (int i = 0; i < m.n_tensors; i++) free(m.tensors[i].name);
    free(m.tensors), free(m.types), free(m.offsets);
    return ok;
}

void synth_free(SynthImage *image) {
    mem_release(image->data, image->n);
    *image = (SynthImage){0};
}
