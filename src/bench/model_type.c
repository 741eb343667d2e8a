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

/* The parameters that a label names: 8x7B, 30B.A3B (without the part that is active), 410M; 0: it names none. */
static double label_params(const char *label) {
    double n = 0, each = 1;
    char unit = 0;
    if (sscanf(label, "%lfx%lf%c", &n, &each, &unit) != 3 && sscanf(label, "%lf%c", &n, &unit) != 2) return 0;
    return n * each * (unit == 'B' ? 1e9 : unit == 'M' ? 1e6 : 0);
}

void bench_true_size(const char *label, double n_params, Buf *out) {
    double n = label ? label_params(label) : 0;
    bool is_named = label && label[0] != '?' && (n == 0 || (n < 1.5 * n_params && n_params < 1.5 * n));
    if (is_named)
        buf_printf(out, "%s", label);
    else
        bench_size_label(n_params, out);
}

void bench_model_type(const Gguf *g, const Plan *p, Buf *out) {
    const Hparams *h = &p->hparams;
    bool is_guess;
    const char *file_type = file_type_label(g, &is_guess), *size = family_size(h, plan_n_expert(p));
    buf_printf(out, "%s ", h->arch);
    bench_true_size(size, bench_model_params(g), out);
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
