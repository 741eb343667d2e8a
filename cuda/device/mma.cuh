// mma: instructions of the tensor cores, and asynchronous copies.  Thin names for instructions of sm_80 and
// later.
//
// A fragment is a small matrix spread over a warp.  With row = lane / 4 and pair = lane % 4 * 2, of which a
// register holds two neighbouring columns (A) or rows (B), the registers of a lane hold
//     A, 16 x 16 f16   a[0] (row, pair), a[1] (row + 8, pair), a[2] (row, pair + 8), a[3] (row + 8, pair + 8)
//     B, 16 x 8 f16    b[0] (pair, row), b[1] (pair + 8, row)
//     C, 16 x 8 f32    c[0], c[1] (row, pair), (row, pair + 1); c[2], c[3] the same of row + 8
// Fragments are loaded from shared memory as 8 x 8 f16 matrices, one 16-byte row from the address of each
// lane; rows whose distance is an odd multiple of 16 bytes have no bank conflict.
#pragma once
#include "bulk.cuh"
#include "device.cuh"

// 16 bytes from device memory to shared memory, or 16 zeros.
__device__ inline void copy_async(uint32_t to, const void *from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
}
__device__ inline void copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

__device__ inline void store_shared(uint32_t to, uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x), "r"(y), "r"(z), "r"(w)
                 : "memory");
}

// Waits until at most PENDING of this thread's committed groups are under way.
template <int PENDING> __device__ inline void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Four 8 x 8 matrices; lanes 8i..8i + 7 give the shared addresses of the rows of matrix i.
__device__ inline void load_matrices(uint32_t m[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(row));
}
__device__ inline void load_matrices_transposed(uint32_t m[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(row));
}
__device__ inline void load_two_matrices_transposed(uint32_t m[2], uint32_t row) { // of lanes 0..15
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(m[0]), "=r"(m[1])
                 : "r"(row));
}
__device__ inline uint32_t transpose_matrix(uint32_t m) {
    uint32_t t;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(t) : "r"(m));
    return t;
}

// c += a b
__device__ inline void multiply(float c[4], const uint32_t a[4], const uint32_t b[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// 2^x for x <= 0 within 2 units of the last place; results below 2^-126 are 0.
__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
