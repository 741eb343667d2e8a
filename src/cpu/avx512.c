/* avx512: the table for AVX-512 F, BW, VL, DQ and VNNI: Ice Lake, Zen 4 and what followed.
 * Compiled with these instructions allowed: no function here may run before supported() has returned true. */
#include "vec_avx512.h"

#include "kernels_simd.h"

/* Whether the processor has the instructions and the kernel saves the registers. */
static bool supported(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}

const Kernels kernels_avx512 = {.name = "avx512", .supported = supported, SIMD_KERNELS};
