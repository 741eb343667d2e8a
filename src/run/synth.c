/* synth: see synth.h.
 *
 * Weights are random bytes with the scales of each block set so that a weight's standard deviation is about
 * that of a trained model; activations then neither vanish nor overflow over many layers.  The tensors are
 * those that the family requests when its tape is written over the metadata (plan_tensors). */
#include "synth.h"
#include "mix.h"
#include "../base/float.h"
#include "../base/mem.h"
#include "../base/pool.h"
#include "../gguf/file_type.h"
#include "../gguf/write.h"
#include "../plan/plan.h"
#include "../plan/family/family.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void synth_list(Buf *out) {
    buf_printf(out, "shapes:");
    for (const Family *const *f = families; *f; f++)
        for (const Shape *s = (*f)->shapes; s->name; s++) buf_printf(out, " %s", s->name);
    buf_printf(out, "; mixes: ");
    mix_list(false, out);
}

void synth_print(Buf *out) {
    buf_printf(out, "%-16s %-8s %6s %6s %7s %7s\n", "shape", "family", "layers", "width", "experts",
               "tokens");
    for (const Family *const *f = families; *f; f++)
        for (const Shape *s = (*f)->shapes; s->name; s++)
            buf_printf(out, "%-16s %-8s %6d %6d %7d %7d\n", s->name, (*f)->arch, s->n_layer, s->n_embd,
                       shape_key(s, "expert_count", 0), s->n_vocab);
    buf_printf(out, "\nmixes: ");
    mix_list(false, out);
    buf_printf(out, "\n");
}

/* ---- metadata ------------------------------------------------------------------------------------------ */

typedef struct SynthPlan { // a model in the making
    const Shape *s;
    const Family *family;
    const Mix *mix;
    int n_layer;
    GgufTensor *tensors; // [n_tensors]
    int n_tensors;
    QuantType *types;
    uint64_t *offsets; // of their data behind the header
    GgufWriter w;
    size_t data_bytes;
    uint64_t seed;
} SynthPlan;

/* A list of a value for each layer: integers, or booleans where the first one is. */
static void add_list(SynthPlan *m, const char *key, const char *list) {
    bool is_bool = *list == 't' || *list == 'f';
    Buf *array =
        gguf_write_array(&m->w, key, is_bool ? GGUF_ARRAY_BOOL : GGUF_ARRAY_I32, (uint64_t)m->n_layer);
    const char *at = list;
    for (int i = 0; i < m->n_layer; i++) {
        if (is_bool)
            buf_add(array, &(uint8_t){*at == 't'}, 1);
        else
            buf_add(array, &(int32_t){atoi(at)}, sizeof(int32_t));
        at += strcspn(at, ",");
        at = *at ? at + 1 : list;
    }
}

/* Counts of layers are as many of all layers as in the whole model. */
static int shorten(const SynthPlan *m, const char *name, int value) {
    bool is_count =
        strcmp(name, "attention.shared_kv_layers") == 0 || strcmp(name, "leading_dense_block_count") == 0;
    return is_count ? value * m->n_layer / m->s->n_layer : value;
}

/* A key with a value as shapes write it. */
static void add_value(SynthPlan *m, const char *name, const char *value) {
    char key[SHAPE_WORD + HPARAMS_ARCH];
    if (*name == '.')
        snprintf(key, sizeof key, "%s", name + 1);
    else
        snprintf(key, sizeof key, "%s.%s", m->family->arch, name);
    bool is_true = strcmp(value, "true") == 0, is_number = strspn(value, "-.0123456789e") == strlen(value);
    if (strchr(value, ','))
        add_list(m, key, value);
    else if (is_true || strcmp(value, "false") == 0)
        gguf_write_bool(&m->w, key, is_true);
    else if (!is_number)
        gguf_write_string(&m->w, key, value);
    else if (strchr(value, '.'))
        gguf_write_f32(&m->w, key, strtof(value, NULL));
    else
        gguf_write_u32(&m->w, key, (uint32_t)shorten(m, name, atoi(value)));
}

