/* pool: a fixed number of threads that run one function together.
 *
 * pool_run calls fn(arg, i) on every thread i of the pool, the caller being thread 0, and returns when all
 * calls have. Inside fn, pool_barrier waits until all threads have reached it.  A barrier takes a few hundred
 * nanoseconds while all threads run: a waiting thread spins for about 50 us, then sleeps, so that an idle
 * pool takes no CPU time. */
#ifndef ZGEN_BASE_POOL_H
#define ZGEN_BASE_POOL_H

typedef struct Pool Pool;

/* n >= 1 threads, the caller included.  Fewer when the system refuses more: pool_n is their number. */
Pool *pool_open(int n);
void pool_close(Pool *p); // NULL is fine
int pool_n(const Pool *p);

void pool_run(Pool *p, void (*fn)(void *arg, int thread), void *arg);
void pool_barrier(Pool *p); // by every thread of the pool, inside fn

/* CPUs that this process may use the whole time: by its affinity mask and its control groups; at least 1. */
int pool_cpus(void);

#endif
