/* progress: one line on stderr that says how far a long work is.
 *
 * It is drawn on a terminal only, some times a second, and gone when the work is done: no log ever fills with
 * it. */
#ifndef ZGEN_CLI_PROGRESS_H
#define ZGEN_CLI_PROGRESS_H

#include "options.h"

typedef struct Progress {
    bool visible;
    const char *what;
    double begun, drawn; // when; seconds
} Progress;

void progress_begin(Progress *p, const Options *o, const char *what); // "quantizing"; shown without -q
void progress_show(Progress *p, double share);                        // 0..1
void progress_end(Progress *p);

#endif
