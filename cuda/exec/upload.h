/* upload: weights from the file mapping into device memory, repacked as layout.h says.
 *
 * All matrices of a plan lie in one allocation, sized by a first pass over its ops.  A piece of a tensor goes
 * the way page cache -> pinned memory (all threads copy) -> device staging -> its place (a kernel repacks),
 * and several pieces are under way at once, so that the bus never waits. */
#ifndef ZGEN_CUDA_UPLOAD_H
#define ZGEN_CUDA_UPLOAD_H

#include "../launch.h"

#ifdef __cplusplus
extern "C" {
#endif
#include "../../src/base/err.h"
#include "../../src/plan/plan.h"

typedef struct Upload Upload; // owns the weights on the device

size_t upload_bytes(const Plan *p); // of device memory for the weights of a plan

/* Allocates device memory for the weights of all ops of the plan, or managed memory that the host shares, and
 * n_threads >= 1 threads that read the file.  NULL: ERR_MEMORY says what is needed and what is free, ERR_RUN
 * what CUDA says. */
Upload *upload_open(const Plan *p, bool managed, int n_threads, Err *e);

/* Sends a weight of the plan on its way, once, and describes where it will lie.  false: ERR_RUN, what CUDA
 * says. */
bool upload_tensor(Upload *u, const Weight *w, DeviceWeight *out, Err *e);

/* Waits until everything is in place, and gives back all but the weights. */
bool upload_finish(Upload *u, Err *e);

void upload_close(Upload *u); // and the weights; NULL is fine

#ifdef __cplusplus
}
#endif
#endif
