/* none: cuda.h in builds without a CUDA compiler: every function fails, with this reason. */
#include "cuda.h"

static bool refuse(Err *e) {
    return err_set(
        e, ERR_RUN,
        "this zgen was built without CUDA; install the CUDA toolkit and run make again, or use --device cpu");
}

bool cuda_device(int index, CudaDevice *out, Err *e) {
    (void)index;
    (void)out;
    return refuse(e);
}

bool cuda_ceilings(int index, Ceilings *out, Err *e) {
    (void)index;
    (void)out;
    return refuse(e);
}

static bool none_memory(const Plan *p, const ExecConfig *config, ExecMemory *out, Err *e) {
    (void)p;
    (void)config;
    (void)out;
    return refuse(e);
}

static bool none_open(const Plan *p, const ExecConfig *config, Exec **out, Err *e) {
    (void)p;
    (void)config;
    (void)out;
    return refuse(e);
}

const ExecOps cuda_exec = {.name = "cuda", .can = &cuda_capability, .memory = none_memory, .open = none_open};
