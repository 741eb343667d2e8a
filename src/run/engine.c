/* engine: see engine.h.
 *
 * The one trick is the held-back tail: text that may yet turn out to be the beginning of a stop string is not
 * final, so that what the caller has printed never has to be taken back. */
#include "engine.h"
#include "../base/clock.h"
#include "../base/mem.h"
#include "../cpu/cpu.h"
#include "../../cuda/cuda.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

typedef struct Live {
    Sequence seq;
    Request request;
    int n_done;  // tokens whose keys and values are in the cache
    int n_limit; // tokens at which the sequence is full
    TokStream stream;
    bool in_use;
    int r;      // its row among the wanted ones in the running batch, or -1
    int n_rows; // its rows in the running batch
} Live;

struct Engine {
    const Model *model;
    EngineConfig config;
    Plan *plan;
    const ExecOps *exec_ops;
    ExecConfig exec_config; // T_max, R_max: rows of a run, wanted ones
    ExecMemory memory;      // before loading
    Exec *exec;
    int logits;   // the register
    int chunk;    // rows of a prompt's piece
    Live *live;   // [n_seq]
    int32_t *eog; // end-of-generation tokens [n_eog]
    int n_eog;
    int32_t *token, *seq, *position, *out_row, *sampled; // of the batch being built
    SampleRow *sampling;
    bool decoding; // the executor is between decode_start and decode_stop, for the sequences with r >= 0
};

const char *finish_name(Finish f) {
    static const char *const names[] = {"none", "stop", "length", "interrupted"};
    return names[f];
}

/* ---- memory -------------------------------------------------------------------------------------------- */

static int chunk_of(const EngineConfig *c) {
    return c->chunk < c->n_ctx ? c->chunk : c->n_ctx;
}

/* A run has room for a chunk of a prompt beside all that speak. */
static ExecConfig config_of(const EngineConfig *c) {
    int T = chunk_of(c) + c->n_seq, R = c->R_max > c->n_seq ? c->R_max : c->n_seq;
    return (ExecConfig){.n_ctx = c->n_ctx,
                        .n_seq = c->n_seq,
                        .T_max = T > R ? T : R,
                        .R_max = R,
                        .kv_type = c->kv_type,
                        .n_threads = c->n_threads,
                        .isa = c->isa,
                        .device = c->device_index,
                        .managed = c->managed};
}

ExecMemory engine_memory(const Engine *g) {
    return g->memory;
}

static bool would_fit(const Engine *g, int n_ctx, KvType kv_type) {
    EngineConfig c = g->config;
    ExecMemory m;
    Err ignored;
    c.n_ctx = n_ctx, c.kv_type = kv_type;
    ExecConfig config = config_of(&c);
    if (!g->exec_ops->memory(g->plan, &config, &m, &ignored)) return false;
    m.free = g->memory.free;
    return exec_fits(&m);
}

int engine_context_that_fits(const Engine *g) {
    int fits = 0, beyond = INT32_MAX / 2; // more is wanted with every position
    while (fits + 1 < beyond) {
        int middle = fits + (beyond - fits) / 2;
        if (would_fit(g, middle, g->config.kv_type))
            fits = middle;
        else
            beyond = middle;
    }
    return fits;
}

static void print_bytes(const char *name, double bytes, Buf *out) {
    bool is_large = bytes >= 1e9;
    buf_printf(out, "%s %.*f %s", name, is_large ? 2 : 1, bytes / (is_large ? 1e9 : 1e6),
               is_large ? "GB" : "MB");
}

void engine_print_memory(const Engine *g, Buf *out) {
    const ExecMemory *m = &g->memory;
    double element = kv_element_bytes(g->config.kv_type);
    buf_printf(out, "%s, context of %d tokens: ", g->exec_ops->name, g->config.n_ctx);
    print_bytes("weights", (double)m->weights, out);
    print_bytes(m->is_mapped ? " in the file, keys and values" : ", keys and values", (double)m->kv, out);
    buf_printf(out, " (%s, %zu bytes per position)", kv_type_name(g->config.kv_type),
               plan_kv_bytes(g->plan, element) * (size_t)g->config.n_seq);
    print_bytes(", registers", (double)m->registers, out);
    print_bytes(", scratch", (double)m->scratch, out);
    print_bytes("; free are", (double)m->free, out);
}

