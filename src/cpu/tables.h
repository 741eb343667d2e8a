/* tables: one per instruction set; kernels.c lists those that this build has. */
#ifndef ZGEN_CPU_TABLES_H
#define ZGEN_CPU_TABLES_H

#include "kernels.h"

extern const Kernels kernels_scalar, kernels_avx2, kernels_avx512;

#endif
