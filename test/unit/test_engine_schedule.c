/* engine_schedule: who is computed when, in simulated time, with an executor that computes nothing.
 *
 * The executor here keeps for each position a number made of the number before it, the token, and whether the
 * row was one of a prompt, in the pages of a real cache, and chooses tokens by that number.  So a wrong page, a
 * page that is given away too early, a prompt cut at another place, a token of an answer in the beginning of a
 * prompt: all give other tokens than the request has alone.  It runs steps ahead of the engine as a GPU does, and
 * counts rows and time. */
#include "check.h"
#include "../../src/base/clock.h"
#include "../../src/base/mem.h"
#include "../../src/run/engine_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TURN = 400, AHEAD = 8, FIRST_TOKEN = 10, N_TOKENS = 250 };

static const KvLayer layers[] = {{.kind = KV_ROWS, .n_head = 1, .k_width = 2, .v_width = 2},
                                 {.kind = KV_ROWS, .n_head = 1, .k_width = 2, .v_width = 2, .window = 200}};
static const double STEP_SECONDS = 1e-3, RUN_SECONDS = 1e-3, ROW_SECONDS = 20e-6;
static int n_layers; // the first of them: without or with a window

typedef struct Ahead { // a slot of the decode loop
    bool joined;
    int position, n_left, n; // of the next row; steps left; tokens that are not fetched
    int32_t token[AHEAD];
    uint64_t seed;
} Ahead;

struct Exec {
    ExecConfig config;
    Cache *cache;
    uint8_t *memory;
    Ahead *slots;     // [n_seq]
    int32_t *numbers; // 0, 1, .. [n_seq]
    uint64_t n_rows, n_steps, n_runs;
    double time; // of the simulation, seconds
    double longest_wait, last_step;
};

/* ---- the executor -------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 31) * 0x7fb5d329728ea185u;
    x = (x ^ x >> 27) * 0x81dadef4bc2dd44du;
    return x ^ x >> 33;
}

static uint64_t number_of(uint64_t before, int32_t token, bool is_prompt) {
    return mix(before * 31 + (uint64_t)token * 2 + is_prompt);
}

static int32_t token_of(uint64_t number, uint64_t seed) {
    return FIRST_TOKEN + (int32_t)(mix(number ^ mix(seed + 1)) % N_TOKENS);
}

static uint64_t *cell(const Exec *x, int layer, int seq, int position) {
    CacheView v = {*cache_layer(x->cache, layer), x->memory, cache_tables(x->cache)};
    KvRows rows = cache_rows(&v, cache_pages(&v, seq)[position / CACHE_PAGE], CACHE_K, 0);
    return (uint64_t *)(void *)(rows.cells + position % CACHE_PAGE * 2 * (int)sizeof(float));
}

/* Computes a row; the layer with a window must agree as far as it sees. */
static uint64_t compute(Exec *x, int seq, int position, int32_t token, bool is_prompt, uint64_t poison) {
    uint64_t before = position ? *cell(x, 0, seq, position - 1) : 0;
    if (position && n_layers > 1)
        CHECK(*cell(x, 1, seq, position - 1) == before, "sequence %d at %d: the window", seq, position);
    uint64_t number = number_of(before, token, is_prompt) ^ poison;
    for (int layer = 0; layer < n_layers; layer++) *cell(x, layer, seq, position) = number;
    x->n_rows++;
    return number;
}

static void extend(Exec *x, const int32_t *seq, const int32_t *position, int n) {
    cache_step(x->cache, seq, position, n);
    for (CacheCopy copy; cache_next_copy(x->cache, &copy);)
        memcpy(x->memory + copy.to, x->memory + copy.from, copy.bytes);
    for (CacheChange change; cache_next_change(x->cache, &change);) {
    }
}

static size_t n_free_bytes; // of the memory
static uint32_t
    stop_one_in; // runs and steps that are stopped and change nothing but pages: one in so many; 0: none

static bool is_stopped(uint64_t n, Err *e) {
    e->code = 0;
    return stop_one_in && mix(n) % stop_one_in == 0;
}

static bool fake_memory(const Plan *p, const ExecConfig *config, ExecMemory *out, Err *e) {
    CacheConfig cache = exec_cache_config(config, AHEAD);
    (void)p;
    (void)e;
    *out = (ExecMemory){.kv = cache_need(layers, n_layers, &cache).bytes,
                        .registers = (size_t)config->R_max * 1000,
                        .free = n_free_bytes};
    return true;
}

