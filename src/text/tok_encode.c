/* tok_encode: text to ids.
 *
 * Takes special tokens out of a text, and passes the stretches of plain text between them to the encoder of
 * the vocabulary's kind. */
#include "tok_impl.h"
#include "../base/mem.h"

#include <stdlib.h>
#include <string.h>

/* ---- id lists ---- */

void tok_ids_add(TokIds *ids, int32_t id) {
    if (ids->n == ids->capacity) {
        ids->capacity = ids->capacity ? ids->capacity * 2 : 64;
        ids->data = mem_resize(ids->data, ids->capacity * sizeof *ids->data);
    }
    ids->data[ids->n++] = id;
}

void tok_ids_free(TokIds *ids) {
    free(ids->data);
    *ids = (TokIds){0};
}

/* ---- encoding ---- */

typedef struct Source { // a text to be encoded
    const char *text;
    size_t n;
    bool parse;              // all special tokens; else only user-defined ones, which belong to the language
    const TokOrigin *origin; // NULL: no part of the text is the user's
} Source;

/* Some files give the marks of a chat format, like <|user|>, the type of user-defined tokens. */
static bool is_markup(const TokEntry *entry) {
    return entry->n > 2 && entry->text[0] == '<' && entry->text[entry->n - 1] == '>';
}

static bool is_allowed(const Tok *t, const Source *s, int id, size_t at, size_t n) {
    const TokEntry *entry = &t->entries[id];
    if (entry->type == TOK_USER_DEFINED && !(s->origin && is_markup(entry))) return true;
    return s->parse && !(s->origin && s->origin->is_user(s->origin->arg, at, n));
}

/* The special token of the longest text at byte `at` of the source, or -1; of equal texts the lowest id. */
static int special_at(const Tok *t, const Source *s, size_t at) {
    TokWalk walk = tok_walk(&t->specials);
    const TokText *best = NULL;
    while (tok_walk_next(&walk, s->text + at, s->n - at)) {
        const TokText *found = walk.found;
        if ((!best || best->n < found->n) && is_allowed(t, s, found->id, at, found->n)) best = found;
    }
    return best ? best->id : -1;
}

static bool takes_space_behind(const Tok *t, int id) {
    const TokEntry *entry = &t->entries[id];
    static const char *const exceptions[] = {"<unk>", "<s>", "<|endoftext|>"};
    bool takes = t->strip_after_special;
    for (size_t i = 0; i < sizeof exceptions / sizeof *exceptions; i++)
        takes &= entry->n != strlen(exceptions[i]) || memcmp(entry->text, exceptions[i], entry->n) != 0;
    return takes;
}

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Encodes the stretch of n bytes in front of special token `next`, -1: it ends the text. */
static void encode_plain(TokJob *job, const char *text, size_t n, int next) {
    bool goes_on = next >= 0 && job->tok->entries[next].type == TOK_USER_DEFINED;
    switch (job->tok->kind) {
    case TOK_SPM:
        if (n) spm_encode(job, text, n, job->tok->add_space_prefix);
        break;
    case TOK_BPE:
        if (n) bpe_encode(job, text, n);
        break;
    case TOK_UNIGRAM:
        unigram_encode(job, text, n, goes_on);
        break;
    }
    if (next >= 0) tok_ids_add(job->out, next);
    job->goes_on = goes_on;
}

static void encode_valid(const Tok *t, const Source *s, TokIds *out) {
    if (s->n == 0) return;
    TokJob job = {.tok = t, .out = out};
    size_t from = 0; // first byte of the plain text that is not encoded yet
    for (size_t at = 0; at < s->n;) {
        int id = special_at(t, s, at);
        if (id < 0) {
            at++;
            continue;
        }
        encode_plain(&job, s->text + from, at - from, id);
        at += t->entries[id].n;
        if (takes_space_behind(t, id))
            while (at < s->n && is_space(s->text[at])) at++;
        from = at;
    }
    encode_plain(&job, s->text + from, s->n - from, -1);
    if (job.n_lost)
        err_warn("%zu characters of the text are not in the model's vocabulary and were left out",
                 job.n_lost);
    tok_job_free(&job);
}

static void encode(const Tok *t, Source s, bool add, TokIds *out) {
    Utf8Gate gate = {0};
    Buf repaired = {0};
    if (!utf8_is_valid(s.text, s.n)) {
        utf8_gate_push(&gate, s.text, s.n, &repaired);
        utf8_gate_end(&gate, &repaired);
        err_warn("the text is not UTF-8: %zu ill-formed sequences became U+FFFD", gate.n_replaced);
        s.text = repaired.data;
        s.n = repaired.n;
        if (s.origin) s.parse = false; // origin is in bytes of the text before the repair
    }
    bool has_bos = t->bos >= 0 && special_at(t, &s, 0) == t->bos;
    if (add && tok_adds_bos(t) && !has_bos) tok_ids_add(out, t->bos);
    encode_valid(t, &s, out);
    if (add && t->add_sep && t->sep >= 0) tok_ids_add(out, t->sep);
    if (add && t->add_eos && t->eos >= 0) tok_ids_add(out, t->eos);
    buf_free(&repaired);
}

void tok_encode(const Tok *t, const char *text, size_t n, int flags, TokIds *out) {
    encode(t, (Source){text, n, flags & TOK_PARSE_SPECIAL, NULL}, flags & TOK_ADD_SPECIAL, out);
}

void tok_encode_marked(const Tok *t, const char *text, size_t n, int flags, TokOrigin origin, TokIds *out) {
    encode(t, (Source){text, n, true, &origin}, flags & TOK_ADD_SPECIAL, out);
}
