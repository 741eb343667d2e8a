/* mix: see mix.h. */
#include "mix.h"
#include "../base/mem.h"
#include "../gguf/encode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const Mix mixes[] = {
    {"F32", QUANT_F32, QUANT_F32, QUANT_F32, FAVOUR_NONE},
    {"F16", QUANT_F16, QUANT_F16, QUANT_F16, FAVOUR_NONE},
    {"BF16", QUANT_BF16, QUANT_BF16, QUANT_BF16, FAVOUR_NONE},
    {"FP8", QUANT_FP8_E4M3, QUANT_FP8_E4M3, QUANT_FP8_E4M3, FAVOUR_NONE},
    {"Q4_0", QUANT_Q4_0, QUANT_Q4_0, QUANT_Q4_0, FAVOUR_NONE},
    {"Q4_1", QUANT_Q4_1, QUANT_Q4_1, QUANT_Q4_1, FAVOUR_NONE},
    {"Q5_0", QUANT_Q5_0, QUANT_Q5_0, QUANT_Q5_0, FAVOUR_NONE},
    {"Q5_1", QUANT_Q5_1, QUANT_Q5_1, QUANT_Q5_1, FAVOUR_NONE},
    {"Q8_0", QUANT_Q8_0, QUANT_Q8_0, QUANT_Q8_0, FAVOUR_NONE},
    {"Q4_K_S", QUANT_Q4_K, QUANT_Q5_K, QUANT_Q4_K, FAVOUR_FIRST},
    {"Q4_K_M", QUANT_Q4_K, QUANT_Q6_K, QUANT_Q4_K, FAVOUR_SPREAD},
    {"Q5_K_S", QUANT_Q5_K, QUANT_Q5_K, QUANT_Q5_K, FAVOUR_NONE},
    {"Q5_K_M", QUANT_Q5_K, QUANT_Q6_K, QUANT_Q5_K, FAVOUR_SPREAD},
    {"Q6_K", QUANT_Q6_K, QUANT_Q6_K, QUANT_Q6_K, FAVOUR_NONE},
    {"MXFP4_MOE", QUANT_Q8_0, QUANT_Q8_0, QUANT_MXFP4, FAVOUR_NONE},
};
enum { N_MIXES = sizeof mixes / sizeof *mixes };

const Mix *mix_find(const char *name) {
    if (strcasecmp(name, "Q4_K") == 0) name = "Q4_K_M";
    if (strcasecmp(name, "Q5_K") == 0) name = "Q5_K_M";
    for (int i = 0; i < N_MIXES; i++)
        if (strcasecmp(mixes[i].name, name) == 0) return &mixes[i];
    return NULL;
}

bool mix_can_encode(const Mix *mix) {
    return quant_can_encode(mix->most) && quant_can_encode(mix->extra) && quant_can_encode(mix->experts);
}

void mix_list(bool encoded_only, Buf *out) {
    const char *space = "";
    for (int i = 0; i < N_MIXES; i++) {
        if (encoded_only && !mix_can_encode(&mixes[i])) continue;
        buf_printf(out, "%s%s", space, mixes[i].name);
        space = " ";
    }
}

/* ---- roles -------------------------------------------------------------------------------------------- */

typedef enum Role { ROLE_KEPT, ROLE_PLAIN, ROLE_EMBD, ROLE_OUTPUT, ROLE_K, ROLE_V, ROLE_O, ROLE_DOWN } Role;

/* Parts of the names of matrices that keep their type: small ones, and ones that no product reads. */
static const char *const kept[] = {"_norm.weight",
                                   "ffn_gate_inp.weight",
                                   "ffn_gate_tid2eid.weight",
                                   "altup",
                                   "laurel",
                                   "per_layer_model_proj",
                                   "ssm_conv1d",
                                   "shortconv.conv.weight",
                                   "time_mix_first.weight",
                                   "time_mix_w0.weight",
                                   "time_mix_w1.weight",
                                   "time_mix_w2.weight",
                                   "time_mix_v0.weight",
                                   "time_mix_v1.weight",
                                   "time_mix_v2.weight",
                                   "time_mix_a0.weight",
                                   "time_mix_a1.weight",
                                   "time_mix_a2.weight",
                                   "time_mix_g1.weight",
                                   "time_mix_g2.weight",
                                   "time_mix_decay_w1.weight",
                                   "time_mix_decay_w2.weight",
                                   "time_mix_lerp_fused.weight",
                                   "attn_rel_b.weight",
                                   "position_embd",
                                   "token_types.weight",
                                   "indexer.k_proj.weight",
                                   "indexer.q_proj.weight"};

static bool is_kept(const GgufTensor *t) {
    size_t n = strlen(t->name);
    bool is_matrix = t->ne[1] * t->ne[2] > 1 && t->ne[3] == 1;
    if (!is_matrix || n < 7 || strcmp(t->name + n - 7, ".weight") != 0) return true;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (strstr(t->name, kept[i])) return true;
    return false;
}

