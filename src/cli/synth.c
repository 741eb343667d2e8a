/* synth: a model of random weights in a real shape, as a file to measure with.
 *
 * The image is made in memory and written to a temporary file beside OUT that takes its name at the end, so
 * that OUT is whole or not there.  Shapes and mixes are known to run/synth.c alone, which lists them in its
 * refusals. */
#include "cli.h"
#include "setup.h"
#include "../base/mem.h"
#include "../base/pool.h"
#include "../run/synth.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool cannot(const char *path, Err *e) {
    return err_set(e, ERR_OUTPUT, "cannot write to %.500s: %s", path, strerror(errno));
}

static bool check(const Options *o, Err *e) {
    Buf known = {0};
    bool ok = o->n_rest == 3;
    if (!ok) {
        synth_list(&known);
        err_set(e, ERR_USAGE, "a shape, a mix and a file are wanted: zgen synth SHAPE MIX OUT; %s",
                known.data);
    }
    buf_free(&known);
    return ok;
}

/* The whole image under the name, or nothing. */
static bool write_file(const char *path, const SynthImage *image, Err *e) {
    size_t n = strlen(path) + 8;
    char *temporary = mem_new(n, 1);
    snprintf(temporary, n, "%s.XXXXXX", path);
    int fd = mkostemp(temporary, O_CLOEXEC);
    bool ok = fd >= 0 || cannot(path, e);
    if (ok) {
        mode_t mask = umask(0);
        umask(mask);
        fchmod(fd, 0666 & ~mask);
        ok = out_write_to(fd, path, image->data, image->n, e);
        ok = (close(fd) == 0 && ok) || (ok && cannot(path, e));
        ok = ok && (rename(temporary, path) == 0 || cannot(path, e));
        if (!ok) unlink(temporary);
    }
    free(temporary);
    return ok;
}

bool cmd_synth(const Options *o, Err *e) {
    SynthImage image;
    int n_threads = o->n_threads ? o->n_threads : pool_cpus();
    if (!check(o, e) ||
        !synth_make(o->rest[0], o->rest[1], o->n_layers, (uint64_t)o->fixed_seed, n_threads, &image, e))
        return false;
    const char *path = o->rest[2];
    bool ok = write_file(path, &image, e);
    if (ok) setup_notice(o, "%s: %.3f GB", path, (double)image.n / 1e9);
    synth_free(&image);
    return ok;
}
