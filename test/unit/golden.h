/* golden: whole models against exact results that another program computed, on any executor.
 *
 * NMSE is sum (a - b)^2 / sum b^2 over all positions, KL that of the exact distribution to ours.  Models with
 * experts are judged by their median position, and one position of ten may be ten times beyond the limit: a
 * route that flips is no error.
 *
 *     1  float activations                    NMSE <= 3e-5; on the scalar kernels with an f32 cache 1e-9
 *     3  8-bit activations                    NMSE and mean KL: four times those of llama.cpp's own run of
 *                                             the file, which its JSON records
 *     5  greedy tokens                        the exact path, left only where the exact margin between the
 *                                             two best tokens is small: below 0.05, with 8 bits below 0.5
 *     6  whole, token by token, in two parts  the same limits */
#ifndef ZGEN_TEST_GOLDEN_H
#define ZGEN_TEST_GOLDEN_H

#include "rig.h"
#include "../../src/run/divergence.h"
#include "../../src/run/engine.h"

#include <glob.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>

enum { MAX_PROMPT = RIG_MAX_ROWS, MAX_GREEDY = 256 };

typedef struct Case {
    const char *name;
    int n_ctx; // of the exact run: rotation may depend on it
    int n_prompt, n_greedy;
    int32_t prompt[MAX_PROMPT], greedy[MAX_GREEDY];
    double margin[MAX_GREEDY];
    double nmse, mean_kl; // of llama.cpp's default run
    float *exact;         // [n_prompt][n_vocab]
} Case;

typedef struct Golden {
    json_t *json;
    char path[256]; // of the model
    int n_vocab;
    bool experts, floats; // floats: no tensor is multiplied with 8-bit activations
    json_t *cases;
} Golden;

static inline int read_ids(const json_t *array, int32_t *out, int max) {
    int n = (int)json_array_size(array);
    if (n > max) n = max;
    for (int i = 0; i < n; i++) out[i] = (int32_t)json_integer_value(json_array_get(array, (size_t)i));
    return n;
}

static inline void read_margins(const json_t *array, double *out, int max) {
    for (int i = 0; i < max; i++) out[i] = json_number_value(json_array_get(array, (size_t)i));
}

static inline double number(const json_t *object, const char *run, const char *name) {
    return json_number_value(json_object_get(json_object_get(object, run), name));
}

/* NAME.json beside NAME.gguf. */
static inline bool golden_open(const char *path, Golden *g) {
    json_error_t error;
    *g = (Golden){.json = json_load_file(path, 0, &error), .floats = true};
    if (!g->json) {
        test_fail(__FILE__, __LINE__, "%s: %s", path, error.text);
        return false;
    }
    snprintf(g->path, sizeof g->path, "%.*s.gguf", (int)(strlen(path) - strlen(".json")), path);
    g->n_vocab = (int)json_integer_value(json_object_get(g->json, "n_vocab"));
    g->cases = json_object_get(g->json, "cases");
    const char *type;
    json_t *count;
    json_object_foreach(json_object_get(g->json, "tensor_types"), type,
                        count) if (strcmp(type, "F32") && strcmp(type, "F16") && strcmp(type, "BF16"))
        g->floats = false;
    g->experts = json_object_get(json_array_get(g->cases, 0), "router_min_gap") != NULL;
    return true;
}

static inline bool case_open(const Golden *g, size_t i, Case *c) {
    const json_t *j = json_array_get(g->cases, i);
    *c = (Case){.name = json_string_value(json_object_get(j, "name"))};
    c->n_ctx = (int)json_integer_value(json_object_get(j, "n_ctx"));
    c->n_prompt = read_ids(json_object_get(j, "prompt"), c->prompt, MAX_PROMPT);
    c->n_greedy = read_ids(json_object_get(j, "greedy_exact"), c->greedy, MAX_GREEDY);
    read_margins(json_object_get(j, "greedy_margin"), c->margin, c->n_greedy);
    c->nmse = number(j, "default_run", "nmse");
    c->mean_kl = number(j, "default_run", "mean_kl");
    char path[512];
    const char *file = json_string_value(json_object_get(j, "exact_logits"));
    snprintf(path, sizeof path, "%.*s%s", (int)(strrchr(g->path, '/') + 1 - g->path), g->path, file);
    size_t n = (size_t)c->n_prompt * (size_t)g->n_vocab;
    c->exact = mem_new(n, sizeof *c->exact);
    FILE *f = fopen(path, "rb");
    bool ok = f && fread(c->exact, sizeof *c->exact, n, f) == n && n > 0 && c->n_greedy > 0;
    if (f) fclose(f);
    if (!ok) test_fail(__FILE__, __LINE__, "%s is missing or short", path);
    return ok;
}

