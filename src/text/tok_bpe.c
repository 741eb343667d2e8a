/* tok_bpe: plain text to tokens by merging byte pairs.
 *
 * The text is composed where the maker of the vocabulary does that, and the pre-tokenizer cuts it into words.
 * In each word every byte is a symbol; the two neighbours that come first in the file's list of merges become
 * one, the leftmost on a tie, until no merge applies.  Some vocabularies (Gemma 4) merge characters instead,
 * with U+2581 for a space; a character without token becomes byte tokens.
 *
 * The one trick: text repeats its words, so a small cache holds the ids of recent words, and most words of a
 * long text never reach the merging loop.
 *
 * A merge whose halves or whole are not tokens cannot apply in a trained vocabulary; such merges are ignored,
 * with one warning and their number. */
#include "nfc.h"
#include "tok_impl.h"
#include "../base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { WORD_BYTES = 24, WORD_IDS = 6, N_WORDS = 4096 };

typedef struct TokWord {
    char text[WORD_BYTES]; // zeros behind
    uint8_t n, n_ids;      // bytes; 0: empty
    int32_t ids[WORD_IDS];
} TokWord;

typedef struct Merge {
    int32_t left, right;
    uint32_t rank; // of equal pairs the first counts
    int32_t id;    // of the union
} Merge;

struct Bpe {
    const Tok *tok;
    Pretok *pretok;
    TokTable merges;
    uint32_t n_merges;
    int32_t byte_tokens[256]; // the tokens of single bytes; -1: none
};

/* ---- the merges of the file ---- */

