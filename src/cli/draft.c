/* draft: see draft.h. */
#include "draft.h"
#include "../base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool cannot(const Draft *d, Err *e) {
    return err_set(e, ERR_OUTPUT, "cannot write to %.500s: %s", d->name, strerror(errno));
}

/* A new file beside the path, with the mode that the file there has, or that any new one would get. */
static int create_beside(Draft *d, const struct stat *old) {
    size_t n = strlen(d->path) + 8;
    d->temporary = mem_new(n, 1);
    snprintf(d->temporary, n, "%s.XXXXXX", d->path);
    int fd = mkostemp(d->temporary, O_CLOEXEC);
    mode_t mask = umask(0);
    umask(mask);
    if (fd >= 0) fchmod(fd, old ? old->st_mode & 07777 : 0666 & ~mask);
    return fd;
}

bool draft_open(Draft *d, const char *path, Err *e) {
    struct stat st;
    bool exists = stat(path, &st) == 0;
    *d = (Draft){.fd = -1, .name = path};
    d->path = exists ? realpath(path, NULL) : mem_string(path);
    if (!d->path) return cannot(d, e);
    if (exists && !S_ISREG(st.st_mode))
        d->fd = open(d->path, O_WRONLY | O_CLOEXEC);
    else
        d->fd = create_beside(d, exists ? &st : NULL);
    if (d->fd >= 0) return true;
    cannot(d, e);
    free(d->temporary);
    free(d->path);
    *d = (Draft){.fd = -1};
    return false;
}

/* A pipe has nothing to bring to a disk and says so. */
static bool reach_disk(int fd) {
    return fsync(fd) == 0 || errno == EINVAL || errno == EROFS || errno == ENOTSUP;
}

bool draft_close(Draft *d, bool ok, Err *e) {
    if (ok && !reach_disk(d->fd)) ok = cannot(d, e);
    if (close(d->fd) != 0 && ok) ok = cannot(d, e);
    if (d->temporary && ok && rename(d->temporary, d->path) != 0) ok = cannot(d, e);
    if (d->temporary && !ok) unlink(d->temporary);
    free(d->temporary);
    free(d->path);
    *d = (Draft){.fd = -1};
    return ok;
}
