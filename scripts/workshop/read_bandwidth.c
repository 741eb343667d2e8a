/* read_bandwidth: the fastest that this machine's CPUs read memory, in GB/s (10^9 bytes), the limit that
 * decoding is measured against.  read_bandwidth THREADS [SECONDS]: every thread sums its part of 1 GiB, far
 * more than any cache, pass after pass; the best pass counts, because other users of a machine only ever make
 * it slower.
 *
 *   cc -O3 -march=native -pthread -o build/read_bandwidth scripts/workshop/read_bandwidth.c */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BYTES = 1 << 30, MAX_THREADS = 256 };

static const uint64_t *memory;
static int n_threads;
static double until;
static bool last;                           // thread 0 decides between the barriers, for all
static volatile uint64_t sums[MAX_THREADS]; // volatile: no load can be left out
static double best = 1e9;                   // seconds of the best pass
static pthread_barrier_t barrier;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *reader(void *arg) {
    size_t me = (size_t)(intptr_t)arg, n = BYTES / sizeof *memory;
    const uint64_t *p = memory + n * me / (size_t)n_threads, *end = memory + n * (me + 1) / (size_t)n_threads;
    do {
        pthread_barrier_wait(&barrier);
        double start = now();
        uint64_t sum = 0;
        for (const uint64_t *q = p; q < end; q++) sum += *q;
        sums[me] = sum;
        if (me == 0) last = now() >= until;
        pthread_barrier_wait(&barrier);
        double t = now() - start;
        if (me == 0 && t < best) best = t;
    } while (!last);
    return NULL;
}

int main(int argc, char **argv) {
    n_threads = argc > 1 ? atoi(argv[1]) : 1;
    if (n_threads < 1 || n_threads > MAX_THREADS)
        return fprintf(stderr, "THREADS is 1 to %d\n", MAX_THREADS), 2;
    void *block;
    if (posix_memalign(&block, 1 << 21, BYTES)) return fprintf(stderr, "no memory\n"), 4;
    memset(block, 1, BYTES); // its own pages, not the shared zero page
    memory = block;
    until = now() + (argc > 2 ? atof(argv[2]) : 2);
    pthread_barrier_init(&barrier, NULL, (unsigned)n_threads);
    pthread_t threads[MAX_THREADS];
    for (intptr_t i = 0; i < n_threads; i++) pthread_create(&threads[i], NULL, reader, (void *)i);
    for (int i = 0; i < n_threads; i++) pthread_join(threads[i], NULL);
    printf("%.1f\n", BYTES / best * 1e-9);
    return 0;
}