/* The best type of cache that is smaller than the one asked for and small enough, or NULL. */
static const char *smaller_cache(const Engine *g) {
    static const KvType types[] = {KV_F16, KV_Q8_0, KV_FP8};
    Err ignored;
    for (int i = 0; i < 3; i++)
        if (kv_element_bytes(types[i]) < kv_element_bytes(g->config.kv_type) &&
            exec_check_kv(g->plan, types[i], &ignored) && would_fit(g, g->config.n_ctx, types[i]))
            return kv_type_name(types[i]);
    return NULL;
}

void engine_print_advice(const Engine *g, Buf *out) {
    int n_ctx = engine_context_that_fits(g);
    const char *kv = smaller_cache(g);
    if (n_ctx > 0)
        buf_printf(out, "-c %d%s%s would fit", n_ctx, kv ? " or --kv " : "", kv ? kv : "");
    else if (g->memory.is_mapped)
        buf_printf(out, "not even a context of one token would fit; end other programs");
    else
        buf_printf(
            out,
            "not even a context of one token would fit; take a smaller type of weights, or --device cpu");
}

static bool too_large(const Engine *g, Err *e) {
    Buf text = {0};
    buf_printf(&text, "it does not fit: ");
    engine_print_memory(g, &text);
    buf_printf(&text, "; ");
    engine_print_advice(g, &text);
    err_set(e, ERR_MEMORY, "%s", text.data);
    buf_free(&text);
    return false;
}

/* ---- life ---------------------------------------------------------------------------------------------- */

static void find_eog(Engine *g) {
    const Tok *tok = g->model->tok;
    for (int pass = 0; tok && pass < 2; pass++) {
        g->n_eog = 0;
        for (int id = 0; id < tok_n_vocab(tok) && id < g->plan->hparams.n_vocab; id++)
            if (tok_is_eog(tok, id)) {
                if (pass) g->eog[g->n_eog] = id;
                g->n_eog++;
            }
        if (pass == 0) g->eog = mem_new((size_t)g->n_eog, sizeof *g->eog);
    }
}

static void open_batch(Engine *g) {
    size_t T = (size_t)g->exec_config.T_max, R = (size_t)g->exec_config.R_max;
    g->token = mem_new(T, sizeof *g->token);
    g->seq = mem_new(T, sizeof *g->seq);
    g->position = mem_new(T, sizeof *g->position);
    g->out_row = mem_new(R, sizeof *g->out_row);
    g->sampled = mem_new(R, sizeof *g->sampled);
    g->sampling = mem_new(R, sizeof *g->sampling);
    g->live = mem_new((size_t)g->config.n_seq, sizeof *g->live);
}

static bool check_vocab(const Engine *g, Err *e) {
    int n = g->model->tok ? tok_n_vocab(g->model->tok) : 0;
    if (n > g->plan->hparams.n_vocab)
        return err_set(e, ERR_MODEL, "%s: the tokenizer has %d tokens but the embedding only %d rows",
                       gguf_label(g->model->gguf), n, g->plan->hparams.n_vocab);
    return true;
}

bool engine_prepare(const Model *m, const EngineConfig *config, Engine **out, Err *e) {
    const ExecOps *ops = config->device == DEVICE_CUDA ? &cuda_exec : &cpu_exec;
    const Capability *const all[] = {cpu_exec.can, cuda_exec.can};
    PlanConfig plan_config = {
        .can = *ops->can, .act_f32 = config->act_f32, .weights_fp8 = config->weights_fp8};
    Engine *g = mem_new(1, sizeof *g);
    g->model = m, g->config = *config, g->exec_ops = ops;
    if (!config->chunk) g->config.chunk = ops->prompt_chunk;
    g->chunk = chunk_of(&g->config), g->exec_config = config_of(&g->config);
    bool ok = (g->plan = plan_build(m->gguf, &plan_config, e)) && plan_supported(g->plan, all, 2, e) &&
              check_vocab(g, e) && exec_check_kv(g->plan, config->kv_type, e) &&
              ops->memory(g->plan, &g->exec_config, &g->memory, e);
    if (!ok) {
        engine_close(g);
        return false;
    }
    *out = g;
    return true;
}

bool engine_load(Engine *g, Err *e) {
    if (!exec_fits(&g->memory)) return too_large(g, e);
    if (!weights_load(g->plan->weights, g->config.n_threads, e)) return false;
    if (!g->exec_ops->open(g->plan, &g->exec_config, &g->exec, e)) return false;
    g->logits = op_in(&g->plan->ops[g->plan->n_ops - 1], 0); // what SAMPLE reads
    open_batch(g);
    find_eog(g);
    return true;
}