/* Keys of the fields that every shape has, in the same words. */
static void list_fields(const SynthPlan *m, Buf *out) {
    const Shape *s = m->s;
    buf_printf(out, "block_count=%d context_length=131072 embedding_length=%d ", m->n_layer, s->n_embd);
    buf_printf(out, "feed_forward_length=%d attention.head_count=%d ", s->n_ff, s->n_head);
    buf_printf(out, "attention.head_count_kv=%d attention.key_length=%d ", s->n_kv_head, s->head_dim);
    buf_printf(out, "attention.value_length=%d rope.dimension_count=%d ", s->head_dim, s->head_dim);
    buf_printf(out, "vocab_size=%d attention.layer_norm_rms_epsilon=0.00001 ", s->n_vocab);
    buf_printf(out, "rope.freq_base=%.1f", (double)s->rope_base);
}

static bool has_key(const Shape *s, const char *key) {
    char name[SHAPE_WORD], value[SHAPE_WORD];
    for (const char *text = s->keys; shape_next_key(&text, name, value);)
        if (strcmp(name, key) == 0) return true;
    return false;
}

static void add_keys(SynthPlan *m) {
    const Shape *s = m->s;
    char name[96];
    gguf_write_string(&m->w, "general.architecture", m->family->arch);
    snprintf(name, sizeof name, "synthetic %s %s", s->name, m->mix->name);
    gguf_write_string(&m->w, "general.name", name);
    int file_type = file_type_number(m->mix->name);
    if (file_type >= 0) gguf_write_u32(&m->w, "general.file_type", (uint32_t)file_type);
    if (m->mix->most == QUANT_FP8_E4M3) gguf_write_string(&m->w, "zgen.fp8.format", "e4m3");
    char key[SHAPE_WORD], value[SHAPE_WORD];
    Buf fields = {0};
    list_fields(m, &fields);
    for (const char *text = fields.data; shape_next_key(&text, key, value);)
        if (!has_key(s, key)) add_value(m, key, value);
    for (const char *text = s->keys; shape_next_key(&text, key, value);) add_value(m, key, value);
    buf_free(&fields);
}