static bool fake_open(const Plan *p, const ExecConfig *config, Exec **out, Err *e) {
    (void)p;
    (void)e;
    Exec *x = mem_new(1, sizeof *x);
    CacheConfig cache = exec_cache_config(config, AHEAD);
    cache.type = KV_F32;
    x->config = *config;
    x->cache = cache_open(layers, n_layers, &cache);
    x->memory = mem_new(cache_need(layers, n_layers, &cache).bytes, 1);
    x->slots = mem_new((size_t)config->n_seq, sizeof *x->slots);
    x->numbers = mem_new((size_t)config->n_seq, sizeof *x->numbers);
    for (int i = 0; i < config->n_seq; i++) x->numbers[i] = i;
    *out = x;
    return true;
}

static void fake_close(Exec *x) {
    cache_close(x->cache);
    free(x->memory);
    free(x->slots);
    free(x->numbers);
    free(x);
}

/* A prompt that is not cut at a multiple of CACHE_PAGE has other numbers. */
static bool fake_run(Exec *x, const Batch *b, int first_op, int last_op, Err *e) {
    (void)first_op;
    (void)last_op;
    CHECK(b->T <= x->config.T_max && b->R <= x->config.R_max);
    extend(x, b->seq, b->position, b->T);
    x->n_runs++;
    if (is_stopped(2 * x->n_runs, e)) return false;
    for (int t = 0, r = 0; t < b->T; t++) {
        bool begins = t == 0 || b->seq[t - 1] != b->seq[t];
        uint64_t poison = begins && b->position[t] % CACHE_PAGE;
        uint64_t number = compute(x, b->seq[t], b->position[t], b->token[t], true, poison);
        if (r < b->R && b->out_row[r] == t) {
            b->sampled[r] = token_of(number, b->sampling[r].seed);
            r++;
        }
    }
    x->time += RUN_SECONDS + ROW_SECONDS * b->T;
    return true;
}

static bool fake_join(Exec *x, int slot, const DecodeStart *start, Err *e) {
    (void)e;
    Ahead *s = &x->slots[slot];
    CHECK(!s->joined && start->n_steps > 0);
    *s = (Ahead){.joined = true,
                 .position = start->position,
                 .n_left = start->n_steps,
                 .token = {start->token},
                 .seed = start->params.seed};
    return true;
}

/* One more step of a slot: its input is the latest token. */
static void step_ahead(Exec *x, int slot, int32_t input) {
    Ahead *s = &x->slots[slot];
    extend(x, &x->numbers[slot], &s->position, 1);
    uint64_t number = compute(x, slot, s->position++, input, false, 0);
    s->token[s->n++] = token_of(number, s->seed);
    s->n_left--;
}

static void fake_leave(Exec *x, int slot) {
    Ahead *s = &x->slots[slot];
    if (s->joined) CHECK(cache_truncate(x->cache, slot, s->position - s->n));
    s->joined = false;
}

static bool fake_next(Exec *x, int32_t *tokens, Err *e) {
    x->n_steps++;
    if (is_stopped(2 * x->n_steps + 1, e)) {
        for (int i = 0; i < x->config.n_seq; i++) fake_leave(x, i);
        return false;
    }
    x->time += STEP_SECONDS;
    if (x->time - x->last_step > x->longest_wait) x->longest_wait = x->time - x->last_step;
    x->last_step = x->time;
    for (int i = 0; i < x->config.n_seq; i++) {
        Ahead *s = &x->slots[i];
        int32_t latest = s->token[s->n ? s->n - 1 : 0];
        tokens[i] = -1;
        if (!s->joined) continue;
        for (; s->n < AHEAD && s->n_left > 0; latest = s->token[s->n - 1]) step_ahead(x, i, latest);
        if (s->n == 0) continue;
        tokens[i] = s->token[0];
        memmove(s->token, s->token + 1, (size_t)(--s->n) * sizeof *s->token);
        if (s->n == 0) s->token[0] = tokens[i];
    }
    return true;
}

static Cache *fake_cache(Exec *x) {
    return x->cache;
}

static bool fake_share(Exec *x, int from, int to, int n) {
    return cache_share(x->cache, from, to, n);
}

static const ExecOps fake = {.name = "fake",
                             .prompt_chunk = 256,
                             .n_seq_best = 256,
                             .prompt_multiple = CACHE_PAGE,
                             .memory = fake_memory,
                             .open = fake_open,
                             .run = fake_run,
                             .decode_join = fake_join,
                             .decode_next = fake_next,
                             .decode_leave = fake_leave,
                             .cache = fake_cache,
                             .share = fake_share,
                             .close = fake_close};

/* ---- an engine with it --------------------------------------------------------------------------------- */

typedef struct Fixture {
    Model model;
    Engine *engine;
} Fixture;

