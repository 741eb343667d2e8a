/* stop: see stop.h. */
#include "stop.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t received;

static void record(int signal) {
    received = signal;
}

void stop_install(void) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction before;
        struct sigaction action = {.sa_handler = record,
                                   .sa_flags = SA_RESETHAND}; // no SA_RESTART: reads end
        sigemptyset(&action.sa_mask);
        sigaction(signals[i], NULL, &before);
        if (signals[i] != SIGHUP || before.sa_handler != SIG_IGN) sigaction(signals[i], &action, NULL);
    }
}

bool stop_wanted(void) {
    return received != 0;
}

bool stop_forget(void) {
    if (received != SIGINT) return false;
    received = 0;
    stop_install();
    return true;
}

bool stop_err(Err *e) {
    *e = (Err){.code = 128 + received};
    return false;
}
