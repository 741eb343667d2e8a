/* cache: what the layers of a model keep of each sequence, in pages, and the one owner of their addresses.
 *
 * A page holds CACHE_PAGE positions of one layer: the heads of K, then the heads of V; of each head the rows
 * of the positions, and behind these, for q8_0, their scales (kv.h):
 *
 *     page   | K, head 0 | head 1 | .. | V, head 0 | head 1 | ..
 *     head   | row of position 0 | 1 | .. | 63 | scales of position 0 | .. | 63
 *
 * Layers that keep the same positions are a group (all layers of full attention; those of one window; those
 * with a state).  A group has one page table per sequence, [position / CACHE_PAGE] -> page id, and an id is
 * the same page number in each layer of the group.  Page 0 of a group is scrap: the id of all positions that
 * have no page, so that every entry of a table is an address that may be read and written.
 *
 *     full attention  pages for all positions of the sequence
 *     window          pages behind the window are freed, so that a sequence costs its window and a page
 *     state           a table of checkpoints: the state behind n positions is page [n % table_pages]
 *     other           the pages of the layer that is read
 *
 * Sequences may share the pages of a common beginning; a page is counted, and copied when one of its
 * sequences is about to write it.
 *
 * The pages may be fewer than all sequences could have at their full length: then cache_reserve, before a step,
 * says whether a sequence gets those that it needs next, and whoever asks makes others give theirs back.
 *
 * The object is bookkeeping on the host, the same for all executors, and moves no bytes.  An executor owns
 * the memory (cache_need) and perhaps a copy of the tables.  Before each step it calls cache_step, performs
 * the copies of pages that cache_next_copy names, and brings its copy of the tables up to date from
 * cache_next_change.
 *
 * Going back may be refused: cache_truncate returns false where pages of a window are freed, or where a
 * state has no checkpoint.  The n_ahead latest positions can always be taken back, if each came in a step
 * of its own. */
#ifndef ZGEN_EXEC_CACHE_H
#define ZGEN_EXEC_CACHE_H

#include "kv.h"

enum { CACHE_PAGE = 64 }; // positions of a page: a multiple of every attention tile

typedef enum CachePart { CACHE_K, CACHE_V } CachePart;

/* Where the pages and tables of one layer lie. */
typedef struct CacheLayer {
    KvType type;
    int n_head;
    int width[2];         // elements of a head's row of K, of V
    int pitch[2];         // elements from one row to the next: more than the width where V is a part of K
    size_t offset[2];     // bytes of a page before K, before V
    size_t head_bytes[2]; // bytes from one head to the next
    size_t page_bytes;
    int window;      // positions that a row sees, its own included; 0: all
    int group;       // layers of one group share page ids
    int table_pages; // entries of a sequence's table
    size_t table;    // entries of the tables before the group's
    size_t base;     // bytes of the memory before page 0
} CacheLayer;

/* A layer together with the memory and the tables of one executor. */
typedef struct CacheView {
    CacheLayer layer;
    uint8_t *memory;
    const int32_t *tables;
} CacheView;

/* The page ids of a sequence, [layer.table_pages]. */
HOST_DEVICE static inline const int32_t *cache_pages(const CacheView *v, int seq) {
    return v->tables + v->layer.table + (size_t)seq * (size_t)v->layer.table_pages;
}

/* The address of a state's page, or of a page of rows as a whole. */
HOST_DEVICE static inline uint8_t *cache_page(const CacheView *v, int32_t page) {
    return v->memory + v->layer.base + (size_t)page * v->layer.page_bytes;
}

/* The rows of one head in a page: element d of position p is number p % CACHE_PAGE * pitch[part] + d. */
HOST_DEVICE static inline KvRows cache_rows(const CacheView *v, int32_t page, CachePart part, int head) {
    const CacheLayer *l = &v->layer;
    uint8_t *cells = cache_page(v, page) + l->offset[part] + (size_t)head * l->head_bytes[part];
    KvRows rows = {cells, (uint16_t *)(void *)(cells + (size_t)CACHE_PAGE * (size_t)l->pitch[part])};
    return rows; // the scales are those of q8_0, whose elements are bytes
}

