/* stop: Ctrl-C and its relatives as a question that is asked between two steps.
 *
 * The first SIGINT, SIGTERM or SIGHUP is remembered; the same once more kills at once, as it would have
 * without us. A SIGHUP that is ignored from the start (nohup) stays ignored. */
#ifndef ZGEN_CLI_STOP_H
#define ZGEN_CLI_STOP_H

#include <stdbool.h>
#include "../base/err.h"

void stop_install(void);
bool stop_wanted(void);

/* For who stays after Ctrl-C: if that is what came, forgets it, listens again, and returns true. */
bool stop_forget(void);

/* *e = 128 + the signal, without a text: the user knows.  Returns false, as err_set does. */
bool stop_err(Err *e);

#endif