/* ---- Comparing logits ---- */

typedef struct Distance {
    double nmse, kl;               // over all positions
    double median_nmse, median_kl; // over positions
    int n_far;                     // positions beyond ten times the limit
} Distance;

static inline int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline double median(double *x, int n) {
    qsort(x, (size_t)n, sizeof *x, ascending);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static inline Distance distance(const float *run, const float *exact, int n, int n_vocab, double limit) {
    double error = 0, power = 0, nmse[MAX_PROMPT], kl[MAX_PROMPT];
    Distance d = {0};
    for (int p = 0; p < n; p++, run += n_vocab, exact += n_vocab) {
        double e = 0, w = 0;
        for (int i = 0; i < n_vocab; i++) {
            double delta = (double)run[i] - exact[i];
            e += delta * delta;
            w += (double)exact[i] * exact[i];
        }
        error += e;
        power += w;
        nmse[p] = e / w;
        kl[p] = kl_divergence(exact, run, n_vocab);
        d.kl += kl[p] / n;
        d.n_far += !(nmse[p] <= 10 * limit); // a NaN is far too
    }
    d.nmse = error / power;
    d.median_nmse = median(nmse, n);
    d.median_kl = median(kl, n);
    return d;
}

/* ---- Rules 1, 3, 4 and 6 ---- */

typedef struct Mode {
    RigConfig config;
    double nmse, kl, margin; // limits: rules 1 or 3, and 5
} Mode;

static inline const char *mode_name(const Mode *m) {
    return m->config.executor ? m->config.executor->name : m->config.isa;
}

static inline void check_logits(const Golden *g, const Case *c, const Mode *m, const char *feeding,
                                const float *logits) {
    Distance d = distance(logits, c->exact, c->n_prompt, g->n_vocab, m->nmse);
    double nmse = g->experts ? d.median_nmse : d.nmse, kl = g->experts ? d.median_kl : d.kl;
    bool ok = nmse <= m->nmse && kl <= m->kl && (!g->experts || d.n_far * 10 <= c->n_prompt);
    if (!ok)
        test_fail(__FILE__, __LINE__,
                  "%s %s, %s%s, %s: NMSE %.3g of %.3g, KL %.3g of %.3g, %d positions far off", g->path,
                  c->name, mode_name(m), m->config.act_f32 ? " f32" : "", feeding, nmse, m->nmse, kl, m->kl,
                  d.n_far);
}

static inline void check_feedings(const Golden *g, const Case *c, const Mode *m, Rig *rig) {
    static const struct {
        const char *name;
        int first, step; // rows of the first run, and of the others
    } feedings[] = {{"whole", MAX_PROMPT, 1}, {"two parts", 11, MAX_PROMPT}, {"token by token", 1, 1}};
    float *logits = rig_rows(rig, c->n_prompt);
    for (size_t i = 0; i < sizeof feedings / sizeof *feedings; i++) {
        for (int at = 0, n; at < c->n_prompt; at += n) {
            n = at ? feedings[i].step : feedings[i].first;
            if (n > c->n_prompt - at) n = c->n_prompt - at;
            if (!rig_feed(rig, 0, c->prompt, at, at + n, logits + (size_t)at * (size_t)g->n_vocab)) break;
        }
        check_logits(g, c, m, feedings[i].name, logits);
    }
    free(logits);
}

/* ---- Rule 5 ---- */

/* Goes on from the last token of the prompt, which is computed once more: it came in a run of its own, so that a state
 * can go back by it. */
static inline void check_greedy(const Golden *g, const Case *c, const Mode *m, Rig *rig) {
    int32_t token = c->prompt[c->n_prompt - 1];
    for (int i = 0; i < c->n_greedy; i++) {
        Row row = {token, 0, c->n_prompt - 1 + i, true};
        Err e;
        if (!rig_run_ops(rig, &row, 1, 0, rig->plan->n_ops, NULL, &token, &e)) {
            test_fail(__FILE__, __LINE__, "%s: %s", g->path, e.text);
            return;
        }
        if (token == c->greedy[i]) continue;
        if (c->margin[i] >= m->margin)
            test_fail(__FILE__, __LINE__, "%s %s, %s: greedy step %d gives %d, not %d, at a margin of %.3f",
                      g->path, c->name, mode_name(m), i, token, c->greedy[i], c->margin[i]);
        return;
    }
}

static inline void check_mode(const Golden *g, const Case *c, Mode m) {
    Rig rig;
    m.config.n_ctx = c->n_ctx;
    Err e;
    if (!rig_open(&rig, g->path, m.config)) return;
    CHECK(rig.n_vocab == g->n_vocab);
    if (exec_check_kv(rig.plan, m.config.kv_type, &e)) {
        check_feedings(g, c, &m, &rig);
        check_greedy(g, c, &m, &rig);
    } else // heads of 48 have no scales of 32
        CHECK(m.config.kv_type == KV_Q8_0, "%s: %s", g->path, e.text);
    rig_close(&rig);
}

/* The limits of rule 3, or of rule 1 for a file in which no activation is rounded. */
static inline Mode mode_of(const Golden *g, const Case *c, RigConfig config) {
    if (g->floats) return (Mode){config, 3e-5, INFINITY, 0.05};
    return (Mode){config, 4 * c->nmse, 4 * c->mean_kl, 0.5};
}

/* How far a cache may take the logits.  A number of q8_0 is off by a step of 1/127 of the largest of 32,
 * evenly spread: an NMSE of 3e-5 where that is 2.3 times the root of their mean square.  One of fp8 is off by
 * up to 1/16 of itself: 7e-4.  Layers of random weights make up to 15 times that of it; a number in the wrong
 * place makes 1. */
static inline double cache_nmse(KvType type) {
    return type == KV_Q8_0 ? 30 * 3e-5 : type == KV_FP8 ? 30 * 7e-4 : 0;
}

/* Calls check with every case of one file. */
static inline void golden_cases(const char *path,
                                void (*check)(const Golden *g, const Case *c, RigConfig config),
                                RigConfig config) {
    Golden g;
    if (!golden_open(path, &g)) return;
    CHECK(json_array_size(g.cases) > 0);
    for (size_t i = 0; i < json_array_size(g.cases); i++) {
        Case c;
        if (case_open(&g, i, &c)) check(&g, &c, config);
        free(c.exact);
    }
    json_decref(g.json);
}

/* Whether the executor (NULL: the CPU's) runs the model of NAME.json; any other model must be refused by
 * name. */
static inline bool golden_runs(const char *path, const ExecOps *executor) {
    char model[512];
    Gguf *g = NULL;
    Err e = {0};
    const Capability *can = executor ? executor->can : cpu_exec.can;
    snprintf(model, sizeof model, "%.*s.gguf", (int)(strlen(path) - strlen(".json")), path);
    bool opened = gguf_open(model, &g, &e);
    Plan *plan = opened ? plan_build(g, &(PlanConfig){.can = *can}, &e) : NULL;
    bool ok = plan && plan_supported(plan, NULL, 0, &e);
    CHECK(ok || strstr(e.text, plan ? "does not run" : "not supported"), "%s: %s", model, e.text);
    plan_free(plan);
    gguf_close(g);
    return ok;
}

/* Calls check with every case of the files of test/data that have a name of the pattern and that the executor
 * runs; the CPU runs all of them. */
static inline void golden_each_of(const char *pattern,
                                  void (*check)(const Golden *g, const Case *c, RigConfig config),
                                  RigConfig config) {
    glob_t files;
    char path[128];
    snprintf(path, sizeof path, "test/data/models/%s.json", pattern);
    REQUIRE(glob(path, 0, NULL, &files) == 0, "%s", path);
    size_t n = 0;
    for (size_t i = 0; i < files.gl_pathc; i++)
        if (golden_runs(files.gl_pathv[i], config.executor)) {
            golden_cases(files.gl_pathv[i], check, config);
            n++;
        }
    CHECK(n > 0 && (config.executor || n == files.gl_pathc), "%zu of %zu files", n, files.gl_pathc);
    globfree(&files);
}

/* All of them. */
static inline void golden_each(void (*check)(const Golden *g, const Case *c, RigConfig config),
                               RigConfig config) {
    golden_each_of("*-*", check, config);
}

/* ---- The demo model ---- */

enum { MAX_STORIES = 32 };

typedef struct Story {
    const char *prompt, *text;
    int32_t ids[MAX_GREEDY], greedy[MAX_GREEDY];
    double margin[MAX_GREEDY + 1]; // the last one is that of the end
    int n_ids, n_greedy;
} Story;

static inline Story story_of(const json_t *j) {
    Story s = {.prompt = json_string_value(json_object_get(j, "prompt")),
               .text = json_string_value(json_object_get(j, "text"))};
    s.n_ids = read_ids(json_object_get(j, "ids"), s.ids, MAX_GREEDY);
    s.n_greedy = read_ids(json_object_get(j, "greedy"), s.greedy, MAX_GREEDY);
    read_margins(json_object_get(j, "margins"), s.margin, s.n_greedy + 1);
    return s;
}

static inline double smallest_margin(const Story *s) {
    double smallest = s->margin[0];
    for (int i = 1; i <= s->n_greedy; i++) smallest = fmin(smallest, s->margin[i]);
    return smallest;
}

/* The exact path, or left at a margin below the limit; an answer of wide margins to the letter. */
static inline void check_story(const char *path, const char *name, const Story *s, const Sequence *q,
                               double limit) {
    int i = 0;
    while (i < s->n_greedy && i < q->n_generated && q->ids[q->n_prompt + i] == s->greedy[i]) i++;
    if (i == s->n_greedy && i == q->n_generated) {
        CHECK(q->finish == FINISH_STOP);
        CHECK(q->text.n == strlen(s->text) && memcmp(q->text.data, s->text, q->text.n) == 0);
    } else if (s->margin[i] >= limit)
        test_fail(__FILE__, __LINE__,
                  "%s, %s: '%s' goes another way at step %d, at a margin of %.3f: '%.60s'", path, name,
                  s->prompt, i, s->margin[i], q->text.data ? q->text.data : "");
}

static inline int stories_open(const json_t *json, double from, Story stories[MAX_STORIES]) {
    int n = 0;
    size_t i;
    json_t *j;
    json_array_foreach(json_object_get(json, "cases"), i, j) {
        if (n < MAX_STORIES) stories[n] = story_of(j);
        if (smallest_margin(&stories[n]) >= from) n++;
    }
    return n;
}

typedef struct StoryRun { // one story on an engine
    int seq;
    bool checked;
} StoryRun;

static inline bool begin_story(Engine *engine, const Story *s, StoryRun *t, Err *e) {
    Request r = {
        .ids = s->ids, .n_ids = s->n_ids, .n_predict = -1, .params = {.top_p = 1, .repeat_penalty = 1}};
    *t = (StoryRun){.seq = engine_add(engine, &r, e)};
    return t->seq >= 0;
}

/* Runs the stories on one engine, beginning another one every `every` steps (0: all at once), and checks each
 * at its end, before its slot is used again. */
static inline void run_stories(Engine *engine, const char *path, const char *name, const Story *stories,
                               int n, int every, double limit, Err *e) {
    StoryRun runs[MAX_STORIES];
    int n_begun = 0, n_checked = 0;
    for (int step = 0; n_checked < n && step < 10000; step++) {
        for (; n_begun < n && n_begun * every <= step; n_begun++)
            if (!begin_story(engine, &stories[n_begun], &runs[n_begun], e)) return;
        if (!engine_step(engine, e) && e->code) return;
        for (int k = 0; k < n_begun; k++) {
            const Sequence *q = engine_sequence(engine, runs[k].seq);
            if (runs[k].checked || q->finish == FINISH_NONE) continue;
            check_story(path, name, &stories[k], q, limit);
            runs[k].checked = true;
            n_checked++;
        }
    }
    CHECK(n_checked == n, "%d of %d stories came to an end", n_checked, n);
}

/* All stories whose margins are at least `from`, on an engine of its own. */
static inline void check_stories(const char *path, EngineConfig config, int every, double from,
                                 double limit) {
    json_error_t error;
    json_t *json = json_load_file("test/data/models/stories.golden.json", 0, &error);
    REQUIRE(json, "test/data/models/stories.golden.json");
    static Story stories[MAX_STORIES];
    int n = stories_open(json, from, stories);
    CHECK(n >= 10);
    Model model;
    Engine *engine = NULL;
    Err e = {0};
    config.n_ctx = 256;
    config.n_seq = MAX_STORIES;
    config.n_threads = 1;
    if (!model_open(path, &model, &e) || !engine_open(&model, &config, &engine, &e))
        test_fail(__FILE__, __LINE__, "%s: %s", path, e.text);
    const char *name = config.isa ? config.isa : "cuda";
    if (engine) run_stories(engine, path, name, stories, n, every, limit, &e);
    CHECK(e.code == 0, "%s", e.text);
    engine_close(engine);
    model_close(&model);
    json_decref(json);
}

#endif
