/* tok_unigram: plain text to the most probable sequence of tokens (SentencePiece's unigram model, "t5").
 *
 * The score of a token is its log-probability.  Of all sequences of tokens that spell the text the one with
 * the highest sum is taken (Viterbi); a character without token scores ten less than the worst token and
 * becomes byte tokens, or where there are none the unknown token, consecutive ones once.  Before that the
 * text is normalised: by the character map of the file, a trie in one array of packed nodes, and its spaces
 * by the flags of the file.
 *
 * The one trick: a position that no token crosses is on every spelling.  The spelling before such a position
 * is settled and its memory used again, so that a long text takes no more memory than a word.  A text without
 * such a position is cut after TOK_RUN_MAX bytes.
 *
 * Sources: Kudo 2018 (unigram), Kanda 2018 (the packed trie). */
#include "tok_impl.h"
#include "../base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double UNKNOWN_PENALTY = 10;

enum { REPLACEMENT_MAX = 256 }; // bytes; Unicode's longest takes 33

struct Unigram {
    const Tok *tok;
    TokList list; // of the tokens that plain text may become
    double unknown_score;
    uint32_t *nodes; // the character map: see replacement_of
    size_t n_nodes;
    char *replacements; // NUL-terminated strings, one behind another
    size_t n_replacements;
};

typedef struct Best { // the best spelling up to a position
    double score;
    uint32_t n; // bytes of its last token
    int32_t id; // -1: unknown
} Best;

/* ---- opening ---- */

static bool are_strings(const char *bytes, size_t n) {
    for (size_t i = 0, length; i < n; i += length + 1)
        if ((length = strnlen(bytes + i, n - i)) == n - i || length > REPLACEMENT_MAX) return false;
    return true;
}

static bool read_map(const Gguf *g, struct Unigram *u, Err *e) {
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    const int64_t *values;
    size_t n;
    if (!gguf_get_ints(g, key, &values, &n, e)) return false;
    if (n == 0) return true;
    char *bytes = mem_new(n, 1);
    for (size_t i = 0; i < n; i++) bytes[i] = (char)values[i];
    uint32_t n_bytes = 0; // of the nodes
    if (n > 4) memcpy(&n_bytes, bytes, 4);
    bool fits =
        n > 4 && n_bytes % 4 == 0 && n_bytes < n - 4 && are_strings(bytes + 4 + n_bytes, n - 4 - n_bytes);
    if (fits) {
        u->n_nodes = n_bytes / 4;
        u->nodes = mem_new(u->n_nodes, 4);
        memcpy(u->nodes, bytes + 4, n_bytes);
        u->n_replacements = n - 4 - n_bytes;
        u->replacements = mem_new(u->n_replacements, 1);
        memcpy(u->replacements, bytes + 4 + n_bytes, u->n_replacements);
    }
    free(bytes);
    return fits || err_set(e, ERR_MODEL, "%.300s: %s is not a character map; the file is damaged",
                           gguf_label(g), key);
}

static void list_tokens(struct Unigram *u) {
    const Tok *t = u->tok;
    double lowest = 0;
    u->list.texts = mem_new((size_t)t->n_vocab, sizeof *u->list.texts);
    for (int id = 0; id < t->n_vocab; id++) {
        const TokEntry *entry = &t->entries[id];
        if (entry->n_plain == 0 || entry->type == TOK_UNDEFINED || !isfinite(entry->score)) continue;
        u->list.texts[u->list.n++] = (TokText){entry->plain, entry->n_plain, id};
        if (entry->type == TOK_NORMAL && entry->score < lowest) lowest = entry->score;
    }
    tok_list_sort(t, &u->list);
    u->unknown_score = lowest - UNKNOWN_PENALTY;
}

bool unigram_open(const Gguf *g, const Tok *t, struct Unigram **out, Err *e) {
    struct Unigram *u = mem_new(1, sizeof *u);
    u->tok = t;
    if (!read_map(g, u, e)) {
        unigram_close(u);
        return false;
    }
    list_tokens(u);
    *out = u;
    return true;
}

void unigram_close(struct Unigram *u) {
    if (!u) return;
    free(u->list.texts);
    free(u->nodes);
    free(u->replacements);
    free(u);
}

/* ---- normalising ---- */

/* A node of the trie: bits 10..30 the base of its children (times 256 if bit 9 is set), bit 8 whether a
 * string ends here, bits 0..7 the byte of the edge to it.  The index of the child by byte c is base ^ c; the
 * replacement, an offset with bit 31 set, is at base.  A damaged map may give any index: beyond the array a
 * node matches no byte. */
static uint32_t node_at(const struct Unigram *u, uint32_t i) {
    return i < u->n_nodes ? u->nodes[i] : 0x80000000;
}

static uint32_t base_of(uint32_t node) {
    return node >> 10 << ((node & 1u << 9) >> 6);
}

/* The replacement of the longest mapped prefix of text; returns the length of the prefix in bytes, 0: none is
 * mapped. */
static size_t replacement_of(const struct Unigram *u, const char *text, size_t n, const char **out) {
    size_t longest = 0;
    uint32_t at = u->n_nodes ? base_of(u->nodes[0]) : 0;
    for (size_t i = 0; u->n_nodes && i < n && text[i]; i++) {
        at ^= (unsigned char)text[i];
        uint32_t node = node_at(u, at);
        if ((node & 0x800000FF) != (unsigned char)text[i]) break;
        at ^= base_of(node);
        if (!(node >> 8 & 1)) continue;
        uint32_t offset = node_at(u, at) & 0x7FFFFFFF;
        if (offset >= u->n_replacements) continue;
        longest = i + 1;
        *out = u->replacements + offset;
    }
    return longest;
}

