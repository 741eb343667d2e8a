/* mix: see mix.h. */
#include "mix.h"
#include "../base/mem.h"
#include "../gguf/encode.h"

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

// clang-format off
static const Mix mixes[] = {
    {.name = "F32", .most = QUANT_F32},
    {.name = "F16", .most = QUANT_F16},
    {.name = "BF16", .most = QUANT_BF16},
    {.name = "FP8", .most = QUANT_FP8_E4M3},
    {.name = "Q4_0", .most = QUANT_Q4_0, .down = {MIX_EIGHTH_WEIGHED, QUANT_Q4_1, QUANT_F32}},
    {.name = "Q4_1", .most = QUANT_Q4_1},
    {.name = "Q5_0", .most = QUANT_Q5_0, .down = {MIX_EIGHTH_WEIGHED, QUANT_Q5_1, QUANT_F32}},
    {.name = "Q5_1", .most = QUANT_Q5_1},
    {.name = "Q8_0", .most = QUANT_Q8_0},
    {.name = "Q2_K", .most = QUANT_Q2_K, .values = {MIX_SHARED, QUANT_Q4_K, QUANT_Q3_K},
     .down = {MIX_NOWHERE, QUANT_F32, QUANT_Q3_K}, .attn_output = QUANT_Q3_K, .o_of_eight = QUANT_Q5_K},
    {.name = "Q2_K_S", .most = QUANT_Q2_K, .values = {MIX_SHARED, QUANT_Q4_K, QUANT_F32},
     .down = {MIX_FIRST_EIGHTH, QUANT_Q4_K, QUANT_F32}, .needs_importance = true},
    {.name = "Q3_K_S", .most = QUANT_Q3_K, .o_of_eight = QUANT_Q5_K},
    {.name = "Q3_K_M", .most = QUANT_Q3_K, .values = {MIX_FIRST_TWO, QUANT_Q5_K, QUANT_Q4_K},
     .down = {MIX_FIRST_SIXTEENTH, QUANT_Q5_K, QUANT_Q4_K}, .attn_output = QUANT_Q4_K,
     .o_of_eight = QUANT_Q5_K},
    {.name = "Q3_K_L", .most = QUANT_Q3_K, .values = {MIX_NOWHERE, QUANT_F32, QUANT_Q5_K},
     .down = {MIX_NOWHERE, QUANT_F32, QUANT_Q5_K}, .attn_output = QUANT_Q5_K},
    {.name = "Q4_K_S", .most = QUANT_Q4_K, .values = {MIX_FIRST_FOUR, QUANT_Q5_K, QUANT_F32},
     .down = {MIX_FIRST_EIGHTH, QUANT_Q5_K, QUANT_F32}, .o_of_eight = QUANT_Q5_K},
    {.name = "Q4_K_M", .most = QUANT_Q4_K, .values = {MIX_SPREAD, QUANT_Q6_K, QUANT_F32},
     .down = {MIX_SPREAD, QUANT_Q6_K, QUANT_F32}, .o_of_eight = QUANT_Q5_K},
    {.name = "Q5_K_S", .most = QUANT_Q5_K},
    {.name = "Q5_K_M", .most = QUANT_Q5_K, .values = {MIX_SPREAD, QUANT_Q6_K, QUANT_F32},
     .down = {MIX_SPREAD, QUANT_Q6_K, QUANT_F32}},
    {.name = "Q6_K", .most = QUANT_Q6_K},
    {.name = "IQ4_NL", .most = QUANT_IQ4_NL, .values = {MIX_SHARED, QUANT_Q5_K, QUANT_F32},
     .down = {MIX_EIGHTH_UNWEIGHED, QUANT_Q5_K, QUANT_F32}, .o_of_eight = QUANT_Q5_K},
    {.name = "IQ4_XS", .most = QUANT_IQ4_XS, .values = {MIX_SHARED, QUANT_Q5_K, QUANT_F32},
     .down = {MIX_EIGHTH_UNWEIGHED, QUANT_Q5_K, QUANT_F32}, .o_of_eight = QUANT_Q5_K},
    {.name = "TQ1_0", .most = QUANT_TQ1_0, .embd = QUANT_Q4_K},
    {.name = "TQ2_0", .most = QUANT_TQ2_0, .embd = QUANT_Q4_K},
    {.name = "MXFP4_MOE", .most = QUANT_Q8_0, .experts = QUANT_MXFP4},
    {.name = "COPY", .most = QUANT_F32, .is_copy = true},
};
// clang-format on
enum { N_MIXES = sizeof mixes / sizeof *mixes };

const Mix *mix_find(const char *name) {
    static const char *const medium[] = {"Q3_K", "Q4_K", "Q5_K"};
    char full[8];
    for (int i = 0; i < 3; i++)
        if (strcasecmp(name, medium[i]) == 0) {
            snprintf(full, sizeof full, "%s_M", medium[i]);
            name = full;
        }
    for (int i = 0; i < N_MIXES; i++)
        if (strcasecmp(mixes[i].name, name) == 0) return &mixes[i];
    return NULL;
}

