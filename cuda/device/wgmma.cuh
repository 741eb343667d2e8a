// wgmma: the matrix instruction of a warpgroup (sm_90a), four neighbouring warps, the first a multiple of four.
//
// c += a b, asynchronously: of a 64 x 16 matrix A each warp has 16 rows in registers, as mma.cuh has them; B, 16
// x N, is in shared memory as N rows of 128 bytes in the 128-byte swizzle, where the 16 bytes number j of row n
// are at j ^ n % 8; each warp has the rows of C that it has of A.  The order is that of commits: registers of A
// and C belong to the instructions until warpgroup_wait.
//
// Without this instruction (HAS_WGMMA) the same C comes from mma.sync, whose sums have the same bits.
#pragma once
#include "mma.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
constexpr bool HAS_WGMMA = true;
#else
constexpr bool HAS_WGMMA = false;
#endif

constexpr int SWIZZLED_ROW = 128; // bytes of a row of B: 64 of k

// Where 16 bytes, number `chunk`, of a row are in the swizzle.
__host__ __device__ constexpr int swizzled(int row, int chunk) {
    return row * SWIZZLED_ROW + (chunk ^ row % 8) * 16;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// The rows of B from an address of shared memory, a multiple of 1024, + 32 bytes for each 16 of k.
__device__ __forceinline__ uint64_t matrix_descriptor(uint32_t at) {
    constexpr uint64_t SWIZZLE_128 = (uint64_t)1 << 62, EIGHT_ROWS = (uint64_t)(8 * SWIZZLED_ROW / 16) << 32;
    return SWIZZLE_128 | EIGHT_ROWS | (uint64_t)1 << 16 | (at & 0x3ffff) >> 4;
}

// Before the first of some instructions: registers are written.
__device__ __forceinline__ void warpgroup_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void warpgroup_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most N committed groups are under way.
template <int N> __device__ __forceinline__ void warpgroup_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

#define C4(i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define C16(i) C4(i), C4(i + 4), C4(i + 8), C4(i + 12)
__device__ __forceinline__ void warpgroup_multiply(float (&c)[16], const uint32_t a[4], uint64_t b) {
    asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, {%16, %17, "
                 "%18, %19}, %20, p, 1, 1, 0;\n}"
                 : C16(0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void warpgroup_multiply(float (&c)[32], const uint32_t a[4], uint64_t b) {
    asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "
                 "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, {%32, %33, "
                 "%34, %35}, %36, p, 1, 1, 0;\n}"
                 : C16(0), C16(16)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void warpgroup_multiply(float (&c)[64], const uint32_t a[4], uint64_t b) {
    asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "
                 "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, "
                 "%35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, "
                 "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, {%64, %65, %66, %67}, "
                 "%68, p, 1, 1, 0;\n}"
                 : C16(0), C16(16), C16(32), C16(48)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#undef C16
#undef C4
#endif
