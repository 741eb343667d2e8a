/* err: how a failure travels.
 *
 * Untrusted bytes (a model file, a prompt, a command line) make a function return false with an Err that
 * says what is wrong, where, and what to do; the caller passes it up and main prints it once, as one line
 * on stderr, and exits with its code.  Our own bugs are asserts.  There is no third way.
 *
 * The codes are the process's exit codes; README.md and the man page list them. */
#ifndef ZGEN_BASE_ERR_H
#define ZGEN_BASE_ERR_H

#include <stdbool.h>

enum {
    ERR_RUN = 1,    // it failed while running: prompt file unreadable, prompt longer than the context, ...
    ERR_USAGE = 2,  // wrong command line
    ERR_MODEL = 3,  // the model file: missing, unreadable, malformed, unsupported
    ERR_MEMORY = 4, // it does not fit
    ERR_OUTPUT = 5, // the output could not be written
    ERR_SIGINT = 130,
    ERR_SIGTERM = 143,
    ERR_PIPE = 141, // the reader of stdout went away
};

typedef struct Err {
    int code;        // one of the above, 0 while nothing is wrong
    char text[1000]; // one sentence, no newline, control characters of foreign text escaped
} Err;

/* Fills *e and returns false, so that a check reads `return err_set(e, ERR_MODEL, "...")`.  e is never NULL.
 * The formatted text is escaped by utf8_escape: names inside a hostile file must not drive the terminal. */
bool err_set(Err *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* One warning line on stderr, "zgen: warning: ...", escaped like err_set. */
void err_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
