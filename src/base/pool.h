/* pool: threads that compute the stages of a run one behind the other.
 *
 * A stage is work that any number of threads does together, each taking pieces from a counter of the caller's until
 * none is left.  It is over when all that have begun it have ended it.  A thread that has not is waited for no longer than
 * some microseconds: on a machine with other work one that the system does not run delays nothing but the piece that it
 * has taken, and joins the stage that is current when it runs again.
 *
 * From one stage to the next takes a few hundred nanoseconds while all threads run: a waiting thread spins for about
 * 50 us, then sleeps, so that an idle pool takes no CPU time. */
#ifndef ZGEN_BASE_POOL_H
#define ZGEN_BASE_POOL_H

typedef struct Pool Pool;

/* n >= 1 threads, the caller included.  Fewer when the system refuses more: pool_n is their number. */
Pool *pool_open(int n);
void pool_close(Pool *p); // NULL is fine
int pool_n(const Pool *p);

/* Calls fn(arg, stage, thread) for the stages 0..n_stages-1 on the calling thread, which is thread 0, and on up to
 * n_threads - 1 others, or one of the run before that is late; each calls it at most once per stage.  A call returns
 * when no pieces of the stage are left, and when all have, the next stage begins: it sees what they wrote. */
typedef void PoolStage(void *arg, int stage, int thread);
void pool_stages(Pool *p, int n_threads, int n_stages, PoolStage *fn, void *arg);

/* Calls fn(arg, i) once for each i in 0..pool_n-1, at the same time as far as threads run. */
void pool_run(Pool *p, void (*fn)(void *arg, int i), void *arg);

/* CPUs that this process may use the whole time: by its affinity mask and its control groups; at least 1. */
int pool_cpus(void);

#endif
