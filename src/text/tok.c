/* tok: see tok.h.  This file takes special tokens out of a text, hands the rest to the encoder, and decodes.
 */
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

/* ---- asking ---- */

static const TokEntry *entry_of(const Tok *t, int id) {
    static const TokEntry none = {.text = "", .type = TOK_UNDEFINED};
    return id >= 0 && id < t->n_vocab ? &t->entries[id] : &none;
}

const char *tok_model(const Tok *t) {
    switch (t->kind) {
    case TOK_SPM:
        return "llama";
    case TOK_BPE:
        return "gpt2";
    case TOK_UNIGRAM:
        return "t5";
    }
    return NULL;
}

const char *tok_describe(const Tok *t) {
    switch (t->kind) {
    case TOK_SPM:
        return "SentencePiece style";
    case TOK_BPE:
        return t->rule->flags & PRETOK_CHARACTERS ? "character-level BPE" : "byte-level BPE";
    case TOK_UNIGRAM:
        return "SentencePiece unigram";
    }
    return NULL;
}

GgufString tok_pre(const Tok *t) {
    return t->rule ? (GgufString){t->rule->names, strcspn(t->rule->names, " ")} : (GgufString){0};
}

int tok_n_vocab(const Tok *t) {
    return t->n_vocab;
}
int tok_bos(const Tok *t) {
    return t->bos;
}
int tok_eos(const Tok *t) {
    return t->eos;
}
int tok_unknown(const Tok *t) {
    return t->unknown;
}
bool tok_adds_bos(const Tok *t) {
    return t->add_bos && t->bos >= 0;
}
bool tok_is_eog(const Tok *t, int id) {
    return entry_of(t, id)->eog;
}
TokType tok_type(const Tok *t, int id) {
    return entry_of(t, id)->type;
}
GgufString tok_text(const Tok *t, int id) {
    return (GgufString){entry_of(t, id)->text, entry_of(t, id)->n};
}

/* ---- encoding ---- */

/* A text to be encoded, and which special tokens it may hold: without parse only user-defined ones, which are
 * part of the language. */
typedef struct Source {
    const char *text;
    size_t n;
    bool parse;
    const TokOrigin *origin; // NULL: nothing is known to be from the user
} Source;

/* Some files type the marks of a turn as user-defined. */
static bool is_markup(const TokEntry *entry) {
    return entry->n > 2 && entry->text[0] == '<' && entry->text[entry->n - 1] == '>';
}

static bool may_stand(const Tok *t, const Source *s, int id, size_t at, size_t n) {
    const TokEntry *entry = &t->entries[id];
    if (entry->type == TOK_USER_DEFINED && !(s->origin && is_markup(entry))) return true;
    return s->parse && !(s->origin && s->origin->is_user(s->origin->arg, at, n));
}

