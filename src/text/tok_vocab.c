/* tok_vocab: the tokens of a Tok, and finding them by their texts.
 *
 * The texts of a byte-level vocabulary are decoded once into bytes, so that a prompt is compared with them as
 * it is. Two indexes: a table of the texts that plain text may become, which the merging encoders search, and
 * sorted lists, in which a walk over a text narrows a range until the longest match is known, in time
 * independent of the number of texts. */
#include "tok_impl.h"
#include "../base/mem.h"

#include <stdlib.h>
#include <string.h>

/* ---- tokens ---- */

const TokEntry *tok_entry(const Tok *t, int id) {
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
    return tok_entry(t, id)->eog;
}
TokType tok_type(const Tok *t, int id) {
    return tok_entry(t, id)->type;
}
GgufString tok_text(const Tok *t, int id) {
    return (GgufString){tok_entry(t, id)->text, tok_entry(t, id)->n};
}

/* ---- texts ---- */

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int tok_byte_value(const char *text, size_t n) {
    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* The byte of a character in GPT-2's byte-level alphabet, or -1: printable bytes are the characters of
 * Latin-1, the others in their order the characters from U+0100 on. */
static int alphabet_byte(uint32_t c) {
    static const struct {
        uint32_t from, to; // characters
        int byte;          // of the first
    } ranges[] = {{0x21, 0x7E, 0x21},   {0xA1, 0xAC, 0xA1},   {0xAE, 0xFF, 0xAE},
                  {0x100, 0x120, 0x00}, {0x121, 0x142, 0x7F}, {0x143, 0x143, 0xAD}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (c >= ranges[i].from && c <= ranges[i].to) return ranges[i].byte + (int)(c - ranges[i].from);
    return -1;
}

bool tok_decode_bytes(const char *text, size_t n, Buf *out) {
    size_t before = out->n;
    for (size_t i = 0, length; i < n; i += length) {
        uint32_t c;
        length = utf8_next(text + i, n - i, &c);
        int byte = alphabet_byte(c);
        if (byte < 0) {
            out->n = before;
            return false;
        }
        buf_add(out, &(char){(char)byte}, 1);
    }
    return true;
}

static uint32_t text_hash(const char *text, size_t n) { // FNV-1a
    uint64_t h = 0xCBF29CE484222325;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)text[i]) * 0x100000001B3;
    return (uint32_t)(h >> 32 ^ h);
}

static int compare_plain(const void *a, const void *b) { // lengths first: most texts differ in that
    const TokText *x = a, *y = b;
    if (x->n != y->n) return x->n < y->n ? -1 : 1;
    int order = memcmp(x->text, y->text, x->n);
    return order ? order : (x->id > y->id) - (x->id < y->id);
}

int tok_find(const Tok *t, const char *text, size_t n) {
    if (n > t->longest) return -1;
    const TokText key = {text, (uint32_t)n, -1};
    const TokText *found = tok_table_find(&t->plain, text_hash(text, n), &key);
    return found && found->n == n && memcmp(found->text, text, n) == 0 ? found->id : -1;
}

/* ---- sorted lists ---- */

static int compare_texts(const void *a, const void *b) {
    const TokText *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
    if (order == 0) order = (x->n > y->n) - (x->n < y->n);
    return order ? order : (x->id > y->id) - (x->id < y->id);
}

static void drop_repeats(const Tok *t, TokList *list) {
    size_t kept = 0, group = 0; // the texts from group on are equal, and at most as many as there are types
    for (size_t i = 0; i < list->n; i++) {
        const TokText *text = &list->texts[i], *last = kept ? &list->texts[kept - 1] : NULL;
        if (!last || last->n != text->n || memcmp(last->text, text->text, text->n) != 0) group = kept;
        bool repeats = false;
        for (size_t k = group; k < kept; k++)
            repeats |= t->entries[list->texts[k].id].type == t->entries[text->id].type;
        if (!repeats) list->texts[kept++] = *text;
    }
    list->n = kept;
}

void tok_list_sort(const Tok *t, TokList *list) {
    qsort(list->texts, list->n, sizeof *list->texts, compare_texts);
    drop_repeats(t, list);
    for (size_t i = 0; i < list->n; i++) list->first[(unsigned char)list->texts[i].text[0] + 1]++;
    for (int b = 0; b < 256; b++) list->first[b + 1] += list->first[b];
}

/* The first text of [low, high) with a byte of at least `least` at depth. */
static size_t bound(const TokText *texts, size_t low, size_t high, size_t depth, int least) {
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)texts[middle].text[depth] < least)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Leaves the texts whose byte at depth is `byte`; all texts left have one. */
static void narrow(TokWalk *w, unsigned char byte) {
    const TokList *list = w->list;
    if (w->depth == 0) {
        w->low = list->first[byte];
        w->high = list->first[byte + 1];
    } else {
        w->low = bound(list->texts, w->low, w->high, w->depth, byte);
        w->high = bound(list->texts, w->low, w->high, w->depth, byte + 1);
    }
    w->depth++;
}

