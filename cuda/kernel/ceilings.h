// ceilings: the read bandwidth, which the executor reports beside its times; cuda.h has the other limits.
#pragma once
#include <cuda_runtime.h>

// Bytes per second at which the current device reads its memory, measured in a part of what is free.
cudaError_t ceilings_read(int n_sm, double *out);
