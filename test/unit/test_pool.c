/* pool: every thread waits at a barrier for all others, with any number of threads and processors. */
#include "check.h"
#include "../../src/base/mem.h"
#include "../../src/base/pool.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { MAX_TEAM = 40 };

typedef struct Team {
    Pool *pool;
    int n, rounds;
    int *done; // [n] rounds that each thread has begun; plain ints: the barrier must make them visible
    atomic_int n_wrong; // threads that passed a barrier before another thread reached it
    atomic_int n_calls;
} Team;

static void meet(void *arg, int thread) {
    Team *t = arg;
    atomic_fetch_add(&t->n_calls, 1);
    for (int round = 1; round <= t->rounds; round++) {
        t->done[thread]++;
        pool_barrier(t->pool);
        for (int i = 0; i < t->n; i++)
            if (t->done[i] != round) atomic_fetch_add(&t->n_wrong, 1);
        pool_barrier(t->pool); // no thread counts on while another one still reads
    }
}

static void check_team(int n, int rounds, int runs) {
    Pool *pool = pool_open(n);
    Team t = {.pool = pool, .n = pool_n(pool), .rounds = rounds, .done = mem_new((size_t)n, sizeof(int))};
    CHECK(pool_n(pool) == n, "a team of %d", n);
    for (int i = 0; i < runs; i++) {
        for (int k = 0; k < n; k++) t.done[k] = 0;
        pool_run(pool, meet, &t);
        for (int k = 0; k < t.n; k++)
            CHECK(t.done[k] == rounds, "run %d, thread %d of %d: %d rounds", i, k, n, t.done[k]);
    }
    CHECK(atomic_load(&t.n_calls) == runs * t.n && atomic_load(&t.n_wrong) == 0,
          "team of %d: %d calls, %d too early", n, atomic_load(&t.n_calls), atomic_load(&t.n_wrong));
    pool_close(pool);
    free(t.done);
}

TEST(pool_barrier_holds_all_threads) {
    for (int n = 1; n <= 8; n++) check_team(n, 20, n <= pool_cpus() ? 50 : 3);
}

TEST(pool_has_more_threads_than_processors) {
    check_team(MAX_TEAM, 2, 2);
}

TEST(pool_opens_and_closes) {
    for (int i = 0; i < 30; i++) pool_close(pool_open(1 + i % 4)); // without any work
    pool_close(NULL);
    CHECK(pool_cpus() >= 1);
}