bool engine_open(const Model *m, const EngineConfig *config, Engine **out, Err *e) {
    if (!engine_prepare(m, config, out, e)) return false;
    if (engine_load(*out, e)) return true;
    engine_close(*out);
    *out = NULL;
    return false;
}

static void free_sequence(Live *l) {
    for (int i = 0; l->seq.logprobs && i < l->seq.n_generated; i++) {
        free(l->seq.logprobs[i].ids);
        free(l->seq.logprobs[i].logprobs);
    }
    free(l->seq.logprobs);
    free(l->seq.ids);
    buf_free(&l->seq.text);
    buf_free(&l->stream.piece);
    *l = (Live){0};
}

void engine_close(Engine *g) {
    if (!g) return;
    for (int i = 0; g->live && i < g->config.n_seq; i++) free_sequence(&g->live[i]);
    if (g->exec) g->exec_ops->close(g->exec);
    plan_free(g->plan);
    free(g->live), free(g->eog), free(g->token), free(g->seq), free(g->position);
    free(g->out_row), free(g->sampled), free(g->sampling);
    free(g);
}

const Plan *engine_plan(const Engine *g) {
    return g->plan;
}

const char *engine_executor(const Engine *g) {
    return g->exec_ops->name;
}

int engine_chunk(const Engine *g) {
    return g->config.chunk;
}

KvType engine_kv_type(const Engine *g) {
    return g->config.kv_type;
}

/* ---- requests ------------------------------------------------------------------------------------------ */

/* How many tokens of the request the cache holds; at least one is left to be computed, for its logits. */
static int cached(const Live *l, const Request *r) {
    int most = r->n_ids - 1 < l->n_done ? r->n_ids - 1 : l->n_done, n = 0;
    while (r->reuse && n < most && l->seq.ids[n] == r->ids[n]) n++;
    return n;
}

int engine_add(Engine *g, const Request *r, Err *e) {
    assert(g->model->tok && r->n_ids > 0);
    int seq = 0, n_ctx = g->config.n_ctx;
    while (seq < g->config.n_seq && g->live[seq].in_use && g->live[seq].seq.finish == FINISH_NONE) seq++;
    assert(seq < g->config.n_seq);
    if (r->n_ids >= n_ctx) {
        err_set(e, ERR_RUN,
                "the prompt has %d tokens, but the context holds %d and must leave room for an answer; "
                "shorten the prompt or use a larger -c",
                r->n_ids, n_ctx);
        return -1;
    }
    Live *l = &g->live[seq];
    int n_reused = cached(l, r);
    free_sequence(l);
    l->in_use = true;
    l->n_done = l->seq.n_reused = n_reused;
    l->request = *r;
    if (r->ignore_eos) l->request.params.banned = g->eog, l->request.params.n_banned = g->n_eog;
    l->n_limit = r->n_predict >= 0 && r->n_predict < n_ctx - r->n_ids ? r->n_ids + r->n_predict : n_ctx;
    l->stream = (TokStream){.tok = g->model->tok, .special = r->special};
    l->seq.ids = mem_new((size_t)l->n_limit + 1, sizeof *l->seq.ids);
    memcpy(l->seq.ids, r->ids, (size_t)r->n_ids * sizeof *r->ids);
    l->seq.n_prompt = r->n_ids, l->seq.end = -1;
    if (r->n_logprobs)
        l->seq.logprobs = mem_new((size_t)(l->n_limit - r->n_ids) + 1, sizeof *l->seq.logprobs);
    if (l->n_limit == r->n_ids) l->seq.finish = FINISH_LENGTH;
    return seq;
}

const Sequence *engine_sequence(const Engine *g, int seq) {
    return &g->live[seq].seq;
}

const SampleParams *engine_sampling(const Engine *g, int seq) {
    return &g->live[seq].request.params;
}

static bool unfinished(const Live *l) {
    return l->in_use && l->seq.finish == FINISH_NONE;
}

static void finish(Live *l, Finish why) {
    tok_stream_end(&l->stream, &l->seq.text);
    l->seq.finish = why;
    l->seq.n_final = l->seq.text.n;
}

static void stop_decoding(Engine *g) {
    if (g->decoding) g->exec_ops->decode_stop(g->exec);
    g->decoding = false;
}

