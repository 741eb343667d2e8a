/* map: see map.h.
 *
 * The one trick: a signal handler may call little more than write(2), so the sentence of each mapping is
 * composed when the file is opened; the handler finds the mapping of the address and writes its sentence.
 * Records of mappings are reused but never freed, so that the handler can walk their list at any moment. */
#include "map.h"
#include "inputs.h"
#include "mem.h"
#include "temporary.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct Record {
    struct Record *next;           // never changes once the record is in the list
    _Atomic(const uint8_t *) data; // NULL: free for reuse
    size_t n_bytes;                // of whole pages
    char sentence[1100];
    size_t n_sentence;
} Record;

static _Atomic(Record *) records;
static pthread_mutex_t writers = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t handler_once = PTHREAD_ONCE_INIT;
static struct sigaction previous;

static void on_bus_error(int signal, siginfo_t *info, void *context) {
    (void)context;
    uintptr_t at = (uintptr_t)info->si_addr;
    bool is_fault = info->si_code > 0; // not sent by kill
    for (Record *r = atomic_load(&records); r && is_fault; r = r->next) {
        uintptr_t begin = (uintptr_t)atomic_load(&r->data);
        if (!begin || at < begin || at - begin >= r->n_bytes) continue;
        temporary_remove_all();
        ssize_t ignored = write(STDERR_FILENO, r->sentence, r->n_sentence);
        (void)ignored;
        _exit(ERR_MODEL);
    }
    sigaction(SIGBUS, &previous,
              NULL); // of another mapping: the fault repeats on return, under the previous action
    if (!is_fault) raise(signal);
}

static void install_handler(void) {
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous);
}

static void remember(const char *path, const Map *m) {
    Err words;
    err_set(&words, ERR_MODEL,
            "%.300s: the file was cut short, or its disk failed, while it was in use; check the file and "
            "start again",
            path);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    pthread_mutex_lock(&writers);
    Record *r = atomic_load(&records);
    while (r && atomic_load(&r->data)) r = r->next;
    bool fresh = !r;
    if (fresh) r = mem_new(1, sizeof *r);
    r->n_bytes = (m->size + page - 1) / page * page;
    r->n_sentence = (size_t)snprintf(r->sentence, sizeof r->sentence, "zgen: %s\n", words.text);
    atomic_store(&r->data, m->data);
    if (fresh) {
        r->next = atomic_load(&records);
        atomic_store(&records, r);
    }
    pthread_mutex_unlock(&writers);
}

static void forget(const Map *m) {
    pthread_mutex_lock(&writers);
    for (Record *r = atomic_load(&records); r; r = r->next)
        if (atomic_load(&r->data) == m->data) atomic_store(&r->data, NULL);
    pthread_mutex_unlock(&writers);
}

static bool refuse_open(const char *path, Err *e) {
    if (errno == ENOENT || errno == ENOTDIR)
        return err_set(e, ERR_MODEL, "%.300s: there is no such file; check the path", path);
    if (errno == EACCES || errno == EPERM)
        return err_set(e, ERR_MODEL, "%.300s: permission denied; check the permissions of the file", path);
    return err_set(e, ERR_MODEL, "%.300s: cannot be opened (%s); check the path", path, strerror(errno));
}

static bool refuse_kind(const char *path, const char *what, mode_t mode, Err *e) {
    const char *kind = S_ISDIR(mode)                    ? "a directory"
                       : S_ISFIFO(mode)                 ? "a pipe"
                       : S_ISCHR(mode) || S_ISBLK(mode) ? "a device"
                                                        : "a socket";
    return err_set(e, ERR_MODEL, "%.300s: this is %s, not a file; give the path of %s", path, kind, what);
}

static bool map_fd(const char *path, const char *what, int fd, Map *out, Err *e) {
    struct stat s;
    if (fstat(fd, &s) != 0) return refuse_open(path, e);
    if (!S_ISREG(s.st_mode)) return refuse_kind(path, what, s.st_mode, e);
    if (s.st_size == 0)
        return err_set(e, ERR_MODEL, "%.300s: the file is empty; give the path of %s", path, what);
    void *p = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return err_set(e, errno == ENOMEM ? ERR_MEMORY : ERR_MODEL,
                       "%.300s: %lld bytes cannot be mapped (%s)", path, (long long)s.st_size,
                       strerror(errno));
    inputs_add(fd);
    *out = (Map){p, (size_t)s.st_size};
    return true;
}

bool map_open(const char *path, const char *what, Map *out, Err *e) {
    *out = (Map){0};
    if (!*path) return err_set(e, ERR_MODEL, "a path is empty; give that of %s", what);
    int fd =
        open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); // a FIFO without a writer must not block
    if (fd < 0) return refuse_open(path, e);
    bool ok = map_fd(path, what, fd, out, e);
    close(fd);
    if (!ok) return false;
    pthread_once(&handler_once, install_handler);
    remember(path, out);
    return true;
}

void map_close(Map *m) {
    if (m->data) {
        forget(m);
        munmap((void *)m->data, m->size);
    }
    *m = (Map){0};
}
