/* pool: see pool.h.  The one trick: members.  The threads that are expected in the current stage, and those of them that
 * have arrived at its end, are counted in one word with the number of the stage, so that a stage costs a barrier of
 * its members.  A thread that waits at its end for some microseconds removes the members that have not begun it; one that
 * goes to sleep, but for the caller's, removes itself.  A thread that is no member joins the current stage when it runs.
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

enum { SPINS = 2000 };   // about 50 us: longer than the imbalance of a stage
enum { PATIENCE = 300 }; // spins after which members that have not begun the stage are removed
enum { COUNT = 11 };     // bits of each of the two counts in Pool.word; the others count years of stages
static const uint64_t ARRIVED = 1, MEMBER = 1 << COUNT, STAGE = 1 << 2 * COUNT;

enum { OUT, IDLE, BUSY }; // a thread is no member; it is one and awaits a stage; or is inside it

typedef struct Worker {
    _Alignas(64) _Atomic uint64_t state; // one of these, and the stage: see state_of
    Pool *pool;
    int thread;
} Worker;

struct Pool {
    int n;
    pthread_t *threads;    // [n - 1]
    Worker *workers;       // [n]
    pthread_mutex_t start; // held until n is final
    PoolStage *fn;         // of the run, as the two below
    void *arg;
    uint64_t first;                     // its stage 0
    _Atomic uint64_t end;               // the stage behind its last
    atomic_int n_part;                  // threads that take part in it
    atomic_bool stop;                   // for pool_close
    atomic_int signal;                  // changes for threads that sleep
    atomic_bool is_sleeping;            // a thread sleeps, or will
    _Alignas(64) _Atomic uint64_t word; // stage, members, arrived
};

static uint64_t stage_of(uint64_t word) {
    return word / STAGE;
}
static uint64_t members_of(uint64_t word) {
    return word / MEMBER % MEMBER;
}
static uint64_t arrived_of(uint64_t word) {
    return word % MEMBER;
}
static uint64_t state_of(uint64_t stage, int what) {
    return 4 * stage + (uint64_t)what;
}

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

/* Begins the next stage where all members of the current one have arrived. */
static void advance(Pool *p, uint64_t word) {
    while (arrived_of(word) > 0 && arrived_of(word) == members_of(word) &&
           stage_of(word) < atomic_load(&p->end))
        if (atomic_compare_exchange_weak(&p->word, &word, word + STAGE - arrived_of(word))) {
            wake(p);
            return;
        }
}

/* A thread whose next stage is `next` is no longer a member.  Where the current stage is an earlier one the thread has
 * arrived in it; if all have, that stage is ended first, so that it is not forgotten with its last member. */
static void remove_member(Pool *p, uint64_t next) {
    uint64_t word = atomic_load(&p->word), less;
    do {
        while (stage_of(word) < next && arrived_of(word) == members_of(word)) {
            advance(p, word);
            word = atomic_load(&p->word);
        }
        less = word - MEMBER - (stage_of(word) < next ? ARRIVED : 0);
    } while (!atomic_compare_exchange_weak(&p->word, &word, less));
    advance(p, less);
}

/* Removes a member that is not inside a stage; none where it is no member or has begun `next`. */
static void take_out(Pool *p, Worker *w, uint64_t next) {
    uint64_t idle = state_of(next, IDLE);
    if (atomic_compare_exchange_strong(&w->state, &idle, OUT)) remove_member(p, next);
}

/* Makes the thread a member in the current stage and returns true with its number; false: none is open. */
static bool join(Pool *p, Worker *w, uint64_t *stage) {
    uint64_t word = atomic_load(&p->word);
    do {
        *stage = stage_of(word);
        if (*stage >= atomic_load(&p->end)) return false;
    } while (!atomic_compare_exchange_weak(&p->word, &word, word + MEMBER));
    atomic_store(&w->state, state_of(*stage, BUSY));
    return true;
}

/* Takes part in the current stage, and returns the first that the thread has not been in. */
static uint64_t take_part(Pool *p, Worker *w, uint64_t next) {
    uint64_t stage = next, idle = state_of(next, IDLE);
    bool is_member = atomic_compare_exchange_strong(&w->state, &idle, state_of(next, BUSY));
    if (!is_member && !join(p, w, &stage)) return next;
    p->fn(p->arg, (int)(stage - p->first), w->thread);
    atomic_store(&w->state, state_of(stage + 1, IDLE));
    advance(p, atomic_fetch_add(&p->word, ARRIVED) + ARRIVED);
    return stage + 1;
}

/* Whether a stage is open that the thread has not been in, the first of which is `next`; or the caller's run is over; or
 * the pool is closed. */
static bool is_due(const Pool *p, int thread, uint64_t next) {
    uint64_t stage = stage_of(atomic_load(&p->word));
    return (stage >= next && (thread == 0 || stage < atomic_load(&p->end))) || atomic_load(&p->stop);
}

/* The caller's thread stays a member while it sleeps: then either it is one, or it has not been in the current stage and
 * will join, so that no stage loses its last member and is forgotten. */
static void wait_for(Pool *p, Worker *w, uint64_t next) {
    for (int i = 0; i < SPINS; i++) {
        if (is_due(p, w->thread, next)) return;
        if (i == PATIENCE && next > 0)
            for (int k = 0; k < p->n; k++) take_out(p, &p->workers[k], next - 1);
        relax();
    }
    if (w->thread > 0) take_out(p, w, next);
    for (;;) {
        int signal = atomic_load(&p->signal);
        atomic_store(&p->is_sleeping, true);
        if (is_due(p, w->thread, next)) return;
        sleep_while(&p->signal, signal);
    }
}

static void *work(void *arg) {
    Worker *w = arg;
    Pool *p = w->pool;
    pthread_mutex_lock(&p->start);
    pthread_mutex_unlock(&p->start);
    for (uint64_t next = 0; !atomic_load(&p->stop);) {
        int n_part = atomic_load(&p->n_part);
        if (w->thread >= n_part) {
            take_out(p, w, next);
            sleep_while(&p->n_part, n_part);
            continue;
        }
        wait_for(p, w, next);
        if (!atomic_load(&p->stop)) next = take_part(p, w, next);
    }
    return NULL;
}

static void *new_lines(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    return p ? p : mem_new(1, SIZE_MAX); // prints the error and exits
}

Pool *pool_open(int n) {
    assert(n >= 1 && n < 1 << COUNT);
    Pool *p = new_lines(sizeof *p);
    *p = (Pool){.n = n,
                .threads = mem_new((size_t)n, sizeof(pthread_t)),
                .workers = new_lines((size_t)n * sizeof(Worker))};
    int made = 1;
    pthread_mutex_init(&p->start, NULL);
    pthread_mutex_lock(&p->start);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 1 << 20);
    for (int i = 0; i < n; i++) p->workers[i] = (Worker){.state = OUT, .pool = p, .thread = i};
    while (made < n && pthread_create(&p->threads[made - 1], &attributes, work, &p->workers[made]) == 0)
        made++;
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
    p->first = stage_of(atomic_load(&p->word));
    uint64_t next = p->first, end = p->first + (uint64_t)n_stages;
    set_part(p, n_threads < p->n ? n_threads : p->n);
    atomic_store(&p->end, end);
    wake(p);
    wait_for(p, &p->workers[0], next);
    while (stage_of(atomic_load(&p->word)) < end) {
        next = take_part(p, &p->workers[0], next);
        wait_for(p, &p->workers[0], next);
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
