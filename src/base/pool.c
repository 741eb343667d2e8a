/* pool: see pool.h.  The one trick: the number of the current stage and of the threads inside it are one word, so that
 * the thread that leaves an empty stage begins the next one, and none enters a stage that is over.
 *
 * Stages are counted through all runs, so that a thread that comes late can tell its stage from the current one.  A
 * stage below `end` is open; a run begins by raising `end`, and is over when the stage has reached it. */
#include "pool.h"
#include "cgroup.h"
#include "mem.h"

#include <assert.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SPINS = 2000 }; // about 50 us: longer than the imbalance of a stage
enum { INSIDE = 16 };  // low bits of Pool.word: threads inside the stage
static const uint64_t STAGE = 1u << INSIDE;

struct Pool {
    int n;
    pthread_t *threads; // [n - 1]
    struct Worker {
        Pool *pool;
        int thread;
    } * workers;           // [n]
    pthread_mutex_t start; // held until n is final
    PoolStage *fn;         // of the run, as the two below
    void *arg;
    uint64_t first;          // its stage 0
    _Atomic uint64_t end;    // the stage behind its last
    atomic_int n_part;       // threads that take part in it
    atomic_bool stop;        // for pool_close
    atomic_int signal;       // changes for threads that sleep
    atomic_bool is_sleeping; // a thread sleeps, or will
    _Alignas(64) _Atomic uint64_t word;
};

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void sleep_while(atomic_int *at, int value) {
    syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake_all(atomic_int *at) {
    syscall(SYS_futex, at, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Behind each change that a sleeping thread may wait for. */
static void wake(Pool *p) {
    if (!atomic_load(&p->is_sleeping) || !atomic_exchange(&p->is_sleeping, false)) return;
    atomic_fetch_add(&p->signal, 1);
    wake_all(&p->signal);
}

static uint64_t stage_of(const Pool *p) {
    return atomic_load(&p->word) >> INSIDE;
}

/* Enters the current stage and returns true with its number; false: none is open. */
static bool enter(Pool *p, uint64_t *stage) {
    uint64_t word = atomic_load(&p->word);
    do {
        *stage = word >> INSIDE;
        if (*stage >= atomic_load(&p->end)) return false;
    } while (!atomic_compare_exchange_weak(&p->word, &word, word + 1));
    return true;
}

/* Of those that leave an empty stage one begins the next; none does where another thread has come in between. */
static void leave(Pool *p) {
    uint64_t word = atomic_fetch_sub(&p->word, 1) - 1;
    if (word % STAGE == 0 && atomic_compare_exchange_strong(&p->word, &word, word + STAGE)) wake(p);
}

/* Whether a stage is open that the thread has not been in, the first of which is `next`; or the caller's run is over; or
 * the pool is closed. */
static bool is_due(const Pool *p, int thread, uint64_t next) {
    uint64_t stage = stage_of(p);
    return (stage >= next && (thread == 0 || stage < atomic_load(&p->end))) || atomic_load(&p->stop);
}

static void wait_for(Pool *p, int thread, uint64_t next) {
    for (int i = 0; i < SPINS; i++) {
        if (is_due(p, thread, next)) return;
        relax();
    }
    for (;;) {
        int signal = atomic_load(&p->signal);
        atomic_store(&p->is_sleeping, true);
        if (is_due(p, thread, next)) return;
        sleep_while(&p->signal, signal);
    }
}

/* Takes part in the current stage, and returns the first that the thread has not been in. */
static uint64_t take_part(Pool *p, int thread, uint64_t next) {
    uint64_t stage;
    if (!enter(p, &stage)) return next;
    p->fn(p->arg, (int)(stage - p->first), thread);
    leave(p);
    return stage + 1;
}

static void *work(void *arg) {
    const struct Worker *w = arg;
    Pool *p = w->pool;
    pthread_mutex_lock(&p->start);
    pthread_mutex_unlock(&p->start);
    for (uint64_t next = 0; !atomic_load(&p->stop);) {
        int n_part = atomic_load(&p->n_part);
        if (w->thread >= n_part) {
            sleep_while(&p->n_part, n_part);
            continue;
        }
        wait_for(p, w->thread, next);
        if (!atomic_load(&p->stop)) next = take_part(p, w->thread, next);
    }
    return NULL;
}

Pool *pool_open(int n) {
    assert(n >= 1 && n < 1 << INSIDE);
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

static void set_part(Pool *p, int n) {
    if (atomic_exchange(&p->n_part, n) < n) wake_all(&p->n_part);
}

void pool_stages(Pool *p, int n_threads, int n_stages, PoolStage *fn, void *arg) {
    assert(n_threads >= 1);
    p->fn = fn;
    p->arg = arg;
    p->first = stage_of(p);
    uint64_t next = p->first, end = p->first + (uint64_t)n_stages;
    set_part(p, n_threads < p->n ? n_threads : p->n);
    atomic_store(&p->end, end);
    wake(p);
    while (stage_of(p) < end) {
        wait_for(p, 0, next);
        next = take_part(p, 0, next);
    }
}

typedef struct Shares {
    void (*fn)(void *, int);
    void *arg;
    atomic_int next;
    int n;
} Shares;

static void take_shares(void *arg, int stage, int thread) {
    Shares *s = arg;
    (void)stage;
    (void)thread;
    for (int i; (i = atomic_fetch_add(&s->next, 1)) < s->n;) s->fn(s->arg, i);
}

void pool_run(Pool *p, void (*fn)(void *, int), void *arg) {
    Shares s = {.fn = fn, .arg = arg, .n = p->n};
    pool_stages(p, p->n, 1, take_shares, &s);
}

void pool_close(Pool *p) {
    if (!p) return;
    atomic_store(&p->stop, true);
    set_part(p, p->n);
    wake(p);
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
