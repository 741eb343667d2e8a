/* test_cache: the cache as an object: addresses, pages given back, shared, copied on write, windows, states.
 *
 * Most tests keep a memory and a copy of the tables as an executor does, write what each position must hold,
 * and read it again through cache_rows: whatever the object decides, a sequence must find its own rows. */
#include "../../src/base/mem.h"
#include "../../src/exec/cache.h"
#include "../../src/plan/plan.h"
#include "check.h"

#include <stdlib.h>
#include <string.h>

/* ---- addresses ----------------------------------------------------------------------------------------- */

/* Every element and scale of every page has bytes of its own, inside the memory. */
static void check_addresses(KvType type) {
    static const KvLayer layers[] = {
        {.kind = KV_ROWS, .n_head = 2, .k_width = 64, .v_width = 64},
        {.kind = KV_ROWS, .n_head = 3, .k_width = 96, .v_width = 32},
        {.kind = KV_STATE, .state_bytes = 1000},
        {.kind = KV_ROWS, .n_head = 1, .k_width = 64, .v_width = 32, .v_in_k = true},
        {.kind = KV_OTHER, .other = 1},
        {.kind = KV_ROWS, .n_head = 1, .k_width = 32, .v_width = 32, .window = 8},
    };
    CacheConfig config = {.n_ctx = 200, .n_seq = 2, .type = type, .n_step = 16, .n_ahead = 2};
    Cache *c = cache_open(layers, 6, &config);
    CacheNeed need = cache_need(layers, 6, &config);
    size_t n = need.bytes, n_scales = type == KV_Q8_0 ? 1 : 0, used = 0;
    uint8_t *memory = mem_new(n, 1);
    static const int n_pages[] = {9, 9, 7, 9, 0, 5}; // with the scrap page
    for (int i = 0; i < 6; i++) {
        CacheView v = {*cache_layer(c, i), memory, cache_tables(c)};
        const CacheLayer *l = &v.layer;
        for (int page = 0; page < n_pages[i]; page++)
            for (int part = CACHE_K; layers[i].kind == KV_ROWS && part <= CACHE_V; part++)
                for (int h = 0; h < l->n_head && !(part == CACHE_V && layers[i].v_in_k); h++) {
                    KvRows rows = cache_rows(&v, page, (CachePart)part, h);
                    size_t cells = kv_row_bytes(type, l->width[part]), at = (size_t)(rows.cells - memory);
                    size_t scales = n_scales * (size_t)l->width[part] / KV_SCALED * 2;
                    CHECK(l->pitch[part] == l->width[part] && at + cells * CACHE_PAGE <= n);
                    CHECK(!scales || (uint8_t *)rows.scales == rows.cells + (cells - scales) * CACHE_PAGE);
                    for (size_t k = 0; k < cells * CACHE_PAGE && at + k < n; k++)
                        used += memory[at + k]++ == 0;
                }
        for (int page = 0; layers[i].kind == KV_STATE && page < n_pages[i]; page++)
            for (size_t k = 0; k < 1000; k++) used += cache_page(&v, page)[k]++ == 0;
    }
    for (size_t i = 0; i < n; i++) CHECK(memory[i] <= 1, "%s: byte %zu is used twice", kv_type_name(type), i);
    size_t state = 7 * 24, row = kv_row_bytes(type, 32) * CACHE_PAGE; // 1000 bytes are 1024; 32 elements
    CHECK(used + state == n, "%s: %zu of %zu bytes are used", kv_type_name(type), used, n);
    CHECK(n == row * (9 * (8 + 12 + 2) + 5 * 2) + 7 * 1024, "%s: %zu bytes", kv_type_name(type), n);
    CHECK(need.position_bytes * CACHE_PAGE == row * (8 + 12 + 2));
    CHECK(need.window_bytes == row * 2 * 2 && need.state_bytes == 3 * 1024);
    CacheView k = {*cache_layer(c, 3), memory, NULL}, other = {*cache_layer(c, 4), memory, NULL},
              same = {*cache_layer(c, 1), memory, NULL};
    CHECK(cache_v_in_k(&k.layer) && !cache_v_in_k(&other.layer));
    CHECK(cache_rows(&k, 3, CACHE_V, 0).cells == cache_rows(&k, 3, CACHE_K, 0).cells);
    CHECK(k.layer.pitch[CACHE_V] == 64 && k.layer.width[CACHE_V] == 32);
    CHECK(cache_rows(&other, 3, CACHE_V, 2).cells == cache_rows(&same, 3, CACHE_V, 2).cells);
    cache_close(c);
    free(memory);
}