/* A working vocabulary of the SentencePiece kind: specials, bytes, then fillers. */
static void add_vocabulary(SynthPlan *m) {
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

/* ---- tensors ------------------------------------------------------------------------------------------- */

/* Asks the family for the tensors of a model with these keys. */
static bool find_tensors(SynthPlan *m, Err *e) {
    SynthPlan keys = *m;
    Buf header = {0};
    Gguf *g = NULL;
    add_keys(&keys);
    gguf_write_header(&keys.w, &header);
    if (gguf_open_bytes(header.data, header.n, m->s->name, &g, e))
        m->tensors = plan_tensors(g, m->s->optional, &m->n_tensors, e);
    gguf_close(g);
    buf_free(&header);
    return m->tensors != NULL;
}

/* Adds the scales of FP8 rows behind the other tensors. */
static void add_scales(SynthPlan *m) {
    for (int i = 0, n = m->n_tensors; m->mix->most == QUANT_FP8_E4M3 && i < n; i++) {
        char name[WEIGHT_NAME];
        const GgufTensor t = m->tensors[i];
        if (m->types[i] != QUANT_FP8_E4M3) continue;
        m->tensors = mem_resize(m->tensors, (size_t)(m->n_tensors + 1) * sizeof *m->tensors);
        m->tensors[m->n_tensors++] = (GgufTensor){.name = mem_string(weight_scale_name(t.name, name)),
                                                  .type = QUANT_F32,
                                                  .n_dims = 1,
                                                  .ne = {t.ne[1] * t.ne[2], 1, 1, 1}};
    }
}

/* Sets the type of every tensor and the offset of its data. */
static void set_types(SynthPlan *m) {
    MixModel model = {.n_layer = m->n_layer, .n_expert = shape_key(m->s, "expert_count", 0)};
    model.is_70b = m->n_layer == 80 && m->s->n_head != m->s->n_kv_head;
    size_t n = (size_t)m->n_tensors;
    m->types = mem_new(2 * n, sizeof *m->types); // QUANT_F32 for scales
    m->offsets = mem_new(2 * n, sizeof *m->offsets);
    model.n_shared = m->s->n_kv_head ? m->s->n_head / m->s->n_kv_head : 0;
    MixWishes none = mix_no_wishes();
    mix_types(m->mix, &none, &model, m->tensors, m->n_tensors, m->types, NULL);
    add_scales(m);
    for (int i = 0; i < m->n_tensors; i++) {
        const GgufTensor *t = &m->tensors[i];
        m->offsets[i] = gguf_write_tensor(&m->w, t->name, m->types[i], t->n_dims, t->ne);
    }
}

/* ---- weights ------------------------------------------------------------------------------------------- */

static uint64_t mix64(uint64_t x) { // the last steps of splitmix64
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

/* Writes value times 0.75 to 1.25. */
static void put_f16(uint8_t *at, float value, uint64_t random) {
    uint16_t h = f32_to_f16(value * (0.75f + 0.5f * (float)(random & 0xFFFF) / 65536.0f));
    memcpy(at, &h, sizeof h);
}

#define STD 0.02f // standard deviation of every weight matrix

/* Block types by the fields that scale their integers.  The factors give random integers the deviation STD,
 * and a mean of about zero where there is a minimum. */
typedef struct BlockScales {
    QuantType type;
    float scale, min;        // min: 0 where the type has none
    size_t scale_at, min_at; // bytes into the block
} BlockScales;

static const BlockScales *find_scales(QuantType type) {
    static const BlockScales scales[] = {
        {QUANT_Q4_0, STD / 4.6f, 0, offsetof(BlockQ4_0, d), 0},
        {QUANT_Q4_1, STD / 4.6f, -STD * 7.5f / 4.6f, offsetof(BlockQ4_1, d), offsetof(BlockQ4_1, m)},
        {QUANT_Q5_0, STD / 9.2f, 0, offsetof(BlockQ5_0, d), 0},
        {QUANT_Q5_1, STD / 9.2f, -STD * 15.5f / 9.2f, offsetof(BlockQ5_1, d), offsetof(BlockQ5_1, m)},
        {QUANT_Q8_0, STD / 74, 0, offsetof(BlockQ8_0, d), 0},
        {QUANT_Q4_K, STD / (36 * 15 * 0.31f), STD / (36 * 0.62f), offsetof(BlockQ4_K, d),
         offsetof(BlockQ4_K, dmin)},
        {QUANT_Q5_K, STD / (36 * 31 * 0.31f), STD / (36 * 0.62f), offsetof(BlockQ5_K, d),
         offsetof(BlockQ5_K, dmin)},
        {QUANT_Q6_K, STD / (74 * 18.5f), 0, offsetof(BlockQ6_K, d), 0},
    };
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++)
        if (scales[i].type == type) return &scales[i];
    return NULL;
}

/* Sets the scales of a block of random bytes, s: find_scales(type). */
static void set_scales(QuantType type, const BlockScales *s, uint8_t *block, uint64_t random) {
    if (type == QUANT_F16)
        put_f16(block, random >> 32 & 1 ? STD : -STD, random);
    else if (type == QUANT_BF16)
        block[1] = (uint8_t)(0x3C | (block[1] & 0x80)); // 2^-7 .. 2^-6
    else if (type == QUANT_FP8_E4M3)
        *block = (uint8_t)(0x30 | (*block & 0x8F)); // 0.5 .. 2, with a scale of STD
    else if (type == QUANT_MXFP4)
        *block = (uint8_t)(119 + (*block & 1)); // 2^-8 or 2^-7 times values of root mean square 2.9
    else {
        assert(s); // a mix has a type that the table lacks
        put_f16(block + s->scale_at, s->scale, random);
        if (s->min != 0) put_f16(block + s->min_at, s->min, random >> 16);
    }
}

typedef struct Filling {
    const SynthPlan *m;
    uint8_t *data;   // of all tensors
    bool blocks;     // the quantised tensors are filled, or the floats
    atomic_int next; // tensor
} Filling;

/* Norms and other factors are 1, scales of FP8 rows STD, decays of recurrent heads -1.6 to -0.1, all else is
 * random with the deviation of the matrices. */
static void fill_floats(const char *name, uint64_t base, size_t n, uint8_t *data) {
    static const char *const ones[] = {"norm",        "ssm_d",          "rope_freqs",
                                       "_exps.scale", "gate_inp.scale", "output_scale"};
    bool is_one = false, is_scale = strstr(name, ".scale"), is_decay = strstr(name, "ssm_a");
    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++) is_one = is_one || strstr(name, ones[i]);
    for (size_t i = 0; i < n; i++) {
        float random = (float)(mix64(base + i) & 0xFFFF) / 32768.0f - 1.0f; // -1 to 1
        float value = is_one ? 1 : is_scale ? STD : is_decay ? -expf(1.4f * random - 0.95f) : STD * random;
        memcpy(data + 4 * i, &value, sizeof value);
    }
}

