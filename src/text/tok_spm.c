/* tok_spm: plain text to tokens by SentencePiece's merging.
 *
 * Spaces become U+2581.  Every character is a symbol; the two neighbours whose union is the token with the
 * highest score become one, the leftmost on a tie, until no union is a token.  A symbol that is not a token
 * then becomes byte tokens.
 *
 * The one trick: a union can contain two neighbouring characters only if some token contains them side by
 * side.  All such pairs of the vocabulary are marked in a set of bits when the vocabulary is opened, and the
 * text is cut between two characters that are not marked: mostly into words.  (A hash collision in the set
 * can only prevent a cut.)  So the merging loop works on a word at a time, in the cache of the processor, and
 * the ids are the same as without cuts.  A text without cuts is cut after TOK_RUN_MAX characters, so that
 * memory is bounded. */
#include "tok_impl.h"
#include "../base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { SPACE = 0x2581 };

struct Spm {
    const Tok *tok;
    uint64_t *joints; // set of pairs of characters, one bit per hash value
    uint32_t joint_mask;
    uint32_t *ranks; // [n_vocab] of the scores, 0 for the highest; equal scores have equal ranks
    uint32_t n_ranks;
};

/* ---- opening ---- */

static uint32_t joint_hash(uint32_t left, uint32_t right) {
    uint32_t h = left * 0x9E3779B1u ^ right * 0x85EBCA6Bu;
    return (h ^ h >> 15) * 0x2C1B3C6Du >> 7;
}

static void mark_joints(struct Spm *s, const TokEntry *entry) {
    uint32_t left = 0, right;
    for (size_t i = 0; i < entry->n_plain; left = right) {
        size_t at = i;
        i += utf8_next(entry->plain + i, entry->n_plain - i, &right);
        uint32_t bit = joint_hash(left, right) & s->joint_mask;
        if (at) s->joints[bit / 64] |= 1ull << bit % 64;
    }
}

static bool is_joint(const struct Spm *s, uint32_t left, uint32_t right) {
    uint32_t bit = joint_hash(left, right) & s->joint_mask;
    return s->joints[bit / 64] >> bit % 64 & 1;
}

typedef struct Scored {
    float score;
    int32_t id;
} Scored;

static int compare_scores(const void *a, const void *b) { // NaN comes last
    float x = ((const Scored *)a)->score, y = ((const Scored *)b)->score;
    return (y > x || (x != x && y == y)) - (x > y || (y != y && x == x));
}

static void rank_scores(struct Spm *s) {
    size_t n = (size_t)s->tok->n_vocab;
    Scored *sorted = mem_new(n, sizeof *sorted);
    for (size_t id = 0; id < n; id++) sorted[id] = (Scored){s->tok->entries[id].score, (int32_t)id};
    qsort(sorted, n, sizeof *sorted, compare_scores);
    s->ranks = mem_new(n, sizeof *s->ranks);
    for (size_t i = 0; i < n; i++) {
        if (i && compare_scores(&sorted[i - 1], &sorted[i])) s->n_ranks++;
        s->ranks[sorted[i].id] = s->n_ranks;
    }
    s->n_ranks++;
    free(sorted);
}

struct Spm *spm_open(const Tok *t) {
    uint32_t n_bits = 1 << 12;
    while (n_bits < 1 << 24 && n_bits / 16 < (uint32_t)t->n_vocab) n_bits *= 2;
    struct Spm *s = mem_new(1, sizeof *s);
    *s = (struct Spm){.tok = t, .joints = mem_new(n_bits / 64, sizeof *s->joints), .joint_mask = n_bits - 1};
    for (int id = 0; id < t->n_vocab; id++) mark_joints(s, &t->entries[id]);
    rank_scores(s);
    return s;
}

void spm_close(struct Spm *s) {
    if (!s) return;
    free(s->joints);
    free(s->ranks);
    free(s);
}

/* ---- one run ---- */

static int find(TokJob *job, uint32_t start, uint32_t n) {
    if (n > job->tok->longest) return -1;
    job->work += n;
    return tok_find(job->tok, job->merger.bytes + start, n);
}

static int join(TokJob *job, const Symbol *left, const Symbol *right, uint32_t *rank) {
    int id = find(job, left->start, left->n + right->n);
    if (id >= 0) *rank = job->tok->spm->ranks[id];
    return id;
}

static void finish_run(TokJob *job) {
    Merger *m = &job->merger;
    if (m->n_symbols == 0) return;
    m->bytes = job->text.data;
    merger_run(job);
    for (uint32_t i = 0; i != NO_SYMBOL; i = m->symbols[i].next) {
        const Symbol *symbol = &m->symbols[i];
        int id = symbol->id >= 0 ? symbol->id : find(job, symbol->start, symbol->n);
        if (id >= 0)
            tok_ids_add(job->out, id);
        else
            tok_spell(job, m->bytes + symbol->start, symbol->n);
    }
    m->n_symbols = 0;
    buf_clear(&job->text);
}

static void add_character(TokJob *job, const char *bytes, size_t n) {
    merger_add(&job->merger, (uint32_t)job->text.n, (uint32_t)n, -1);
    buf_add(&job->text, bytes, n);
}

void spm_encode(TokJob *job, const char *text, size_t n, bool space_first) {
    const struct Spm *s = job->tok->spm;
    job->merger.join = join;
    job->merger.n_ranks = s->n_ranks;
    uint32_t left = SPACE, right;
    if (space_first) add_character(job, TOK_SPACE, strlen(TOK_SPACE));
    for (size_t i = 0, length; i < n; i += length, left = right) {
        length = utf8_next(text + i, n - i, &right);
        if (right == ' ') right = SPACE;
        if (!is_joint(s, left, right) || job->merger.n_symbols == TOK_RUN_MAX) finish_run(job);
        if (right == SPACE)
            add_character(job, TOK_SPACE, strlen(TOK_SPACE));
        else
            add_character(job, text + i, length);
    }
    finish_run(job);
}
