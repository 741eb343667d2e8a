/* cuda: the executor on an NVIDIA GPU.  No CUDA type leaves this folder. */
#ifndef ZGEN_CUDA_CUDA_H
#define ZGEN_CUDA_CUDA_H

#include "../src/exec/exec.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const ExecOps cuda_exec;
extern const Capability cuda_capability; // cuda_exec.can

typedef struct CudaDevice {
    char name[128];
    int major, minor;    // compute capability
    int driver, runtime; // versions as CUDA counts them: 13000 is 13.0
    size_t free_bytes, total_bytes;
    bool shares_host_tables; // managed memory is the host's own: no copies needed
} CudaDevice;

/* Describes GPU number `index`.  false: ERR_RUN with a sentence that names the reason: no driver, no GPU, a
 * driver or architecture too old for this build, or a build without CUDA. */
bool cuda_device(int index, CudaDevice *out, Err *e);

/* The limits of GPU number `index`, measured for about a second.  false: as above, or ERR_MEMORY. */
bool cuda_ceilings(int index, Ceilings *out, Err *e);

#ifdef __cplusplus
}
#endif
#endif