static void fill_tensor(const Filling *f, int i) {
    const GgufTensor *t = &f->m->tensors[i];
    QuantType type = f->m->types[i];
    const QuantTraits *traits = quant_traits(type);
    uint8_t *data = f->data + f->m->offsets[i];
    size_t n_blocks = (size_t)(t->ne[0] * t->ne[1] * t->ne[2]) / (size_t)traits->n_weights,
           n = n_blocks * traits->n_bytes;
    uint64_t base = f->m->seed * 0x100000001B3u + ((uint64_t)i << 40);
    if (type == QUANT_F32) {
        fill_floats(t->name, base, n_blocks, data);
        return;
    }
    for (size_t k = 0; k < n; k += 8) {
        uint64_t r = mix64(base + k / 8);
        memcpy(data + k, &r, n - k < 8 ? n - k : 8);
    }
    const BlockScales *scales = find_scales(type);
    for (size_t b = 0; b < n_blocks; b++)
        set_scales(type, scales, data + b * traits->n_bytes, mix64(~base + b));
}

static void fill(void *arg, int thread) {
    Filling *f = arg;
    (void)thread;
    for (int i; (i = atomic_fetch_add(&f->next, 1)) < f->m->n_tensors;)
        if ((f->m->types[i] != QUANT_F32) == f->blocks) fill_tensor(f, i);
}

static bool refuse_name(const SynthPlan *m, const char *shape, const char *mix, Err *e) {
    Buf known = {0};
    synth_list(&known);
    err_set(e, ERR_USAGE, "there is no %s '%s' to make; %s", m->s ? "mix" : "shape", m->s ? mix : shape,
            known.data);
    buf_free(&known);
    return false;
}

bool synth_open(const char *shape, const char *mix, int n_layers, uint64_t seed, SynthImage *out, Err *e) {
    *out = (SynthImage){.plan = mem_new(1, sizeof *out->plan)};
    SynthPlan *m = out->plan;
    *m = (SynthPlan){.mix = mix_find(mix), .seed = seed};
    m->s = family_shape(shape, &m->family);
    if (!m->s || !m->mix) return refuse_name(m, shape, mix, e);
    m->n_layer = n_layers > 0 ? n_layers : m->s->n_layer;
    if (!find_tensors(m, e)) return false;
    add_keys(m);
    add_vocabulary(m);
    set_types(m);
    Buf header = {0};
    m->data_bytes = m->w.data_bytes;
    gguf_write_header(&m->w, &header);
    out->n = header.n + m->data_bytes;
    out->data = mem_try(out->n);
    bool ok = out->data || err_set(e, ERR_MEMORY, "a model of %.1f GB does not fit into memory; try --layers",
                                   (double)out->n / 1e9);
    if (ok) {
        memcpy(out->data, header.data, header.n);
        Filling f = {.m = m, .data = out->data + header.n};
        fill(&f, 0);
    }
    buf_free(&header);
    return ok;
}

void synth_fill(SynthImage *image, int n_threads) {
    const SynthPlan *m = image->plan;
    Filling f = {.m = m, .data = image->data + (image->n - m->data_bytes), .blocks = true};
    Pool *pool = pool_open(n_threads);
    pool_run(pool, fill, &f);
    pool_close(pool);
}

bool synth_make(const char *shape, const char *mix, int n_layers, uint64_t seed, int n_threads,
                SynthImage *out, Err *e) {
    bool ok = synth_open(shape, mix, n_layers, seed, out, e);
    if (ok)
        synth_fill(out, n_threads);
    else
        synth_free(out);
    return ok;
}

void synth_free(SynthImage *image) {
    SynthPlan *m = image->plan;
    mem_release(image->data, image->n);
    for (int i = 0; m && i < m->n_tensors; i++) free(m->tensors[i].name);
    if (m) {
        free(m->tensors);
        free(m->types);
        free(m->offsets);
    }
    free(m);
    *image = (SynthImage){0};
}
