/* engine_profile: the time of each op of a decode step, and of the whole step. */
#include "engine_impl.h"
#include "../base/clock.h"
#include "../base/mem.h"

#include <assert.h>

/* Slot 0 with any token behind n_past others. */
static bool join(Engine *g, int n_past, int n_steps, Err *e) {
    engine_go_back(g, &g->slots[0], 0);
    engine_take_pages(g, &g->slots[0]);
    DecodeStart start = {.position = n_past, .n_steps = n_steps, .params = sample_defaults};
    return g->exec_ops->decode_join(g->exec, 0, &start, e);
}

/* The mean of n whole steps; one more comes first. */
static bool time_steps(Engine *g, int n_past, int n, double *seconds, Err *e) {
    bool ok = join(g, n_past, n + 1, e) && g->exec_ops->decode_next(g->exec, g->loop_tokens, e);
    double start = clock_now();
    for (int i = 0; ok && i < n; i++) ok = g->exec_ops->decode_next(g->exec, g->loop_tokens, e);
    *seconds = (clock_now() - start) / n;
    g->exec_ops->decode_leave(g->exec, 0);
    return ok;
}

static bool time_ops(Engine *g, int n_past, int repeats, double *seconds, Err *e) {
    bool ok = join(g, n_past, repeats + 1, e) && g->exec_ops->profile(g->exec, repeats, seconds, e);
    g->exec_ops->decode_leave(g->exec, 0);
    return ok;
}

bool engine_profile(Engine *g, int n_past, Profile *out, Err *e) {
    enum { LEAST = 3, MOST = PROFILE_ROOM - 2 };
    const double enough = 0.5; // seconds
    double start = clock_now();
    int room = g->config.n_ctx - 2; // positions of the steps but for two
    assert(!engine_is_busy(g));
    if (room < LEAST)
        return err_set(e, ERR_RUN, "a context of %d tokens is too short for a profile; use -c %d or more",
                       g->config.n_ctx, LEAST + 2);
    *out = (Profile){.n_past = n_past < room - LEAST ? n_past : room - LEAST};
    if (!time_steps(g, out->n_past, 1, &out->step, e)) return false;
    double wanted = enough / out->step;
    int most = room - out->n_past < MOST ? room - out->n_past : MOST;
    out->repeats = wanted < LEAST ? LEAST : wanted < most ? (int)wanted : most;
    out->seconds = mem_new((size_t)g->plan->n_ops, sizeof *out->seconds);
    bool ok = time_ops(g, out->n_past, out->repeats, out->seconds, e) &&
              time_steps(g, out->n_past, out->repeats, &out->step, e);
    out->wall = clock_now() - start;
    return ok;
}
