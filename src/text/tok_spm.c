/* tok_spm: plain text to pieces, the SentencePiece way.
 *
 * Spaces become U+2581.  Every character is a symbol; again and again the two neighbours whose union is the
 * token with the highest score become one, the leftmost on a tie, until no union is a token.  What is then no
 * token itself is spelled in byte tokens.
 *
 * The one trick: a union can cross the border of two characters only if some token holds these two side by
 * side.  All such pairs of the vocabulary are marked in a set of bits when it is opened, and the text is cut
 * wherever a border is not marked: mostly into words.  (A hash collision in the set can only prevent a cut.)
 * So the heap of unions holds a word and not a book, and stays in the cache; the ids are the same as without
 * cuts. Where no cut is possible one is made after RUN_MAX characters all the same, so that memory stays
 * bounded. */
#include "tok_impl.h"
#include "../base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { SPACE = 0x2581, RUN_MAX = 1 << 20 };
#define SPACE_BYTES "\xE2\x96\x81"

struct Spm {
    const Tok *tok;
    uint64_t *joints; // set of pairs of characters, one bit per hash value
    uint32_t joint_mask;
};

static const uint32_t NONE = UINT32_MAX;

typedef struct Symbol {  // a stretch of the run that is a character or a token
    uint32_t start, n;   // bytes; n = 0: merged into its left neighbour
    uint32_t prev, next; // symbols, or NONE
    int32_t id;          // -1: not looked up
} Symbol;

typedef struct Bigram { // a symbol and its right neighbour, whose union is a token
    float score;
    uint32_t left;
    uint32_t n; // bytes of the union: another number now means that one of the two has changed since
    int32_t id;
} Bigram;

typedef struct Run { // the stretch being encoded
    const Tok *tok;
    Buf bytes;
    Symbol *symbols;
    uint32_t n_symbols, symbol_capacity;
    Bigram *heap; // best first
    size_t n_heap, heap_capacity;
    SpmCount *count;
} Run;

static uint32_t joint_hash(uint32_t left, uint32_t right) {
    uint32_t h = left * 0x9E3779B1u ^ right * 0x85EBCA6Bu;
    return (h ^ h >> 15) * 0x2C1B3C6Du >> 7;
}

static void mark_joints(Spm *s, const TokEntry *entry) {
    uint32_t left = 0, right;
    for (size_t i = 0; i < entry->n; left = right) {
        size_t at = i;
        i += utf8_next(entry->text + i, entry->n - i, &right);
        uint32_t bit = joint_hash(left, right) & s->joint_mask;
        if (at) s->joints[bit / 64] |= 1ull << bit % 64;
    }
}

static bool is_joint(const Spm *s, uint32_t left, uint32_t right) {
    uint32_t bit = joint_hash(left, right) & s->joint_mask;
    return s->joints[bit / 64] >> bit % 64 & 1;
}

Spm *spm_open(const Tok *t) {
    uint32_t n_bits = 1 << 12;
    while (n_bits < 1 << 24 && n_bits / 16 < (uint32_t)t->n_vocab) n_bits *= 2;
    Spm *s = mem_new(1, sizeof *s);
    *s = (Spm){.tok = t, .joints = mem_new(n_bits / 64, sizeof *s->joints), .joint_mask = n_bits - 1};
    for (int id = 0; id < t->n_vocab; id++)
        if (tok_is_plain(&t->entries[id])) mark_joints(s, &t->entries[id]);
    return s;
}

void spm_close(Spm *s) {
    if (!s) return;
    free(s->joints);
    free(s);
}

/* ---- the heap: highest score first, then leftmost ---- */

