/* zeros: see zeros.h.  Vectors are left out: a bias may be zero. */
#include "zeros.h"

#include <inttypes.h>

enum { SAMPLES = 64, SAMPLE = 64 }; // of a matrix, spread evenly; and bytes of each

static bool is_zero(const uint8_t *p, uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        if (p[i]) return false;
    return true;
}

static bool seems_zero(const GgufTensor *t) {
    uint64_t n = t->n_bytes < SAMPLE ? t->n_bytes : SAMPLE;
    for (uint64_t i = 0; i < SAMPLES; i++)
        if (!is_zero(t->data + (t->n_bytes - n) / SAMPLES * i, n)) return false;
    return is_zero(t->data + t->n_bytes - n, n);
}

void zeros_warn(const Gguf *g) {
    const char *first = NULL;
    int64_t n = 0, n_matrices = 0;
    for (int64_t i = 0; i < gguf_n_tensors(g); i++) {
        const GgufTensor *t = gguf_tensor(g, i);
        if (t->n_dims < 2) continue;
        n_matrices++;
        if (!seems_zero(t)) continue;
        n++;
        if (!first) first = t->name;
    }
    if (first)
        err_warn("%.300s: %" PRId64 " of %" PRId64
                 " matrices are all zero, the first is '%s'; the file is incomplete, "
                 "download it again",
                 gguf_label(g), n, n_matrices, first);
}
