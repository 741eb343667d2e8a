/* mem: see mem.h.  mem_try maps pages instead of calling malloc: the pages of a KV cache behind the last
 * position cost nothing until they are written. */
#include "mem.h"
#include "cgroup.h"
#include "exit_code.h"
#include "proc_file.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *or_exit(void *p, size_t bytes) {
    if (p) return p;
    fprintf(stderr, "zgen: out of memory (asked for %zu bytes); close other programs or use a smaller -c\n",
            bytes);
    exit(ERR_MEMORY);
}

void *mem_new(size_t n, size_t size) {
    return or_exit(calloc(n ? n : 1, size ? size : 1), n * size);
}

void *mem_resize(void *old, size_t bytes) {
    return or_exit(realloc(old, bytes ? bytes : 1), bytes);
}

char *mem_string(const char *s) {
    size_t n = strlen(s) + 1;
    return memcpy(mem_new(n, 1), s, n);
}

void *mem_try(size_t bytes) {
    void *p = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void mem_release(void *p, size_t bytes) {
    if (p) munmap(p, bytes ? bytes : 1);
}

size_t mem_available(void) {
    double free = 1024 * proc_number("/proc/meminfo", "MemAvailable:");
    if (free < 0) free = (double)sysconf(_SC_AVPHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    return (size_t)fmax(fmin(free, cgroup_memory("")), 0);
}
