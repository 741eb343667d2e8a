/* runner: see runner.h. */
#include "runner.h"
#include "changes.h"
#include "setup.h"
#include "stop.h"
#include "../base/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

bool runner_choose(Runner *r, Err *e) {
    double begun = clock_now();
    bool ok = setup_config(r->options, &r->config, e);
    r->device_seconds = clock_now() - begun;
    return ok;
}

bool runner_open(Runner *r, const char *path, Err *e) {
    r->opened = clock_now();
    return changes_open(r->options, path, &r->model, e);
}

bool runner_prepare(Runner *r, Err *e) {
    return setup_layers(r->options->gpu_layers, r->model.gguf, e) &&
           engine_prepare(&r->model, &r->config, &r->engine, e);
}

static void report_memory(const Runner *r) {
    ExecMemory m = engine_memory(r->engine);
    Buf text = {0};
    engine_print_memory(r->engine, &text);
    notice(&r->options->notices, "%s", text.data);
    if (exec_fits(&m) && !exec_keeps_weights(&m))
        err_warn(
            "weights of %.1f GB and buffers of %.1f GB exceed the %.1f GB of free memory; parts of the "
            "file will be read from the disk for every token",
            (double)m.weights / 1e9, (double)exec_needed(&m) / 1e9, (double)m.free / 1e9);
    buf_free(&text);
}

void runner_warn_untrained(const Runner *r, const char *what, int n, const char *advice) {
    int trained = engine_plan(r->engine)->hparams.n_ctx_train;
    if (n > trained)
        err_warn(
            "%s of %d tokens exceeds the %d that the model was trained with, and beyond these its "
            "predictions are "
            "arbitrary; %s-c %d or less",
            what, n, trained, advice, trained);
}

/* Keeps the pages of the tensors in memory.  A GPU has copies, which need none of them. */
static void lock_weights(const Runner *r) {
    const Gguf *g = r->model.gguf;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    bool ok = true;
    for (int64_t i = 0; ok && i < gguf_n_tensors(g); i++) {
        const GgufTensor *t = gguf_tensor(g, i);
        uintptr_t begin = (uintptr_t)t->data & ~(page - 1);
        ok = mlock((const void *)begin, (uintptr_t)t->data + t->n_bytes - begin) == 0;
    }
    if (!ok)
        err_warn("--mlock: the system does not allow it (%s); ulimit -l is the limit, in KiB",
                 strerror(errno));
}

bool runner_start(Runner *r, Err *e) {
    if (!runner_prepare(r, e)) return false;
    report_memory(r);
    bool ok = engine_load(r->engine, e);
    if (!ok && stop_wanted()) stop_err(e);
    if (ok && r->options->mlock && r->config.device == DEVICE_CPU) lock_weights(r);
    r->load_seconds = clock_now() - r->opened;
    return ok;
}

void runner_report_model(const Runner *r) {
    if (!r->options->model)
        notice(&r->options->notices,
               "using the demo model inside this executable; -m FILE chooses another model");
}

void runner_close(Runner *r) {
    sampling_close(&r->sampling);
    verify_close(r->verify);
    engine_close(r->engine);
    model_close(&r->model);
    *r = (Runner){0};
}

json_t *runner_memory(const Runner *r) {
    ExecMemory m = engine_memory(r->engine);
    return json_pack("{s:s,s:I,s:I,s:I,s:I,s:I}", "executor", engine_executor(r->engine), "weights",
                     (json_int_t)m.weights, "kv", (json_int_t)m.kv, "registers", (json_int_t)m.registers,
                     "scratch", (json_int_t)m.scratch, "free", (json_int_t)m.free);
}
