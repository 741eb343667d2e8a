/* gpu: see gpu.h. */
#include "gpu.h"

const char *gpu_missing(void) {
    static Err e;
    static bool asked, there;
    CudaDevice device;
    if (!asked) there = cuda_device(0, &device, &e), asked = true;
    return there ? NULL : e.text;
}

bool gpu_decode(Rig *rig, const Speaker *speakers, int n, int n_steps, int32_t *out, Err *e) {
    static const int32_t history[2048];
    int32_t token[RIG_MAX_ROWS], seq[RIG_MAX_ROWS], position[RIG_MAX_ROWS], out_row[RIG_MAX_ROWS];
    SampleRow sampling[RIG_MAX_ROWS];
    Batch b = {.T = n,
               .R = n,
               .token = token,
               .seq = seq,
               .position = position,
               .out_row = out_row,
               .sampling = sampling};
    for (int i = 0; i < n; i++) {
        const Speaker *s = &speakers[i];
        token[i] = s->token, seq[i] = s->seq, position[i] = s->position, out_row[i] = i;
        sampling[i] = (SampleRow){s->params, history, s->position + 1, (uint64_t)s->position + 1};
    }
    bool ok = rig->ops->decode_start(rig->exec, &b, n_steps, e);
    for (int i = 0; ok && i < n_steps; i++)
        ok = rig->ops->decode_next(rig->exec, out + (size_t)i * (size_t)n, e);
    rig->ops->decode_stop(rig->exec);
    return ok;
}

double gpu_nmse(const float *a, const float *b, size_t n) {
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++)
        error += ((double)a[i] - b[i]) * ((double)a[i] - b[i]), power += (double)b[i] * b[i];
    return error / power;
}