void engine_interrupt(Engine *g) {
    stop_decoding(g);
    for (int i = 0; i < g->config.n_seq; i++)
        if (unfinished(&g->live[i])) finish(&g->live[i], FINISH_INTERRUPTED);
}

/* ---- text ---------------------------------------------------------------------------------------------- */

/* The first place in text[from..n) where a stop string stands, or n. */
static size_t find_stop(const Request *r, const Buf *text, size_t from) {
    size_t first = text->n;
    for (int i = 0; i < r->n_stop; i++) {
        size_t length = strlen(r->stop[i]);
        const char *at =
            text->n > from ? memmem(text->data + from, text->n - from, r->stop[i], length) : NULL;
        if (at && (size_t)(at - text->data) < first) first = (size_t)(at - text->data);
    }
    return first;
}

/* Bytes at the end of text that are the beginning of a stop string, the longest such. */
static size_t held_back(const Request *r, const Buf *text) {
    size_t held = 0;
    for (int i = 0; i < r->n_stop; i++) {
        size_t n = strlen(r->stop[i]) - 1;
        if (n > text->n) n = text->n;
        while (n > held && memcmp(text->data + text->n - n, r->stop[i], n) != 0) n--;
        if (n > held) held = n;
    }
    return held;
}

static void add_text(Live *l, int token) {
    Buf *text = &l->seq.text;
    tok_stream_push(&l->stream, token, text);
    size_t stop =
        find_stop(&l->request, text, l->seq.n_final); // earlier text is final: no stop string begins there
    if (stop < text->n) {
        text->n = stop;
        text->data[stop] = 0;
        Buf rest = {0}; // an unfinished character behind the stop string is cut with it
        tok_stream_end(&l->stream, &rest);
        buf_free(&rest);
        l->seq.finish = FINISH_STOP;
        l->seq.n_final = stop;
        return;
    }
    l->seq.n_final = text->n - held_back(&l->request, text);
}

static void add_logprobs(const Engine *g, Live *l, int r, int token) {
    int n_vocab = g->plan->hparams.n_vocab,
        n = l->request.n_logprobs < n_vocab ? l->request.n_logprobs : n_vocab;
    size_t stride;
    const float *logits = g->exec_ops->read(g->exec, g->logits, &stride) + (size_t)r * stride;
    TokenLogprobs *p = &l->seq.logprobs[l->seq.n_generated];
    p->ids = mem_new((size_t)l->request.n_logprobs, sizeof *p->ids);
    p->logprobs = mem_new((size_t)l->request.n_logprobs, sizeof *p->logprobs);
    p->logprob = sample_logprobs(logits, n_vocab, n, p->ids, p->logprobs, token);
}

static bool is_eog(const Engine *g, int token) {
    for (int i = 0; i < g->n_eog; i++)
        if (g->eog[i] == token) return true;
    return false;
}

static void add_token(Engine *g, Live *l, int r, int token) {
    if (is_eog(g, token)) {
        l->seq.end = token;
        finish(l, FINISH_STOP);
        return;
    }
    if (l->seq.logprobs) add_logprobs(g, l, r, token);
    l->seq.ids[l->seq.n_prompt + l->seq.n_generated++] = token;
    add_text(l, token);
    if (l->seq.finish == FINISH_NONE && l->seq.n_prompt + l->seq.n_generated >= l->n_limit)
        finish(l, FINISH_LENGTH);
}

/* ---- steps --------------------------------------------------------------------------------------------- */

static int n_tokens(const Live *l) {
    return l->seq.n_prompt + l->seq.n_generated;
}

/* Where the piece that begins at `from` of n tokens ends: at the next multiple of the chunk, if not before.
 */
static int piece_end(const Engine *g, int from, int n) {
    int end = (from / g->chunk + 1) * g->chunk;
    return end < n ? end : n;
}

/* Appends ids[from..end) of sequence s to the batch. */
static void add_piece(Engine *g, int s, const int32_t *ids, int from, int end, Batch *b) {
    for (int i = from; i < end; i++, b->T++) g->token[b->T] = ids[i], g->seq[b->T] = s, g->position[b->T] = i;
}

