/* atomic_file: see atomic_file.h. */
#include "atomic_file.h"
#include "../base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool cannot(const AtomicFile *f, Err *e) {
    return err_set(e, ERR_OUTPUT, "cannot write to %.500s: %s", f->name, strerror(errno));
}

/* A new file in the folder of the path, with the mode of the file that is replaced, or of any new file. */
static int create_beside(AtomicFile *f, const struct stat *old) {
    size_t n = strlen(f->path) + 8;
    f->temporary = mem_new(n, 1);
    snprintf(f->temporary, n, "%s.XXXXXX", f->path);
    int fd = mkostemp(f->temporary, O_CLOEXEC);
    mode_t mask = umask(0);
    umask(mask);
    if (fd >= 0) fchmod(fd, old ? old->st_mode & 07777 : 0666 & ~mask);
    return fd;
}

bool atomic_file_open(AtomicFile *f, const char *path, Err *e) {
    struct stat st;
    bool exists = stat(path, &st) == 0;
    *f = (AtomicFile){.fd = -1, .name = path};
    f->path = exists ? realpath(path, NULL) : mem_string(path);
    if (!f->path) return cannot(f, e);
    if (exists && !S_ISREG(st.st_mode))
        f->fd = open(f->path, O_WRONLY | O_CLOEXEC);
    else
        f->fd = create_beside(f, exists ? &st : NULL);
    if (f->fd >= 0) return true;
    cannot(f, e);
    free(f->temporary);
    free(f->path);
    *f = (AtomicFile){.fd = -1};
    return false;
}

/* A pipe has no disk, and fsync fails on it with one of these. */
static bool reach_disk(int fd) {
    return fsync(fd) == 0 || errno == EINVAL || errno == EROFS || errno == ENOTSUP;
}

bool atomic_file_close(AtomicFile *f, bool ok, Err *e) {
    if (ok && !reach_disk(f->fd)) ok = cannot(f, e);
    if (close(f->fd) != 0 && ok) ok = cannot(f, e);
    if (f->temporary && ok && rename(f->temporary, f->path) != 0) ok = cannot(f, e);
    if (f->temporary && !ok) unlink(f->temporary);
    free(f->temporary);
    free(f->path);
    *f = (AtomicFile){.fd = -1};
    return ok;
}
