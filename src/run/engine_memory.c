/* engine_memory: what an engine takes, how many sequences fit, and the advice where one does not.
 *
 * All numbers are known before anything is loaded: the executor counts what it would allocate for a
 * configuration, and the longest context that fits is found by asking it again. */
#include "engine_impl.h"

int engine_chunk_of(const EngineConfig *c) {
    int64_t all = (int64_t)c->n_ctx * c->n_seq;
    return c->chunk < all ? c->chunk : (int)all;
}

/* Products of generated tokens: from so many sequences on they are those of prompts. */
enum { WIDE_SEQUENCES = 17 };

/* A run has room for a chunk of a prompt and one row of each sequence. */
static ExecConfig exec_config_of(const EngineConfig *c) {
    int T = engine_chunk_of(c) + c->n_seq, R = c->R_max > c->n_seq ? c->R_max : c->n_seq;
    int64_t of_each =
        c->n_kept ? (int64_t)c->n_seq * c->n_ctx : 0; // kept sequences have no pages of their own
    return (ExecConfig){.n_ctx = c->n_ctx,
                        .n_seq = c->n_seq + c->n_kept,
                        .n_positions = c->n_positions ? c->n_positions : of_each,
                        .T_max = T > R ? T : R,
                        .R_max = R,
                        .kv_type = c->kv_type,
                        .n_threads = c->n_threads,
                        .thread_bytes = c->thread_bytes,
                        .isa = c->isa,
                        .device = c->device_index,
                        .managed = c->managed,
                        .wide = c->n_seq >= WIDE_SEQUENCES,
                        .stop = c->stop};
}

ExecMemory engine_memory(const Engine *g) {
    return g->memory;
}

typedef bool Fits(const ExecMemory *m); // exec_keeps_weights or, where that is out of reach, exec_fits

static bool fits_with(const Engine *g, const EngineConfig *c, size_t free, Fits *fits) {
    ExecMemory m;
    Err ignored;
    ExecConfig config = exec_config_of(c);
    if (!g->exec_ops->memory(g->plan, &config, &m, &ignored)) return false;
    m.free = free;
    return fits(&m);
}

/* A cache that all sequences share may have as little as one of them needs. */
static bool would_fit(const Engine *g, int n_ctx, KvType kv_type, Fits *fits) {
    EngineConfig c = g->config;
    Err ignored;
    c.n_ctx = n_ctx;
    c.kv_type = kv_type;
    if (c.n_positions) c.n_positions = n_ctx;
    return exec_check_context(g->plan, n_ctx, &ignored) && fits_with(g, &c, g->memory.free, fits);
}

static int longest_context(const Engine *g, Fits *fits) {
    int longest = 0, beyond = INT32_MAX / 2; // each position takes more
    while (longest + 1 < beyond) {
        int middle = longest + (beyond - longest) / 2;
        if (would_fit(g, middle, g->config.kv_type, fits))
            longest = middle;
        else
            beyond = middle;
    }
    return longest;
}

/* ---- what the configuration leaves open ---------------------------------------------------------------- */

static bool fits_positions(const Engine *g, EngineConfig c, int64_t n, size_t free) {
    c.n_positions = n;
    return fits_with(g, &c, free - free / 8, exec_keeps_weights);
}

/* The most positions, up to the whole context of each sequence, that fit into 7/8 of what is free: the rest is
 * for what comes later.  In whole pages; n_ctx where not even these fit. */
static int64_t most_positions(const Engine *g, const EngineConfig *c, size_t free) {
    int64_t most = c->n_ctx, beyond = (int64_t)c->n_seq * c->n_ctx;
    if (fits_positions(g, *c, beyond, free)) return beyond;
    while (most + CACHE_PAGE < beyond) {
        int64_t middle = most + (beyond - most) / 2;
        if (fits_positions(g, *c, middle, free))
            most = middle;
        else
            beyond = middle;
    }
    return most;
}

/* Sequences whose contexts are a quarter full on average find room: prompts and answers are mostly shorter than
 * a context, and where they are not, the youngest are preempted. */
static void choose_n_seq(EngineConfig *c, const Engine *g, size_t free) {
    for (c->n_seq = g->exec_ops->n_seq_best; c->n_seq > 1; c->n_seq /= 2) {
        c->n_positions = most_positions(g, c, free);
        if (c->n_positions * 4 >= (int64_t)c->n_seq * c->n_ctx) return;
    }
    c->n_positions = c->n_ctx;
}