TEST(cache_addresses) {
    for (int type = 0; type < KV_N_TYPES; type++) check_addresses((KvType)type);
}

/* ---- an executor --------------------------------------------------------------------------------------- */

/* Layers whose rows hold one number for each position, in 8 bytes. */
enum {
    FULL,
    WINDOW,
    STATE,
    OTHER,
    N_LAYERS,
    WINDOW_SIZE = 100,
    N_CTX = 1000,
    N_SEQ = 4,
    AHEAD = 3,
    STEP = 130
};

static const KvLayer layers[N_LAYERS] = {
    [FULL] = {.kind = KV_ROWS, .n_head = 2, .k_width = 2, .v_width = 2},
    [WINDOW] = {.kind = KV_ROWS, .n_head = 1, .k_width = 2, .v_width = 2, .window = WINDOW_SIZE},
    [STATE] = {.kind = KV_STATE, .state_bytes = sizeof(uint64_t)},
    [OTHER] = {.kind = KV_OTHER, .other = FULL},
};

typedef struct Rig {
    Cache *cache;
    int n_layers; // the first of the table
    uint8_t *memory;
    int32_t *tables;
    size_t n_entries, n_copied;                             // pages of layers
    uint64_t number[N_SEQ][N_CTX], state[N_SEQ][N_CTX + 1]; // that each position, each length must have
    uint64_t next;
} Rig;

/* n_positions: of all sequences, see CacheConfig. */
static Rig *rig_with(int n_layers, int n_positions) {
    CacheConfig config = {.n_ctx = N_CTX,
                          .n_seq = N_SEQ,
                          .n_positions = n_positions,
                          .type = KV_F32,
                          .n_step = STEP,
                          .n_ahead = AHEAD};
    Rig *r = mem_new(1, sizeof *r);
    CacheNeed need = cache_need(layers, n_layers, &config);
    r->cache = cache_open(layers, n_layers, &config);
    r->n_layers = n_layers;
    r->memory = mem_new(need.bytes, 1);
    r->tables = mem_new(need.n_entries, sizeof *r->tables);
    r->n_entries = need.n_entries;
    return r;
}

static Rig *rig_new(int n_layers) {
    return rig_with(n_layers, 0);
}

static void rig_free(Rig *r) {
    cache_close(r->cache);
    free(r->memory);
    free(r->tables);
    free(r);
}

static CacheView view(const Rig *r, int layer) {
    return (CacheView){*cache_layer(r->cache, layer), r->memory, r->tables};
}

static uint8_t *row(const Rig *r, int layer, CachePart part, int head, int seq, int position) {
    CacheView v = view(r, layer);
    KvRows rows = cache_rows(&v, cache_pages(&v, seq)[position / CACHE_PAGE], part, head);
    return rows.cells + position % CACHE_PAGE * 2 * (int)sizeof(float);
}

static uint8_t *state(const Rig *r, int seq, int n) {
    CacheView v = view(r, STATE);
    return cache_page(&v, cache_pages(&v, seq)[n % v.layer.table_pages]);
}

static int32_t page_of(const Rig *r, int layer, int seq, int position) {
    CacheView v = view(r, layer);
    return cache_pages(&v, seq)[position / CACHE_PAGE];
}

/* The work of an executor before a step. */
static void perform(Rig *r) {
    for (CacheCopy copy; cache_next_copy(r->cache, &copy); r->n_copied++)
        memcpy(r->memory + copy.to, r->memory + copy.from, copy.bytes);
    for (CacheChange change; cache_next_change(r->cache, &change);)
        memcpy(r->tables + change.first, cache_tables(r->cache) + change.first,
               (size_t)change.n * sizeof *r->tables);
    CHECK(memcmp(r->tables, cache_tables(r->cache), r->n_entries * sizeof *r->tables) == 0);
}

