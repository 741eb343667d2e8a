// ceilings: the one limit that the executor itself asks for, to put beside its times; cuda.h has the others.
#pragma once
#include <cuda_runtime.h>

// Bytes per second at which the current device reads its memory, measured in a part of what is free.
cudaError_t ceilings_read(int n_sm, double *out);
