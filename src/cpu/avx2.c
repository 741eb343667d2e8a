/* avx2: the table for AVX2, FMA and F16C: x86-64 since Haswell and Zen.
 * Compiled with these instructions allowed, so nothing here runs before supported() has said yes. */
#include "vec_avx2.h"

#include "kernels_simd.h"

#include <cpuid.h>

/* Asks the processor and whether the kernel saves the registers; clang's builtin does not know F16C by name.
 */
static bool supported(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) && __builtin_cpu_supports("avx2") &&
           __builtin_cpu_supports("fma");
}

const Kernels kernels_avx2 = {.name = "avx2", .supported = supported, SIMD_KERNELS};
