/* verdict: see verdict.h. */
#include "verdict.h"
#include "out.h"
#include "show.h"
#include "stop.h"

#include <math.h>
#include <unistd.h>

bool verdict_open(const Options *o, const Model *m, const EngineConfig *run, Verify **out, Err *e) {
    *out = NULL;
    return !o->n_verify || verify_open(m, run, o->n_verify, out, e);
}

bool verdict_take(const Options *o, Verify *v, Engine *g, json_t **json, Err *e) {
    if (!v || stop_wanted()) return true;
    return verify_sequence(v, g, stop_wanted, e) && verdict_tell(o, v, json, e);
}

typedef struct Beside {
    Verify *verify;
    const int32_t *ids;
    Err failure; // of the oracle
} Beside;

static bool take_rows(void *arg, const LogitRows *rows) {
    Beside *b = arg;
    bool ok = !stop_wanted();
    for (int i = 0; ok && i < rows->n; i++)
        ok = verify_row(b->verify, b->ids, rows->position + i, rows->data + (size_t)i * rows->stride,
                        &b->failure);
    return ok;
}

bool verdict_take_ids(const Options *o, Verify *v, Engine *g, const int32_t *ids, int n, json_t **json,
                      Err *e) {
    if (!v || stop_wanted()) return true;
    Beside beside = {.verify = v, .ids = ids};
    bool ok = engine_logits(g, ids, 0, n < o->n_verify ? n : o->n_verify, take_rows, &beside, e);
    if (!ok && beside.failure.code) *e = beside.failure;
    return stop_wanted() || (ok && verdict_tell(o, v, json, e));
}

static void print_line(const Verdict *d, Buf *out) {
    const Limits *limits = &d->limits;
    buf_printf(out, "zgen: verify: %d step%s beside the scalar executor", d->n_steps,
               d->n_steps == 1 ? "" : "s");
    if (d->n_steps) {
        buf_printf(out, ": %s KL %.3g, max %.3g; NMSE %.3g", d->by_median ? "median" : "mean", d->run.kl,
                   d->run.max_kl, d->run.nmse);
        buf_printf(out, "; the same token first in %d", d->n_agree);
        if (d->n_agree < d->n_steps) buf_printf(out, ", else at a margin of %.3g at most", d->margin);
        buf_printf(out, " (limits: NMSE %.3g, margin %.3g", limits->nmse, limits->margin);
        if (isfinite(limits->kl)) buf_printf(out, ", KL %.3g", limits->kl);
        buf_printf(out, ")");
    }
    buf_printf(out, "\n");
}

static json_t *to_json(const Options *o, const Verdict *d) {
    const Limits *limits = &d->limits;
    bool differs = d->n_agree < d->n_steps;
    Err ignored;
    json_t *j =
        json_pack("{s:i,s:i,s:b,s:o,s:o,s:i,s:o,s:i}", "asked", o->n_verify, "steps", d->n_steps, "medians",
                  d->by_median, "kl", show_number(d->run.kl), "kl_max", show_number(d->run.max_kl),
                  "kl_max_step", d->run.max_step, "nmse", show_number(d->run.nmse), "agree", d->n_agree);
    json_object_set_new(
        j, "rounding",
        json_pack("{s:o,s:o}", "kl", show_number(d->rounding.kl), "nmse", show_number(d->rounding.nmse)));
    json_object_set_new(j, "margin", differs ? show_number(d->margin) : json_null());
    json_object_set_new(j, "margin_step", differs ? json_integer(d->margin_step) : json_null());
    json_object_set_new(j, "limits",
                        json_pack("{s:o,s:o,s:o}", "kl", show_number(limits->kl), "nmse",
                                  show_number(limits->nmse), "margin", show_number(limits->margin)));
    json_object_set_new(j, "passes", json_boolean(verify_passes(d, &ignored)));
    return j;
}

bool verdict_tell(const Options *o, const Verify *v, json_t **json, Err *e) {
    if (!v) return true;
    Verdict d = verify_verdict(v);
    Buf line = {0};
    print_line(&d, &line);
    if (json) *json = to_json(o, &d);
    bool ok = o->quiet || out_write_to(STDERR_FILENO, "standard error", line.data, line.n, e);
    buf_free(&line);
    return ok;
}

bool verdict_passes(const Verify *v, Err *e) {
    if (!v) return true;
    Verdict d = verify_verdict(v);
    return verify_passes(&d, e);
}