static bool fixture_open(Fixture *s, bool with_window, EngineConfig c) {
    Err e = {0};
    *s = (Fixture){0};
    c.device = DEVICE_CPU;
    c.isa = "auto";
    c.n_threads = 1;
    bool ok = model_open("test/data/models/llama-s-Q4_0.gguf", &s->model, &e) &&
              model_need_tok(&s->model, &e) && engine_prepare(&s->model, &c, &s->engine, &e);
    if (ok) s->engine->exec_ops = &fake;
    if (ok) s->engine->forgets = with_window; // the plan has none
    n_layers = 1 + with_window;
    ok = ok && engine_load(s->engine, &e);
    for (int id = FIRST_TOKEN; ok && id < FIRST_TOKEN + N_TOKENS; id++) CHECK(!tok_is_eog(s->model.tok, id));
    if (!ok) test_fail(__FILE__, __LINE__, "%s", e.text);
    return ok;
}

static void fixture_close(Fixture *s) {
    engine_close(s->engine);
    model_close(&s->model);
}

static uint32_t draw(uint64_t *random, uint32_t n) {
    return (uint32_t)((*random = mix(*random + 0x9e3779b97f4a7c15u)) >> 32) % n;
}

/* Whether a sequence has the tokens that its request has alone. */
static bool is_as_alone(const Sequence *q, uint64_t seed) {
    uint64_t number = 0;
    for (int i = 0; i < q->n_prompt; i++) number = number_of(number, q->ids[i], true);
    for (int i = 0; i < q->n_generated; i++) {
        int32_t token = q->ids[q->n_prompt + i];
        if (token != token_of(number, seed)) return false;
        number = number_of(number, token, false);
    }
    return q->finish == FINISH_LENGTH;
}

/* The rows that the task which came first has in the cache, or as many as ever when there is none. */
static int progress_of_oldest(const Engine *g, uint64_t *arrival) {
    const Task *oldest = g->first;
    int n = 0;
    for (int i = 0; i < g->n_slots; i++) {
        const Slot *s = &g->slots[i];
        if (!s->task || (oldest && s->task->arrival > oldest->arrival)) continue;
        oldest = s->task;
        n = s->n_held;
    }
    *arrival = oldest ? oldest->arrival : UINT64_MAX;
    return n;
}

typedef struct Load {
    int n_requests, n_outstanding; // in all, and at once: running and waiting
    int n_beginnings, n_beginning; // that prompts share, and how long they are
    int alone;                     // one prompt in so many has none of them; 0: each has
    int n_prompt, n_predict;       // at most, behind a beginning
    int turns;                     // one prompt in so many begins with all that another sequence had; 0: none
} Load;

typedef struct Progress { // the requests of a load
    const Load *load;
    Fixture *fixture;
    uint64_t random;
    int n_asked, n_done, n_preempted;
    uint64_t n_prompt_tokens, n_reused, n_generated;
    int *number;             // of those that are not done [n_outstanding], -1: none
    uint64_t *seed;          // theirs
    int32_t *ids;            // of a prompt
    int32_t *shared;         // [n_beginnings][n_beginning]
    int32_t turn[MOST_TURN]; // the first tokens of a finished sequence [n_turn]
    int n_turn;
} Progress;

static Progress progress_new(Fixture *fixture, const Load *l) {
    Progress c = {.load = l, .fixture = fixture, .random = 1};
    c.number = mem_new((size_t)l->n_outstanding, sizeof *c.number);
    c.seed = mem_new((size_t)l->n_outstanding, sizeof *c.seed);
    c.ids = mem_new((size_t)(MOST_TURN + l->n_beginning + l->n_prompt), sizeof *c.ids);
    c.shared = mem_new((size_t)(l->n_beginnings * l->n_beginning) + 1, sizeof *c.shared);
    for (int i = 0; i < l->n_outstanding; i++) c.number[i] = -1;
    for (int i = 0; i < l->n_beginnings * l->n_beginning; i++)
        c.shared[i] = FIRST_TOKEN + (int32_t)draw(&c.random, N_TOKENS);
    return c;
}

static void progress_free(Progress *c) {
    free(c->number);
    free(c->seed);
    free(c->ids);
    free(c->shared);
}

