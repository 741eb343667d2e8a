/* pool: stages come one behind the other with any number of threads and processors, and no thread is waited for that
 * does not run. */
#include "check.h"
#include "../../src/base/clock.h"
#include "../../src/base/mem.h"
#include "../../src/base/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { MAX_TEAM = 40, PIECES = 5, MAX_STAGES = 400 };

typedef struct Team {
    int done[MAX_STAGES][PIECES]; // plain ints: a stage must see what the one before wrote
    atomic_int next[MAX_STAGES];  // piece of each stage
    atomic_int n_wrong;           // stages that began before the end of the one before, or twice on a thread
    int latest[MAX_TEAM];         // stage that each thread was in
    atomic_int n_calls[MAX_TEAM]; // of each thread
} Team;

static void take_pieces(void *arg, int stage, int thread) {
    Team *t = arg;
    if (t->latest[thread] >= stage) atomic_fetch_add(&t->n_wrong, 1);
    t->latest[thread] = stage;
    atomic_fetch_add(&t->n_calls[thread], 1);
    for (int i; (i = atomic_fetch_add(&t->next[stage], 1)) < PIECES;) {
        for (int k = 0; stage > 0 && k < PIECES; k++)
            if (t->done[stage - 1][k] != stage) atomic_fetch_add(&t->n_wrong, 1);
        t->done[stage][i] = stage + 1;
    }
}

static void check_run(Pool *pool, int n_threads, int n_stages) {
    Team *t = mem_new(1, sizeof *t);
    for (int i = 0; i < MAX_TEAM; i++) t->latest[i] = -1;
    pool_stages(pool, n_threads, n_stages, take_pieces, t);
    for (int s = 0; s < n_stages; s++)
        for (int i = 0; i < PIECES; i++)
            CHECK(t->done[s][i] == s + 1, "stage %d, piece %d of a team of %d", s, i, pool_n(pool));
    CHECK(atomic_load(&t->n_wrong) == 0, "team of %d: %d too early", pool_n(pool), atomic_load(&t->n_wrong));
    CHECK(t->latest[0] <= n_stages - 1);
    free(t);
}

static void check_team(int n, int n_stages, int runs) {
    Pool *pool = pool_open(n);
    CHECK(pool_n(pool) == n, "a team of %d", n);
    for (int i = 0; i < runs; i++)
        check_run(pool, 1 + i % (n + 1), i % 5 ? n_stages : 0); // n + 1: more than there are
    pool_close(pool);
}

TEST(pool_stages_come_one_behind_the_other) {
    for (int n = 1; n <= 8; n++) check_team(n, 300, 60);
}

TEST(pool_has_more_threads_than_processors) {
    check_team(MAX_TEAM, MAX_STAGES, 50);
}

/* About 10 us, and longer on other threads, so that these are often late for the next run. */
static void spend_time(void *arg, int stage, int thread) {
    (void)stage;
    for (int i = 0; i < (thread ? 60000 : 20000); i++)
        atomic_load_explicit((atomic_int *)arg, memory_order_relaxed);
}

/* A stage that a thread of the run before still belongs to is ended without it. */
TEST(pool_runs_with_fewer_threads_than_before) {
    enum { RUNS = 12000 };
    Pool *pool = pool_open(4);
    atomic_int any = 0;
    alarm(120); // ends the test where a run does not end
    for (int i = 0; i < RUNS; i++) pool_stages(pool, i % 4 ? 1 : 4, i % 4 ? 2 : 3, spend_time, &any);
    alarm(0);
    pool_close(pool);
}

TEST(pool_opens_and_closes) {
    for (int i = 0; i < 30; i++) pool_close(pool_open(1 + i % 4)); // without any work
    pool_close(NULL);
    CHECK(pool_cpus() >= 1);
}

static void count(void *arg, int i) {
    atomic_fetch_add(&((atomic_int *)arg)[i], 1);
}

TEST(pool_run_calls_each_share_once) {
    for (int n = 1; n <= 6; n++) {
        Pool *pool = pool_open(n);
        atomic_int calls[6] = {0};
        for (int i = 0; i < 200; i++) pool_run(pool, count, calls);
        for (int i = 0; i < 6; i++)
            CHECK(atomic_load(&calls[i]) == (i < n ? 200 : 0), "share %d of %d", i, n);
        pool_close(pool);
    }
}

/* ---- a thread that the system does not run ---- */

enum { N = 3 };
static const struct timespec STANDSTILL = {.tv_sec = 1};
static pthread_t others[N]; // [1..N-1]
static atomic_int n_known, n_standing;

static void stand_still(int signal) {
    (void)signal;
    atomic_fetch_add(&n_standing, 1);
    nanosleep(&STANDSTILL, NULL);
}

/* A stage of which the caller waits for all threads. */
static void introduce(void *arg, int stage, int thread) {
    (void)arg;
    (void)stage;
    others[thread] = pthread_self();
    atomic_fetch_add(&n_known, 1);
    while (atomic_load(&n_known) < N) nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
}

TEST(pool_waits_for_no_thread_that_does_not_run) {
    struct sigaction action = {.sa_handler = stand_still}, old;
    Pool *pool = pool_open(N);
    REQUIRE(pool_n(pool) == N);
    sigaction(SIGUSR1, &action, &old);
    pool_stages(pool, N, 1, introduce, NULL);
    double begun = clock_now();
    for (int i = 1; i < N; i++) pthread_kill(others[i], SIGUSR1);
    while (atomic_load(&n_standing) < N - 1) nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
    check_run(pool, N, MAX_STAGES);
    double seconds = clock_now() - begun;
    CHECK(seconds < 0.9, "%.3f s", seconds);
    pool_close(pool);
    sigaction(SIGUSR1, &old, NULL);
}
