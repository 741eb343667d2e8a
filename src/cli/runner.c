/* runner: see runner.h. */
#include "runner.h"
#include "setup.h"
#include "stop.h"
#include "../base/clock.h"

bool runner_choose(Runner *r, Err *e) {
    double begun = clock_now();
    bool ok = setup_config(r->options, &r->config, e);
    r->device_seconds = clock_now() - begun;
    return ok;
}

bool runner_open(Runner *r, const char *path, Err *e) {
    r->opened = clock_now();
    return model_open_as(path, r->options->pre, &r->model, e);
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

bool runner_start(Runner *r, Err *e) {
    if (!runner_prepare(r, e)) return false;
    report_memory(r);
    bool ok = engine_load(r->engine, e);
    if (!ok && stop_wanted()) stop_err(e);
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
