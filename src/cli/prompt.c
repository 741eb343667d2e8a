/* prompt: see prompt.h. */
#include "prompt.h"
#include "stop.h"
#include "unescape.h"
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

static bool read_path(const char *path, const char *what, Buf *out, Err *e) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == EINTR && stop_wanted()) return stop_err(e);
    if (fd < 0) return err_set(e, ERR_RUN, "cannot read %s from %.500s: %s", what, path, strerror(errno));
    bool ok = read_all(fd, path, what, out, e);
    close(fd);
    return ok;
}

static bool begins(const Buf *text, const char *mark, size_t n) {
    return text->n >= n && memcmp(text->data, mark, n) == 0;
}

/* Drops the mark that says that a text is UTF-8; the marks of other encodings are refused. */
static bool drop_mark(const char *name, const char *what, Buf *text, Err *e) {
    bool is_32 = begins(text, "\xFF\xFE\0\0", 4) || begins(text, "\0\0\xFE\xFF", 4);
    if (is_32 || begins(text, "\xFF\xFE", 2) || begins(text, "\xFE\xFF", 2))
        return err_set(
            e, ERR_RUN,
            "cannot read %s from %.500s: it is UTF-%d, not UTF-8; iconv -f UTF-%d -t UTF-8 converts it", what,
            name, is_32 ? 32 : 16, is_32 ? 32 : 16);
    if (begins(text, "\xEF\xBB\xBF", 3)) {
        text->n -= 3;
        memmove(text->data, text->data + 3, text->n + 1); // and the NUL behind
    }
    return true;
}

static bool is_stdin(const char *path) {
    return strcmp(path, "-") == 0;
}

bool prompt_read_bytes(const char *path, const char *what, Buf *out, Err *e) {
    buf_clear(out);
    return is_stdin(path) ? read_stdin(what, out, e) : read_path(path, what, out, e);
}

bool prompt_read_file(const char *path, const char *what, Buf *out, Err *e) {
    return prompt_read_bytes(path, what, out, e) &&
           drop_mark(is_stdin(path) ? "standard input" : path, what, out, e);
}

bool prompt_given(const Options *o) {
    return o->prompt || o->file || o->binary_file;
}

void prompt_unify_lines(Buf *text) {
    size_t to = 0;
    for (size_t i = 0; i < text->n; i++)
        if (text->data[i] != '\r' || i + 1 == text->n || text->data[i + 1] != '\n')
            text->data[to++] = text->data[i];
    text->n = to;
    if (text->n && text->data[text->n - 1] == '\n') text->n--;
    if (text->data) text->data[text->n] = 0;
}

void prompt_add(const char *text, bool escape, Buf *out) {
    if (escape)
        unescape(text, out);
    else
        buf_add(out, text, strlen(text));
}

bool prompt_read(const Options *o, bool by_lines, Buf *out, Err *e) {
    if ((o->prompt != NULL) + (o->file != NULL) + (o->binary_file != NULL) > 1)
        return err_set(e, ERR_USAGE, "-p, -f and -bf each give a prompt; use one of them");
    if (o->prompt && strcmp(o->prompt, "-") != 0) {
        prompt_add(o->prompt, o->escape, out);
        return true;
    }
    if (o->binary_file) return prompt_read_bytes(o->binary_file, "the prompt", out, e);
    bool asked = o->prompt || o->file;
    if (!asked && isatty(STDIN_FILENO))
        return err_set(e, ERR_USAGE,
                       "no prompt; use zgen -p \"Once upon a time\", -f FILE, or text on standard input");
    if (!prompt_read_file(o->file ? o->file : "-", "the prompt", out, e)) return false;
    if (!asked && out->n == 0)
        return err_set(e, ERR_USAGE, "no prompt: standard input is empty and neither -p nor -f is given");
    if (by_lines) prompt_unify_lines(out);
    return true;
}
