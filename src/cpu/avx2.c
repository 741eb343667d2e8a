/* avx2: the table for AVX2, FMA and F16C: x86-64 since Haswell and Zen.
 * Compiled with these instructions allowed: no function here may run before supported() has returned true. */
#include "vec_avx2.h"

#include "kernels_simd.h"

#include <cpuid.h>

/* Whether the processor has the instructions and the kernel saves the registers; by cpuid, because the
 * builtin of clang does not accept "f16c". */
static bool supported(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) && __builtin_cpu_supports("avx2") &&
           __builtin_cpu_supports("fma");
}

const Kernels kernels_avx2 = {.name = "avx2", .supported = supported, SIMD_KERNELS};
