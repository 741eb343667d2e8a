/* out: see out.h. */
#include "out.h"
#include "../base/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Opens /dev/null as fd if fd is closed: the system gives the lowest free number to the next file opened.
 * Returns whether fd was open. */
static bool fill(int fd, int flags) {
    if (fcntl(fd, F_GETFD) >= 0) return true;
    int null = open("/dev/null", flags);
    if (null < 0 || null == fd) return false;
    dup2(null, fd);
    close(null);
    return false;
}

bool out_open(Err *e) {
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    fill(STDIN_FILENO, O_RDONLY);
    bool is_open = fill(STDOUT_FILENO, O_RDONLY);
    fill(STDERR_FILENO, O_WRONLY);
    return is_open ||
           err_set(e, ERR_OUTPUT, "standard output is closed; redirect it to a file or a terminal");
}

static bool failed(const char *name, int reason, Err *e) {
    if (reason != EPIPE) return err_set(e, ERR_OUTPUT, "cannot write to %s: %s", name, strerror(reason));
    *e = (Err){.code = ERR_PIPE};
    return false;
}

bool out_write_to(int fd, const char *name, const void *bytes, size_t n, Err *e) {
    for (size_t done = 0; done < n;) {
        ssize_t k = write(fd, (const char *)bytes + done, n - done);
        if (k >= 0)
            done += (size_t)k;
        else if (errno == EAGAIN)
            poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
        else if (errno != EINTR)
            return failed(name, errno, e);
    }
    return true;
}

/* Writes what a terminal shows of the bytes between two sequences that set its style. */
static bool write_shown(const char *set, const void *bytes, size_t n, const char *reset, Err *e) {
    Buf shown = {0};
    buf_printf(&shown, "%s", set);
    utf8_show(bytes, n, &shown);
    buf_printf(&shown, "%s", reset);
    bool ok = out_write_to(STDOUT_FILENO, "standard output", shown.data, shown.n, e);
    buf_free(&shown);
    return ok;
}

bool out_write(const void *bytes, size_t n, Err *e) {
    if (out_is_terminal()) return write_shown("", bytes, n, "", e);
    return out_write_to(STDOUT_FILENO, "standard output", bytes, n, e);
}

bool out_write_dim(const void *bytes, size_t n, Err *e) {
    return write_shown("\033[2m", bytes, n, "\033[0m", e);
}

bool out_is_terminal(void) {
    return isatty(STDOUT_FILENO);
}

bool out_obeys_escapes(void) {
    const char *term = getenv("TERM");
    return out_is_terminal() && term && strcmp(term, "dumb") != 0;
}

bool out_close(Err *e) {
    return close(STDOUT_FILENO) == 0 || errno == EINTR || failed("standard output", errno, e);
}
