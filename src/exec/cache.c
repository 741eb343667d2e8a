/* cache: see cache.h.
 *
 * The one trick: a state is a page too.  Its table is a ring of checkpoints with pages of its own, so that
 * sharing copies it and truncation finds it by the means that pages of rows have. */
#include "cache.h"
#include "../base/mem.h"
#include "../plan/plan.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { SCRAP = 0, ALIGNMENT = 256 }; // bytes

typedef struct Span { // pages [first, end) of a sequence's table are mapped
    int first, end;
} Span;

typedef struct Group {
    bool is_state;
    int window;      // positions that a row sees; 0: all
    int table_pages; // entries of a sequence's table
    size_t table;    // entries of the tables before the group's
    size_t n_pages;  // the scrap page included
    int32_t *free;   // page ids that no sequence has, the next one last [n_free]
    int n_free;
    int *n_users;    // sequences that have a page [n_pages]
    Span *mapped;    // rows: of each sequence [n_seq]
    int *checkpoint; // state: length behind which each entry is the state, -1: none [n_seq][table_pages]
    Span *changed;   // entries of each sequence's table, for cache_next_change [n_seq]
} Group;

typedef struct PageCopy {
    int group;
    int32_t from, to;
} PageCopy;

struct Cache {
    CacheConfig config;
    CacheLayer *layers;
    bool *owns; // whether the layer has pages of its own [n_layers]
    int n_layers;
    Group *groups; // [n_groups]
    int n_groups;
    int32_t *tables;
    int *length;      // of each sequence [n_seq]
    Span *step;       // positions of the running step, {0, 0}: none [n_seq]
    PageCopy *copies; // to be performed, from number next_copy on and of layers from next_layer on
    int n_copies, next_copy, next_layer;
};

/* ---- layout -------------------------------------------------------------------------------------------- */

static int pages_of(int n_positions) {
    return n_positions / CACHE_PAGE + (n_positions % CACHE_PAGE > 0);
}

/* Pages of a window at most: a step of n_step rows or n_ahead steps, what the first of them sees, and what
 * n_ahead positions before it saw.  n neighbouring positions lie in (n - 2) / CACHE_PAGE + 2 pages at most. */
static int window_pages(const CacheConfig *c, int window) {
    int64_t n = (int64_t)window - 1 + c->n_ahead + (c->n_step > c->n_ahead ? c->n_step : c->n_ahead);
    int64_t pages = (n + CACHE_PAGE - 2) / CACHE_PAGE + 1, all = pages_of(c->n_ctx);
    return (int)(pages < all ? pages : all);
}

/* Pages of all sequences, of which one has `most`.  One that is alone finds its pages. */
static size_t budget_pages(const CacheConfig *c, int most) {
    size_t of_all = (size_t)most * (size_t)c->n_seq;
    if (c->n_positions == 0) return of_all;
    assert(c->n_positions >= c->n_ctx);
    size_t budget = ((size_t)c->n_positions + CACHE_PAGE - 1) / CACHE_PAGE;
    return of_all < budget ? of_all : budget;
}

static Group group_of(const KvLayer *l, const CacheConfig *c) {
    if (l->kind == KV_STATE)
        return (Group){.is_state = true,
                       .table_pages = c->n_ahead + 1,
                       .n_pages = ((size_t)c->n_ahead + 1) * (size_t)c->n_seq + 1};
    int pages = l->window ? window_pages(c, l->window) : pages_of(c->n_ctx);
    return (Group){
        .window = l->window, .table_pages = pages_of(c->n_ctx), .n_pages = budget_pages(c, pages) + 1};
}

/* The group that such layers make, found or appended. */
static int find_group(Group *groups, int *n_groups, const KvLayer *l, const CacheConfig *c) {
    Group wanted = group_of(l, c);
    int g = 0;
    while (g < *n_groups && (groups[g].is_state != wanted.is_state || groups[g].window != wanted.window)) g++;
    if (g < *n_groups) return g;
    if (g > 0) wanted.table = groups[g - 1].table + (size_t)groups[g - 1].table_pages * (size_t)c->n_seq;
    groups[(*n_groups)++] = wanted;
    return g;
}

