/* temporary: see temporary.h.
 *
 * The one trick: records are reused but never freed, so that a signal handler can walk their list at any
 * moment. */
#include "temporary.h"
#include "mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct Record {
    struct Record *next;        // never changes once the record is in the list
    _Atomic(const char *) path; // NULL: free for reuse
} Record;

static _Atomic(Record *) records;
static pthread_mutex_t writers = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t at_exit_once = PTHREAD_ONCE_INIT;

void temporary_remove_all(void) {
    for (Record *r = atomic_load(&records); r; r = r->next) {
        const char *path = atomic_exchange(&r->path, NULL);
        if (path) unlink(path);
    }
}

static void install(void) {
    atexit(temporary_remove_all);
}

void temporary_add(const char *path) {
    pthread_once(&at_exit_once, install);
    pthread_mutex_lock(&writers);
    Record *r = atomic_load(&records);
    while (r && atomic_load(&r->path)) r = r->next;
    if (!r) {
        r = mem_new(1, sizeof *r);
        r->next = atomic_load(&records);
        atomic_store(&records, r);
    }
    atomic_store(&r->path, path);
    pthread_mutex_unlock(&writers);
}

void temporary_forget(const char *path) {
    pthread_mutex_lock(&writers);
    for (Record *r = atomic_load(&records); r; r = r->next)
        if (atomic_load(&r->path) == path) atomic_store(&r->path, NULL);
    pthread_mutex_unlock(&writers);
}
