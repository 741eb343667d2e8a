/* ceilings: limits of the CPU and its memory, measured without a model.
 *
 * Bandwidths are the best of a few passes over a block larger than the caches: other programs on the machine
 * only make a pass slower.  A pass is split over the threads as evenly as the weights of a product. */
#include "cpu.h"
#include "../base/clock.h"
#include "../base/mem.h"

#include <stdatomic.h>
#include <string.h>

enum { PASSES = 5, STAGES = 2000 };
static const size_t BLOCK = (size_t)256 << 20;

typedef struct Pass {
    uint64_t *data;
    size_t n; // words per thread
    _Atomic uint64_t sum;
    Pool *pool;
} Pass;

static void read_part(void *arg, int thread) {
    Pass *p = arg;
    uint64_t sum[8] = {0};
    const uint64_t *data = p->data + (size_t)thread * p->n;
    for (size_t i = 0; i < p->n; i += 8)
        for (int k = 0; k < 8; k++) sum[k] += data[i + (size_t)k];
    for (int k = 0; k < 8; k++) atomic_fetch_add(&p->sum, sum[k]);
}

/* The first half of a thread's part to its second. */
static void copy_part(void *arg, int thread) {
    Pass *p = arg;
    uint64_t *data = p->data + (size_t)thread * p->n;
    memcpy(data + p->n / 2, data, p->n / 2 * sizeof *data);
}

/* A stage whose only work is to take a piece, as every op does. */
static void pass_stage(void *arg, int stage, int thread) {
    Pass *p = arg;
    (void)thread;
    (void)stage;
    atomic_fetch_add_explicit(&p->sum, 1, memory_order_relaxed);
}

static void read_all(Pass *p) {
    pool_run(p->pool, read_part, p);
}

static void copy_all(Pass *p) {
    pool_run(p->pool, copy_part, p);
}

static void pass_all(Pass *p) {
    pool_stages(p->pool, pool_n(p->pool), STAGES, pass_stage, p);
}

static double least_seconds(Pass *p, void (*pass)(Pass *)) {
    double least = 0;
    for (int i = 0; i < PASSES; i++) {
        double start = clock_now();
        pass(p);
        double seconds = clock_now() - start;
        if (i == 0 || seconds < least) least = seconds;
    }
    return least;
}

static bool open_pass(Pass *p, Pool *pool) {
    *p = (Pass){.data = mem_try(BLOCK), .n = BLOCK / 8 / (size_t)pool_n(pool) / 16 * 16, .pool = pool};
    if (p->data) memset(p->data, 1, BLOCK);
    return p->data != NULL;
}

static double bytes(const Pass *p) {
    return (double)(p->n * 8 * (size_t)pool_n(p->pool));
}

double cpu_read_bandwidth(Pool *pool) {
    Pass p;
    if (!open_pass(&p, pool)) return 0;
    double rate = bytes(&p) / least_seconds(&p, read_all);
    mem_release(p.data, BLOCK);
    return rate;
}

bool cpu_ceilings(int n_threads, Ceilings *out, Err *e) {
    Pass p;
    Pool *pool = pool_open(n_threads);
    bool ok = open_pass(&p, pool) ||
              err_set(e, ERR_MEMORY, "there are no %zu MB of memory to measure in", BLOCK >> 20);
    if (ok)
        *out = (Ceilings){.read = bytes(&p) / least_seconds(&p, read_all),
                          .copy = bytes(&p) / least_seconds(&p, copy_all),
                          .boundary = least_seconds(&p, pass_all) / STAGES};
    pool_close(pool);
    if (p.data) mem_release(p.data, BLOCK);
    return ok;
}
