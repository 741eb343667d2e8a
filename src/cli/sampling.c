/* sampling: see sampling.h. */
#include "sampling.h"
#include "unescape.h"
#include "../base/mem.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- numbers ------------------------------------------------------------------------------------------- */

/* 0 is off in the parameters, and keeps the most typical token as an option. */
static float typical_of(float p) {
    return p > 0 ? p : FLT_MIN;
}

SampleParams sampling_numbers(const Options *o, uint64_t seed) {
    return (SampleParams){.temp = o->temp,
                          .top_p = o->top_p,
                          .min_p = o->min_p,
                          .repeat_penalty = o->repeat_penalty,
                          .presence_penalty = o->presence_penalty,
                          .frequency_penalty = o->frequency_penalty,
                          .top_k = o->top_k,
                          .repeat_last_n = o->repeat_last_n,
                          .top_n_sigma = o->top_n_sigma > 0 ? o->top_n_sigma : 0,
                          .typical_p = typical_of(o->typical_p),
                          .xtc_probability = o->xtc_probability,
                          .xtc_threshold = o->xtc_threshold,
                          .temp_range = o->temp_range,
                          .temp_exponent = o->temp_exponent,
                          .dry_multiplier = o->dry_multiplier,
                          .dry_base = o->dry_base,
                          .dry_allowed_length = o->dry_allowed_length,
                          .dry_last_n = o->dry_last_n,
                          .mirostat_tau = o->mirostat_tau,
                          .mirostat_eta = o->mirostat_eta,
                          .seed = seed};
}

/* ---- the order ----------------------------------------------------------------------------------------- */

static const struct {
    char letter;
    const char *names[7];
} FILTERS[N_FILTERS] = {
    [FILTER_PENALTIES] = {'e', {"penalties"}},
    [FILTER_DRY] = {'d', {"dry"}},
    [FILTER_TOP_N_SIGMA] = {'s', {"top_n_sigma", "top-n-sigma"}},
    [FILTER_TOP_K] = {'k', {"top_k", "top-k"}},
    [FILTER_TYPICAL] = {'y', {"typ_p", "typ-p", "typical-p", "typical", "typ"}},
    [FILTER_TOP_P] = {'p', {"top_p", "top-p", "nucleus"}},
    [FILTER_MIN_P] = {'m', {"min_p", "min-p"}},
    [FILTER_XTC] = {'x', {"xtc"}},
    [FILTER_TEMPERATURE] = {'t', {"temperature", "temp"}},
};

static const char NAMES[] = "penalties dry top_n_sigma top_k typ_p top_p min_p xtc temperature";

const char *sampling_name(int filter) {
    return FILTERS[filter].names[0];
}

/* FILTER_END: there is no such filter. */
static int filter_of_name(const char *name, size_t n) {
    for (int f = 1; f < N_FILTERS; f++)
        for (int i = 0; FILTERS[f].names[i]; i++)
            if (strlen(FILTERS[f].names[i]) == n && memcmp(FILTERS[f].names[i], name, n) == 0) return f;
    return FILTER_END;
}

static int filter_of_letter(char letter) {
    int f = FILTER_TEMPERATURE;
    while (f > FILTER_END && FILTERS[f].letter != letter) f--;
    return f;
}

static bool add_filter(const char *option, const char *text, int filter, SampleParams *p, Err *e) {
    int n = 0;
    for (; p->order[n]; n++)
        if (p->order[n] == filter)
            return err_set(e, ERR_USAGE, "option %s: '%.100s' names %s twice", option, text,
                           sampling_name(filter));
    p->order[n] = (uint8_t)filter;
    return true;
}

static bool parse_names(const char *text, SampleParams *p, Err *e) {
    for (const char *at = text;; at++) {
        size_t n = strcspn(at, ";");
        int filter = filter_of_name(at, n);
        if (!filter)
            return err_set(e, ERR_USAGE,
                           "option --samplers: '%.*s' is not one of: %s; they are separated by ;",
                           (int)(n < 40 ? n : 40), at, NAMES);
        if (!add_filter("--samplers", text, filter, p, e)) return false;
        at += n;
        if (*at == 0) return true;
    }
}

