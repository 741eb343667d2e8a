/* progress: see progress.h. */
#include "progress.h"
#include "../base/clock.h"

#include <stdio.h>
#include <unistd.h>

enum { WIDTH = 30 }; // of the bar, in characters

void progress_begin(Progress *p, const Notices *n, const char *what) {
    *p = (Progress){.visible = !n->quiet && isatty(STDERR_FILENO), .what = what, .begun = clock_now()};
}

void progress_show(Progress *p, double share) {
    double now = clock_now(), spent = now - p->begun;
    if (!p->visible || now - p->drawn < 0.1) return;
    p->drawn = now;
    int full = (int)(share * WIDTH);
    fprintf(stderr, "\r%s [%.*s%*s] %3.0f %%", p->what, full, "##############################", WIDTH - full,
            "", 100 * share);
    if (share > 0.02) fprintf(stderr, ", %.0f s left   ", spent / share - spent);
}

void progress_end(Progress *p) {
    if (p->visible && p->drawn > 0) fprintf(stderr, "\r%*s\r", WIDTH + 50, "");
}