/* Appends the rows of one sequence to the batch: its next piece, if that fits. */
static void add_rows(Engine *g, int s, Batch *b) {
    Live *l = &g->live[s];
    int end = piece_end(g, l->n_done, n_tokens(l));
    l->n_rows = 0, l->r = -1;
    if (b->T + end - l->n_done > g->exec_config.T_max) return; // in a later step
    add_piece(g, s, l->seq.ids, l->n_done, end, b);
    l->n_rows = end - l->n_done;
    if (end < n_tokens(l)) return;
    l->r = b->R;
    g->out_row[b->R] = b->T - 1;
    g->sampling[b->R++] = (SampleRow){l->request.params, l->seq.ids, n_tokens(l), (uint64_t)n_tokens(l)};
}

static void add_time(const Engine *g, Live *l, double seconds) {
    Cost c = plan_cost_total(g->plan, kv_element_bytes(g->config.kv_type), l->n_done, l->n_rows);
    Timing *t = l->seq.n_generated == 0 ? &l->seq.prompt : &l->seq.decode;
    t->n += l->n_rows;
    t->seconds += seconds;
    t->bytes += c.bytes_fixed + c.bytes_rows;
}

static Batch empty_batch(const Engine *g) {
    return (Batch){.token = g->token,
                   .seq = g->seq,
                   .position = g->position,
                   .out_row = g->out_row,
                   .sampling = g->sampling,
                   .sampled = g->sampled};
}

/* After a run: everyone's share of it, and the new tokens. */
static void take_results(Engine *g, double seconds) {
    for (int s = 0; s < g->config.n_seq; s++) {
        Live *l = &g->live[s];
        if (!unfinished(l) || l->n_rows == 0) continue;
        add_time(g, l, seconds);
        l->n_done += l->n_rows;
        if (l->r >= 0) add_token(g, l, l->r, g->sampled[l->r]);
    }
}

static bool any_unfinished(const Engine *g) {
    for (int s = 0; s < g->config.n_seq; s++)
        if (unfinished(&g->live[s])) return true;
    return false;
}

/* Decoding without us in between is for batches in which everybody speaks and nobody wants to see logits. */
static bool all_speak(const Engine *g) {
    for (int s = 0; s < g->config.n_seq; s++) {
        const Live *l = &g->live[s];
        if (unfinished(l) && (l->seq.n_generated == 0 || l->seq.logprobs)) return false;
    }
    return true;
}

static bool start_decoding(Engine *g, Err *e) {
    Batch b = empty_batch(g);
    int n_steps = INT32_MAX;
    for (int s = 0; s < g->config.n_seq; s++) {
        Live *l = &g->live[s];
        l->r = -1, l->n_rows = 0;
        if (!unfinished(l)) continue;
        add_rows(g, s, &b);
        if (l->n_limit - n_tokens(l) < n_steps) n_steps = l->n_limit - n_tokens(l);
    }
    return g->decoding = g->exec_ops->decode_start(g->exec, &b, n_steps, e);
}

static bool step_decoding(Engine *g, Err *e) {
    double start = clock_now();
    if (!g->decoding && !start_decoding(g, e)) return false;
    if (!g->exec_ops->decode_next(g->exec, g->sampled, e)) {
        stop_decoding(g);
        return false;
    }
    take_results(g, clock_now() - start);
    for (int s = 0; s < g->config.n_seq; s++) // whoever is done leaves a batch that must be built anew
        if (g->live[s].in_use && g->live[s].seq.finish != FINISH_NONE && g->live[s].r >= 0) stop_decoding(g);
    return any_unfinished(g);
}

bool engine_step(Engine *g, Err *e) {
    e->code = 0;
    if (!any_unfinished(g)) return false;
    if (all_speak(g)) return step_decoding(g, e);
    stop_decoding(g);
    double start = clock_now();
    Batch b = empty_batch(g);
    for (int speaking = 1; speaking >= 0; speaking--) // those who speak first: they wait for nothing
        for (int s = 0; s < g->config.n_seq; s++)
            if (unfinished(&g->live[s]) && (g->live[s].seq.n_generated > 0) == speaking) add_rows(g, s, &b);
    if (!g->exec_ops->run(g->exec, &b, 0, g->plan->n_ops, e)) return false;
    take_results(g, clock_now() - start);
    return any_unfinished(g);
}

