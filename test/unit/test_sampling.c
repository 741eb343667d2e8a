/* The options of the sampler that need a vocabulary, on that of the demo model. */
#include "check.h"
#include "../../src/cli/sampling.h"
#include "../../src/run/model.h"

#include <math.h>
#include <string.h>

typedef struct Trial {
    Model model;
    Options options;
    Sampling sampling;
    Err err;
    bool ok;
} Trial;

static Trial trial(const char *const *arguments) {
    char *argv[16] = {"zgen"};
    int argc = 1;
    Trial t = {0};
    for (; *arguments; arguments++) argv[argc++] = (char *)*arguments;
    t.ok = model_open(NULL, &t.model, &t.err) &&
           options_parse(FOR_GENERATE, (OptionList){0}, argc, argv, &t.options, &t.err) &&
           sampling_open(&t.options, t.model.tok, &t.sampling, &t.err);
    return t;
}

static void end(Trial *t) {
    sampling_close(&t->sampling);
    options_free(&t->options);
    model_close(&t->model);
}

#define TRIAL(...) trial((const char *const[]){__VA_ARGS__, NULL})

static float bias_of(const SampleParams *p, int32_t id) {
    float bias = 0;
    for (int i = 0; i < p->n_bias; i++)
        if (p->bias[i].id == id) bias += p->bias[i].bias;
    return bias;
}

TEST(sampling_biases_of_ids_and_texts) {
    Trial t = TRIAL("-l", "17+1.5", "-l", "18-2e1", "-l", "17-0.5", "--logit-bias", "19-inf", "-l", "20+.25");
    const SampleParams *p = &t.sampling.params;
    REQUIRE(t.ok, "%s", t.err.text);
    CHECK(p->n_bias == 4 && bias_of(p, 17) == 1 && bias_of(p, 18) == -20 && bias_of(p, 20) == 0.25f);
    CHECK(bias_of(p, 19) == -INFINITY);
    end(&t);
    t = TRIAL("-l", "a+1-b+2", "-l", "\\n-3", "-l", "</s>+4"); // the text of the first is a+1-b
    REQUIRE(t.ok, "%s", t.err.text);
    static const struct {
        const char *text;
        float bias;
    } texts[] = {{"a+1-b", 2}, {"\n", -3}, {"</s>", 4}};
    for (int i = 0; i < 3; i++) {
        TokIds ids = {0};
        tok_encode(t.model.tok, texts[i].text, strlen(texts[i].text), TOK_PARSE_SPECIAL, &ids);
        CHECK(ids.n > 0);
        for (size_t k = 0; k < ids.n; k++)
            CHECK(bias_of(p, ids.data[k]) != 0, "text %d: token %d has no bias", i, ids.data[k]);
        if (ids.n == 1) CHECK(bias_of(p, ids.data[0]) == texts[i].bias);
        tok_ids_free(&ids);
    }
    end(&t);
}

static bool is_breaker(const SampleParams *p, int id) {
    return p->breaks[id / 32] >> id % 32 & 1;
}

/* Each token with a new line, a colon, a quotation mark or an asterisk, and no other. */
TEST(sampling_usual_breakers) {
    Trial t = TRIAL("--dry-multiplier", "1");
    REQUIRE(t.ok, "%s", t.err.text);
    const SampleParams *p = &t.sampling.params;
    Buf piece = {0};
    int n = 0;
    for (int id = 0; id < tok_n_vocab(t.model.tok); id++) {
        buf_clear(&piece);
        tok_piece(t.model.tok, id, true, &piece);
        bool has = false;
        for (size_t i = 0; i < piece.n; i++) has |= strchr("\n:\"*", piece.data[i]) && piece.data[i];
        CHECK(is_breaker(p, id) == has, "token %d '%s'", id, piece.data);
        n += has;
    }
    CHECK(n > 3 && p->n_phrases == 0, "%d", n);
    buf_free(&piece);
    end(&t);
}

/* Each way in which a breaker of several tokens lies in tokens: the piece of the first ends with its
 * beginning, and the others are what is left of it. */
TEST(sampling_breakers_of_several_tokens) {
    static const char breaker[] = "fox named";
    Trial t = TRIAL("--dry-multiplier", "1", "--dry-sequence-breaker", breaker);
    REQUIRE(t.ok, "%s", t.err.text);
    const SampleParams *p = &t.sampling.params;
    const Tok *tok = t.model.tok;
    int n = 0;
    for (int at = 0; at < p->n_phrases; at += 1 + p->phrases[at], n++) {
        Buf text = {0}, first = {0};
        for (int i = 1; i <= p->phrases[at]; i++)
            tok_piece(tok, p->phrases[at + i], true, i == 1 ? &first : &text);
        const char *rest = text.data + (*text.data == ' '); // that encoding puts in front
        bool is_rest = false;                               // of some beginning that the piece ends with
        for (size_t k = 1; k <= first.n && k < strlen(breaker); k++)
            is_rest |= memcmp(first.data + first.n - k, breaker, k) == 0 &&
                       (strcmp(rest, breaker + k) == 0 || strcmp(text.data, breaker + k) == 0);
        CHECK(is_rest && p->phrases[at] > 1, "phrase %d: '%s', then '%s'", n, first.data, text.data);
        buf_free(&text);
        buf_free(&first);
    }
    CHECK(n > 1, "%d phrases", n);
    for (int id = 0; id < tok_n_vocab(tok); id++) CHECK(!is_breaker(p, id), "token %d", id);
    end(&t);
    t = TRIAL("--dry-multiplier", "1", "--dry-sequence-breaker", "none");
    REQUIRE(t.ok, "%s", t.err.text);
    for (int id = 0; id < tok_n_vocab(t.model.tok); id++)
        CHECK(!is_breaker(&t.sampling.params, id), "token %d", id);
    CHECK(t.sampling.params.n_phrases == 0);
    end(&t);
    t = TRIAL("--dry-sequence-breaker", "x");
    CHECK(t.ok && !t.sampling.params.breaks, "without a multiplier nothing is searched");
    end(&t);
}

TEST(sampling_orders) {
    static const uint8_t none[N_FILTERS] = {0},
                         few[N_FILTERS] = {FILTER_TEMPERATURE, FILTER_TYPICAL, FILTER_TOP_K},
                         mirostat[N_FILTERS] = {FILTER_TEMPERATURE, FILTER_MIROSTAT};
    static const char usual[] = "penalties;dry;top-n-sigma;top_k;typical;nucleus;min_p;xtc;temp";
    static const struct {
        const char *option, *value;
        const uint8_t *order;
    } cases[] = {{"--samplers", usual, none},    {"--samplers", "temperature;typ_p;top-k", few},
                 {"--sampling-seq", "tyk", few}, {"--sampler-seq", "edskypmxt", none},
                 {"--mirostat", "2", mirostat},  {"--mirostat", "0", none}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Trial t = TRIAL(cases[i].option, cases[i].value);
        CHECK(t.ok && memcmp(t.sampling.params.order, cases[i].order, N_FILTERS) == 0, "%s %s: %s",
              cases[i].option, cases[i].value, t.err.text);
        end(&t);
    }
}
