/* model_type: see model_type.h. */
#include "model_type.h"
#include "../gguf/file_type.h"
#include "../plan/family/family.h"

#include <stdio.h>
#include <string.h>

void bench_size_label(double n_params, Buf *out) {
    double in_unit = n_params < 1e6 ? n_params / 1e3 : n_params < 1e9 ? n_params / 1e6 : n_params / 1e9;
    const char *unit = n_params < 1e6 ? "K" : n_params < 1e9 ? "M" : "B";
    buf_printf(out, "%.*f%s", in_unit < 9.5 ? 1 : 0, in_unit, unit);
}

void bench_model_type(const Gguf *g, const Plan *p, Buf *out) {
    const Hparams *h = &p->hparams;
    bool is_guess;
    const char *file_type = file_type_label(g, &is_guess), *size = family_size(h, plan_n_expert(p));
    buf_printf(out, "%s ", h->arch);
    if (size)
        buf_printf(out, "%s", size);
    else
        bench_size_label(bench_model_params(g), out);
    buf_printf(out, " %s%s", is_guess ? "(guessed) " : "", file_type);
}

double bench_model_bytes(const Gguf *g) {
    double sum = 0;
    for (int64_t i = 0; i < gguf_n_tensors(g); i++) sum += (double)gguf_tensor(g, i)->n_bytes;
    return sum;
}

double bench_model_params(const Gguf *g) {
    double sum = 0;
    for (int64_t i = 0; i < gguf_n_tensors(g); i++) {
        const int64_t *ne = gguf_tensor(g, i)->ne;
        sum += (double)ne[0] * (double)ne[1] * (double)ne[2] * (double)ne[3];
    }
    return sum;
}