static void ask(Progress *c, int i) {
    const Load *l = c->load;
    Err e = {0};
    int n = 0;
    if (!l->alone || draw(&c->random, (uint32_t)l->alone)) {
        n = l->n_beginning;
        memcpy(c->ids, c->shared + (int)draw(&c->random, (uint32_t)l->n_beginnings) * n,
               (size_t)n * sizeof *c->ids);
    }
    if (l->turns && draw(&c->random, (uint32_t)l->turns) == 0)
        memcpy(c->ids, c->turn, (size_t)(n = c->n_turn) * sizeof *c->ids);
    for (int end = n + 1 + (int)draw(&c->random, (uint32_t)l->n_prompt); n < end; n++)
        c->ids[n] = FIRST_TOKEN + (int32_t)draw(&c->random, N_TOKENS);
    Request r = {.ids = c->ids,
                 .n_ids = n,
                 .n_predict = 1 + (int)draw(&c->random, (uint32_t)l->n_predict),
                 .params = {.seed = c->seed[i] = draw(&c->random, 100)},
                 .reuse = REUSE_SAME};
    c->number[i] = engine_add(c->fixture->engine, &r, &e);
    CHECK(c->number[i] >= 0, "%s", e.text);
    c->n_asked++;
    c->n_prompt_tokens += (uint64_t)n;
}

static void ask_and_take(Progress *c) {
    for (int i = 0; i < c->load->n_outstanding; i++) {
        const Sequence *q = c->number[i] < 0 ? NULL : engine_sequence(c->fixture->engine, c->number[i]);
        if (q && q->finish == FINISH_NONE) continue;
        if (q) {
            CHECK(is_as_alone(q, c->seed[i]), "request of %d + %d tokens, %d reused, preempted %d times",
                  q->n_prompt, q->n_generated, q->n_reused, q->n_preempted);
            int n = q->n_prompt + q->n_generated;
            c->n_turn = n < MOST_TURN ? n : MOST_TURN;
            memcpy(c->turn, q->ids, (size_t)c->n_turn * sizeof *c->turn);
            c->n_done++;
            c->n_preempted += q->n_preempted;
            c->n_reused += (uint64_t)q->n_reused;
            c->n_generated += (uint64_t)q->n_generated;
            c->number[i] = -1;
        }
        if (c->n_asked < c->load->n_requests) ask(c, i);
    }
}

/* Runs a load to its end: each step moves the oldest task on. */
static Progress serve(Fixture *fixture, const Load *load) {
    Progress c = progress_new(fixture, load);
    Engine *g = fixture->engine;
    Err e = {0};
    for (ask_and_take(&c); c.n_done < load->n_requests && e.code == 0; ask_and_take(&c)) {
        uint64_t oldest, now;
        int before = progress_of_oldest(g, &oldest);
        if (!engine_step(g, &e) && engine_is_busy(g)) continue; // stopped
        int after = progress_of_oldest(g, &now);
        bool moved = now != oldest || after > before;
        CHECK(moved, "request %d stands still at %d rows", (int)oldest, after);
        if (!moved) break;
    }
    CHECK(e.code == 0, "%s", e.text);
    return c;
}

TEST(engine_schedule_starves_no_request) {
    static const Load load = {100000, 300, 20, 128, 4, 100, 60, 0};
    Fixture s;
    if (!fixture_open(&s, true, (EngineConfig){.n_ctx = 512, .n_seq = 64, .n_positions = 8000})) return;
    Progress c = serve(&s, &load);
    CHECK(c.n_done == load.n_requests && c.n_reused > c.n_prompt_tokens / 4,
          "%d done, %d of %d tokens reused", c.n_done, (int)c.n_reused, (int)c.n_prompt_tokens);
    progress_free(&c);
    fixture_close(&s);
}

/* Answers that are far longer than prompts: more sequences begin than can end beside each other. */
TEST(engine_schedule_preempts_the_youngest) {
    static const Load load = {3000, 100, 3, 128, 4, 60, 300, 0};
    Fixture s;
    if (!fixture_open(&s, true, (EngineConfig){.n_ctx = 512, .n_seq = 32, .n_positions = 1500})) return;
    Progress c = serve(&s, &load);
    CHECK(c.n_done == load.n_requests && c.n_preempted > 50, "%d done, %d preempted", c.n_done,
          c.n_preempted);
    progress_free(&c);
    fixture_close(&s);
}

/* A beginning of 2000 tokens that 500 requests share costs less than a tenth of the work that is left. */
TEST(engine_schedule_computes_a_beginning_once) {
    static const Load load = {500, 500, 1, 2000, 0, 100, 200, 0};
    for (int n_seq = 1, with_window = 0; n_seq <= 64; n_seq *= 4, with_window ^= 1) {
        Fixture s;
        if (!fixture_open(&s, with_window,
                          (EngineConfig){
                              .n_ctx = 4096, .n_seq = n_seq, .n_kept = 1, .n_positions = 4096 + n_seq * 400}))
            return;
        Progress c = serve(&s, &load);
        uint64_t once = c.n_prompt_tokens - 499 * 2000 + c.n_generated;
        CHECK(s.engine->exec->n_rows * 10 < once * 11, "%d at once: %d rows, %d are needed", n_seq,
              (int)s.engine->exec->n_rows, (int)once);
        progress_free(&c);
        fixture_close(&s);
    }
}