void mix_list(bool with_copy, Buf *out) {
    for (int i = 0; i < N_MIXES; i++)
        if (with_copy || !mixes[i].is_copy) buf_printf(out, "%s%s", i ? " " : "", mixes[i].name);
}

/* ---- wishes ------------------------------------------------------------------------------------------- */

MixWishes mix_no_wishes(void) {
    return (MixWishes){.embd = MIX_ANY, .output = MIX_ANY};
}

bool mix_read_type(const char *option, const char *name, QuantType *out, Err *e) {
    Buf known = {0};
    for (uint32_t id = 0; id < QUANT_FP8_E4M3; id++) {
        if (!quant_traits(id) || !quant_can_encode((QuantType)id)) continue;
        buf_printf(&known, "%s%s", known.n ? " " : "", quant_traits(id)->name);
        if (strcasecmp(name, quant_traits(id)->name) != 0) continue;
        *out = (QuantType)id;
        buf_free(&known);
        return true;
    }
    err_set(e, ERR_USAGE, "%s: '%.100s' is no type of a tensor that zgen writes; these are %s", option, name,
            known.data);
    buf_free(&known);
    return false;
}

bool mix_add_rule(MixWishes *w, const char *text, Err *e) {
    const char *equals = strrchr(text, '=');
    QuantType type;
    if (!equals || equals == text || !equals[1])
        return err_set(e, ERR_USAGE, "--tensor-type '%.200s': PATTERN=TYPE is wanted, as in attn_v=q8_0",
                       text);
    if (!mix_read_type("--tensor-type", equals + 1, &type, e)) return false;
    char *pattern = mem_new((size_t)(equals - text) + 1, 1);
    regex_t *compiled = mem_new(1, sizeof *compiled);
    memcpy(pattern, text, (size_t)(equals - text));
    int code = regcomp(compiled, pattern, REG_EXTENDED | REG_ICASE | REG_NOSUB);
    char why[100] = "";
    regerror(code, compiled, why, sizeof why);
    free(pattern);
    if (code) {
        free(compiled);
        return err_set(e, ERR_USAGE, "--tensor-type '%.200s': the pattern is no regular expression: %s", text,
                       why);
    }
    w->rules = mem_resize(w->rules, (size_t)(w->n_rules + 1) * sizeof *w->rules);
    w->rules[w->n_rules++] = (MixRule){compiled, type};
    return true;
}