static bool parse_letters(const char *text, SampleParams *p, Err *e) {
    if (!*text)
        return err_set(e, ERR_USAGE,
                       "option --sampler-seq: there is no letter; the usual ones are edskypmxt");
    for (const char *at = text; *at; at++) {
        int filter = filter_of_letter(*at);
        if (!filter)
            return err_set(e, ERR_USAGE, "option --sampler-seq: '%.40s' is not made of the letters edskypmxt",
                           text);
        if (!add_filter("--sampler-seq", text, filter, p, e)) return false;
    }
    return true;
}

/* The usual order in the form that the sampler knows it by. */
static void name_usual(SampleParams *p) {
    int i = 0;
    while (i < FILTER_TEMPERATURE && p->order[i] == i + 1) i++;
    if (i == FILTER_TEMPERATURE) memset(p->order, 0, sizeof p->order);
}

static bool open_order(const Options *o, SampleParams *p, Err *e) {
    if (o->samplers && o->sampler_seq)
        return err_set(e, ERR_USAGE, "--samplers and --sampler-seq both say the order; drop one of them");
    if (o->mirostat == 1)
        return err_set(e, ERR_USAGE,
                       "--mirostat 1 is not known; --mirostat 2 has the same aim and the same options");
    if (o->samplers && !parse_names(o->samplers, p, e)) return false;
    if (o->sampler_seq && !parse_letters(o->sampler_seq, p, e)) return false;
    name_usual(p);
    if (o->mirostat == 2) {
        memset(p->order, 0, sizeof p->order);
        p->order[0] = FILTER_TEMPERATURE;
        p->order[1] = FILTER_MIROSTAT;
        p->temp_range = 0;
    }
    return true;
}

/* ---- biases -------------------------------------------------------------------------------------------- */

static const float BIAS_MAX = 10000;

/* Reads a number up to the end of text, or "inf" where it is negative. */
static bool parse_bias(const char *text, bool negative, float *out) {
    char *end;
    bool is_number = (*text >= '0' && *text <= '9') || *text == '.';
    double value = strtod(text, &end);
    if (strcmp(text, "inf") == 0 && negative)
        value = INFINITY;
    else if (!is_number || *end || strspn(text, "0123456789.eE+-") != strlen(text) || !(value <= BIAS_MAX))
        return false;
    *out = negative ? -(float)value : (float)value;
    return true;
}

/* The sign of the bias behind a key: the first one behind which there is nothing but a number. */
static const char *find_sign(const char *text, float *bias) {
    for (const char *at = text + 1; *text && *at; at++)
        if ((*at == '+' || *at == '-') && parse_bias(at + 1, *at == '-', bias)) return at;
    return NULL;
}

static void add_bias(Sampling *s, int32_t id, float bias) {
    SampleParams *p = &s->params;
    int i = 0;
    while (i < p->n_bias && s->bias[i].id != id) i++;
    if (i == p->n_bias) {
        s->bias = mem_resize(s->bias, (size_t)(i + 1) * sizeof *s->bias);
        s->bias[p->n_bias++] = (SampleBias){.id = id};
    }
    s->bias[i].bias += bias;
    p->bias = s->bias;
}

/* Digits are an id, all else is a text. */
static bool find_tokens(const Options *o, const Tok *tok, const char *text, size_t n, TokIds *out, Err *e) {
    if (strspn(text, "0123456789") >= n) {
        long id = strtol(text, NULL, 10);
        if (n > 9 || id >= tok_n_vocab(tok))
            return err_set(e, ERR_USAGE,
                           "option --logit-bias: there is no token %.*s; the model has tokens 0 to %d",
                           (int)(n < 40 ? n : 40), text, tok_n_vocab(tok) - 1);
        tok_ids_add(out, (int32_t)id);
        return true;
    }
    Buf key = {0}, plain = {0};
    buf_add(&key, text, n);
    if (o->escape)
        unescape(key.data, &plain);
    else
        buf_add(&plain, key.data, key.n);
    tok_encode(tok, plain.data, plain.n, TOK_PARSE_SPECIAL, out);
    buf_free(&plain);
    buf_free(&key);
    return true;
}