/* More beginnings than sequences at once: they are found again where finished sequences are kept. */
TEST(engine_schedule_keeps_beginnings) {
    static const Load load = {600, 8, 6, 256, 0, 30, 80, 5};
    for (int i = 0; i < 4; i++) {
        int n_kept = i / 2 ? 20 : 0, with_window = i % 2;
        Fixture s;
        if (!fixture_open(&s, with_window,
                          (EngineConfig){.n_ctx = 1024, .n_seq = 4, .n_kept = n_kept, .n_positions = 20000}))
            return;
        Progress c = serve(&s, &load);
        double share = (double)c.n_reused / (double)c.n_prompt_tokens;
        CHECK(n_kept ? share > 0.7 : share < 0.5, "%d kept: %.2f of the prompts", n_kept, share);
        progress_free(&c);
        fixture_close(&s);
    }
}

/* Decoding waits for no more than a batch of a chunk, whatever is asked. */
TEST(engine_schedule_bounds_the_wait) {
    enum { CHUNK = 128, N_SEQ = 16 };
    static const Load load = {2000, 64, 1, 1, 0, 1500, 100, 0};
    Fixture s;
    if (!fixture_open(&s, true,
                      (EngineConfig){.n_ctx = 2048, .n_seq = N_SEQ, .chunk = CHUNK, .n_positions = 20000}))
        return;
    Progress c = serve(&s, &load);
    double most = STEP_SECONDS + RUN_SECONDS + ROW_SECONDS * (CHUNK + N_SEQ);
    CHECK(s.engine->exec->longest_wait <= most * 1.001, "%g s, not %g", s.engine->exec->longest_wait, most);
    progress_free(&c);
    fixture_close(&s);
}

/* The number of sequences and of positions follows from the memory, and what is chosen fits into it. */
TEST(engine_schedule_fills_the_memory) {
    Fixture s;
    Err e = {0};
    int n_before = 0;
    n_free_bytes = SIZE_MAX / 2;
    if (!fixture_open(&s, true, (EngineConfig){.n_ctx = 1000, .n_seq = 1})) return;
    Engine *g = s.engine;
    for (n_free_bytes = 100000; n_free_bytes < 200000000; n_free_bytes *= 2) {
        g->config.n_seq = 0;
        g->config.n_positions = 0;
        REQUIRE(engine_configure(g, &e), "%s", e.text);
        int n = engine_n_seq(g);
        int64_t positions = engine_n_positions(g);
        CHECK(n >= n_before && n <= 256 && positions >= 1000 && positions <= n * 1000, "%d, %d", n,
              (int)positions);
        CHECK(n == 1 || (exec_needed(&g->memory) <= n_free_bytes / 8 * 7 + 7 && positions >= n * 250),
              "%d, %d", n, (int)positions);
        CHECK(n == 256 || n == 1 || exec_needed(&g->memory) > n_free_bytes / 8 * 6, "half of it is left");
        n_before = n;
        g->config.n_seq = 3;
        g->config.n_positions = FILL_MEMORY;
        REQUIRE(engine_configure(g, &e), "%s", e.text);
        CHECK(engine_n_seq(g) == 3 && engine_n_positions(g) >= 1000 && engine_n_positions(g) <= 3000);
    }
    CHECK(n_before == 256);
    Buf text = {0};
    engine_print_memory(g, &text);
    CHECK(strstr(text.data, " bytes for each of 3000 positions"), "%s", text.data);
    buf_free(&text);
    g->config.n_seq = 1;
    fixture_close(&s);
}

/* A step that was stopped is tried again, whoever has the pages then. */
TEST(engine_schedule_repeats_what_was_stopped) {
    static const Load load = {2000, 100, 3, 128, 4, 60, 300, 8};
    for (int with_window = 0; with_window < 2; with_window++) {
        Fixture s;
        if (!fixture_open(&s, with_window,
                          (EngineConfig){.n_ctx = 1024, .n_seq = 32, .n_kept = 4, .n_positions = 3000}))
            return;
        stop_one_in = 7;
        Progress c = serve(&s, &load);
        stop_one_in = 0;
        CHECK(c.n_done == load.n_requests, "%d done", c.n_done);
        progress_free(&c);
        fixture_close(&s);
    }
}
