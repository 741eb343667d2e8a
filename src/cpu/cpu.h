/* cpu: the executor that runs everywhere. */
#ifndef ZGEN_CPU_CPU_H
#define ZGEN_CPU_CPU_H

#include "../exec/exec.h"

extern const ExecOps cpu_exec;

/* The name of the kernels that `isa` ("auto" or a name) stands for on this machine, or NULL. */
const char *cpu_isa(const char *isa);

/* Bytes per second at which n_threads read memory, measured now for about a tenth of a second. */
double cpu_read_bandwidth(int n_threads);

#endif