/* A step of n rows of one sequence. */
static void step(Rig *r, int seq, int n) {
    int32_t seqs[STEP], positions[STEP];
    int first = cache_length(r->cache, seq);
    for (int t = 0; t < n; t++) {
        seqs[t] = seq;
        positions[t] = first + t;
    }
    cache_step(r->cache, seqs, positions, n);
    perform(r);
    CHECK(cache_length(r->cache, seq) == first + n);
    for (int position = first; position < first + n; position++) {
        r->number[seq][position] = ++r->next;
        for (int layer = FULL; layer <= WINDOW && layer < r->n_layers; layer++)
            for (int part = CACHE_K; part <= CACHE_V; part++)
                for (int h = 0; h < layers[layer].n_head; h++)
                    memcpy(row(r, layer, (CachePart)part, h, seq, position), &r->next, sizeof r->next);
    }
    if (r->n_layers <= STATE) return;
    uint64_t before = 0, after;
    if (first > 0) memcpy(&before, state(r, seq, first), sizeof before);
    CHECK(before == r->state[seq][first], "sequence %d, %d positions: another state", seq, first);
    after = before * 31 + r->next;
    r->state[seq][first + n] = after;
    memcpy(state(r, seq, first + n), &after, sizeof after);
}

/* A sequence's next row would find what it sees. */
static bool is_whole(const Rig *r, int seq) {
    int n = cache_length(r->cache, seq);
    bool whole = true;
    for (int position = 0; position < n; position++)
        for (int layer = FULL; layer < r->n_layers; layer++) {
            bool is_seen = layer == FULL || layer == OTHER || (layer == WINDOW && position > n - WINDOW_SIZE);
            for (int h = 0; is_seen && h < layers[layer].n_head; h++)
                for (int part = CACHE_K; part <= CACHE_V; part++)
                    whole &= memcmp(row(r, layer, (CachePart)part, h, seq, position),
                                    &r->number[seq][position], 8) == 0;
        }
    return whole && (n == 0 || r->n_layers <= STATE || memcmp(state(r, seq, n), &r->state[seq][n], 8) == 0);
}

static bool share(Rig *r, int from, int to, int n) {
    if (!cache_share(r->cache, from, to, n)) return false;
    memcpy(r->number[to], r->number[from], sizeof r->number[to]);
    memcpy(r->state[to], r->state[from], sizeof r->state[to]);
    perform(r);
    return true;
}

/* ---- what it decides ----------------------------------------------------------------------------------- */

TEST(cache_gives_pages_as_they_are_needed) {
    Rig *r = rig_new(1);
    CHECK(page_of(r, FULL, 0, 0) == 0 && page_of(r, FULL, 3, N_CTX - 1) == 0);
    step(r, 0, 64);
    CHECK(page_of(r, FULL, 0, 0) != 0 && page_of(r, FULL, 0, 64) == 0);
    step(r, 0, 1);
    step(r, 1, 1);
    int32_t second = page_of(r, FULL, 0, 64), other = page_of(r, FULL, 1, 0);
    CHECK(second != 0 && other != 0 && other != second && other != page_of(r, FULL, 0, 0));
    CHECK(cache_truncate(r->cache, 0, 64) && cache_length(r->cache, 0) == 64);
    CHECK(cache_truncate(r->cache, 0, 63));
    perform(r);
    CHECK(page_of(r, FULL, 0, 0) != 0 && page_of(r, FULL, 0, 64) == 0);
    step(r, 2, 1);
    CHECK(page_of(r, FULL, 2, 0) == second, "a page that went back is not taken again");
    step(r, 0, 1);
    CHECK(is_whole(r, 0) && is_whole(r, 1) && is_whole(r, 2) && r->n_copied == 0);
    rig_free(r);
}

