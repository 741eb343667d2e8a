/* machine: see machine.h. */
#include "machine.h"
#include "../base/proc_file.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

void bench_cpu_name(Buf *out) {
    static const char label[] = "model name";
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[300];
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f)) found = strncmp(line, label, sizeof label - 1) == 0;
    if (f) fclose(f);
    const char *name = found ? line + sizeof label - 1 : "";
    name += strspn(name, " \t:");
    buf_add(out, name, strcspn(name, "\n"));
}

double bench_peak_memory(void) {
    return fmax(proc_number("/proc/self/status", "VmHWM:"), 0) * 1024;
}

void bench_reset_peak_memory(void) {
    FILE *f = fopen("/proc/self/clear_refs", "we");
    if (!f) return;
    fputs("5", f);
    fclose(f);
}