/* Whether V is the beginning of K's rows. */
HOST_DEVICE static inline bool cache_v_in_k(const CacheLayer *l) {
    return l->offset[CACHE_V] == l->offset[CACHE_K];
}

typedef struct CacheConfig {
    int n_ctx, n_seq;    // positions of a sequence, sequences
    int64_t n_positions; // that all sequences have at once, in pages: n_ctx at least; 0: n_ctx of each
    KvType type;
    int n_step;  // positions that a step adds to a sequence at most
    int n_ahead; // steps of one position that can always be taken back
} CacheConfig;

typedef struct KvLayer KvLayer; // plan.h
typedef struct Cache Cache;

/* The needs of the layers. */
typedef struct CacheNeed {
    size_t bytes, n_entries;          // of memory, in whole pages; of the tables of all sequences
    size_t position_bytes;            // that one more position of one sequence takes
    size_t window_bytes, state_bytes; // of one sequence, whatever its length: in windows, in states
} CacheNeed;
CacheNeed cache_need(const KvLayer *layers, int n_layers, const CacheConfig *config);

Cache *cache_open(const KvLayer *layers, int n_layers, const CacheConfig *config);
void cache_close(Cache *c); // NULL is fine

int cache_n_ahead(const Cache *c); // the configuration's
const CacheLayer *cache_layer(const Cache *c, int layer);
const int32_t *cache_tables(const Cache *c); // [n_entries], for a CacheView

/* Positions that a sequence has. */
int cache_length(const Cache *c, int seq);

/* Gives a sequence the pages for its positions up to `end`, at most n_ctx, n_step or n_ahead of them behind its
 * length: the steps that compute these find their pages.  Going back gives up those that are not used.  false:
 * some kind of layer has too few free pages, and the sequence has those it had.  A sequence that shares no
 * page and is alone always gets its pages. */
bool cache_reserve(Cache *c, int seq, int end);

/* Pages that no sequence has, of the layers that keep all positions; INT_MAX where there are none such. */
int cache_n_free(const Cache *c);

/* Of the same layers: the pages of a sequence. */
int cache_n_pages(const Cache *c, int seq);

/* Prepares a step that computes these rows: position[t] of sequence seq[t], ascending within a sequence, none
 * below the sequence's length; rows of sequence -1 and positions from n_ctx on are left out.  Pages that were
 * not reserved are free.  Afterwards each row has a page of its own sequence alone, and a length is its latest
 * position + 1. */
void cache_step(Cache *c, const int32_t *seq, const int32_t *position, int n_rows);

/* Whether a sequence can be continued behind its first n positions, n <= its length: what cache_truncate and
 * cache_share answer. */
bool cache_holds(const Cache *c, int seq, int n);

/* Leaves a sequence with its first n positions, n <= its length.  false: these cannot be restored, and the
 * sequence is as it was; n = 0 is always granted. */
bool cache_truncate(Cache *c, int seq, int n);

/* Gives sequence `to`, whose positions are lost, the first n positions of sequence `from`, in the same pages.
 * false: as for cache_truncate(from, n), and both are as they were. */
bool cache_share(Cache *c, int from, int to, int n);

/* Bytes of the memory to be copied before the next step, in this order; false: there are no more. */
typedef struct CacheCopy {
    size_t from, to, bytes;
} CacheCopy;
bool cache_next_copy(Cache *c, CacheCopy *out);

/* A range of the tables whose entries have changed since cache_next_change returned them last; false: there
 * are no more.  All entries are 0 at first. */
typedef struct CacheChange {
    size_t first;
    int n;
} CacheChange;
bool cache_next_change(Cache *c, CacheChange *out);

#endif
