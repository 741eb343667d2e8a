/* tok: see tok.h.  This file owns the vocabulary: reading it, special tokens, and decoding.
 *
 * The texts stay where the Gguf has them.  Two indexes are built over them: a hash of the plain ones, which
 * the encoders search, and a sorted list of the special ones, in which one walk over the text's bytes narrows
 * a range until the longest match is known, however many special tokens there are. */
#include "tok_impl.h"
#include "../base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 64 << 10 }; // bytes of a token

/* What models write where they are done.  Files often fail to name these in eot_token_id or eom_token_id, or
 * give them the type of ordinary words; nothing else in a GGUF file tells. */
static const char *const END_TEXTS[] = {
    "<|eot_id|>", // Llama 3, and the next
    "<|eom_id|>",
    "<|im_end|>",      // ChatML: Qwen and many others
    "<|end|>",         // Phi 3, zgen's own stories
    "<|endoftext|>",   // GPT-2 and its heirs
    "<|end_of_text|>", // Granite
    "<end_of_turn>",   // Gemma
    "<turn|>",         // Gemma 4
    "<eos>",
    "<|return|>", // gpt-oss, and the next
    "<|call|>",
    "<|calls|>", // Solar, and the next
    "<|flush|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]", // Kimi K2, and the next
    "[EOS]",
    "<end_of_utterance>",                      // SmolDocling
    "<\uFF5Cend\u2581of\u2581sentence\uFF5C>", // DeepSeek
};

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

/* ---- texts ---- */

static bool text_is(const TokEntry *entry, const char *s) {
    return entry->n == strlen(s) && memcmp(entry->text, s, entry->n) == 0;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte that "<0x00>" to "<0xFF>" stand for, -1 for any other text. */
static int byte_value(const char *text, size_t n) {
    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static uint32_t text_hash(const char *text, size_t n) { // FNV-1a
    uint64_t h = 0xCBF29CE484222325;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)text[i]) * 0x100000001B3;
    return (uint32_t)(h >> 32 ^ h);
}

bool tok_is_plain(const TokEntry *entry) {
    return entry->n > 0 && entry->type != TOK_CONTROL && entry->type != TOK_UNKNOWN &&
           entry->type != TOK_BYTE;
}

static bool is_special(const TokEntry *entry) {
    return entry->n > 0 &&
           (entry->type == TOK_CONTROL || entry->type == TOK_UNKNOWN || entry->type == TOK_USER_DEFINED);
}

/* The slot that holds this text, or the empty one where it would go. */
static TokSlot *slot_of(const Tok *t, const char *text, size_t n, uint32_t hash) {
    for (uint32_t i = hash & t->slot_mask;; i = (i + 1) & t->slot_mask) {
        TokSlot *slot = &t->slots[i];
        if (slot->id < 0) return slot;
        const TokEntry *entry = &t->entries[slot->id];
        if (slot->hash == hash && entry->n == n && memcmp(entry->text, text, n) == 0) return slot;
    }
}

int tok_find(const Tok *t, const char *text, size_t n) {
    return slot_of(t, text, n, text_hash(text, n))->id;
}

/* ---- opening ---- */

static bool check_model(const Gguf *g, Err *e) {
    GgufString model = {0};
    if (!gguf_get_string(g, "tokenizer.ggml.model", &model, e)) return false;
    if (!gguf_has(g, "tokenizer.ggml.model"))
        return err_set(
            e, ERR_MODEL,
            "%.300s has no tokenizer (no tokenizer.ggml.model); info and logits --ids work with it",
            gguf_label(g));
    if (model.n == 5 && memcmp(model.data, "llama", 5) == 0) return true;
    return err_set(e, ERR_MODEL,
                   "tokenizer '%.*s' is not supported yet; info and logits --ids work with this file",
                   (int)(model.n < 60 ? model.n : 60), model.data);
}

static bool check_length(const Gguf *g, const char *key, size_t n, size_t n_tokens, Err *e) {
    if (n == n_tokens || !gguf_has(g, key)) return true;
    return err_set(e, ERR_MODEL, "%.300s: %s has %zu entries for %zu tokens; the file is damaged",
                   gguf_label(g), key, n, n_tokens);
}

