/* tok_merge: the loop of both merging encoders.
 *
 * Of all neighbours that may become one token, the pair with the lowest rank does, the leftmost on a tie,
 * until no pair is left: O(n log n) for n symbols, whatever the vocabulary.
 *
 * The one trick: pairs of one rank are mostly found in order, left to right, so each rank has a queue, and
 * only the first of each queue is in the heap.  The heap of a repetitive text is small: one letter a million
 * times is merged about as fast as a million letters of prose.  A pair found out of order is pushed to the
 * heap itself, which keeps the bound. */
#include "tok_impl.h"
#include "../base/mem.h"

#include <assert.h>
#include <stdlib.h>

typedef struct Pair { // a symbol and its right neighbour
    uint32_t left;
    uint32_t n; // bytes of the union; a different sum later means that one of the two has changed
    int32_t id; // of the union
    uint32_t next : 31;
    uint32_t queued : 1; // in the queue of its rank, whose next pair follows it in the heap
} Pair;

typedef struct Waiting {
    uint64_t key; // rank, left
    uint32_t pair;
} Waiting;

void merger_add(Merger *m, uint32_t start, uint32_t n, int32_t id) {
    if (m->n_symbols == m->symbol_capacity) {
        m->symbol_capacity = m->symbol_capacity ? m->symbol_capacity * 2 : 64;
        m->symbols = mem_resize(m->symbols, m->symbol_capacity * sizeof *m->symbols);
    }
    uint32_t i = m->n_symbols++;
    m->symbols[i] = (Symbol){start, n, i ? i - 1 : NO_SYMBOL, i + 1, id};
}

static void heap_push(TokJob *job, Waiting w) {
    Merger *m = &job->merger;
    if (m->n_heap == m->heap_capacity) {
        m->heap_capacity = m->heap_capacity ? m->heap_capacity * 2 : 64;
        m->heap = mem_resize(m->heap, m->heap_capacity * sizeof *m->heap);
    }
    size_t i = m->n_heap++;
    for (; i && w.key < m->heap[(i - 1) / 2].key; i = (i - 1) / 2, job->work++)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = w;
}

/* Replaces the first entry by w: cheap if w comes early, as the next pair of the same queue mostly does. */
static void heap_replace(TokJob *job, Waiting w) {
    Waiting *heap = job->merger.heap;
    size_t n = job->merger.n_heap, i = 0;
    for (size_t child; (child = 2 * i + 1) < n; i = child, job->work++) {
        if (child + 1 < n && heap[child + 1].key < heap[child].key) child++;
        if (heap[child].key >= w.key) break;
        heap[i] = heap[child];
    }
    heap[i] = w;
}

static void add_pair(TokJob *job, uint32_t rank, uint32_t left, uint32_t n, int32_t id) {
    Merger *m = &job->merger;
    if (m->n_pairs >= m->pair_capacity) {
        m->pair_capacity = m->pair_capacity ? m->pair_capacity * 2 : 64;
        m->pairs = mem_resize(m->pairs, m->pair_capacity * sizeof *m->pairs);
    }
    uint32_t pair = m->n_pairs++, last = m->last[rank];
    bool in_order = last == 0 || m->pairs[last].left < left;
    m->pairs[pair] = (Pair){.left = left, .n = n, .id = id, .queued = in_order};
    if (in_order) m->last[rank] = pair;
    if (in_order && last)
        m->pairs[last].next = pair & INT32_MAX;
    else
        heap_push(job, (Waiting){(uint64_t)rank << 32 | left, pair});
    job->work++;
}

static Pair take_pair(TokJob *job) {
    Merger *m = &job->merger;
    Waiting top = m->heap[0];
    Pair pair = m->pairs[top.pair];
    uint32_t rank = (uint32_t)(top.key >> 32);
    if (pair.queued && pair.next) {
        heap_replace(job, (Waiting){(uint64_t)rank << 32 | m->pairs[pair.next].left, pair.next});
        return pair;
    }
    if (pair.queued) m->last[rank] = 0;
    Waiting end = m->heap[--m->n_heap];
    if (m->n_heap) heap_replace(job, end);
    return pair;
}

static void consider(TokJob *job, uint32_t left, uint32_t right) {
    Merger *m = &job->merger;
    if (left == NO_SYMBOL || right == NO_SYMBOL) return;
    uint32_t rank;
    int id = m->join(job, &m->symbols[left], &m->symbols[right], &rank);
    if (id < 0) return;
    assert(rank < m->n_ranks);
    add_pair(job, rank, left, m->symbols[left].n + m->symbols[right].n, id);
}

void merger_run(TokJob *job) {
    Merger *m = &job->merger;
    assert(m->n_symbols > 0);
    if (!m->last) m->last = mem_new((size_t)m->n_ranks + 1, sizeof *m->last);
    m->n_pairs = 1;
    m->symbols[m->n_symbols - 1].next = NO_SYMBOL;
    for (uint32_t i = 1; i < m->n_symbols; i++) consider(job, i - 1, i);
    while (m->n_heap) {
        Pair pair = take_pair(job);
        Symbol *left = &m->symbols[pair.left];
        if (left->n == 0 || left->next == NO_SYMBOL || left->n + m->symbols[left->next].n != pair.n) continue;
        m->symbols[left->next].n = 0;
        left->next = m->symbols[left->next].next;
        left->n = pair.n;
        left->id = pair.id;
        if (left->next != NO_SYMBOL) m->symbols[left->next].prev = pair.left;
        consider(job, left->prev, pair.left);
        consider(job, pair.left, left->next);
    }
}

static void add_unknown(TokJob *job) {
    TokIds *out = job->out;
    if (job->tok->unknown < 0)
        job->n_lost++;
    else if (job->tok->kind != TOK_UNIGRAM || !job->n_to_unknown || out->n != job->n_to_unknown)
        tok_ids_add(out, job->tok->unknown);
    job->n_to_unknown = out->n;
}

void tok_spell(TokJob *job, const char *bytes, size_t n) {
    const int32_t *ids = job->tok->byte_ids;
    bool complete = true;
    for (size_t i = 0; i < n; i++) complete &= ids[(unsigned char)bytes[i]] >= 0;
    if (!complete) add_unknown(job);
    for (size_t i = 0; complete && i < n; i++) tok_ids_add(job->out, ids[(unsigned char)bytes[i]]);
}

void tok_job_free(TokJob *job) {
    free(job->merger.symbols);
    free(job->merger.pairs);
    free(job->merger.last);
    free(job->merger.heap);
    free(job->words);
    buf_free(&job->text);
}