typedef struct Spaces { // of the normalised text, to which user-defined tokens belong
    bool merge;         // runs of spaces are one, and there are none at the ends
    bool prefix;        // one in front of the text
    bool began;         // there is a character that is not a space
    bool in_word;       // the last character was not a space
} Spaces;

/* Adds the space of a merged run when the word behind it begins. */
static void begin_word(Spaces *s, Buf *out) {
    if (s->merge && !s->in_word && (s->began || s->prefix)) buf_add(out, TOK_SPACE, strlen(TOK_SPACE));
    s->began = s->in_word = true;
}

static void add_normal(Spaces *s, const char *text, size_t n, Buf *out) {
    for (size_t i = 0; i < n; i++) {
        if (text[i] != ' ') {
            begin_word(s, out);
            buf_add(out, text + i, 1);
        } else {
            if (!s->merge) buf_add(out, TOK_SPACE, strlen(TOK_SPACE));
            s->in_word = false;
        }
    }
}

/* was_on, goes_on: a user-defined token is in front of the text, behind it. */
static void normalise(const struct Unigram *u, const char *text, size_t n, bool was_on, bool goes_on,
                      Buf *out) {
    Spaces spaces = {.merge = u->tok->remove_extra_whitespaces,
                     .prefix = u->tok->add_space_prefix,
                     .began = was_on,
                     .in_word = was_on};
    if (spaces.prefix && !spaces.merge && !was_on) buf_add(out, TOK_SPACE, strlen(TOK_SPACE));
    for (size_t i = 0; i < n;) {
        const char *mapped = NULL;
        size_t length = replacement_of(u, text + i, n - i, &mapped);
        uint32_t c;
        if (length) {
            add_normal(&spaces, mapped, strlen(mapped), out);
        } else {
            length = utf8_next(text + i, n - i, &c);
            add_normal(&spaces, text + i, length, out);
        }
        i += length;
    }
    if (goes_on) begin_word(&spaces, out);
}

/* ---- the best spelling ---- */

typedef struct Lattice {
    Best *best; // [n] by bytes behind the settled text
    size_t n, capacity;
} Lattice;

static void relax(Lattice *l, size_t from, size_t n, int id, double score) {
    size_t to = from + n;
    while (l->n <= to) {
        if (l->n == l->capacity) {
            l->capacity = l->capacity ? l->capacity * 2 : 256;
            l->best = mem_resize(l->best, l->capacity * sizeof *l->best);
        }
        l->best[l->n++] = (Best){.score = -INFINITY};
    }
    score += l->best[from].score;
    if (score > l->best[to].score) l->best[to] = (Best){score, (uint32_t)n, id};
}

/* Relaxes every token that is a prefix of text (n bytes), the first character of which has `character`
 * bytes. */
static void relax_tokens(TokJob *job, Lattice *l, size_t from, const char *text, size_t n, size_t character) {
    const struct Unigram *u = job->tok->unigram;
    TokWalk walk = tok_walk(&u->list);
    bool is_known = false;
    for (size_t before = 0; tok_walk_next(&walk, text, n); job->work++) {
        size_t length = walk.found->n;
        const TokEntry *entry = &job->tok->entries[walk.found->id];
        double score = entry->type == TOK_USER_DEFINED ? 0 : entry->score;
        if (length > before) relax(l, from, length, walk.found->id, score); // of equal texts the lowest id
        is_known |= length == character;
        before = length;
    }
    job->work++;
    if (!is_known) relax(l, from, character, -1, u->unknown_score);
}

/* Appends the ids of the best spelling of text, the first n bytes of the lattice, and begins the lattice
 * behind them. */
static void settle(TokJob *job, Lattice *l, const char *text, size_t n) {
    Best token = l->best[n];
    for (size_t at = n; at;) { // turns the lattice: from now on a token is where it begins
        at -= token.n;
        Best before = l->best[at];
        l->best[at] = token;
        token = before;
    }
    for (size_t at = 0; at < n; at += l->best[at].n) {
        if (l->best[at].id < 0)
            tok_spell(job, text + at, l->best[at].n);
        else
            tok_ids_add(job->out, l->best[at].id);
    }
    l->n = 0;
    l->best[l->n++] = (Best){0};
}

void unigram_encode(TokJob *job, const char *text, size_t n, bool goes_on) {
    if (n == 0 && !goes_on) return;
    buf_clear(&job->text);
    normalise(job->tok->unigram, text, n, job->goes_on, goes_on, &job->text);
    text = job->text.data;
    n = job->text.n;
    Lattice l = {.best = mem_new(256, sizeof *l.best), .n = 1, .capacity = 256};
    uint32_t c;
    for (size_t at = 0, settled = 0, length; at < n; at += length) {
        length = utf8_next(text + at, n - at, &c);
        relax_tokens(job, &l, at - settled, text + at, n - at, length);
        size_t next = at + length - settled;
        if (l.n != next + 1 && next < TOK_RUN_MAX) continue;
        settle(job, &l, text + settled, next);
        settled += next;
    }
    free(l.best);
}
