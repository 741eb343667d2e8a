/* pool: see pool.h.  The one trick: one generation counter is both the starting signal and the barrier; the
 * futex on it is called only when a thread has stopped spinning. */
#include "pool.h"
#include "cgroup.h"
#include "mem.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SPINS = 2000 }; // about 50 us: longer than the imbalance of an op

typedef struct Gate { // a barrier: passed once per generation, when all n threads have arrived
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_int generation;
    atomic_int sleepers;
} Gate;

struct Pool {
    int n;
    pthread_t *threads; // [n - 1]
    void (*fn)(void *, int);
    void *arg;
    bool stop;
    pthread_mutex_t start; // held until n is final
    Gate gate;
    struct Worker {
        Pool *pool;
        int thread;
    } * workers;
};

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void gate_wait(Gate *g, int generation) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&g->generation, memory_order_acquire) != generation) return;
        relax();
    }
    atomic_fetch_add(&g->sleepers, 1);
    while (atomic_load(&g->generation) == generation)
        syscall(SYS_futex, &g->generation, FUTEX_WAIT_PRIVATE, generation, NULL, NULL, 0);
    atomic_fetch_sub(&g->sleepers, 1);
}

static void gate_pass(Gate *g, int n) {
    int generation = atomic_load_explicit(&g->generation, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&g->arrived, 1, memory_order_acq_rel) + 1 < n) {
        gate_wait(g, generation);
        return;
    }
    atomic_store_explicit(&g->arrived, 0, memory_order_relaxed);
    atomic_store(&g->generation, (int)(generation + 1u)); // wraps around after 2^32 barriers
    if (atomic_load(&g->sleepers))
        syscall(SYS_futex, &g->generation, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void pool_barrier(Pool *p) {
    if (p->n > 1) gate_pass(&p->gate, p->n);
}

static void *work(void *arg) {
    struct Worker *w = arg;
    pthread_mutex_lock(&w->pool->start);
    pthread_mutex_unlock(&w->pool->start);
    for (;;) {
        pool_barrier(w->pool); // until pool_run or pool_close
        if (w->pool->stop) return NULL;
        w->pool->fn(w->pool->arg, w->thread);
        pool_barrier(w->pool);
    }
}

Pool *pool_open(int n) {
    Pool *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
    if (!p) p = mem_new(1, 0); // prints the error and exits
    *p = (Pool){.n = n,
                .threads = mem_new((size_t)n, sizeof(pthread_t)),
                .workers = mem_new((size_t)n, sizeof(struct Worker))};
    int made = 1;
    pthread_mutex_init(&p->start, NULL);
    pthread_mutex_lock(&p->start);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 1 << 20);
    while (made < n) {
        p->workers[made] = (struct Worker){p, made};
        if (pthread_create(&p->threads[made - 1], &attributes, work, &p->workers[made]) != 0) break;
        made++;
    }
    pthread_attr_destroy(&attributes);
    p->n = made;
    pthread_mutex_unlock(&p->start);
    return p;
}

void pool_run(Pool *p, void (*fn)(void *, int), void *arg) {
    p->fn = fn;
    p->arg = arg;
    pool_barrier(p);
    fn(arg, 0);
    pool_barrier(p);
}

void pool_close(Pool *p) {
    if (!p) return;
    p->stop = true;
    pool_barrier(p);
    for (int i = 0; i + 1 < p->n; i++) pthread_join(p->threads[i], NULL);
    pthread_mutex_destroy(&p->start);
    free(p->threads);
    free(p->workers);
    free(p);
}

int pool_n(const Pool *p) {
    return p->n;
}

int pool_cpus(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1, quota = cgroup_cpus("");
    return n < 1 ? 1 : n < quota ? n : quota;
}
