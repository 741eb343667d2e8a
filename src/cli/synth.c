/* synth: writes a model of random weights in the shape of a known one, for measuring.
 *
 * The file is made in memory first.  src/run owns the shapes and mixes, and lists them in its refusals. */
#include "atomic_file.h"
#include "cli.h"
#include "stop.h"
#include "../base/pool.h"
#include "../run/synth.h"

static bool check(const Options *o, Err *e) {
    Buf known = {0};
    bool ok = o->n_rest == 3;
    if (!ok) {
        synth_list(&known);
        err_set(e, ERR_USAGE, "the arguments are a shape, a mix and a file: zgen synth SHAPE MIX OUT; %s",
                known.data);
    }
    buf_free(&known);
    return ok;
}

/* In pieces, between which a signal ends the file. */
static bool write_image(int fd, const char *path, const SynthImage *image, Err *e) {
    static const size_t PIECE = (size_t)16 << 20; // bytes
    for (size_t done = 0, n; done < image->n; done += n) {
        n = image->n - done < PIECE ? image->n - done : PIECE;
        if (stop_wanted()) return stop_err(e);
        if (!out_write_to(fd, path, image->data + done, n, e)) return false;
    }
    return true;
}

static bool write_file(const char *path, const SynthImage *image, Err *e) {
    AtomicFile file;
    return atomic_file_open(&file, path, e) &&
           atomic_file_close(&file, write_image(file.fd, path, image, e), e);
}

bool cmd_synth(const Options *o, Err *e) {
    SynthImage image;
    int n_threads = o->n_threads > 0 ? o->n_threads : pool_cpus();
    if (!check(o, e) ||
        !synth_make(o->rest[0], o->rest[1], o->n_layers, (uint64_t)o->fixed_seed, n_threads, &image, e))
        return false;
    stop_install(); // until here a signal ends the process at once, and there is no file
    const char *path = o->rest[2];
    bool ok = write_file(path, &image, e);
    if (ok) notice(&o->notices, "%s: %.3f GB", path, (double)image.n / 1e9);
    synth_free(&image);
    return ok;
}
