/* matrix: see matrix.h. */
#include "matrix.h"
#include "device.h"
#include "gpu.h"
#include "tiny.h"
#include "../../src/exec/act.h"

int stride_of(int width) {
    return (width + 15) / 16 * 16;
}

float *floats_new(size_t n, uint64_t *state) {
    float *v = mem_new(n, sizeof *v);
    for (size_t i = 0; i < n; i++) v[i] = tiny_float(state);
    return v;
}

Matrix matrix_new(QuantType type, int n_in, int n_out, int n_expert, uint64_t *state) {
    const QuantTraits *t = quant_traits(type);
    size_t n_rows = (size_t)n_out * (size_t)n_expert, row_bytes = (size_t)(n_in / t->n_weights) * t->n_bytes;
    uint8_t *data = mem_new(n_rows, row_bytes);
    tiny_blocks(type, data, n_rows * (size_t)(n_in / t->n_weights), state);
    Matrix m = {.w = {"test.weight", type, n_in, n_out, n_expert, data, row_bytes, NULL}};
    if (type == QUANT_FP8_E4M3) m.w.scale = floats_new(n_rows, state);
    m.decoded = mem_new(n_rows * (size_t)n_in, sizeof *m.decoded);
    t->decode(data, n_rows * (size_t)(n_in / t->n_weights), m.decoded);
    return m;
}

/* An uploader is opened for a plan: one of a single op will do. */
void matrix_upload(Matrix *m) {
    Op op = {.n_w = 1, .w = {&m->w}};
    Plan plan = {.ops = &op, .n_ops = 1};
    Err e;
    m->upload = upload_open(&plan, false, 1, &e);
    bool ok = m->upload && upload_tensor(m->upload, &m->w, &m->device, &e) && upload_finish(m->upload, &e);
    CHECK(ok, "%s", e.text);
}

void matrix_free(Matrix *m) {
    upload_close(m->upload);
    free((void *)m->w.data);
    free((void *)m->w.scale);
    free(m->decoded);
}

void matrix_multiply(const Matrix *m, int expert, const float *x, bool exact, double *y) {
    const QuantTraits *t = quant_traits(m->w.type);
    int n_in = m->w.n_in;
    bool eight_bits = t->act == QUANT_ACT_Q8 && !exact;
    void *row = eight_bits ? aligned_alloc(64, act8_bytes(n_in)) : NULL;
    Act8 q8 = {0};
    if (eight_bits) {
        q8 = act8_view(row, n_in);
        act8_quantize(x, n_in, q8);
    }
    for (int r = 0; r < m->w.n_out; r++) {
        size_t at = (size_t)expert * (size_t)m->w.n_out + (size_t)r;
        const float *w = m->decoded + at * (size_t)n_in;
        double sum = eight_bits ? act8_dot(t, m->w.data + at * m->w.row_bytes, n_in, q8) : 0;
        for (int k = 0; k < n_in && !eight_bits; k++) sum += (double)w[k] * x[k];
        y[r] = m->w.scale ? sum * m->w.scale[at] : sum;
    }
    free(row);
}