/* Rows of several sequences between each other; padding and positions that the context lacks take nothing. */
TEST(cache_step_takes_mixed_rows) {
    Rig *r = rig_new(1);
    static const int32_t seq[] = {1, -1, 0, 1, 0, -1, 2, 1}, position[] = {0, 0, 62, 1, 63, 7, N_CTX, 2};
    step(r, 0, 62);
    cache_step(r->cache, seq, position, 8);
    perform(r);
    CHECK(cache_length(r->cache, 0) == 64 && cache_length(r->cache, 1) == 3 &&
          cache_length(r->cache, 2) == 0);
    CHECK(page_of(r, FULL, 0, 64) == 0 && page_of(r, FULL, 1, 0) != 0 && page_of(r, FULL, 2, 0) == 0);
    rig_free(r);
}

TEST(cache_shares_a_beginning) {
    Rig *r = rig_new(1);
    step(r, 0, 100);
    step(r, 1, 3);
    CHECK(share(r, 0, 1, 70) && cache_length(r->cache, 1) == 70 && is_whole(r, 1));
    CHECK(page_of(r, FULL, 1, 0) == page_of(r, FULL, 0, 0) &&
          page_of(r, FULL, 1, 64) == page_of(r, FULL, 0, 64));
    step(r, 1, 1); // into a page that sequence 0 has too
    CHECK(r->n_copied == 1 && page_of(r, FULL, 1, 64) != page_of(r, FULL, 0, 64));
    CHECK(page_of(r, FULL, 1, 0) == page_of(r, FULL, 0, 0) && is_whole(r, 0) && is_whole(r, 1));
    step(r, 1, 1);
    step(r, 0, 1);
    CHECK(r->n_copied == 1 && is_whole(r, 0) && is_whole(r, 1), "a page that is not shared was copied");
    CHECK(share(r, 0, 2, 64) && cache_truncate(r->cache, 0, 0));
    step(r, 3, 130);
    step(r, 0, 130); // into pages that sequence 0 gave back
    CHECK(is_whole(r, 0) && is_whole(r, 1) && is_whole(r, 2) && is_whole(r, 3));
    step(r, 2, 1);
    CHECK(r->n_copied == 1 && is_whole(r, 2), "a new page was copied");
    rig_free(r);
}

TEST(cache_window_gives_pages_back) {
    Rig *r = rig_new(2);
    for (int i = 0; i < 7; i++)
        for (int seq = 0; seq < N_SEQ; seq++) step(r, seq, STEP);
    CacheView v = view(r, WINDOW);
    for (int seq = 0; seq < N_SEQ; seq++) {
        int n_mapped = 0;
        for (int i = 0; i < v.layer.table_pages; i++) n_mapped += cache_pages(&v, seq)[i] != 0;
        CHECK(n_mapped <= (WINDOW_SIZE + AHEAD + STEP) / CACHE_PAGE + 2, "%d pages", n_mapped);
        CHECK(is_whole(r, seq));
    }
    int n = cache_length(r->cache, 0);
    CHECK(!cache_truncate(r->cache, 0, WINDOW_SIZE) && !cache_share(r->cache, 0, 1, WINDOW_SIZE));
    CHECK(cache_length(r->cache, 0) == n && is_whole(r, 0) && is_whole(r, 1), "a refusal changed something");
    for (int i = 0; i < CACHE_PAGE; i++) { // wherever a page begins
        for (int k = 0; k < AHEAD; k++) step(r, 0, 1);
        CHECK(cache_truncate(r->cache, 0, cache_length(r->cache, 0) - AHEAD) && is_whole(r, 0));
        step(r, 0, 1);
    }
    CHECK(share(r, 0, 1, cache_length(r->cache, 0)));
    step(r, 1, 1);
    CHECK(is_whole(r, 0) && is_whole(r, 1));
    CHECK(cache_truncate(r->cache, 0, 0) && cache_length(r->cache, 0) == 0);
    step(r, 0, 2);
    CHECK(is_whole(r, 0) && is_whole(r, 1));
    rig_free(r);
}