static bool read_entry(const Gguf *g, size_t id, GgufString text, int64_t type, TokEntry *out, Err *e) {
    if (text.n > TEXT_MAX)
        return err_set(e, ERR_MODEL, "%.300s: token %zu has a text of %zu bytes; at most %d are read",
                       gguf_label(g), id, text.n, TEXT_MAX);
    if (type < TOK_UNDEFINED || type > TOK_BYTE)
        return err_set(e, ERR_MODEL, "%.300s: token %zu has the type %lld; GGUF knows 0 to %d", gguf_label(g),
                       id, (long long)type, TOK_BYTE);
    if (type == TOK_BYTE && byte_value(text.data, text.n) < 0)
        return err_set(
            e, ERR_MODEL,
            "%.300s: token %zu has the type of a byte but the text '%.*s' instead of <0x00> to <0xFF>",
            gguf_label(g), id, (int)(text.n < 60 ? text.n : 60), text.data);
    *out = (TokEntry){.text = text.data, .n = (uint32_t)text.n, .type = (uint8_t)type};
    return true;
}

static bool read_entries(const Gguf *g, Tok *t, Err *e) {
    const GgufString *texts;
    const float *scores;
    const int64_t *types;
    size_t n, n_scores, n_types;
    if (!gguf_get_strings(g, "tokenizer.ggml.tokens", &texts, &n, e)) return false;
    if (n == 0 || n > INT32_MAX)
        return err_set(
            e, ERR_MODEL,
            "%.300s: tokenizer.ggml.tokens holds %zu tokens; there is no text without a vocabulary",
            gguf_label(g), n);
    if (!gguf_get_floats(g, "tokenizer.ggml.scores", &scores, &n_scores, e) ||
        !gguf_get_ints(g, "tokenizer.ggml.token_type", &types, &n_types, e) ||
        !check_length(g, "tokenizer.ggml.scores", n_scores, n, e) ||
        !check_length(g, "tokenizer.ggml.token_type", n_types, n, e))
        return false;

    t->n_vocab = (int)n;
    t->entries = mem_new(n, sizeof *t->entries);
    for (size_t id = 0; id < n; id++) {
        int64_t guess = byte_value(texts[id].data, texts[id].n) >= 0 ? TOK_BYTE : TOK_NORMAL;
        if (!read_entry(g, id, texts[id], n_types ? types[id] : guess, &t->entries[id], e)) return false;
        if (n_scores) t->entries[id].score = scores[id];
    }
    return true;
}

/* *id holds the default.  An id that the vocabulary does not have counts as none. */
static bool read_id(const Gguf *g, const Tok *t, const char *key, int *id, Err *e) {
    int64_t value = *id;
    if (!gguf_get_int(g, key, INT64_MIN, INT64_MAX, &value, e)) return false;
    bool known = value >= 0 && value < t->n_vocab;
    if (!known && gguf_has(g, key))
        err_warn("%s is %lld, but the vocabulary has %d tokens; going on without it", key, (long long)value,
                 t->n_vocab);
    *id = known ? (int)value : -1;
    return true;
}

static void mark_ends(Tok *t, const int *end_ids, int n_end_ids) {
    bool has_return = false, has_call = false;
    int end = -1;
    for (int id = 0; id < t->n_vocab; id++) {
        TokEntry *entry = &t->entries[id];
        if (entry->type != TOK_CONTROL && entry->type != TOK_USER_DEFINED) continue;
        for (size_t i = 0; i < sizeof END_TEXTS / sizeof *END_TEXTS; i++)
            entry->eog |= text_is(entry, END_TEXTS[i]);
        /* "</s>" ends a text only where the file says so: in some vocabularies it is a tag of HTML.  It is
         * never plain text, nor are the others, or a user's text could end the conversation. */
        if (entry->eog || text_is(entry, "</s>")) entry->type = TOK_CONTROL;
        has_return |= text_is(entry, "<|return|>");
        has_call |= text_is(entry, "<|call|>");
        if (text_is(entry, "<|end|>")) end = id;
    }
    /* With these two, <|end|> ends one of several messages in a turn (the "harmony" format). */
    if (has_return && has_call && end >= 0) t->entries[end].eog = false;
    for (int i = 0; i < n_end_ids; i++)
        if (end_ids[i] >= 0) t->entries[end_ids[i]].eog = true;
}

