/* machine: see machine.h. */
#include "machine.h"

#include <stdio.h>
#include <string.h>

/* Appends the rest of the first line of a file that begins with the label, after white space and a colon. */
static void read_line(const char *path, const char *label, Buf *out) {
    FILE *f = fopen(path, "re");
    char line[300];
    while (f && out->n == 0 && fgets(line, sizeof line, f)) {
        if (strncmp(line, label, strlen(label)) != 0) continue;
        const char *value = line + strlen(label);
        value += strspn(value, " \t:");
        buf_add(out, value, strcspn(value, "\n"));
    }
    if (f) fclose(f);
}

void bench_cpu_name(Buf *out) {
    read_line("/proc/cpuinfo", "model name", out);
    buf_add(out, "", 0);
}

double bench_peak_memory(void) {
    Buf line = {0};
    double kib = 0;
    read_line("/proc/self/status", "VmHWM", &line);
    if (line.n) sscanf(line.data, "%lf", &kib);
    buf_free(&line);
    return kib * 1024;
}

void bench_reset_peak_memory(void) {
    FILE *f = fopen("/proc/self/clear_refs", "we");
    if (!f) return;
    fputs("5", f);
    fclose(f);
}