/* One sequence is what the memory is asked for at first. */
static bool choose(Engine *g, Err *e) {
    EngineConfig *c = &g->config, least = *c;
    ExecMemory m;
    least.n_seq = 1;
    least.n_positions = c->n_ctx;
    ExecConfig config = exec_config_of(&least);
    if (!g->exec_ops->memory(g->plan, &config, &m, e)) return false;
    if (c->n_seq == 0)
        choose_n_seq(c, g, m.free);
    else
        c->n_positions = most_positions(g, c, m.free);
    return true;
}

bool engine_configure(Engine *g, Err *e) {
    bool is_open = g->config.n_seq == 0 || g->config.n_positions == FILL_MEMORY;
    if (is_open && !choose(g, e)) return false;
    g->exec_config = exec_config_of(&g->config);
    return g->exec_ops->memory(g->plan, &g->exec_config, &g->memory, e);
}

/* ---- what is said of it -------------------------------------------------------------------------------- */

int engine_context_that_fits(const Engine *g) {
    return longest_context(g, exec_keeps_weights);
}

static void print_bytes(const char *name, double bytes, Buf *out) {
    bool is_large = bytes >= 1e9;
    buf_printf(out, "%s %.*f %s", name, is_large ? 2 : 1, bytes / (is_large ? 1e9 : 1e6),
               is_large ? "GB" : "MB");
}

void engine_print_memory(const Engine *g, Buf *out) {
    const ExecMemory *m = &g->memory;
    buf_printf(out, "%s, context of %d tokens: ", g->exec_ops->name, g->config.n_ctx);
    print_bytes("weights", (double)m->weights, out);
    print_bytes(m->is_mapped ? " in the file, keys and values" : ", keys and values", (double)m->kv, out);
    buf_printf(out, " (%s, ", kv_type_name(g->config.kv_type));
    if (g->config.n_positions)
        buf_printf(out, "%zu bytes for each of %lld positions", m->kv_position,
                   (long long)g->config.n_positions);
    else
        buf_printf(out, "%zu bytes per position", m->kv_position * (size_t)g->config.n_seq);
    if (m->kv_window) print_bytes("; windows of a sequence", (double)m->kv_window, out);
    if (m->kv_state) print_bytes("; states of a sequence", (double)m->kv_state, out);
    buf_printf(out, ")");
    print_bytes(", registers", (double)m->registers, out);
    print_bytes(", scratch", (double)m->scratch, out);
    print_bytes("; free are", (double)m->free, out);
}

/* The best type of cache that is smaller than the configured one and small enough, or NULL. */
static const char *smaller_cache(const Engine *g) {
    static const KvType types[] = {KV_F16, KV_Q8_0, KV_FP8};
    Err ignored;
    for (int i = 0; i < 3; i++)
        if (kv_element_bytes(types[i]) < kv_element_bytes(g->config.kv_type) &&
            exec_check_kv(g->plan, types[i], &ignored) &&
            would_fit(g, g->config.n_ctx, types[i], exec_keeps_weights))
            return kv_type_name(types[i]);
    return NULL;
}

void engine_print_advice(const Engine *g, Buf *out) {
    int n_ctx = engine_context_that_fits(g), n_run = longest_context(g, exec_fits);
    const char *kv = smaller_cache(g);
    if (n_ctx > 0)
        buf_printf(out, "-c %d%s%s would fit", n_ctx, kv ? " or --kv " : "", kv ? kv : "");
    else if (n_run > 0)
        buf_printf(out, "-c %d would run, slowed by the disk; take a smaller type of weights", n_run);
    else if (g->memory.is_mapped)
        buf_printf(out, "not even a context of one token would fit; end other programs");
    else
        buf_printf(
            out,
            "not even a context of one token would fit; take a smaller type of weights, or --device cpu");
}

bool engine_too_large(const Engine *g, Err *e) {
    Buf text = {0};
    buf_printf(&text, "it does not fit: ");
    engine_print_memory(g, &text);
    buf_printf(&text, "; ");
    engine_print_advice(g, &text);
    err_set(e, ERR_MEMORY, "%s", text.data);
    buf_free(&text);
    return false;
}