static Role role_of(const GgufTensor *t) {
    static const struct {
        const char *part;
        Role role;
    } parts[] = {{"attn_qkv.weight", ROLE_V}, {"attn_kv_b.weight", ROLE_V},   {"attn_v.weight", ROLE_V},
                 {"attn_k.weight", ROLE_K},   {"attn_output.weight", ROLE_O}, {"ffn_down", ROLE_DOWN}};
    if (is_kept(t)) return ROLE_KEPT;
    if (strcmp(t->name, "output.weight") == 0) return ROLE_OUTPUT;
    if (strcmp(t->name, "token_embd.weight") == 0 || strcmp(t->name, "per_layer_token_embd.weight") == 0)
        return ROLE_EMBD;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(t->name, parts[i].part)) return parts[i].role;
    return ROLE_PLAIN;
}

static int layer_of(const char *name) {
    int layer;
    return sscanf(name, "blk.%d.", &layer) == 1 ? layer : 0;
}

/* ---- choices ------------------------------------------------------------------------------------------ */

/* Whether i is in the first or last eighth of n layers, or a third one between. */
static bool is_spread(int i, int n) {
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

/* Of value tensor i of n, in the order of layers. */
static QuantType value_type(const Mix *mix, const MixModel *model, int i, int n) {
    QuantType type = mix->most;
    if (mix->favour == FAVOUR_FIRST ? i < 4 : mix->favour == FAVOUR_SPREAD && is_spread(i, n))
        type = mix->extra;
    if (type == QUANT_Q4_K && model->is_70b) type = QUANT_Q5_K; // small, as eight query heads share each
    return model->n_expert == 8 ? QUANT_Q8_0 : type;
}

static QuantType down_type(const Mix *mix, int layer, int n) {
    bool more =
        mix->favour == FAVOUR_FIRST ? layer < n / 8 : mix->favour == FAVOUR_SPREAD && is_spread(layer, n);
    return more ? mix->extra : mix->most;
}

/* A type of about the same bits whose blocks fill rows of n weights. */
static QuantType fitting(QuantType type, int64_t n) {
    if (n % quant_traits(type)->n_weights == 0) return type;
    type = type == QUANT_Q4_K   ? QUANT_Q5_0
           : type == QUANT_Q5_K ? QUANT_Q5_1
           : type == QUANT_Q6_K ? QUANT_Q8_0
                                : QUANT_F16;
    return n % quant_traits(type)->n_weights == 0 ? type : QUANT_F16;
}

static QuantType output_type(const Mix *mix, int64_t n) {
    if (n % quant_traits(mix->most)->n_weights != 0) return QUANT_Q8_0;
    return mix->most == QUANT_Q8_0 ? QUANT_Q8_0 : QUANT_Q6_K;
}

typedef struct ValueTensor {
    int layer;
    int64_t tensor; // index
} ValueTensor;

static int compare_layers(const void *a, const void *b) {
    const ValueTensor *x = a, *y = b;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    return (x->tensor > y->tensor) - (x->tensor < y->tensor);
}

/* Some layers of a hybrid model have no values, so value tensors are numbered among themselves. */
static void choose_values(const Mix *mix, const MixModel *model, const GgufTensor *tensors, int64_t n,
                          QuantType *types) {
    ValueTensor *values = mem_new((size_t)n, sizeof *values);
    int n_values = 0;
    for (int64_t i = 0; i < n; i++)
        if (role_of(&tensors[i]) == ROLE_V) values[n_values++] = (ValueTensor){layer_of(tensors[i].name), i};
    qsort(values, (size_t)n_values, sizeof *values, compare_layers);
    for (int i = 0; i < n_values; i++) types[values[i].tensor] = value_type(mix, model, i, n_values);
    free(values);
}

static QuantType choose(const Mix *mix, const MixModel *model, const GgufTensor *t, Role role, bool is_tied) {
    bool has_eight = model->n_expert == 8;
    if (role == ROLE_OUTPUT || (role == ROLE_EMBD && is_tied)) return output_type(mix, t->ne[0]);
    if (role == ROLE_K && has_eight) return QUANT_Q8_0;
    if (role == ROLE_O && has_eight && mix->most == QUANT_Q4_K) return QUANT_Q5_K;
    if (role == ROLE_DOWN) return down_type(mix, layer_of(t->name), model->n_layer);
    return mix->most;
}

void mix_types(const Mix *mix, const MixModel *model, const GgufTensor *tensors, int64_t n,
               QuantType *types) {
    bool is_plain = quant_traits(mix->most)->act == QUANT_ACT_F32, is_tied = true;
    for (int64_t i = 0; i < n; i++) is_tied = is_tied && role_of(&tensors[i]) != ROLE_OUTPUT;
    if (!is_plain) choose_values(mix, model, tensors, n, types);
    for (int64_t i = 0; i < n; i++) {
        const GgufTensor *t = &tensors[i];
        Role role = role_of(t);
        if (role == ROLE_KEPT)
            types[i] = t->type;
        else if (is_plain)
            types[i] = mix->most;
        else if (mix->experts != mix->most && t->ne[2] > 1)
            types[i] = fitting(mix->experts, t->ne[0]);
        else
            types[i] = fitting(role == ROLE_V ? types[i] : choose(mix, model, t, role, is_tied), t->ne[0]);
    }
}
