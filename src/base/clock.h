/* clock: monotonic seconds; a change of the system time does not disturb a measurement. */
#ifndef ZGEN_BASE_CLOCK_H
#define ZGEN_BASE_CLOCK_H

#include <time.h>

/* Seconds since a fixed moment in the past. */
static inline double clock_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