/* Appends positions from `at` on to the batch: up to n, a chunk of them, and as many wanted ones as fit. */
static void add_positions(const Engine *g, const int32_t *ids, int at, int first, int n, Batch *b) {
    for (; at < n && b->T < g->chunk; at++, b->T++) {
        bool wanted = at >= first;
        if (wanted && b->R == g->exec_config.R_max) return;
        g->token[b->T] = ids[at], g->seq[b->T] = 0, g->position[b->T] = at;
        if (wanted) g->out_row[b->R++] = b->T;
    }
}

bool engine_logits(Engine *g, const int32_t *ids, int first, int n, bool (*take)(void *, const LogitRows *),
                   void *arg, Err *e) {
    stop_decoding(g);
    g->live[0].n_done = 0; // the cache will hold other tokens
    e->code = 0;
    if (n > g->config.n_ctx)
        return err_set(e, ERR_RUN, "%d tokens do not fit into a context of %d; use a larger -c", n,
                       g->config.n_ctx);
    for (int done = 0; done < n;) {
        Batch b = empty_batch(g);
        b.sampling = NULL;
        add_positions(g, ids, done, first, n, &b);
        if (!g->exec_ops->run(g->exec, &b, 0, g->plan->n_ops, e)) return false;
        done += b.T;
        LogitRows rows = {.position = done - b.R, .n = b.R};
        rows.data = g->exec_ops->read(g->exec, g->logits, &rows.stride);
        if (b.R && !take(arg, &rows)) return false;
    }
    return true;
}

const float *engine_feed(Engine *g, const int32_t *ids, int *at, int end, Err *e) {
    Batch b = empty_batch(g);
    int piece = piece_end(g, *at, end);
    size_t stride;
    b.sampling = NULL;
    stop_decoding(g);
    add_piece(g, 0, ids, *at, piece, &b);
    g->out_row[b.R++] = b.T - 1;
    if (!g->exec_ops->run(g->exec, &b, 0, g->plan->n_ops, e)) return NULL;
    *at = piece;
    return g->exec_ops->read(g->exec, g->logits, &stride);
}

/* ---- profile ------------------------------------------------------------------------------------------- */

/* One sequence that says anything, behind n_past tokens. */
static Batch profile_batch(Engine *g, int n_past) {
    Batch b = empty_batch(g);
    g->token[0] = 0, g->seq[0] = 0, g->position[0] = n_past, g->out_row[0] = 0;
    g->sampling[0] = (SampleRow){.params = sample_defaults};
    b.T = b.R = 1;
    return b;
}

/* The mean of n whole steps. */
static bool time_steps(Engine *g, int n_past, int n, double *seconds, Err *e) {
    Batch b = profile_batch(g, n_past);
    bool ok = g->exec_ops->decode_start(g->exec, &b, n + 1, e) &&
              g->exec_ops->decode_next(g->exec, g->sampled, e); // for warming up
    double start = clock_now();
    for (int i = 0; ok && i < n; i++) ok = g->exec_ops->decode_next(g->exec, g->sampled, e);
    *seconds = (clock_now() - start) / n;
    g->exec_ops->decode_stop(g->exec);
    return ok;
}

bool engine_profile(Engine *g, int n_past, Profile *out, Err *e) {
    enum { LEAST = 3, MOST = PROFILE_ROOM - 2 };
    const double enough = 0.5; // seconds
    double start = clock_now();
    int room = g->config.n_ctx - 2; // positions of the steps but for two
    stop_decoding(g);
    g->live[0].n_done = 0;
    if (room < LEAST)
        return err_set(e, ERR_RUN, "a context of %d tokens is too short for a profile; use -c %d or more",
                       g->config.n_ctx, LEAST + 2);
    *out = (Profile){.n_past = n_past < room - LEAST ? n_past : room - LEAST};
    if (!time_steps(g, out->n_past, 1, &out->step, e)) return false;
    double wanted = enough / out->step;
    int most = room - out->n_past < MOST ? room - out->n_past : MOST;
    out->repeats = wanted < LEAST ? LEAST : wanted < most ? (int)wanted : most;
    out->seconds = mem_new((size_t)g->plan->n_ops, sizeof *out->seconds);
    Batch b = profile_batch(g, out->n_past);
    bool ok = g->exec_ops->profile(g->exec, &b, out->repeats, out->seconds, e) &&
              time_steps(g, out->n_past, out->repeats, &out->step, e);
    out->wall = clock_now() - start;
    return ok;
}

double engine_read_bandwidth(Engine *g) {
    stop_decoding(g);
    return g->exec_ops->read_bandwidth(g->exec);
}