static bool is_better(const Bigram *a, const Bigram *b) {
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static void heap_push(Run *r, Bigram b) {
    if (r->n_heap == r->heap_capacity) {
        r->heap_capacity = r->heap_capacity ? r->heap_capacity * 2 : 64;
        r->heap = mem_resize(r->heap, r->heap_capacity * sizeof *r->heap);
    }
    size_t i = r->n_heap++;
    for (; i && is_better(&b, &r->heap[(i - 1) / 2]); i = (i - 1) / 2, r->count->work++)
        r->heap[i] = r->heap[(i - 1) / 2];
    r->heap[i] = b;
}

static Bigram heap_pop(Run *r) {
    Bigram top = r->heap[0], last = r->heap[--r->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < r->n_heap; i = child, r->count->work++) {
        if (child + 1 < r->n_heap && is_better(&r->heap[child + 1], &r->heap[child])) child++;
        if (!is_better(&r->heap[child], &last)) break;
        r->heap[i] = r->heap[child];
    }
    r->heap[i] = last;
    return top;
}

/* ---- one run ---- */

static int find(Run *r, uint32_t start, uint32_t n) {
    if (n > r->tok->longest) return -1;
    r->count->work += n;
    return tok_find(r->tok, r->bytes.data + start, n);
}

static void consider(Run *r, uint32_t left, uint32_t right) {
    if (left == NONE || right == NONE) return;
    uint32_t n = r->symbols[left].n + r->symbols[right].n;
    int id = find(r, r->symbols[left].start, n);
    if (id >= 0) heap_push(r, (Bigram){r->tok->entries[id].score, left, n, id});
}

static void merge(Run *r) {
    for (uint32_t i = 1; i < r->n_symbols; i++) consider(r, i - 1, i);
    while (r->n_heap) {
        Bigram b = heap_pop(r);
        Symbol *left = &r->symbols[b.left];
        if (left->n == 0 || left->next == NONE || left->n + r->symbols[left->next].n != b.n) continue;
        r->symbols[left->next].n = 0;
        left->next = r->symbols[left->next].next;
        left->n = b.n;
        left->id = b.id;
        if (left->next != NONE) r->symbols[left->next].prev = b.left;
        consider(r, left->prev, b.left);
        consider(r, b.left, left->next);
    }
}

/* A character that no token spells, as bytes; as one unknown token if one of the bytes has no token. */
static void spell(Run *r, const Symbol *symbol, TokIds *out) {
    const unsigned char *bytes = (const unsigned char *)r->bytes.data + symbol->start;
    bool complete = true;
    for (uint32_t i = 0; i < symbol->n; i++) complete &= r->tok->byte_ids[bytes[i]] >= 0;
    if (complete)
        for (uint32_t i = 0; i < symbol->n; i++) tok_ids_add(out, r->tok->byte_ids[bytes[i]]);
    else if (r->tok->unknown >= 0)
        tok_ids_add(out, r->tok->unknown);
    else
        r->count->n_lost++;
}

static void finish_run(Run *r, TokIds *out) {
    if (r->n_symbols == 0) return;
    r->symbols[r->n_symbols - 1].next = NONE;
    merge(r);
    for (uint32_t i = 0; i != NONE; i = r->symbols[i].next) {
        const Symbol *symbol = &r->symbols[i];
        int id = symbol->id >= 0 ? symbol->id : find(r, symbol->start, symbol->n);
        if (id >= 0)
            tok_ids_add(out, id);
        else
            spell(r, symbol, out);
    }
    r->n_symbols = 0;
    buf_clear(&r->bytes);
}

static void add_symbol(Run *r, const char *bytes, size_t n) {
    if (r->n_symbols == r->symbol_capacity) {
        r->symbol_capacity = r->symbol_capacity ? r->symbol_capacity * 2 : 64;
        r->symbols = mem_resize(r->symbols, r->symbol_capacity * sizeof *r->symbols);
    }
    uint32_t i = r->n_symbols++;
    r->symbols[i] = (Symbol){(uint32_t)r->bytes.n, (uint32_t)n, i ? i - 1 : NONE, i + 1, -1};
    buf_add(&r->bytes, bytes, n);
}

void spm_encode(const Spm *s, const char *text, size_t n, bool space_first, TokIds *out, SpmCount *count) {
    Run run = {.tok = s->tok, .count = count};
    uint32_t left = SPACE, right;
    if (space_first) add_symbol(&run, SPACE_BYTES, strlen(SPACE_BYTES));
    for (size_t i = 0, length; i < n; i += length, left = right) {
        length = utf8_next(text + i, n - i, &right);
        if (right == ' ') right = SPACE;
        if (!is_joint(s, left, right) || run.n_symbols == RUN_MAX) finish_run(&run, out);
        if (right == SPACE)
            add_symbol(&run, SPACE_BYTES, strlen(SPACE_BYTES));
        else
            add_symbol(&run, text + i, length);
    }
    finish_run(&run, out);
    buf_free(&run.bytes);
    free(run.symbols);
    free(run.heap);
}
