/* notice: lines on stderr about a run that are not its result: seed, memory, timings. */
#ifndef ZGEN_CLI_NOTICE_H
#define ZGEN_CLI_NOTICE_H

#include <stdbool.h>

typedef struct Notices { // which notices are printed
    bool quiet;          // none at all
    bool verbose;        // all, also where stderr is not a terminal
} Notices;

/* Prints one line, "zgen: ...", where notices are on; bytes that drive a terminal are escaped. */
void notice(const Notices *n, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
