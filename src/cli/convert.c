/* convert: see convert.h. */
#include "convert.h"
#include "atomic_file.h"
#include "changes.h"
#include "stop.h"
#include "../base/clock.h"
#include "../base/mem.h"
#include "../base/pool.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool convert_read_size(const char *text, uint64_t *out, Err *e) {
    char *end;
    double number = strtod(text, &end);
    double unit = *end == 'M' ? 1e6 : *end == 'G' ? 1e9 : 0;
    if (end == text || !unit || end[1] || !(number > 0) || number * unit > 1e15 || number * unit < 1)
        return err_set(e, ERR_USAGE,
                       "--split-max-size %.100s: a size in megabytes or gigabytes is wanted, as 300M or 2G",
                       text);
    *out = (uint64_t)(number * unit);
    return true;
}

/* ---- names ---------------------------------------------------------------------------------------------- */

static char *name_of(const Convert *c, int i, int n) {
    size_t length = strlen(c->out);
    if (n > 1 && length > 5 && strcmp(c->out + length - 5, ".gguf") == 0) length -= 5;
    char *name = mem_new(length + 40, 1);
    if (n > 1)
        snprintf(name, length + 40, "%.*s-%05d-of-%05d.gguf", (int)length, c->out, i + 1, n);
    else
        memcpy(name, c->out, length);
    return name;
}

bool convert_open(Convert *c, Err *e) {
    if (!changes_open(c->options, c->in, &c->model, e) ||
        !quantize_open(c->model.gguf, &c->task, &c->quantize, e))
        return false;
    int n = quantize_n_files(c->quantize);
    c->names = mem_new((size_t)n, sizeof *c->names);
    for (int i = 0; c->out && i < n; i++) c->names[i] = name_of(c, i, n);
    return true;
}

void convert_close(Convert *c) {
    for (int i = 0; c->names && i < quantize_n_files(c->quantize); i++) free(c->names[i]);
    free(c->names);
    quantize_close(c->quantize);
    model_close(&c->model);
}

/* ---- writing -------------------------------------------------------------------------------------------- */

static bool go_on(void *arg, double share) {
    progress_show(arg, share);
    return !stop_wanted();
}

static bool run(Convert *c, const AtomicFile *files, Err *e) {
    int n = quantize_n_files(c->quantize), n_threads = c->n_threads ? c->n_threads : c->options->n_threads;
    int *fds = mem_new((size_t)n, sizeof *fds);
    for (int i = 0; i < n; i++) fds[i] = files[i].fd;
    progress_begin(&c->progress, &c->options->notices, c->what);
    bool ok = quantize_run(c->quantize, fds, c->names, n_threads > 0 ? n_threads : pool_cpus(), go_on,
                           &c->progress, e);
    progress_end(&c->progress);
    free(fds);
    return stop_wanted() ? stop_err(e) : ok;
}

bool convert_write(Convert *c, Err *e) {
    int n = quantize_n_files(c->quantize), n_open = 0;
    AtomicFile *files = mem_new((size_t)n, sizeof *files);
    double begun = clock_now();
    bool ok = true;
    while (ok && n_open < n) {
        ok = atomic_file_open(&files[n_open], c->names[n_open], e);
        n_open += ok;
    }
    ok = ok && run(c, files, e);
    for (int i = 0; i < n_open; i++) ok = atomic_file_close(&files[i], ok, e);
    free(files);
    c->seconds = clock_now() - begun;
    return ok;
}
