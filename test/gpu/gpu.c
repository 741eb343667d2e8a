/* gpu: see gpu.h. */
#include "gpu.h"

const char *gpu_missing(void) {
    static Err e;
    static bool asked, there;
    CudaDevice device;
    if (!asked) {
        there = cuda_device(0, &device, &e);
        asked = true;
    }
    return there ? NULL : e.text;
}

static bool join(Rig *rig, const DecodeRow *row, int n_steps, Err *e) {
    DecodeStart start = {row->token, row->position, n_steps, row->params};
    rig_go_back(rig, row->seq, row->position);
    return rig->ops->decode_join(rig->exec, row->seq, &start, e);
}

bool gpu_decode(Rig *rig, const DecodeRow *rows, int n, int n_steps, int32_t *out, Err *e) {
    int32_t tokens[RIG_MAX_ROWS];
    bool ok = true;
    for (int i = 0; ok && i < n; i++) ok = join(rig, &rows[i], n_steps, e);
    for (int step = 0; ok && step < n_steps; step++) {
        ok = rig->ops->decode_next(rig->exec, tokens, e);
        for (int i = 0; ok && i < n; i++) out[step * n + i] = tokens[rows[i].seq];
    }
    for (int i = 0; i < n; i++) rig->ops->decode_leave(rig->exec, rows[i].seq);
    return ok;
}

double gpu_nmse(const float *a, const float *b, size_t n) {
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        power += (double)b[i] * b[i];
    }
    return error / power;
}
