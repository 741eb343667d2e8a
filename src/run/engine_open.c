/* engine_open: opening and closing, and the engine's properties.  See engine.h. */
#include "engine_impl.h"
#include "../base/mem.h"
#include "../cpu/cpu.h"
#include "../../cuda/cuda.h"

#include <assert.h>
#include <stdlib.h>

const char *finish_name(Finish f) {
    static const char *const names[] = {"none", "stop", "length", "interrupted"};
    return names[f];
}

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
    g->prompt = mem_new(T, sizeof *g->prompt);
    g->out_row = mem_new(R, sizeof *g->out_row);
    g->sampled = mem_new(R, sizeof *g->sampled);
    g->sampling = mem_new(R, sizeof *g->sampling);
    g->loop_tokens = mem_new((size_t)g->n_slots, sizeof *g->loop_tokens);
}

static void open_slots(Engine *g) {
    int n = g->n_slots;
    g->slots = mem_new((size_t)n, sizeof *g->slots);
    g->order = mem_new((size_t)n, sizeof *g->order);
    g->tasks = mem_new((size_t)n, sizeof *g->tasks);
    for (int i = 0; i < n; i++) {
        g->slots[i].held = mem_new((size_t)g->config.n_ctx, sizeof *g->slots[i].held);
        g->tasks[g->n_tasks++] = mem_new(1, sizeof **g->tasks);
    }
}

static bool check_vocab(const Engine *g, Err *e) {
    const Hparams *h = &g->plan->hparams;
    int n = g->model->tok ? tok_n_vocab(g->model->tok) : 0;
    if (n > h->n_vocab)
        return err_set(e, ERR_MODEL, "%s: the tokenizer has %d tokens but the embedding only %d rows",
                       gguf_label(g->model->gguf), n, h->n_vocab);
    if (h->n_vocab_key != h->n_vocab)
        err_warn("%.300s: %s.vocab_size is %d, but token_embd.weight has %d rows; the rows count",
                 gguf_label(g->model->gguf), h->arch, h->n_vocab_key, h->n_vocab);
    return true;
}

static const ExecOps *ops_of(const EngineConfig *config) {
    return config->device == DEVICE_CUDA ? &cuda_exec : &cpu_exec;
}

Plan *engine_build_plan(const Model *m, const EngineConfig *config, Err *e) {
    const Capability *const all[] = {cpu_exec.can, cuda_exec.can};
    PlanConfig plan_config = {.can = *ops_of(config)->can,
                              .act_f32 = config->act_f32,
                              .keeps_inputs = config->keeps_inputs,
                              .weights_fp8 = config->weights_fp8};
    Plan *p = plan_build(m->gguf, &plan_config, e);
    if (!p || plan_supported(p, all, 2, e)) return p;
    plan_free(p);
    return NULL;
}

/* Each slot has states of its own, whose memory is not that of pages: then one sequence is kept at most. */
static void find_kinds(Engine *g) {
    for (int i = 0; i < g->plan->n_kv; i++) {
        const KvLayer *l = &g->plan->kv[i];
        if (l->kind == KV_STATE && g->config.n_kept > 1) g->config.n_kept = 1;
        g->forgets |= l->kind == KV_STATE || l->window;
    }
}

bool engine_prepare(const Model *m, const EngineConfig *config, Engine **out, Err *e) {
    const ExecOps *ops = ops_of(config);
    Engine *g = mem_new(1, sizeof *g);
    g->model = m;
    g->config = *config;
    g->exec_ops = ops;
    if (!config->chunk) g->config.chunk = ops->prompt_chunk;
    bool ok = (g->plan = engine_build_plan(m, config, e)) && check_vocab(g, e) &&
              exec_check_kv(g->plan, config->kv_type, e) && exec_check_context(g->plan, config->n_ctx, e);
    if (ok) find_kinds(g);
    if (!ok || !engine_configure(g, e)) {
        engine_close(g);
        return false;
    }
    g->chunk = engine_chunk_of(&g->config);
    g->n_slots = g->exec_config.n_seq;
    *out = g;
    return true;
}

bool engine_load(Engine *g, Err *e) {
    if (!exec_fits(&g->memory)) return engine_too_large(g, e);
    if (!weights_load(g->plan->weights, g->config.n_threads, g->config.stop, e)) return false;
    if (!g->exec_ops->open(g->plan, &g->exec_config, &g->exec, e)) return false;
    g->logits = op_in(&g->plan->ops[g->plan->n_ops - 1], 0);
    open_batch(g);
    open_slots(g);
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

void engine_close(Engine *g) {
    if (!g) return;
    for (int i = 0; i < g->n_tasks; i++) {
        engine_free_task(g->tasks[i]);
        free(g->tasks[i]);
    }
    for (int i = 0; g->slots && i < g->n_slots; i++) free(g->slots[i].held);
    if (g->exec) g->exec_ops->close(g->exec);
    plan_free(g->plan);
    free(g->tasks);
    free(g->slots);
    free(g->order);
    free(g->eog);
    free(g->token);
    free(g->seq);
    free(g->position);
    free(g->prompt);
    free(g->out_row);
    free(g->sampled);
    free(g->sampling);
    free(g->loop_tokens);
    free(g);
}

const Plan *engine_plan(const Engine *g) {
    return g->plan;
}

const char *engine_executor(const Engine *g) {
    return g->exec_ops->name;
}

int engine_n_seq(const Engine *g) {
    return g->config.n_seq;
}

int64_t engine_n_positions(const Engine *g) {
    int64_t of_each = (int64_t)g->config.n_seq * g->config.n_ctx;
    return g->config.n_positions ? g->config.n_positions : of_each;
}

int engine_chunk(const Engine *g) {
    return g->config.chunk;
}

KvType engine_kv_type(const Engine *g) {
    return g->config.kv_type;
}

ExecCounters engine_counters(const Engine *g) {
    return g->exec_ops->counters(g->exec);
}

double engine_read_bandwidth(Engine *g) {
    return g->exec_ops->read_bandwidth(g->exec);
}

double engine_read_limit(Engine *g) {
    bool is_cached = g->config.device == DEVICE_CPU && (double)g->memory.weights <= cpu_cache_bytes();
    return is_cached ? 0 : engine_read_bandwidth(g);
}