static bool open_biases(const Options *o, const Tok *tok, Sampling *s, Err *e) {
    for (int i = 0; i < o->n_bias; i++) {
        float bias = 0;
        const char *text = o->bias[i], *sign = find_sign(text, &bias);
        if (!sign)
            return err_set(
                e, ERR_USAGE,
                "option --logit-bias: '%.100s' is not ID+X, ID-X or TEXT+X, with a number X up to %g, or "
                "-inf",
                text, (double)BIAS_MAX);
        TokIds ids = {0};
        bool ok = find_tokens(o, tok, text, (size_t)(sign - text), &ids, e);
        for (size_t k = 0; k < ids.n; k++) add_bias(s, ids.data[k], bias);
        tok_ids_free(&ids);
        if (!ok) return false;
    }
    return true;
}

/* ---- sequence breakers --------------------------------------------------------------------------------- */

enum { BREAKER_MOST = 40, TAIL_MOST = 20 }; // bytes; tokens

/* A breaker that begins in a token and ends behind it: the token, and those of the rest of the text. */
static void add_phrase(const Tok *tok, int32_t id, const char *rest, size_t n_rest, TokIds *phrases) {
    TokIds tail = {0};
    tok_encode(tok, rest, n_rest, 0, &tail);
    if (tail.n > TAIL_MOST) tail.n = TAIL_MOST;
    tok_ids_add(phrases, (int32_t)tail.n + 1);
    tok_ids_add(phrases, id);
    for (size_t i = 0; i < tail.n; i++) tok_ids_add(phrases, tail.data[i]);
    tok_ids_free(&tail);
}

static bool contains(const Buf *piece, const Buf *text) {
    for (size_t at = 0; at + text->n <= piece->n; at++)
        if (memcmp(piece->data + at, text->data, text->n) == 0) return true;
    return false;
}

static void add_breaker(const Tok *tok, const Buf *text, Sampling *s) {
    Buf piece = {0};
    for (int id = 0; id < tok_n_vocab(tok); id++) {
        buf_clear(&piece);
        tok_piece(tok, id, true, &piece);
        if (contains(&piece, text)) {
            s->breaks[id / 32] |= 1u << id % 32;
            continue;
        }
        for (size_t n = 1; n < text->n && n <= piece.n; n++)
            if (memcmp(piece.data + piece.n - n, text->data, n) == 0)
                add_phrase(tok, id, text->data + n, text->n - n, &s->phrases);
    }
    buf_free(&piece);
}

static bool open_breakers(const Options *o, const Tok *tok, Sampling *s, Err *e) {
    static const char *const usual[] = {"\n", ":", "\"", "*"};
    const char *const *texts = o->n_breakers ? o->breakers : usual;
    int n = o->n_breakers ? o->n_breakers : 4;
    s->breaks = mem_new((size_t)tok_n_vocab(tok) / 32 + 1, sizeof *s->breaks);
    for (int i = 0; i < n; i++) {
        Buf text = {0};
        if (strcmp(texts[i], "none") == 0) continue;
        if (o->escape)
            unescape(texts[i], &text);
        else
            buf_add(&text, texts[i], strlen(texts[i]));
        bool fits = text.n <= BREAKER_MOST;
        if (fits) add_breaker(tok, &text, s);
        buf_free(&text);
        if (!fits)
            return err_set(e, ERR_USAGE, "option --dry-sequence-breaker: '%.100s' has more than %d bytes",
                           texts[i], BREAKER_MOST);
    }
    s->params.breaks = s->breaks;
    s->params.phrases = s->phrases.data;
    s->params.n_phrases = (int)s->phrases.n;
    return true;
}

/* ---- open ---------------------------------------------------------------------------------------------- */

bool sampling_open(const Options *o, const Tok *tok, Sampling *out, Err *e) {
    *out = (Sampling){.params = sampling_numbers(o, 0)};
    if (!open_order(o, &out->params, e) || !open_biases(o, tok, out, e)) return false;
    bool dry = o->dry_multiplier > 0 && o->dry_last_n != 0;
    return !dry || open_breakers(o, tok, out, e);
}

void sampling_close(Sampling *s) {
    free(s->bias);
    free(s->breaks);
    tok_ids_free(&s->phrases);
    *s = (Sampling){0};
}