static size_t common_prefix(const char *a, const char *b, size_t n) {
    size_t i = 0;
    uint64_t x, y;
    for (; i + sizeof x <= n; i += sizeof x) {
        memcpy(&x, a + i, sizeof x);
        memcpy(&y, b + i, sizeof y);
        if (x != y) break;
    }
    while (i < n && a[i] == b[i]) i++;
    return i;
}

bool tok_walk_next(TokWalk *w, const char *text, size_t n) {
    while (w->low < w->high) {
        const TokText *first = &w->list->texts[w->low], *last = &w->list->texts[w->high - 1];
        if (first->n == w->depth) {
            w->found = first;
            w->low++;
            return true;
        }
        if (w->depth == n) return false;
        /* What the first and the last of sorted texts have in common, all between them have. */
        size_t most = (first->n < last->n ? first->n : last->n) - w->depth;
        size_t common = common_prefix(first->text + w->depth, last->text + w->depth, most);
        if (common == 0) {
            narrow(w, (unsigned char)text[w->depth]);
        } else {
            if (n - w->depth < common || memcmp(text + w->depth, first->text + w->depth, common) != 0)
                return false;
            w->depth += common;
        }
    }
    return false;
}

/* ---- indexes ---- */

static bool is_special(const TokEntry *entry) {
    return entry->n > 0 &&
           (entry->type == TOK_CONTROL || entry->type == TOK_UNKNOWN || entry->type == TOK_USER_DEFINED);
}

static void index_specials(Tok *t) {
    t->specials.texts = mem_new((size_t)t->n_vocab, sizeof *t->specials.texts);
    for (int id = 0; id < t->n_vocab; id++) {
        const TokEntry *entry = &t->entries[id];
        if (is_special(entry)) t->specials.texts[t->specials.n++] = (TokText){entry->text, entry->n, id};
    }
    tok_list_sort(t, &t->specials);
}

/* Sets plain and n_plain of all entries. */
static void set_plain(Tok *t) {
    bool byte_level = t->kind == TOK_BPE && !(t->rule->flags & PRETOK_CHARACTERS);
    size_t n_bytes = 0;
    for (int id = 0; id < t->n_vocab; id++) n_bytes += t->entries[id].n;
    if (byte_level) t->bytes = mem_new(n_bytes, 1);
    char *bytes = t->bytes;
    Buf decoded = {0};
    for (int id = 0; id < t->n_vocab; id++) {
        TokEntry *entry = &t->entries[id];
        if (entry->type == TOK_CONTROL || entry->type == TOK_UNKNOWN || entry->type == TOK_BYTE) continue;
        entry->plain = entry->text;
        entry->n_plain = entry->n;
        if (!byte_level) continue;
        buf_clear(&decoded);
        entry->plain = bytes;
        entry->n_plain = 0;
        if (tok_decode_bytes(entry->text, entry->n, &decoded) && decoded.n) {
            entry->n_plain = (uint32_t)decoded.n;
            memcpy(bytes, decoded.data, decoded.n);
            bytes += decoded.n;
        }
    }
    buf_free(&decoded);
}

static void index_bytes(Tok *t) {
    for (int b = 0; b < 256; b++) t->byte_ids[b] = -1;
    for (int id = 0; id < t->n_vocab; id++) {
        const TokEntry *entry = &t->entries[id];
        if (entry->type != TOK_BYTE) continue;
        int byte = tok_byte_value(entry->text, entry->n); // -1: the file changed since it was checked
        if (byte >= 0 && t->byte_ids[byte] < 0) t->byte_ids[byte] = id;
    }
}

static void index_plain(Tok *t) {
    size_t n = 0;
    TokText *texts = mem_new((size_t)t->n_vocab, sizeof *texts);
    uint32_t *hashes = mem_new((size_t)t->n_vocab, sizeof *hashes);
    for (int id = 0; id < t->n_vocab; id++) {
        const TokEntry *entry = &t->entries[id];
        if (entry->n_plain == 0) continue;
        hashes[n] = text_hash(entry->plain, entry->n_plain);
        texts[n++] = (TokText){entry->plain, entry->n_plain, id};
        if (entry->n_plain > t->longest) t->longest = entry->n_plain;
    }
    tok_table_make(&t->plain, texts, n, sizeof *texts, hashes, compare_plain);
    free(hashes);
}

void tok_index(Tok *t) {
    index_specials(t);
    set_plain(t);
    index_bytes(t);
    index_plain(t);
}
