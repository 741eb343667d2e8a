/* mem: memory that is either there or ends the run.
 *
 * Small bookkeeping (names, id lists, tables) uses mem_new: when even that fails, one sentence and exit 4.
 * Large blocks whose size the user chose (KV cache, registers) use mem_try, which may fail: the caller then
 * says which part does not fit and what would. */
#ifndef ZGEN_BASE_MEM_H
#define ZGEN_BASE_MEM_H

#include <stddef.h>

/* n zeroed elements of the given size; never NULL.  free() releases it. */
void *mem_new(size_t n, size_t size);

/* realloc that never returns NULL; new bytes are not zeroed. */
void *mem_resize(void *old, size_t bytes);

/* A copy of a string. */
char *mem_string(const char *s);

/* bytes of zeroed memory aligned to 64, or NULL when it cannot be had.  mem_release(p, bytes) gives it back.
 */
void *mem_try(size_t bytes);
void mem_release(void *p, size_t bytes);

/* Bytes that this process may still take: what the kernel calls available, or less where a cgroup allows
 * less. */
size_t mem_available(void);

#endif