/* The special token with the longest text that stands at a place of the source, or -1. */
static int special_at(const Tok *t, const Source *s, size_t at) {
    const TokList *list = &t->specials;
    size_t low = 0, high = list->n;
    int best = -1;
    for (size_t depth = 0; low < high && at + depth < s->n;) {
        tok_list_narrow(list, &low, &high, depth, (unsigned char)s->text[at + depth]);
        depth++;
        bool is_new = true; // among equal texts the lowest id comes first
        for (; low < high && list->texts[low].n == depth; low++)
            if (is_new && may_stand(t, s, list->texts[low].id, at, depth))
                best = list->texts[low].id, is_new = false;
    }
    return best;
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

static void encode_plain(TokJob *job, const char *text, size_t n) {
    if (n == 0) return;
    switch (job->tok->kind) {
    case TOK_SPM:
        spm_encode(job, text, n, job->tok->add_space_prefix);
        return;
    case TOK_BPE:
        bpe_encode(job, text, n);
        return;
    case TOK_UNIGRAM:
        unigram_encode(job, text, n);
        return;
    }
}

static void encode_valid(const Tok *t, const Source *s, TokIds *out) {
    if (s->n == 0) return;
    TokJob job = {.tok = t, .out = out};
    size_t from = 0; // where the plain text begins that is not encoded yet
    for (size_t at = 0; at < s->n;) {
        int id = special_at(t, s, at);
        if (id < 0) {
            at++;
            continue;
        }
        encode_plain(&job, s->text + from, at - from);
        tok_ids_add(out, id);
        at += t->entries[id].n;
        if (takes_space_behind(t, id))
            while (at < s->n && is_space(s->text[at])) at++;
        from = at;
    }
    encode_plain(&job, s->text + from, s->n - from);
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
        err_warn("the text is not UTF-8 in %zu places; each became U+FFFD", gate.n_replaced);
        s.text = repaired.data, s.n = repaired.n;
        if (s.origin) s.parse = false; // the places that origin speaks of have moved
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

/* ---- decoding ---- */

static void add_unescaped(const char *text, size_t n, Buf *out) {
    while (n) {
        const char *hit = memmem(text, n, TOK_SPACE, strlen(TOK_SPACE));
        size_t before = hit ? (size_t)(hit - text) : n;
        buf_add(out, text, before);
        if (!hit) return;
        buf_add(out, " ", 1);
        text += before + strlen(TOK_SPACE), n -= before + strlen(TOK_SPACE);
    }
}

static void add_normal(const Tok *t, const TokEntry *entry, Buf *out) {
    if (!t->bytes)
        add_unescaped(entry->text, entry->n, out);
    else if (entry->n_plain)
        buf_add(out, entry->plain, entry->n_plain);
    else // not in the byte-level alphabet: added later, and meant as it stands
        buf_add(out, entry->text, entry->n);
}

void tok_piece(const Tok *t, int id, bool special, Buf *out) {
    const TokEntry *entry = entry_of(t, id);
    switch ((TokType)entry->type) {
    case TOK_UNDEFINED:
    case TOK_UNUSED:
        return;
    case TOK_UNKNOWN:
    case TOK_CONTROL:
        if (special) buf_add(out, entry->text, entry->n);
        return;
    case TOK_USER_DEFINED:
        buf_add(out, entry->text, entry->n);
        return;
    case TOK_NORMAL:
        add_normal(t, entry, out);
        return;
    case TOK_BYTE:
        buf_add(out, &(char){(char)tok_byte_value(entry->text, entry->n)}, 1);
        return;
    }
}

/* What the first tokenizers of this kind did to their output: no space before "?", "!", "." and ",", none
 * around an apostrophe that stands alone, none before "'s", "'m", "'re" and "'ve".  Each writes behind where
 * it reads and returns the bytes that are left. */
static size_t join_marks(char *s, size_t n) {
    size_t to = 0;
    for (size_t i = 0; i < n; i++) {
        if (i && s[i - 1] == ' ' && memchr("?!.,", s[i], 4)) to--;
        s[to++] = s[i];
    }
    return to;
}

static size_t join_apostrophes(char *s, size_t n) {
    size_t to = 0;
    for (size_t i = 0; i < n; i++) {
        bool alone = i && i + 1 < n && s[i - 1] == ' ' && s[i] == '\'' && s[i + 1] == ' ';
        if (alone) to--, s[i + 1] = 0; // so that it is not taken for the space of the next one
        s[to++] = s[i];
        i += alone;
    }
    return to;
}

static size_t join_contractions(char *s, size_t n) {
    size_t to = 0;
    for (size_t i = 0; i < n; i++) {
        if (i && i + 1 < n && s[i - 1] == ' ' && s[i] == '\'') {
            const char *rest = s + i + 1;
            bool is_long = i + 2 < n && (memcmp(rest, "re", 2) == 0 || memcmp(rest, "ve", 2) == 0);
            if (*rest == 's' || *rest == 'm' || is_long) to--;
        }
        s[to++] = s[i];
    }
    return to;
}

static void clean_spaces(Buf *text, size_t from) {
    if (text->n == from) return;
    char *s = text->data + from;
    text->n = from + join_contractions(s, join_apostrophes(s, join_marks(s, text->n - from)));
    text->data[text->n] = 0;
}

void tok_decode(const Tok *t, const int32_t *ids, size_t n, int flags, Buf *out) {
    bool strip_space = t->add_space_prefix;
    if (flags & TOK_REMOVE_SPECIAL) {
        if (t->add_bos && n && ids[0] == t->bos) ids++, n--, strip_space = false;
        if (t->add_eos && n && ids[n - 1] == t->eos) n--;
    }
    Buf piece = {0};
    size_t from = out->n;
    for (size_t i = 0; i < n; i++, strip_space = false) {
        buf_clear(&piece);
        tok_piece(t, ids[i], flags & TOK_UNPARSE_SPECIAL, &piece);
        size_t skip = strip_space && piece.n && piece.data[0] == ' ';
        if (piece.n) buf_add(out, piece.data + skip, piece.n - skip);
    }
    if (t->clean_spaces) clean_spaces(out, from);
    buf_free(&piece);
}

void tok_stream_push(TokStream *s, int id, Buf *out) {
    buf_clear(&s->piece);
    tok_piece(s->tok, id, s->special, &s->piece);
    utf8_gate_push(&s->gate, s->piece.data, s->piece.n, out);
}

void tok_stream_end(TokStream *s, Buf *out) {
    utf8_gate_end(&s->gate, out);
    buf_free(&s->piece);
}
