/* machine: the name of the processor and the peak memory of this process, from /proc. */
#ifndef ZGEN_BENCH_MACHINE_H
#define ZGEN_BENCH_MACHINE_H

#include "../base/buf.h"

/* Appends the name of the processor; an empty string if the system does not name it. */
void bench_cpu_name(Buf *out);

/* The largest number of bytes resident since the process began or since the last reset; a system that does
 * not allow the reset keeps the old peak. */
double bench_peak_memory(void);
void bench_reset_peak_memory(void);

#endif
