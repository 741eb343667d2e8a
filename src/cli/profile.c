/* profile: see profile.h. */
#include "profile.h"
#include "out.h"
#include "stop.h"
#include "../base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct ProfileRow {
    const Op *op; // the first op of the row
    int calls;
    double seconds, bytes; // summed over the calls
} ProfileRow;

typedef struct Table {
    Profile profile;
    bool is_by_op;
    ProfileRow *rows; // [n_rows] one for each op, or for each code that occurs
    int n_rows;
    ProfileRow sum;
    double limit; // read bandwidth in bytes per second, 0: not known
} Table;

/* ---- adding up ---- */

static void add(ProfileRow *row, const Op *op, double seconds, double bytes) {
    if (!row->calls++) row->op = op;
    row->seconds += seconds;
    row->bytes += bytes;
}

static Table table_of(Engine *g, const Profile *profile, bool is_by_op) {
    const Plan *p = engine_plan(g);
    Table t = {.profile = *profile, .is_by_op = is_by_op};
    t.rows = mem_new(t.is_by_op ? (size_t)p->n_ops : OP_COUNT, sizeof *t.rows);
    for (int i = 0; i < p->n_ops; i++) {
        const Op *op = &p->ops[i];
        Cost c = plan_cost(p, op, kv_element_bytes(engine_kv_type(g)), profile->n_past, 1);
        double bytes = c.bytes_fixed + c.bytes_rows;
        add(&t.rows[t.is_by_op ? i : (int)op->code], op, profile->seconds[i], bytes);
        add(&t.sum, op, profile->seconds[i], bytes);
    }
    for (int i = 0; i < (t.is_by_op ? p->n_ops : OP_COUNT); i++)
        if (t.rows[i].calls) t.rows[t.n_rows++] = t.rows[i];
    t.limit = engine_read_bandwidth(g);
    return t;
}

static double per_second(double bytes, double seconds) {
    return seconds > 0 ? bytes / seconds : 0;
}

/* Seconds that timing adds to an op. */
static double overhead(const Table *t) {
    return (t->sum.seconds - t->profile.step) / t->sum.calls;
}

/* ---- as text ---- */

static void add_cells(const Table *t, int calls, double seconds, double bytes, Buf *out) {
    double speed = per_second(bytes, seconds);
    if (calls)
        buf_printf(out, " %5d", calls);
    else
        buf_printf(out, " %5s", "");
    buf_printf(out, " %10.1f %5.1f", seconds * 1e6, 100 * seconds / t->sum.seconds);
    if (bytes > 0) buf_printf(out, " %10.3f %8.2f", bytes / 1e6, speed / 1e9);
    if (bytes > 0 && t->limit > 0) buf_printf(out, " %10.0f", 100 * speed / t->limit);
    buf_printf(out, "\n");
}

static void add_label(const Table *t, const Op *op, Buf *out) {
    char layer[16] = "-";
    if (op->layer >= 0) snprintf(layer, sizeof layer, "%d", op->layer);
    if (t->is_by_op)
        buf_printf(out, "%4s %-7s %-14s", layer, op_name(op->code), op->name);
    else
        buf_printf(out, "%-12s", op_name(op->code));
}

static void add_table(const Table *t, const Engine *g, Buf *out) {
    const Profile *p = &t->profile;
    int width = t->is_by_op ? 27 : 12;
    bool is_cached = false;
    buf_printf(out, "\n%-*s calls         us     %%         MB     GB/s  %% of limit\n", width,
               t->is_by_op ? "layer, op" : "op");
    for (int i = 0; i < t->n_rows; i++) {
        const ProfileRow *r = &t->rows[i];
        add_label(t, r->op, out);
        add_cells(t, r->calls, r->seconds, r->bytes, out);
        is_cached |= t->limit > 0 && per_second(r->bytes, r->seconds) > 1.05 * t->limit;
    }
    buf_printf(out, "%-*s", width, "sum");
    add_cells(t, t->sum.calls, t->sum.seconds, t->sum.bytes, out);
    buf_printf(out, "%-*s", width, "whole step");
    add_cells(t, 0, p->step, t->sum.bytes, out);
    buf_printf(out,
               "Mean of %d decode steps after %d tokens, executor %s; limit: memory read at %.1f GB/s.\n"
               "Timing adds %.2f us to an op: the difference between the sum and a whole step.\n"
               "The profile took %.1f s.\n",
               p->repeats, p->n_past, engine_executor(g), t->limit / 1e9, overhead(t) * 1e6, p->wall);
    if (is_cached) buf_printf(out, "More than 100 %% of the limit: the bytes came from caches.\n");
}

/* ---- as JSON ---- */

static json_t *row_json(const Table *t, const ProfileRow *r) {
    double speed = per_second(r->bytes, r->seconds);
    json_t *row = json_pack("{s:s,s:i,s:f,s:I,s:f,s:f}", "op", op_name(r->op->code), "calls", r->calls, "us",
                            r->seconds * 1e6, "bytes", (json_int_t)r->bytes, "gb_s", speed / 1e9, "share",
                            per_second(speed, t->limit));
    if (!t->is_by_op) return row;
    json_object_set_new(row, "layer", json_integer(r->op->layer));
    json_object_set_new(row, "name", json_string(r->op->name));
    return row;
}

static json_t *table_json(const Table *t) {
    const Profile *p = &t->profile;
    json_t *rows = json_array();
    for (int i = 0; i < t->n_rows; i++) json_array_append_new(rows, row_json(t, &t->rows[i]));
    return json_pack("{s:i,s:i,s:f,s:f,s:f,s:f,s:f,s:f,s:o}", "n_past", p->n_past, "repeats", p->repeats,
                     "seconds", p->wall, "limit_gb_s", t->limit / 1e9, "sum_us", t->sum.seconds * 1e6,
                     "step_us", p->step * 1e6, "step_gb_s", per_second(t->sum.bytes, p->step) / 1e9,
                     "overhead_us", overhead(t) * 1e6, "rows", rows);
}

bool profile_print(const Runner *r, int n_past, json_t **json, Err *e) {
    const char *rows = r->options->profile;
    if (!rows) return true;
    Profile profile = {0};
    Buf text = {0};
    bool ok = engine_profile(r->engine, n_past, &profile, e);
    if (stop_wanted()) ok = stop_err(e);
    if (ok) {
        Table t = table_of(r->engine, &profile, strcmp(rows, "ops") == 0);
        add_table(&t, r->engine, &text);
        if (json) *json = table_json(&t);
        free(t.rows);
        ok = out_write_to(STDERR_FILENO, "standard error", text.data, text.n, e);
    }
    buf_free(&text);
    free(profile.seconds);
    return ok;
}
