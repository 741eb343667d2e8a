/* verdict: see verdict.h. */
#include "verdict.h"
#include "out.h"
#include "show.h"
#include "stop.h"

#include <math.h>
#include <unistd.h>

bool verdict_open(Runner *r, Err *e) {
    int n = r->options->n_verify;
    bool ok = !n || verify_open(&r->model, &r->config, n, &r->verify, e);
    return ok || (stop_wanted() ? stop_err(e) : false);
}

bool verdict_of_sequence(const Runner *r, json_t **json, Err *e) {
    if (!r->verify || stop_wanted()) return true;
    return verify_sequence(r->verify, r->engine, stop_wanted, e) && verdict_print(r, json, e);
}

typedef struct Comparison {
    Verify *verify;
    const int32_t *ids;
    Err failure; // of the scalar engine
} Comparison;

static bool compare_rows(void *arg, const LogitRows *rows) {
    Comparison *c = arg;
    bool ok = !stop_wanted();
    for (int i = 0; ok && i < rows->n; i++)
        ok = verify_row(c->verify, c->ids, rows->position + i, rows->data + (size_t)i * rows->stride,
                        &c->failure);
    return ok;
}

bool verdict_of_ids(const Runner *r, const int32_t *ids, int n, json_t **json, Err *e) {
    if (!r->verify || stop_wanted()) return true;
    int n_steps = n < r->options->n_verify ? n : r->options->n_verify;
    Comparison c = {.verify = r->verify, .ids = ids};
    bool ok = engine_logits(r->engine, ids, 0, n_steps, compare_rows, &c, e);
    if (!ok && c.failure.code) *e = c.failure;
    return stop_wanted() || (ok && verdict_print(r, json, e));
}

static void add_line(const Verdict *d, Buf *out) {
    const Limits *limits = &d->limits;
    buf_printf(out, "zgen: verify: %d step%s compared with the scalar executor", d->n_steps,
               d->n_steps == 1 ? "" : "s");
    if (d->n_steps) {
        buf_printf(out, ": %s KL %.3g, max %.3g; NMSE %.3g", d->by_median ? "median" : "mean", d->run.kl,
                   d->run.max_kl, d->run.nmse);
        buf_printf(out, "; the same token ranked first in %d", d->n_agree);
        if (d->n_agree < d->n_steps) buf_printf(out, ", otherwise with a margin of at most %.3g", d->margin);
        buf_printf(out, " (limits: NMSE %.3g, margin %.3g", limits->nmse, limits->margin);
        if (isfinite(limits->kl)) buf_printf(out, ", KL %.3g", limits->kl);
        buf_printf(out, ")");
    }
    buf_printf(out, "\n");
}

static json_t *to_json(int n_asked, const Verdict *d) {
    const Limits *limits = &d->limits;
    bool differs = d->n_agree < d->n_steps;
    Err ignored;
    json_t *j =
        json_pack("{s:i,s:i,s:b,s:o,s:o,s:i,s:o,s:i}", "asked", n_asked, "steps", d->n_steps, "medians",
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

bool verdict_print(const Runner *r, json_t **json, Err *e) {
    if (!r->verify) return true;
    Verdict d = verify_verdict(r->verify);
    Buf line = {0};
    add_line(&d, &line);
    if (json) *json = to_json(r->options->n_verify, &d);
    bool ok =
        r->options->notices.quiet || out_write_to(STDERR_FILENO, "standard error", line.data, line.n, e);
    buf_free(&line);
    return ok;
}

bool verdict_passes(const Runner *r, Err *e) {
    if (!r->verify) return true;
    Verdict d = verify_verdict(r->verify);
    return verify_passes(&d, e);
}
