/* avx2: the table for AVX2, FMA and F16C: x86-64 since Haswell and Zen.
 * Compiled with these instructions allowed, so nothing here runs before supported() has said yes. */
#include "vec_avx2.h"

#include "kernels_simd.h"
#include "tables.h"

/* Asks the processor and whether the kernel saves the registers. */
static bool supported(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

const Kernels kernels_avx2 = {
    .name = "avx2",
    .supported = supported,
    .any_act = false,
    .matmul_q8 = matmul_q8,
    .matmul_f32 = matmul_f32,
    .quantize = quantize,
    .rms_norm = rms_norm,
    .silu_mul = silu_mul,
    .to_f16 = to_f16,
    .attn = attn,
};