static size_t aligned(size_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static CacheLayer rows_of(const KvLayer *l, KvType type) {
    CacheLayer r = {.type = type, .n_head = l->n_head, .width = {l->k_width, l->v_width}};
    assert(!l->v_in_k || l->v_width <= l->k_width);
    r.pitch[CACHE_K] = l->k_width;
    r.pitch[CACHE_V] = l->v_in_k ? l->k_width : l->v_width;
    for (int part = CACHE_K; part <= CACHE_V; part++)
        r.head_bytes[part] = CACHE_PAGE * kv_row_bytes(type, r.pitch[part]);
    size_t k_bytes = r.head_bytes[CACHE_K] * (size_t)l->n_head,
           v_bytes = r.head_bytes[CACHE_V] * (size_t)l->n_head;
    r.offset[CACHE_V] = l->v_in_k ? 0 : k_bytes;
    r.page_bytes = aligned(k_bytes + (l->v_in_k ? 0 : v_bytes));
    return r;
}

static void add_need(const KvLayer *l, const CacheConfig *c, const Group *g, size_t page_bytes,
                     CacheNeed *need) {
    need->bytes += g->n_pages * page_bytes;
    if (l->kind == KV_STATE)
        need->state_bytes += (size_t)g->table_pages * page_bytes;
    else if (l->window)
        need->window_bytes += (size_t)window_pages(c, l->window) * page_bytes;
    else
        need->position_bytes += page_bytes / CACHE_PAGE;
}

/* Layers [n_layers] and groups [n_layers at most] of a cache. */
static CacheNeed lay_out(const KvLayer *layers, int n_layers, const CacheConfig *c, CacheLayer *out,
                         Group *groups, int *n_groups) {
    CacheNeed need = {0};
    *n_groups = 0;
    for (int i = 0; i < n_layers; i++) {
        const KvLayer *l = &layers[i];
        if (l->kind == KV_OTHER) {
            assert(l->other < i && layers[l->other].kind == KV_ROWS);
            out[i] = out[l->other];
            continue;
        }
        out[i] =
            l->kind == KV_STATE ? (CacheLayer){.page_bytes = aligned(l->state_bytes)} : rows_of(l, c->type);
        int g = find_group(groups, n_groups, l, c);
        out[i].group = g;
        out[i].window = groups[g].window;
        out[i].table = groups[g].table;
        out[i].table_pages = groups[g].table_pages;
        out[i].base = need.bytes;
        add_need(l, c, &groups[g], out[i].page_bytes, &need);
    }
    for (int g = 0; g < *n_groups; g++) need.n_entries += (size_t)groups[g].table_pages * (size_t)c->n_seq;
    return need;
}

CacheNeed cache_need(const KvLayer *layers, int n_layers, const CacheConfig *c) {
    CacheLayer *out = mem_new((size_t)n_layers, sizeof *out);
    Group *groups = mem_new((size_t)n_layers, sizeof *groups);
    int n_groups;
    CacheNeed need = lay_out(layers, n_layers, c, out, groups, &n_groups);
    free(out);
    free(groups);
    return need;
}

/* ---- life ---------------------------------------------------------------------------------------------- */

static size_t entry_of(const Group *g, int seq, int page) {
    return g->table + (size_t)seq * (size_t)g->table_pages + (size_t)page;
}

static void set_entry(Cache *c, Group *g, int seq, int page, int32_t id) {
    Span *changed = &g->changed[seq];
    c->tables[entry_of(g, seq, page)] = id;
    if (changed->first == changed->end) *changed = (Span){page, page + 1};
    if (page < changed->first) changed->first = page;
    if (page >= changed->end) changed->end = page + 1;
}

static int32_t take_page(Group *g) {
    assert(g->n_free > 0); // reserved, or there are enough for all sequences
    int32_t id = g->free[--g->n_free];
    g->n_users[id] = 1;
    return id;
}

static void open_group(Cache *c, Group *g) {
    size_t n_seq = (size_t)c->config.n_seq;
    assert(g->n_pages <= INT32_MAX);
    g->n_users = mem_new(g->n_pages, sizeof *g->n_users);
    g->free = mem_new(g->n_pages, sizeof *g->free);
    g->mapped = mem_new(n_seq, sizeof *g->mapped);
    g->changed = mem_new(n_seq, sizeof *g->changed);
    for (int32_t id = (int32_t)g->n_pages - 1; id > SCRAP; id--) g->free[g->n_free++] = id;
    if (!g->is_state) return;
    g->checkpoint = mem_new(n_seq * (size_t)g->table_pages, sizeof *g->checkpoint);
    for (int seq = 0; seq < c->config.n_seq; seq++)
        for (int i = 0; i < g->table_pages; i++) {
            g->checkpoint[seq * g->table_pages + i] = -1;
            set_entry(c, g, seq, i, take_page(g));
        }
}

Cache *cache_open(const KvLayer *layers, int n_layers, const CacheConfig *config) {
    Cache *c = mem_new(1, sizeof *c);
    size_t n = (size_t)n_layers, n_seq = (size_t)config->n_seq;
    c->config = *config;
    c->n_layers = n_layers;
    c->layers = mem_new(n, sizeof *c->layers);
    c->owns = mem_new(n, sizeof *c->owns);
    c->groups = mem_new(n, sizeof *c->groups);
    c->length = mem_new(n_seq, sizeof *c->length);
    c->step = mem_new(n_seq, sizeof *c->step);
    CacheNeed need = lay_out(layers, n_layers, config, c->layers, c->groups, &c->n_groups);
    c->tables = mem_new(need.n_entries, sizeof *c->tables);
    for (int i = 0; i < n_layers; i++) c->owns[i] = layers[i].kind != KV_OTHER;
    for (int g = 0; g < c->n_groups; g++) open_group(c, &c->groups[g]);
    return c;
}

void cache_close(Cache *c) {
    if (!c) return;
    for (int i = 0; i < c->n_groups; i++) {
        Group *g = &c->groups[i];
        free(g->free);
        free(g->n_users);
        free(g->mapped);
        free(g->checkpoint);
        free(g->changed);
    }
    free(c->layers);
    free(c->owns);
    free(c->groups);
    free(c->tables);
    free(c->length);
    free(c->step);
    free(c->copies);
    free(c);
}

const CacheLayer *cache_layer(const Cache *c, int layer) {
    assert(layer >= 0 && layer < c->n_layers);
    return &c->layers[layer];
}

const int32_t *cache_tables(const Cache *c) {
    return c->tables;
}

int cache_n_ahead(const Cache *c) {
    return c->config.n_ahead;
}

int cache_length(const Cache *c, int seq) {
    return c->length[seq];
}

/* ---- pages of rows ------------------------------------------------------------------------------------- */

/* The lowest position that the row of a position sees. */
static int lowest_seen(const Group *g, int position) {
    return g->window && position >= g->window ? position - g->window + 1 : 0;
}

static void drop_page(Cache *c, Group *g, int seq, int page) {
    int32_t id = c->tables[entry_of(g, seq, page)];
    assert(id != SCRAP && g->n_users[id] > 0);
    if (--g->n_users[id] == 0) g->free[g->n_free++] = id;
    set_entry(c, g, seq, page, SCRAP);
}

static void drop_first(Cache *c, Group *g, int seq, int end) {
    Span *m = &g->mapped[seq];
    for (; m->first < m->end && m->first < end; m->first++) drop_page(c, g, seq, m->first);
}

static void drop_last(Cache *c, Group *g, int seq, int end) {
    Span *m = &g->mapped[seq];
    for (; m->end > m->first && m->end > end; m->end--) drop_page(c, g, seq, m->end - 1);
}

static void add_copy(Cache *c, const Group *g, int32_t from, int32_t to) {
    c->copies = mem_resize(c->copies, (size_t)(c->n_copies + 1) * sizeof *c->copies);
    c->copies[c->n_copies++] = (PageCopy){(int)(g - c->groups), from, to};
}

/* Makes a page the sequence's alone, before it is written. */
static void own_page(Cache *c, Group *g, int seq, int page) {
    int32_t shared = c->tables[entry_of(g, seq, page)];
    if (g->n_users[shared] == 1) return;
    g->n_users[shared]--;
    int32_t own = take_page(g);
    add_copy(c, g, shared, own);
    set_entry(c, g, seq, page, own);
}

/* Positions that are kept below `first`, where a row comes: as far as it and `earlier` rows before it see. */
static void keep_seen(Cache *c, Group *g, int seq, int first, int earlier) {
    Span *m = &g->mapped[seq];
    drop_first(c, g, seq, lowest_seen(g, first > earlier ? first - earlier : 0) / CACHE_PAGE);
    if (m->first == m->end) m->first = m->end = lowest_seen(g, first) / CACHE_PAGE;
}

static void add_pages(Cache *c, Group *g, int seq, int first, int end) {
    Span *m = &g->mapped[seq];
    if (first / CACHE_PAGE < m->end) own_page(c, g, seq, first / CACHE_PAGE);
    for (; m->end < pages_of(end); m->end++) set_entry(c, g, seq, m->end, take_page(g));
}

/* Pages for positions first..end-1 of a step, and for what the first of them sees.  Pages behind are kept as
 * far as the sequence sees when n_ahead steps, of which this is the latest, are taken back. */
static void extend_rows(Cache *c, Group *g, int seq, int first, int end) {
    keep_seen(c, g, seq, first, c->config.n_ahead > 0 ? c->config.n_ahead - 1 : 0);
    add_pages(c, g, seq, first, end);
}

/* Pages that add_pages takes. */
static int n_missing(const Cache *c, const Group *g, int seq, int first, int end) {
    int page = first / CACHE_PAGE, mapped = g->mapped[seq].end, missing = pages_of(end) - mapped;
    bool is_shared = page < mapped && g->n_users[c->tables[entry_of(g, seq, page)]] > 1;
    return (missing > 0 ? missing : 0) + is_shared;
}

static void share_rows(Cache *c, Group *g, int from, int to, int n) {
    int first = g->mapped[from].first;
    for (int page = first; page < pages_of(n); page++) {
        int32_t id = c->tables[entry_of(g, from, page)];
        g->n_users[id]++;
        set_entry(c, g, to, page, id);
    }
    g->mapped[to] = (Span){first, pages_of(n)};
}

/* ---- states -------------------------------------------------------------------------------------------- */

static int *checkpoint_of(const Group *g, int seq, int n) {
    return &g->checkpoint[seq * g->table_pages + n % g->table_pages];
}

static void cut_state(const Group *g, int seq, int n) {
    for (int i = 0; i < g->table_pages; i++) {
        int *checkpoint = &g->checkpoint[seq * g->table_pages + i];
        if (*checkpoint > n) *checkpoint = -1;
    }
}

static void share_state(Cache *c, Group *g, int from, int to, int n) {
    int entry = n % g->table_pages;
    add_copy(c, g, c->tables[entry_of(g, from, entry)], c->tables[entry_of(g, to, entry)]);
    *checkpoint_of(g, to, n) = n;
}

/* ---- sequences ----------------------------------------------------------------------------------------- */

static void extend(Cache *c, int seq, int first, int end) {
    assert(first >= c->length[seq]); // cache_truncate comes before going back
    for (int i = 0; i < c->n_groups; i++) {
        Group *g = &c->groups[i];
        if (g->is_state)
            *checkpoint_of(g, seq, end) = end;
        else
            extend_rows(c, g, seq, first, end);
    }
    c->length[seq] = end;
}

/* The step may never come: then n_ahead steps before it can still be taken back. */
bool cache_reserve(Cache *c, int seq, int end) {
    int first = c->length[seq];
    bool enough = true;
    if (end <= first) return true;
    for (int i = 0; i < c->n_groups; i++) {
        Group *g = &c->groups[i];
        if (g->is_state) continue;
        keep_seen(c, g, seq, first, c->config.n_ahead);
        enough &= n_missing(c, g, seq, first, end) <= g->n_free;
    }
    for (int i = 0; enough && i < c->n_groups; i++)
        if (!c->groups[i].is_state) add_pages(c, &c->groups[i], seq, first, end);
    return enough;
}

/* The group of layers that keep all positions, or NULL. */
static const Group *full_group(const Cache *c) {
    for (int i = 0; i < c->n_groups; i++)
        if (!c->groups[i].is_state && !c->groups[i].window) return &c->groups[i];
    return NULL;
}

int cache_n_free(const Cache *c) {
    const Group *g = full_group(c);
    return g ? g->n_free : INT_MAX;
}

int cache_n_pages(const Cache *c, int seq) {
    const Group *g = full_group(c);
    return g ? g->mapped[seq].end - g->mapped[seq].first : 0;
}

void cache_step(Cache *c, const int32_t *seq, const int32_t *position, int n_rows) {
    for (int t = 0; t < n_rows; t++) {
        if (seq[t] < 0 || position[t] >= c->config.n_ctx) continue;
        Span *step = &c->step[seq[t]];
        assert(seq[t] < c->config.n_seq && position[t] >= step->end);
        if (step->end == 0) step->first = position[t];
        step->end = position[t] + 1;
    }
    for (int t = 0; t < n_rows; t++) {
        if (seq[t] < 0 || c->step[seq[t]].end == 0) continue;
        extend(c, seq[t], c->step[seq[t]].first, c->step[seq[t]].end);
        c->step[seq[t]] = (Span){0};
    }
}

bool cache_holds(const Cache *c, int seq, int n) {
    assert(n >= 0 && n <= c->length[seq]);
    for (int i = 0; i < c->n_groups && n > 0; i++) {
        const Group *g = &c->groups[i];
        if (g->is_state ? *checkpoint_of(g, seq, n) != n
                        : g->mapped[seq].first > lowest_seen(g, n) / CACHE_PAGE)
            return false;
    }
    return true;
}

bool cache_truncate(Cache *c, int seq, int n) {
    if (!cache_holds(c, seq, n)) return false;
    for (int i = 0; i < c->n_groups; i++) {
        Group *g = &c->groups[i];
        if (g->is_state)
            cut_state(g, seq, n);
        else
            drop_last(c, g, seq, pages_of(n));
    }
    c->length[seq] = n;
    return true;
}

bool cache_share(Cache *c, int from, int to, int n) {
    assert(from != to);
    if (!cache_holds(c, from, n)) return false;
    cache_truncate(c, to, 0);
    for (int i = 0; i < c->n_groups && n > 0; i++) {
        Group *g = &c->groups[i];
        if (g->is_state)
            share_state(c, g, from, to, n);
        else
            share_rows(c, g, from, to, n);
    }
    c->length[to] = n;
    return true;
}

/* ---- what an executor has to do ------------------------------------------------------------------------ */

/* A copy of a page is one of each layer of its group that has pages. */
bool cache_next_copy(Cache *c, CacheCopy *out) {
    for (; c->next_copy < c->n_copies; c->next_copy++, c->next_layer = 0) {
        const PageCopy *copy = &c->copies[c->next_copy];
        while (c->next_layer < c->n_layers) {
            int i = c->next_layer++;
            const CacheLayer *l = &c->layers[i];
            if (!c->owns[i] || l->group != copy->group) continue;
            *out = (CacheCopy){.from = l->base + (size_t)copy->from * l->page_bytes,
                               .to = l->base + (size_t)copy->to * l->page_bytes,
                               .bytes = l->page_bytes};
            return true;
        }
    }
    c->n_copies = c->next_copy = 0;
    return false;
}

bool cache_next_change(Cache *c, CacheChange *out) {
    for (int i = 0; i < c->n_groups; i++)
        for (int seq = 0; seq < c->config.n_seq; seq++) {
            Group *g = &c->groups[i];
            Span *changed = &g->changed[seq];
            if (changed->first == changed->end) continue;
            *out = (CacheChange){entry_of(g, seq, changed->first), changed->end - changed->first};
            *changed = (Span){0};
            return true;
        }
    return false;
}
