/* model: see model.h. */
#include "model.h"
#include "../base/buf.h"
#include "../cpu/cpu.h"
#include "../gguf/zeros.h"
#include "../plan/file_kind.h"
#include "../plan/plan.h"

extern const uint8_t demo_model[], demo_model_end[]; // models/demo.S

static bool open_tok(Model *m, const char *pre) {
    if (!tok_open_as(m->gguf, pre, &m->tok, &m->tok_err)) m->tok = NULL;
    return true;
}

static bool set_key(Gguf *g, const ModelKey *key, Err *e) {
    GgufString arch = {"", 0};
    Buf name = {0};
    bool is_short = key->name[0] == '.';
    if (is_short && !gguf_get_string(g, "general.architecture", &arch, e)) return false;
    buf_printf(&name, "%.*s%s", (int)(arch.n < 64 ? arch.n : 64), arch.data, key->name);
    bool ok = gguf_set(g, name.data, key->value, e);
    buf_free(&name);
    return ok;
}

bool model_open_as(const char *path, const ModelChanges *changes, Model *out, Err *e) {
    *out = (Model){0};
    bool ok = path ? gguf_open(path, &out->gguf, e)
                   : gguf_open_bytes(demo_model, (size_t)(demo_model_end - demo_model), "the demo model",
                                     &out->gguf, e);
    if (ok) zeros_warn(out->gguf);
    for (int i = 0; ok && i < changes->n_keys; i++) ok = set_key(out->gguf, &changes->keys[i], e);
    return ok && open_tok(out, changes->pre);
}

bool model_open_bytes(const void *bytes, size_t n, const char *label, Model *out, Err *e) {
    *out = (Model){0};
    return gguf_open_bytes(bytes, n, label, &out->gguf, e) && open_tok(out, NULL);
}

bool model_open(const char *path, Model *out, Err *e) {
    return model_open_as(path, &(ModelChanges){0}, out, e);
}

void model_close(Model *m) {
    tok_close(m->tok);
    gguf_close(m->gguf);
    *m = (Model){0};
}

bool model_need_tok(const Model *m, Err *e) {
    if (m->tok || !file_kind_check(m->gguf, e)) return m->tok != NULL;
    *e = m->tok_err;
    return false;
}

bool model_need_text(const Model *m, Err *e) {
    if (m->tok) return true;
    Plan *p = plan_build(m->gguf, &(PlanConfig){.can = *cpu_exec.can}, e);
    plan_free(p);
    if (p && m->tok_err.code != ERR_MODEL) *e = m->tok_err; // of --pre
    if (p && m->tok_err.code == ERR_MODEL)
        err_set(e, ERR_MODEL, "%s; info and logits --ids work with this file", m->tok_err.text);
    return false;
}
