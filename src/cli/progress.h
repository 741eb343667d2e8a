/* progress: one line on stderr with a bar, the share that is done and the time left.
 *
 * The line is drawn on a terminal only, at most ten times a second, and erased at the end; a log never
 * contains it. */
#ifndef ZGEN_CLI_PROGRESS_H
#define ZGEN_CLI_PROGRESS_H

#include "notice.h"

typedef struct Progress {
    bool visible;
    const char *what;    // the text before the bar; the caller's
    double begun, drawn; // seconds of clock_now; 0: not drawn yet
} Progress;

/* Visible unless --quiet is given. */
void progress_begin(Progress *p, const Notices *n, const char *what);
void progress_show(Progress *p, double share); // done, 0..1
void progress_end(Progress *p);

#endif
