/* cpu: the executor that runs everywhere. */
#ifndef ZGEN_CPU_CPU_H
#define ZGEN_CPU_CPU_H

#include "../base/pool.h"
#include "../exec/exec.h"

extern const ExecOps cpu_exec;

/* The name of the kernels that `isa` ("auto" or a name) selects on this machine, or NULL. */
const char *cpu_isa(const char *isa);

/* Bytes per second at which the threads of the pool read memory, measured now for less than a second;
 * 0 when there is no room to measure in. */
double cpu_read_bandwidth(Pool *pool);

/* Bytes of the last caches of all CPUs together; 0: the system does not say. */
double cpu_cache_bytes(void);

/* The limits of n_threads of this machine; the boundary is that between two ops without work.  false:
 * ERR_MEMORY. */
bool cpu_ceilings(int n_threads, Ceilings *out, Err *e);

#endif