TEST(cache_state_has_checkpoints) {
    Rig *r = rig_new(3);
    step(r, 0, 50);
    CHECK(!cache_truncate(r->cache, 0, 49) && cache_length(r->cache, 0) == 50, "no state is there");
    for (int k = 0; k < AHEAD; k++) step(r, 0, 1);
    CHECK(cache_truncate(r->cache, 0, 51) && is_whole(r, 0));
    CHECK(cache_truncate(r->cache, 0, 50) && is_whole(r, 0));
    step(r, 0, 1);
    step(r, 0, 1);
    CHECK(!cache_truncate(r->cache, 0, 49) && is_whole(r, 0));
    CHECK(share(r, 0, 1, 51) && is_whole(r, 1));
    step(r, 1, 1);
    CHECK(is_whole(r, 0) && is_whole(r, 1));
    CHECK(cache_truncate(r->cache, 1, 51) && is_whole(r, 1));
    step(r, 1, 1);
    CHECK(!share(r, 0, 1, 30) && is_whole(r, 1) && cache_length(r->cache, 1) == 52);
    CHECK(cache_truncate(r->cache, 0, 0));
    step(r, 0, 5);
    CHECK(is_whole(r, 0) && !cache_truncate(r->cache, 0, 2), "the state of other tokens");
    rig_free(r);
}

/* Any order of steps, truncations and sharing, with all kinds of layers: every sequence has its own rows. */
TEST(cache_keeps_what_it_is_given) {
    Rig *r = rig_new(N_LAYERS);
    uint32_t random = 1;
    int n_granted = 0, n_refused = 0;
    for (int i = 0; i < 3000; i++) {
        random = random * 1664525u + 1013904223u;
        int what = random >> 8 & 15, seq = random >> 12 & 3, to = random >> 14 & 3,
            n = cache_length(r->cache, seq);
        int amount = (int)(random >> 16), chunk = 1 + amount % STEP;
        if (what < 3 && n + chunk <= N_CTX) {
            step(r, seq, chunk);
        } else if (what < 10 && n < N_CTX) {
            step(r, seq, 1);
        } else {
            int back = amount % (i % 7 ? 6 : N_CTX), left = back < n ? n - back : 0;
            bool granted =
                what < 13 || to == seq ? cache_truncate(r->cache, seq, left) : share(r, seq, to, left);
            n_granted += granted;
            n_refused += !granted;
            perform(r);
        }
        for (int s = 0; s < N_SEQ; s++) CHECK(is_whole(r, s), "sequence %d after %d", s, i);
    }
    CHECK(n_granted > 200 && n_refused > 200 && r->n_copied > 200, "%d, %d, %zu", n_granted, n_refused,
          r->n_copied);
    rig_free(r);
}

/* ---- fewer pages than all sequences could have --------------------------------------------------------- */

/* Pages of a layer that some sequence has. */
static int n_used(const Rig *r, int layer) {
    CacheView v = view(r, layer);
    static bool used[N_SEQ * (N_CTX / CACHE_PAGE + 1) + 1];
    int n = 0;
    memset(used, 0, sizeof used);
    for (int seq = 0; seq < N_SEQ; seq++)
        for (int i = 0; i < v.layer.table_pages; i++) used[cache_pages(&v, seq)[i]] = true;
    for (size_t page = 1; page < sizeof used; page++) n += used[page];
    return n;
}