void mix_wishes_free(MixWishes *w) {
    for (int i = 0; i < w->n_rules; i++) {
        regfree(w->rules[i].pattern);
        free(w->rules[i].pattern);
    }
    free(w->rules);
    *w = mix_no_wishes();
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

/* Whether number i of the tensors of a kind is in the place; n is the number that fractions are of. */
static bool is_there(MixPlace place, const MixModel *model, int i, int n) {
    switch (place) {
    case MIX_NOWHERE:
        return false;
    case MIX_FIRST_TWO:
        return i < 2;
    case MIX_FIRST_FOUR:
        return i < 4;
    case MIX_FIRST_SIXTEENTH:
        return i < n / 16;
    case MIX_FIRST_EIGHTH:
        return i < n / 8;
    case MIX_EIGHTH_WEIGHED:
        return i < n / 8 && model->has_importance;
    case MIX_EIGHTH_UNWEIGHED:
        return i < n / 8 && !model->has_importance;
    case MIX_SPREAD:
        return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
    case MIX_SHARED:
        return model->n_shared >= 4;
    }
    return false;
}

static QuantType or_most(QuantType type, const Mix *mix) {
    return type == QUANT_F32 ? mix->most : type;
}

static QuantType choice_type(const Mix *mix, const MixChoice *c, const MixModel *model, int i, int n) {
    return or_most(is_there(c->place, model, i, n) ? c->there : c->elsewhere, mix);
}

/* Of value tensor i of n, in the order of layers. */
static QuantType value_type(const Mix *mix, const MixModel *model, int i, int n) {
    QuantType type = choice_type(mix, &mix->values, model, i, n);
    bool is_low = type == QUANT_Q3_K || type == QUANT_Q4_K;
    if (is_low && model->is_70b) type = QUANT_Q5_K; // small, as eight query heads share each
    return model->n_expert == 8 ? QUANT_Q8_0 : type;
}

static bool fits(QuantType type, int64_t n) {
    return n % quant_traits(type)->n_weights == 0;
}

/* A type of about the same bits whose blocks fill rows of n weights. */
static QuantType fitting(QuantType type, int64_t n) {
    static const struct {
        QuantType from, to;
    } others[] = {{QUANT_Q2_K, QUANT_Q4_0},  {QUANT_Q3_K, QUANT_Q4_0}, {QUANT_Q4_K, QUANT_Q5_0},
                  {QUANT_Q5_K, QUANT_Q5_1},  {QUANT_Q6_K, QUANT_Q8_0}, {QUANT_IQ4_XS, QUANT_IQ4_NL},
                  {QUANT_TQ1_0, QUANT_Q4_0}, {QUANT_TQ2_0, QUANT_Q4_0}};
    if (fits(type, n)) return type;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (others[i].from == type && fits(others[i].to, n)) return others[i].to;
    return QUANT_F16;
}

static QuantType output_type(const Mix *mix, int64_t n) {
    return mix->most == QUANT_Q8_0 || !fits(QUANT_Q6_K, n) ? QUANT_Q8_0 : QUANT_Q6_K;
}

typedef struct Numbered { // a tensor of a kind
    int layer;
    int64_t tensor; // index
} Numbered;

static int compare_layers(const void *a, const void *b) {
    const Numbered *x = a, *y = b;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    return (x->tensor > y->tensor) - (x->tensor < y->tensor);
}

/* The number of each tensor of a role among those of that role, in the order of layers: some layers of a hybrid
 * model have no values.  Returns how many there are. */
static int number(const GgufTensor *tensors, int64_t n, Role role, int *out) {
    Numbered *list = mem_new((size_t)n, sizeof *list);
    int count = 0;
    for (int64_t i = 0; i < n; i++)
        if (role_of(&tensors[i]) == role) list[count++] = (Numbered){layer_of(tensors[i].name), i};
    qsort(list, (size_t)count, sizeof *list, compare_layers);
    for (int i = 0; i < count; i++) out[list[i].tensor] = i;
    free(list);
    return count;
}

typedef struct Choosing { // of the types of one model
    const Mix *mix;
    const MixModel *model;
    int *number; // [n tensors] of values and down projections among themselves
    int n_values;
    bool is_tied; // the token embeddings are the output, too
} Choosing;

/* Of a matrix that the mix decides. */
static QuantType choose(const Choosing *c, const GgufTensor *t, Role role, int number) {
    const Mix *mix = c->mix;
    bool has_eight = c->model->n_expert == 8;
    if (role == ROLE_OUTPUT || (role == ROLE_EMBD && c->is_tied)) return output_type(mix, t->ne[0]);
    if (mix->experts && t->ne[2] > 1) return mix->experts;
    if (role == ROLE_EMBD) return or_most(mix->embd, mix);
    if (role == ROLE_V) return value_type(mix, c->model, number, c->n_values);
    if (role == ROLE_K && has_eight) return QUANT_Q8_0;
    if (role == ROLE_O) return or_most(has_eight ? mix->o_of_eight : mix->attn_output, mix);
    if (role == ROLE_DOWN) // a layer of experts may have several
        return choice_type(mix, &mix->down, c->model, c->model->n_expert > 1 ? layer_of(t->name) : number,
                           c->model->n_layer);
    return mix->most;
}

/* The type that the user wants for a matrix; MIX_ANY: none. */
static int wish(const MixWishes *w, const Choosing *c, const GgufTensor *t, Role role) {
    bool is_output = role == ROLE_OUTPUT || (role == ROLE_EMBD && c->is_tied);
    if (role == ROLE_OUTPUT && w->keep_output) return (int)t->type;
    if (role == ROLE_EMBD && w->embd != MIX_ANY) return w->embd;
    if (role == ROLE_OUTPUT && w->output != MIX_ANY) return w->output;
    for (int i = 0; i < w->n_rules; i++)
        if (regexec(w->rules[i].pattern, t->name, 0, NULL, 0) == 0) return (int)w->rules[i].type;
    if (is_output && w->output != MIX_ANY && !w->pure) return w->output;
    return w->pure ? (int)(c->mix->experts ? c->mix->experts : c->mix->most) : MIX_ANY;
}

void mix_types(const Mix *mix, const MixWishes *wishes, const MixModel *model, const GgufTensor *tensors,
               int64_t n, QuantType *types, QuantType *wanted) {
    bool is_plain = quant_traits(mix->most)->act == QUANT_ACT_F32;
    Choosing c = {mix, model, .number = mem_new((size_t)n, sizeof(int)), .is_tied = true};
    for (int64_t i = 0; i < n; i++) c.is_tied = c.is_tied && role_of(&tensors[i]) != ROLE_OUTPUT;
    c.n_values = number(tensors, n, ROLE_V, c.number);
    number(tensors, n, ROLE_DOWN, c.number);
    for (int64_t i = 0; i < n; i++) {
        const GgufTensor *t = &tensors[i];
        Role role = role_of(t);
        int wished = role == ROLE_KEPT ? (int)t->type : wish(wishes, &c, t, role);
        QuantType type = wished != MIX_ANY ? (QuantType)wished
                         : mix->is_copy    ? t->type
                         : is_plain        ? mix->most
                                           : choose(&c, t, role, c.number[i]);
        types[i] = type == t->type ? type : fitting(type, t->ne[0]);
        if (wanted) wanted[i] = type;
    }
    free(c.number);
}
