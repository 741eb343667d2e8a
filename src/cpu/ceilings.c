/* ceilings: limits of the CPU and its memory, measured without a model.
 *
 * Bandwidths are the best of a few passes over a block larger than the caches: other programs on the machine
 * only make a pass slower.  A pass is split over the threads as evenly as the weights of a product. */
#include "cpu.h"
#include "../base/clock.h"
#include "../base/mem.h"
#include "../base/proc_file.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { PASSES = 3, STAGES = 2000 };
static const size_t BLOCK = (size_t)256 << 20;

typedef struct Pass {
    uint64_t *data;
    size_t n; // words per thread
    _Atomic uint64_t sum;
    Pool *pool;
    struct Pattern {   // how a thread reads its part: processors differ in what keeps most reads under way
        int n_streams; // places that are read side by side, as the rows of a panel are
        int ahead;     // cache lines that are prefetched ahead of the read, 0: none
    } pattern;
} Pass;

static const struct Pattern patterns[] = {{1, 0}, {1, 16}, {4, 0}, {4, 16}, {16, 4}};
enum { N_PATTERNS = sizeof patterns / sizeof *patterns };

static void read_part(void *arg, int thread) {
    Pass *p = arg;
    enum { LINE = 8 }; // words
    const struct Pattern pattern = p->pattern;
    uint64_t sum[LINE] = {0};
    const uint64_t *data = p->data + (size_t)thread * p->n;
    size_t stream = p->n / (size_t)pattern.n_streams / LINE * LINE, ahead = (size_t)pattern.ahead * LINE;
    for (size_t i = 0; i < stream; i += LINE)
        for (int s = 0; s < pattern.n_streams; s++) {
            const uint64_t *line = data + (size_t)s * stream + i;
            if (ahead) __builtin_prefetch(line + ahead);
            for (int k = 0; k < LINE; k++) sum[k] += line[k];
        }
    for (int k = 0; k < LINE; k++) atomic_fetch_add(&p->sum, sum[k]);
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

/* Of all patterns; a limit is what the best of them reaches. */
static double read_rate(Pass *p) {
    double least = 0;
    for (int i = 0; i < N_PATTERNS; i++) {
        p->pattern = patterns[i];
        double seconds = least_seconds(p, read_all);
        if (i == 0 || seconds < least) least = seconds;
    }
    return bytes(p) / least;
}

double cpu_read_bandwidth(Pool *pool) {
    Pass p;
    if (!open_pass(&p, pool)) return 0;
    double rate = read_rate(&p);
    mem_release(p.data, BLOCK);
    return rate;
}

double cpu_cache_bytes(void) {
    double sum = 0;
    for (int cpu = 0;; cpu++) {
        double first = -1, kib = 0;
        for (int index = 0; index < 8; index++) { // the last one that there is
            char path[100];
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index%d/shared_cpu_list", cpu,
                     index);
            double shared = proc_number(path, "");
            if (shared < 0) break;
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index%d/size", cpu, index);
            first = shared;
            kib = proc_number(path, "");
        }
        if (first < 0) return sum;
        if (first == cpu && kib > 0) sum += 1024 * kib; // counted with the first CPU that has it
    }
}

bool cpu_ceilings(int n_threads, Ceilings *out, Err *e) {
    Pass p;
    Pool *pool = pool_open(n_threads);
    bool ok = open_pass(&p, pool) ||
              err_set(e, ERR_MEMORY, "there are no %zu MB of memory to measure in", BLOCK >> 20);
    if (ok)
        *out = (Ceilings){.read = read_rate(&p),
                          .copy = bytes(&p) / least_seconds(&p, copy_all),
                          .boundary = least_seconds(&p, pass_all) / STAGES};
    pool_close(pool);
    if (p.data) mem_release(p.data, BLOCK);
    return ok;
}