TEST(cache_reserves_what_is_free) {
    Rig *r = rig_with(2, N_CTX); // 16 pages
    CHECK(cache_n_free(r->cache) == 16);
    for (int i = 0; i < 6; i++) {
        CHECK(cache_reserve(r->cache, 0, i * STEP + STEP));
        step(r, 0, STEP);
    }
    CHECK(cache_n_pages(r->cache, 0) == 13 && cache_n_free(r->cache) == 3 && n_used(r, FULL) == 13);
    CHECK(cache_reserve(r->cache, 1, 3 * CACHE_PAGE) && cache_n_free(r->cache) == 0);
    CHECK(cache_reserve(r->cache, 1, 3 * CACHE_PAGE) && cache_length(r->cache, 1) == 0);
    CHECK(!cache_reserve(r->cache, 2, 1) && cache_n_pages(r->cache, 2) == 0);
    CHECK(cache_reserve(r->cache, 0, 13 * CACHE_PAGE) && !cache_reserve(r->cache, 0, 13 * CACHE_PAGE + 1));
    step(r, 1, 3);
    CHECK(cache_n_free(r->cache) == 0 && is_whole(r, 0) && is_whole(r, 1));
    CHECK(cache_truncate(r->cache, 1, 3) && cache_n_free(r->cache) == 2, "going back keeps what is reserved");
    CHECK(share(r, 0, 2, 6 * STEP) && cache_n_free(r->cache) == 2 &&
          cache_reserve(r->cache, 2, 6 * STEP + 1));
    CHECK(cache_n_free(r->cache) == 1, "the shared page is not the sequence's alone");
    perform(r);
    step(r, 2, 1);
    CHECK(is_whole(r, 0) && is_whole(r, 1) && is_whole(r, 2));
    for (int seq = 1; seq < N_SEQ; seq++) cache_truncate(r->cache, seq, 0);
    CHECK(cache_reserve(r->cache, 0, 6 * STEP + STEP));
    step(r, 0, STEP);
    CHECK(cache_reserve(r->cache, 0, N_CTX) && is_whole(r, 0), "a sequence that is alone lacks a page");
    rig_free(r);
}

/* Reserves pages for n more positions; where there are none, other sequences give theirs back, and then there
 * are enough. */
static void make_room(Rig *r, int seq, int n, int *n_preempted) {
    for (int victim = 0; !cache_reserve(r->cache, seq, cache_length(r->cache, seq) + n); victim++) {
        REQUIRE(victim < N_SEQ, "a sequence that is alone lacks a page");
        if (victim == seq) continue;
        cache_truncate(r->cache, victim, 0);
        ++*n_preempted;
    }
}

/* Random joins, leaves, forks and preemptions: no page is lost, none is shared by mistake. */
static void check_allocator(int n_layers, int n_positions, uint32_t random) {
    Rig *r = rig_with(n_layers, n_positions);
    int n_pages = cache_n_free(r->cache), n_preempted = 0, n_forked = 0;
    for (int i = 0; i < 3000; i++) {
        random = random * 1664525u + 1013904223u;
        int what = random >> 8 & 15, seq = random >> 12 & 3, to = random >> 14 & 3,
            n = cache_length(r->cache, seq), amount = (int)(random >> 16);
        int rows = what < 10 ? 1 + amount % STEP : 1;
        if (what < 12 && n + rows <= N_CTX) {
            make_room(r, seq, rows, &n_preempted);
            if (amount % 8 == 0 && seq != to) make_room(r, to, 1, &n_preempted); // and does not come
            if (cache_length(r->cache, seq) == n && cache_reserve(r->cache, seq, n + rows))
                step(r, seq, rows);
        } else if (what < 14 && to != seq) {
            n_forked += share(r, seq, to, amount % 2 ? n : n / CACHE_PAGE * CACHE_PAGE);
        } else {
            cache_truncate(r->cache, seq, amount % 3 ? 0 : n - n / 4);
        }
        perform(r);
        CHECK(n_used(r, FULL) + cache_n_free(r->cache) == n_pages, "%d pages of %d", n_used(r, FULL),
              n_pages);
        for (int s = 0; s < N_SEQ; s++) CHECK(is_whole(r, s), "sequence %d after %d", s, i);
    }
    CHECK(n_preempted > 30 && n_forked > 100, "%d preempted, %d forked", n_preempted, n_forked);
    for (int seq = 0; seq < N_SEQ; seq++) cache_truncate(r->cache, seq, 0);
    CHECK(cache_n_free(r->cache) == n_pages);
    rig_free(r);
}

TEST(cache_loses_no_page) {
    for (int n_layers = 1; n_layers <= N_LAYERS; n_layers++) check_allocator(n_layers, N_CTX, 7);
    check_allocator(N_LAYERS, N_CTX + 700, 8);
}
