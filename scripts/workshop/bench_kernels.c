/* bench_kernels: the speed of the CPU's products, with the rates that the machine reaches.
 *
 * For each type of a table: weights streamed from memory at T = 1 in GB/s of packed bytes, by one thread and
 * by all, with the share of a plain read of the same buffer just before; and for one thread with its weights
 * in the cache, cycles per 4096 weights at T = 1 and multiply-adds per cycle at T = 256.  Medians of five.
 * One thread is measured in processor time, on which other programs have less effect; the clock by a chain of
 * dependent multiplications, three cycles each.
 *
 *     build/scripts/workshop/bench_kernels [ISA [TYPE [K]]]        (make test builds it) */
#include "../../src/base/clock.h"
#include "../../src/cpu/kernels.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS = 5, MAX_THREADS = 64, MANY = 256 };
static const size_t buffer_bytes = (size_t)512 << 20;

typedef struct Work {
    const Kernels *table; // NULL: only read
    Panel first;
    size_t n_panels;
    bool stay; // on the first panel
    const Act8 *x8;
    const float *const *x;
    int T;
    const uint8_t *bytes;
    size_t n_bytes;
} Work;

static double median(double *v) {
    for (int i = 1; i < ROUNDS; i++)
        for (int j = i; j > 0 && v[j] < v[j - 1]; j--) {
            double a = v[j];
            v[j] = v[j - 1];
            v[j - 1] = a;
        }
    return v[ROUNDS / 2];
}

typedef uint64_t Wide __attribute__((vector_size(64), aligned(64)));
static volatile uint64_t sink;

static void *work(void *argument) {
    const Work *job = argument;
    if (!job->table) {
        const Wide *p = (const Wide *)job->bytes;
        Wide a = {0}, b = {0}, c = {0}, d = {0};
        for (size_t i = 0; i + 4 <= job->n_bytes / sizeof *p; i += 4) {
            a += p[i];
            b += p[i + 1];
            c += p[i + 2];
            d += p[i + 3];
        }
        a += b + c + d;
        sink += a[0] + a[3];
        return NULL;
    }
    static _Thread_local float y[MANY * PANEL_ROWS];
    Panel w = job->first;
    for (size_t i = 0; i < job->n_panels; i++, w.rows += job->stay ? 0 : PANEL_ROWS * w.row_bytes) {
        if (job->x8)
            job->table->matmul_q8(&w, job->x8, job->T, y);
        else
            job->table->matmul_f32(&w, job->x, job->T, y);
    }
    return NULL;
}

/* Seconds that this thread has run. */
static double processor_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds for the work, cut into n_threads runs of neighbouring panels. */
static double run(Work job, int n_threads) {
    if (n_threads == 1) {
        double start = processor_time();
        work(&job);
        return processor_time() - start;
    }
    pthread_t threads[MAX_THREADS];
    Work parts[MAX_THREADS];
    double start = clock_now();
    for (int i = 0; i < n_threads; i++) {
        parts[i] = job;
        parts[i].n_panels = job.n_panels / (size_t)n_threads;
        parts[i].first.rows += (size_t)i * parts[i].n_panels * PANEL_ROWS * job.first.row_bytes;
        parts[i].n_bytes = job.n_bytes / (size_t)n_threads / 64 * 64;
        parts[i].bytes += (size_t)i * parts[i].n_bytes;
        pthread_create(&threads[i], NULL, work, &parts[i]);
    }
    for (int i = 0; i < n_threads; i++) pthread_join(threads[i], NULL);
    return clock_now() - start;
}

static double rate(Work job, int n_threads, double amount) {
    double v[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) v[i] = amount / run(job, n_threads);
    return median(v) * 1e-9;
}

static double clock_ghz(void) {
    double v[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        const int n = 20000000;
        uint64_t a = (uint64_t)n;
        double start = processor_time();
        for (int j = 0; j < n; j++) {
            a *= 0x9E3779B97F4A7C15u;
            __asm__ volatile("" : "+r"(a)); // the compiler must not fold the chain
        }
        v[i] = 3.0 * n / (processor_time() - start) * 1e-9;
    }
    return median(v);
}

int main(int argc, char **argv) {
    const Kernels *table = kernels_find(argc > 1 ? argv[1] : "auto");
    const char *only = argc > 2 ? argv[2] : "";
    const int n_in = argc > 3 ? atoi(argv[3]) : 2048, n_threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (!table || n_in <= 0 || n_in % 256) {
        fprintf(stderr, "no such table, or K not a multiple of 256\n");
        return 2;
    }
    uint8_t *buffer = aligned_alloc(64, buffer_bytes);
    // bytes that are ordinary scales wherever a format has one: subnormal products would be slower
    for (size_t i = 0; i < buffer_bytes; i += 4)
        memcpy(buffer + i, &(uint32_t){((uint32_t)(i * 2654435761u) & 0x1B1B1B1B) | 0x60606060}, 4);
    Act8 x8[MANY];
    const float *x[MANY];
    for (int t = 0; t < MANY; t++) {
        float *values = aligned_alloc(64, (size_t)n_in * sizeof *values);
        for (int k = 0; k < n_in; k++) values[k] = (float)((k * 37 + t * 11) % 201 - 100);
        x8[t] = act8_view(aligned_alloc(64, act8_bytes(n_in)), n_in);
        act8_quantize(values, n_in, x8[t]);
        x[t] = values;
    }
    double ghz = clock_ghz();
    printf("%s, K %d, %.2f GHz\n%-9s %26s %26s %14s %14s\n", table->name, n_in, ghz, "type",
           "T=1, one thread, of read", "T=1, all threads, of read", "cycles/4096", "T=256 MAC/cycle");
    for (uint32_t type = 0; type <= QUANT_FP8_E4M3; type++) {
        const QuantTraits *traits = quant_traits(type);
        if (!traits || traits->act == QUANT_ACT_NONE || (*only && strcmp(only, traits->name))) continue;
        size_t row_bytes = (size_t)(n_in / traits->n_weights) * traits->n_bytes;
        Work job = {.table = table, .first = {type, buffer, row_bytes, PANEL_ROWS, n_in}, .T = 1, .x = x};
        if (traits->act == QUANT_ACT_Q8) job.x8 = x8;
        job.n_panels = buffer_bytes / row_bytes / PANEL_ROWS;
        Work read = {.bytes = buffer, .n_bytes = buffer_bytes};
        double bytes = (double)(job.n_panels * PANEL_ROWS * row_bytes);
        double read_1 = rate(read, 1, (double)buffer_bytes), one = rate(job, 1, bytes);
        double read_n = rate(read, n_threads, (double)buffer_bytes), all = rate(job, n_threads, bytes);
        job.stay = true;
        job.n_panels = 2000;
        double cached = rate(job, 1, 2000.0 * PANEL_ROWS * n_in);
        job.T = MANY;
        job.n_panels = 16;
        double many = rate(job, 1, (double)MANY * 16 * PANEL_ROWS * n_in);
        printf("%-9s %7.1f of %5.1f GB/s %3.0f%% %7.1f of %5.1f GB/s %3.0f%% %14.0f %14.1f\n", traits->name,
               one, read_1, 100 * one / read_1, all, read_n, 100 * all / read_n, 4096 * ghz / cached,
               many / ghz);
        fflush(stdout);
    }
}
