/* ops_state: CONV, SCAN and DELTA on the CPU, against their formulas in double precision, however the sequences
 * are cut into runs; and the kernels below them, against the scalar ones. */
#include "state_cases.h"
#include "../../src/cpu/cpu.h"
#include "../../src/cpu/kernels.h"

static void check(const StateCase *c) {
    state_check(&cpu_exec, "scalar", c, 5e-6, true);
    state_check(&cpu_exec, "auto", c, 5e-6, true);
}

TEST(op_conv_over_runs_of_any_length) {
    check_convs();
}

TEST(op_scan_over_runs_of_any_length) {
    check_scans();
}

TEST(op_delta_over_runs_of_any_length) {
    check_deltas();
}

/* ---- kernels ------------------------------------------------------------------------------------------- */

enum { STATE_N = 9, STATE_WIDTH = 117 };

static void fill(float *x, int n, unsigned seed) {
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)seed * 0x1p-30f;
    }
}
TEST(kernels_state_equals_the_scalar_one_to_the_bit) {
    float from[STATE_N * STATE_WIDTH], vectors[3][STATE_N], value[STATE_WIDTH];
    fill(from, STATE_N * STATE_WIDTH, 1);
    fill(vectors[0], 3 * STATE_N, 2);
    fill(value, STATE_WIDTH, 3);
    for (int width = 1; width <= STATE_WIDTH; width += 29)
        for (int i = 0; i < kernels_n; i++) {
            float to[2][STATE_N * STATE_WIDTH], out[2][2][STATE_WIDTH];
            if (!kernels_all[i]->supported()) continue;
            for (int k = 0; k < 2; k++) {
                const Kernels *table = k ? kernels_all[i] : &kernels_scalar;
                StateJob job = {STATE_N,    width,      from,  to[k],    vectors[0],
                                vectors[1], vectors[2], value, out[k][0]};
                table->state_recall(&job);
                job.out = out[k][1];
                table->state_update(&job);
                job.from = to[k]; // in place
                table->state_update(&job);
            }
            size_t n = (size_t)width * sizeof(float);
            CHECK(memcmp(out[0][0], out[1][0], n) == 0, "recall of %d columns, %s", width,
                  kernels_all[i]->name);
            CHECK(memcmp(out[0][1], out[1][1], n) == 0, "update of %d columns, %s", width,
                  kernels_all[i]->name);
            CHECK(memcmp(to[0], to[1], STATE_N * n) == 0, "state of %d columns, %s", width,
                  kernels_all[i]->name);
        }
}