/* In Phi-3 the white space behind a special token belongs to it.  Only the name of the model tells. */
static bool is_phi3(const Gguf *g, bool *out, Err *e) {
    GgufString name = {0};
    if (!gguf_get_string(g, "general.name", &name, e)) return false;
    for (size_t i = 0; i + 4 <= name.n; i++)
        *out |= strncasecmp(name.data + i, "phi3", 4) == 0 ||
                (i + 5 <= name.n && strncasecmp(name.data + i, "phi-3", 5) == 0);
    return true;
}

static bool read_rules(const Gguf *g, Tok *t, Err *e) {
    int eot = -1, eom = -1;
    t->unknown = 0, t->bos = 1, t->eos = 2;
    t->add_bos = t->add_space_prefix = true;
    if (!read_id(g, t, "tokenizer.ggml.bos_token_id", &t->bos, e) ||
        !read_id(g, t, "tokenizer.ggml.eos_token_id", &t->eos, e) ||
        !read_id(g, t, "tokenizer.ggml.unknown_token_id", &t->unknown, e) ||
        !read_id(g, t, "tokenizer.ggml.eot_token_id", &eot, e) ||
        !read_id(g, t, "tokenizer.ggml.eom_token_id", &eom, e) ||
        !gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &t->add_bos, e) ||
        !gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &t->add_eos, e) ||
        !gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &t->add_space_prefix, e) ||
        !is_phi3(g, &t->strip_after_special, e))
        return false;
    mark_ends(t, (int[]){t->eos, eot, eom}, 3);
    return true;
}

static int compare_specials(const void *a, const void *b) {
    const TokSpecial *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
    if (order == 0) order = (x->n > y->n) - (x->n < y->n);
    return order ? order : (x->id > y->id) - (x->id < y->id);
}

static void index_specials(Tok *t) {
    t->specials = mem_new((size_t)t->n_vocab, sizeof *t->specials);
    for (int id = 0; id < t->n_vocab; id++) {
        const TokEntry *entry = &t->entries[id];
        if (!is_special(entry)) continue;
        t->specials[t->n_specials++] = (TokSpecial){entry->text, entry->n, id};
        t->begins_special[(unsigned char)entry->text[0]] = true;
    }
    qsort(t->specials, t->n_specials, sizeof *t->specials, compare_specials);
}

static void index_texts(Tok *t) {
    uint64_t n_slots = 64;
    while (n_slots < 2 * (uint64_t)t->n_vocab) n_slots *= 2;
    t->slot_mask = (uint32_t)(n_slots - 1);
    t->slots = mem_new(n_slots, sizeof *t->slots);
    for (uint64_t i = 0; i < n_slots; i++) t->slots[i].id = -1;
    for (int b = 0; b < 256; b++) t->byte_ids[b] = -1;

    for (int id = 0; id < t->n_vocab; id++) {
        const TokEntry *entry = &t->entries[id];
        if (entry->type == TOK_BYTE) {
            int byte = byte_value(entry->text, entry->n); // -1: the file changed since it was checked
            if (byte >= 0 && t->byte_ids[byte] < 0) t->byte_ids[byte] = id;
        }
        if (!tok_is_plain(entry)) continue;
        uint32_t hash = text_hash(entry->text, entry->n);
        TokSlot *slot = slot_of(t, entry->text, entry->n, hash);
        if (slot->id < 0) *slot = (TokSlot){hash, id};
        if (entry->n > t->longest) t->longest = entry->n;
    }
}

bool tok_open(const Gguf *g, Tok **out, Err *e) {
    if (!check_model(g, e)) return false;
    Tok *t = mem_new(1, sizeof *t);
    if (!read_entries(g, t, e) || !read_rules(g, t, e)) {
        tok_close(t);
        return false;
    }
    index_specials(t);
    index_texts(t);
    t->spm = spm_open(t);
    *out = t;
    return true;
}

void tok_close(Tok *t) {
    if (!t) return;
    spm_close(t->spm);
    free(t->slots);
    free(t->specials);
    free(t->entries);
    free(t);
}

/* ---- asking ---- */

static const TokEntry *entry_of(const Tok *t, int id) {
    static const TokEntry none = {.text = "", .type = TOK_UNDEFINED};
    return id >= 0 && id < t->n_vocab ? &t->entries[id] : &none;
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

/* The first special in [low, high), all of which share depth bytes, with a byte there of at least least. */
static size_t bound(const TokSpecial *specials, size_t low, size_t high, size_t depth, int least) {
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)specials[middle].text[depth] < least)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The special token with the longest text that s (n bytes) begins with, or -1.  Without parse, only
 * user-defined ones, which are part of the language. */
