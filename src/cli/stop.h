/* stop: SIGINT, SIGTERM and SIGHUP as a flag that a command reads between two steps.
 *
 * The first such signal is recorded; a second one of the same kind ends the process immediately.  A SIGHUP
 * that is ignored from the start (nohup) stays ignored. */
#ifndef ZGEN_CLI_STOP_H
#define ZGEN_CLI_STOP_H

#include <stdbool.h>
#include "../base/err.h"

void stop_install(void);

/* Whether a signal was recorded. */
bool stop_wanted(void);

/* If the recorded signal is SIGINT, clears it, installs the handlers again, and returns true. */
bool stop_forget(void);

/* Sets *e to exit code 128 + signal without a text, and returns false, as err_set does. */
bool stop_err(Err *e);

#endif
