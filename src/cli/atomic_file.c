/* atomic_file: see atomic_file.h. */
#include "atomic_file.h"
#include "../base/inputs.h"
#include "../base/mem.h"
#include "../base/temporary.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool cannot(const AtomicFile *f, Err *e) {
    return err_set(e, ERR_OUTPUT, "cannot write to %.500s: %s", f->name, strerror(errno));
}

/* ---- the path ------------------------------------------------------------------------------------------ */

/* The bytes of a path that name its folder, with the slash; 0: the current folder. */
static size_t folder_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* The first n bytes of a path and a name in one string. */
static char *join(const char *path, size_t n, const char *name) {
    char *joined = mem_new(n + strlen(name) + 1, 1);
    memcpy(joined, path, n);
    memcpy(joined + n, name, strlen(name));
    return joined;
}

/* The path behind symbolic links, the last of which may point to nothing.  NULL: errno has the reason. */
static char *follow_links(const char *path) {
    enum { LINKS_MAX = 40 }; // as in Linux
    char *at = mem_string(path), target[PATH_MAX];
    for (int i = 0; i < LINKS_MAX; i++) {
        ssize_t n = readlink(at, target, sizeof target - 1);
        if (n < 0) return at;
        target[n] = 0;
        char *next = join(at, target[0] == '/' ? 0 : folder_length(at), target);
        free(at);
        at = next;
    }
    free(at);
    errno = ELOOP;
    return NULL;
}

/* ---- the file while it is written ---------------------------------------------------------------------- */

/* A file without a name is named through its link in /proc. */
static int create_unnamed(const char *path) {
    char *folder = join(path, folder_length(path), ".");
    int fd = access("/proc/self/fd", X_OK) == 0 ? open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666) : -1;
    free(folder);
    return fd;
}

/* A file in the folder of the path, with the mode of any new file. */
static int create_named(AtomicFile *f) {
    f->temporary = join(f->path, strlen(f->path), ".XXXXXX");
    int fd = mkostemp(f->temporary, O_CLOEXEC);
    mode_t mask = umask(0);
    umask(mask);
    if (fd < 0) return -1;
    temporary_add(f->temporary);
    fchmod(fd, 0666 & ~mask);
    return fd;
}

static void create(AtomicFile *f, const struct stat *old) {
    f->fd = create_unnamed(f->path);
    f->is_unnamed = f->fd >= 0;
    if (f->fd < 0) f->fd = create_named(f);
    if (f->fd >= 0 && old) fchmod(f->fd, old->st_mode & 07777);
}

static void forget(AtomicFile *f) {
    if (f->temporary) temporary_forget(f->temporary);
    free(f->temporary);
    free(f->path);
    *f = (AtomicFile){.fd = -1};
}

bool atomic_file_open(AtomicFile *f, const char *path, Err *e) {
    struct stat old;
    *f = (AtomicFile){.fd = -1, .name = path};
    bool exists = stat(path, &old) == 0;
    if (exists && S_ISREG(old.st_mode) && inputs_have(&old))
        return err_set(e, ERR_USAGE, "%.500s is an input of this run; give the output another name", path);
    if (!exists && (errno != ENOENT || !*path)) return cannot(f, e);
    f->path = exists ? realpath(path, NULL) : follow_links(path);
    if (!f->path) return cannot(f, e);
    if (exists && !S_ISREG(old.st_mode))
        f->fd = open(f->path, O_WRONLY | O_CLOEXEC);
    else
        create(f, exists ? &old : NULL);
    if (f->fd >= 0) return true;
    cannot(f, e);
    forget(f);
    return false;
}

/* ---- the complete file --------------------------------------------------------------------------------- */

/* A pipe has no disk, and fsync fails on it with one of these. */
static bool reach_disk(int fd) {
    return fsync(fd) == 0 || errno == EINVAL || errno == EROFS || errno == ENOTSUP;
}

static bool link_unnamed(const AtomicFile *f, const char *path) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", f->fd);
    return linkat(AT_FDCWD, link, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0;
}

/* A link never replaces a file: where there is an older one, the new one gets a name beside it and is
 * renamed. */
static bool name_unnamed(const AtomicFile *f) {
    if (link_unnamed(f, f->path)) return true;
    bool is_linked = false;
    char *name = join(f->path, strlen(f->path), ".XXXXXX");
    for (unsigned i = 0; !is_linked && errno == EEXIST && i < 1000; i++) {
        snprintf(name + strlen(f->path), 8, ".%06x", ((unsigned)getpid() + i) & 0xffffff);
        is_linked = link_unnamed(f, name);
    }
    bool ok = is_linked && rename(name, f->path) == 0;
    if (is_linked && !ok) unlink(name);
    free(name);
    return ok;
}

static bool finish(AtomicFile *f) {
    if (!reach_disk(f->fd)) return false;
    if (f->is_unnamed) return name_unnamed(f);
    return !f->temporary || rename(f->temporary, f->path) == 0;
}

bool atomic_file_close(AtomicFile *f, bool ok, Err *e) {
    if (ok && !finish(f)) ok = cannot(f, e);
    if (close(f->fd) != 0 && ok) ok = cannot(f, e);
    if (f->temporary && !ok) unlink(f->temporary);
    forget(f);
    return ok;
}