static int special_at(const Tok *t, const char *s, size_t n, bool parse) {
    if (n == 0 || !t->begins_special[(unsigned char)s[0]]) return -1;
    size_t low = 0, high = t->n_specials;
    int best = -1;
    for (size_t depth = 0;; depth++) {
        bool is_new = true; // among equal texts the lowest id comes first
        for (; low < high && t->specials[low].n == depth; low++)
            if (is_new && (parse || t->entries[t->specials[low].id].type == TOK_USER_DEFINED))
                best = t->specials[low].id, is_new = false;
        if (low == high || depth == n) return best;
        int byte = (unsigned char)s[depth];
        low = bound(t->specials, low, high, depth, byte);
        high = bound(t->specials, low, high, depth, byte + 1);
    }
}

static bool takes_space_behind(const Tok *t, int id) {
    const TokEntry *entry = &t->entries[id];
    return t->strip_after_special && !text_is(entry, "<unk>") && !text_is(entry, "<s>") &&
           !text_is(entry, "<|endoftext|>");
}

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void encode_valid(const Tok *t, const char *text, size_t n, bool parse, TokIds *out) {
    SpmCount count = {0};
    size_t from = 0; // where the plain text begins that is not encoded yet
    bool space_first = t->add_space_prefix;
    for (size_t at = 0; at < n;) {
        int id = special_at(t, text + at, n - at, parse);
        if (id < 0) {
            at++;
            continue;
        }
        if (at > from) spm_encode(t->spm, text + from, at - from, space_first, out, &count);
        tok_ids_add(out, id);
        at += t->entries[id].n;
        while (takes_space_behind(t, id) && at < n && is_space(text[at])) at++;
        from = at;
        space_first = t->add_space_prefix;
    }
    if (n > from) spm_encode(t->spm, text + from, n - from, space_first, out, &count);
    if (count.n_lost)
        err_warn("%zu characters of the text are not in the model's vocabulary and were left out",
                 count.n_lost);
}

void tok_encode(const Tok *t, const char *text, size_t n, int flags, TokIds *out) {
    bool parse = flags & TOK_PARSE_SPECIAL;
    Utf8Gate gate = {0};
    Buf repaired = {0};
    if (!utf8_is_valid(text, n)) {
        utf8_gate_push(&gate, text, n, &repaired);
        utf8_gate_end(&gate, &repaired);
        err_warn("the text is not UTF-8 in %zu places; each became U+FFFD", gate.n_replaced);
        text = repaired.data, n = repaired.n;
    }
    bool has_bos = t->bos >= 0 && special_at(t, text, n, parse) == t->bos;
    if (flags & TOK_ADD_SPECIAL && tok_adds_bos(t) && !has_bos) tok_ids_add(out, t->bos);
    encode_valid(t, text, n, parse, out);
    if (flags & TOK_ADD_SPECIAL && t->add_eos && t->eos >= 0) tok_ids_add(out, t->eos);
    buf_free(&repaired);
}

/* ---- decoding ---- */

static void add_unescaped(const char *text, size_t n, Buf *out) {
    static const char space[] = "\xE2\x96\x81"; // U+2581
    while (n) {
        const char *hit = memmem(text, n, space, 3);
        size_t before = hit ? (size_t)(hit - text) : n;
        buf_add(out, text, before);
        if (!hit) return;
        buf_add(out, " ", 1);
        text += before + 3, n -= before + 3;
    }
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
        add_unescaped(entry->text, entry->n, out);
        return;
    case TOK_BYTE:
        buf_add(out, &(char){(char)byte_value(entry->text, entry->n)}, 1);
        return;
    }
}

void tok_decode(const Tok *t, const int32_t *ids, size_t n, int flags, Buf *out) {
    bool strip_space = t->add_space_prefix;
    if (flags & TOK_REMOVE_SPECIAL) {
        if (t->add_bos && n && ids[0] == t->bos) ids++, n--, strip_space = false;
        if (t->add_eos && n && ids[n - 1] == t->eos) n--;
    }
    Buf piece = {0};
    for (size_t i = 0; i < n; i++, strip_space = false) {
        buf_clear(&piece);
        tok_piece(t, ids[i], flags & TOK_UNPARSE_SPECIAL, &piece);
        size_t skip = strip_space && piece.n && piece.data[0] == ' ';
        buf_add(out, piece.data + skip, piece.n - skip);
    }
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
