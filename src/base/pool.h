/* pool: a fixed team of threads that run one function together.
 *
 * pool_run calls fn(arg, i) on every thread i of the team, the caller being thread 0, and returns when all
 * are done. Inside, pool_barrier lets the team meet.  A barrier is a few hundred nanoseconds while all are
 * running: waiters spin for a while, then sleep, so that a busy machine or an idle prompt costs nothing. */
#ifndef ZGEN_BASE_POOL_H
#define ZGEN_BASE_POOL_H

typedef struct Pool Pool;

/* n >= 1 threads in all.  Fewer are made when the system refuses more; pool_n says how many. */
Pool *pool_open(int n);
void pool_close(Pool *p);
int pool_n(const Pool *p);

void pool_run(Pool *p, void (*fn)(void *arg, int thread), void *arg);
void pool_barrier(Pool *p); // by every thread of the team, inside pool_run

/* CPUs that this process may use: affinity mask and cgroup quota, at least 1. */
int pool_cpus(void);

#endif
