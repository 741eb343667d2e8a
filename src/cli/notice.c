/* notice: see notice.h. */
#include "notice.h"
#include "../base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

void notice(const Notices *n, const char *format, ...) {
    if (n->quiet || !(n->verbose || isatty(STDERR_FILENO))) return;
    char text[800];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    Err line; // err_set escapes: a file name may hold any byte
    err_set(&line, 0, "%s", text);
    fprintf(stderr, "zgen: %s\n", line.text);
}
