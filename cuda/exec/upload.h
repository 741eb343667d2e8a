/* upload: weights from the file mapping into device memory, repacked into the tiles of layout.h.
 *
 * All matrices of a plan lie in one allocation, sized by a first pass over its ops.  A transfer of rows goes
 * from the page cache to pinned memory (copied by all threads), to device memory, and into the tiles of its
 * tensor (repacked by a kernel); several transfers are under way at once, so that the bus is never idle. */
#ifndef ZGEN_CUDA_UPLOAD_H
#define ZGEN_CUDA_UPLOAD_H

#include "../launch.h"

#ifdef __cplusplus
extern "C" {
#endif
#include "../../src/base/err.h"
#include "../../src/plan/plan.h"

typedef struct Upload Upload; // owns the weights on the device

size_t upload_bytes(const Plan *p); // device memory for the weights of a plan

/* Allocates device memory for the weights of all ops of the plan, or managed memory that the host shares, and
 * starts n_threads >= 1 threads that read the file.  NULL: ERR_MEMORY with the bytes needed and free, ERR_RUN
 * with CUDA's reason. */
Upload *upload_open(const Plan *p, bool managed, int n_threads, Err *e);

/* Starts to send a weight of the plan, once, and describes where it will lie.  false: ERR_RUN with CUDA's
 * reason. */
bool upload_tensor(Upload *u, const Weight *w, DeviceWeight *out, Err *e);

/* Waits until all weights are in place, and frees everything but these. */
bool upload_finish(Upload *u, Err *e);

void upload_close(Upload *u); // frees the weights too; NULL: nothing to do

#ifdef __cplusplus
}
#endif
#endif
