/* mem: allocation, and the memory that is left.
 *
 * Small blocks (names, id lists, tables) come from mem_new and mem_resize, which end the process with one
 * sentence and exit code 4 when memory runs out.  Large blocks whose size follows from the user's options (KV
 * cache, registers) come from mem_try, which may fail: the caller reports which part does not fit, and a size
 * that would. */
#ifndef ZGEN_BASE_MEM_H
#define ZGEN_BASE_MEM_H

#include <stddef.h>

/* n zeroed elements of the given size; never NULL.  free() releases it. */
void *mem_new(size_t n, size_t size);

/* realloc that never returns NULL; new bytes are not zeroed. */
void *mem_resize(void *old, size_t bytes);

/* A copy of s. */
char *mem_string(const char *s);

/* Zeroed bytes, aligned to 64; NULL when there is not enough memory.  mem_release(p, bytes) frees them. */
void *mem_try(size_t bytes);
void mem_release(void *p, size_t bytes);

/* Bytes that this process may still allocate: the kernel's MemAvailable, or what its control groups leave where
 * that is less. */
size_t mem_available(void);

#endif
