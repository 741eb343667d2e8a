/* prompt: see prompt.h. */
#include "prompt.h"
#include "stop.h"
#include "../base/inputs.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const size_t BYTES_MAX = (size_t)1 << 31; // tokens are counted in ints

static bool too_large(const char *what, Err *e) {
    return err_set(e, ERR_RUN, "%s is larger than 2 GiB, more than any context; use a shorter text", what);
}

static bool read_all(int fd, const char *name, const char *what, Buf *out, Err *e) {
    struct stat s;
    if (fstat(fd, &s) == 0 && S_ISREG(s.st_mode) && (uint64_t)s.st_size > BYTES_MAX)
        return too_large(what, e);
    inputs_add(fd);
    char bytes[1 << 16];
    for (;;) {
        ssize_t n = read(fd, bytes, sizeof bytes);
        if (n == 0) return true;
        if (n < 0 && errno == EINTR && stop_wanted()) return stop_err(e);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_set(e, ERR_RUN, "cannot read %s from %s: %s", what, name, strerror(errno));
        if (out->n + (size_t)n > BYTES_MAX) return too_large(what, e);
        buf_add(out, bytes, (size_t)n);
    }
}

/* Standard input ends once: a second reader would find nothing there. */
static bool read_stdin(const char *what, Buf *out, Err *e) {
    static const char *before;
    if (before)
        return err_set(e, ERR_USAGE,
                       "%s and %s cannot both come from standard input; give one of them as a file", before,
                       what);
    before = what;
    return read_all(STDIN_FILENO, "standard input", what, out, e);
}

bool prompt_read_file(const char *path, const char *what, Buf *out, Err *e) {
    if (strcmp(path, "-") == 0) return read_stdin(what, out, e);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == EINTR && stop_wanted()) return stop_err(e);
    if (fd < 0) return err_set(e, ERR_RUN, "cannot read %s from %.500s: %s", what, path, strerror(errno));
    bool ok = read_all(fd, path, what, out, e);
    close(fd);
    return ok;
}

/* Replaces \n \t \\ \"; a backslash before any other character is kept. */
static void add_escaped(const char *text, Buf *out) {
    static const char from[] = "nt\\\"", to[] = "\n\t\\\"";
    for (const char *p = text; *p; p++) {
        const char *at = p[0] == '\\' && p[1] ? strchr(from, p[1]) : NULL;
        buf_add(out, at ? &to[at - from] : p, 1);
        if (at) p++;
    }
}

void prompt_add(const char *text, bool escape, Buf *out) {
    if (escape)
        add_escaped(text, out);
    else
        buf_add(out, text, strlen(text));
}

bool prompt_read(const Options *o, bool chomp, Buf *out, Err *e) {
    if (o->prompt && o->file) return err_set(e, ERR_USAGE, "-p and -f both give a prompt; use one of them");
    if (o->prompt && strcmp(o->prompt, "-") != 0) {
        prompt_add(o->prompt, o->escape, out);
        return true;
    }
    bool asked = o->prompt || o->file;
    if (!asked && isatty(STDIN_FILENO))
        return err_set(e, ERR_USAGE,
                       "no prompt; use zgen -p \"Once upon a time\", -f FILE, or text on standard input");
    if (!prompt_read_file(o->file ? o->file : "-", "the prompt", out, e)) return false;
    if (!asked && out->n == 0)
        return err_set(e, ERR_USAGE, "no prompt: standard input is empty and neither -p nor -f is given");
    if (chomp && out->n && out->data[out->n - 1] == '\n') out->data[--out->n] = 0;
    return true;
}
