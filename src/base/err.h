/* err: how a failure is reported.
 *
 * On untrusted bytes (a model file, a prompt, a command line) a function returns false with an Err, a
 * sentence that states the fault, its place and the remedy.  The caller passes the Err up; main prints it
 * once, as one line on stderr, and exits with its code.  Faults of the program itself are asserts. */
#ifndef ZGEN_BASE_ERR_H
#define ZGEN_BASE_ERR_H

#include <stdbool.h>
#include "exit_code.h"

typedef struct Err {
    int code;        // of exit_code.h, 0 while nothing is wrong
    char text[1000]; // one sentence, no newline, control characters of foreign text escaped
} Err;

/* Fills *e and returns false, so that a check reads `return err_set(e, ERR_MODEL, "...")`.  e is never NULL.
 * The formatted text is escaped by utf8_escape: names inside a hostile file must not drive the terminal. */
bool err_set(Err *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* One warning line on stderr, "zgen: warning: ...", escaped like err_set. */
void err_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