static uint32_t pair_hash(int32_t left, int32_t right) {
    return (uint32_t)((((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15) >> 32);
}

static int compare_merges(const void *a, const void *b) {
    const Merge *x = a, *y = b;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    if (x->right != y->right) return x->right < y->right ? -1 : 1;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

static const Merge *find_merge(const struct Bpe *b, int32_t left, int32_t right) {
    const Merge key = {.left = left, .right = right};
    const Merge *found = tok_table_find(&b->merges, pair_hash(left, right), &key);
    return found && found->left == left && found->right == right ? found : NULL;
}

static int find_half(const Tok *t, const char *text, size_t n, Buf *plain) {
    if (!t->bytes) return tok_find(t, text, n);
    buf_clear(plain);
    return tok_decode_bytes(text, n, plain) && plain->n ? tok_find(t, plain->data, plain->n) : -1;
}

/* The merge of a line, "left right"; false: not of two tokens into a third.  A half has no space but perhaps
 * as its first character. */
static bool read_merge(const struct Bpe *b, GgufString line, Buf *plain, Merge *out) {
    const char *space = line.n > 1 ? memchr(line.data + 1, ' ', line.n - 1) : NULL;
    if (!space) return false;
    size_t n_left = (size_t)(space - line.data);
    int left = find_half(b->tok, line.data, n_left, plain);
    int right = find_half(b->tok, space + 1, line.n - n_left - 1, plain);
    if (left < 0 || right < 0) return false;
    const TokEntry *l = &b->tok->entries[left], *r = &b->tok->entries[right];
    buf_clear(plain);
    buf_add(plain, l->plain, l->n_plain);
    buf_add(plain, r->plain, r->n_plain);
    int id = tok_find(b->tok, plain->data, plain->n);
    if (id < 0) return false;
    *out = (Merge){.left = left, .right = right, .rank = b->n_merges, .id = id};
    return true;
}

static bool read_merges(const Gguf *g, struct Bpe *b, Err *e) {
    const GgufString *lines;
    size_t n, n_ignored = 0;
    if (!gguf_get_strings(g, "tokenizer.ggml.merges", &lines, &n, e)) return false;
    if (!gguf_has(g, "tokenizer.ggml.merges"))
        return err_set(e, ERR_MODEL,
                       "%.300s has a tokenizer of byte pairs but no list of merges (tokenizer.ggml.merges)",
                       gguf_label(g));
    if (n > INT32_MAX)
        return err_set(e, ERR_MODEL, "%.300s: tokenizer.ggml.merges holds %zu merges; at most %d are read",
                       gguf_label(g), n, INT32_MAX);
    Merge *merges = mem_new(n ? n : 1, sizeof *merges);
    uint32_t *hashes = mem_new(n ? n : 1, sizeof *hashes);
    Buf plain = {0};
    for (size_t i = 0; i < n; i++) {
        Merge *m = &merges[b->n_merges];
        if (read_merge(b, lines[i], &plain, m))
            hashes[b->n_merges++] = pair_hash(m->left, m->right);
        else
            n_ignored++;
    }
    buf_free(&plain);
    tok_table_make(&b->merges, merges, b->n_merges, sizeof *merges, hashes, compare_merges);
    free(hashes);
    if (n_ignored)
        err_warn(
            "%zu of %zu merges (tokenizer.ggml.merges) do not join two tokens into a third and are ignored",
            n_ignored, n);
    return true;
}

bool bpe_open(const Gguf *g, const Tok *t, struct Bpe **out, Err *e) {
    struct Bpe *b = mem_new(1, sizeof *b);
    b->tok = t;
    if (!read_merges(g, b, e)) {
        bpe_close(b);
        return false;
    }
    for (int byte = 0; byte < 256; byte++) b->byte_tokens[byte] = tok_find(t, &(char){(char)byte}, 1);
    b->pretok = pretok_open(t->rule);
    *out = b;
    return true;
}

void bpe_close(struct Bpe *b) {
    if (!b) return;
    pretok_close(b->pretok);
    tok_table_free(&b->merges);
    free(b);
}

/* ---- one word ---- */

static int join(TokJob *job, const Symbol *left, const Symbol *right, uint32_t *rank) {
    if (left->id < 0 || right->id < 0) return -1;
    const Merge *m = find_merge(job->tok->bpe, left->id, right->id);
    if (!m) return -1;
    *rank = m->rank;
    return m->id;
}

static void finish_run(TokJob *job, const char *bytes) {
    Merger *m = &job->merger;
    if (m->n_symbols == 0) return;
    merger_run(job);
    for (uint32_t i = 0; i != NO_SYMBOL; i = m->symbols[i].next) {
        const Symbol *symbol = &m->symbols[i];
        if (symbol->id >= 0)
            tok_ids_add(job->out, symbol->id);
        else
            tok_spell(job, bytes + symbol->start, symbol->n);
    }
    m->n_symbols = 0;
}

static void merge_word(TokJob *job, const char *word, size_t n) {
    const Tok *t = job->tok;
    for (size_t i = 0, length = 1, from = 0; i < n; i += length) {
        uint32_t c;
        int id;
        if (t->bytes) {
            id = t->bpe->byte_tokens[(unsigned char)word[i]];
        } else {
            length = utf8_next(word + i, n - i, &c);
            id = tok_find(t, word + i, length);
        }
        merger_add(&job->merger, (uint32_t)(i - from), (uint32_t)length, id);
        if (job->merger.n_symbols == TOK_RUN_MAX || i + length == n) {
            finish_run(job, word + from);
            from = i + length;
        }
    }
}

static bool is_taken_whole(const Tok *t, const char *word, size_t n) {
    if (t->rule->flags & PRETOK_WHOLE_WORDS) return true;
    return t->rule->flags & PRETOK_WHOLE_NEWLINES && word[0] == '\n' && memcmp(word, word + 1, n - 1) == 0;
}

static void encode_word(TokJob *job, const char *word, size_t n) {
    job->work += n;
    int id = is_taken_whole(job->tok, word, n) ? tok_find(job->tok, word, n) : -1;
    if (id >= 0)
        tok_ids_add(job->out, id);
    else
        merge_word(job, word, n);
}

/* ---- the cache of words ---- */

static TokWord *cached(TokJob *job, const char *word, size_t n, char key[WORD_BYTES]) {
    uint64_t part[WORD_BYTES / 8];
    memset(key, 0, WORD_BYTES);
    memcpy(key, word, n);
    memcpy(part, key, WORD_BYTES);
    uint64_t h =
        (part[0] ^ (part[1] << 29 | part[1] >> 35) ^ (part[2] << 47 | part[2] >> 17)) * 0x9E3779B97F4A7C15;
    return &job->words[h >> 52];
}

static void remember(TokWord *entry, const char key[WORD_BYTES], size_t n, const int32_t *ids, size_t n_ids) {
    entry->n = (uint8_t)n;
    entry->n_ids = (uint8_t)n_ids;
    memcpy(entry->text, key, WORD_BYTES);
    memcpy(entry->ids, ids, n_ids * sizeof *ids);
}

static void take_word(void *context, const char *word, size_t n) {
    static_assert(N_WORDS == 1 << (64 - 52), "the upper bits of the hash are the index");
    TokJob *job = context;
    if (n > WORD_BYTES) {
        encode_word(job, word, n);
        return;
    }
    char key[WORD_BYTES];
    TokWord *entry = cached(job, word, n, key);
    if (entry->n == n && memcmp(entry->text, key, WORD_BYTES) == 0) {
        for (int i = 0; i < entry->n_ids; i++) tok_ids_add(job->out, entry->ids[i]);
        return;
    }
    size_t from = job->out->n, n_lost = job->n_lost;
    encode_word(job, word, n);
    size_t n_ids = job->out->n - from;
    if (n_ids <= WORD_IDS && job->n_lost == n_lost) remember(entry, key, n, job->out->data + from, n_ids);
}

void bpe_encode(TokJob *job, const char *text, size_t n) {
    const struct Bpe *b = job->tok->bpe;
    job->merger.join = join;
    job->merger.n_ranks = b->n_merges;
    if (!job->words) job->words = mem_new(N_WORDS, sizeof *job->words);
    if (job->tok->rule->flags & PRETOK_COMPOSE && nfc_compose(text, n, &job->text)) {
        text = job->text.data;
        n = job->text.n;
    }
    if (job->tok->bytes) {
        pretok_split(b->pretok, text, n, take_word, job);
        return;
    }
    buf_clear(&job->text);
    for (size_t i = 0, word; i < n; i += word + 1) { // the stretch with U+2581 for spaces
        const char *space = memchr(text + i, ' ', n - i);
        word = space ? (size_t)(space - text) - i : n - i;
        buf_add(&job->text, text + i, word);
        if (space) buf_add(&job->text, TOK_SPACE, strlen(TOK_SPACE));
    }
    pretok_split(b->pretok, job->text.data, job->text.n, take_word, job);
}
