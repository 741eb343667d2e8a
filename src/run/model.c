/* model: see model.h. */
#include "model.h"

extern const uint8_t demo_model[], demo_model_end[]; // models/demo.S

static bool open_tok(Model *m, const char *pre) {
    if (!tok_open_as(m->gguf, pre, &m->tok, &m->tok_err)) m->tok = NULL;
    return true;
}

bool model_open_as(const char *path, const char *pre, Model *out, Err *e) {
    *out = (Model){0};
    bool ok = path ? gguf_open(path, &out->gguf, e)
                   : gguf_open_bytes(demo_model, (size_t)(demo_model_end - demo_model), "the demo model",
                                     &out->gguf, e);
    return ok && open_tok(out, pre);
}

bool model_open_bytes(const void *bytes, size_t n, const char *label, Model *out, Err *e) {
    *out = (Model){0};
    return gguf_open_bytes(bytes, n, label, &out->gguf, e) && open_tok(out, NULL);
}

bool model_open(const char *path, Model *out, Err *e) {
    return model_open_as(path, NULL, out, e);
}

void model_close(Model *m) {
    tok_close(m->tok);
    gguf_close(m->gguf);
    *m = (Model){0};
}

bool model_need_tok(const Model *m, Err *e) {
    if (!m->tok) *e = m->tok_err;
    return m->tok != NULL;
}
